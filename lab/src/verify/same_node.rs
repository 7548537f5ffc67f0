//! Need 3, on one node: every pod reaches every other one. Over a bridge, which is a switch, or directly there is no
//! router, so the TTL and both MAC addresses stay what the pods made them; where the node routes, the TTL falls by one.

use kernel::Family;

use super::scene::{Scene, task};
use super::{Check, How, Task, paths};
use crate::modes::Siblings;
use crate::verdict::Journey;

pub(super) const CHECK: Check =
    Check { name: "same-node", title: "pod to pod on one node", plan: How::Probes(plan) };

fn plan<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    scene.in_each(|family| of_family(scene, family))
}

fn of_family<'c>(scene: &Scene<'c>, family: Family) -> Vec<Task<'c>> {
    let is_routed = scene.cluster.mode.siblings() == Siblings::Routed;
    let pairs = scene.pairs().filter(|(a, b)| a.pod.node == b.pod.node);
    let tasks = pairs.map(|(a, b)| {
        let there = paths::on_node(scene.cluster, a.pod, a.node, b.pod);
        let back = paths::on_node(scene.cluster, b.pod, a.node, a.pod);
        task((a.end(), a.address(family)), (b.end(), b.address(family)), (there, back), |journey| Journey {
            macs: a.mac.zip(b.mac).filter(|_| !is_routed),
            ..journey
        })
    });
    tasks.collect()
}
