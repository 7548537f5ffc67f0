//! `podlab capture`: packets as they go by, as text or as pcapng.
//!
//! The client listens itself, in the lab's namespaces, so the lab is not kept from anything meanwhile. It ends with the
//! lab, whose namespaces it would otherwise hold.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use kernel::Netns;
use serde_json::{Value, json};

use super::enter::enter_user_namespace;
use super::{CaptureArgs, Style};
use crate::capture::filter::Filter;
use crate::capture::live::{Limits, Live, Totals};
use crate::capture::now_ns;
use crate::cluster::{Role, Space};
use crate::control::{Client, Request};
use crate::exit::{self, Failure};
use crate::identity::Identities;
use crate::output::{self, Format};
use crate::packet::{Content, Packet, Transport};
use crate::record::{self, Heading, Recorder};
use crate::sighting::{Sighting, Spot};
use crate::verdict::Point;

/// So many bytes of a file are written at once.
const WRITTEN: usize = 1 << 18;
/// The user and the network namespace among those that a lab hands over.
const USER: usize = 0;
const NETWORK: usize = 3;

pub(super) fn capture(args: &CaptureArgs, style: Style) -> Result<u8, Failure> {
    let to_stdout = args.write.as_deref().is_some_and(|path| path.as_os_str() == "-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage(
            "a terminal cannot show pcapng · try: -w FILE, or -w - | wireshark -k -i -",
        ));
    }
    let mut client = Client::connect(&args.lab.name)?;
    let document = client.ask(&Request::Inspect { what: None }, &mut |_, _| {})?;
    let lab = Map::of(&document);
    let filter = Filter::parse(args.filter.as_deref().unwrap_or_default(), &lab.heading.names);
    let filter = filter.map_err(Failure::usage)?;
    let places = places(&args.places, &lab)?;

    let mut live = listen(&mut client, &lab, &places)?;
    live.ends_with(client.as_fd());
    if args.write.is_none() || to_stdout {
        live.ends_with(io::stdout().as_fd());
    }
    for place in &places {
        let known = |facts: &&crate::capture::Facts| facts.spot.space == place.space;
        let names: Vec<&str> = live.facts().filter(known).map(|f| f.spot.interface.as_str()).collect();
        if let Some(interface) = place.interface.as_deref().filter(|name| !names.contains(name)) {
            let (space, names) = (&place.space, names.join(", "));
            return Err(Failure::usage(format!(
                "{space} has no interface {interface:?} · there are: {names}"
            )));
        }
    }
    let is_heard =
        |spot: &Spot| places.is_empty() || places.iter().any(|place| place.has(&spot.space, &spot.interface));
    let wanted = |s: &Sighting| is_heard(&s.at) && filter.holds(&s.packet);
    let limits = Limits { count: args.count, time: args.time };
    if !style.quiet {
        let heard = live.facts().filter(|facts| is_heard(&facts.spot)).count();
        output::tell(&format!("capturing on {heard} interfaces of lab {} · Ctrl-C ends", args.lab.name));
    }
    let totals = match args.write.as_deref() {
        None => to_text(&mut live, limits, wanted, style)?,
        Some(_) if to_stdout => to_file(&mut live, limits, wanted, &lab.heading, io::stdout().lock())?,
        Some(path) => {
            let broken = |err: io::Error| Failure::new(exit::FAILED, format!("{}: {err}", path.display()));
            to_file(&mut live, limits, wanted, &lab.heading, File::create(path).map_err(broken)?)?
        }
    };
    if !style.quiet {
        let drops: u64 = totals.drops.values().sum();
        let (taken, frames) = (totals.taken, totals.frames);
        output::tell(&format!("{taken} packets taken, {frames} frames seen, {drops} dropped by the kernel"));
    }
    Ok(exit::OK)
}

/// The lab, as a capture needs to know it.
struct Map {
    spaces: Vec<(String, Role)>,
    heading: Heading,
}

