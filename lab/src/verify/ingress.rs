//! Need 4, inwards: the app in a pod is reached from each host outside, over a route to the PodCIDR, and sees the
//! address of who came.

use kernel::Family;

use super::scene::{Scene, outside, task};
use super::{Check, How, Task, paths};

pub(super) const CHECK: Check =
    Check { name: "ingress", title: "outside to pod, by route", plan: How::Probes(plan) };

fn plan<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    scene.in_each(|family| of_family(scene, family))
}

fn of_family<'c>(scene: &Scene<'c>, family: Family) -> Vec<Task<'c>> {
    let pairs = scene.outside().flat_map(|host| scene.sampled().map(move |pod| (host, pod)));
    let tasks = pairs.map(|(host, pod)| {
        let there = paths::into(scene.cluster, host, (pod.pod, pod.node));
        let back = paths::out(scene.cluster, (pod.pod, pod.node), host);
        task(outside(host, family), (pod.end(), pod.address(family)), (there, back), |journey| journey)
    });
    tasks.collect()
}
