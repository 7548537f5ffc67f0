//! `trace`: one packet's walk through the lab, interface by interface, there and back.
//!
//! One probe is sent under a capture of the whole lab. The walk is what was seen; the reasons beside it come from the
//! kernel's tables in the namespaces it passed. Nothing is predicted, and nothing is changed, but that `--hooks` has nf_tables
//! mark the probe's packets while it runs.

mod causes;
mod hooks;
mod render;
mod walk;
mod why;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use kernel::Family;
use kernel::drops::Drops;
use serde::{Deserialize, Serialize};

use crate::capture::{self, Capture, Recording};
use crate::cluster::{Cluster, Containers, Role, Space};
use crate::exit::{FAILED, Failure, OK};
use crate::packet::{Asking, Packet, Transport};
use crate::probe::{ProbeOutcome, ProbeRequest, Protocol, Word};
use crate::record::{self, Heading};
use crate::services;
use crate::sighting::{Direction, Flow, Flows, Sighting, one_transmission};
use crate::stack::{self, OneFamily, Versioned};
use crate::verdict::{OnWire, Ruling, Seals, Way};
use crate::verify::NonceMaker;
use causes::{Causes, Dropped};
use hooks::{Mark, Watch};
use walk::Reasons;

pub use causes::{Lost, LostKind};
pub use hooks::HookStep;
pub use render::render_trace;
pub(crate) use walk::each_change;
pub use walk::{Change, Hop, Walk};

/// The name of the JSON document's form.
pub const SCHEMA: &str = "podlab.trace/1";

/// How long the probe waits for its answer, in milliseconds.
const TIMEOUT_MS: u64 = 1000;

/// Which packet to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceOptions {
    /// Where it starts: a pod's name or `outside`.
    pub source: String,
    /// Where it goes: the name of a pod or node, `outside`, or an address.
    pub target: String,
    /// The port; means nothing to ICMP.
    pub port: u16,
    /// What it is made of.
    pub protocol: Protocol,
    /// The IP version, where names do not tell it; none is the lab's first.
    pub family: Option<OneFamily>,
    /// What nf_tables does with it is told too.
    pub hooks: bool,
}

impl TraceOptions {
    /// From words as they come from the command line, without hooks; wrong usage when the protocol is not known.
    pub fn parse(source: &str, target: &str, port: u16, protocol: &str) -> Result<TraceOptions, Failure> {
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            other => {
                return Err(Failure::usage(format!("no protocol {other:?} · there are: tcp, udp, icmp")));
            }
        };
        Ok(TraceOptions {
            source: source.into(),
            target: target.into(),
            port,
            protocol,
            family: None,
            hooks: false,
        })
    }
}

/// An ARP message, or its counterpart in IPv6, seen once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArpPoint {
    /// Namespace and interface.
    pub at: String,
    /// Which way.
    pub direction: Direction,
    /// Nanoseconds since 1970.
    pub stamp_ns: u64,
    /// `who has 10.244.1.1, asks 10.244.1.2` or `10.244.1.1 is at 02:…`.
    pub text: String,
}

/// One probe's packets, followed through the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// [`SCHEMA`].
    pub schema: String,
    /// The lab's name.
    pub lab: String,
    /// Where the probe started.
    pub source: String,
    /// Where it was to go.
    pub target: String,
    /// The target's address and port.
    pub address: SocketAddr,
    /// What it is made of.
    pub protocol: Protocol,
    /// How it ended for its client.
    pub outcome: ProbeOutcome,
    /// PASS when an answer came and nothing was rewritten, FAIL when not, ERROR when nothing was seen.
    pub ruling: Ruling,
    /// The verdict in words: `no NAT (5-tuple identical at 20 sightings)`.
    pub verdict: String,
    /// The packets, in the order in which they were sent.
    pub walks: Vec<Walk>,
    /// The ARP messages meanwhile, and neighbour solicitations and advertisements.
    pub arp: Vec<ArpPoint>,
    /// ICMP errors meanwhile: who refused what.
    pub errors: Vec<String>,
    /// Encrypted packets that left nodes meanwhile; what is in them cannot be told.
    pub encrypted: Vec<OnWire>,
    /// What became of the packet that got no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// Namespaces of which nf_tables could not tell everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
    /// Frames that the capture lost.
    pub drops: u64,
}

