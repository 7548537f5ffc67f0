//! Which sightings are of one packet, whoever sent it and whatever it carries.
//!
//! A packet is known again by what nobody on its way changes: the IP identification, TCP's numbers, an echo's sequence
//! number, the payload. Addresses, ports, MACs and the TTL may change, which is what is to be found out. For probes of the
//! lab's own, which carry a nonce, [`crate::sighting::Flows`] knows more.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use foldhash::{fast, quality};

use crate::packet::{Arp, Content, Ip, Transport};
use crate::sighting::{Direction, Sighting, Spot};

/// A packet that was not seen for this long is on no wire any more, in nanoseconds.
const GONE_NS: u64 = 10_000_000_000;
/// Places where a packet to a pod of another node is seen.
const USUAL_HOPS: usize = 10;
/// Packets that are gone are forgotten when so many are remembered, or twice as many as were left the last time.
const SWEEP: usize = 8192;

/// What does not change on a packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Ip {
        is_v4: bool,
        /// The namespace of a packet on `lo`, which it does not leave.
        within: Option<String>,
        id: Option<u16>,
        what: What,
    },
    Arp {
        is_reply: bool,
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    Other {
        ether_type: u16,
        frame: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    Tcp {
        seq: u32,
        ack: u32,
        flags: [bool; 3],
        payload: u64,
    },
    Udp {
        payload: u64,
    },
    Echo {
        kind: u8,
        seq: u16,
        payload: u64,
    },
    /// An ICMP error: what it quotes is translated with it, all but the identification.
    Error {
        kind: u8,
        code: u8,
        quoted: Option<[u8; 2]>,
    },
    Other {
        protocol: u8,
        payload: u64,
    },
}

/// A sighting's packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The packet's number, from 1 on.
    pub id: u64,
    /// Which of its sightings this is, from 1 on.
    pub hop: usize,
    /// The one before.
    pub before: Option<Sighting>,
}

#[derive(Debug)]
struct Group {
    id: u64,
    hops: usize,
    /// Without its frame, and without the payload where the key has that.
    last: Sighting,
    /// Where it was seen, with the TTL that it had there.
    places: Vec<(Arc<Spot>, Direction, u8)>,
}

/// Gives sightings, which come in order of time, the numbers of their packets.
#[derive(Debug)]
pub struct Identities {
    groups: HashMap<Key, Group, fast::RandomState>,
    packets: u64,
    sweep_at: usize,
}

impl Default for Identities {
    fn default() -> Identities {
        Identities { groups: HashMap::default(), packets: 0, sweep_at: SWEEP }
    }
}

impl Identities {
    /// The packet of the next sighting.
    pub fn see(&mut self, s: &Sighting) -> Seen {
        if self.groups.len() >= self.sweep_at {
            self.groups.retain(|_, group| !is_gone(group, s));
            self.sweep_at = SWEEP.max(self.groups.len() * 2);
        }
        let place = (s.at.clone(), s.direction, s.ip().map_or(0, |ip| ip.ttl));
        let key = key(s);
        if let Some(group) = self.groups.get_mut(&key)
            && !is_gone(group, s)
            && !comes_again(group, &place)
        {
            let mut before = std::mem::replace(&mut group.last, remembered(s));
            restore_payload(&mut before, s);
            group.hops += 1;
            group.places.push(place);
            return Seen { id: group.id, hop: group.hops, before: Some(before) };
        }
        self.packets += 1;
        let mut places = Vec::with_capacity(USUAL_HOPS);
        places.push(place);
        let group = Group { id: self.packets, hops: 1, last: remembered(s), places };
        self.groups.insert(key, group);
        Seen { id: self.packets, hop: 1, before: None }
    }
}

/// What of a sighting is to be compared with the next one of its packet: not the frame, and of most packets not the
/// payload, of which the key has a digest. Else captures of much would hold all that went by in the last seconds.
fn remembered(s: &Sighting) -> Sighting {
    static NOTHING: LazyLock<Arc<[u8]>> = LazyLock::new(|| Arc::from([]));
    let mut last = Sighting { frame: None, ..s.clone() };
    if let Content::Ip(ip) = &mut last.packet.content
        && !is_error(ip)
    {
        ip.payload = NOTHING.clone();
    }
    last
}

/// Gives a sighting back the payload that it has in common with the next one of its packet.
fn restore_payload(before: &mut Sighting, after: &Sighting) {
    if let (Content::Ip(before), Some(after)) = (&mut before.packet.content, after.ip())
        && !is_error(before)
    {
        before.payload = after.payload.clone();
    }
}

/// What an ICMP error quotes may change on its way.
fn is_error(ip: &Ip) -> bool {
    matches!(ip.transport, Transport::Icmp { .. }) && !ip.transport.is_echo()
}

fn is_gone(group: &Group, s: &Sighting) -> bool {
    s.stamp_ns.saturating_sub(group.last.stamp_ns) > GONE_NS
}

/// Where a packet has been it does not come again, unless routers send it round: then its TTL is less than it was.
fn comes_again(group: &Group, (at, direction, ttl): &(Arc<Spot>, Direction, u8)) -> bool {
    group.places.iter().any(|(spot, way, had)| spot == at && way == direction && ttl >= had)
}

fn digest(bytes: &[u8]) -> u64 {
    quality::FixedState::default().hash_one(bytes)
}

