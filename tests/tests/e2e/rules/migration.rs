//! Pods that the reference masqueraded are ours to check and delete, and the other way round.
//!
//! Debian's 1.1.1 has the iptables backend only, here with iptables-nft. The nftables backend of later releases
//! finds rules by the comment alone, whose hashes are tested where they are made.

use anyhow::{Result, ensure};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{MASQ, bridge, gc, lines_with, print_of, ruleset};

/// The node's rules of iptables-nft, both families.
fn iptables(world: &World) -> Result<String> {
    let v4 = print_of(&world.host, "iptables-nft", &["-t", "nat", "-S"], "")?;
    Ok(v4 + &print_of(&world.host, "ip6tables-nft", &["-t", "nat", "-S"], "")?)
}

#[test]
fn rules_of_the_references_iptables_backend_are_removed() -> Result<()> {
    for netns in ["@POD@", "", "/run/netns/gone"] {
        for with_previous in [true, false] {
            let mut world = World::new(Side::Debian, 2)?;
            let add = |world: &World, pod| world.call("bridge", "ADD").config("1.0.0", MASQ).pod(pod).run();
            let first = add(&world, 0)?.result()?;
            let rules = iptables(&world)?;
            assert_eq!(rules.matches("-A POSTROUTING").count(), 2, "{rules}");
            add(&world, 1)?.result()?;
            let with_both = iptables(&world)?;

            world.switch(Side::Podnet)?;
            world.call("bridge", "CHECK").config("1.0.0", MASQ).prev(&first).run()?.silent()?;
            let del = world.call("bridge", "DEL").config("1.0.0", MASQ).env("CNI_NETNS", world.fill(netns));
            let del = if with_previous { del.prev(&first) } else { del };
            del.run()?.silent()?;
            // Only the other pod's rules are left, each as it was.
            let left = iptables(&world)?;
            ensure!(left.contains("id: \\\"c1\\\"") && !left.contains("id: \\\"c0\\\""), "{left}");
            for line in with_both.lines().filter(|line| line.contains("id: \\\"c1\\\"")) {
                ensure!(left.contains(line), "gone: {line}");
            }
            world.call("bridge", "DEL").config("1.0.0", MASQ).pod(1).run()?.silent()?;
            assert_eq!(iptables(&world)?.matches("CNI-").count(), 0, "{}", iptables(&world)?);
        }
    }
    Ok(())
}

/// The reference's chain does not know interfaces: another attachment's rules in it stay.
#[test]
fn the_references_shared_chain_goes_with_its_last_attachment() -> Result<()> {
    let mut world = World::new(Side::Debian, 1)?;
    let call = |world: &World, verb: &str, ifname: &str, prev: Option<&serde_json::Value>| {
        let call = world.call("bridge", verb).config("1.0.0", MASQ).env("CNI_IFNAME", ifname);
        match prev {
            Some(result) => call.prev(result).run(),
            None => call.run(),
        }
    };
    let first = call(&world, "ADD", "eth0", None)?.result()?;
    let text = MASQ.replace("\"isDefaultGateway\":true,", "");
    let second =
        world.call("bridge", "ADD").config("1.0.0", &text).env("CNI_IFNAME", "net1").run()?.result()?;
    world.switch(Side::Podnet)?;
    call(&world, "DEL", "eth0", Some(&first))?.silent()?;
    let rules = iptables(&world)?;
    ensure!(rules.matches("-A POSTROUTING").count() == 2 && rules.contains("-N CNI-"), "{rules}");
    call(&world, "CHECK", "net1", Some(&second))?.silent()?;
    call(&world, "DEL", "net1", Some(&second))?.silent()?;
    ensure!(!iptables(&world)?.contains("CNI-"), "{}", iptables(&world)?);
    Ok(())
}

#[test]
fn gc_removes_stale_chains_of_the_references_iptables_backend() -> Result<()> {
    let mut world = World::new(Side::Debian, 2)?;
    for pod in 0..2 {
        world.call("bridge", "ADD").config("1.0.0", MASQ).pod(pod).run()?.result()?;
    }
    world.switch(Side::Podnet)?;
    let before = ruleset(&world)?;
    gc(
        &world,
        &MASQ.replace("\"ipMasq\"", "\"x\""),
        r#"[{"containerID":"c0","ifname":"eth0"},{"containerID":"c1","ifname":"eth0"}]"#,
    )?;
    assert_eq!(ruleset(&world)?, before);
    gc(&world, MASQ, r#"[{"containerID":"c1","ifname":"eth0"}]"#)?;
    let left = iptables(&world)?;
    ensure!(left.contains("id: \\\"c1\\\"") && !left.contains("id: \\\"c0\\\""), "{left}");
    Ok(())
}

/// 1.1.1 knows no nftables: its DEL removes link and address, leaves our rule and says that its own chain is not
/// there. Our DEL or GC takes the rule.
#[test]
fn rules_of_ours_outlive_an_old_references_del_until_del_or_gc_of_ours() -> Result<()> {
    for by_gc in [true, false] {
        let mut world = World::new(Side::Podnet, 1)?;
        let result = world.call("bridge", "ADD").config("1.0.0", MASQ).run()?.result()?;
        world.switch(Side::Debian)?;
        world.call("bridge", "CHECK").config("1.0.0", MASQ).prev(&result).run()?.silent()?;
        let error = world.call("bridge", "DEL").config("1.0.0", MASQ).prev(&result).run()?.error()?;
        ensure!(error.msg.contains("does not exist"), "{error:?}");
        assert!(world.reservations(NETWORK)?.is_empty());
        world.switch(Side::Podnet)?;
        assert_eq!(lines_with(&world, "masquerade comment")?, 2);
        match by_gc {
            true => gc(&world, MASQ, "[]")?,
            false => bridge(&world, "DEL", MASQ).run()?.silent()?,
        }
        assert_eq!(lines_with(&world, "cni_plugins")?, 0);
    }
    Ok(())
}
