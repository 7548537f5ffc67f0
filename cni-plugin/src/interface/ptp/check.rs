//! CHECK of `ptp`: what an earlier ADD recorded in `prevResult` is still so, in the pod and on the node.

use cni::{Call, CniResult, Error};
use kernel::link::{self, Link};
use kernel::route::{self, Route};
use kernel::{Family, Rtnl, addr};

use super::config::PtpConfig;
use super::{families, node};
use crate::interface::attach::{self, failed};
use crate::interface::forwarding;
use crate::masq;

/// Compares kernel and `prevResult`.
///
/// # Errors
/// The first thing that is missing or different.
pub(super) fn check(call: &Call, config: &PtpConfig, mut pod: Rtnl) -> Result<(), Error> {
    let previous = attach::prev_result(call)?;
    let (position, recorded) = attach::pod_interface(call, previous)?;
    let ifname = call.env.ifname.as_str();
    let link = attach::check_link(&mut pod, ifname, recorded)?;
    if link.kind.as_deref() != Some("veth") {
        return Err(Error::internal(format!("{ifname:?} in the pod is not a veth")));
    }
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
    let end = check_node_end(&mut rtnl, &link, previous)?;
    attach::check_addresses(&mut pod, (ifname, link.index), previous, position)?;
    attach::check_routes(&mut pod, previous)?;
    // A later plugin of the chain may have added addresses of other interfaces.
    let mut own = previous.clone();
    own.ips.retain(|ip| ip.interface.is_none_or(|at| at == position));
    check_routes(&mut pod, &attach::gateway_routes(link.index, &own), "in the pod")?;

    let present = addr::list(&mut rtnl, Some(end.index))
        .map_err(failed(format!("list addresses of {:?}", end.name)))?;
    for gateway in node::gateways(&own) {
        if !present.iter().any(|address| address.net == gateway) {
            return Err(Error::internal(format!("gateway {gateway} is not on {:?}", end.name)));
        }
    }
    check_routes(&mut rtnl, &node::routes(&own, end.index), "on the node")?;
    families(&own).try_for_each(|v6| forwarding::check(&mut rtnl, v6))?;
    if config.ip_masq {
        masq::check(call, &own.ips.iter().map(|ip| ip.address).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The node's end of the pod's link is the one recorded, and up.
fn check_node_end(rtnl: &mut Rtnl, pod_link: &Link, previous: &CniResult) -> Result<Link, Error> {
    let missing = || Error::internal(format!("the node's end of {:?} was not found", pod_link.name));
    let index = pod_link.link.ok_or_else(missing)?;
    let end = link::by_index(rtnl, index).map_err(|err| match err.is_not_found() {
        true => missing(),
        false => failed("find the node's end of the veth")(err),
    })?;
    let listed = previous.interfaces.iter().any(|there| there.sandbox.is_empty() && there.name == end.name);
    if end.kind.as_deref() != Some("veth") || end.link != Some(pod_link.index) || !listed {
        return Err(missing());
    }
    if !end.up {
        return Err(Error::internal(format!("veth {:?} is down", end.name)));
    }
    Ok(end)
}

/// Each route is there, with its next hop and link.
fn check_routes(rtnl: &mut Rtnl, wanted: &[Route], whose: &str) -> Result<(), Error> {
    let mut present = Vec::new();
    for family in [Family::V4, Family::V6] {
        if wanted.iter().any(|route| route.family() == family) {
            present.extend(route::list(rtnl, family).map_err(failed(format!("list routes {whose}")))?);
        }
    }
    for route in wanted {
        let same = |there: &Route| {
            there.destination() == route.destination()
                && there.table_id() == route.table_id()
                && (there.oif, there.gateway) == (route.oif, route.gateway)
        };
        if !present.iter().any(same) {
            let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            return Err(Error::internal(format!("route {}{via} is missing {whose}", route.destination())));
        }
    }
    Ok(())
}
