//! Need 4, outwards: a pod reaches each host outside. Its source may stay, or become the node's address at the node's
//! uplink: both are how clusters are run.

use kernel::Family;

use super::scene::{Scene, outside, task};
use super::{Check, How, Task, paths};
use crate::verdict::Journey;

pub(super) const CHECK: Check = Check { name: "egress", title: "pod to outside", plan: How::Probes(plan) };

fn plan<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    scene.in_each(|family| of_family(scene, family))
}

fn of_family<'c>(scene: &Scene<'c>, family: Family) -> Vec<Task<'c>> {
    let pairs = scene.outside().flat_map(|host| scene.sampled().map(move |pod| (pod, host)));
    let tasks = pairs.map(|(pod, host)| {
        let there = paths::out(scene.cluster, (pod.pod, pod.node), host);
        let back = paths::into(scene.cluster, host, (pod.pod, pod.node));
        task((pod.end(), pod.address(family)), outside(host, family), (there, back), |journey| Journey {
            may_become: pod.node.address.of(family).filter(|_| !scene.cluster.mode.on_lan()),
            ..journey
        })
    });
    tasks.collect()
}
