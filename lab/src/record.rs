//! Packet evidence as a file: what a capture saw, in pcapng, and read again from there.
//!
//! Each interface of the lab is one of the file, `node1/eth0`; each sighting is a packet with its direction, the number
//! that all sightings of one packet share, and a comment that says what was found. A file that the lab has written holds
//! all that sightings are made of; the interface's description tells what the interface is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::capture::{Facts, Recording};
use crate::cluster::{Cluster, Role};
use crate::identity::{Identities, Seen};
use crate::packet::Packet;
use crate::pcapng::{self, ETHERNET, File, Interface, Name, RAW, Reception, Section, Statistics, Writer};
use crate::sighting::{self, Direction, Frame, Sighting, Spot};
use crate::stack::Each;
use crate::trace::each_change;

/// What a file is about, and how addresses are called in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heading {
    /// `lab demo, mode routed`.
    pub about: String,
    /// Names of pods, nodes and outside.
    pub names: Vec<(IpAddr, String)>,
}

impl Heading {
    /// Of a cluster.
    pub fn of(cluster: &Cluster) -> Heading {
        let named = |addresses: Each<IpAddr>, name: &str| -> Vec<(IpAddr, String)> {
            addresses.iter().map(|address| (address, name.to_owned())).collect()
        };
        let nodes = cluster.nodes.iter().flat_map(|node| named(node.address, &node.space.name));
        let outside = cluster.outside.iter().flat_map(|host| named(host.address, &host.space.name));
        let pods = cluster
            .pods
            .iter()
            .flat_map(|pod| pod.addresses.iter().map(|address| (*address, pod.space.name.clone())));
        let names = nodes.chain(outside).chain(pods);
        Heading { about: format!("lab {}, mode {}", cluster.name, cluster.mode), names: names.collect() }
    }
}

/// Writes sightings as they come.
#[derive(Debug)]
pub struct Recorder<W> {
    writer: Writer<W>,
    identities: Identities,
    /// The number of an interface in the file, and how many packets of it are there.
    numbers: HashMap<Arc<Spot>, (u32, u64), RandomState>,
    began: u64,
    /// The comment of the last packet; its room is used again.
    comment: String,
}

impl<W: Write> Recorder<W> {
    /// Begins a file with its heading and the interfaces that are known.
    ///
    /// # Errors
    /// The writer's below; so for all that follow.
    pub fn new<'f>(
        out: W,
        heading: &Heading,
        interfaces: impl IntoIterator<Item = &'f Facts>,
        began: u64,
    ) -> io::Result<Recorder<W>> {
        let system = nix::sys::utsname::uname().map_err(io::Error::from)?;
        let words = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
        let section = Section {
            hardware: words(system.machine()),
            os: format!("{} {}", words(system.sysname()), words(system.release())),
            application: format!("podlab {}", env!("CARGO_PKG_VERSION")),
            comment: heading.about.clone(),
        };
        let mut writer = Writer::new(out, &section)?;
        let mut numbers = HashMap::default();
        for facts in interfaces {
            numbers.insert(facts.spot.clone(), (writer.interface(&interface(facts))?, 0));
        }
        let name = |(address, name): &(IpAddr, String)| Name { address: *address, name: name.clone() };
        writer.names(&heading.names.iter().map(name).collect::<Vec<_>>())?;
        Ok(Recorder { writer, identities: Identities::default(), numbers, began, comment: String::new() })
    }

    /// Writes a sighting, if its frame was kept; `more` is added to its comment. Its packet's number and what changed.
    pub fn sighting(&mut self, s: &Sighting, more: Option<&str>) -> io::Result<Seen> {
        let seen = self.identities.see(s);
        let Some(frame) = &s.frame else { return Ok(seen) };
        let (interface, packets) = match self.numbers.get_mut(&s.at) {
            Some(known) => known,
            None => {
                let number = self.writer.interface(&described(&s.at, None))?;
                self.numbers.entry(s.at.clone()).or_insert((number, 0))
            }
        };
        *packets += 1;
        write_comment(&mut self.comment, s, &seen, more);
        self.writer.packet(&pcapng::Packet {
            interface: *interface,
            stamp_ns: s.stamp_ns,
            original_len: frame.original_len,
            bytes: Cow::Borrowed(&frame.bytes),
            outgoing: Some(s.direction == Direction::Out),
            reception: frame.reception,
            id: Some(seen.id),
            comment: Some(Cow::Borrowed(&self.comment)),
        })?;
        Ok(seen)
    }

    /// What is buffered goes out.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Ends the file with what was counted: frames by interface, and drops by namespace, which the kernel does not tell
    /// apart by interface.
    pub fn finish<'f>(
        mut self,
        interfaces: impl IntoIterator<Item = &'f Facts>,
        drops: &HashMap<String, u64>,
        ended: u64,
    ) -> io::Result<W> {
        for facts in interfaces {
            let Some((interface, delivered)) = self.numbers.get(&facts.spot).copied() else { continue };
            let dropped = drops.get(&facts.spot.space).copied().unwrap_or(0);
            let whole = format!("drops are counted for {} as a whole", facts.spot.space);
            self.writer.statistics(&Statistics {
                interface,
                start_ns: self.began,
                stop_ns: ended,
                received: facts.received,
                dropped,
                delivered,
                comment: (dropped > 0).then_some(whole),
            })?;
        }
        self.writer.finish()
    }
}

