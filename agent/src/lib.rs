//! The node agent: makes podnet the network of a Kubernetes cluster.
//!
//! One process per node. It learns of Nodes, Pods, Namespaces and NetworkPolicies from the API ([`api`]), keeps what
//! the network needs of them ([`model`]), computes from that what the kernel has to hold, and makes it so. There is no
//! store, election or gossip of its own: the Kubernetes API is the distributed engine.

pub mod api;
pub mod cli;
#[cfg(test)]
mod deploy;
pub mod doctor;
pub mod drift;
pub mod export;
pub mod install;
pub mod masquerade;
pub mod metrics;
pub mod model;
pub mod peers;
pub mod places;
pub mod policy;
pub mod prober;
pub mod routing;
pub mod run;
pub mod serve;
pub mod status;
pub mod tell;
pub mod wire;