impl Map {
    fn of(document: &Value) -> Map {
        let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (nodes, pods) = (list("nodes"), list("pods"));
        let hosts = list("hosts");
        let mut spaces = vec![("fabric".to_owned(), Role::Fabric)];
        spaces.extend(hosts.iter().filter_map(|host| Some((text(&host["name"])?, Role::Outside))));
        let racks: BTreeSet<String> = nodes.iter().filter_map(|node| text(&node["rack"])).collect();
        spaces.extend(racks.into_iter().map(|name| (name, Role::Fabric)));
        spaces.extend(nodes.iter().filter_map(|node| Some((text(&node["name"])?, Role::Node))));
        spaces.extend(pods.iter().filter_map(|pod| Some((text(&pod["name"])?, Role::Pod))));
        let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
        let mut names: Vec<(IpAddr, String)> = Vec::new();
        let known = |one: &Value| Some((address(&one["address"])?, text(&one["name"])?));
        names.extend(nodes.iter().chain(&hosts).filter_map(known));
        for pod in &pods {
            let addresses = pod["addresses"].as_array().into_iter().flatten().filter_map(address);
            names.extend(addresses.filter_map(|ip| Some((ip, text(&pod["name"])?))));
        }
        let word = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
        let about = format!("lab {}, mode {}", word("name"), word("mode"));
        Map { spaces, heading: Heading { about, names } }
    }
}

/// `node1` or `node1/eth0`.
struct Place {
    space: String,
    interface: Option<String>,
}

impl Place {
    fn has(&self, space: &str, interface: &str) -> bool {
        self.space == space && self.interface.as_deref().is_none_or(|name| name == interface)
    }
}

fn places(words: &[String], lab: &Map) -> Result<Vec<Place>, Failure> {
    let place = |word: &String| {
        let (space, interface) = match word.split_once('/') {
            Some((space, interface)) => (space, Some(interface.to_owned())),
            None => (word.as_str(), None),
        };
        if !lab.spaces.iter().any(|(name, _)| name == space) {
            let names: Vec<&str> = lab.spaces.iter().map(|(name, _)| name.as_str()).collect();
            let text = format!("{space:?} is not in the lab · there are: {}", names.join(", "));
            return Err(Failure::usage(text));
        }
        Ok(Place { space: space.to_owned(), interface })
    };
    words.iter().map(place).collect()
}

/// Opens a socket in each namespace that is named, or in all.
fn listen(client: &mut Client, lab: &Map, places: &[Place]) -> Result<Live, Failure> {
    let is_wanted = |name: &str| places.is_empty() || places.iter().any(|place| place.space == name);
    let mut spaces = Vec::new();
    for (name, role) in lab.spaces.iter().filter(|(name, _)| is_wanted(name)) {
        let namespaces = client.enter(Some(name))?;
        // In the user namespace of an ordinary user's lab, that user may capture.
        if let Some(user) = namespaces.get(USER) {
            enter_user_namespace(user)
                .map_err(|err| Failure::new(exit::LACKING, format!("enter the lab: {err}")))?;
        }
        let network = namespaces.into_iter().nth(NETWORK);
        let gone =
            || Failure::new(exit::FAILED, format!("the lab handed over no network namespace of {name}"));
        let netns = Netns::from(OwnedFd::from(network.ok_or_else(gone)?));
        spaces.push(Space { name: name.clone(), netns, uts: None, role: *role });
    }
    Live::open(&spaces).map_err(|err| {
        let failure = Failure::from(err);
        match nix::unistd::geteuid().is_root() {
            true => failure,
            false => Failure::new(exit::LACKING, format!("{failure} · try: sudo podlab capture")),
        }
    })
}

fn to_file(
    live: &mut Live,
    limits: Limits,
    wanted: impl Fn(&Sighting) -> bool,
    heading: &Heading,
    out: impl Write,
) -> Result<Totals, Failure> {
    let broken = |err: io::Error| Failure::new(exit::FAILED, format!("write the capture: {err}"));
    let began = live.began;
    let is_gone = |err: &io::Error| err.kind() == io::ErrorKind::BrokenPipe;
    let begin = || {
        let mut recorder =
            Recorder::new(BufWriter::with_capacity(WRITTEN, out), heading, live.facts(), began)?;
        // Whoever reads along is to know the interfaces before the first packet comes.
        recorder.flush().map(|()| recorder)
    };
    let recorder = match begin() {
        Err(err) if is_gone(&err) => return Ok(Totals::default()),
        other => std::cell::RefCell::new(other.map_err(broken)?),
    };
    let totals =
        live.run(limits, wanted, &mut |s| recorder.borrow_mut().sighting(s, None).map(drop), &mut || {
            recorder.borrow_mut().flush()
        })?;
    match recorder.into_inner().finish(live.facts(), &totals.drops, now_ns()) {
        Err(err) if !is_gone(&err) => Err(broken(err)),
        _ => Ok(totals),
    }
}

