//! The truth table of the network model: who is seen as whom, each by each.

use std::fmt;
use std::net::IpAddr;

use anyhow::Result;
use kernel::netns::Netns;

/// One end of connections: a pod, or a node as a hostNetwork pod.
pub(super) struct End<'a> {
    pub(super) name: String,
    pub(super) node: usize,
    pub(super) is_pod: bool,
    pub(super) netns: &'a Netns,
    pub(super) address: IpAddr,
}

/// A connection that went otherwise than the model says.
pub(super) struct Wrong {
    pub(super) from: String,
    pub(super) to: String,
    what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}: {}", self.from, self.to, self.what)
    }
}

/// Has every end ask every other one, by `ask`, as whom it is seen. Gives how many asked, and who was not seen with the own
/// address: M3 to M6 of the model, pod to pod, pod to node, node to pod, node to node. Which of its addresses a node takes
/// towards its own pods is its own business.
pub(super) fn judge(
    ends: &[End<'_>],
    ask: impl Fn(&End<'_>, &End<'_>) -> Result<IpAddr>,
) -> (usize, Vec<Wrong>) {
    let (mut asked, mut wrong) = (0, Vec::new());
    for from in ends {
        for to in ends.iter().filter(|to| to.address != from.address) {
            asked += 1;
            let own_node = !from.is_pod && to.is_pod && from.node == to.node;
            let what = match ask(from, to) {
                Ok(seen) if seen == from.address || own_node => continue,
                Ok(seen) => format!("seen as {seen}"),
                Err(error) => format!("{error:#}"),
            };
            wrong.push(Wrong { from: from.name.clone(), to: to.name.clone(), what });
        }
    }
    (asked, wrong)
}

/// A line for each.
pub(super) fn lines(wrong: &[Wrong]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
