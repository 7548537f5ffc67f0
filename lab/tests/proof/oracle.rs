//! The independent oracle: what tshark reads in a capture file is what we read, packet by packet, and which sightings are
//! of one packet is what the probes' own nonces say.

use std::collections::HashMap;
use std::io::Write;
use std::process::Command;

use podlab::capture::{Capture, Options, Recording};
use podlab::cluster::Cluster;
use podlab::identity::Identities;
use podlab::packet::{Content, Transport};
use podlab::pcapng;
use podlab::record::{self, Heading};
use podlab::sighting::{Direction, Sighting};
use podlab::verdict::Point;

use crate::bed::{cluster, run_in, verified};

/// As many packets as the comparison is promised for.
const PACKETS: usize = 10_000;
/// What tshark is asked for, in the order of [`ours`].
const FIELDS: [&str; 19] = [
    "frame.time_epoch",
    "frame.interface_name",
    "frame.packet_flags_direction",
    "frame.len",
    "eth.src",
    "eth.dst",
    "ip.src",
    "ip.dst",
    "ip.ttl",
    "ip.id",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq",
    "tcp.len",
    "udp.srcport",
    "udp.dstport",
    "icmp.type",
    "vxlan.vni",
    "arp.opcode",
];

/// The cluster with a VXLAN tunnel between its nodes, and a masquerade on the first.
fn tunnelled() -> Cluster {
    let cluster = cluster(2, 5);
    for (n, other) in [(1, 2), (2, 1)] {
        let node = &cluster.nodes[n - 1].space;
        let (local, remote) = (format!("192.0.2.1{n}"), format!("192.0.2.1{other}"));
        let ip = |line: &str| run_in(node, "ip", &line.split(' ').collect::<Vec<_>>());
        ip(&format!("link add vx0 type vxlan id 7 local {local} remote {remote} dstport 8472"));
        ip(&format!("addr add 10.99.0.{n}/30 dev vx0"));
        ip("link set vx0 up");
        ip(&format!("route replace 10.244.{other}.0/24 via 10.99.0.{other}"));
    }
    let node1 = &cluster.nodes[0].space;
    run_in(node1, "nft", &["add", "table", "ip", "lesson"]);
    let chain = "{ type nat hook postrouting priority srcnat; }";
    run_in(node1, "nft", &["add", "chain", "ip", "lesson", "out", chain]);
    run_in(node1, "nft", &["add", "rule", "ip", "lesson", "out", "oifname", "vx0", "masquerade"]);
    cluster
}

/// Everything that goes by while pods talk, until there are enough packets.
fn recorded(cluster: &Cluster) -> Recording {
    let options = Options { keep_frames: true, ..Options::default() };
    let mut all = Recording::default();
    while all.sightings.len() < PACKETS {
        let capture = Capture::start_with(cluster.spaces(), options, |_| true).unwrap();
        verified(cluster, &[]);
        let part = capture.stop().unwrap();
        all.sightings.extend(part.sightings);
        all.interfaces = part.interfaces;
    }
    all
}

fn tshark(bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file.path()).args(["-d", "udp.port==8472,vxlan", "-T", "fields"]);
    command.args(["-o", "tcp.relative_sequence_numbers:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE"]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = command.output().expect("tshark, of the Debian package of that name");
    let said = String::from_utf8_lossy(&output.stderr);
    // Wireshark warns whoever is root, and says nothing else when all is well.
    let complaint = said.lines().find(|line| !line.starts_with("Running as user"));
    match complaint.filter(|line| !line.is_empty()) {
        _ if !output.status.success() => Err(said.into_owned()),
        Some(complaint) => Err(complaint.to_owned()),
        None => Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()),
    }
}

/// Our reading of a packet, field by field, in the words of tshark; of a packet in a tunnel the inner one.
fn ours(s: &Sighting) -> [String; 19] {
    let mut found: [String; 19] = std::array::from_fn(|_| String::new());
    found[0] = format!("{}.{:09}", s.stamp_ns / 1_000_000_000, s.stamp_ns % 1_000_000_000);
    found[1] = s.at.to_string();
    found[2] = if s.direction == Direction::In { "0x00000001" } else { "0x00000002" }.to_owned();
    found[3] = s.frame.as_ref().unwrap().original_len.to_string();
    found[4] = s.packet.source_mac.to_string();
    found[5] = s.packet.target_mac.to_string();
    found[17] = s.packet.outer.map(|outer| outer.vni.to_string()).unwrap_or_default();
    if let Content::Arp(arp) = &s.packet.content {
        found[18] = if arp.is_reply { "2" } else { "1" }.to_owned();
    }
    // By way of the document that programs get.
    let Some(point) = Point::of(s) else { return found };
    let point = serde_json::to_value(&point).unwrap();
    let text = |key: &str| point[key].as_str().unwrap().to_owned();
    let (source, source_port) =
        text("source").rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (target, target_port) =
        text("target").rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    (found[6], found[7]) = (source, target);
    (found[8], found[9]) = (point["ttl"].to_string(), format!("{:#06x}", point["id"].as_u64().unwrap()));
    (found[4], found[5]) = (text("source_mac"), text("target_mac"));
    match s.ip().unwrap().transport {
        Transport::Tcp(tcp) => {
            (found[10], found[11]) = (source_port, target_port);
            (found[12], found[13]) = (tcp.seq.to_string(), point["payload_len"].to_string());
        }
        Transport::Udp { .. } => (found[14], found[15]) = (source_port, target_port),
        Transport::Icmp { kind, .. } => found[16] = kind.to_string(),
        Transport::Other(_) => {}
    }
    found
}