fn to_text(
    live: &mut Live,
    limits: Limits,
    wanted: impl Fn(&Sighting) -> bool,
    style: Style,
) -> Result<Totals, Failure> {
    let mut identities = Identities::default();
    let began = live.began;
    let out = std::cell::RefCell::new(BufWriter::new(io::stdout().lock()));
    let totals = live.run(
        limits,
        wanted,
        &mut |s| {
            let seen = identities.see(s);
            let said = record::comment(s, &seen, None);
            let mut out = out.borrow_mut();
            match style.format {
                Format::Json => {
                    let document = json!({
                        "schema": "podlab.sighting/1",
                        "packet": seen.id,
                        "hop": seen.hop,
                        "at": s.at.to_string(),
                        "direction": s.direction,
                        "stamp_ns": s.stamp_ns,
                        "what": words(&s.packet),
                        "found": said,
                        "point": Point::of(s),
                    });
                    writeln!(out, "{document}")
                }
                Format::Table => {
                    let after = s.stamp_ns.saturating_sub(began);
                    let (seconds, rest) = (after / 1_000_000_000, after % 1_000_000_000);
                    writeln!(out, "{seconds:>4}.{rest:09} {s:<20} {} [{said}]", words(&s.packet))
                }
            }
        },
        &mut || out.borrow_mut().flush(),
    )?;
    Ok(totals)
}

/// `10.244.1.2:40000 > 10.244.2.2:8080 TCP SYN ttl 64 id 0x7f3a`
pub(super) fn words(packet: &Packet) -> String {
    let ip = match &packet.content {
        Content::Ip(ip) => ip,
        Content::Arp(arp) if arp.is_reply => return format!("ARP {} is at {}", arp.sender, arp.sender_mac),
        Content::Arp(arp) => return format!("ARP who has {}, asks {}", arp.target, arp.sender),
        Content::Other(ether_type) => return format!("EtherType {ether_type:#06x}"),
    };
    let what = match ip.transport {
        Transport::Tcp(tcp) => {
            let flags = [(tcp.is_syn, " SYN"), (tcp.is_ack, " ACK"), (tcp.is_reset, " RST")];
            let set: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
            format!("TCP{set}")
        }
        Transport::Udp { .. } => "UDP".to_owned(),
        Transport::Icmp { kind, code, seq, .. } if ip.transport.is_echo() => {
            format!("ICMP echo type {kind} code {code} seq {seq}")
        }
        Transport::Icmp { kind, code, .. } => format!("ICMP type {kind} code {code}"),
        Transport::Other(protocol) => format!("protocol {protocol}"),
    };
    let end =
        |end: std::net::SocketAddr| if end.port() == 0 { end.ip().to_string() } else { end.to_string() };
    let id = ip.id.map(|id| format!(" id {id:#06x}")).unwrap_or_default();
    let bytes = ip.payload.len();
    format!("{} > {} {what} ttl {}{id}, {bytes} bytes", end(ip.from()), end(ip.to()), ip.ttl)
}

/// `10s`, `500ms`, `2m`, or a number of seconds.
///
/// # Errors
/// What is no time.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is no time, such as 10s, 500ms or 2m"))?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        unit => return Err(format!("{unit:?} is no unit of time · there are: ms, s, m, h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|err| format!("{text:?}: {err}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(
            (duration("2m"), duration("3")),
            (Ok(Duration::from_secs(120)), Ok(Duration::from_secs(3)))
        );
        for wrong in ["", "soon", "5d", "-1s", "1e400s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_namespace_of_a_lab_is_known_by_role_and_every_address_by_name() {
        let document = json!({
            "name": "demo", "mode": "routed",
            "hosts": [{ "name": "outside", "address": "203.0.113.9", "addresses": ["203.0.113.9"] }],
            "nodes": [
                { "name": "node1", "rack": "rack1", "address": "192.0.2.11" },
                { "name": "node2", "rack": "rack1", "address": "192.0.2.12" },
            ],
            "pods": [{ "name": "kubia-1", "node": "node1", "addresses": ["10.244.1.2", "fd00::2"] }],
        });
        let lab = Map::of(&document);
        let names: Vec<&str> = lab.spaces.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["fabric", "outside", "rack1", "node1", "node2", "kubia-1"]);
        assert_eq!(lab.heading.about, "lab demo, mode routed");
        assert_eq!(lab.heading.names.len(), 5);
        let refused = places(&["node9/eth0".to_owned()], &lab).err().unwrap();
        assert!(refused.text.starts_with("\"node9\" is not in the lab · there are: fabric"), "{refused}");
    }
}
