//! A sighting: one packet, seen at one interface in one direction at one moment. And flows: which sightings belong
//! to which probe.
//!
//! Sightings are joined by what the probe itself put into the packet (a nonce, TCP's first sequence number), never by
//! addresses or ports: that those stay the same is for a verdict to find out. Nothing is judged here.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::Role;
use crate::packet::{Ip, Nonce, Packet, Tcp};
use crate::pcapng::Reception;

/// Which way a frame went through an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the namespace.
    In,
    /// Out of the namespace.
    Out,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::In => "in",
            Direction::Out => "out",
        })
    }
}

/// An interface of the lab, where packets are seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The name of the namespace.
    pub space: String,
    /// What the namespace stands for.
    pub role: Role,
    /// The interface's name.
    pub interface: String,
    /// The bridge that the interface is a port of.
    pub port_of: Option<String>,
    /// The interface is itself a bridge.
    pub is_bridge: bool,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.space, self.interface)
    }
}

/// One packet at one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Where.
    pub at: Arc<Spot>,
    /// Which way.
    pub direction: Direction,
    /// When, in nanoseconds since 1970; one clock for the whole lab.
    pub stamp_ns: u64,
    /// The frame came in but is addressed to another host's MAC: a switch flooded it, or the interface is a port.
    pub is_overheard: bool,
    /// What.
    pub packet: Packet,
    /// The frame itself, where the capture keeps frames.
    pub frame: Option<Arc<Frame>>,
}

/// A frame as it was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, a VLAN tag that the kernel took out put back.
    pub bytes: Vec<u8>,
    /// Its length on the wire; what was longer than the buffer is cut off.
    pub original_len: u32,
    /// How it got here; a packet that goes out has none.
    pub reception: Reception,
    /// Its transport checksum is left to the device.
    pub is_unfinished: bool,
}

impl fmt::Display for Sighting {
    /// `node1/eth0 out`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.direction)
    }
}

impl Sighting {
    fn rank(&self) -> u8 {
        rank(&self.at, self.direction)
    }

    /// The IP packet. None for ARP, which is no part of a flow.
    pub fn ip(&self) -> Option<&Ip> {
        self.packet.ip()
    }
}

/// Where equal stamps leave the order open: a bridge's port gets a frame before the bridge hands it up with the
/// same stamp, and a frame is in before it is out.
pub(crate) fn rank(spot: &Spot, direction: Direction) -> u8 {
    match direction {
        Direction::In if spot.port_of.is_some() => 0,
        Direction::In if !spot.is_bridge => 1,
        Direction::In => 2,
        Direction::Out if spot.is_bridge => 3,
        Direction::Out if spot.port_of.is_none() => 4,
        Direction::Out => 5,
    }
}

/// Puts sightings in the order in which they happened.
pub fn sort(sightings: &mut [Sighting]) {
    sightings.sort_by_key(|s| (s.stamp_ns, s.rank()));
}

/// The sightings of one probe, each list in order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow<'a> {
    /// The first packet of a TCP connection, SYN.
    pub knock: Vec<&'a Sighting>,
    /// The answer to it, SYN and ACK.
    pub welcome: Vec<&'a Sighting>,
    /// The packet that carries the nonce.
    pub request: Vec<&'a Sighting>,
    /// The packet that carries it back.
    pub reply: Vec<&'a Sighting>,
}

impl Flow<'_> {
    /// Nothing of the probe was seen anywhere.
    pub fn is_empty(&self) -> bool {
        [&self.knock, &self.welcome, &self.request, &self.reply].iter().all(|list| list.is_empty())
    }
}

/// What identifies a connection attempt: the namespace of the client, its port, and the target.
type Caller<'a> = (&'a str, u16, SocketAddr);
/// TCP's first sequence number; and of a packet on `lo` the namespace, which it does not leave. The number follows from
/// addresses, ports and a clock of 64 ns, so two pods that call their own localhost at once may have the same.
type Number<'a> = (u32, Option<&'a str>);

