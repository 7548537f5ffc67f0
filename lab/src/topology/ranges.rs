//! The addresses of pods and services, complete and checked: room for every node, and nothing that a lab has already.

use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::Family;

use super::written::within;
use super::{
    FABRIC, FABRIC_V6, OUTSIDE, OUTSIDE_V6, RACKS, RACKS_V6, Ranges, bits, default_pods, pod_prefix, prefix,
};
use crate::exit::Failure;
use crate::services::model::BALANCERS;
use crate::stack::{Each, IpFamily, Versioned};

/// The addresses of pods and services: networks that meet nothing else of a lab, with room for every node.
pub(super) fn resolve(
    (family, pods): (Option<IpFamily>, Option<Each<IpNetwork>>),
    services: Option<Ipv4Network>,
    (nodes, on_node): (u32, u32),
) -> Result<Ranges, Failure> {
    let wanted = default_pods(family.unwrap_or_default());
    let pods_given = pods.unwrap_or(wanted);
    if family.is_some() && !pods_given.families().eq(wanted.families()) {
        return Err(Failure::usage(format!("podCIDR: {pods_given} is not of the lab's ipFamily")));
    }
    let ranges = Ranges { pods: pods_given, services: services.unwrap_or(Ranges::default().services) };
    if services.is_some() && !ranges.has_services() {
        return Err(Failure::usage("serviceCIDR: services are IPv4's, which the lab does not have"));
    }
    let own = || ranges.pods.iter().map(|net| ("podCIDR", net));
    let of_services = ranges.has_services().then_some(("serviceCIDR", IpNetwork::V4(ranges.services)));
    for (key, net) in own().chain(of_services) {
        if net.ip() != net.network() {
            let network = IpNetwork::new(net.network(), net.prefix());
            let hint = network.map_or_else(|_| String::new(), |network| format!(" · try: {network}"));
            return Err(Failure::usage(format!("{key}: {net} has host bits{hint}")));
        }
        let (least, longest) = match (key, net.family()) {
            ("podCIDR", Family::V4) => (8, 22),
            (_, Family::V4) => (8, 26),
            (_, Family::V6) => (16, 62),
        };
        within(&format!("{key}: prefix length"), net.prefix().into(), least, longest)?;
    }
    for (_, net) in own() {
        let length = pod_prefix(net.family(), on_node);
        let room = 1_u64 << length.saturating_sub(net.prefix()).min(bits(Family::V4));
        if room <= u64::from(nodes) {
            return Err(Failure::usage(format!(
                "podCIDR: {net} has no room for {nodes} PodCIDRs of /{length} beside the first"
            )));
        }
    }
    let v6 = |first: u16, length| super::prefix_v6([first, 0, 0, 0], length).into();
    let mut taken: Vec<(&str, IpNetwork)> = vec![
        ("the nodes' link", FABRIC.into()),
        ("the nodes' link", FABRIC_V6.into()),
        ("the racks' links", RACKS.into()),
        ("the racks' links", RACKS_V6.into()),
        ("the world outside", OUTSIDE.into()),
        ("the world outside", OUTSIDE_V6.into()),
        ("load balancers", BALANCERS.into()),
        ("loopback", prefix(Ipv4Addr::new(127, 0, 0, 0), 8).into()),
        ("loopback and what is not IPv6", v6(0, 8)),
        ("link-local addresses", v6(0xfe80, 10)),
        ("multicast", prefix(Ipv4Addr::new(224, 0, 0, 0), 4).into()),
        ("multicast", v6(0xff00, 8)),
    ];
    taken.extend(of_services);
    let overlap = |a: IpNetwork, b: IpNetwork| a.contains(b.network()) || b.contains(a.network());
    for (key, net) in own().chain(of_services) {
        let meets = |(other, range): &&(&str, IpNetwork)| *other != key && overlap(*range, net);
        if let Some((what, range)) = taken.iter().find(meets) {
            return Err(Failure::usage(format!("{key}: {net} overlaps {range}, {what}")));
        }
    }
    Ok(ranges)
}
