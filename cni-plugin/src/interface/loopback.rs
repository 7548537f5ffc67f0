//! `loopback`: sets `lo` of the pod up. It takes no key of its own and minds no CNI_IFNAME.

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Interface, IpConfig, Undo};
use kernel::link::{self, Change, Link};
use kernel::{Rtnl, addr};

use super::attach::{self, failed};
use super::saved::Saved;

/// The plugin.
pub(crate) struct Loopback;

impl Plugin for Loopback {
    fn name(&self) -> &'static str {
        "loopback"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let (netns, mut pod) = attach::open_pod(call)?;
        let lo = find_lo(&mut pod)?;
        refuse_foreign_addresses(&mut pod, lo.index)?;
        if !lo.up {
            let saved = Saved::of(&mut pod, lo.index)?;
            undo.push("set lo down", move || {
                let mut pod = Rtnl::open_in(&netns).map_err(|err| err.to_string())?;
                set_lo(&mut pod, lo.index, false).map_err(|err| err.msg)?;
                saved.restore(&mut pod)
            });
        }
        set_lo(&mut pod, lo.index, true)?;
        match &call.conf.prev_result {
            Some(previous) => Ok(previous.clone()),
            None => described(&mut pod, lo.index, call),
        }
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let Some(mut pod) = attach::open_pod_for_del(call)? else { return Ok(()) };
        let lo = find_lo(&mut pod)?;
        set_lo(&mut pod, lo.index, false)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let (_, mut pod) = attach::open_pod(call)?;
        if find_lo(&mut pod)?.up { Ok(()) } else { Err(Error::internal("loopback interface is down")) }
    }

    fn gc(&self, _call: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _call: &Call) -> Result<(), Error> {
        Ok(())
    }
}

fn find_lo(pod: &mut Rtnl) -> Result<Link, Error> {
    link::by_name(pod, "lo").map_err(failed("find lo in the pod"))
}

/// An address on lo that is no loopback address means that somebody uses it as a pod's own; the look comes
/// before anything is changed.
fn refuse_foreign_addresses(pod: &mut Rtnl, index: u32) -> Result<(), Error> {
    let addresses = addr::list(pod, Some(index)).map_err(failed("list addresses of lo"))?;
    match addresses.iter().find(|address| !address.net.ip().is_loopback()) {
        Some(foreign) => Err(Error::internal(format!(
            "loopback interface found with non-loopback address {:?}",
            foreign.net.ip().to_string()
        ))),
        None => Ok(()),
    }
}

fn set_lo(rtnl: &mut Rtnl, index: u32, up: bool) -> Result<(), Error> {
    let word = if up { "up" } else { "down" };
    link::set(rtnl, index, &Change { up: Some(up), ..Change::default() })
        .map_err(failed(format!("set lo {word}")))
}

/// The result when no plugin ran before: lo with its first address of each family.
fn described(rtnl: &mut Rtnl, index: u32, call: &Call) -> Result<CniResult, Error> {
    let addresses = addr::list(rtnl, Some(index)).map_err(failed("list addresses of lo"))?;
    let first = |v6: bool| addresses.iter().find(|address| address.net.is_ipv6() == v6);
    Ok(CniResult {
        interfaces: vec![Interface {
            name: "lo".into(),
            mac: "00:00:00:00:00:00".into(),
            sandbox: call.env.netns.clone(),
            ..Interface::default()
        }],
        ips: [first(false), first(true)]
            .into_iter()
            .flatten()
            .map(|address| IpConfig { interface: Some(0), address: address.net, gateway: None })
            .collect(),
        ..CniResult::default()
    })
}