/// Finds the flow of a probe among many sightings.
#[derive(Debug, Default)]
pub struct Flows<'a> {
    by_nonce: HashMap<Nonce, Flow<'a>>,
    by_number: HashMap<Number<'a>, Flow<'a>>,
    numbers: HashMap<Caller<'a>, u32>,
}

impl<'a> Flows<'a> {
    /// Sorts out sightings, which must be in order of time.
    pub fn of(sightings: &'a [Sighting]) -> Flows<'a> {
        let mut flows = Flows::default();
        for s in sightings {
            let Some(ip) = s.ip() else { continue };
            let within = (s.at.interface == "lo").then_some(s.at.space.as_str());
            if let Some(nonce) = Nonce::find(&ip.payload) {
                let flow = flows.by_nonce.entry(nonce).or_default();
                if ip.is_answer() { flow.reply.push(s) } else { flow.request.push(s) }
            }
            match s.packet.tcp() {
                Some(&Tcp { is_syn: true, is_ack: false, source, seq, .. }) => {
                    flows.by_number.entry((seq, within)).or_default().knock.push(s);
                    if s.direction == Direction::Out {
                        flows.numbers.insert((&s.at.space, source, ip.to()), seq);
                    }
                }
                Some(&Tcp { is_syn: true, is_ack: true, ack, .. }) => {
                    flows.by_number.entry((ack.wrapping_sub(1), within)).or_default().welcome.push(s);
                }
                _ => {}
            }
        }
        flows
    }

    /// The flow of the probe with this nonce, which the namespace `client` sent from `port` to `target`.
    pub fn get(&self, nonce: Nonce, client: &str, port: Option<u16>, target: SocketAddr) -> Flow<'a> {
        let mut flow = self.by_nonce.get(&nonce).cloned().unwrap_or_default();
        let number = port.and_then(|port| self.numbers.get(&(client, port, target)));
        let starts = number.into_iter().flat_map(|n| [(*n, Some(client)), (*n, None)]);
        for start in starts.filter_map(|number| self.by_number.get(&number)) {
            flow.knock.extend(&start.knock);
            flow.welcome.extend(&start.welcome);
        }
        flow.knock.sort_by_key(|s| (s.stamp_ns, s.rank()));
        flow.welcome.sort_by_key(|s| (s.stamp_ns, s.rank()));
        flow
    }
}

