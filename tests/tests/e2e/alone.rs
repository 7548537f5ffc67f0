//! The plugins run no program: not `ip`, not `nft`, not a delegate that is in the same executable.

use anyhow::{Context, Result, ensure};
use podnet_tests::{Side, World};
use serde_json::Value;

use crate::policy;

/// Plugins that are called one after the other, each with the result of the one before.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Names and configurations.
    pub(crate) plugins: Vec<(&'static str, String)>,
    /// `ip` commands on the node before.
    pub(crate) host: &'static [&'static str],
}

/// The plugin that needs the agent's table, and an agent that opens what it has closed.
const POLICY: &str = "podnet-policy";

impl Chain {
    /// What has to be there before the first is called.
    pub(crate) fn furnish(&self, world: &World) -> Result<()> {
        world.host_ip(self.host)?;
        if self.plugins.iter().any(|it| it.0 == POLICY) { policy::make_table(world) } else { Ok(()) }
    }

    /// What an agent does after an ADD of one of them.
    pub(crate) fn answer(&self, world: &World, plugin: &str, result: &Value) -> Result<()> {
        if plugin == POLICY { policy::arm(world, result) } else { Ok(()) }
    }
}

/// Every plugin that runs on each kernel, with what it has rules, sysctls or devices for.
pub(crate) fn chains() -> Vec<Chain> {
    const DEVICE: &[&str] = &["link add dev0 type veth peer name far0", "link set dev0 up"];
    let ipam = r#""ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}"#;
    let with = |keys: &str| format!("{{{keys}{ipam}}}");
    let mut all = Vec::new();
    for (plugin, text) in [
        (
            "portmap",
            r#"{"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp"}]}}"#,
        ),
        ("firewall", "{}"),
        (
            "bandwidth",
            r#"{"ingressRate":8000000,"ingressBurst":800000,"egressRate":8000000,"egressBurst":800000}"#,
        ),
        (
            "tuning",
            r#"{"dataDir":"@DIR@/tuning","mtu":1400,"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"0"}}"#,
        ),
        ("sbr", "{}"),
    ] {
        let bridge = with(r#""isGateway":true,"ipMasq":true,"macspoofchk":true,"#);
        all.push(Chain { plugins: vec![("bridge", bridge), (plugin, text.to_owned())], host: &[] });
    }
    let policy = (POLICY, r#"{"dataDir":"@DIR@/podnet"}"#.to_owned());
    all.push(Chain { plugins: vec![("ptp", with("")), policy], host: &[] });
    for (plugin, text, host) in [
        ("loopback", "{}".to_owned(), &[][..]),
        ("ptp", with(r#""ipMasq":true,"#), &[]),
        ("tap", with(r#""mac":"02:00:00:00:00:01","owner":0,"group":0,"#), &[]),
        ("tap", with(""), &[]),
        ("host-device", with(r#""device":"dev0","#), DEVICE),
        ("macvlan", with(r#""master":"dev0","#), DEVICE),
        ("bridge", r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24"}]}}"#.to_owned(), &[]),
    ] {
        all.push(Chain { plugins: vec![(plugin, text)], host });
    }
    all
}

/// ADD, CHECK and DEL of a chain under `strace`, which sees each program that is started.
fn starts_no_program(chain: &Chain) -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    chain.furnish(&world)?;
    let log = world.dir().join("strace").to_string_lossy().into_owned();
    let strace = ["strace", "-f", "-o", &log, "-e", "trace=execve,execveat"];
    let mut result = None;
    for verb in ["ADD", "CHECK", "DEL"] {
        for (plugin, text) in &chain.plugins {
            let call = world.call(plugin, verb).config("1.0.0", text).through(&strace);
            let call = result.as_ref().map_or(call.clone(), |result| call.prev(result));
            let outcome = call.run().context("run strace: is it installed?")?;
            ensure!(outcome.exit == Some(0), "{plugin} {verb}: {outcome:?}");
            if verb == "ADD" {
                let added = outcome.json()?;
                chain.answer(&world, plugin, &added)?;
                result = Some(added);
            }
            let log = std::fs::read_to_string(&log).context("read strace's log")?;
            // The first is strace's own, of the plugin.
            ensure!(log.matches("exec").count() == 1, "{plugin} {verb} starts programs:\n{log}");
        }
    }
    Ok(())
}

#[test]
fn no_verb_starts_a_program() -> Result<()> {
    chains().iter().try_for_each(|chain| starts_no_program(chain).with_context(|| format!("{chain:?}")))
}

/// The negative control: a delegate that is another program is seen.
#[test]
fn a_program_that_is_started_is_seen() -> Result<()> {
    let foreign = r#"{"ipam":{"type":"delegate"}}"#;
    let world = World::new(Side::Podnet, 1)?;
    let debian = Side::Debian.dir()?;
    let log = world.dir().join("strace").to_string_lossy().into_owned();
    std::os::unix::fs::symlink(debian.join("static"), world.dir().join("delegate"))?;
    let strace = ["strace", "-f", "-o", &log, "-e", "trace=execve,execveat"];
    let call = world.call("tap", "ADD").config("1.0.0", foreign).env("CNI_PATH", world.dir());
    call.through(&strace).run()?;
    let log = std::fs::read_to_string(&log)?;
    ensure!(log.matches("exec").count() > 1, "{log}");
    Ok(())
}
