//! `loopback`: sets `lo` of the pod up. It takes no key of its own and minds no CNI_IFNAME.

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Interface, IpConfig, Undo};
use kernel::link::{self, Change};
use kernel::{Netns, Rtnl, addr};

use super::attach::{self, failed};

/// The plugin.
pub(crate) struct Loopback;

impl Plugin for Loopback {
    fn name(&self) -> &'static str {
        "loopback"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let netns = attach::open_netns(call)?;
        let mut rtnl = Rtnl::open_in(&netns).map_err(failed("netlink in the pod"))?;
        let lo = link::by_name(&mut rtnl, "lo").map_err(failed("find lo in the pod"))?;
        set_lo(&mut rtnl, lo.index, true)?;
        if !lo.up {
            undo.push("set lo down", move || {
                set_lo(&mut rtnl_again(&netns)?, lo.index, false).map_err(|err| err.msg)
            });
        }
        let result = match &call.conf.prev_result {
            Some(previous) => previous.clone(),
            None => described(&mut rtnl, lo.index, call)?,
        };
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let Some(netns) = attach::open_netns_for_del(call)? else { return Ok(()) };
        let mut rtnl = Rtnl::open_in(&netns).map_err(failed("netlink in the pod"))?;
        let lo = link::by_name(&mut rtnl, "lo").map_err(failed("find lo in the pod"))?;
        set_lo(&mut rtnl, lo.index, false)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let netns = attach::open_netns(call)?;
        let mut rtnl = Rtnl::open_in(&netns).map_err(failed("netlink in the pod"))?;
        let lo = link::by_name(&mut rtnl, "lo").map_err(failed("find lo in the pod"))?;
        if lo.up { Ok(()) } else { Err(Error::internal("loopback interface is down")) }
    }

    fn gc(&self, _call: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _call: &Call) -> Result<(), Error> {
        Ok(())
    }
}

fn rtnl_again(netns: &Netns) -> Result<Rtnl, String> {
    Rtnl::open_in(netns).map_err(|err| err.to_string())
}

fn set_lo(rtnl: &mut Rtnl, index: u32, up: bool) -> Result<(), Error> {
    let word = if up { "up" } else { "down" };
    link::set(rtnl, index, &Change { up: Some(up), ..Change::default() })
        .map_err(failed(format!("set lo {word}")))
}

/// The result when no plugin ran before: lo with its first address of each family.
fn described(rtnl: &mut Rtnl, index: u32, call: &Call) -> Result<CniResult, Error> {
    let addresses = addr::list(rtnl, Some(index)).map_err(failed("list addresses of lo"))?;
    if let Some(foreign) = addresses.iter().find(|address| !address.net.ip().is_loopback()) {
        return Err(Error::internal(format!(
            "loopback interface found with non-loopback address {:?}",
            foreign.net.ip().to_string()
        )));
    }
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
