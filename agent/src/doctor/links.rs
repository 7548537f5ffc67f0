//! Links and sysctls: forwarding, IPv6, MTUs, reverse-path filters.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;
use kernel::link::{self, Link};
use kernel::{Family, netconf, route};

use super::{Host, State, Trouble, is_tunnel};
use crate::routing;

/// Whether the node forwards at all.
pub(super) fn forwarding(host: &mut Host) -> Result<Vec<Trouble>> {
    let mut troubles = Vec::new();
    for (ipv6, sysctl) in [(false, "net.ipv4.ip_forward"), (true, "net.ipv6.conf.all.forwarding")] {
        if host.has(ipv6) && !netconf::forwarding(&mut host.rtnl, Family::v6_if(ipv6))? {
            troubles.push(Trouble::new(
                State::Failed,
                "the node forwards no packets, so pods reach nobody but their own node",
                format!("{sysctl} is 0"),
                format!("sysctl -w {sysctl}=1, and look in /etc/sysctl.d for what sets it to 0"),
            ));
        }
    }
    Ok(troubles)
}

/// IPv6 that is switched off while pods are to have it.
pub(super) fn ipv6(host: &mut Host) -> Result<Vec<Trouble>> {
    if !host.has(true) {
        return Ok(Vec::new());
    }
    let mut places = vec!["all".to_owned(), "default".to_owned()];
    places.extend(uplinks(host)?.into_iter().map(|it| it.name));
    let mut troubles = Vec::new();
    for place in places {
        let sysctl = format!("net/ipv6/conf/{place}/disable_ipv6");
        let evidence = match host.sysctl(&sysctl).as_deref() {
            Some("0") => continue,
            Some(value) => format!("{} is {value}", sysctl.replace('/', ".")),
            None => format!(
                "the kernel has no sysctl {}: it has no IPv6, or was started with ipv6.disable=1",
                sysctl.replace('/', ".")
            ),
        };
        troubles.push(Trouble::new(
            State::Failed,
            format!("pods have an IPv6 PodCIDR, and IPv6 is disabled ({place})"),
            evidence,
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0, or a cluster of ipFamily: ipv4",
        ));
    }
    Ok(troubles)
}

/// The links by which other nodes are reached: those to the peers that the agent tells, else those of default routes.
fn uplinks(host: &mut Host) -> Result<Vec<Link>> {
    let mut indices = BTreeSet::new();
    if let Ok(status) = &host.agent {
        let paths = status["peers"].as_object().into_iter().flat_map(|all| all.values());
        let paths = paths.flat_map(|peer| peer["paths"].as_array().into_iter().flatten());
        let addresses = paths.filter_map(|path| path["nodeAddress"].as_str()?.parse::<IpAddr>().ok());
        let addresses: Vec<IpAddr> = addresses.collect();
        for address in addresses {
            // One that has no route is the routes' affair.
            indices.extend(route::lookup(&mut host.rtnl, address).ok().and_then(|it| it.oif));
        }
    }
    if indices.is_empty() {
        for family in [Family::V4, Family::V6] {
            let routes = route::list(&mut host.rtnl, family)?.into_iter();
            let default = routes.filter(|it| it.dst.is_none() && it.table_id() == route::TABLE_MAIN);
            indices.extend(default.filter_map(|it| it.oif));
        }
    }
    Ok(link::list(&mut host.rtnl)?.into_iter().filter(|it| indices.contains(&it.index)).collect())
}

/// Pods' packets that are longer than the links on their way.
pub(super) fn mtu(host: &mut Host) -> Result<Vec<Trouble>> {
    let Some(pods) = host.conflist.as_ref().map(|it| it.mtu) else { return Ok(Vec::new()) };
    let advice = "restart podnetd on this node, which computes the pods' MTU anew, and then the pods; give the link the MTU \
                  that the wire really has";
    let mut troubles = Vec::new();
    let uplinks = uplinks(host)?;
    let links = link::list(&mut host.rtnl)?;
    let tunnels: Vec<&Link> = links.iter().filter(|it| is_tunnel(it)).collect();
    for link in uplinks.iter().chain(tunnels.iter().copied()) {
        if pods > link.mtu {
            troubles.push(Trouble::new(
                State::Failed,
                format!(
                    "packets of pods are longer than {} takes: large ones stall, small ones pass",
                    link.name
                ),
                format!("pods have an MTU of {pods}, {} has {}", link.name, link.mtu),
                advice,
            ));
        }
    }
    for tunnel in tunnels {
        let ipv6 = matches!(tunnel.data, Some(link::LinkKind::Vxlan { local, .. }) if local.is_ipv6());
        let around = routing::overhead(Family::v6_if(ipv6));
        for link in uplinks.iter().filter(|it| it.index != tunnel.index && tunnel.mtu + around > it.mtu) {
            troubles.push(Trouble::new(
                State::Failed,
                format!("packets in the tunnel are longer than {} takes", link.name),
                format!(
                    "{} has an MTU of {}, with {around} bytes around that are more than the {} of {}",
                    tunnel.name, tunnel.mtu, link.mtu, link.name
                ),
                advice,
            ));
        }
    }
    Ok(troubles)
}

/// Reverse-path filters that are strict where answers may take another way.
pub(super) fn rp_filter(host: &mut Host) -> Result<Vec<Trouble>> {
    let uplinks = uplinks(host)?;
    let links = link::list(&mut host.rtnl)?;
    // There are such filters for IPv4 only.
    let tunnel = links.iter().find(|it| it.name == routing::tunnel_name(Family::V4));
    // On one link packets and answers take the same way.
    let several = uplinks.iter().filter(|_| uplinks.len() > 1 || tunnel.is_some());
    let mut troubles = Vec::new();
    for link in several.chain(tunnel) {
        let value = |place: &str| -> u8 {
            let value = host.sysctl(&format!("net/ipv4/conf/{place}/rp_filter"));
            value.and_then(|it| it.parse().ok()).unwrap_or(0)
        };
        let (all, own) = (value("all"), value(&link.name));
        // The larger one counts (ip-sysctl.rst, rp_filter); 2 is loose.
        if all.max(own) == 1 {
            troubles.push(Trouble::new(
                State::Warning,
                format!("{} drops packets whose answers would leave by another link", link.name),
                format!(
                    "net.ipv4.conf.{}.rp_filter is {own}, net.ipv4.conf.all.rp_filter is {all}: strict",
                    link.name
                ),
                format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", link.name),
            ));
        }
    }
    Ok(troubles)
}

/// Bridges for containers whose MTU is larger than that of the machine's way out.
pub(super) fn bridge_mtu(host: &mut Host) -> Result<Vec<Trouble>> {
    let uplinks = uplinks(host)?;
    let bridges = link::list(&mut host.rtnl)?.into_iter();
    let bridges: Vec<Link> = bridges.filter(|it| it.kind.as_deref() == Some("bridge")).collect();
    let mut troubles = Vec::new();
    for bridge in &bridges {
        for link in uplinks.iter().filter(|it| it.index != bridge.index && it.mtu < bridge.mtu) {
            troubles.push(Trouble::new(
                State::Warning,
                format!("containers on {} send packets that {} does not take", bridge.name, link.name),
                format!("{} has an MTU of {}, {} of {}", bridge.name, bridge.mtu, link.name, link.mtu),
                format!(
                    "docker network create -o com.docker.network.driver.mtu={} kind, before kind create cluster; for \
                     Docker's own bridge \"mtu\" in /etc/docker/daemon.json",
                    link.mtu
                ),
            ));
        }
    }
    Ok(troubles)
}
