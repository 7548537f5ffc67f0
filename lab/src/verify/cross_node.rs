//! Need 3, across nodes: every pod reaches every pod on another node without NAT.

use super::scene::{Scene, task};
use super::{Check, Plan, Task, paths};

pub(super) const CHECK: Check =
    Check { name: "cross-node", title: "pod to pod across nodes, no NAT", plan: Plan::Probes(plan) };

fn plan<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    let fabric = &scene.cluster.fabric;
    let pairs = scene.pairs().filter(|(a, b)| a.pod.node != b.pod.node);
    let tasks = pairs.map(|(a, b)| {
        let there = paths::across((a.pod, a.node), fabric, (b.pod, b.node));
        let back = paths::across((b.pod, b.node), fabric, (a.pod, a.node));
        task((a.end(), a.address()), (b.end(), b.address()), (there, back), |journey| journey)
    });
    tasks.collect()
}