/// Writes a whole recording; `note` has more to say about some sightings.
///
/// # Errors
/// The writer's below.
pub fn write<W: Write>(
    out: W,
    heading: &Heading,
    recording: &Recording,
    note: impl Fn(&Sighting) -> Option<String>,
) -> io::Result<W> {
    let (began, ended) = recording.lasted;
    let mut recorder = Recorder::new(out, heading, &recording.interfaces, began)?;
    for s in &recording.sightings {
        recorder.sighting(s, note(s).as_deref())?;
    }
    recorder.finish(&recording.interfaces, &recording.drops, ended)
}

/// `packet 7, hop 3: TTL 64 > 63, MAC … > …; in VXLAN 1 …; not its address: forwarded`
pub fn comment(s: &Sighting, seen: &Seen, more: Option<&str>) -> String {
    let mut text = String::new();
    write_comment(&mut text, s, seen, more);
    text
}

fn write_comment(text: &mut String, s: &Sighting, seen: &Seen, more: Option<&str>) {
    use std::fmt::Write;
    text.clear();
    // A string takes whatever there is memory for.
    let _ = write!(text, "packet {}, hop {}", seen.id, seen.hop);
    if let Some(before) = &seen.before {
        let mut between = ": ";
        each_change(before, s, &mut |field, from, to| {
            let _ = write!(text, "{between}{field} {from} > {to}");
            between = ", ";
        });
    }
    if let Some(outer) = s.packet.outer {
        let _ = write!(text, "; in {outer}");
    }
    if s.frame.as_ref().is_some_and(|frame| frame.is_unfinished) {
        text.push_str("; checksum left to the device");
    }
    if let Some(more) = more {
        let _ = write!(text, "; {more}");
    }
}

fn interface(facts: &Facts) -> Interface {
    Interface {
        mac: facts.mac,
        addresses: facts.addresses.clone(),
        link_type: if facts.mac.is_none() { RAW } else { ETHERNET },
        ..described(&facts.spot, facts.kind.as_deref())
    }
}

/// `node; veth; port of cni0`
fn described(spot: &Spot, kind: Option<&str>) -> Interface {
    let role = spot.role.word().to_owned();
    let port = spot.port_of.as_ref().map(|bridge| format!("{PORT_OF}{bridge}"));
    let parts: Vec<String> = [Some(role), kind.map(str::to_owned), port].into_iter().flatten().collect();
    Interface {
        name: spot.to_string(),
        description: parts.join("; "),
        link_type: ETHERNET,
        mac: None,
        addresses: Vec::new(),
    }
}

const PORT_OF: &str = "port of ";

/// Reads a file that the lab has written. The whole is refused when any part is not as the lab writes it.
///
/// # Errors
/// What is wrong, and where.
pub fn read(bytes: &[u8]) -> Result<Recording, String> {
    let file = pcapng::read(bytes).map_err(|broken| broken.to_string())?;
    let facts = file.interfaces.iter().map(facts).collect::<Result<Vec<Facts>, _>>()?;
    let mut recording = Recording { interfaces: facts, ..Recording::default() };
    for (number, packet) in file.packets.iter().enumerate() {
        let s = sighting_of(packet, &recording.interfaces);
        recording.sightings.push(s.ok_or_else(|| {
            format!("packet {number} of the file is no frame, or has no direction, or is cut off")
        })?);
    }
    sighting::sort(&mut recording.sightings);
    count(&file, &mut recording);
    Ok(recording)
}

fn count(file: &File, recording: &mut Recording) {
    for statistics in &file.statistics {
        let Some(facts) = recording.interfaces.get_mut(statistics.interface as usize) else { continue };
        facts.received = statistics.received;
        recording.frames += statistics.received;
        recording.lasted = (statistics.start_ns, statistics.stop_ns);
        if statistics.dropped > 0 {
            recording.drops.insert(facts.spot.space.clone(), statistics.dropped);
        }
    }
}

