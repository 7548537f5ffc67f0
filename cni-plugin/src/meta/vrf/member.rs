//! An interface enters a VRF and leaves it again.
//!
//! On the way the kernel sets the interface down and up. That takes its routes, and IPv6 addresses that it was
//! not told to keep; both come back here, the routes of the main table in the VRF's.

use std::rc::Rc;

use cni::{Error, Undo};
use ipnetwork::IpNetwork;
use kernel::addr::{self, Address};
use kernel::link::{self, Change, Link};
use kernel::route::{self, Family, PROTOCOL_KERNEL, Route, SCOPE_LINK, TABLE_LOCAL, TABLE_MAIN};
use kernel::{Netns, Rtnl};

use super::Domain;
use crate::interface::attach::{failed, network};
use crate::interface::saved::Saved;

/// The interface, which is in no bridge, bond or VRF yet.
///
/// # Errors
/// It is not there, or it is in one.
pub(super) fn find_free(pod: &mut Rtnl, ifname: &str) -> Result<Link, Error> {
    let link = link::by_name(pod, ifname).map_err(failed(format!("could not get link by name {ifname}")))?;
    let Some(master) = link.master else { return Ok(link) };
    let name = link::by_index(pod, master).map(|master| master.name).unwrap_or_default();
    Err(Error::internal(format!("interface {ifname} has already a master set: {name}")))
}

/// Puts the interface into the VRF, with all that it has.
///
/// # Errors
/// What the kernel refused.
pub(super) fn join(
    pod: &mut Rtnl,
    link: &Link,
    vrf: &Domain,
    netns: &Rc<Netns>,
    undo: &mut Undo,
) -> Result<(), Error> {
    let ifname = link.name.as_str();
    let addresses =
        addr::list(pod, Some(link.index)).map_err(failed(format!("list addresses of {ifname:?}")))?;
    let routes = routes(pod, link.index)?;

    let (saved, index, back) = (Saved::of(pod, link.index)?, link.index, Rc::clone(netns));
    undo.push("take the interface out of the VRF", move || {
        let mut pod = Rtnl::open_in(&back).map_err(|err| err.to_string())?;
        set_master(&mut pod, index, 0).map_err(|err| err.to_string())?;
        saved.restore(&mut pod)
    });
    set_master(pod, link.index, vrf.index)
        .map_err(failed(format!("could not set vrf {} as master of {ifname}", vrf.name)))?;

    restore_addresses(pod, &addresses)
        .map_err(failed(format!("could not restore an address of {ifname}")))?;
    drop_new_connected_routes(pod, link.index, vrf.table, &routes)?;
    for route in moved(&routes, vrf.table) {
        match route::add(pod, &route) {
            Err(err) if !err.is_exists() => return Err(failed("could not add route")(err)),
            _ => {}
        }
    }
    Ok(())
}

/// Takes the interface out of the VRF, if it is there and in it.
///
/// # Errors
/// What the kernel refused.
pub(super) fn leave(pod: &mut Rtnl, ifname: &str, vrf: u32) -> Result<(), Error> {
    let left = link::by_name(pod, ifname).and_then(|link| match link.master == Some(vrf) {
        true => set_master(pod, link.index, 0),
        false => Ok(()),
    });
    match left {
        Err(err) if !err.is_not_found() => Err(failed(format!("take {ifname:?} out of its VRF"))(err)),
        _ => Ok(()),
    }
}

fn set_master(pod: &mut Rtnl, index: u32, master: u32) -> kernel::Result<()> {
    link::set(pod, index, &Change { master: Some(master), ..Change::default() })
}

fn routes(pod: &mut Rtnl, index: u32) -> Result<Vec<Route>, Error> {
    let mut all = route::list(pod, Family::V4).map_err(failed("list routes"))?;
    all.extend(route::list(pod, Family::V6).map_err(failed("list IPv6 routes"))?);
    all.retain(|route| route.oif == Some(index));
    Ok(all)
}

