//! The paths that packets take: which interfaces a packet passes, and after how many routers. From the cluster and what
//! its mode says; nothing is looked up.
//!
//! ```text
//!  pod eth0 ─ veth [cni0] node eth0 ─ [lan0] fabric [lan0] ─ node eth0 [cni0] veth ─ eth0 pod
//!   0 hops          0       1              1                      1       2            2
//!  pod eth0 ─ veth [cni0] node eth0 ─ [lan0] fabric wan0 ─ eth0 outside
//!   0 hops          0       1              1         2      2
//! ```
//! Racks are routers in between; a tunnel passes them without its inner TTL falling; pods on their node's wire have one
//! router less. What a node has inside (a bridge, nothing) is the plugin's affair and left open.

use kernel::Family;

use crate::cluster::{Cluster, Node, Outside, Pod};
use crate::fabric;
use crate::fabric::{RACK_UPLINK, UPLINK};
use crate::modes::{Siblings, Tunnel, Wire};
use crate::sighting::Direction::{In, Out};
use crate::stack;
use crate::verdict::{Interface, Look, Path, Stage};

/// How a verdict names two ends.
pub(super) fn subject(from: &str, to: &str) -> String {
    format!("{from} > {to}")
}

/// The same of an IP version, where there are two.
pub(super) fn of_family(subject: String, family: Option<Family>) -> String {
    family.map_or_else(|| subject.clone(), |family| format!("{subject} {}", stack::word(family)))
}

fn is(name: &str) -> Interface {
    Interface::Is(name.into())
}

fn is_not(name: &str) -> Interface {
    Interface::IsNot(name.into())
}

fn pod(pod: &Pod, hops: u8) -> Stage {
    Stage::at(&pod.space.name, is(&pod.ifname), hops)
}

fn uplink(node: &Node, hops: u8) -> Stage {
    Stage::at(&node.space.name, is(UPLINK), hops).outer()
}

fn inside(node: &Node, hops: u8) -> Stage {
    Stage::at(&node.space.name, is_not(UPLINK), hops)
}

/// From one pod to another on the same node.
pub(super) fn on_node(cluster: &Cluster, from: &Pod, node: &Node, to: &Pod) -> Path {
    let through = |hops| Stage::at(&node.space.name, Interface::Any, hops);
    let (between, hops) = match cluster.mode.siblings() {
        Siblings::Switched => (vec![through(0).required(In), through(0).required(Out)], 0),
        Siblings::Routed => (vec![through(0).required(In), through(1).required(Out)], 1),
        Siblings::Direct => (vec![Stage::at(&node.space.name, is(UPLINK), 0).required(In)], 0),
    };
    let ends = (pod(from, 0).required(Out), pod(to, hops).required(In));
    Path([ends.0].into_iter().chain(between).chain([ends.1]).collect())
}

/// How many routers the node itself is to its pods.
fn node_step(cluster: &Cluster) -> u8 {
    u8::from(!cluster.mode.on_lan())
}

/// The rack's switch and router, from its nodes' side; where it is the fabric, for what comes from or goes to a host
/// outside, the first one else.
fn switch(cluster: &Cluster, node: &Node, hops: u8, host: Option<&Outside>) -> Stage {
    let wan = || host.map_or_else(|| fabric::wan(0), |host| host.wan.clone());
    match cluster.racks.get(node.rack) {
        Some(rack) => Stage::at(&rack.name, is_not(RACK_UPLINK), hops).outer(),
        None => Stage::at(&cluster.fabric.name, is_not(&wan()), hops).outer(),
    }
}

/// Between a rack and the fabric.
fn trunk(cluster: &Cluster, node: &Node, hops: u8) -> Vec<Stage> {
    let rack = cluster.racks.get(node.rack);
    rack.map(|rack| {
        vec![
            Stage::at(&rack.name, is(RACK_UPLINK), hops).outer(),
            Stage::at(&cluster.fabric.name, is(&rack.name), hops).outer(),
        ]
    })
    .unwrap_or_default()
}

