//! `why`: which element of the network keeps two places from reaching each other.
//!
//! Probes are sent under a capture: where they were last seen says where to look. Then the kernels of the namespaces on
//! the way are asked over netlink what they would do with such a packet, and what does not fit is a suspect. The
//! packets, or their absence, are the proof. Nobody tells what was broken: all that is looked at is a [`Cluster`], and
//! what a cluster is does not include the register of faults.

mod battery;
mod hops;
mod leg;
mod render;
mod rules;
mod state;
mod suspects;
mod symptom;

use std::net::SocketAddr;

use anyhow::Result;
use kernel::Family;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::exit::{FAILED, Failure, OK};
use crate::services::{self, model::Backed};
use crate::stack::{self, OneFamily};
use crate::trace;

pub use render::render_why;

/// The name of the JSON document's form.
pub const SCHEMA: &str = "podlab.why/1";
/// No more suspects than this are named.
const MOST: usize = 3;

/// Who does not reach whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyOptions {
    /// A pod's name or `outside`.
    pub source: String,
    /// The name of a pod or service (`svc/NAME`), `outside`, or an address.
    pub target: String,
    /// The port; a service has its own.
    pub port: u16,
    /// The IP version, where names do not tell it; none is the lab's first.
    pub family: Option<OneFamily>,
}

/// An element that may be the broken one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// The namespace, or a service.
    pub place: String,
    /// What of it: a link, a route, a chain, a sysctl.
    pub part: String,
    /// What is wrong with it.
    pub what: String,
    /// Where the packet was seen, and where not.
    pub proof: String,
    /// The command that shows it.
    pub look: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// [`SCHEMA`].
    pub schema: String,
    /// The lab's name.
    pub lab: String,
    /// Where the probes started.
    pub source: String,
    /// Where they were to go.
    pub target: String,
    /// Something is broken between the two.
    pub is_broken: bool,
    /// How that shows, or that all is well, in words.
    pub symptom: String,
    /// What is likely to be broken, the likeliest first.
    pub suspects: Vec<Suspect>,
    /// What else was seen: ICMP errors, who answered ARP.
    pub notes: Vec<String>,
}

impl Why {
    /// 0 when nothing is broken, else 1.
    pub fn exit_code(&self) -> u8 {
        if self.is_broken { FAILED } else { OK }
    }
}

/// What the probes are aimed at.
#[derive(Debug)]
struct Aim {
    /// Addresses and ports, each probed.
    fronts: Vec<SocketAddr>,
    /// The service that they belong to.
    service: Option<Backed>,
}

/// Finds what is broken. An error is a [`Failure`] of wrong usage for a name that the lab does not have; else something
/// that stopped the capture or the prober.
pub fn run(cluster: &Cluster, options: &WhyOptions) -> Result<Why> {
    trace::sender(cluster, &options.source)?;
    let aim = aim(cluster, options)?;
    let seen = battery::run(cluster, options, &aim)?;
    let symptom = symptom::read(cluster, options, &aim, &seen)?;
    let suspects = match symptom.is_fine() {
        true => Vec::new(),
        false => suspects::find(cluster, options, &aim, &symptom)?,
    };
    // A machine that is busy holds packets too; slow is only what something is told to hold.
    let is_fine = symptom.is_fine() || symptom.is_slow() && suspects.is_empty();
    Ok(Why {
        schema: SCHEMA.into(),
        lab: cluster.name.clone(),
        source: options.source.clone(),
        target: options.target.clone(),
        is_broken: !is_fine,
        symptom: symptom.words.clone(),
        suspects,
        notes: symptom.notes.clone(),
    })
}

fn aim(cluster: &Cluster, options: &WhyOptions) -> Result<Aim, Failure> {
    let name = options.target.strip_prefix("svc/").unwrap_or(&options.target);
    let backed = services::backed(cluster).into_iter().find(|backed| backed.service.name == name);
    let Some(backed) = backed else {
        if name != options.target {
            return Err(Failure::usage(format!("no service {name:?} · podlab kubectl get svc")));
        }
        if options.source == options.target {
            let family = options.family.map_or(Family::V4, Family::from);
            let localhost = SocketAddr::new(stack::localhost(family), options.port);
            return Ok(Aim { fronts: vec![localhost], service: None });
        }
        let address = trace::address_of(cluster, &options.target, options.family)?;
        return Ok(Aim { fronts: vec![SocketAddr::new(address, options.port)], service: None });
    };
    let service = &backed.service;
    let fronts: Vec<SocketAddr> = match cluster.host(&options.source).is_some() {
        false => service.front().into_iter().collect(),
        true => {
            let port = service.port.and_then(|port| port.node_port);
            let of_node = |node: &crate::cluster::Node| Some(SocketAddr::new(node.v4()?.0.into(), port?));
            cluster.nodes.iter().filter_map(of_node).collect()
        }
    };
    match fronts.as_slice() {
        [] => Err(Failure::usage(format!("service {name} has no address for {}", options.source))),
        _ => Ok(Aim { fronts, service: Some(backed) }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Who looks for a fault must not be told: what breaks, what is registered and who holds it are not in reach.
    #[test]
    fn nothing_here_knows_what_was_broken() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/why");
        let mut files = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for word in ["breaking", "faults::", "supervisor", "Lab"] {
                assert!(
                    !code.contains(&format!("crate::{word}")) && !code.contains(&format!("{{{word}")),
                    "{word}"
                );
            }
            files += 1;
        }
        assert!(files >= 8, "{files}");
    }
}
