//! `conditionsV4` and `conditionsV6`: each network has its own.

use anyhow::{Result, ensure};
use podnet_tests::Side;
use serde_json::json;

use super::network::{ask, refused, tcp};
use super::{DUAL, Scene, V4, mapping, renamed, run, same};

#[test]
fn conditions_of_one_network_leave_the_others_alone() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, DUAL)?;
    let before = scene.rules()?;
    let _server = tcp(scene.pod(0), 80)?;
    run(&scene.outside, "ip", "addr add 192.0.2.3/24 dev up0", "")?;
    let networks = [
        ("not-two", 8081, r#""conditionsV4":["!","-s","192.0.2.2"],"conditionsV6":["-i","nosuch+"]"#),
        ("only-two", 8082, r#""backend":"nftables","conditionsV4":["ip saddr { 192.0.2.2, 192.0.2.9 }"]"#),
        ("by-link", 8083, r#""conditionsV4":["-i","up+"],"conditionsV6":["iifname != \"up0\""]"#),
        ("open", 8084, ""),
    ];
    let call = |verb: &str, (network, port, keys): &(&str, u16, &str)| {
        let mappings = json!([mapping(*port, 80, "tcp", "")]);
        renamed(scene.portmap(verb, 0, &result, &mappings, keys), network)
    };
    for network in &networks {
        call("ADD", network).run()?.result()?;
    }
    let v4 = |port: u16| format!("192.0.2.1:{port}");
    let v6 = |port: u16| format!("[2001:db8:0:1::1]:{port}");
    // The client's address is 192.0.2.2.
    refused(&scene.outside, &v4(8081))?;
    for port in [8082, 8083, 8084] {
        ask(&scene.outside, &v4(port))?;
    }
    for port in [8081, 8083] {
        refused(&scene.outside, &v6(port))?;
    }
    for port in [8082, 8084] {
        ask(&scene.outside, &v6(port))?;
    }
    // The node itself comes in by no link, and is not 192.0.2.2.
    ask(scene.host(), &v4(8081))?;
    refused(scene.host(), &v4(8082))?;
    refused(scene.host(), &v4(8083))?;
    for network in &networks {
        call("CHECK", network).run()?.silent()?;
        call("DEL", network).run()?.silent()?;
    }
    same(&before, &scene.rules()?)
}

#[test]
fn a_mark_is_a_condition() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, V4)?;
    let _server = tcp(scene.pod(0), 80)?;
    for (port, keys) in [
        (8081, r#""conditionsV4":["-m","mark","--mark","0x100/0x100"]"#),
        (8082, r#""conditionsV4":["meta mark & 0x100 != 0x100"]"#),
    ] {
        let mappings = json!([mapping(port, 80, "tcp", "")]);
        renamed(scene.portmap("ADD", 0, &result, &mappings, keys), &format!("n{port}")).run()?.result()?;
    }
    let ports = |first: bool| -> Result<()> {
        let (open, closed) = if first { (8081, 8082) } else { (8082, 8081) };
        ask(&scene.outside, &format!("192.0.2.1:{open}"))?;
        refused(&scene.outside, &format!("192.0.2.1:{closed}"))
    };
    ports(false)?;
    scene.nft(
        "table ip marker { chain c { type filter hook prerouting priority -150; meta mark set 0x101; }; }",
    )?;
    ports(true)
}

#[test]
fn a_condition_that_cannot_be_expressed_is_refused() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, V4)?;
    let before = scene.rules()?;
    let mappings = json!([mapping(8080, 80, "tcp", "")]);
    for (keys, word) in [
        (r#""conditionsV4":["-m","set","--match-set","a","src"]"#, "match \\\"set\\\""),
        (r#""conditionsV6":["ct state new"]"#, "conditionsV6"),
    ] {
        let outcome = scene.portmap("ADD", 0, &result, &mappings, keys).run()?;
        let error = outcome.error()?;
        ensure!(error.code == 2 && outcome.stdout.contains(word), "{outcome:?}");
        same(&before, &scene.rules()?)?;
    }
    Ok(())
}

#[test]
fn conditions_of_the_reference_cover_its_own_mappings_only() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, V4)?;
    // As the reference's nftables backend leaves a network with conditions and a mapping.
    scene.nft(&reference("ip saddr 192.0.2.99", "theirs", "10.1.2.2:80"))?;
    let before = scene.rules()?;
    let _server = tcp(scene.pod(0), 80)?;
    let mappings = json!([mapping(8081, 80, "tcp", "")]);
    scene.portmap("ADD", 0, &result, &mappings, "").run()?.result()?;
    ask(&scene.outside, "192.0.2.1:8081")?;
    refused(&scene.outside, "192.0.2.1:8080")?;
    scene.portmap("CHECK", 0, &result, &mappings, "").run()?.silent()?;
    scene.portmap("DEL", 0, &result, &mappings, "").run()?.silent()?;
    same(&before, &scene.rules()?)
}

/// The table that the reference's nftables backend (1.9) makes, with one mapping of port 8080.
pub(super) fn reference(conditions: &str, container: &str, target: &str) -> String {
    let pod = target.split(':').next().unwrap_or_default();
    format!(
        "table ip cni_hostport {{
            comment \"CNI portmap plugin\"
            chain hostports {{ tcp dport 8080 dnat to {target} comment \"{container}\"; }}
            chain hostip_hostports {{ }}
            chain hostports_all {{ jump hostip_hostports; jump hostports; }}
            chain prerouting {{ type nat hook prerouting priority dstnat; {conditions} fib daddr type local jump hostports_all; }}
            chain output {{ type nat hook output priority -100; {conditions} fib daddr type local jump hostports_all; }}
            chain masquerading {{
                type nat hook postrouting priority srcnat;
                ip saddr {pod} ip daddr {pod} masquerade comment \"{container}\"
                ip saddr 127.0.0.1 ip daddr {pod} masquerade comment \"{container}\"
            }}
        }}"
    )
}