/// Where tshark's reading is not ours. It gives every occurrence of a field: a packet in a tunnel is the second one, or of
/// what the tunnel alone has, the last.
fn differences(sightings: &[Sighting], lines: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    if sightings.len() != lines.len() {
        all.push(format!("{} packets, and tshark sees {}", sightings.len(), lines.len()));
    }
    for (s, line) in sightings.iter().zip(lines) {
        let theirs: Vec<&str> = line.split('\t').collect();
        let is_inner = s.packet.outer.is_some();
        for (n, mine) in ours(s).iter().enumerate() {
            let values: Vec<&str> = theirs.get(n).copied().unwrap_or("?").split(',').collect();
            // An inner packet that is no UDP, or no IP, leaves what the tunnel has alone in the field.
            let of_tunnel = ["udp.", "ip."].iter().any(|layer| FIELDS[n].starts_with(layer));
            let is_outer_only = is_inner && of_tunnel && values.len() == 1;
            let value = match values.as_slice() {
                _ if is_outer_only => "",
                [_, second, ..] if is_inner => second,
                [first, ..] => first,
                [] => "",
            };
            if value != mine {
                all.push(format!("{s}: {} is {mine:?}, and tshark says {line:?}", FIELDS[n]));
            }
        }
    }
    all
}

#[test]
fn tshark_reads_every_packet_as_we_do() {
    let cluster = tunnelled();
    let recording = recorded(&cluster);
    let write = |part: &Recording| record::write(Vec::new(), &Heading::of(&cluster), part, |_| None).unwrap();
    let bytes = write(&recording);
    let again = record::read(&bytes).unwrap();
    assert!(again.sightings.len() >= PACKETS);
    let inner = again.sightings.iter().filter(|s| s.packet.outer.is_some()).count();
    assert!(inner > 100, "only {inner} packets in the tunnel");
    let found = differences(&again.sightings, &tshark(&bytes).unwrap());
    assert!(found.is_empty(), "{} differences, the first: {:?}", found.len(), found.first());

    // Whatever byte of a packet is another one, the two readings are no longer the same.
    let few = Recording {
        sightings: again.sightings.iter().filter(|s| s.packet.tcp().is_some()).take(20).cloned().collect(),
        interfaces: recording.interfaces,
        ..Recording::default()
    };
    let bytes = write(&few);
    let frame = few.sightings[7].frame.as_ref().unwrap().bytes.clone();
    let start = bytes.windows(frame.len()).position(|part| part == frame).unwrap();
    // MAC, identification, TTL, source, destination, ports, number.
    for at in [0, 6, 18, 22, 26, 33, 34, 36, 38] {
        let mut changed = bytes.clone();
        changed[start + at] ^= 0x01;
        assert!(!differences(&few.sightings, &tshark(&changed).unwrap()).is_empty(), "byte {at}");
    }
    assert!(differences(&few.sightings, &tshark(&bytes).unwrap()).is_empty());
    // And a file that is broken is broken for both.
    let cut = &bytes[..start + 8];
    assert!(tshark(cut).is_err() && pcapng::read(cut).is_err());
}

#[test]
fn sightings_are_joined_as_the_nonces_say() {
    let recording = recorded(&tunnelled());
    let mut identities = Identities::default();
    let (mut of_probe, mut of_packet) = (HashMap::new(), HashMap::new());
    let mut translated = 0;
    for s in &recording.sightings {
        let seen = identities.see(s);
        let Some(ip) = s.ip() else { continue };
        let before = seen.before.as_ref().and_then(|before| before.ip());
        translated += usize::from(before.is_some_and(|before| before.source != ip.source));
        // A packet that is sent again has another identification.
        let Some(nonce) = s.packet.nonce() else { continue };
        let probe = (nonce, ip.is_answer(), ip.id);
        let joined = *of_probe.entry(probe).or_insert(seen.id);
        assert_eq!(joined, seen.id, "{s}: one packet has two numbers");
        let sent = *of_packet.entry(seen.id).or_insert(probe);
        assert_eq!(sent, probe, "{s}: two packets have one number");
    }
    assert!(of_probe.len() > 100 && translated > 20, "{} packets, {translated} translated", of_probe.len());
}
