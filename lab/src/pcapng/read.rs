//! Reading: a whole file or, of a broken one, nothing, with the offset and the reason.
//!
//! Takes either byte order and any resolution of time. Blocks and options that it does not know are passed over, as the
//! draft asks; what it knows must be right.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use kernel::Mac;

use super::{Interface, MAGIC, Name, Packet, Reception, Section, Statistics, block, option};

/// Longer than any block that a capture needs.
const LONGEST_BLOCK: usize = 16 * 1024 * 1024;

/// What is in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// What it is about.
    pub section: Section,
    /// The interfaces, by number.
    pub interfaces: Vec<Interface>,
    /// What addresses are called.
    pub names: Vec<Name>,
    /// The packets, as they stand in the file.
    pub packets: Vec<Packet<'static>>,
    /// What was counted.
    pub statistics: Vec<Statistics>,
}

/// The file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Where, in bytes from the beginning of the file.
    pub offset: usize,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pcapng, byte {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for Broken {}

/// How the times of an interface are to be read.
#[derive(Clone, Copy)]
struct Clock {
    /// Ticks in a second.
    per_second: u64,
    /// Seconds to add.
    offset: i64,
}

impl Clock {
    fn nanoseconds(self, ticks: u64) -> Option<u64> {
        let ns = i128::from(ticks) * 1_000_000_000 / i128::from(self.per_second);
        u64::try_from(ns + i128::from(self.offset) * 1_000_000_000).ok()
    }
}

/// Reads a file.
///
/// # Errors
/// What is wrong first, and where.
pub fn read(bytes: &[u8]) -> Result<File, Broken> {
    let head = Cursor { bytes, base: 0, at: 0, is_big: false };
    let mut rest = head;
    if rest.u32("the section's beginning")? != block::SECTION {
        return Err(head.broken("no section header: this is no pcapng file"));
    }
    rest.u32("the section's length")?;
    let magic = rest.take(4, "the byte-order magic")?;
    let is_big = match magic {
        m if m == MAGIC.to_le_bytes() => false,
        m if m == MAGIC.to_be_bytes() => true,
        _ => return Err(rest.broken_at(8, "the byte-order magic is neither way round")),
    };
    let mut reader = Reader { file: File::default(), clocks: Vec::new(), sections: 0 };
    let mut all = Cursor { is_big, ..head };
    while all.at < bytes.len() {
        let start = all;
        let kind = all.u32("a block's type")?;
        let len = all.u32("a block's length")? as usize;
        if len < 12 || !len.is_multiple_of(4) || len > LONGEST_BLOCK {
            return Err(start.broken(format!("a block of {len} bytes")));
        }
        let body_base = all.offset();
        let body = all.take(len - 12, "a block's body")?;
        if all.u32("a block's second length")? as usize != len {
            return Err(start.broken("the block's two lengths differ"));
        }
        reader.block(kind, start, Cursor { bytes: body, base: body_base, at: 0, is_big })?;
    }
    Ok(reader.file)
}

struct Reader {
    file: File,
    clocks: Vec<Clock>,
    sections: usize,
}

impl Reader {
    fn block(&mut self, kind: u32, start: Cursor<'_>, body: Cursor<'_>) -> Result<(), Broken> {
        match kind {
            block::SECTION => self.section(start, body),
            block::INTERFACE => self.interface(body),
            block::NAMES => self.names(body),
            block::PACKET => self.packet(start, body),
            block::STATISTICS => self.statistics(start, body),
            block::OLD_PACKET | block::SIMPLE_PACKET => Err(start
                .broken(format!("a packet in a block of type {kind}, which has no direction or no time"))),
            _ => Ok(()),
        }
    }

    fn section(&mut self, start: Cursor<'_>, mut body: Cursor<'_>) -> Result<(), Broken> {
        self.sections += 1;
        if self.sections > 1 {
            return Err(start.broken("a second section"));
        }
        body.take(4, "the byte-order magic")?;
        let version = (body.u16("the version")?, body.u16("the version")?);
        if version.0 != 1 {
            return Err(start.broken(format!("version {}.{}", version.0, version.1)));
        }
        body.take(8, "the section's length")?;
        let section = &mut self.file.section;
        body.options(|kind, value| {
            match kind {
                option::COMMENT => section.comment = value.text()?,
                option::SECTION_HARDWARE => section.hardware = value.text()?,
                option::SECTION_OS => section.os = value.text()?,
                option::SECTION_APPLICATION => section.application = value.text()?,
                _ => {}
            }
            Ok(())
        })
    }

    fn interface(&mut self, mut body: Cursor<'_>) -> Result<(), Broken> {
        let link_type = body.u16("the link type")?;
        body.take(6, "an interface's description")?;
        let mut found = Interface {
            name: String::new(),
            description: String::new(),
            link_type,
            mac: None,
            addresses: Vec::new(),
        };
        // Without the option, microseconds.
        let mut clock = Clock { per_second: 1_000_000, offset: 0 };
        body.options(|kind, mut value| {
            match kind {
                option::NAME => found.name = value.text()?,
                option::DESCRIPTION => found.description = value.text()?,
                option::IPV4 => {
                    let (ip, mask) = (Ipv4Addr::from(value.array()?), Ipv4Addr::from(value.array()?));
                    let net = Ipv4Network::with_netmask(ip, mask);
                    let net = net.map_err(|err| value.broken(format!("address {ip}, mask {mask}: {err}")))?;
                    found.addresses.push(IpNetwork::V4(net));
                }
                option::IPV6 => {
                    let (ip, [prefix]) = (Ipv6Addr::from(value.array::<16>()?), value.array()?);
                    let net = Ipv6Network::new(ip, prefix);
                    let net = net.map_err(|err| value.broken(format!("address {ip}/{prefix}: {err}")))?;
                    found.addresses.push(IpNetwork::V6(net));
                }
                option::MAC => found.mac = Some(Mac(value.array()?)),
                option::RESOLUTION => {
                    let [resolution] = value.array()?;
                    let power = u32::from(resolution & 0x7f);
                    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
                    let ticks = base.checked_pow(power);
                    clock.per_second =
                        ticks.ok_or_else(|| value.broken(format!("time resolution {resolution:#x}")))?;
                }
                option::OFFSET => clock.offset = value.u64()?.cast_signed(),
                _ => {}
            }
            Ok(())
        })?;
        self.file.interfaces.push(found);
        self.clocks.push(clock);
        Ok(())
    }

    fn names(&mut self, mut body: Cursor<'_>) -> Result<(), Broken> {
        loop {
            let (kind, mut value) = body.record("a name record")?;
            let address: IpAddr = match kind {
                0 => return body.options(|_, _| Ok(())),
                1 => Ipv4Addr::from(value.array()?).into(),
                2 => Ipv6Addr::from(value.array::<16>()?).into(),
                _ => continue,
            };
            let text = value.rest();
            for name in text.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
                let name = std::str::from_utf8(name);
                let name = name.map_err(|_| value.broken("a name that is no UTF-8"))?.to_owned();
                self.file.names.push(Name { address, name });
            }
        }
    }

    /// The interface of that number, and its clock.
    fn clock(&self, start: Cursor<'_>, interface: u32) -> Result<Clock, Broken> {
        let clock = self.clocks.get(interface as usize).copied();
        clock.ok_or_else(|| {
            start.broken(format!("interface {interface}, of {} described so far", self.clocks.len()))
        })
    }

    fn packet(&mut self, start: Cursor<'_>, mut body: Cursor<'_>) -> Result<(), Broken> {
        let interface = body.u32("a packet's interface")?;
        let clock = self.clock(start, interface)?;
        let stamp = body.halves("a packet's time")?;
        let kept = body.u32("a packet's length")? as usize;
        let original_len = body.u32("a packet's length on the wire")?;
        if kept > original_len as usize {
            return Err(start.broken(format!("{kept} bytes of a packet of {original_len}")));
        }
        let bytes = body.take(kept, "a packet's bytes")?.to_vec();
        body.align()?;
        let out_of_range = || start.broken(format!("time {stamp} is out of range"));
        let stamp_ns = clock.nanoseconds(stamp).ok_or_else(out_of_range)?;
        let mut found = Packet {
            interface,
            stamp_ns,
            original_len,
            bytes: bytes.into(),
            outgoing: None,
            reception: Reception::Unknown,
            id: None,
            comment: None,
        };
        body.options(|kind, mut value| {
            match kind {
                option::COMMENT => found.comment = Some(value.text()?.into()),
                option::FLAGS => {
                    let flags = value.u32("a packet's flags")?;
                    found.outgoing = match flags & 3 {
                        1 => Some(false),
                        2 => Some(true),
                        _ => None,
                    };
                    found.reception = match flags >> 2 & 7 {
                        1 => Reception::Unicast,
                        2 => Reception::Multicast,
                        3 => Reception::Broadcast,
                        4 => Reception::Overheard,
                        _ => Reception::Unknown,
                    };
                }
                option::PACKET_ID => found.id = Some(value.u64()?),
                _ => {}
            }
            Ok(())
        })?;
        self.file.packets.push(found);
        Ok(())
    }

    fn statistics(&mut self, start: Cursor<'_>, mut body: Cursor<'_>) -> Result<(), Broken> {
        let interface = body.u32("the interface of statistics")?;
        let clock = self.clock(start, interface)?;
        let stamp = body.halves("the time of statistics")?;
        let ns = |ticks: u64| {
            clock.nanoseconds(ticks).ok_or_else(|| start.broken(format!("time {ticks} is out of range")))
        };
        let mut found = Statistics { interface, stop_ns: ns(stamp)?, ..Statistics::default() };
        body.options(|kind, mut value| {
            match kind {
                option::COMMENT => found.comment = Some(value.text()?),
                option::START => found.start_ns = ns(value.halves("a time")?)?,
                option::STOP => found.stop_ns = ns(value.halves("a time")?)?,
                option::RECEIVED => found.received = value.u64()?,
                option::DROPPED => found.dropped = value.u64()?,
                option::DELIVERED => found.delivered = value.u64()?,
                _ => {}
            }
            Ok(())
        })?;
        self.file.statistics.push(found);
        Ok(())
    }
}