fn facts(interface: &Interface) -> Result<Facts, String> {
    let strange = || {
        format!("interface {:?} ({:?}) is none that podlab describes", interface.name, interface.description)
    };
    let (space, name) = interface.name.split_once('/').ok_or_else(strange)?;
    let mut parts = interface.description.split("; ");
    let role = parts.next().and_then(Role::of_word).ok_or_else(strange)?;
    let (mut kind, mut port_of) = (None, None);
    for part in parts {
        match part.strip_prefix(PORT_OF) {
            Some(bridge) => port_of = Some(bridge.to_owned()),
            None => kind = Some(part.to_owned()),
        }
    }
    let spot = Spot {
        space: space.into(),
        role,
        interface: name.into(),
        port_of,
        is_bridge: kind.as_deref() == Some("bridge"),
    };
    let (mac, addresses) = (interface.mac, interface.addresses.clone());
    let mac = if interface.link_type == RAW { None } else { Some(mac.unwrap_or(kernel::Mac([0; 6]))) };
    Ok(Facts { spot: Arc::new(spot), kind, mac, addresses, received: 0 })
}

fn sighting_of(packet: &pcapng::Packet<'_>, interfaces: &[Facts]) -> Option<Sighting> {
    let facts = interfaces.get(packet.interface as usize)?;
    let decode = if facts.mac.is_none() { Packet::decode_bare } else { Packet::decode };
    if packet.bytes.len() < packet.original_len as usize {
        return None;
    }
    Some(Sighting {
        at: facts.spot.clone(),
        direction: if packet.outgoing? { Direction::Out } else { Direction::In },
        stamp_ns: packet.stamp_ns,
        is_overheard: packet.reception == Reception::Overheard,
        packet: decode(&packet.bytes)?,
        frame: Some(Arc::new(Frame {
            bytes: packet.bytes.to_vec(),
            original_len: packet.original_len,
            reception: packet.reception,
            is_unfinished: false,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sighting::tests::spot;

    /// An ARP question, for which no checksum is needed.
    fn arp() -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 1, 1, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 1, 1, 2]);
        frame.extend([10, 244, 1, 2, 0, 0, 0, 0, 0, 0, 10, 244, 1, 1]);
        frame
    }

    fn recording() -> Recording {
        let at = |name: &str, kind: Option<&str>| Facts {
            spot: spot(name),
            kind: kind.map(str::to_owned),
            mac: Some(kernel::Mac([2, 0, 0, 1, 1, 2])),
            addresses: vec!["10.244.1.2/24".parse().unwrap()],
            received: 2,
        };
        let interfaces = vec![
            at("kubia-1/eth0", Some("veth")),
            at("node1/veth1", Some("veth")),
            at("node1/cni0", Some("bridge")),
        ];
        let seen = |spot: &Arc<Spot>, direction, stamp_ns| Sighting {
            at: spot.clone(),
            direction,
            stamp_ns,
            is_overheard: false,
            packet: Packet::decode(&arp()).unwrap(),
            frame: Some(Arc::new(Frame {
                bytes: arp(),
                original_len: 42,
                reception: Reception::Broadcast,
                is_unfinished: false,
            })),
        };
        Recording {
            sightings: vec![
                seen(&interfaces[0].spot, Direction::Out, 1_000_000_001),
                seen(&interfaces[1].spot, Direction::In, 1_000_000_002),
                seen(&interfaces[2].spot, Direction::In, 1_000_000_002),
            ],
            frames: 6,
            drops: [("node1".to_owned(), 3)].into(),
            interfaces,
            lasted: (1_000_000_000, 2_000_000_000),
        }
    }

    #[test]
    fn recording_is_read_again_as_it_was() {
        let heading =
            Heading { about: "lab demo".into(), names: vec![([10, 244, 1, 2].into(), "kubia-1".into())] };
        let bytes = write(Vec::new(), &heading, &recording(), |_| Some("why".into())).unwrap();
        let again = read(&bytes).unwrap();
        let before = recording();
        assert_eq!((&again.sightings, &again.interfaces), (&before.sightings, &before.interfaces));
        assert_eq!((again.frames, again.drops, again.lasted), (before.frames, before.drops, before.lasted));
        let file = pcapng::read(&bytes).unwrap();
        let comments: Vec<_> = file.packets.iter().filter_map(|p| p.comment.clone()).collect();
        assert_eq!(comments, ["packet 1, hop 1; why", "packet 1, hop 2; why", "packet 1, hop 3; why"]);
        assert_eq!(file.names[0].name, "kubia-1");
        assert_eq!(file.statistics[1].comment.as_deref(), Some("drops are counted for node1 as a whole"));
    }

    #[test]
    fn file_of_another_program_is_refused() {
        let mut writer = Writer::new(Vec::new(), &Section::default()).unwrap();
        let foreign = Interface { name: "eth0".into(), ..described(&spot("node1/eth0"), None) };
        writer.interface(&foreign).unwrap();
        let refused = read(&writer.finish().unwrap()).unwrap_err();
        assert_eq!(refused, "interface \"eth0\" (\"node\") is none that podlab describes");
    }
}
