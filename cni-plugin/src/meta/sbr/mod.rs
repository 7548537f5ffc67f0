//! `sbr`: source-based routing. What comes from an address of the interface is routed by a table of its own,
//! so that answers leave by the interface that the question came in on.
//!
//! All of it is in the pod's namespace and goes with it, so GC has nothing to look for. The result is passed
//! on as it came: a route that it lists is in another table afterwards, which CHECK of the interface
//! plugins understands.

mod check;
mod config;
mod plan;

use std::fs::File;
use std::rc::Rc;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, IpConfig, Undo, code};
use ipnetwork::IpNetwork;
use kernel::route::{self, Family, Route};
use kernel::rule::{self, Rule};
use kernel::{Rtnl, addr, link};
use nix::fcntl::{Flock, FlockArg};

use crate::interface::attach::{self, failed};
use config::SbrConfig;
use plan::{FIRST_TABLE, Step};

/// The plugin.
pub(crate) struct Sbr;

impl Plugin for Sbr {
    fn name(&self) -> &'static str {
        "sbr"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = SbrConfig::resolve(call)?;
        let previous = previous(call)?;
        let ips = own_ips(call, previous)?;
        let (netns, mut pod) = attach::open_pod(call)?;
        let _alone = lock(call)?;
        let netns = Rc::new(netns);
        let ifname = call.env.ifname.as_str();
        let link = link::by_name(&mut pod, ifname)
            .map_err(failed(format!("Cannot find network interface {ifname}")))?;
        let steps = plan::steps(&config, &ips, link.index, &rules(&mut pod)?, &routes(&mut pod)?);
        for step in &steps {
            take(&mut pod, step)?;
            let (netns, back) = (Rc::clone(&netns), step.reversed());
            undo.push("take back a rule or route", move || {
                let mut pod = Rtnl::open_in(&netns).map_err(|err| err.to_string())?;
                take(&mut pod, &back).map_err(|err| err.msg)
            });
        }
        Ok(previous.clone())
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let Some(mut pod) = attach::open_pod_for_del(call)? else { return Ok(()) };
        let _alone = lock(call)?;
        let link = match link::by_name(&mut pod, &call.env.ifname) {
            Err(err) if err.is_not_found() => None,
            other => Some(other.map_err(failed(format!("find {:?} in the pod", call.env.ifname)))?.index),
        };
        let addresses = addresses_for_del(&mut pod, link, call)?;
        tidy(&mut pod, link, &addresses, config::table(call))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = SbrConfig::resolve(call)?;
        let ips = own_ips(call, previous(call)?)?;
        let mut pod = attach::open_pod(call)?.1;
        let ifname = call.env.ifname.as_str();
        let link = link::by_name(&mut pod, ifname)
            .map_err(failed(format!("Cannot find network interface {ifname}")))?;
        check::check(&config, &ips, link.index, &rules(&mut pod)?, &routes(&mut pod)?)
    }

    fn gc(&self, _call: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let unavailable = |err: Error| Error { code: code::UNAVAILABLE, ..err };
        SbrConfig::resolve(call).map_err(unavailable)?;
        // A kernel without CONFIG_IP_MULTIPLE_TABLES has no rules to list.
        let mut rtnl = Rtnl::open().map_err(failed("netlink on the node")).map_err(unavailable)?;
        rules(&mut rtnl).map(drop).map_err(unavailable)
    }
}

fn previous(call: &Call) -> Result<&CniResult, Error> {
    let previous = call.conf.prev_result.as_ref();
    previous.ok_or_else(|| Error::invalid("This plugin must be called as chained plugin"))
}

/// The addresses of the interface: those of `previous` that name it, or no interface at all.
fn own_ips(call: &Call, previous: &CniResult) -> Result<Vec<IpConfig>, Error> {
    if previous.ips.is_empty() {
        return Err(Error::internal(format!("No IP addresses supplied on interface: {}", call.env.ifname)));
    }
    let own = |ip: &&IpConfig| {
        let interface = ip.interface.and_then(|index| previous.interfaces.get(index));
        interface.is_none_or(|interface| interface.name == call.env.ifname)
    };
    Ok(previous.ips.iter().filter(own).cloned().collect())
}

