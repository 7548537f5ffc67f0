//! The probes: connections first; where they work, pings, large packets and a question by ARP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::PoisonError;

use anyhow::{Context, Result};
use etherparse::PacketBuilder;
use kernel::packet::PacketSocket;
use kernel::{Family, Mac, Rtnl, addr, link, route};

use super::{Aim, WhyOptions};
use crate::capture::Capture;
use crate::cluster::{Cluster, Pod};
use crate::modes::Siblings;
use crate::packet::Packet;
use crate::probe::{ProbeOutcome, ProbeRequest, Protocol};
use crate::sighting::Sighting;
use crate::trace;
use crate::verify::NonceMaker;

/// How long probes wait for their answers, in milliseconds: small ones, and those that a slow wire may hold.
const TIMEOUT_MS: (u64, u64) = (1000, 3000);
/// How many pings count the loss.
pub(super) const PINGS: usize = 20;
/// A request of several packets, the first as large as they come.
const LARGE: usize = 4000;
/// Pings that a slow wire shows by: how many, and the bytes that each carries.
const HELD: (usize, usize) = (4, 1000);

/// RFC 4861, 4.3: the type of a neighbour solicitation.
const SOLICITATION: u8 = 135;

/// What a probe was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A connection.
    Small,
    /// A ping.
    Ping,
    /// A connection with a large request.
    Large,
    /// A ping of some size.
    Held,
}

/// What was seen of all probes.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) probes: Vec<(Kind, SocketAddr, ProbeOutcome)>,
    pub(super) sightings: Vec<Sighting>,
    pub(super) drops: u64,
}

/// Sends the probes under one capture.
pub(super) fn run(cluster: &Cluster, options: &WhyOptions, aim: &Aim) -> Result<Seen> {
    let containers = trace::sender(cluster, &options.source)?;
    let nonces = NonceMaker::new()?;
    let wanted = move |packet: &Packet| {
        nonces.is_ours(packet) || trace::is_arp(packet) || trace::is_icmp_error(packet)
    };
    let capture = Capture::start(cluster.spaces(), wanted)?;
    let mut probes: Vec<(Kind, SocketAddr, ProbeOutcome)> = Vec::new();
    let mut send = |kinds: Vec<(Kind, SocketAddr)>| -> Result<bool> {
        let numbered = kinds.iter().enumerate();
        let first = probes.len();
        let requests =
            numbered.map(|(i, (kind, target))| request(*kind, *target, nonces, first + i)).collect();
        // A panic of another thread leaves the sidecar's pipes as usable as before: answers are numbered.
        let mut sidecar = containers.sidecar.lock().unwrap_or_else(PoisonError::into_inner);
        let outcomes = sidecar.probe(requests)?;
        let is_good = outcomes.iter().all(|outcome| outcome.word == crate::probe::Word::Ok);
        probes
            .extend(kinds.into_iter().zip(outcomes).map(|((kind, target), outcome)| (kind, target, outcome)));
        Ok(is_good)
    };
    let of_each = |kind: Kind, times: usize| -> Vec<(Kind, SocketAddr)> {
        aim.fronts.iter().flat_map(|front| std::iter::repeat_n((kind, *front), times)).collect()
    };
    // Each pod behind a service has its turn.
    let turns = aim.service.as_ref().map_or(1, |backed| 2 * backed.endpoints.len().max(1));
    let sent = || -> Result<()> {
        if let Some(front) = aim.fronts.first() {
            ask(cluster, options, Family::of(front.ip()))?;
        }
        if send(of_each(Kind::Small, turns))? && aim.service.is_none() {
            let _ = send(of_each(Kind::Ping, PINGS))?
                && send(of_each(Kind::Large, 1))?
                && send(of_each(Kind::Held, HELD.0))?;
        }
        Ok(())
    }();
    let recording = capture.stop()?;
    sent?;
    Ok(Seen { probes, drops: recording.drops.values().sum(), sightings: recording.sightings })
}

fn request(kind: Kind, target: SocketAddr, nonces: NonceMaker, number: usize) -> ProbeRequest {
    let (protocol, padding, timeout_ms) = match kind {
        Kind::Small => (Protocol::Tcp, 0, TIMEOUT_MS.0),
        Kind::Ping => (Protocol::Icmp, 0, TIMEOUT_MS.0),
        Kind::Large => (Protocol::Tcp, LARGE, TIMEOUT_MS.1),
        Kind::Held => (Protocol::Icmp, HELD.1, TIMEOUT_MS.1),
    };
    ProbeRequest { nonce: nonces.nonce(number), protocol, target, timeout_ms, padding, source_port: None }
}

