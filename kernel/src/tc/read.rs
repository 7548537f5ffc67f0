//! Traffic-control messages as [`Qdisc`], [`Class`] and [`Filter`] values; what they do not hold is passed over.

use netlink_packet_core::Emitable;
use netlink_packet_route::tc::TcHeader;

use super::{Class, Filter, Kind, Qdisc, Tbf, Word};
use crate::error::Cause;
use crate::wire::{self, tca};

/// The parts of every traffic-control message.
struct Parts<'a> {
    header: TcHeader,
    kind: String,
    options: &'a [u8],
}

fn parts(payload: &[u8]) -> Result<Parts<'_>, Cause> {
    let header = TcHeader::parse(payload).map_err(wire::malformed)?;
    let (mut kind, mut options) = (String::new(), &[][..]);
    wire::attributes(wire::after(payload, header.buffer_len()), |attribute, value| match attribute {
        tca::KIND => kind = wire::to_text(value),
        tca::OPTIONS => options = value,
        _ => {}
    })?;
    Ok(Parts { header, kind, options })
}

/// Reads an RTM_NEWQDISC; None for a message without a kind.
pub(super) fn qdisc(payload: &[u8]) -> Result<Option<Qdisc>, Cause> {
    let Parts { header, kind, options } = parts(payload)?;
    if kind.is_empty() {
        return Ok(None);
    }
    let kind = match kind.as_str() {
        "tbf" => Kind::Tbf(tbf(options)?),
        "htb" => {
            let mut default = 0;
            wire::attributes(options, |attribute, value| {
                if attribute == tca::HTB_INIT {
                    default = word(value, 8);
                }
            })?;
            Kind::Htb { default }
        }
        "bfifo" => Kind::Bfifo { limit: word(options, 0) },
        "pfifo" => Kind::Pfifo { limit: word(options, 0) },
        "ingress" => Kind::Ingress,
        "clsact" => Kind::Clsact,
        _ => Kind::Other(kind),
    };
    let (handle, parent) = (header.handle.into(), header.parent.into());
    Ok(Some(Qdisc { index: header.index as u32, handle, parent, kind }))
}

fn tbf(options: &[u8]) -> Result<Tbf, Cause> {
    let mut tbf = Tbf::default();
    let mut wide = None;
    wire::attributes(options, |attribute, value| match attribute {
        tca::TBF_PARMS => {
            tbf = Tbf { rate: word(value, 8).into(), limit: word(value, 24), buffer: word(value, 28) };
        }
        tca::TBF_RATE64 => wide = wire::to_u64(value),
        _ => {}
    })?;
    tbf.rate = wide.unwrap_or(tbf.rate);
    Ok(tbf)
}

/// Reads an RTM_NEWTCLASS; None for a class of another qdisc than htb.
pub(super) fn class(payload: &[u8]) -> Result<Option<Class>, Cause> {
    let Parts { header, kind, options } = parts(payload)?;
    if kind != "htb" {
        return Ok(None);
    }
    let mut class = Class {
        index: header.index as u32,
        handle: header.handle.into(),
        parent: header.parent.into(),
        ..Class::default()
    };
    let mut wide = None;
    wire::attributes(options, |attribute, value| match attribute {
        tca::HTB_PARMS => {
            class.rate = word(value, 8).into();
            class.buffer = word(value, 24);
        }
        tca::HTB_RATE64 => wide = wire::to_u64(value),
        _ => {}
    })?;
    class.rate = wide.unwrap_or(class.rate);
    Ok(Some(class))
}

/// Reads an RTM_NEWTFILTER; None for another kind than u32 and for the hash tables that u32 shows among its filters.
pub(super) fn filter(payload: &[u8]) -> Result<Option<Filter>, Cause> {
    let Parts { header, kind, options } = parts(payload)?;
    let (mut class, mut words, mut actions) = (0, None, None);
    wire::attributes(options, |attribute, value| match attribute {
        tca::U32_CLASSID => class = word(value, 0),
        tca::U32_SEL => words = Some(wire::after(value, 16).chunks_exact(16).map(key).collect::<Vec<_>>()),
        tca::U32_ACT => actions = Some(value),
        _ => {}
    })?;
    let Some(mut words) = words.filter(|_| kind == "u32") else { return Ok(None) };
    words.retain(|word| word.mask != 0);
    let redirect = match actions {
        Some(actions) => redirect(actions)?,
        None => None,
    };
    Ok(Some(Filter {
        index: header.index as u32,
        parent: header.parent.into(),
        priority: (header.info >> 16) as u16,
        protocol: u16::from_be(header.info as u16),
        words,
        class,
        redirect,
    }))
}

/// `struct tc_u32_key`
fn key(bytes: &[u8]) -> Word {
    Word {
        mask: u32::from_be(word(bytes, 0)),
        value: u32::from_be(word(bytes, 4)),
        offset: word(bytes, 8) as i32,
    }
}

/// The link of the first mirred among a filter's actions.
fn redirect(actions: &[u8]) -> Result<Option<u32>, Cause> {
    let mut found = None;
    let mut inner = Vec::new();
    wire::attributes(actions, |_order, action| inner.push(action))?;
    for action in inner {
        let mut options = None;
        let mut mirred = false;
        wire::attributes(action, |attribute, value| match attribute {
            tca::ACT_KIND => mirred = wire::to_text(value) == "mirred",
            tca::ACT_OPTIONS => options = Some(value),
            _ => {}
        })?;
        let Some(options) = options.filter(|_| mirred && found.is_none()) else { continue };
        wire::attributes(options, |attribute, value| {
            if attribute == tca::MIRRED_PARMS {
                found = Some(word(value, 24));
            }
        })?;
    }
    Ok(found)
}

/// The 32 bits at `at`; 0 where the structure is shorter.
fn word(bytes: &[u8], at: usize) -> u32 {
    wire::to_u32(wire::after(bytes, at)).unwrap_or(0)
}