/// One ADD or DEL in a pod at a time, so that no two take one table: a lock on the namespace itself, as the
/// reference has it. No file is made.
fn lock(call: &Call) -> Result<Flock<File>, Error> {
    let refuse =
        |err: std::io::Error| Error::internal(format!("lock the pod's netns {:?}: {err}", call.env.netns));
    let file = File::open(&call.env.netns).map_err(refuse)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| refuse(errno.into()))
}

fn rules(pod: &mut Rtnl) -> Result<Vec<Rule>, Error> {
    let mut all = rule::list(pod, Family::V4).map_err(failed("Failed to list all rules"))?;
    all.extend(rule::list(pod, Family::V6).map_err(failed("Failed to list all rules"))?);
    Ok(all)
}

fn routes(pod: &mut Rtnl) -> Result<Vec<Route>, Error> {
    let mut all = route::list(pod, Family::V4).map_err(failed("Failed to list all routes"))?;
    all.extend(route::list(pod, Family::V6).map_err(failed("Failed to list all routes"))?);
    Ok(all)
}

fn take(pod: &mut Rtnl, step: &Step) -> Result<(), Error> {
    match step {
        Step::AddRule(rule) => rule::add(pod, rule).map_err(failed("Failed to add rule")),
        Step::DeleteRule(rule) => rule::delete(pod, rule).map_err(failed("Failed to delete rule")),
        Step::AddRoute(route) => route::add(pod, route).map_err(failed("Failed to add route")),
        Step::DeleteRoute(route) => route::delete(pod, route).map_err(failed("Failed to delete route")),
    }
}

/// The addresses whose rules DEL removes: those on the interface, and those that ADD was told of, in case
/// the interface is gone already.
fn addresses_for_del(pod: &mut Rtnl, link: Option<u32>, call: &Call) -> Result<Vec<IpNetwork>, Error> {
    let mut all = Vec::new();
    if let Some(index) = link {
        let present = addr::list(pod, Some(index)).map_err(failed("Failed to list all addrs"))?;
        all.extend(present.into_iter().map(|address| address.net));
    }
    if let Some(previous) = &call.conf.prev_result {
        all.extend(own_ips(call, previous).unwrap_or_default().into_iter().map(|ip| ip.address));
    }
    Ok(all)
}

/// Deletes the rules from these addresses, and the routes of the tables that they led to: only such rules as
/// ADD makes, by nothing but a whole source address, and only tables that it may have chosen.
fn tidy(pod: &mut Rtnl, link: Option<u32>, addresses: &[IpNetwork], table: Option<u32>) -> Result<(), Error> {
    let all = rules(pod)?;
    let own = |rule: &Rule| {
        let ours = match table {
            Some(table) => rule.table == table,
            None => rule.table >= FIRST_TABLE,
        };
        ours && addresses.iter().any(|address| plan::is_rule_of(rule, *address))
    };
    let mut outcomes: Vec<Result<(), Error>> = Vec::new();
    let mut note = |outcome: kernel::Result<()>, what: &str| match outcome {
        Err(err) if !err.is_not_found() => outcomes.push(Err(failed(what)(err))),
        _ => {}
    };
    for rule in all.iter().filter(|rule| own(rule)) {
        note(rule::delete(pod, rule), "Failed to delete rule");
    }
    let left = |table: u32| all.iter().any(|rule| rule.table == table && !own(rule));
    let emptied = |table: u32| all.iter().any(|rule| rule.table == table && own(rule)) && !left(table);
    if table.is_none() && link.is_some() {
        for route in routes(pod)?.iter().filter(|route| route.oif == link && emptied(route.table_id())) {
            note(route::delete(pod, route), "Failed to delete route");
        }
    }
    Error::join(outcomes)
}
