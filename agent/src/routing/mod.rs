//! How packets get from this node to the pods of the others: a route to every peer's PodCIDR.
//!
//! ```text
//!   same link:      10.244.1.0/24 via 172.18.0.3 dev eth0
//!   behind router:  10.244.2.0/24 via 10.244.2.0 dev podnet-vxlan onlink      in UDP to 172.19.0.4
//! ```
//! [`plan`](plan()) is a pure function of the nodes and of [`Facts`] about this machine; [`apply`](apply()) makes the
//! kernel equal to a [`Plan`] and touches nothing that is another program's: what is ours is known by a protocol number on
//! routes and addresses, and by the names of the tunnels.
//!
//! * A peer on the same link is reached at its InternalIP. One behind a router, which knows nothing of pods, is reached
//!   through a VXLAN of the same IP version. Nothing is written to the API for that: everyone computes a node's end of the
//!   tunnel from its name.
//! * Packets of this node have its InternalIP as their source in either case, as pods and nodes see each other with
//!   their own addresses. What pods send to the InternalIP of a node behind a router goes through the tunnel as well, by
//!   a rule for packets from the own PodCIDRs: the routers on the way would take a pod for a forged address.
//! * The gateway address of the node's pods is on `lo`, so that it is there before the first pod (a probe from a peer
//!   asks it). It has scope link, so the kernel never chooses it as a source by itself. The IPv4 one is on the tunnel, too:
//!   what a peer's pod answers by its node's address comes by the tunnel and is not from there, and no reverse-path filter
//!   lets that pass on a link without an address.

mod apply;
mod facts;
mod plan;
mod refuse;
mod show;
mod state;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
mod tunnel;

use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv6Network};
use kernel::{Family, Mac};
use sha2::{Digest, Sha256};

pub use apply::{Applied, Sysctl, apply, remove_all};
pub use facts::{Facts, Link, Way};
pub use plan::{End, How, Out, Peer, Plan, Route, Tunnel, plan};

/// What marks routes and addresses as the agent's (`RTPROT_*`, `IFAPROT_*`); no number that rt_protos names.
pub const PROTOCOL: u8 = 80;
/// The table of routes to InternalIPs through a tunnel, and the priority of the rule that leads there.
pub const TABLE: u32 = 10180;
/// The VXLAN network's number: the letters `pod`.
pub const VNI: u32 = 0x70_6f64;
/// VXLAN's UDP port (RFC 7348).
pub const PORT: u16 = 4789;

/// The metric of IPv6 routes: below the kernel's default of 1024, so that another program's route to the same
/// destination does not come first. An IPv4 route has none, which is the least.
const PRIORITY_V6: u32 = 80;

/// The name of the tunnel that carries packets of a family.
pub fn tunnel_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "podnet-vxlan",
        Family::V6 => "podnet-vxlan6",
    }
}

/// What a tunnel puts around a packet, in bytes: Ethernet, VXLAN, UDP and IP headers (RFC 7348, section 5).
pub fn overhead(family: Family) -> u32 {
    match family {
        Family::V4 => 50,
        Family::V6 => 70,
    }
}

/// The hardware address of a node's end of the tunnel: the beginning of the SHA-256 of its name, as a local unicast one.
pub fn tunnel_mac(node: &str) -> Mac {
    let hash = Sha256::digest(node.as_bytes());
    let mut mac = [0; 6];
    mac.copy_from_slice(&hash[..6]);
    mac[0] = (mac[0] & 0xfc) | 0x02;
    Mac(mac)
}

/// The address that pods of a PodCIDR have as their gateway, its first one; None where it has no room for pods.
pub fn gateway(cidr: IpNetwork) -> Option<IpAddr> {
    match cidr {
        IpNetwork::V4(v4) if v4.prefix() <= 30 => Some((u32::from(v4.network()) + 1).to_be_bytes().into()),
        IpNetwork::V6(v6) if v6.prefix() <= 126 => Some(next(v6).into()),
        _ => None,
    }
}

fn next(net: Ipv6Network) -> std::net::Ipv6Addr {
    (u128::from(net.network()) + 1).into()
}

/// `IPv4` or `IPv6`.
pub(crate) fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// An address as a prefix of its full length.
pub(crate) fn alone(ip: IpAddr) -> IpNetwork {
    ip.into()
}