/// Adds what went, and what has to prove itself anew: an address that was usable before is known to be unique,
/// and a route cannot have it as its source while it is tentative.
fn restore_addresses(pod: &mut Rtnl, before: &[Address]) -> kernel::Result<()> {
    let Some(index) = before.first().map(|address| address.index) else { return Ok(()) };
    let now = addr::list(pod, Some(index))?;
    for address in before.iter().filter(|address| address.scope != SCOPE_LINK) {
        match now.iter().find(|there| there.net == address.net) {
            Some(there) if !there.is_tentative() => continue,
            Some(there) => addr::delete(pod, index, there.net)?,
            None => {}
        }
        match addr::restore(pod, address) {
            Err(err) if !err.is_exists() => return Err(err),
            _ => {}
        }
    }
    Ok(())
}

/// The kernel makes a route to the subnet of every address anew. Where an earlier plugin had taken it away (ptp
/// does, to send all through its gateway), it goes again.
fn drop_new_connected_routes(pod: &mut Rtnl, index: u32, table: u32, before: &[Route]) -> Result<(), Error> {
    for route in routes(pod, index)?.iter().filter(|route| route.table_id() == table && is_connected(route)) {
        let was_there = |old: &Route| is_connected(old) && old.destination() == route.destination();
        if before.iter().any(was_there) {
            continue;
        }
        match route::delete(pod, route) {
            Err(err) if !err.is_not_found() => return Err(failed("delete route")(err)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the kernel made the route for an address's subnet.
fn is_connected(route: &Route) -> bool {
    let own = route.protocol == PROTOCOL_KERNEL && route.kind == route::KIND_UNICAST;
    own && route.gateway.is_none() && route.table_id() != TABLE_LOCAL && !is_link_local(route.destination())
}

fn is_link_local(net: IpNetwork) -> bool {
    matches!(network(net).ip(), std::net::IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}

/// What is to be added of the routes that were: not the kernel's own; those of the main table in `table`; those
/// without a gateway first, as gateways are reached by them.
fn moved(before: &[Route], table: u32) -> Vec<Route> {
    let mut all: Vec<Route> =
        before.iter().filter(|route| route.protocol != PROTOCOL_KERNEL).cloned().collect();
    for route in all.iter_mut().filter(|route| route.table_id() == TABLE_MAIN) {
        route.table = Some(table);
    }
    all.sort_by_key(|route| route.gateway.is_some());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(dst: &str, gateway: &str, table: u32, protocol: u8) -> Route {
        Route {
            dst: dst.parse().ok(),
            gateway: gateway.parse().ok(),
            oif: Some(2),
            table: Some(table),
            protocol,
            ..Route::default()
        }
    }

    #[test]
    fn routes_move_with_what_their_gateways_are_reached_by_in_front() {
        // As ptp leaves them: the dump has the subnet before the gateway that it goes through.
        let before = [
            route("10.1.2.0/24", "10.1.2.1", TABLE_MAIN, 3),
            route("10.1.2.1/32", "", TABLE_MAIN, 3),
            route("10.9.0.0/16", "10.1.2.1", 100, 3),
            route("10.1.2.2/32", "", TABLE_LOCAL, PROTOCOL_KERNEL),
            route("10.7.0.0/16", "", TABLE_MAIN, PROTOCOL_KERNEL),
        ];
        let moved: Vec<_> =
            moved(&before, 7).iter().map(|r| (r.destination().to_string(), r.table_id())).collect();
        let expected = [("10.1.2.1/32", 7), ("10.1.2.0/24", 7), ("10.9.0.0/16", 100)];
        assert_eq!(moved, expected.map(|(dst, table)| (dst.to_owned(), table)));
    }

    #[test]
    fn connected_is_what_the_kernel_made_for_an_address() {
        assert!(is_connected(&route("10.7.0.0/16", "", 7, PROTOCOL_KERNEL)));
        assert!(is_connected(&route("2001:db8::/64", "", 7, PROTOCOL_KERNEL)));
        for other in [
            route("fe80::/64", "", 7, PROTOCOL_KERNEL),
            route("10.7.0.0/16", "", 7, 3),
            route("10.7.0.1/32", "", TABLE_LOCAL, PROTOCOL_KERNEL),
        ] {
            assert!(!is_connected(&other), "{other:?}");
        }
    }
}