impl Trace {
    /// 0 when an answer came, also a rewritten one; else 1.
    pub fn exit_code(&self) -> u8 {
        match (self.outcome.word, self.ruling) {
            (Word::Ok, Ruling::Pass | Ruling::Fail) => OK,
            _ => FAILED,
        }
    }
}

/// A trace, and all that was captured for it.
#[derive(Debug)]
pub struct Followed {
    /// The walk.
    pub trace: Trace,
    /// The packets.
    pub recording: Recording,
}

impl Followed {
    /// Writes the packets as pcapng, with the reason of each hop.
    ///
    /// # Errors
    /// The writer's below.
    pub fn write<W: std::io::Write>(&self, out: W, cluster: &Cluster) -> std::io::Result<W> {
        let hops = self.trace.walks.iter().flat_map(|walk| walk.hops.iter().map(move |hop| (walk, hop)));
        let notes: HashMap<(u64, String), String> = hops
            .map(|(walk, hop)| {
                let steps = hop.hooks.iter().map(HookStep::words);
                let more: Vec<String> =
                    [hop.why.clone()].into_iter().chain(hop.causes.clone()).chain(steps).collect();
                ((hop.stamp_ns, hop.place()), format!("{}: {}", walk.packet, more.join("; ")))
            })
            .collect();
        let note = |s: &Sighting| notes.get(&(s.stamp_ns, s.to_string())).cloned();
        record::write(out, &Heading::of(cluster), &self.recording, note)
    }
}

/// Sends the probe and follows it, without keeping what was captured. Errors are those of [`follow`].
pub fn run(cluster: &Cluster, options: &TraceOptions) -> Result<Trace> {
    follow(cluster, options, false).map(|followed| followed.trace)
}

/// Sends the probe and follows it. An error is a [`Failure`] of wrong usage for a name that the lab does not have;
/// else something that stopped the capture or the sidecar.
pub fn follow(cluster: &Cluster, options: &TraceOptions, keep_frames: bool) -> Result<Followed> {
    let sidecar = &sender(cluster, &options.source)?.sidecar;
    follow_by(cluster, options, keep_frames, TIMEOUT_MS, |request| {
        // A panic of another thread leaves the sidecar's pipes as usable as before: answers are numbered.
        let mut sidecar = sidecar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(sidecar.probe(vec![request])?.remove(0))
    })
}