/// Has the nodes of both pods ask for their addresses by ARP or, in IPv6, by a solicitation, where they share a bridge: who answers is seen.
fn ask(cluster: &Cluster, options: &WhyOptions, family: Family) -> Result<()> {
    if cluster.mode.siblings() != Siblings::Switched || options.source == options.target {
        return Ok(());
    }
    let mut pods = [&options.source, &options.target].into_iter().filter_map(|name| cluster.pod(name));
    pods.try_for_each(|pod| ask_for(cluster, pod, family))
}

fn ask_for(cluster: &Cluster, pod: &Pod, family: Family) -> Result<()> {
    let node = &cluster.nodes[pod.node].space;
    let Some(wanted) = pod.addresses.iter().copied().find(|ip| Family::of(*ip) == family) else {
        return Ok(());
    };
    let mut rtnl = Rtnl::open_in(&node.netns)?;
    // Where the node has no way to its pod there is nobody to ask.
    let Some(index) = route::lookup(&mut rtnl, wanted).ok().and_then(|route| route.oif) else {
        return Ok(());
    };
    let Some(mac) = link::by_index(&mut rtnl, index)?.mac else { return Ok(()) };
    let addresses = addr::list(&mut rtnl, Some(index))?;
    let own = addresses.iter().map(|address| address.net.ip()).find(|ip| Family::of(*ip) == family);
    let question = match (own, wanted) {
        (Some(IpAddr::V4(own)), IpAddr::V4(wanted)) => question(mac, own, wanted),
        (Some(IpAddr::V6(own)), IpAddr::V6(wanted)) => solicitation(mac, own, wanted)?,
        _ => return Ok(()),
    };
    let socket = PacketSocket::open_on(&node.netns, index, &[])?;
    match socket.send(&question) {
        // A link that is down takes nothing, which the probes show too.
        Err(err) if err.errno() == Some(nix::errno::Errno::ENETDOWN as i32) => Ok(()),
        sent => Ok(sent?),
    }
}

/// RFC 826: who has `wanted`, tell `own`.
fn question(mac: Mac, own: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac.0);
    // Ethernet type, then hardware, protocol, their lengths, request.
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(own.octets());
    frame.extend([0; 6]);
    frame.extend(wanted.octets());
    frame
}

/// RFC 4861, 4.3: who has `wanted`, to its solicited-node address (RFC 4291, 2.7.1), with the MAC of who asks.
fn solicitation(mac: Mac, own: Ipv6Addr, wanted: Ipv6Addr) -> Result<Vec<u8>> {
    let [.., a, b, c] = wanted.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut body = wanted.octets().to_vec();
    body.extend([1, 1]);
    body.extend(mac.0);
    let packet = PacketBuilder::ethernet2(mac.0, [0x33, 0x33, 0xff, a, b, c])
        .ipv6(own.octets(), group.octets(), 255)
        .icmpv6_raw(SOLICITATION, 0, [0; 4]);
    let mut frame = Vec::with_capacity(packet.size(body.len()));
    packet.write(&mut frame, &body).context("write a solicitation")?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Arp, Asking, Content};

    #[test]
    fn a_solicitation_is_read_as_a_question() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let frame = solicitation(mac, ip("fd00::1"), ip("fd00::12:3456")).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let packet = Packet::decode(&frame).unwrap();
        let question = Asking::Question(ip("fd00::12:3456").into(), Some(ip("fd00::1").into()));
        assert_eq!(packet.asking(), Some(question));
        assert_eq!(
            packet.ip().map(|ip| (ip.target.to_string(), ip.ttl)),
            Some(("ff02::1:ff12:3456".into(), 255))
        );
    }

    #[test]
    fn a_question_is_read_as_one() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let frame = question(mac, [10, 244, 1, 1].into(), [10, 244, 1, 2].into());
        let packet = Packet::decode(&frame).unwrap();
        assert_eq!(packet.source_mac, mac);
        let Content::Arp(Arp { is_reply, sender_mac, sender, target }) = packet.content else {
            panic!("{packet:?}")
        };
        assert_eq!((is_reply, sender_mac), (false, mac));
        assert_eq!((sender.to_string(), target.to_string()), ("10.244.1.1".into(), "10.244.1.2".into()));
    }
}
