//! The kernel made equal to a plan, and all of it taken back.

use kernel::addr::{self, AddrOptions};
use kernel::route::SCOPE_LINK;
use kernel::{Family, Result, Rtnl, rule, sysctl};

use super::plan::Plan;
use super::state::State;
use super::steps::Steps;
use super::{PROTOCOL, gateway, tunnel};
use crate::model::Node;

/// A sysctl that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Its path below /proc/sys.
    pub path: String,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

/// What [`apply`] did and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The number of changes made, sysctls not among them; 0 where the kernel was as planned.
    pub changes: usize,
    /// The sysctls that were changed.
    pub sysctls: Vec<Sysctl>,
    /// Routes of other programs to the PodCIDRs of peers, which were left alone.
    pub foreign: Vec<String>,
    /// What could not be done, with the node that it is for and the kernel's words.
    pub trouble: Vec<String>,
}

impl Applied {
    /// Nothing was changed.
    pub fn is_quiet(&self) -> bool {
        self.changes == 0 && self.sysctls.is_empty()
    }

    /// Sets a sysctl, unless it has the value.
    pub(super) fn sysctl(&mut self, path: &str, to: &str) {
        let from = match sysctl::read(path) {
            Ok(from) if from == to => return,
            Ok(from) => from,
            Err(error) => return self.trouble.push(error.to_string()),
        };
        match sysctl::write(path, to) {
            Ok(()) => {
                let (path, to) = (path.to_owned(), to.to_owned());
                self.sysctls.push(Sysctl { path, from, to });
            }
            Err(error) => {
                let key = path.replace('/', ".");
                self.trouble.push(format!("{error}; it is {from} (on the machine: sysctl -w {key}={to})"));
            }
        }
    }
}

/// Makes the kernel equal to the plan, in the namespace of `rtnl`, which is the calling thread's. What the kernel
/// refuses of one peer is told and stops no other.
///
/// # Errors
/// The kernel cannot be asked.
pub fn apply(rtnl: &mut Rtnl, plan: &Plan) -> Result<Applied> {
    let mut applied = Applied::default();
    forward(plan, &mut applied);
    // First, for a link that is put right loses its neighbours.
    let tunnels = tunnel::ensure(rtnl, plan, &mut applied);
    let state = State::gather(rtnl, &tunnels.values().copied().collect::<Vec<_>>())?;
    let steps = Steps::between(plan, &tunnels, &state);
    if !steps.is_empty() {
        take(rtnl, steps, &mut applied)?;
    } else {
        applied.foreign = steps.foreign;
    }
    tunnel::delete_others(rtnl, plan, &mut applied)?;
    Ok(applied)
}

/// Takes everything back that [`apply`] has made, whatever plan it was from; sysctls stay, as nobody knows who relies on
/// them by now. `own` is this node, where it is known: a kernel before 5.18 does not tell whose the gateway addresses are.
///
/// # Errors
/// The kernel cannot be asked.
pub fn remove_all(rtnl: &mut Rtnl, own: Option<&Node>) -> Result<Applied> {
    let mut applied = apply(rtnl, &Plan::default())?;
    for gateway in own.into_iter().flat_map(|it| &it.pod_cidrs).filter_map(|it| gateway(*it)) {
        let loopback = kernel::link::by_name(rtnl, "lo")?.index;
        match addr::delete(rtnl, loopback, gateway.into()) {
            Ok(()) => applied.changes += 1,
            Err(error) if error.is_not_found() => {}
            Err(error) => applied.trouble.push(error.to_string()),
        }
    }
    Ok(applied)
}

fn forward(plan: &Plan, applied: &mut Applied) {
    // The kernel stops listening to routers as it becomes one, and the node would lose its default route.
    for link in &plan.advertised {
        applied.sysctl(&format!("net/ipv6/conf/{link}/accept_ra"), "2");
    }
    for family in &plan.forwards {
        match family {
            Family::V4 => applied.sysctl("net/ipv4/ip_forward", "1"),
            Family::V6 => applied.sysctl("net/ipv6/conf/all/forwarding", "1"),
        }
    }
}

fn take(rtnl: &mut Rtnl, steps: Steps, applied: &mut Applied) -> Result<()> {
    let Steps { batch, about, rules: [add, delete], gateways: [come, go], foreign } = steps;
    applied.foreign = foreign;
    // The kernel takes a route's source only once it is there; a gateway address is none, so their order is free.
    let outcomes = rtnl.send(batch)?;
    for (outcome, (whom, takes_away)) in outcomes.into_iter().zip(about) {
        match outcome {
            Ok(()) => applied.changes += 1,
            Err(error) if takes_away && error.is_not_found() => {}
            Err(error) => applied.trouble.push(format!("{whom}: {error}")),
        }
    }
    let mut note = |outcome: Result<()>| match outcome {
        Ok(()) => applied.changes += 1,
        Err(error) if error.is_exists() || error.is_not_found() => {}
        Err(error) => applied.trouble.push(error.to_string()),
    };
    add.iter().for_each(|it| note(rule::add(rtnl, it)));
    delete.iter().for_each(|it| note(rule::delete(rtnl, it)));
    for (link, net) in come {
        // With scope link it is nobody's source unless it is asked for.
        let scope = net.is_ipv4().then_some(SCOPE_LINK);
        let options = AddrOptions { nodad: true, scope, ..AddrOptions::default() };
        note(addr::add_marked(rtnl, link, net, &options, PROTOCOL));
    }
    go.into_iter().for_each(|(link, net)| note(addr::delete(rtnl, link, net)));
    Ok(())
}
