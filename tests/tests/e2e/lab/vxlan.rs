//! The mode vxlan: what is in the tunnel and around it, and its own faults.

use anyhow::{Context, Result, ensure};

use super::Lab;
use super::modes::{RACKS, of, on_wire, reddens, up};
use super::verdicts::{SMALL, rulings};

#[test]
fn vxlan_packs_the_same_packet_into_a_datagram_between_the_nodes() -> Result<()> {
    let lab = up("vx-points", "vxlan", &SMALL)?;
    let (_, report) = lab.verify(&["cross-node"])?;
    let verdict = of(&report, "cross-node", "kubia-1 > kubia-3")?;
    let points = verdict["request"].as_array().context("no points")?;
    for key in ["source", "target", "payload_digest", "id"] {
        ensure!(points.iter().all(|point| point[key] == points[0][key]), "{key} differs: {points:?}");
    }
    let mut packed = 0;
    for point in points {
        let at = point["at"].as_str().unwrap_or_default();
        if ["node1/eth0", "fabric/node1", "fabric/node2", "node2/eth0"].contains(&at) {
            let outer = &point["outer"];
            assert_eq!((&outer["vni"], &outer["overhead"]), (&1.into(), &50.into()), "{point}");
            ensure!(outer["source"].as_str().is_some_and(|from| from.starts_with("192.0.2.11:")), "{point}");
            assert_eq!(outer["target"], "192.0.2.12:8472");
            assert_eq!(point["ttl"], 63, "the tunnel is one wire: {point}");
            packed += 1;
        } else {
            ensure!(point["outer"].is_null(), "{point}");
        }
    }
    assert_eq!((packed, points.len()), (4, 12), "{points:?}");
    Ok(())
}

#[test]
fn vxlan_direct_packs_only_what_crosses_a_router() -> Result<()> {
    let lab = up("vx-direct", "vxlan:direct", &RACKS)?;
    let (code, report) = lab.verify(&["cross-node"])?;
    assert_eq!(code, 0, "{:?}", rulings(&report));
    let packed = |subject| -> Result<bool> {
        let verdict = of(&report, "cross-node", subject)?;
        Ok(verdict["request"].as_array().into_iter().flatten().any(|point| !point["outer"].is_null()))
    };
    ensure!(!packed("kubia-1 > kubia-2")? && packed("kubia-1 > kubia-3")?, "{report}");
    let counts: Vec<u64> = on_wire(&report).into_iter().map(|(_, packets)| packets).collect();
    assert_eq!(counts, [4, 8]);
    Ok(())
}

/// Node 1's end of the tunnel made anew with another network's number, by hand.
fn renumber(lab: &Lab, own: u32, peer: u32) -> Result<()> {
    let script = format!(
        "set -e; ip link del flannel.1; \
         ip link add flannel.1 address 02:00:00:1c:00:0{own} mtu 1450 type vxlan id 7 local 192.0.2.1{own} dstport 8472 nolearning; \
         ip addr add 10.244.{own}.0/32 dev flannel.1; ip link set flannel.1 up; \
         ip neigh add 10.244.{peer}.0 lladdr 02:00:00:1c:00:0{peer} dev flannel.1 nud permanent; \
         bridge fdb add 02:00:00:1c:00:0{peer} dev flannel.1 dst 192.0.2.1{peer}; \
         ip route add 10.244.{peer}.0/24 via 10.244.{peer}.0 dev flannel.1 onlink"
    );
    lab.exec(&format!("node{own}"), &["sh", "-c", &script]).map(drop)
}

#[test]
fn vxlan_with_another_number_a_missing_entry_or_no_tunnel_is_red() -> Result<()> {
    let lab = up("vx-vni", "vxlan", &SMALL)?;
    renumber(&lab, 1, 2)?;
    let report = reddens(&lab, "cross-node", "unreachable", &[])?;
    let lost = of(&report, "cross-node", "kubia-1 > kubia-3")?;
    ensure!(
        lost["evidence"].as_str().is_some_and(|words| words.contains("SYN last seen at node2/eth0 in")),
        "{lost}"
    );
    // The same number on both ends: everything answers, but it is not the network that was asked for.
    renumber(&lab, 2, 1)?;
    let report = reddens(&lab, "cross-node", "wire-differs", &[])?;
    assert_eq!(of(&report, "cross-node", "kubia-1 > kubia-3")?["outcome"]["word"], "OK");

    let lab = up("vx-fdb", "vxlan", &SMALL)?;
    lab.exec("node1", &["bridge", "fdb", "del", "02:00:00:1c:00:02", "dev", "flannel.1"])?;
    let report = reddens(&lab, "cross-node", "unreachable", &[])?;
    let lost = of(&report, "cross-node", "kubia-1 > kubia-3")?;
    ensure!(
        lost["evidence"].as_str().is_some_and(|words| words.contains("SYN last seen at node1/flannel.1 out")),
        "{lost}"
    );

    let lab = up("vx-bypass", "vxlan", &SMALL)?;
    lab.exec("node1", &["ip", "route", "replace", "10.244.2.0/24", "via", "192.0.2.12"])?;
    let report = reddens(&lab, "cross-node", "wire-differs", &[])?;
    let plain = of(&report, "cross-node", "kubia-1 > kubia-3")?;
    assert_eq!(plain["outcome"]["word"], "OK");
    ensure!(
        plain["evidence"].as_str().is_some_and(|words| words.contains("plain at node1/eth0 out")),
        "{plain}"
    );
    Ok(())
}
