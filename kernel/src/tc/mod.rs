//! Traffic control: queueing disciplines, classes and filters, as far as shaping a pod needs them (tc(8)).
//!
//! Kinds made here: tbf, htb with its classes, bfifo, pfifo, ingress, clsact, and u32 filters that match addresses and
//! send packets to a class or to another link. What else the kernel has is shown by its name only. Nothing here decides
//! a rate; numbers are the kernel's own (bytes per second, ticks of 64 ns).

mod build;
mod read;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::error::{Cause, Result};
use crate::rtnl::Rtnl;

/// TC_H_ROOT: the parent of a link's own qdisc.
pub const ROOT: u32 = 0xffff_ffff;
/// TC_H_INGRESS and TC_H_CLSACT: the parent of the qdisc that sees what comes in.
pub const INGRESS: u32 = 0xffff_fff1;
/// linux/if_ether.h, ETH_P_ALL.
pub const PROTOCOL_ALL: u16 = 0x0003;
/// linux/if_ether.h, ETH_P_IP.
pub const PROTOCOL_IPV4: u16 = 0x0800;
/// linux/if_ether.h, ETH_P_IPV6.
pub const PROTOCOL_IPV6: u16 = 0x86dd;

/// The number of `major:minor`, both hexadecimal in the words of tc(8).
pub const fn handle(major: u16, minor: u16) -> u32 {
    (major as u32) << 16 | minor as u32
}

/// Ticks (64 ns each, include/net/pkt_sched.h PSCHED_SHIFT) of a number of microseconds, as many as a message holds.
pub const fn ticks(micros: u64) -> u32 {
    let ticks = micros as u128 * 125 / 8;
    if ticks > u32::MAX as u128 { u32::MAX } else { ticks as u32 }
}

/// A queueing discipline on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// The link.
    pub index: u32,
    /// Its handle; the minor half is 0.
    pub handle: u32,
    /// [`ROOT`], [`INGRESS`], or the class that it is the leaf of.
    pub parent: u32,
    /// What it does.
    pub kind: Kind,
}

/// The kind of a qdisc, with what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A token bucket, tc-tbf(8).
    Tbf(Tbf),
    /// Classes of bandwidth, tc-htb(8); packets that no filter sends elsewhere go to class `default`, or past all
    /// classes when it is 0.
    Htb {
        /// Minor number of the default class.
        default: u32,
    },
    /// A queue of so many bytes.
    Bfifo {
        /// Bytes.
        limit: u32,
    },
    /// A queue of so many packets.
    Pfifo {
        /// Packets.
        limit: u32,
    },
    /// A place for filters on what comes in.
    Ingress,
    /// Places for filters on what comes in and what goes out.
    Clsact,
    /// Any other; it can be read, not made.
    Other(String),
}

impl Kind {
    /// The name that the kernel knows it by.
    pub fn name(&self) -> &str {
        match self {
            Kind::Tbf(_) => "tbf",
            Kind::Htb { .. } => "htb",
            Kind::Bfifo { .. } => "bfifo",
            Kind::Pfifo { .. } => "pfifo",
            Kind::Ingress => "ingress",
            Kind::Clsact => "clsact",
            Kind::Other(name) => name,
        }
    }
}

/// A token bucket (`struct tc_tbf_qopt`, linux/pkt_sched.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tbf {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may wait.
    pub limit: u32,
    /// The bucket's depth: ticks that it takes to fill at `rate`.
    pub buffer: u32,
}

/// A class of an htb (`struct tc_htb_opt`, linux/pkt_sched.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Class {
    /// The link.
    pub index: u32,
    /// Its own handle.
    pub handle: u32,
    /// The handle of the htb or of the class above.
    pub parent: u32,
    /// Bytes per second that it has, and that it can have at most.
    pub rate: u64,
    /// The depth of its bucket in ticks at `rate`.
    pub buffer: u32,
}

/// A u32 filter, tc-u32(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The link.
    pub index: u32,
    /// The qdisc or class that asks it.
    pub parent: u32,
    /// Filters are asked in the order of this number, which all of one protocol share.
    pub priority: u16,
    /// The EtherType of the packets it is asked about.
    pub protocol: u16,
    /// Words of the packet that must all be so; none is every packet.
    pub words: Vec<Word>,
    /// The class that packets go to.
    pub class: u32,
    /// The link that packets are sent out of instead (mirred, egress redirect).
    pub redirect: Option<u32>,
}

/// A word of a packet, counted from the network header, under a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Bytes from the start of the network header.
    pub offset: i32,
    /// The bits that count.
    pub mask: u32,
    /// Their value.
    pub value: u32,
}

/// Which address of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl Word {
    /// The words that hold `net` as the packet's source or destination; words of which no bit counts are left out,
    /// so a prefix of length 0 has none.
    pub fn of_net(net: IpNetwork, which: Address) -> Vec<Word> {
        let (start, bytes, mask) = match net {
            IpNetwork::V4(v4) => (12, v4.network().octets().to_vec(), v4.mask().octets().to_vec()),
            IpNetwork::V6(v6) => (8, v6.network().octets().to_vec(), v6.mask().octets().to_vec()),
        };
        let start = if which == Address::Destination { start + bytes.len() } else { start };
        let word = |b: &[u8]| b.iter().fold(0_u32, |all, &byte| all << 8 | u32::from(byte));
        let pairs = bytes.chunks(4).zip(mask.chunks(4)).enumerate();
        pairs
            .map(|(i, (value, mask))| Word {
                offset: (start + 4 * i) as i32,
                mask: word(mask),
                value: word(value),
            })
            .filter(|word| word.mask != 0)
            .collect()
    }
}

