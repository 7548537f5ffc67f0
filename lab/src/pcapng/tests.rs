//! The format against literal bytes of the draft, both ways, and against every damage of one byte or one cut.

use super::*;

fn section() -> Section {
    Section {
        hardware: "x86_64".into(),
        os: "Linux 6.18".into(),
        application: "podlab".into(),
        comment: "lab demo".into(),
    }
}

fn interface() -> Interface {
    Interface {
        name: "node1/eth0".into(),
        description: "node; veth".into(),
        link_type: ETHERNET,
        mac: Some(Mac([2, 0, 0, 1, 1, 2])),
        addresses: vec!["192.0.2.11/24".parse().unwrap(), "fd00::1/64".parse().unwrap()],
    }
}

fn packet() -> Packet<'static> {
    Packet {
        interface: 0,
        stamp_ns: 1_700_000_000_123_456_789,
        original_len: 60,
        bytes: (0..42).collect::<Vec<u8>>().into(),
        outgoing: Some(true),
        reception: Reception::Unicast,
        id: Some(7),
        comment: Some("packet 7, hop 3: TTL 64 > 63".into()),
    }
}

fn name() -> Name {
    Name { address: [10, 244, 1, 2].into(), name: "kubia-1".into() }
}

fn statistics() -> Statistics {
    Statistics {
        interface: 0,
        start_ns: 1_700_000_000_000_000_001,
        stop_ns: 1_700_000_001_000_000_002,
        received: 10,
        dropped: 1,
        delivered: 9,
        comment: Some("counted for node1 as a whole".into()),
    }
}

fn written() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &section()).unwrap();
    assert_eq!(writer.interface(&interface()).unwrap(), 0);
    writer.names(&[name()]).unwrap();
    writer.packet(&packet()).unwrap();
    writer.statistics(&statistics()).unwrap();
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let expected = File {
        section: section(),
        interfaces: vec![interface()],
        names: vec![name()],
        packets: vec![packet()],
        statistics: vec![statistics()],
    };
    assert_eq!(read(&written()).unwrap(), expected);
}

#[test]
fn packet_block_is_laid_out_as_in_the_draft() {
    let mut writer = Writer::new(Vec::new(), &Section::default()).unwrap();
    let start = 28;
    writer.interface(&Interface { addresses: Vec::new(), ..interface() }).unwrap();
    let small = Packet { bytes: vec![0xaa; 5].into(), comment: Some("hi".into()), ..packet() };
    writer.packet(&small).unwrap();
    let bytes = writer.finish().unwrap();
    let before = bytes.len() - 72;
    // Section header without options: type, length, magic, version 1.0, length unknown, length.
    let head = [
        0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 28, 0, 0, 0,
    ];
    assert_eq!(&bytes[..start], &head);
    let stamp = 1_700_000_000_123_456_789_u64;
    let mut expected = vec![6, 0, 0, 0, 72, 0, 0, 0, 0, 0, 0, 0];
    expected.extend(((stamp >> 32) as u32).to_le_bytes());
    expected.extend((stamp as u32).to_le_bytes());
    expected.extend([5, 0, 0, 0, 60, 0, 0, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0, 0]);
    // Flags: outbound (2), unicast (1 in bits 2 to 4). Identity. Comment. End of options.
    expected.extend([2, 0, 4, 0, 6, 0, 0, 0, 5, 0, 8, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([1, 0, 2, 0, b'h', b'i', 0, 0, 0, 0, 0, 0, 72, 0, 0, 0]);
    assert_eq!(&bytes[before..], &expected);
}

#[test]
fn the_other_byte_order_and_microseconds_are_read() {
    let mut bytes = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let len = (12 + body.len() as u32).to_be_bytes();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(len);
        bytes.extend(body);
        bytes.extend(len);
    };
    let version = [0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    block(block::SECTION, &[&MAGIC.to_be_bytes()[..], &version].concat());
    block(block::INTERFACE, &[0, 1, 0, 0, 0, 0, 0, 0]);
    // A block that nobody knows.
    block(0x0bad, &[1, 2, 3, 4]);
    let stamp = 1_700_000_000_123_456_u64.to_be_bytes();
    block(block::PACKET, &[&[0; 4][..], &stamp, &[0, 0, 0, 2, 0, 0, 0, 2, 9, 9, 0, 0]].concat());
    let file = read(&bytes).unwrap();
    let found = &file.packets[0];
    assert_eq!((found.stamp_ns, &found.bytes[..]), (1_700_000_000_123_456_000, &[9, 9][..]));
    assert_eq!((found.outgoing, found.id, file.interfaces[0].link_type), (None, None, ETHERNET));
}

#[test]
fn broken_files_are_refused_with_offset_and_reason() {
    let whole = written();
    let refused = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert_eq!(refused(b"GIF89a.."), "pcapng, byte 0: no section header: this is no pcapng file");
    assert_eq!(refused(&[]), "pcapng, byte 0: the section's beginning is cut off");
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        refused(&bytes)
    };
    assert_eq!(with(8, 0), "pcapng, byte 8: the byte-order magic is neither way round");
    assert_eq!(with(12, 2), "pcapng, byte 0: version 2.0");
    assert_eq!(with(4, 3), "pcapng, byte 0: a block of 3 bytes");
    let second = [whole.clone(), whole.clone()].concat();
    assert_eq!(refused(&second), format!("pcapng, byte {}: a second section", whole.len()));
    // A packet of an interface that was never described.
    let mut writer = Writer::new(Vec::new(), &Section::default()).unwrap();
    writer.packet(&packet()).unwrap();
    let bytes = writer.finish().unwrap();
    assert_eq!(refused(&bytes), "pcapng, byte 28: interface 0, of 0 described so far");
    // More bytes than the packet had.
    let mut writer = Writer::new(Vec::new(), &Section::default()).unwrap();
    writer.interface(&interface()).unwrap();
    writer.packet(&Packet { original_len: 5, ..packet() }).unwrap();
    assert!(refused(&writer.finish().unwrap()).ends_with("42 bytes of a packet of 5"));
}

#[test]
fn every_cut_is_refused_or_ends_between_two_blocks() {
    let whole = written();
    let mut between = 0;
    for len in 0..whole.len() {
        match read(&whole[..len]) {
            Ok(file) => {
                between += 1;
                assert!(file.packets.len() <= 1 && file.statistics.is_empty(), "cut at {len}");
            }
            Err(broken) => assert!(broken.offset <= len, "cut at {len}: {broken}"),
        }
    }
    // After the section, the interface, the names and the packet.
    assert_eq!(between, 4);
}

#[test]
fn no_byte_makes_the_reader_stumble() {
    let whole = written();
    for at in 0..whole.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            // Read or refused; both without a panic and within the file.
            if let Err(broken) = read(&bytes) {
                assert!(broken.offset <= bytes.len(), "byte {at} = {byte}: {broken}");
            }
        }
    }
}

#[test]
fn texts_longer_than_an_option_are_cut_between_letters() {
    let long = Packet { comment: Some("→".repeat(30_000).into()), ..packet() };
    let mut writer = Writer::new(Vec::new(), &Section::default()).unwrap();
    writer.interface(&interface()).unwrap();
    writer.packet(&long).unwrap();
    let file = read(&writer.finish().unwrap()).unwrap();
    assert_eq!(file.packets[0].comment, Some("→".repeat(65_535 / 3).into()));
}
