//! Need 3, across nodes: every pod reaches every pod on another node without NAT.

use kernel::Family;

use super::scene::{Scene, task};
use super::{Check, How, Task, paths};
use crate::modes::Wire;
use crate::verdict::Journey;

pub(super) const CHECK: Check =
    Check { name: "cross-node", title: "pod to pod across nodes, no NAT", plan: How::Probes(plan) };

fn plan<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    scene.in_each(|family| of_family(scene, family))
}

fn of_family<'c>(scene: &Scene<'c>, family: Family) -> Vec<Task<'c>> {
    let pairs = scene.pairs().filter(|(a, b)| a.pod.node != b.pod.node);
    let tasks =
        pairs.map(|(a, b)| {
            let there = paths::across(scene.cluster, family, (a.pod, a.node), (b.pod, b.node));
            let back = paths::across(scene.cluster, family, (b.pod, b.node), (a.pod, a.node));
            let sealed = match scene.cluster.mode.wire(a.node, b.node, family) {
                Wire::Sealed { ends: [near, far], .. } => {
                    Some([(a.node.space.name.clone(), near), (b.node.space.name.clone(), far)])
                }
                Wire::Plain | Wire::Tunnel(_) => None,
            };
            // Where no node is a router, a switch is all that is between two pods.
            let is_switched = scene.cluster.mode.on_lan() && a.node.rack == b.node.rack;
            task((a.end(), a.address(family)), (b.end(), b.address(family)), (there, back), |journey| {
                Journey { macs: a.mac.zip(b.mac).filter(|_| is_switched), sealed, ..journey }
            })
        });
    tasks.collect()
}
