//! VLANs of `bridge` on a kernel whose bridges filter by them.
//!
//! ```text
//!   host ── cni0 (vlan_filtering 1)
//!            ├─ vethA ═ eth0 in pod0     VLAN 100, untagged
//!            ├─ vethB ═ eth0 in pod1
//!            └─ vethG ═ cni0.100         the gateway of VLAN 100
//! ```

use anyhow::{Context, Result, ensure};
use podnet_tests::process::Stdout;
use podnet_tests::{Side, World, devices};
use serde_json::{Value, json};

use super::node::{call, json, reaches};
use crate::rollback::add_fails_without_a_trace;

const GATEWAY: &str =
    r#"{"isGateway":true,"vlan":100,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

fn bridge<'w>(world: &'w World, verb: &str, text: &str) -> podnet_tests::world::Call<'w> {
    call(world, "bridge", verb, text)
}

/// The VLANs of a link of the node, as `bridge` shows them.
fn vlans(world: &World, link: &str) -> Result<Value> {
    Ok(json(&world.host, &format!("bridge -j vlan show dev {link}"))?[0]["vlans"].clone())
}

/// The node's end of the pod's link.
fn port(result: &Value) -> Result<String> {
    Ok(result["interfaces"][1]["name"].as_str().context("a port")?.to_owned())
}

fn has_link(world: &World, name: &str) -> Result<bool> {
    Ok(world.snapshot()?.host.macs.contains_key(name))
}

#[test]
fn device_bridge_vlan_port_is_in_its_vlans_and_in_no_other() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let native = |id: u16| json!({"vlan": id, "flags": ["PVID", "Egress Untagged"]});
    for (keys, expected) in [
        (r#""vlan":100"#, json!([native(100)])),
        (
            r#""vlanTrunk":[{"minID":20,"maxID":22},{"id":40}]"#,
            json!([native(1), {"vlan": 20}, {"vlan": 21}, {"vlan": 22}, {"vlan": 40}]),
        ),
        (
            r#""vlan":21,"vlanTrunk":[{"minID":20,"maxID":22}]"#,
            json!([{"vlan": 20}, native(21), {"vlan": 22}]),
        ),
        (
            r#""vlan":100,"preserveDefaultVlan":true"#,
            json!([{"vlan": 1, "flags": ["Egress Untagged"]}, native(100)]),
        ),
        (r#""vlanTrunk":[]"#, json!([native(1)])),
    ] {
        let world = World::new(Side::Podnet, 1)?;
        let text = format!("{{{keys}}}");
        let result = bridge(&world, "ADD", &text).run()?.result()?;
        let seen = vlans(&world, &port(&result)?)?;
        ensure!(seen == expected, "{keys}: {seen}");
        bridge(&world, "CHECK", &text).prev(&result).run()?.silent()?;
        bridge(&world, "STATUS", &text).run()?.silent()?;
        bridge(&world, "DEL", &text).prev(&result).run()?.silent()?;
    }
    Ok(())
}

#[test]
fn device_bridge_vlan_gateway_serves_its_vlan_alone() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let world = World::new(Side::Podnet, 3)?;
    let other = GATEWAY.replace("100", "200").replace("10.1.2.", "10.1.3.");
    for (pod, text) in [(0, GATEWAY), (1, GATEWAY), (2, &*other)] {
        let result = bridge(&world, "ADD", text).pod(pod).run()?.result()?;
        let name = if pod == 2 { "cni0.200" } else { "cni0.100" };
        ensure!(result["interfaces"][3]["name"] == name && result["interfaces"][4].is_null(), "{result}");
        ensure!(Some(&world.snapshot()?.host.macs[name][..]) == result["interfaces"][3]["mac"].as_str());
        bridge(&world, "CHECK", text).pod(pod).prev(&result).run()?.silent()?;
    }
    let facts = world.snapshot()?.facts;
    ensure!(facts.get("host/addr/cni0.100/10.1.2.1_24/scope").is_some());
    ensure!(facts.get("host/addr/cni0.200/10.1.3.1_24/scope").is_some());
    ensure!(!facts.iter().any(|(path, _)| path.starts_with("host/addr/cni0/")), "the bridge has no address");
    ensure!(reaches(&world.pods[0], &world.pods[1], "10.1.2.3")?, "pods of one VLAN");
    ensure!(reaches(&world.pods[0], &world.host, "10.1.2.1")?, "pod and gateway");
    world.pod_ip(0, &["addr add 10.1.3.99/24 dev eth0"])?;
    ensure!(!reaches(&world.pods[0], &world.pods[2], "10.1.3.2")?, "pods of two VLANs");
    Ok(())
}

