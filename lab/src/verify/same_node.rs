//! Need 3, on one node: every pod reaches every other one over the bridge, which is a switch: no router, so the TTL
//! and both MAC addresses stay what the pods made them.

use super::scene::{Scene, task};
use super::{Check, Plan, Task, paths};
use crate::verdict::Journey;

pub(super) const CHECK: Check =
    Check { name: "same-node", title: "pod to pod on one node", plan: Plan::Probes(plan) };

fn plan<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    let pairs = scene.pairs().filter(|(a, b)| a.pod.node == b.pod.node);
    let tasks = pairs.map(|(a, b)| {
        let there = paths::on_node(a.pod, a.node, b.pod);
        let back = paths::on_node(b.pod, a.node, a.pod);
        task((a.end(), a.address()), (b.end(), b.address()), (there, back), |journey| Journey {
            macs: a.mac.zip(b.mac),
            ..journey
        })
    });
    tasks.collect()
}
