//! What people have asked a running lab for, as Kubernetes would keep it: controllers, services and what has happened
//! to objects. Types and look-ups only; `controller` and `services` act on them.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::controller::{Names, ReplicationController};
use crate::services::model::Service;

/// How many events are remembered.
const REMEMBERED: usize = 200;

/// An event of an object, as `kubectl describe` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// When.
    pub at: SystemTime,
    /// What it happened to: `pod/kubia-dbfj2`.
    pub object: String,
    /// Something is wrong.
    pub is_warning: bool,
    /// One word.
    pub reason: &'static str,
    /// Who says so.
    pub from: &'static str,
    /// In words.
    pub message: String,
}

/// The objects.
#[derive(Debug)]
pub struct Objects {
    /// When the lab was made.
    pub since: SystemTime,
    /// The controllers, in the order in which they were made.
    pub controllers: Vec<ReplicationController>,
    /// The services, in the order in which they were made.
    pub services: Vec<Service>,
    /// The names still to be given to pods.
    pub names: Names,
    incidents: VecDeque<Incident>,
}

impl Objects {
    /// Nothing yet, in a lab with this seed.
    pub fn of(seed: Option<u64>) -> Self {
        Self {
            since: SystemTime::now(),
            controllers: Vec::new(),
            services: Vec::new(),
            names: Names::of(seed),
            incidents: VecDeque::new(),
        }
    }

    /// The controller of that name.
    pub fn controller(&self, name: &str) -> Option<&ReplicationController> {
        self.controllers.iter().find(|controller| controller.name == name)
    }

    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Remembers what happened.
    pub fn note(&mut self, incident: Incident) {
        self.incidents.push_back(incident);
        if self.incidents.len() > REMEMBERED {
            self.incidents.pop_front();
        }
    }

    /// What happened to an object, oldest first.
    pub fn incidents<'o>(&'o self, object: &str) -> impl Iterator<Item = &'o Incident> {
        self.incidents.iter().filter(move |incident| incident.object == object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_events_are_remembered() {
        let mut objects = Objects::of(Some(1));
        for number in 0..=REMEMBERED {
            let (reason, from) = ("Started", "kubelet");
            let object = format!("pod/{}", number % 2);
            let at = SystemTime::UNIX_EPOCH;
            objects.note(Incident {
                at,
                object,
                is_warning: false,
                reason,
                from,
                message: number.to_string(),
            });
        }
        let first = |object: &str| objects.incidents(object).next().map(|incident| incident.message.clone());
        assert_eq!(
            (first("pod/0"), first("pod/1"), first("pod/2")),
            (Some("2".into()), Some("1".into()), None)
        );
    }
}
