//! The node's side of `ptp`: gateway addresses on the node's end of the veth, and the route to the pod.

use cni::{Call, CniResult, Error, code};
use ipnetwork::IpNetwork;
use kernel::addr::AddrOptions;
use kernel::link;
use kernel::route::{self, Route};
use kernel::{Batch, Rtnl, sysctl};

use crate::interface::attach::{failed, host_prefix};
use crate::interface::veth::{self, NodeEnd};

/// Lets the node's end use its link-local address at once. Until it may, the node asks for no neighbour there,
/// and what it forwards to the pod waits, for a second and more. Only the pod is on the other side. To be called
/// before the pod's end is up; best effort: a read-only /proc/sys costs that wait and nothing else.
pub(super) fn skip_duplicate_detection(veth: &NodeEnd) {
    let _ = sysctl::ensure(&format!("net/ipv6/conf/{}/accept_dad", veth.name), "0");
}

/// Says on the node's end whose it is, and gives it the gateway addresses and the routes to the pod.
///
/// # Errors
/// Code 11 when an address of the pod is routed elsewhere; else what the kernel says.
pub(super) fn connect(rtnl: &mut Rtnl, call: &Call, veth: &NodeEnd, result: &CniResult) -> Result<(), Error> {
    let name = veth.name.as_str();
    veth::complete(rtnl, call, veth, None)?;

    let (addresses, routes) = (gateways(result), routes(result, veth.index));
    let mut batch = Batch::new();
    for address in &addresses {
        let options = AddrOptions { nodad: true, ..AddrOptions::default() };
        batch.addr_add(veth.index, *address, &options);
    }
    for route in &routes {
        batch.route_add_exclusive(route);
    }
    if batch.is_empty() {
        return Ok(());
    }
    let mut answers = rtnl.send(batch).map_err(failed("netlink on the node"))?.into_iter();
    for (address, answer) in addresses.iter().zip(answers.by_ref()) {
        answer.map_err(failed(format!("add gateway address {address} to {name:?}")))?;
    }
    for (route, answer) in routes.iter().zip(answers) {
        let destination = route.destination();
        match answer {
            Err(err) if err.is_exists() => return Err(taken(rtnl, destination)),
            answer => answer.map_err(failed(format!("add route {destination} dev {name}")))?,
        }
    }
    Ok(())
}

/// The gateway addresses, each once: several addresses of the pod may share one.
pub(super) fn gateways(result: &CniResult) -> Vec<IpNetwork> {
    let mut all: Vec<IpNetwork> = result.ips.iter().filter_map(|ip| ip.gateway).map(host_prefix).collect();
    all.sort();
    all.dedup();
    all
}

/// The routes to the addresses of the pod behind the link `index`.
pub(super) fn routes(result: &CniResult, index: u32) -> Vec<Route> {
    let to = |ip: &cni::IpConfig| Route {
        dst: Some(host_prefix(ip.address.ip())),
        oif: Some(index),
        scope: ip.address.is_ipv4().then_some(route::SCOPE_HOST),
        ..Route::default()
    };
    result.ips.iter().map(to).collect()
}

/// The node has a route to the pod's new address already: a pod that is being removed, or an address that was
/// given twice. The reference goes on, and the packets go to the other one.
fn taken(rtnl: &mut Rtnl, destination: IpNetwork) -> Error {
    let family = kernel::Family::of(destination.ip());
    let oif = route::list(rtnl, family)
        .into_iter()
        .flatten()
        .find(|route| route.destination() == destination && route.table_id() == route::TABLE_MAIN)
        .and_then(|route| route.oif);
    let to = match oif.and_then(|oif| link::by_index(rtnl, oif).ok()) {
        Some(link) => {
            format!(" to {:?} ({})", link.name, link.alias.as_deref().unwrap_or("of another program"))
        }
        None => String::new(),
    };
    Error::new(code::TRY_LATER, format!("address {} is routed{to} already", destination.ip()))
}
