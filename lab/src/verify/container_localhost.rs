//! Need 2: the containers of a pod reach each other over localhost, and not one frame leaves the pod for it.

use std::net::SocketAddr;

use kernel::Family;

use super::scene::Scene;
use super::{Aim, Check, How, Task};
use crate::kubia::PORT;
use crate::stack::localhost;
use crate::verdict::Localhost;

pub(super) const CHECK: Check = Check {
    name: "container-localhost",
    title: "container to container over localhost",
    plan: How::Probes(plan),
};

fn plan<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    scene.in_each(|family| of_family(scene, family))
}

fn of_family<'c>(scene: &Scene<'c>, family: Family) -> Vec<Task<'c>> {
    let target = SocketAddr::new(localhost(family), PORT);
    let tasks = scene.chosen().map(|pod| {
        let expected = Localhost { pod: pod.name().into(), strangers: pod.strangers.clone() };
        let aim = Aim::Localhost(expected, target);
        let [app, sidecar] = &pod.pod.meta.containers;
        Task {
            subject: format!("{} {sidecar} > {app}", pod.name()),
            client: pod.end(),
            servers: vec![pod.end()],
            aim,
        }
    });
    tasks.collect()
}