/// From a pod on one node to a pod on another.
pub(super) fn across(
    cluster: &Cluster,
    family: Family,
    (from, near): (&Pod, &Node),
    (to, far): (&Pod, &Node),
) -> Path {
    let around = |node: &Node| node.address.of(family).unwrap_or(node.address.first);
    let (look, step, device) = match cluster.mode.wire(near, far, family) {
        Wire::Plain => (Look::Plain, 1, None),
        Wire::Tunnel(Tunnel { device, vni, port }) => {
            (Look::Vxlan { vni, port, from: around(near), to: around(far) }, 0, Some(device))
        }
        Wire::Sealed { device, .. } => (Look::Sealed, 0, device),
    };
    // What is encrypted is not seen on the wire; the nodes' own links show it before and after.
    let wire = |stage: Stage, direction| if look == Look::Sealed { stage } else { stage.required(direction) };
    let start = node_step(cluster);
    let mut stages = vec![pod(from, 0).required(Out)];
    stages.extend(device.map(|name| Stage::at(&near.space.name, is(name), start).required(Out)));
    // Without a link of its own the kernel encrypts what it sends and shows on the uplink what it has decrypted.
    let is_bare = look == Look::Sealed && device.is_none();
    let before = inside(near, 0);
    stages.push(if is_bare { before.required(In) } else { before });
    stages.push(wire(uplink(near, start), Out).looks(look));
    let mut hops = start;
    stages.push(switch(cluster, near, hops, None).looks(look));
    if near.rack != far.rack {
        for (node, hops) in [(near, start + step), (far, start + 2 * step)] {
            let mut trunk = trunk(cluster, node, hops);
            if node.address == far.address {
                trunk.reverse();
            }
            stages.extend(trunk.into_iter().map(|stage| stage.looks(look)));
        }
        hops = start + 3 * step;
        stages.push(switch(cluster, far, hops, None).looks(look));
    }
    stages.push(match is_bare {
        true => uplink(far, hops).required(In),
        false => wire(uplink(far, hops), In).looks(look),
    });
    stages.extend(device.map(|name| Stage::at(&far.space.name, is(name), hops).required(In)));
    hops += start;
    stages.push(inside(far, hops));
    stages.push(pod(to, hops).required(In));
    Path(stages)
}

/// From a pod to a host outside.
pub(super) fn out(cluster: &Cluster, (from, node): (&Pod, &Node), outside: &Outside) -> Path {
    let fabric = &cluster.fabric;
    let mut hops = node_step(cluster);
    let mut stages = vec![pod(from, 0).required(Out), inside(node, 0), uplink(node, hops).required(Out)];
    stages.push(switch(cluster, node, hops, Some(outside)));
    let trunk = trunk(cluster, node, hops + 1);
    hops += 1 + u8::from(!trunk.is_empty());
    stages.extend(trunk);
    stages.push(Stage::at(&fabric.name, is(&outside.wan), hops).required(Out).outer());
    stages.push(Stage::at(&outside.space.name, is(UPLINK), hops).required(In).outer());
    Path(stages)
}

/// From a host outside to a pod.
pub(super) fn into(cluster: &Cluster, outside: &Outside, (to, node): (&Pod, &Node)) -> Path {
    let fabric = &cluster.fabric;
    let mut stages = vec![
        Stage::at(&outside.space.name, is(UPLINK), 0).required(Out).outer(),
        Stage::at(&fabric.name, is(&outside.wan), 0).required(In).outer(),
    ];
    let mut hops = 1;
    let trunk = trunk(cluster, node, hops);
    hops += u8::from(!trunk.is_empty());
    stages.extend(trunk.into_iter().rev());
    stages.push(switch(cluster, node, hops, Some(outside)));
    stages.push(uplink(node, hops).required(In));
    hops += node_step(cluster);
    stages.push(inside(node, hops));
    stages.push(pod(to, hops).required(In));
    Path(stages)
}
