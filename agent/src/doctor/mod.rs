//! `podnetd doctor`: why pods of this node have no network, or a slow one, by causes that are the node's own or its
//! machine's.
//!
//! Each check looks for one cause in the kernel or in files, and says what it saw and what to do. Nothing is changed and no
//! packet is sent. What the agent itself knows (routes, peers) it tells at `/status`; that is asked too, when it is there.

mod cli;
mod forward;
mod links;
mod report;
mod rules;
mod setup;
mod state;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::Result;
use ipnetwork::IpNetwork;
use kernel::{Family, Nfnl, Rtnl};
use serde::Serialize;
use serde_json::Value;

pub use cli::{Args, run};
pub use report::{exit_code, text};

use crate::install::conflist::{self, InUse};
use crate::places::Places;
use crate::routing;

/// Where a check makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// On a node of the cluster.
    Node,
    /// On the machine whose containers are the nodes, as with kind.
    Machine,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The cause is not there.
    Ok,
    /// It does harm in some cases, or will.
    Warning,
    /// Pods lack their network because of it.
    Failed,
    /// It could not be looked for.
    Unknown,
}

/// A cause that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// [`State::Warning`] or [`State::Failed`].
    pub state: State,
    /// What is wrong.
    pub cause: String,
    /// Where it was seen: table and chain, sysctl and value, file.
    pub evidence: String,
    /// What to do.
    pub advice: String,
}

impl Trouble {
    fn new(
        state: State,
        cause: impl Into<String>,
        evidence: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Trouble { state, cause: cause.into(), evidence: evidence.into(), advice: advice.into() }
    }
}

/// What a check came to. One that finds two causes gives two findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// How it stands.
    pub state: State,
    /// What is wrong, or what was looked for and is not there.
    pub cause: String,
    /// Where it was seen.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// What is examined: the calling thread's network namespace, and files.
#[derive(Debug)]
pub struct Host {
    /// Where files are.
    pub places: Places,
    /// proc(5).
    pub proc: PathBuf,
    /// Routing, links, addresses.
    pub rtnl: Rtnl,
    /// Rules.
    pub nfnl: Nfnl,
    /// The agent's `/status`, or why there is none.
    pub agent: Result<Value, String>,
    /// Our configuration; none when there is none.
    pub conflist: Option<InUse>,
}

impl Host {
    /// The calling thread's namespace, with the files below `places`.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn new(places: Places, agent: Result<Value, String>) -> Result<Host> {
        Ok(Host {
            // What is wrong with it is told by the check `conflist`.
            conflist: conflist::read(&places).ok().flatten(),
            places,
            proc: PathBuf::from("/proc"),
            rtnl: Rtnl::open()?,
            nfnl: Nfnl::open()?,
            agent,
        })
    }

    /// A sysctl's value; none where the kernel has no such.
    fn sysctl(&self, path: &str) -> Option<String> {
        read(&self.proc.join("sys").join(path))
    }

    /// Where this node's pods have their addresses.
    fn subnets(&self) -> &[IpNetwork] {
        self.conflist.as_ref().map(|it| it.subnets.as_slice()).unwrap_or_default()
    }

    fn has(&self, ipv6: bool) -> bool {
        self.subnets().iter().any(|it| it.is_ipv6() == ipv6)
    }
}

/// Whether a link is one of the agent's tunnels.
fn is_tunnel(link: &kernel::link::Link) -> bool {
    [Family::V4, Family::V6].iter().any(|family| link.name == routing::tunnel_name(*family))
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|it| it.trim().to_owned())
}

/// A check: its name, what it looks for (told when it is not there), where it makes sense, how it is done.
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What is so when nothing is found.
    pub fine: &'static str,
    /// Where it makes sense.
    pub scopes: &'static [Scope],
    look: fn(&mut Host) -> Result<Vec<Trouble>>,
}

const NODE: &[Scope] = &[Scope::Node];
const MACHINE: &[Scope] = &[Scope::Machine];
const BOTH: &[Scope] = &[Scope::Node, Scope::Machine];

const fn check(
    name: &'static str,
    fine: &'static str,
    scopes: &'static [Scope],
    look: fn(&mut Host) -> Result<Vec<Trouble>>,
) -> Check {
    Check { name, fine, scopes, look }
}

/// Every check, in the order in which they are told.
pub static CHECKS: &[Check] = &[
    check("agent", "podnetd answers and is ready", NODE, setup::agent),
    check("kernel", "the kernel has what podnet needs", BOTH, setup::kernel),
    check("plugins", "every plugin of the configuration runs", NODE, setup::plugins),
    check("conflist", "the runtime takes podnet's configuration", NODE, setup::conflist),
    check("reservations", "there are addresses for new pods", NODE, state::reservations),
    check("forwarding", "the node forwards packets", NODE, links::forwarding),
    check("ipv6", "IPv6 is enabled where pods have it", NODE, links::ipv6),
    check("mtu", "no packet of a pod is longer than the links that it passes", NODE, links::mtu),
    check("rp-filter", "packets may come by another way than the answers go", NODE, links::rp_filter),
    check("routes", "no route of another program or of a node that is gone", NODE, state::routes),
    check("forward-chain", "no rule of another program drops what is forwarded", NODE, forward::pods),
    check("vxlan-port", "no rule of another program drops what comes in tunnels", NODE, forward::vxlan),
    check("conntrack", "there is room for new connections", BOTH, state::conntrack),
    check("bridge-nf", "frames between nodes pass no rule that drops them", MACHINE, forward::bridged),
    check("icc", "containers of one network may talk to each other", MACHINE, forward::icc),
    check(
        "bridge-mtu",
        "no link of a container is longer than the machine's way out",
        MACHINE,
        links::bridge_mtu,
    ),
];

/// Looks for every cause that makes sense here.
pub fn examine(host: &mut Host, scope: Scope) -> Vec<Finding> {
    let checks = CHECKS.iter().filter(|check| check.scopes.contains(&scope));
    checks.flat_map(|check| findings(host, check)).collect()
}

fn findings(host: &mut Host, check: &Check) -> Vec<Finding> {
    let finding = |state, cause: String, evidence: String, advice: String| Finding {
        check: check.name,
        state,
        cause,
        evidence,
        advice,
    };
    match (check.look)(host) {
        Ok(troubles) if troubles.is_empty() => {
            vec![finding(State::Ok, check.fine.to_owned(), String::new(), String::new())]
        }
        Ok(troubles) => {
            troubles.into_iter().map(|it| finding(it.state, it.cause, it.evidence, it.advice)).collect()
        }
        Err(err) => {
            let advice = "run podnetd doctor as root, in the network namespace of the node".to_owned();
            vec![finding(
                State::Unknown,
                "this could not be looked at".to_owned(),
                format!("{err:#}"),
                advice,
            )]
        }
    }
}