/// As [`follow`], with the probe sent by `send`, which waits so many milliseconds for its answer.
pub(crate) fn follow_by(
    cluster: &Cluster,
    options: &TraceOptions,
    keep_frames: bool,
    timeout_ms: u64,
    send: impl FnOnce(ProbeRequest) -> Result<ProbeOutcome>,
) -> Result<Followed> {
    let address = SocketAddr::new(address_of(cluster, &options.target, options.family)?, options.port);
    let nonces = NonceMaker::new()?;
    let wanted = move |packet: &Packet| nonces.is_ours(packet) || is_arp(packet) || is_icmp_error(packet);
    let listening = capture::Options { keep_frames, ..capture::Options::default() };
    // A machine or a user without it goes without the kernel's own words.
    let opening = std::thread::Builder::new().name("drops".into()).spawn(|| Drops::open().ok());
    let capture = Capture::start_with(cluster.spaces(), listening, wanted)?;
    let request = ProbeRequest {
        nonce: nonces.nonce(0),
        protocol: options.protocol,
        target: address,
        timeout_ms,
        padding: 0,
        source_port: None,
    };
    let watch = match options.hooks {
        true => {
            let servers = servers(cluster, address);
            let ends = ends(cluster, &options.source, address.ip(), &servers);
            let is_watched = |space: &&Space| {
                space.role != Role::Pod
                    || space.name == options.source
                    || servers.iter().any(|(name, _)| *name == space.name)
            };
            Some(Watch::start(cluster.spaces().filter(is_watched), options.protocol, &ends)?)
        }
        false => None,
    };
    let mut drops_heard = opening.ok().and_then(|opening| opening.join().ok()).flatten();
    let sent = send(request);
    let recording = capture.stop()?;
    let dropped = Dropped(drops_heard.as_mut().and_then(|heard| heard.read().ok()).unwrap_or_default());
    // Until nobody can be in the tracepoint any more, the kernel has the one who closes it wait.
    capture::meanwhile(move || drop(drops_heard));
    let watching = watch.map(Watch::finish).transpose()?.unwrap_or_default();
    let outcome = sent?;

    let flows = Flows::of(&recording.sightings);
    let flow = flows.get(outcome.nonce, &options.source, outcome.local.map(|a| a.port()), address);
    let packets: Vec<_> = walks_of(&flow, options.protocol)
        .into_iter()
        .filter(|(_, _, sightings)| !sightings.is_empty())
        .collect();
    let places = packets.iter().flat_map(|(_, _, sightings)| sightings).map(|s| s.at.space.as_str());
    let reasons = Reasons {
        tables: why::Tables::read(cluster, &flow)?,
        causes: Causes::read(
            cluster,
            places.chain([options.source.as_str()]),
            (options.protocol, address.ip().family()),
        )?,
        steps: &watching.steps,
    };
    let walks: Vec<Walk> =
        packets.iter().map(|(name, way, sightings)| Walk::of(name, *way, sightings, &reasons)).collect();
    let lost = match outcome.word {
        Word::Ok => None,
        Word::Refused | Word::Timeout | Word::Other => match packets.last() {
            Some((name, _, sightings)) => {
                let marks: Vec<Mark> = sightings.iter().filter_map(|s| s.ip()).map(Mark::of).collect();
                let own = watching.steps.iter().filter(|(mark, _)| marks.contains(mark));
                let own: Vec<&HookStep> = own.map(|(_, step)| step).collect();
                reasons.causes.lost(name, sightings, &own, &dropped)
            }
            None => {
                let all: Vec<&HookStep> = watching.steps.iter().map(|(_, step)| step).collect();
                reasons.causes.never_left(&options.source, address.ip(), &all)
            }
        },
    };
    let drops = recording.drops.values().sum();
    let (ruling, verdict) = walk::judge(&outcome, &walks, drops);
    let trace = Trace {
        schema: SCHEMA.into(),
        lab: cluster.name.clone(),
        source: options.source.clone(),
        target: options.target.clone(),
        address,
        protocol: options.protocol,
        outcome,
        ruling,
        verdict,
        walks,
        arp: recording.sightings.iter().filter_map(arp_point).collect(),
        errors: recording.sightings.iter().filter_map(icmp_error).collect(),
        encrypted: Seals::of(&recording.sightings).sent(),
        lost,
        gaps: watching.gaps,
        drops,
    };
    Ok(Followed { trace, recording })
}

/// The pods that may answer: the one with the address, or those behind the service that has it.
fn servers(cluster: &Cluster, target: SocketAddr) -> Vec<(String, IpAddr)> {
    let is_front = |backed: &services::model::Backed| {
        let service = &backed.service;
        let own = [service.cluster_ip, service.balancer].into_iter().flatten();
        let by_port = service.port.and_then(|port| port.node_port) == Some(target.port());
        own.map(IpAddr::V4).any(|ip| ip == target.ip()) || by_port
    };
    let behind = services::backed(cluster).into_iter().filter(is_front).flat_map(|backed| backed.endpoints);
    let behind = behind.map(|endpoint| (endpoint.pod, endpoint.address.into()));
    let own = cluster.pods.iter().filter(|pod| pod.addresses.contains(&target.ip()));
    behind.chain(own.map(|pod| (pod.space.name.clone(), target.ip()))).collect()
}

/// The addresses of which every packet of the probe has one, whatever is translated.
fn ends(cluster: &Cluster, source: &str, target: IpAddr, servers: &[(String, IpAddr)]) -> Vec<IpAddr> {
    let own = match cluster.pod(source) {
        Some(pod) => pod.addresses.clone(),
        None => cluster.host(source).map(|host| host.address.iter().collect()).unwrap_or_default(),
    };
    let mut all: Vec<IpAddr> = own.into_iter().chain([target]).collect();
    all.extend(servers.iter().map(|(_, address)| *address));
    all.sort_unstable();
    all.dedup();
    all
}

