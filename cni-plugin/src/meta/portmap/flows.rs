//! UDP connections that the kernel follows past a change of mappings: they keep their old way for as long as
//! datagrams come.
//!
//! Best effort: what goes wrong here is told on stderr and fails no verb, as in the reference.

use std::net::IpAddr;

use kernel::conntrack::{self, Filter};
use kernel::{Family, Nfnl, Result, Rtnl, addr};

use super::config::{HostIp, Mapping};

fn to_port(mapping: &Mapping, v6: bool) -> Filter {
    Filter {
        family: Family::v6_if(v6),
        protocol: mapping.protocol.0,
        port: Some(mapping.host_port),
        destination: None,
        server: None,
    }
}

fn udp(mappings: &[Mapping], v6: bool) -> impl Iterator<Item = &Mapping> {
    mappings.iter().filter(move |mapping| mapping.protocol.is_udp() && mapping.host_ip.is_for(v6))
}

/// Forgets connections that were opened to the node's mapped ports before there was a mapping.
pub(super) fn forget_former(nfnl: &mut Nfnl, mappings: &[Mapping], v6: bool) {
    for mapping in udp(mappings, v6) {
        note(mapping, forget_to_node(nfnl, mapping, v6));
    }
}

fn forget_to_node(nfnl: &mut Nfnl, mapping: &Mapping, v6: bool) -> Result<()> {
    let filter = to_port(mapping, v6);
    if let HostIp::One(ip) = mapping.host_ip {
        return conntrack::delete(nfnl, &Filter { destination: Some(ip), ..filter }).map(drop);
    }
    let mut destinations: Vec<IpAddr> =
        conntrack::list(nfnl, &filter)?.iter().map(|flow| flow.original.destination).collect();
    destinations.sort_unstable();
    destinations.dedup();
    if destinations.is_empty() {
        return Ok(());
    }
    // A connection through this node to the same port elsewhere is none of ours.
    let own = addr::list(&mut Rtnl::open()?, None)?;
    let of_node = |ip: &IpAddr| ip.is_loopback() || own.iter().any(|address| address.net.ip() == *ip);
    for ip in destinations.into_iter().filter(of_node) {
        conntrack::delete(nfnl, &Filter { destination: Some(ip), ..filter })?;
    }
    Ok(())
}

/// Forgets the connections that mappings led to the pod.
pub(super) fn forget_to_pod(nfnl: &mut Nfnl, mappings: &[Mapping], pod: IpAddr) {
    for mapping in udp(mappings, pod.is_ipv6()) {
        let filter = Filter { server: Some(pod), ..to_port(mapping, pod.is_ipv6()) };
        note(mapping, conntrack::delete(nfnl, &filter).map(drop));
    }
}

fn note(mapping: &Mapping, outcome: Result<()>) {
    if let Err(err) = outcome {
        eprintln!("stale UDP connections to port {}: {err}", mapping.host_port);
    }
}