/// One transmission among the sightings of a packet that was sent more than once: that of the IP id seen most often,
/// of several the first. IPv6 has no id; there the flow label, which is another one after a time-out, and TCP's time stamp
/// tell transmissions apart.
pub fn one_transmission<'a>(sightings: &[&'a Sighting]) -> Vec<&'a Sighting> {
    let id = |s: &Sighting| {
        s.ip().map(|ip| match (ip.id, ip.label) {
            (Some(id), _) => (u32::from(id), None),
            (None, label) => (label.unwrap_or(0), s.packet.tcp().and_then(|tcp| tcp.stamp)),
        })
    };
    let is_repeated = sightings.iter().enumerate().any(|(i, a)| {
        sightings[..i].iter().any(|b| a.at == b.at && a.direction == b.direction && id(a) != id(b))
    });
    if !is_repeated {
        return sightings.to_vec();
    }
    let count = |wanted| sightings.iter().filter(|s| id(s) == wanted).count();
    let most = sightings.iter().map(|s| count(id(s))).max().unwrap_or(0);
    let chosen = sightings.iter().map(|s| id(s)).find(|&i| count(i) == most).flatten();
    sightings.iter().copied().filter(|s| id(s) == chosen).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use kernel::Mac;

    use super::*;
    use crate::packet::{Content, Transport};

    /// A spot by its name, `node1/eth0`; the first letters of the namespace tell its role.
    pub(crate) fn spot(name: &str) -> Arc<Spot> {
        let (space, interface) = name.split_once('/').unwrap();
        let role = match space {
            "fabric" => Role::Fabric,
            "outside" => Role::Outside,
            s if s.starts_with("node") => Role::Node,
            _ => Role::Pod,
        };
        let port_of = match interface.get(..4) {
            Some("veth") => Some("cni0".to_owned()),
            Some("port") => Some("lan0".to_owned()),
            _ => None,
        };
        Arc::new(Spot {
            space: space.into(),
            role,
            interface: interface.into(),
            port_of,
            is_bridge: matches!(interface, "cni0" | "lan0"),
        })
    }

    /// A TCP segment at a spot (`node1/eth0 out`) at a moment.
    pub(crate) fn seen(at: &str, stamp_ns: u64, from: &str, to: &str, ttl: u8, payload: &str) -> Sighting {
        let (name, direction) = at.split_once(' ').unwrap();
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        Sighting {
            at: spot(name),
            direction: if direction == "in" { Direction::In } else { Direction::Out },
            stamp_ns,
            is_overheard: false,
            frame: None,
            packet: Packet {
                source_mac: Mac([2, 0, 0, 0, 0, 1]),
                target_mac: Mac([2, 0, 0, 0, 0, 2]),
                content: Content::Ip(Ip {
                    source: from.ip(),
                    target: to.ip(),
                    ttl,
                    id: Some(0x7f3a).filter(|_| from.is_ipv4()),
                    label: Some(0x1_2345).filter(|_| from.is_ipv6()),
                    is_fragment: false,
                    transport: Transport::Tcp(Tcp {
                        source: from.port(),
                        target: to.port(),
                        seq: 7,
                        ack: 1,
                        is_syn: false,
                        is_ack: true,
                        is_reset: false,
                        stamp: None,
                    }),
                    payload: payload.as_bytes().into(),
                }),
                outer: None,
            },
        }
    }

    pub(crate) fn ip_mut(s: &mut Sighting) -> &mut Ip {
        match &mut s.packet.content {
            Content::Ip(ip) => ip,
            other => panic!("{other:?}"),
        }
    }

    fn tcp_mut(s: &mut Sighting) -> &mut Tcp {
        match &mut ip_mut(s).transport {
            Transport::Tcp(tcp) => tcp,
            other => panic!("{other:?}"),
        }
    }

    const CLIENT: &str = "10.244.1.2:40000";
    const SERVER: &str = "10.244.2.2:8080";

    #[test]
    fn equal_stamps_are_ordered_by_topology() {
        let places =
            ["node1/cni0 in", "node1/veth1 in", "node1/veth1 out", "node1/cni0 out", "node1/eth0 in"];
        let mut list: Vec<_> = places.iter().map(|at| seen(at, 5, CLIENT, SERVER, 64, "")).collect();
        list.push(seen("kubia-1/eth0 out", 4, CLIENT, SERVER, 64, ""));
        sort(&mut list);
        let order: Vec<_> = list.iter().map(ToString::to_string).collect();
        let expected = [
            "kubia-1/eth0 out",
            "node1/veth1 in",
            "node1/eth0 in",
            "node1/cni0 in",
            "node1/cni0 out",
            "node1/veth1 out",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn flow_is_joined_by_nonce_whatever_the_addresses_say() {
        let nonce = Nonce(0xabc);
        let get = format!("GET /{} HTTP/1.1\r\n\r\n", nonce.marked());
        let answer = format!("HTTP/1.1 200 OK\r\npodlab-nonce: {}\r\n\r\n", nonce.marked());
        let mut syn = seen("kubia-1/eth0 out", 1, CLIENT, SERVER, 64, "");
        (tcp_mut(&mut syn).is_syn, tcp_mut(&mut syn).is_ack, tcp_mut(&mut syn).seq) = (true, false, u32::MAX);
        let mut rewritten_syn = seen("node1/eth0 out", 2, "192.0.2.11:1024", SERVER, 63, "");
        *tcp_mut(&mut rewritten_syn) = Tcp { source: 1024, ..*syn.packet.tcp().unwrap() };
        let mut syn_ack = seen("node1/eth0 in", 3, SERVER, "192.0.2.11:1024", 63, "");
        (tcp_mut(&mut syn_ack).is_syn, tcp_mut(&mut syn_ack).ack) = (true, 0);
        let list = [
            syn,
            rewritten_syn,
            syn_ack,
            seen("kubia-1/eth0 out", 4, CLIENT, SERVER, 64, &get),
            seen("node1/eth0 out", 5, "192.0.2.11:1024", SERVER, 63, &get),
            seen("node1/eth0 in", 6, SERVER, "192.0.2.11:1024", 63, &answer),
            seen("kubia-1/eth0 out", 7, CLIENT, SERVER, 64, "podlab/0000000000000000000000000000beef"),
        ];
        let (flows, server) = (Flows::of(&list), SERVER.parse().unwrap());
        let flow = flows.get(nonce, "kubia-1", Some(40000), server);
        assert_eq!(flow.knock, [&list[0], &list[1]]);
        assert_eq!(flow.welcome, [&list[2]]);
        assert_eq!(flow.request, [&list[3], &list[4]]);
        assert_eq!(flow.reply, [&list[5]]);
        assert!(flows.get(Nonce(1), "kubia-2", Some(40000), server).is_empty());
        assert!(flows.get(nonce, "kubia-1", None, server).knock.is_empty());
    }

    #[test]
    fn the_same_number_on_the_localhost_of_two_pods_is_two_connections() {
        let syn = |at: &str, stamp| {
            let mut s = seen(at, stamp, "127.0.0.1:40000", "127.0.0.1:8080", 64, "");
            (tcp_mut(&mut s).is_syn, tcp_mut(&mut s).is_ack, tcp_mut(&mut s).seq) = (true, false, 7);
            s
        };
        let list = [
            syn("kubia-1/lo out", 1),
            syn("kubia-2/lo out", 2),
            syn("kubia-1/lo in", 3),
            syn("kubia-1/eth0 out", 4),
        ];
        let flows = Flows::of(&list);
        let knock = |pod| flows.get(Nonce(1), pod, Some(40000), "127.0.0.1:8080".parse().unwrap()).knock;
        assert_eq!(knock("kubia-1"), [&list[0], &list[2], &list[3]], "what leaves lo is still found");
        assert_eq!(knock("kubia-2")[0], &list[1]);
    }

    #[test]
    fn retransmission_is_not_mixed_with_the_packet_that_arrived() {
        let first = seen("kubia-1/eth0 out", 1, CLIENT, SERVER, 64, "x");
        let mut again = seen("kubia-1/eth0 out", 2, CLIENT, SERVER, 64, "x");
        let mut arrived = seen("kubia-3/eth0 in", 3, CLIENT, SERVER, 62, "x");
        ip_mut(&mut again).id = Some(9);
        ip_mut(&mut arrived).id = Some(9);
        assert_eq!(one_transmission(&[&first, &again, &arrived]), [&again, &arrived]);
        let at = |at: &str, label: u32| {
            let mut s = seen(at, 1, "[fd00::2]:4000", "[fd01::2]:8080", 64, "x");
            ip_mut(&mut s).label = Some(label);
            s
        };
        let (first_v6, again_v6, arrived_v6) = (at("a/eth0 out", 1), at("a/eth0 out", 2), at("b/eth0 in", 2));
        assert_eq!(one_transmission(&[&first_v6, &again_v6, &arrived_v6]), [&again_v6, &arrived_v6]);
        assert_eq!(
            one_transmission(&[&first, &again]),
            [&first],
            "of two that are seen equally often, the first"
        );
        assert_eq!(
            one_transmission(&[&first, &arrived]),
            [&first, &arrived],
            "a changed id is for the verdict"
        );
    }
}
