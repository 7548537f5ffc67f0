//! What an attachment is to be, from which every peer's configuration, the node's preparation and the verification follow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde_json::{Value, json};

use crate::peer::{Kind, Peer};

/// The network's name.
pub(crate) const NETWORK: &str = "net0";
/// The bridge's name.
pub(crate) const BRIDGE: &str = "cb0";
/// The link below a macvlan.
pub(crate) const PARENT: &str = "mv0";
/// The next hop of every pod.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 1);
/// The first mapped port of the node, and of the pod.
pub(crate) const HOST_PORT: u16 = 10000;
pub(crate) const POD_PORT: u16 = 80;

/// The kind of link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Loopback,
    Bridge,
    Ptp,
    Macvlan,
}

/// A kind of attachment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) link: Link,
    /// IPv6 beside IPv4.
    pub(crate) v6: bool,
    /// The default routes.
    pub(crate) routes: bool,
    pub(crate) masquerade: bool,
    /// Number of port mappings.
    pub(crate) ports: u16,
    /// The node's port of the first mapping; the floor knows one only.
    pub(crate) first_port: u16,
    pub(crate) bandwidth: bool,
}

/// An attachment of one link and one IPv4 address.
pub(crate) const fn plain(link: Link) -> Shape {
    Shape {
        link,
        v6: false,
        routes: true,
        masquerade: false,
        ports: 0,
        first_port: HOST_PORT,
        bandwidth: false,
    }
}

impl Shape {
    /// The attachment that a node has before one is measured: of the same kind, with at most one port, of its own, and no limit of its rate. The
    /// floor's ports are elements of a map that is there anyway.
    pub(crate) fn resident(self, kind: Kind) -> Self {
        let ports = if kind == Kind::Floor { 0 } else { self.ports.min(1) };
        Shape { ports, first_port: HOST_PORT - 1, bandwidth: false, ..self }
    }

    /// The plugins that it takes.
    pub(crate) fn plugins(&self) -> Vec<&'static str> {
        let mut plugins = match self.link {
            Link::Loopback => vec!["loopback"],
            Link::Bridge => vec!["bridge", "host-local"],
            Link::Ptp => vec!["ptp", "host-local"],
            Link::Macvlan => vec!["macvlan", "host-local"],
        };
        if self.ports > 0 {
            plugins.push("portmap");
        }
        if self.bandwidth {
            plugins.push("bandwidth");
        }
        plugins
    }

    /// The next hops.
    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        let mut gateways = Vec::new();
        if self.routes {
            gateways.push(GATEWAY.into());
            if self.v6 {
                gateways.push(GATEWAY6.into());
            }
        }
        gateways
    }

    /// The configurations of the plugins, in their order.
    pub(crate) fn configurations(&self, peer: &Peer, data: &Path) -> Vec<Value> {
        let mut first = json!({"cniVersion": "1.0.0", "name": NETWORK});
        match self.link {
            Link::Loopback => first["type"] = "loopback".into(),
            Link::Bridge => {
                first["type"] = "bridge".into();
                first["bridge"] = BRIDGE.into();
                first["isGateway"] = true.into();
                if self.masquerade {
                    first["ipMasq"] = true.into();
                }
            }
            Link::Ptp => first["type"] = "ptp".into(),
            Link::Macvlan => {
                first["type"] = "macvlan".into();
                first["master"] = PARENT.into();
                first["mode"] = "bridge".into();
            }
        }
        if self.link != Link::Loopback {
            first["ipam"] = self.ipam(data);
        }
        if let (Some(delete), true) = (peer.delete, self.link != Link::Loopback) {
            first["delete"] = delete.into();
        }
        let mut all = vec![first];
        if self.ports > 0 {
            let mapping = |i: u16| json!({"hostPort": self.first_port + i, "containerPort": POD_PORT + i, "protocol": "tcp"});
            all.push(json!({
                "cniVersion": "1.0.0", "name": NETWORK, "type": "portmap", "snat": true,
                "capabilities": {"portMappings": true},
                "runtimeConfig": {"portMappings": (0..self.ports).map(mapping).collect::<Vec<_>>()},
            }));
        }
        if self.bandwidth {
            let (rate, burst) = (100_000_000, 10_000_000);
            all.push(json!({
                "cniVersion": "1.0.0", "name": NETWORK, "type": "bandwidth",
                "ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst,
            }));
        }
        all
    }

    /// The part `ipam` of a configuration.
    pub(crate) fn ipam(&self, data: &Path) -> Value {
        let mut ranges = vec![json!([{"subnet": "10.88.0.0/16"}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if self.v6 {
            ranges.push(json!([{"subnet": "fd00:88::/64"}]));
            routes.push(json!({"dst": "::/0"}));
        }
        if !self.routes {
            routes.clear();
        }
        json!({"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": data})
    }
}
