//! A node is switched between Debian's plugins (1.1.1, iptables) and ours with pods running.

use anyhow::{Result, ensure};
use podnet_tests::{Side, World};
use serde_json::{Value, json};

use super::conditions::reference;
use super::network::{ask, refused, tcp};
use super::{DUAL, Scene, V4, mapping, run, same};

fn web() -> Value {
    json!([mapping(8080, 80, "tcp", "")])
}

#[test]
fn mappings_of_the_references_iptables_backend_are_checked_and_removed() -> Result<()> {
    let mut scene = Scene::new(Side::Podnet, 2)?;
    let result = scene.attach(0, DUAL)?;
    let neighbour = scene.attach(1, DUAL)?;
    scene.world.switch(Side::Debian)?;
    // Another pod, which stays: what its ADD makes is there before and after.
    let others = json!([mapping(9090, 80, "tcp", "")]);
    scene.portmap("ADD", 1, &neighbour, &others, "").run()?.result()?;
    let before = run(scene.host(), "iptables-save", "-t nat", "")?;
    scene.portmap("ADD", 0, &result, &web(), "").run()?.result()?;
    let _server = tcp(scene.pod(0), 80)?;
    ask(&scene.outside, "192.0.2.1:8080")?;
    scene.world.switch(Side::Podnet)?;
    scene.portmap("CHECK", 0, &result, &web(), "").run()?.silent()?;
    let other = json!([mapping(8080, 80, "tcp", "")]);
    scene.portmap("CHECK", 0, &result, &other, "").container("nobody").run()?.error()?;
    scene.portmap("DEL", 0, &result, &web(), "").run()?.silent()?;
    refused(&scene.outside, "192.0.2.1:8080")?;
    let plain = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        // Counters of chains stand in brackets.
        lines.map(|line| line.split(" [").next().unwrap_or_default().to_owned()).collect()
    };
    let after = run(scene.host(), "iptables-save", "-t nat", "")?;
    ensure!(plain(&before) == plain(&after), "before:\n{before}\nafter:\n{after}");
    // And the reference finds nothing wrong with it.
    scene.world.switch(Side::Debian)?;
    scene.portmap("DEL", 0, &result, &web(), "").run()?.silent()?;
    // GC of ours knows whose its chains are.
    scene.portmap("ADD", 0, &result, &web(), "").run()?.result()?;
    scene.world.switch(Side::Podnet)?;
    let gc = scene.world.call("portmap", "GC").config("1.1.0", "{}");
    gc.with("cni.dev/valid-attachments", r#"[{"containerID":"c1","ifname":"eth0"}]"#).run()?.silent()?;
    let after = run(scene.host(), "iptables-save", "-t nat", "")?;
    ensure!(plain(&before) == plain(&after), "before:\n{before}\nafter GC:\n{after}");
    scene.portmap("CHECK", 1, &neighbour, &others, "").run()?.silent()?;
    scene.world.switch(Side::Debian)?;
    scene.portmap("DEL", 1, &neighbour, &others, "").run()?.silent()
}

/// Two interfaces of one container, both mapped by the reference's nftables backend, whose rules name the container
/// alone.
#[test]
fn mappings_of_the_references_nftables_backend_go_with_their_own_interface() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, V4)?;
    let second =
        scene.world.call("bridge", "ADD").config("1.0.0", V4).env("CNI_IFNAME", "net1").run()?.result()?;
    let both = reference("", "c0", "10.1.2.2:80").replace(
        "chain hostports {",
        "chain hostports { tcp dport 9090 dnat to 10.1.2.3:80 comment \"c0\"; tcp dport 7070 dnat to 10.1.2.9:80 comment \"c9\";",
    );
    let others = json!([mapping(9090, 80, "tcp", "")]);
    for with_result in [true, false] {
        scene.nft(&both)?;
        let of = |result| if with_result { result } else { &Value::Null };
        if with_result {
            scene.portmap("CHECK", 0, &result, &web(), "").run()?.silent()?;
        }
        scene.portmap("DEL", 0, of(&result), &web(), "").run()?.silent()?;
        let left = scene.rules()?;
        ensure!(!left.contains("8080") && !left.contains("masquerade"), "{left}");
        ensure!(left.contains("9090") && left.contains("7070"), "{left}");
        let del = scene.portmap("DEL", 0, of(&second), &others, "").env("CNI_IFNAME", "net1");
        del.run()?.silent()?;
        let left = scene.rules()?;
        ensure!(!left.contains("9090") && left.contains("7070"), "{left}");
        run(scene.host(), "nft", "delete table ip cni_hostport", "")?;
    }
    // Without prevResult and mappings all of the container's go, as with the reference.
    scene.nft(&both)?;
    scene.portmap("DEL", 0, &Value::Null, &json!("?"), "").run()?.silent()?;
    let left = scene.rules()?;
    ensure!(!left.contains("8080") && !left.contains("9090") && left.contains("7070"), "{left}");
    Ok(())
}

#[test]
fn our_rules_carry_the_comment_by_which_the_reference_deletes_them() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, DUAL)?;
    scene.portmap("ADD", 0, &result, &web(), "").run()?.result()?;
    // What the reference's DEL does: rules of these chains whose comment is the container's id.
    for family in ["ip", "ip6"] {
        for chain in ["hostports", "hostip_hostports", "masquerading"] {
            let listed =
                run(scene.host(), "nft", &format!("-a list chain {family} cni_hostport {chain}"), "")?;
            for line in listed.lines().filter(|line| line.contains("comment \"c0\"")) {
                let handle = line.rsplit(' ').next().unwrap_or_default();
                scene.nft(&format!("delete rule {family} cni_hostport {chain} handle {handle}"))?;
            }
        }
    }
    let left = scene.rules()?;
    ensure!(!left.contains("dnat") && !left.contains("masquerade"), "{left}");
    // A DEL of ours afterwards takes the rest.
    scene.portmap("DEL", 0, &result, &web(), "").run()?.silent()?;
    ensure!(!scene.rules()?.contains("cni_hostport"), "{}", scene.rules()?);
    Ok(())
}

#[test]
fn firewall_rules_are_handed_over_both_ways() -> Result<()> {
    for (from, to) in [(Side::Debian, Side::Podnet), (Side::Podnet, Side::Debian)] {
        let mut scene = Scene::new(Side::Podnet, 2)?;
        let results = [scene.attach(0, DUAL)?, scene.attach(1, DUAL)?];
        scene.world.switch(from)?;
        let call = |world: &World, verb: &str, pod: usize| {
            let call = world.call("firewall", verb).config("1.0.0", r#"{"backend":"iptables"}"#).pod(pod);
            call.prev(&results[pod]).run()
        };
        call(&scene.world, "ADD", 1)?.result()?;
        let before = run(scene.host(), "iptables", "-S", "")?;
        call(&scene.world, "ADD", 0)?.result()?;
        scene.world.switch(to)?;
        call(&scene.world, "CHECK", 0)?.silent()?;
        call(&scene.world, "DEL", 0)?.silent()?;
        same(&before, &run(scene.host(), "iptables", "-S", "")?)?;
        call(&scene.world, "CHECK", 1)?.silent()?;
        call(&scene.world, "DEL", 1)?.silent()?;
        let left = run(scene.host(), "iptables", "-S", "")?;
        ensure!(!left.contains("10.1.2."), "{from:?} to {to:?}: {left}");
        // A pod of the new side beside the old one's chains.
        call(&scene.world, "ADD", 0)?.result()?;
        call(&scene.world, "CHECK", 0)?.silent()?;
    }
    Ok(())
}
