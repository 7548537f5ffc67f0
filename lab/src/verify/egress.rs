//! Need 4, outwards: a pod reaches the host outside. Its source may stay, or become the node's address at the node's
//! uplink: both are how clusters are run.

use super::scene::{Scene, task};
use super::{Check, How, Task, paths};
use crate::verdict::Journey;

pub(super) const CHECK: Check = Check { name: "egress", title: "pod to outside", plan: How::Probes(plan) };

fn plan<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    let outside = &scene.cluster.outside;
    let tasks = scene.sampled().map(|pod| {
        let there = paths::out(scene.cluster, (pod.pod, pod.node));
        let back = paths::into(scene.cluster, (pod.pod, pod.node));
        let server = (scene.outside(), Ok(outside.address.into()));
        task((pod.end(), pod.address()), server, (there, back), |journey| Journey {
            may_become: (!scene.cluster.mode.on_lan()).then_some(pod.node.address.into()),
            ..journey
        })
    });
    tasks.collect()
}
