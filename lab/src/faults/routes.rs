//! Routes: missing, leading nowhere, leading in circles.

use anyhow::{Result, bail};
use ipnetwork::IpNetwork;
use kernel::Rtnl;
use kernel::route::{self, KIND_BLACKHOLE, Route};

use super::{Act, Fault, always, not_in_mode};
use crate::breaking::{Work, unless_gone, unless_there};
use crate::cluster::{Cluster, Node, Pod, Space};
use crate::exit::Failure;
use crate::look::{address_of_node, pods_of, restore_routes, route_to, routes_of};
use crate::topology::numbered;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "route-missing",
        does: "a node has no route to the pods of another one",
        seen: "pods of the two nodes do not reach each other: network unreachable, or the default router's word",
        amount: None,
        unless: routed,
        act: Act::Nodes(route_missing),
    },
    Fault {
        id: "route-blackhole",
        does: "a node's route to the pods of another one is a black hole",
        seen: "TIMEOUT, and no ICMP error: the packet ends at the node without a word",
        amount: None,
        unless: routed,
        act: Act::Nodes(route_blackhole),
    },
    Fault {
        id: "route-loop",
        does: "two nodes send packets for the second one's pods to each other",
        seen: "the TTL counts down between two nodes until one of them says time exceeded",
        amount: None,
        unless: routed,
        act: Act::Nodes(route_loop),
    },
    Fault {
        id: "no-default-route",
        does: "a pod has no default route",
        seen: "the pod reaches pods of its node only, all else is network unreachable at once",
        amount: None,
        unless: always,
        act: Act::Pod(no_default_route),
    },
];

pub(super) fn routed(cluster: &Cluster) -> Result<(), Failure> {
    if cluster.mode.on_lan() { Err(not_in_mode(cluster, "no node that routes for its pods")) } else { Ok(()) }
}

fn route_missing(work: &mut Work<'_>, _: &Cluster, near: &Node, far: &Node) -> Result<()> {
    let pods = pods_of(far, work.family())?;
    let route = route_to(&near.space, pods)?;
    let change = |space: &Space| {
        route::delete(&mut Rtnl::open_in(&space.netns)?, &route)?;
        Ok(route)
    };
    work.change_in(&near.space, format!("route {pods}"), change, |space, route| {
        unless_there(route::add(&mut Rtnl::open_in(&space.netns)?, route))
    })
}

fn route_blackhole(work: &mut Work<'_>, _: &Cluster, near: &Node, far: &Node) -> Result<()> {
    let pods = pods_of(far, work.family())?;
    let route = route_to(&near.space, pods)?;
    let change = |space: &Space| {
        let (dst, priority) = (route.dst, route.priority);
        let hole = Route { dst, priority, kind: KIND_BLACKHOLE, ..Route::default() };
        route::replace(&mut Rtnl::open_in(&space.netns)?, &hole)?;
        Ok(route)
    };
    work.change_in(&near.space, format!("route {pods}"), change, |space, route| {
        Ok(route::replace(&mut Rtnl::open_in(&space.netns)?, route)?)
    })
}

/// The far node has a route to its pods by its bridge; two routes to the halves of the same network are better ones.
fn route_loop(work: &mut Work<'_>, _: &Cluster, near: &Node, far: &Node) -> Result<()> {
    if near.rack != far.rack {
        bail!("{} and {} are not on one link", near.space.name, far.space.name);
    }
    let (pods, gateway) = (pods_of(far, work.family())?, address_of_node(near, work.family())?);
    let prefix = pods.prefix() + 1;
    let bits: u8 = if pods.is_ipv4() { 32 } else { 128 };
    for second in [0, 1_u128 << (bits - prefix)] {
        let half = IpNetwork::new(numbered(pods, second), prefix)?;
        let back = Route { dst: Some(half), gateway: Some(gateway), ..Route::default() };
        let change = |space: &Space| {
            route::add_exclusive(&mut Rtnl::open_in(&space.netns)?, &back)?;
            Ok(back)
        };
        work.change_in(&far.space, format!("route {half}"), change, |space, back| {
            unless_gone(route::delete(&mut Rtnl::open_in(&space.netns)?, back))
        })?;
    }
    Ok(())
}

fn no_default_route(work: &mut Work<'_>, _: &Cluster, pod: &Pod) -> Result<()> {
    let any = work.family().any();
    let is_default = |route: &Route| route.destination() == any;
    let routes: Vec<Route> = routes_of(&pod.space)?.into_iter().filter(is_default).collect();
    if routes.is_empty() {
        bail!("{} has none", pod.space.name);
    }
    let change = |space: &Space| {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        routes.iter().try_for_each(|route| route::delete(&mut rtnl, route))?;
        Ok(routes)
    };
    work.change_in(&pod.space, "default route", change, |space, routes| restore_routes(space, routes))
}