/// Bytes of the file and how far they have been read.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    /// Where they begin in the file.
    base: usize,
    at: usize,
    is_big: bool,
}

impl<'a> Cursor<'a> {
    fn offset(&self) -> usize {
        self.base + self.at
    }

    fn broken(&self, reason: impl Into<String>) -> Broken {
        Broken { offset: self.offset(), reason: reason.into() }
    }

    fn broken_at(&self, offset: usize, reason: &str) -> Broken {
        Broken { offset, reason: reason.into() }
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], Broken> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.broken(format!("{what} is cut off")))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// A value of a fixed length.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let taken = self.take(N, "a value")?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    fn u16(&mut self, what: &str) -> Result<u16, Broken> {
        let taken = self.take(2, what)?;
        let bytes = [taken[0], taken[1]];
        Ok(if self.is_big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self, what: &str) -> Result<u32, Broken> {
        let taken = self.take(4, what)?;
        let bytes = [taken[0], taken[1], taken[2], taken[3]];
        Ok(if self.is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u64(&mut self) -> Result<u64, Broken> {
        let bytes = self.array()?;
        Ok(if self.is_big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn halves(&mut self, what: &str) -> Result<u64, Broken> {
        Ok(u64::from(self.u32(what)?) << 32 | u64::from(self.u32(what)?))
    }

    fn text(&self) -> Result<String, Broken> {
        let text = std::str::from_utf8(self.rest()).map_err(|_| self.broken("a text that is no UTF-8"))?;
        Ok(text.trim_end_matches('\0').to_owned())
    }

    /// To the next multiple of four bytes.
    fn align(&mut self) -> Result<(), Broken> {
        self.take(self.at.next_multiple_of(4) - self.at, "the filling after a value").map(drop)
    }

    /// An option or a name record: its number and its value.
    fn record(&mut self, what: &str) -> Result<(u16, Cursor<'a>), Broken> {
        let kind = self.u16(what)?;
        let len = self.u16(what)?;
        let base = self.offset();
        let bytes = self.take(len.into(), what)?;
        self.align()?;
        Ok((kind, Cursor { bytes, base, at: 0, is_big: self.is_big }))
    }

    /// Every option to the end of the block; there need be none.
    fn options(&mut self, mut each: impl FnMut(u16, Cursor<'a>) -> Result<(), Broken>) -> Result<(), Broken> {
        while self.at < self.bytes.len() {
            let (kind, value) = self.record("an option")?;
            if kind == option::END {
                return Ok(());
            }
            each(kind, value)?;
        }
        Ok(())
    }
}
