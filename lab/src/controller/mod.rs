//! Replicas: what a person asked for, and what has to be done so that it is there.
//!
//! [`reconcile`] is a pure function from controllers and pods to actions; [`work`] carries them out, one after the
//! other, whenever something has changed. There is no store and no API server: a lab has one process that knows all.

mod names;
pub mod work;

use std::time::SystemTime;

use crate::labels::{Labels, chooses};
pub use names::Names;

/// What a pod is made after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The labels of its pods.
    pub labels: Labels,
    /// The image that was named; every pod runs kubia.
    pub image: String,
    /// The port that was declared.
    pub port: Option<u16>,
    /// The names of a pod's containers: the app's, the sidecar's.
    pub containers: [String; 2],
}

/// A ReplicationController: so many pods are to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationController {
    /// Its name.
    pub name: String,
    /// Its own labels.
    pub labels: Labels,
    /// Which pods are its own.
    pub selector: Labels,
    /// How many there are to be.
    pub replicas: u32,
    /// What they are made after.
    pub template: Template,
    /// When it was made.
    pub created: SystemTime,
}

/// What a controller knows of a pod. Pods are given in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// The controller that it belongs to.
    pub owner: Option<&'a str>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// One more pod of this controller.
    Add {
        /// The controller.
        controller: String,
    },
    /// This pod goes.
    Delete {
        /// The pod.
        pod: String,
        /// The controller that has too many, or none any more.
        controller: String,
    },
    /// This pod, which nobody owns, is the controller's from now on.
    Adopt {
        /// The pod.
        pod: String,
        /// The controller.
        controller: String,
    },
    /// This pod is nobody's any more: its labels do not fit.
    Release {
        /// The pod.
        pod: String,
        /// The controller.
        controller: String,
    },
}

/// From what is wanted and what is there to what is to be done. Of too many pods the youngest go. Pods whose
/// controller is gone go too.
pub fn reconcile(controllers: &[ReplicationController], pods: &[Seen<'_>]) -> Vec<Action> {
    let mut actions = Vec::new();
    for controller in controllers {
        let name = || controller.name.clone();
        let fits = |pod: &&Seen<'_>| chooses(&controller.selector, pod.labels);
        let is_own = |pod: &&Seen<'_>| pod.owner == Some(controller.name.as_str());
        let released = pods.iter().filter(is_own).filter(|pod| !fits(pod));
        actions.extend(released.map(|pod| Action::Release { pod: pod.name.into(), controller: name() }));
        let adopted = pods.iter().filter(fits).filter(|pod| pod.owner.is_none());
        actions.extend(adopted.map(|pod| Action::Adopt { pod: pod.name.into(), controller: name() }));
        let own: Vec<&Seen<'_>> =
            pods.iter().filter(fits).filter(|pod| pod.owner.is_none() || is_own(pod)).collect();
        let wanted = controller.replicas as usize;
        let missing = wanted.saturating_sub(own.len());
        actions.extend((0..missing).map(|_| Action::Add { controller: name() }));
        let surplus = own.iter().skip(wanted).rev();
        actions.extend(surplus.map(|pod| Action::Delete { pod: pod.name.into(), controller: name() }));
    }
    let orphans = pods.iter().filter_map(|pod| Some((pod, pod.owner?))).filter(|(_, owner)| {
        let is_there = |controller: &ReplicationController| controller.name == *owner;
        !controllers.iter().any(is_there)
    });
    actions.extend(
        orphans.map(|(pod, owner)| Action::Delete { pod: pod.name.into(), controller: owner.into() }),
    );
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::parse;

    fn kubia(replicas: u32) -> ReplicationController {
        let labels = parse("run=kubia").unwrap();
        ReplicationController {
            name: "kubia".into(),
            labels: labels.clone(),
            selector: labels.clone(),
            replicas,
            template: Template {
                labels,
                image: "luksa/kubia".into(),
                port: Some(8080),
                containers: ["kubia", "sidecar"].map(str::to_owned),
            },
            created: SystemTime::UNIX_EPOCH,
        }
    }

    /// Pods as `name labels owner`.
    fn actions(controllers: &[ReplicationController], pods: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        let labels: Vec<Labels> = pods.iter().map(|(_, labels, _)| parse(labels).unwrap()).collect();
        let seen: Vec<Seen<'_>> = pods
            .iter()
            .zip(&labels)
            .map(|((name, _, owner), labels)| Seen { name, labels, owner: *owner })
            .collect();
        let words = |action: &Action| match action {
            Action::Add { controller } => format!("add {controller}"),
            Action::Delete { pod, .. } => format!("delete {pod}"),
            Action::Adopt { pod, .. } => format!("adopt {pod}"),
            Action::Release { pod, .. } => format!("release {pod}"),
        };
        reconcile(controllers, &seen).iter().map(words).collect()
    }

    const OWN: Option<&str> = Some("kubia");

    #[test]
    fn missing_pods_are_added_and_the_youngest_of_too_many_deleted() {
        assert_eq!(actions(&[kubia(3)], &[("a", "run=kubia", OWN)]), ["add kubia", "add kubia"]);
        let three = [("a", "run=kubia", OWN), ("b", "run=kubia", OWN), ("c", "run=kubia", OWN)];
        assert_eq!(actions(&[kubia(1)], &three), ["delete c", "delete b"]);
        assert!(actions(&[kubia(3)], &three).is_empty(), "what is there is left alone");
        assert_eq!(actions(&[kubia(0)], &three).len(), 3);
    }

    #[test]
    fn pods_belong_to_a_controller_by_their_labels() {
        let pods = [("a", "run=kubia", None), ("b", "run=other", OWN), ("c", "app=kubia", None)];
        assert_eq!(actions(&[kubia(1)], &pods), ["release b", "adopt a"]);
        assert_eq!(actions(&[kubia(1)], &pods[1..]), ["release b", "add kubia"]);
    }

    #[test]
    fn pods_of_a_controller_that_is_gone_go_too() {
        assert_eq!(actions(&[], &[("a", "run=kubia", OWN), ("b", "run=kubia", None)]), ["delete a"]);
    }
}
