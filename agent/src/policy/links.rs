//! The links by which this node's pods send: a device group, [`LINKS`], tells them from all others.
//!
//! `podnet-policy` puts a pod's link there before the pod's first instant, and the rules hold what comes in by such a link
//! against the pod's own addresses. Here are put in those that another program took out, or that were there before the
//! plugin was: the links to which the kernel's routes to addresses of this node's pods lead.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use kernel::link::{self, Link};
use kernel::route::{self, Route, TABLE_MAIN};
use kernel::{Family, Result, Rtnl};
use nix::libc;

use super::program::LINKS;

/// The links, by index, that lead to single addresses within `cidrs` and nowhere else.
pub fn of_pods(routes: &[Route], cidrs: &[IpNetwork]) -> BTreeSet<u32> {
    let to_pod = |it: &Route| {
        let dst = it.destination();
        let whole = dst.prefix() == if dst.is_ipv4() { 32 } else { 128 };
        let within = |cidr: &IpNetwork| cidr.is_ipv6() == dst.is_ipv6() && cidr.contains(dst.ip());
        it.gateway.is_none() && whole && cidrs.iter().any(within)
    };
    // What every link has is no way to elsewhere.
    let of_the_link = |it: &Route| match it.destination().network() {
        std::net::IpAddr::V4(_) => false,
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
    };
    let main = || routes.iter().filter(|it| it.table_id() == TABLE_MAIN);
    let mut links: BTreeSet<u32> = main().filter(|it| to_pod(it)).filter_map(|it| it.oif).collect();
    for other in main().filter(|it| !to_pod(it) && !of_the_link(it)) {
        other.oif.inspect(|oif| _ = links.remove(oif));
    }
    links
}

/// Puts the links of the pods with addresses within `cidrs` into the group; how many were not there.
///
/// # Errors
/// The kernel's words. A link that goes meanwhile is none.
pub fn mark(rtnl: &mut Rtnl, cidrs: &[IpNetwork]) -> Result<usize> {
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        if cidrs.iter().any(|it| Family::of(it.ip()) == family) {
            routes.extend(route::list(rtnl, family)?);
        }
    }
    let (pods, mut marked) = (of_pods(&routes, cidrs), 0);
    // The gateway's address is on the loopback, which the kernel has a route for.
    let is_pods = |it: &Link| pods.contains(&it.index) && it.flags & libc::IFF_LOOPBACK as u32 == 0;
    for link in link::list(rtnl)?.into_iter().filter(|it| it.group != LINKS && is_pods(it)) {
        let change = link::Change { group: Some(LINKS), ..link::Change::default() };
        match link::set(rtnl, link.index, &change) {
            Err(error) if !error.is_not_found() => return Err(error),
            done => marked += usize::from(done.is_ok()),
        }
    }
    Ok(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_link_leads_to_its_addresses_and_nowhere_else() {
        let route = |dst: &str, oif: u32, gateway: Option<&str>, table: u32| Route {
            dst: Some(dst.parse().unwrap()),
            oif: Some(oif),
            gateway: gateway.map(|it| it.parse().unwrap()),
            table: Some(table),
            ..Route::default()
        };
        let routes = [
            route("10.244.0.2/32", 7, None, 254),
            route("fd00::2/128", 7, None, 254),
            route("fe80::/64", 7, None, 254),
            route("10.244.0.3/32", 8, None, 254),
            // The uplink, over which an administrator leads one address of the range.
            route("10.244.0.77/32", 2, None, 254),
            route("172.18.0.0/24", 2, None, 254),
            route("10.244.0.78/32", 3, Some("172.19.0.1"), 254),
            // Another node's pod, another table, a part of the range.
            route("10.244.1.2/32", 4, None, 254),
            route("10.244.0.4/32", 5, None, 100),
            route("10.244.0.128/25", 6, None, 254),
        ];
        let cidrs = ["10.244.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        assert_eq!(of_pods(&routes, &cidrs), BTreeSet::from([7, 8]));
    }
}