/// Adds a qdisc. `is_exists()` when its place is taken by one that was put there; `lacks()` when the kernel
/// lacks the kind.
pub fn add_qdisc(rtnl: &mut Rtnl, qdisc: &Qdisc) -> Result<()> {
    let (name, option) = match qdisc.kind {
        Kind::Tbf(_) => ("sch_tbf", "CONFIG_NET_SCH_TBF"),
        Kind::Htb { .. } => ("sch_htb", "CONFIG_NET_SCH_HTB"),
        Kind::Ingress | Kind::Clsact => ("sch_ingress", "CONFIG_NET_SCH_INGRESS"),
        Kind::Bfifo { .. } | Kind::Pfifo { .. } | Kind::Other(_) => {
            ("queueing disciplines", "CONFIG_NET_SCHED")
        }
    };
    rtnl.change(libc::RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &build::qdisc(qdisc))
        .map_err(|c| named(c, name, option))
        .map_err(|c| c.about(format!("add qdisc {} to link {}", qdisc.kind.name(), qdisc.index)))
}

/// What the kernel says about a kind that it has not and cannot load: ENOENT, while a link that is not there is ENODEV;
/// or EOPNOTSUPP, when it was built without traffic control.
fn named(cause: Cause, name: &'static str, option: &'static str) -> Cause {
    match cause {
        Cause::Os { errno: libc::ENOENT | libc::EOPNOTSUPP, .. } => {
            Cause::Lacks(format!("{name} ({option})"))
        }
        other => other,
    }
}

/// Deletes the qdisc at a place ([`ROOT`], [`INGRESS`], a class). `is_not_found()` or EINVAL when none was put there.
pub fn delete_qdisc(rtnl: &mut Rtnl, index: u32, parent: u32) -> Result<()> {
    rtnl.change(libc::RTM_DELQDISC, 0, &build::place(index, parent))
        .map_err(|c| c.about(format!("delete qdisc {parent:x} of link {index}")))
}

/// The qdiscs of a link that tc(8) shows.
pub fn qdiscs(rtnl: &mut Rtnl, index: u32) -> Result<Vec<Qdisc>> {
    rtnl.dump(libc::RTM_GETQDISC, &build::place(index, 0), |payload, all| {
        all.extend(read::qdisc(payload)?.filter(|qdisc| qdisc.index == index));
        Ok(())
    })
    .map_err(|c| c.about(format!("list qdiscs of link {index}")))
}

/// Adds a class to an htb.
pub fn add_class(rtnl: &mut Rtnl, class: &Class) -> Result<()> {
    rtnl.change(libc::RTM_NEWTCLASS, NLM_F_CREATE | NLM_F_EXCL, &build::class(class))
        .map_err(|c| c.about(format!("add class {:x} to link {}", class.handle, class.index)))
}

/// The htb classes of a link. `is_not_found()` when there is no such link.
pub fn classes(rtnl: &mut Rtnl, index: u32) -> Result<Vec<Class>> {
    rtnl.dump(libc::RTM_GETTCLASS, &build::place(index, 0), |payload, all| {
        all.extend(read::class(payload)?);
        Ok(())
    })
    .map_err(|c| c.about(format!("list classes of link {index}")))
}

/// Adds a u32 filter. `lacks()` when the kernel lacks u32 or mirred.
pub fn add_filter(rtnl: &mut Rtnl, filter: &Filter) -> Result<()> {
    rtnl.change(libc::RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &build::filter(filter))
        .map_err(|c| match &c {
            // Classifier and action are refused with one errno; only the sentence tells them apart.
            Cause::Os { kernel: Some(sentence), .. } if sentence.contains("action") => {
                named(c, "act_mirred", "CONFIG_NET_ACT_MIRRED")
            }
            _ => named(c, "cls_u32", "CONFIG_NET_CLS_U32"),
        })
        .map_err(|c| c.about(format!("add filter u32 to link {}", filter.index)))
}

/// The u32 filters that a qdisc of a link asks. `is_not_found()` when there is no such link.
pub fn filters(rtnl: &mut Rtnl, index: u32, parent: u32) -> Result<Vec<Filter>> {
    rtnl.dump(libc::RTM_GETTFILTER, &build::place(index, parent), |payload, all| {
        all.extend(read::filter(payload)?);
        Ok(())
    })
    .map_err(|c| c.about(format!("list filters of link {index}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_64_ns_and_stop_at_what_a_message_holds() {
        assert_eq!((ticks(0), ticks(1), ticks(8), ticks(1_000_000)), (0, 15, 125, 15_625_000));
        assert_eq!(
            (ticks(274_877_906), ticks(274_877_907), ticks(u64::MAX)),
            (4_294_967_281, u32::MAX, u32::MAX)
        );
    }

    #[test]
    fn a_prefix_is_the_words_of_which_bits_count() {
        let words = |net: &str, which| {
            let words = Word::of_net(net.parse().unwrap(), which);
            words
                .iter()
                .map(|w| format!("{:08x}/{:08x} at {}", w.value, w.mask, w.offset))
                .collect::<Vec<_>>()
        };
        assert_eq!(words("10.1.2.3/16", Address::Source), ["0a010000/ffff0000 at 12"]);
        assert_eq!(words("10.1.2.3/32", Address::Destination), ["0a010203/ffffffff at 16"]);
        assert_eq!(
            words("2001:db8:1::/36", Address::Source),
            ["20010db8/ffffffff at 8", "00000000/f0000000 at 12"]
        );
        assert_eq!(words("fd00::/8", Address::Destination), ["fd000000/ff000000 at 24"]);
        assert!(words("0.0.0.0/0", Address::Source).is_empty());
    }
}
