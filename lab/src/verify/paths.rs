//! The paths of routed mode: which interfaces a packet passes, and after how many routers.
//!
//! ```text
//!  pod eth0 ─ veth [cni0] node eth0 ─ [lan0] fabric [lan0] ─ node eth0 [cni0] veth ─ eth0 pod
//!   0 hops          0       1              1                      1       2            2
//!  pod eth0 ─ veth [cni0] node eth0 ─ [lan0] fabric wan0 ─ eth0 outside
//!   0 hops          0       1              1         2      2
//! ```
//! What a node has inside (a bridge, nothing) is the plugin's affair and left open.

use crate::cluster::{Node, Outside, Pod, Space};
use crate::sighting::Direction::{In, Out};
use crate::verdict::{Interface, Path, Stage};

/// The link of a node, and of the host outside, to the fabric.
pub const UPLINK: &str = "eth0";
/// The fabric's link to the host outside.
const WAN: &str = "wan0";

/// How a verdict names two ends.
pub(super) fn subject(from: &str, to: &str) -> String {
    format!("{from} > {to}")
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

/// From one pod to another on the same node's bridge.
pub(super) fn on_node(from: &Pod, node: &Node, to: &Pod) -> Path {
    let bridge = || Stage::at(&node.space.name, Interface::Any, 0);
    Path(vec![
        pod(from, 0).required(Out),
        bridge().required(In),
        bridge().required(Out),
        pod(to, 0).required(In),
    ])
}

/// From a pod on one node to a pod on another.
pub(super) fn across((from, near): (&Pod, &Node), fabric: &Space, (to, far): (&Pod, &Node)) -> Path {
    Path(vec![
        pod(from, 0).required(Out),
        inside(near, 0),
        uplink(near, 1).required(Out),
        Stage::at(&fabric.name, Interface::Any, 1).outer(),
        uplink(far, 1).required(In),
        inside(far, 2),
        pod(to, 2).required(In),
    ])
}

/// From a pod to the host outside.
pub(super) fn out((from, node): (&Pod, &Node), fabric: &Space, outside: &Outside) -> Path {
    Path(vec![
        pod(from, 0).required(Out),
        inside(node, 0),
        uplink(node, 1).required(Out),
        Stage::at(&fabric.name, is_not(WAN), 1).outer(),
        Stage::at(&fabric.name, is(WAN), 2).required(Out).outer(),
        Stage::at(&outside.space.name, is(UPLINK), 2).required(In).outer(),
    ])
}

/// From the host outside to a pod.
pub(super) fn into(outside: &Outside, fabric: &Space, (to, node): (&Pod, &Node)) -> Path {
    Path(vec![
        Stage::at(&outside.space.name, is(UPLINK), 0).required(Out).outer(),
        Stage::at(&fabric.name, is(WAN), 0).required(In).outer(),
        Stage::at(&fabric.name, is_not(WAN), 1).outer(),
        uplink(node, 1).required(In),
        inside(node, 2),
        pod(to, 2).required(In),
    ])
}