/// The reference never removes it (plugins PR#1175).
#[test]
fn device_bridge_vlan_gateway_goes_with_the_last_port() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let world = World::new(Side::Podnet, 2)?;
    for pod in 0..2 {
        bridge(&world, "ADD", GATEWAY).pod(pod).run()?.result()?;
    }
    bridge(&world, "DEL", GATEWAY).pod(0).run()?.silent()?;
    ensure!(has_link(&world, "cni0.100")?, "the other pod relies on it");
    bridge(&world, "DEL", GATEWAY).pod(1).run()?.silent()?;
    ensure!(!has_link(&world, "cni0.100")?, "nobody relies on it");
    let macs = world.snapshot()?.host.macs;
    ensure!(macs.keys().eq(["cni0", "lo"]), "{macs:?}");
    bridge(&world, "DEL", GATEWAY).pod(1).run()?.silent()
}

#[test]
fn device_bridge_vlan_gateway_survives_adds_beside_dels() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    const PODS: usize = 4;
    let world = World::new(Side::Podnet, PODS)?;
    let cycle = |pod: usize| -> Result<()> {
        for _ in 0..3 {
            let result = bridge(&world, "ADD", GATEWAY).pod(pod).run()?.result()?;
            bridge(&world, "CHECK", GATEWAY).pod(pod).prev(&result).run()?.silent()?;
            bridge(&world, "DEL", GATEWAY).pod(pod).prev(&result).run()?.silent()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PODS).map(|pod| scope.spawn(move || cycle(pod))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        })
    })?;
    ensure!(!has_link(&world, "cni0.100")?);
    Ok(())
}

#[test]
fn device_bridge_vlan_gateway_without_pods_is_collected() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let world = World::new(Side::Podnet, 1)?;
    bridge(&world, "ADD", GATEWAY).run()?.result()?;
    // As after a reboot of the pod: the link is gone and DEL was never called.
    world.pod_ip(0, &["link del eth0"])?;
    let gc = || bridge(&world, "GC", GATEWAY).env("CNI_NETNS", "").env("CNI_IFNAME", "");
    gc().run()?.silent()?;
    ensure!(has_link(&world, "cni0.100")?, "without a list nothing is removed");
    gc().with("cni.dev/valid-attachments", "[]").run()?.silent()?;
    ensure!(!has_link(&world, "cni0.100")?);
    Ok(())
}

#[test]
fn device_bridge_vlan_another_programs_gateway_stays() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(&[
        "link add cni0 address 02:00:00:00:00:b0 type bridge vlan_filtering 1",
        "link add cni0.100 type veth peer name gw0",
        "link set gw0 master cni0 up",
    ])?;
    let result = bridge(&world, "ADD", GATEWAY).run()?.result()?;
    bridge(&world, "CHECK", GATEWAY).prev(&result).run()?.silent()?;
    ensure!(vlans(&world, "gw0")? == json!([{"vlan": 100, "flags": ["PVID", "Egress Untagged"]}]));
    bridge(&world, "DEL", GATEWAY).run()?.silent()?;
    ensure!(has_link(&world, "cni0.100")?);
    // What only has the name is not taken for it.
    world.host_ip(&["link set gw0 nomaster"])?;
    let error = bridge(&world, "ADD", GATEWAY).run()?.error()?;
    ensure!(
        error.msg.contains("\"cni0.100\" already exists but is not a gateway of bridge \"cni0\""),
        "{error:?}"
    );
    Ok(())
}

