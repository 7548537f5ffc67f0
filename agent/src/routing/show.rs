//! A plan as text: for status, and for the snapshots of the tests.

use std::fmt;

use kernel::Family;

use super::plan::{How, Out, Peer, Plan, Route};
use super::{TABLE, tunnel_name, word};

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Direct { link } => write!(f, "same link {link}"),
            How::Tunnel { router, link } => write!(f, "behind router {router} on {link}, by VXLAN"),
            How::Skipped(reason) => write!(f, "skipped: {reason}"),
            How::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.node, word(self.family))?;
        if let Some(cidr) = self.cidr {
            write!(f, " {cidr}")?;
        }
        if let Some(address) = self.address {
            write!(f, " at {address}")?;
        }
        write!(f, ": {}", self.how)?;
        if self.how.is_served() {
            write!(f, ", mtu {}", self.mtu)?;
        }
        Ok(())
    }
}

/// In the words of ip-route(8), but for a link's index.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.dst, self.via)?;
        match self.out {
            Out::Link(index) => write!(f, " dev {index}")?,
            Out::Tunnel(family) => write!(f, " dev {} onlink", tunnel_name(family))?,
        }
        if let Some(src) = self.src {
            write!(f, " src {src}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if self.table == TABLE {
            write!(f, " table {TABLE}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for trouble in &self.trouble {
            writeln!(f, "trouble: {trouble}")?;
        }
        for peer in &self.peers {
            writeln!(f, "peer {peer}")?;
        }
        for route in &self.routes {
            writeln!(f, "route {route}")?;
        }
        for tunnel in &self.tunnels {
            let name = tunnel_name(tunnel.family);
            writeln!(f, "tunnel {name} local {} mac {} mtu {}", tunnel.local, tunnel.mac, tunnel.mtu)?;
            for end in &tunnel.ends {
                writeln!(f, "  end {} of {}: {} at {}", end.inner, end.node, end.mac, end.outer)?;
            }
        }
        for cidr in &self.tunnelled {
            writeln!(f, "rule from {cidr} lookup {TABLE}")?;
        }
        for gateway in &self.gateways {
            let tunnel = self.tunnels.iter().find(|it| it.family == Family::V4 && gateway.is_ipv4());
            let tunnel = tunnel.map(|it| format!(" and {}", tunnel_name(it.family))).unwrap_or_default();
            writeln!(f, "gateway {gateway} on lo{tunnel}")?;
        }
        for family in &self.forwards {
            writeln!(f, "forwards {}", word(*family))?;
        }
        for link in &self.advertised {
            writeln!(f, "accept_ra 2 on {link}")?;
        }
        writeln!(f, "mtu {}", self.mtu)
    }
}
