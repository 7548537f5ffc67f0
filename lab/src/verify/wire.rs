//! What is on the wire between nodes, said from the packets that were seen there.

use crate::encap::Outer;
use crate::fabric::UPLINK;
use crate::sighting::Direction;
use crate::verdict::{CheckReport, OnWire, Point, Seals};

/// What the packets of pods looked like where they left a node for another, each kind once.
pub(super) fn seen(nodes: &[String], checks: &[CheckReport], seals: &Seals) -> Vec<OnWire> {
    let across = checks.iter().filter(|check| check.name == super::cross_node::CHECK.name);
    let verdicts = across.flat_map(|check| &check.verdicts);
    let points = verdicts.flat_map(|verdict| verdict.request.iter().chain(&verdict.reply));
    let leaves_a_node = |point: &&Point| {
        let space = point.at.strip_suffix(UPLINK).and_then(|space| space.strip_suffix('/'));
        let is_node = nodes.iter().any(|node| Some(node.as_str()) == space);
        is_node && point.direction == Direction::Out
    };
    let mut all = seals.sent();
    for point in points.filter(leaves_a_node) {
        let looks = words(point.outer.as_ref());
        match all.iter_mut().find(|seen| seen.looks == looks) {
            Some(seen) => seen.packets += 1,
            None => all.push(OnWire { looks, packets: 1 }),
        }
    }
    all
}

fn words(outer: Option<&Outer>) -> String {
    match outer {
        None => "the pods' own packets, nothing around them".into(),
        Some(Outer { vni, target, overhead, .. }) => format!(
            "VXLAN, VNI {vni}: the pod's packet in a frame in UDP to port {} from node to node, {overhead} bytes more",
            target.port()
        ),
    }
}