/// The packets of a flow by name, each in one transmission.
fn walks_of<'a>(flow: &Flow<'a>, protocol: Protocol) -> Vec<(&'static str, Way, Vec<&'a Sighting>)> {
    let (request, reply) = match protocol {
        Protocol::Tcp => ("HTTP request", "HTTP answer"),
        Protocol::Udp => ("datagram", "answer"),
        Protocol::Icmp => ("echo request", "echo reply"),
    };
    vec![
        ("SYN", Way::Request, one_transmission(&flow.knock)),
        ("SYN-ACK", Way::Reply, one_transmission(&flow.welcome)),
        (request, Way::Request, one_transmission(&flow.request)),
        (reply, Way::Reply, one_transmission(&flow.reply)),
    ]
}

/// The containers of the place that the packet starts from.
pub(crate) fn sender<'c>(cluster: &'c Cluster, name: &str) -> Result<&'c Containers, Failure> {
    if let Some(host) = cluster.host(name) {
        return Ok(&host.containers);
    }
    cluster.pod(name).map(|pod| &pod.containers).ok_or_else(|| {
        let what = if cluster.space(name).is_some() { "sends no probes" } else { "is not in the lab" };
        Failure::usage(format!("{name:?} {what} · a packet starts at a pod or at outside"))
    })
}

/// The address that a name of the lab stands for; of the lab's first IP version where none is given.
pub(crate) fn address_of(
    cluster: &Cluster,
    name: &str,
    family: Option<OneFamily>,
) -> Result<IpAddr, Failure> {
    let family = family.map_or(cluster.ranges.pods.first.family(), Family::from);
    let none = || Failure::new(FAILED, format!("{name} has no {} address", stack::word(family)));
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let of_host = cluster.host(name).map(|host| host.address);
    if let Some(address) = of_host.or_else(|| cluster.node(name).map(|node| node.address)) {
        return address.of(family).ok_or_else(none);
    }
    let unknown = || {
        Failure::usage(format!(
            "{name:?} is not in the lab · a packet goes to a pod, a node, outside or an address"
        ))
    };
    let pod = cluster.pod(name).ok_or_else(unknown)?;
    pod.addresses.iter().find(|address| address.family() == family).copied().ok_or_else(none)
}

pub(crate) fn is_arp(packet: &Packet) -> bool {
    packet.asking().is_some()
}

/// Destination unreachable or time exceeded, of either IP version.
pub(crate) fn is_icmp_error(packet: &Packet) -> bool {
    packet.ip().is_some_and(|ip| error_words(ip).is_some())
}

/// RFC 792 and RFC 4443; the same numbers mean other things in the two.
fn error_words(ip: &crate::packet::Ip) -> Option<&'static str> {
    let Transport::Icmp { kind, code, .. } = ip.transport else { return None };
    match (ip.source.is_ipv4(), kind, code) {
        (true, 3, 0) => Some("network unreachable"),
        (true, 3, 1) => Some("host unreachable"),
        (true, 3, 3) | (false, 1, 4) => Some("port unreachable"),
        (true, 3, 4) | (false, 2, _) => Some("packet too big"),
        (true, 3, _) | (false, 1, _) => Some("destination unreachable"),
        (true, 11, _) | (false, 3, _) => Some("time exceeded"),
        _ => None,
    }
}

/// Each error once: where the one who found it sent it from.
pub(crate) fn icmp_error(s: &Sighting) -> Option<String> {
    let ip = s.ip()?;
    let words = error_words(ip)?;
    let is_origin = s.direction == Direction::Out && s.at.port_of.is_none();
    is_origin.then(|| format!("{} told {} by ICMP: {words} ({})", s.at, ip.target, ip.source))
}

fn arp_point(s: &Sighting) -> Option<ArpPoint> {
    let text = match s.packet.asking()? {
        Asking::Answer(address, mac) => format!("{address} is at {mac}"),
        Asking::Question(address, Some(from)) => format!("who has {address}, asks {from}"),
        Asking::Question(address, None) => format!("who has {address}"),
    };
    Some(ArpPoint { at: s.at.to_string(), direction: s.direction, stamp_ns: s.stamp_ns, text })
}