fn key(s: &Sighting) -> Key {
    match &s.packet.content {
        Content::Ip(ip) => Key::Ip {
            is_v4: ip.source.is_ipv4(),
            within: (s.at.interface == "lo").then(|| s.at.space.clone()),
            id: ip.id,
            what: what(ip),
        },
        Content::Arp(Arp { is_reply, sender, target, .. }) => {
            Key::Arp { is_reply: *is_reply, sender: *sender, target: *target }
        }
        Content::Other(ether_type) => {
            let bytes = s.frame.as_ref().map_or(&[][..], |frame| &frame.bytes);
            Key::Other { ether_type: *ether_type, frame: digest(bytes) }
        }
    }
}

fn what(ip: &Ip) -> What {
    let payload = digest(&ip.payload);
    match ip.transport {
        Transport::Tcp(tcp) => {
            let flags = [tcp.is_syn, tcp.is_ack, tcp.is_reset];
            What::Tcp { seq: tcp.seq, ack: tcp.ack, flags, payload }
        }
        Transport::Udp { .. } => What::Udp { payload },
        Transport::Icmp { kind, seq, .. } if ip.transport.is_echo() => What::Echo { kind, seq, payload },
        Transport::Icmp { kind, code, .. } => {
            let quoted = ip.payload.get(4..6).map(|id| [id[0], id[1]]);
            What::Error { kind, code, quoted }
        }
        Transport::Other(protocol) => What::Other { protocol, payload },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sighting::tests::{ip_mut, seen};
    use crate::trace::each_change;

    const CLIENT: &str = "10.244.1.2:40000";
    const SERVER: &str = "10.244.2.2:8080";
    const NODE: &str = "192.0.2.11:1024";

    fn ids(sightings: &[Sighting]) -> Vec<(u64, usize)> {
        let mut identities = Identities::default();
        sightings.iter().map(|s| identities.see(s)).map(|seen| (seen.id, seen.hop)).collect()
    }

    #[test]
    fn translated_packet_keeps_its_number_and_tells_what_changed() {
        let mut identities = Identities::default();
        identities.see(&seen("kubia-1/eth0 out", 1, CLIENT, SERVER, 64, "x"));
        let other = identities.see(&seen("kubia-2/eth0 out", 2, CLIENT, SERVER, 64, "y"));
        assert_eq!((other.id, other.hop), (2, 1));
        let found = identities.see(&seen("node1/eth0 out", 3, NODE, SERVER, 63, "x"));
        assert_eq!((found.id, found.hop), (1, 2));
        let (mut fields, before) = (Vec::new(), found.before.unwrap());
        let after = seen("node1/eth0 out", 3, NODE, SERVER, 63, "x");
        each_change(&before, &after, &mut |field, _, _| fields.push(field));
        assert_eq!(fields, ["TTL", "SRC", "SPORT"]);
    }

    #[test]
    fn the_same_place_again_is_another_packet_unless_the_ttl_has_fallen() {
        let at = |ttl| seen("node1/eth0 out", 1, CLIENT, SERVER, ttl, "x");
        assert_eq!(ids(&[at(63), at(63)]), [(1, 1), (2, 1)]);
        assert_eq!(ids(&[at(63), at(61), at(59)]), [(1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn packets_on_two_loopbacks_are_two_and_old_ones_are_forgotten() {
        let lo = |space: &str| seen(&format!("{space}/lo out"), 1, CLIENT, SERVER, 64, "x");
        assert_eq!(ids(&[lo("kubia-1"), lo("kubia-2")]), [(1, 1), (2, 1)]);
        let late = seen("node1/eth0 out", GONE_NS + 2, CLIENT, SERVER, 63, "x");
        assert_eq!(ids(&[seen("kubia-1/eth0 out", 1, CLIENT, SERVER, 64, "x"), late]), [(1, 1), (2, 1)]);
    }

    #[test]
    fn what_is_gone_is_swept_up() {
        let mut identities = Identities::default();
        for n in 0..2 * SWEEP as u64 {
            identities.see(&seen("node1/eth0 out", n * GONE_NS / 100, CLIENT, SERVER, 63, &n.to_string()));
        }
        assert!(identities.groups.len() <= SWEEP, "{} packets are remembered", identities.groups.len());
    }

    #[test]
    fn payloads_are_not_kept_but_of_errors_which_may_change_what_they_quote() {
        let mut identities = Identities::default();
        let kept = |identities: &Identities| -> usize {
            let payloads = identities.groups.values().filter_map(|group| group.last.ip());
            payloads.map(|ip| ip.payload.len()).sum()
        };
        identities.see(&seen("kubia-1/eth0 out", 1, CLIENT, SERVER, 64, &"x".repeat(1400)));
        assert_eq!(kept(&identities), 0);
        let again = seen("node1/eth0 out", 2, CLIENT, SERVER, 63, &"x".repeat(1400));
        let (mut fields, before) = (Vec::new(), identities.see(&again).before.unwrap());
        each_change(&before, &again, &mut |field, _, _| fields.push(field));
        assert_eq!((fields, before.ip().unwrap().payload.len()), (vec!["TTL"], 1400));

        let error = |at: &str, quoted: &str| {
            let mut s = seen(at, 3, CLIENT, SERVER, 64, quoted);
            ip_mut(&mut s).transport = Transport::Icmp { kind: 3, code: 1, id: 0, seq: 0 };
            s
        };
        identities.see(&error("node1/eth0 in", "E...IDas sent"));
        let after = error("kubia-1/eth0 in", "E...IDtranslated");
        let (mut fields, before) = (Vec::new(), identities.see(&after).before.unwrap());
        each_change(&before, &after, &mut |field, from, _| fields.push(format!("{field} {from}")));
        assert_eq!((fields, kept(&identities)), (vec!["PAYLOAD 13 bytes".to_owned()], 16));
    }
}
