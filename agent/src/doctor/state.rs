//! What has collected on the node: reservations, routes, connections.

use std::collections::HashMap;

use anyhow::Result;
use ipam::range::RangeConf;
use ipam::{RangeSet, Store};
use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::link::{self, Link};
use kernel::route::{self, KIND_UNICAST, Route, TABLE_MAIN};

use super::{Host, State, Trouble};
use crate::install::reservations::{self, GRACE};
use crate::places::NETWORK;
use crate::routing::PROTOCOL;

/// netdevice(7), `IFF_LOOPBACK`
const LOOPBACK: u32 = 8;

/// Of how many hundred connections the table may hold, from when on it counts as nearly full and as full.
const NEARLY: u64 = 80;
const FULL: u64 = 97;

/// Addresses that have run out, or that nobody has and nobody gets.
pub(super) fn reservations(host: &mut Host) -> Result<Vec<Trouble>> {
    let dir = host.places.reservations().join(NETWORK);
    let store = Store::open(&host.places.reservations(), NETWORK)?;
    let judged = reservations::judge(&host.places, &mut host.rtnl, GRACE)?;
    let mut troubles = Vec::new();
    for subnet in host.subnets() {
        let conf = RangeConf { subnet: *subnet, range_start: None, range_end: None, gateway: None };
        if store.available(&RangeSet::resolve(&[conf])?)? == 0 {
            troubles.push(Trouble::new(
                State::Failed,
                format!("no address of {subnet} is free, so no pod can start on this node"),
                format!("{} reservations in {}, {} of them of pods that are there", judged.in_use + judged.waiting + judged.leaked.len(), dir.display(), judged.in_use),
                "restart podnetd, which releases what no pod has; if all are in use, fewer pods on this node (kubelet \
                 maxPods) or larger PodCIDRs (kube-controller-manager --node-cidr-mask-size)",
            ));
        }
    }
    if !judged.leaked.is_empty() {
        let some: Vec<String> = judged.leaked.iter().take(5).map(|it| it.address.to_string()).collect();
        troubles.push(Trouble::new(
            State::Warning,
            format!("{} addresses are reserved for pods that are no more", judged.leaked.len()),
            format!(
                "{}: {} …, older than {} s, without a link or a route",
                dir.display(),
                some.join(", "),
                GRACE.as_secs()
            ),
            "restart podnetd, which releases them",
        ));
    }
    Ok(troubles)
}

/// Routes that lead pods' packets elsewhere than podnet would.
pub(super) fn routes(host: &mut Host) -> Result<Vec<Trouble>> {
    let links: HashMap<u32, Link> =
        link::list(&mut host.rtnl)?.into_iter().map(|it| (it.index, it)).collect();
    let mut troubles = Vec::new();
    for family in [Family::V4, Family::V6] {
        let routes = route::list(&mut host.rtnl, family)?;
        let main: Vec<&Route> = routes.iter().filter(|it| it.table_id() == TABLE_MAIN).collect();
        let others: Vec<&Route> = main.iter().copied().filter(|it| it.protocol != PROTOCOL).collect();
        for (route, cidr) in others.iter().filter_map(|it| Some((it, within(it, host.subnets())?))) {
            let link = route.oif.and_then(|index| links.get(&index));
            let is_pods =
                link.is_some_and(|it| it.alias.as_deref().is_some_and(|alias| alias.starts_with("podnet ")));
            // The node's own addresses are no pods', and where a gateway's is on lo it is ours.
            let is_own = link.is_some_and(|it| it.flags & LOOPBACK != 0);
            if !is_pods && !is_own {
                let name = link.map_or("no link", |it| it.name.as_str());
                troubles.push(Trouble::new(
                    State::Failed,
                    format!("packets to pods of this node ({cidr}) are sent to {name}, which is no pod of podnet's"),
                    about(route, name),
                    format!(
                        "remove what another network has left: ip route del {}{}",
                        route.destination(),
                        if link.is_some_and(|it| it.kind.as_deref() == Some("bridge")) { format!("; ip link del {name}") } else { String::new() }
                    ),
                ));
            }
        }
        let ours: Vec<&Route> =
            main.iter().copied().filter(|it| it.protocol == PROTOCOL && it.kind == KIND_UNICAST).collect();
        for route in &ours {
            let rival = others
                .iter()
                .find(|it| it.destination() == route.destination() && it.priority <= route.priority);
            if let Some(rival) = rival {
                let name =
                    rival.oif.and_then(|index| links.get(&index)).map_or("no link", |it| it.name.as_str());
                troubles.push(Trouble::new(
                    State::Failed,
                    format!(
                        "a route of another program to {} is taken instead of podnet's",
                        route.destination()
                    ),
                    about(rival, name),
                    format!(
                        "remove what another network has left: ip route del {} proto {}",
                        rival.destination(),
                        rival.protocol
                    ),
                ));
            }
        }
        troubles.extend(of_nobody(host, &ours));
    }
    Ok(troubles)
}

/// Our routes to PodCIDRs that no Node has, by what the agent tells; without an agent nobody can say.
fn of_nobody(host: &Host, ours: &[&Route]) -> Vec<Trouble> {
    let Ok(status) = &host.agent else { return Vec::new() };
    let peers = status["peers"].as_object().into_iter().flat_map(|all| all.values());
    let paths = peers.flat_map(|peer| peer["paths"].as_array().into_iter().flatten());
    let known: Vec<IpNetwork> = paths.filter_map(|path| path["podCidr"].as_str()?.parse().ok()).collect();
    let stale = ours.iter().filter(|it| !known.contains(&it.destination()));
    let stale = stale.map(|route| {
        Trouble::new(
            State::Warning,
            format!("a route to {} is left, which no Node has", route.destination()),
            format!("protocol {PROTOCOL}, and not among the peers of /status"),
            "restart podnetd, which removes it; if it comes back, look at the events of the agent",
        )
    });
    stale.collect()
}

/// The network of ours that a route's destination is in, all of it.
fn within(route: &Route, subnets: &[IpNetwork]) -> Option<IpNetwork> {
    let to = route.destination();
    subnets
        .iter()
        .copied()
        .find(|own| own.is_ipv4() == to.is_ipv4() && own.contains(to.ip()) && to.prefix() >= own.prefix())
}

fn about(route: &Route, link: &str) -> String {
    let via = route.gateway.map(|it| format!(" via {it}")).unwrap_or_default();
    format!("{}{via} dev {link} protocol {}", route.destination(), route.protocol)
}

/// The table of connections.
pub(super) fn conntrack(host: &mut Host) -> Result<Vec<Trouble>> {
    let number = |path: &str| host.sysctl(path)?.parse::<u64>().ok();
    let (Some(count), Some(most)) =
        (number("net/netfilter/nf_conntrack_count"), number("net/netfilter/nf_conntrack_max"))
    else {
        return Ok(Vec::new());
    };
    let percent = count.saturating_mul(100) / most.max(1);
    if percent < NEARLY {
        return Ok(Vec::new());
    }
    let (state, cause) = if percent >= FULL {
        (State::Failed, "the table of connections is full: new connections are dropped, whoever opens them")
    } else {
        (State::Warning, "the table of connections is nearly full")
    };
    Ok(vec![Trouble::new(
        state,
        cause,
        format!("net.netfilter.nf_conntrack_count is {count}, nf_conntrack_max is {most}"),
        "sysctl -w net.netfilter.nf_conntrack_max=… on the machine itself (kind: on the host of the containers)",
    )])
}
