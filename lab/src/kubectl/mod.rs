//! `podlab kubectl`: the command lines of kubectl that the seed document uses, on a running lab.
//!
//! `parse` reads a command line, [`server`] is the supervisor's side, which does what [`Ask`] says and answers with
//! objects in Kubernetes' own JSON, and the rest prints them in kubectl's words and columns. There is no API server, no
//! store and no authentication; there is one Kubernetes namespace, `default`.

mod client;
mod describe;
mod edit;
mod exec;
mod forward;
pub mod objects;
mod parse;
pub(crate) mod serve;
pub mod server;
mod table;
mod time;

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{self, Failure};
use crate::labels::Labels;
use crate::services::model::{ServiceType, Transport};

pub use client::main;
pub(crate) use parse::command;

/// What a client wants of the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// A pod, or a controller with one.
    Run {
        /// The name.
        name: String,
        /// The image that was named.
        image: String,
        /// The port that was declared.
        port: Option<u16>,
        /// Labels; none means `run=NAME`.
        labels: Labels,
        /// How many, when a controller is to keep them; none means a pod alone.
        replicas: Option<u32>,
        /// The names of a pod's containers; none means the usual ones.
        containers: Option<[String; 2]>,
    },
    /// Objects of a kind: all, those named, or those that a selector chooses.
    Get {
        /// The kind.
        kind: Kind,
        /// Names; all of them must be there.
        names: Vec<String>,
        /// A label selector.
        selector: Option<String>,
    },
    /// So many replicas.
    Scale {
        /// The controller.
        name: String,
        /// How many.
        replicas: u32,
        /// Only if there are to be so many now.
        current: Option<u32>,
    },
    /// Objects go.
    Delete {
        /// The kind.
        kind: Kind,
        /// Names; all of them must be there.
        names: Vec<String>,
        /// A label selector; an empty one chooses all.
        selector: Option<String>,
    },
    /// Labels of a pod are set, or taken away.
    Label {
        /// The pod.
        name: String,
        /// New values; none takes the label away.
        labels: Vec<(String, Option<String>)>,
        /// Labels that are there may change.
        overwrite: bool,
    },
    /// A new service.
    Serve {
        /// Its name.
        name: String,
        /// What it is to be.
        wanted: Box<Wanted>,
    },
    /// Fields of an object's `spec` are changed.
    Patch {
        /// The kind.
        kind: Kind,
        /// The name.
        name: String,
        /// The fields, as in the object's JSON.
        patch: Value,
    },
    /// What a pod's app has logged.
    Logs {
        /// The pod.
        name: String,
    },
}

/// What a new service is to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// The object whose pods it is for.
    pub from: Option<(Kind, String)>,
    /// How it is reached.
    pub kind: ServiceType,
    /// The port that clients ask for; none means the declared one of the pods.
    pub port: Option<u16>,
    /// The port of the pods; none means the same.
    pub target_port: Option<u16>,
    /// The port of the nodes; none means a free one.
    pub node_port: Option<u16>,
    /// Its protocol.
    pub protocol: Transport,
    /// Which pods; none means those of `from`.
    pub selector: Option<Labels>,
    /// Its address inside the cluster; none means a free one.
    pub cluster_ip: Option<Ipv4Addr>,
    /// Its address outside; none means a free one.
    pub balancer: Option<Ipv4Addr>,
    /// What it is a name for.
    pub external_name: Option<String>,
    /// One client stays with one pod.
    pub has_affinity: bool,
}

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `pods`
    Pod,
    /// `replicationcontrollers`
    ReplicationController,
    /// `services`
    Service,
    /// `endpoints`
    Endpoints,
    /// `nodes`
    Node,
    /// `namespaces`
    Namespace,
}

/// Every kind with the words for it: the singular, the plural, the short one.
const KINDS: [(Kind, [&str; 3]); 6] = [
    (Kind::Pod, ["pod", "pods", "po"]),
    (Kind::ReplicationController, ["replicationcontroller", "replicationcontrollers", "rc"]),
    (Kind::Service, ["service", "services", "svc"]),
    (Kind::Endpoints, ["endpoints", "endpoints", "ep"]),
    (Kind::Node, ["node", "nodes", "no"]),
    (Kind::Namespace, ["namespace", "namespaces", "ns"]),
];

impl Kind {
    fn words(self) -> [&'static str; 3] {
        let found = KINDS.iter().find(|(kind, _)| *kind == self);
        found.map_or([""; 3], |(_, words)| *words)
    }

    /// `pod`
    pub fn singular(self) -> &'static str {
        self.words()[0]
    }

    /// `pods`
    pub fn plural(self) -> &'static str {
        self.words()[1]
    }

    /// The failure for a name that there is not, in the API server's words.
    pub fn not_found(self, name: &str) -> Failure {
        server_error("NotFound", &format!("{} {name:?} not found", self.plural()))
    }

    /// The failure for a name that there is already.
    pub fn exists(self, name: &str) -> Failure {
        server_error("AlreadyExists", &format!("{} {name:?} already exists", self.plural()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}

impl std::str::FromStr for Kind {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let lower = text.to_ascii_lowercase();
        let found = KINDS.iter().find(|(_, words)| words.contains(&lower.as_str()));
        found.map(|(kind, _)| *kind).ok_or_else(|| {
            let all: Vec<&str> = KINDS.iter().map(|(_, words)| words[1]).collect();
            Failure::usage(format!(
                "the server doesn't have a resource type {text:?} · a lab has: {}",
                all.join(", ")
            ))
        })
    }
}

/// A failure in the API server's words.
pub fn server_error(reason: &str, text: &str) -> Failure {
    Failure::new(exit::FAILED, format!("{FROM_SERVER} ({reason}): {text}"))
}

/// How errors of an API server begin.
const FROM_SERVER: &str = "Error from server";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_kubectls_names() {
        for (text, kind) in [
            ("po", Kind::Pod),
            ("pods", Kind::Pod),
            ("rc", Kind::ReplicationController),
            ("ReplicationController", Kind::ReplicationController),
            ("ns", Kind::Namespace),
        ] {
            assert_eq!(text.parse::<Kind>().unwrap(), kind, "{text}");
        }
        let failure = "gizmo".parse::<Kind>().unwrap_err();
        assert!(failure.code == 2 && failure.text.contains("resource type \"gizmo\""), "{failure}");
        let missing = Kind::Pod.not_found("kubia-kubia-dbfj2");
        assert_eq!(missing.text, "Error from server (NotFound): pods \"kubia-kubia-dbfj2\" not found");
    }
}
