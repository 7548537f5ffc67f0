//! Journeys: the way that a probe and its answer have to take through the lab, stage by stage.
//!
//! A journey is written down before the first packet is sent, from the topology alone; see `verify` for who does it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use kernel::Mac;
use serde::{Deserialize, Serialize};

use crate::sighting::{Direction, Sighting};

/// Which interfaces of a namespace belong to a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// The one of this name.
    Is(String),
    /// All except the one of this name.
    IsNot(String),
    /// All.
    Any,
}

/// What must be around a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look {
    /// Nothing.
    #[default]
    Plain,
    /// A VXLAN datagram from one node to another.
    Vxlan {
        /// The network's number.
        vni: u32,
        /// The UDP port.
        port: u16,
        /// The packing node's address.
        from: IpAddr,
        /// The unpacking node's address.
        to: IpAddr,
    },
    /// Encryption: the packet itself must not be seen at all.
    Sealed,
}

impl Look {
    /// The sighting is as it must be.
    pub fn fits(&self, s: &Sighting) -> bool {
        match (*self, s.packet.outer) {
            (Look::Plain, None) => true,
            (Look::Vxlan { vni, port, from, to }, Some(outer)) => {
                (outer.vni, outer.source.ip(), outer.target) == (vni, from, SocketAddr::new(to, port))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Look::Plain => f.write_str("plain"),
            Look::Vxlan { vni, port, from, to } => {
                write!(f, "in VXLAN {vni} {from} > {}", SocketAddr::new(*to, *port))
            }
            Look::Sealed => f.write_str("encrypted"),
        }
    }
}

/// A part of a path: interfaces of one namespace between which nothing is routed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The namespace.
    pub space: String,
    /// Its interfaces.
    pub interface: Interface,
    /// Which way; None is both.
    pub direction: Option<Direction>,
    /// How many routers a packet has passed by then.
    pub hops: u8,
    /// The packet must have been seen here.
    pub is_required: bool,
    /// Beyond the node's uplink, where egress may carry the node's address.
    pub is_outer: bool,
    /// What must be around the packet here.
    pub look: Look,
}

impl Stage {
    /// A stage where a packet may be seen, on its way through any interface of `space`, in any direction.
    pub fn at(space: &str, interface: Interface, hops: u8) -> Stage {
        Stage {
            space: space.into(),
            interface,
            direction: None,
            hops,
            is_required: false,
            is_outer: false,
            look: Look::Plain,
        }
    }

    /// The packet must be seen here, in this direction.
    #[must_use]
    pub fn required(self, direction: Direction) -> Stage {
        Stage { direction: Some(direction), is_required: true, ..self }
    }

    /// The stage is beyond the node's uplink.
    #[must_use]
    pub fn outer(self) -> Stage {
        Stage { is_outer: true, ..self }
    }

    /// The packet must look like this here.
    #[must_use]
    pub fn looks(self, look: Look) -> Stage {
        Stage { look, ..self }
    }

    fn has(&self, s: &Sighting) -> bool {
        let spot = &s.at;
        let is_interface = match &self.interface {
            Interface::Is(name) => *name == spot.interface,
            Interface::IsNot(name) => *name != spot.interface,
            Interface::Any => true,
        };
        self.space == spot.space && is_interface && self.direction.is_none_or(|d| d == s.direction)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = match &self.interface {
            Interface::Is(name) => name.as_str(),
            Interface::IsNot(_) | Interface::Any => "*",
        };
        write!(f, "{}/{interface}", self.space)?;
        self.direction.map_or(Ok(()), |d| write!(f, " {d}"))
    }
}

/// The stages of a walk, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Path(pub Vec<Stage>);

impl Path {
    /// The first stage that the sighting belongs to; None when it is off the path.
    pub fn stage(&self, s: &Sighting) -> Option<&Stage> {
        self.0.iter().find(|stage| stage.has(s))
    }

    /// The stages where the packet must be seen.
    pub fn required(&self) -> impl Iterator<Item = &Stage> {
        self.0.iter().filter(|stage| stage.is_required)
    }
}

/// What a probe is to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journey {
    /// The client's name.
    pub client_name: String,
    /// The client's own address.
    pub client: IpAddr,
    /// The server's own address and port.
    pub server: SocketAddr,
    /// The server's name, which it has to answer with.
    pub server_name: String,
    /// The request's way.
    pub there: Path,
    /// The reply's way.
    pub back: Path,
    /// The MAC addresses of client and server, where a switch is all that is between them.
    #[serde(with = "macs")]
    pub macs: Option<(Mac, Mac)>,
    /// The address that the source may be rewritten to on outer stages: egress.
    pub may_become: Option<IpAddr>,
    /// Between these two, name and address of each, packets are encrypted: the client's node, the server's.
    pub sealed: Option<[(String, IpAddr); 2]>,
}

/// MAC addresses as text.
mod macs {
    use kernel::Mac;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(macs: &Option<(Mac, Mac)>, s: S) -> Result<S::Ok, S::Error> {
        macs.map(|(client, server)| [client.to_string(), server.to_string()]).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<(Mac, Mac)>, D::Error> {
        let mac = |text: &str| text.parse::<Mac>().map_err(de::Error::custom);
        let texts = Option::<[String; 2]>::deserialize(d)?;
        texts.map(|[client, server]| Ok((mac(&client)?, mac(&server)?))).transpose()
    }
}
