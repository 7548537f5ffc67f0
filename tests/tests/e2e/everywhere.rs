//! The plugins where a node is not root's own: in a user namespace, as rootless runtimes do, and with /proc/sys read-only,
//! as in a container, where every value is right already.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use podnet_tests::rootless::Rootless;
use podnet_tests::sealed::{read_only, sealed};
use podnet_tests::world::Call;
use podnet_tests::{Side, World};

use crate::alone::{Chain, chains};

/// ADD, CHECK and DEL of each plugin of a chain, called by `call`.
fn works<'w>(chain: &Chain, world: &World, call: impl Fn(&str, &str) -> Call<'w>) -> Result<()> {
    let mut result = None;
    for verb in ["ADD", "CHECK", "DEL"] {
        for (plugin, text) in &chain.plugins {
            let call = call(plugin, verb).config("1.0.0", text);
            let call = result.as_ref().map_or(call.clone(), |result| call.prev(result));
            let outcome = call.run()?;
            ensure!(outcome.exit == Some(0), "{plugin} {verb}: {outcome:?}");
            if verb == "ADD" {
                let added = outcome.json()?;
                chain.answer(world, plugin, &added)?;
                result = Some(added);
            }
        }
    }
    Ok(())
}

#[test]
fn every_plugin_works_in_a_user_namespace() -> Result<()> {
    for chain in chains() {
        let rootless = Rootless::new(Side::Podnet, 1)?;
        chain.furnish(&rootless.world)?;
        let before = rootless.world.snapshot()?.host.facts;
        works(&chain, &rootless.world, |plugin, verb| rootless.call(plugin, verb, 0))
            .with_context(|| format!("{chain:?}"))?;
        let left = before.changes(&rootless.world.snapshot()?.host.facts);
        let left: Vec<_> = left.iter().filter(|change| change.path.contains("/veth")).collect();
        ensure!(left.is_empty(), "{chain:?} leaves {left:?}");
    }
    Ok(())
}

#[test]
fn every_plugin_works_where_proc_sys_is_read_only_and_right() -> Result<()> {
    sealed(|| {
        let worlds = chains()
            .into_iter()
            .map(|chain| {
                let world = World::new(Side::Podnet, 1)?;
                chain.furnish(&world)?;
                world.host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
                Ok((chain, world))
            })
            .collect::<Result<Vec<_>>>()?;
        read_only(Path::new("/proc/sys"))?;
        for (chain, world) in &worlds {
            works(chain, world, |plugin, verb| world.call(plugin, verb))
                .with_context(|| format!("{chain:?}"))?;
        }
        // The negative control: what is not right yet cannot be set, and that is said.
        let (_, world) = &worlds[0];
        let text = r#"{"dataDir":"@DIR@/tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}}"#;
        let bridge = world.call("bridge", "ADD").config("1.0.0", "{}").container("c9").run()?.json()?;
        let refused = world.call("tuning", "ADD").config("1.0.0", text).prev(&bridge).run()?;
        ensure!(refused.error()?.msg.contains("read-only"), "{refused:?}");
        Ok(())
    })
}
