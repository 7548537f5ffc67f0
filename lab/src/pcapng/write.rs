//! Writing: each block is put together in memory and goes out whole.

use std::io::{self, Write};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Interface, MAGIC, NANOSECONDS, Name, Packet, Reception, Section, Statistics, block, option};

/// The longest value of an option or of a name.
const LONGEST: usize = u16::MAX as usize;

/// Writes a file, block by block.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    interfaces: u32,
    /// The block of the last packet; its room is used again.
    room: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// What the writer below says; so for all that follow.
    pub fn new(out: W, section: &Section) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, interfaces: 0, room: Vec::new() };
        let mut body = MAGIC.to_le_bytes().to_vec();
        // Version 1.0; the length of the section is not known.
        body.extend([1, 0, 0, 0]);
        body.extend((-1_i64).to_le_bytes());
        let mut options = Options::default();
        options.text(option::SECTION_HARDWARE, &section.hardware);
        options.text(option::SECTION_OS, &section.os);
        options.text(option::SECTION_APPLICATION, &section.application);
        options.text(option::COMMENT, &section.comment);
        writer.block(block::SECTION, &body, options)?;
        Ok(writer)
    }

    /// Describes an interface; its number.
    pub fn interface(&mut self, interface: &Interface) -> io::Result<u32> {
        let mut body = interface.link_type.to_le_bytes().to_vec();
        // Reserved; no limit to the bytes kept of a packet.
        body.extend([0; 6]);
        let mut options = Options::default();
        options.text(option::NAME, &interface.name);
        options.text(option::DESCRIPTION, &interface.description);
        for address in &interface.addresses {
            match address {
                IpNetwork::V4(net) => {
                    options.put(option::IPV4, &[net.ip().octets(), net.mask().octets()].concat());
                }
                IpNetwork::V6(net) => {
                    options.put(option::IPV6, &[&net.ip().octets()[..], &[net.prefix()]].concat());
                }
            }
        }
        if let Some(mac) = interface.mac {
            options.put(option::MAC, &mac.0);
        }
        options.put(option::RESOLUTION, &[NANOSECONDS]);
        self.block(block::INTERFACE, &body, options)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Tells what addresses are called.
    pub fn names(&mut self, names: &[Name]) -> io::Result<()> {
        let mut body = Vec::new();
        for Name { address, name } in names {
            let (kind, octets) = match address {
                IpAddr::V4(v4) => (1, v4.octets().to_vec()),
                IpAddr::V6(v6) => (2, v6.octets().to_vec()),
            };
            let value = [&octets[..], cut(name, LONGEST - 17).as_bytes(), &[0]].concat();
            put(&mut body, kind, &value);
        }
        // The end of the records.
        body.extend([0; 4]);
        self.block(block::NAMES, &body, Options::default())
    }

    /// Writes a packet, whose interface must have been described.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let block = &mut self.room;
        block.clear();
        block.extend(block::PACKET.to_le_bytes());
        // The length, as soon as it is known.
        block.extend([0; 4]);
        block.extend(packet.interface.to_le_bytes());
        block.extend(halves(packet.stamp_ns));
        block.extend((packet.bytes.len() as u32).to_le_bytes());
        block.extend(packet.original_len.to_le_bytes());
        block.extend(&packet.bytes[..]);
        block.resize(block.len().next_multiple_of(4), 0);
        let direction = match packet.outgoing {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        };
        let reception = match packet.reception {
            Reception::Unknown => 0,
            Reception::Unicast => 1,
            Reception::Multicast => 2,
            Reception::Broadcast => 3,
            Reception::Overheard => 4,
        };
        put(block, option::FLAGS, &u32::to_le_bytes(direction | reception << 2));
        if let Some(id) = packet.id {
            put(block, option::PACKET_ID, &id.to_le_bytes());
        }
        put_text(block, option::COMMENT, packet.comment.as_deref().unwrap_or_default());
        put(block, option::END, &[]);
        let len = (block.len() as u32 + 4).to_le_bytes();
        block[4..8].copy_from_slice(&len);
        block.extend(len);
        self.out.write_all(block)
    }

    /// Tells what was counted on an interface.
    pub fn statistics(&mut self, statistics: &Statistics) -> io::Result<()> {
        let mut body = statistics.interface.to_le_bytes().to_vec();
        body.extend(halves(statistics.stop_ns));
        let mut options = Options::default();
        options.put(option::START, &halves(statistics.start_ns));
        options.put(option::STOP, &halves(statistics.stop_ns));
        options.put(option::RECEIVED, &statistics.received.to_le_bytes());
        options.put(option::DROPPED, &statistics.dropped.to_le_bytes());
        options.put(option::DELIVERED, &statistics.delivered.to_le_bytes());
        options.text(option::COMMENT, statistics.comment.as_deref().unwrap_or_default());
        self.block(block::STATISTICS, &body, options)
    }

    /// What is buffered goes out.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the file; the writer below.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.out)
    }

    fn block(&mut self, kind: u32, body: &[u8], options: Options) -> io::Result<()> {
        let options = options.end();
        let len = (12 + body.len() + options.len()) as u32;
        let mut whole = Vec::with_capacity(len as usize);
        whole.extend(kind.to_le_bytes());
        whole.extend(len.to_le_bytes());
        whole.extend(body);
        whole.extend(options);
        whole.extend(len.to_le_bytes());
        self.out.write_all(&whole)
    }
}

/// A time or count in two words, the upper one first (section 4.3 of the draft).
fn halves(value: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((value >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(value as u32).to_le_bytes());
    bytes
}

/// The text, or as much of it as there is room for.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// Number, length and value, filled up to four bytes: an option or a name record.
fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(kind.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// As [`put`]; an empty text is no option.
fn put_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    if !text.is_empty() {
        put(out, kind, cut(text, LONGEST).as_bytes());
    }
}

#[derive(Default)]
struct Options(Vec<u8>);

impl Options {
    fn put(&mut self, kind: u16, value: &[u8]) {
        put(&mut self.0, kind, value);
    }

    fn text(&mut self, kind: u16, text: &str) {
        put_text(&mut self.0, kind, text);
    }

    fn end(mut self) -> Vec<u8> {
        if !self.0.is_empty() {
            self.put(option::END, &[]);
        }
        self.0
    }
}
