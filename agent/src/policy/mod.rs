//! NetworkPolicy (networking.k8s.io/v1), whole: who may open a connection to whom.
//!
//! [`mod@evaluate`] judges one connection over what is known of the cluster and gives the reason; [`mod@explain`] says that in
//! words. [`mod@compile`] turns the policies that concern this node's pods into a [`program::Program`], [`mod@apply`] makes the
//! kernel's table equal to it, and [`mod@cut`] ends the connections that a change forbids. [`slots`] is the node's side of the
//! chained plugin `podnet-policy`, which closes a pod's addresses before its first instant. [`Enforcer`] puts it together.
//!
//! The table fails closed: an address of this node's own ranges that is in no map is dropped in both directions, so a pod
//! of which the agent has not heard, or whose agent is dead, is isolated. What passes between a pod and its own node never
//! passes the forward hook and is always allowed, as Kubernetes says.

pub mod apply;
pub mod blocks;
pub mod compile;
pub mod cut;
pub mod enforce;
pub mod evaluate;
pub mod explain;
pub mod explain_cli;
pub mod links;
mod names;
pub mod probe;
pub mod program;
pub mod slots;
#[cfg(test)]
mod tests;

pub use enforce::{Enforcer, Outcome};
pub use evaluate::evaluate;
pub use probe::probe_kernel;

use crate::model::{Cluster, Labels, Policy, Rule};

/// Which way a connection goes as its pod sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The pod opens it.
    Egress,
    /// It is opened to the pod.
    Ingress,
}

impl Direction {
    /// Both, in the order in which a packet meets them.
    pub const ALL: [Direction; 2] = [Direction::Egress, Direction::Ingress];

    /// Its name as `policyTypes` writes it, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        }
    }

    /// What a policy says of it; `None`: nothing.
    pub fn rules(self, policy: &Policy) -> Option<&[Rule]> {
        match self {
            Direction::Egress => policy.egress.as_deref(),
            Direction::Ingress => policy.ingress.as_deref(),
        }
    }
}

/// The policies that isolate a pod of this namespace with these labels, by namespace and name.
fn isolating<'a>(
    cluster: &'a Cluster,
    namespace: &'a str,
    labels: &'a Labels,
    direction: Direction,
) -> impl Iterator<Item = &'a Policy> {
    let first = crate::model::Key::new(namespace, "");
    cluster
        .policies
        .range(first..)
        .map(|(_, policy)| policy)
        .take_while(move |policy| policy.key.namespace == namespace)
        .filter(move |policy| direction.rules(policy).is_some() && policy.pods.selects(labels))
}