/// The reference leaves such a bridge as it is, and the VLAN has no effect (plugins#231).
#[test]
fn device_bridge_vlan_filtering_is_switched_on_or_refused() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let text = r#"{"vlan":100}"#;
    let filters = |world: &World| -> Result<bool> {
        Ok(world.snapshot()?.facts.get("host/link/cni0/bridge/vlan_filtering") == Some("1"))
    };
    // Podnet's own, with a pod on it.
    let world = World::new(Side::Podnet, 2)?;
    bridge(&world, "ADD", "{}").pod(1).run()?.result()?;
    ensure!(!filters(&world)?);
    add_fails_without_a_trace(&world, "bridge", text, "1.0.0", Stdout::Closed)?;
    bridge(&world, "ADD", text).run()?.result()?;
    ensure!(filters(&world)?);
    // Another program's, empty.
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(&["link add cni0 address 02:00:00:00:00:b0 type bridge", "link set cni0 up"])?;
    add_fails_without_a_trace(&world, "bridge", text, "1.0.0", Stdout::Closed)?;
    bridge(&world, "ADD", text).run()?.result()?;
    ensure!(filters(&world)?);
    // Another program's, with a port.
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(&[
        "link add cni0 address 02:00:00:00:00:b0 type bridge",
        "link add other type veth peer name far",
        "link set other master cni0 up",
    ])?;
    let error = add_fails_without_a_trace(&world, "bridge", text, "1.0.0", Stdout::Read)?.error()?;
    ensure!(error.msg.contains("bridge \"cni0\" does not filter by VLAN"), "{error:?}");
    Ok(())
}

#[test]
fn device_bridge_vlan_check_finds_what_became_of_the_vlans() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let finds = |spoil: &dyn Fn(&World, &str) -> Result<()>, words: &str| -> Result<()> {
        let world = World::new(Side::Podnet, 1)?;
        let result = bridge(&world, "ADD", GATEWAY).run()?.result()?;
        let check = bridge(&world, "CHECK", GATEWAY).prev(&result);
        check.run()?.silent()?;
        spoil(&world, &port(&result)?)?;
        let error = check.run()?.error()?;
        ensure!(error.msg.contains(words), "expected {words:?}, seen {error:?}");
        Ok(())
    };
    let vlan = |world: &World, command: String| -> Result<()> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let done = world.host.run(|| std::process::Command::new("bridge").args(&words).status())??;
        ensure!(done.success(), "bridge {command}");
        Ok(())
    };
    finds(&|world, port| vlan(world, format!("vlan del vid 100 dev {port}")), "is not in VLAN 100")?;
    finds(
        &|world, port| vlan(world, format!("vlan add vid 100 dev {port}")),
        "is not in VLAN 100 (untagged)",
    )?;
    finds(&|world, port| vlan(world, format!("vlan add vid 7 dev {port}")), "is in VLAN 7 (tagged) too")?;
    finds(
        &|world, _| world.host_ip(&["link set cni0 type bridge vlan_filtering 0"]),
        "does not filter by VLAN",
    )?;
    finds(
        &|world, _| world.host_ip(&["addr del 10.1.2.1/24 dev cni0.100"]),
        "gateway 10.1.2.1 is not on \"cni0.100\"",
    )?;
    finds(&|world, _| world.host_ip(&["link del cni0.100"]), "cni0.100")
}

#[test]
fn device_bridge_vlan_add_that_fails_leaves_nothing() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let world = World::new(Side::Podnet, 2)?;
    add_fails_without_a_trace(&world, "bridge", GATEWAY, "1.0.0", Stdout::Closed)?;
    let first = bridge(&world, "ADD", GATEWAY).pod(1).run()?.result()?;
    add_fails_without_a_trace(&world, "bridge", GATEWAY, "1.0.0", Stdout::Closed)?;
    bridge(&world, "CHECK", GATEWAY).pod(1).prev(&first).run()?.silent()
}
