//! Expressions: what a rule does with a packet, step by step, over registers.
//!
//! One type for both directions. What this crate has no name for is kept as it came, so that a rule of another program
//! can be looked at without being understood whole. The numbers are those of linux/netfilter/nf_tables.h.

use std::fmt;

use super::attr::{self, Attrs};
use crate::error::Cause;
use crate::wire;

/// A register. There are four of 16 bytes and, over the same memory, sixteen of 4 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reg(pub(crate) u32);

impl Reg {
    /// The first register of 16 bytes.
    pub const R1: Reg = Reg(1);
    /// The second register of 16 bytes.
    pub const R2: Reg = Reg(2);
    /// The third register of 16 bytes.
    pub const R3: Reg = Reg(3);
    /// The fourth register of 16 bytes.
    pub const R4: Reg = Reg(4);

    /// The register of 4 bytes at position `n`, from 0 to 15; the first four are [`Reg::R1`]. Fields of a concatenation
    /// stand one behind the other, each padded to 4 bytes.
    pub const fn word(n: u32) -> Reg {
        // The kernel dumps every fourth by its older number, and so does `nft`.
        if n.is_multiple_of(4) { Reg(1 + n / 4) } else { Reg(8 + n) }
    }
}

/// Numbers with names; those without are kept.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident: $($(#[$item:meta])* $variant:ident = $value:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$item])* $variant,)*
            /// A number that has no name here.
            Other(u32),
        }

        impl $name {
            /// The kernel's number.
            pub const fn number(self) -> u32 {
                match self {
                    $($name::$variant => $value,)*
                    $name::Other(n) => n,
                }
            }

            pub(crate) const fn from_number(n: u32) -> Self {
                match n {
                    $($value => $name::$variant,)*
                    other => $name::Other(other),
                }
            }
        }
    };
}

numbers! {
    /// What `meta` reads or sets (`NFT_META_*`).
    Meta:
    /// EtherType of the packet.
    Protocol = 1,
    /// Firewall mark.
    Mark = 3,
    /// Index of the incoming link.
    Iif = 4,
    /// Index of the outgoing link.
    Oif = 5,
    /// Name of the incoming link, 16 bytes.
    IifName = 6,
    /// Name of the outgoing link, 16 bytes.
    OifName = 7,
    /// The packet is traced, one byte; see [`super::Tracer`].
    Trace = 12,
    /// IP version as a netfilter family, one byte.
    NfProto = 15,
    /// Transport protocol, one byte.
    L4Proto = 16,
    /// Name of the bridge of the incoming port, 16 bytes.
    BridgeIifName = 17,
    /// Name of the bridge of the outgoing port, 16 bytes.
    BridgeOifName = 18,
    /// Unicast, broadcast, multicast; one byte.
    PacketType = 19,
    /// Device group of the incoming link.
    IifGroup = 21,
}

numbers! {
    /// What `ct` reads or sets (`NFT_CT_*`).
    Ct:
    /// New, established and so on, as bits; see [`ct_state`].
    State = 0,
    /// Original or reply, one byte.
    Direction = 1,
    /// `IPS_*` bits.
    Status = 2,
    /// Connection mark.
    Mark = 3,
    /// Source address of a direction.
    Source = 8,
    /// Destination address of a direction.
    Destination = 9,
    /// Transport protocol, one byte.
    Protocol = 10,
    /// Source port of a direction.
    SourcePort = 11,
    /// Destination port of a direction.
    DestinationPort = 12,
    /// IPv4 source address of a direction.
    SourceIp4 = 19,
    /// IPv4 destination address of a direction.
    DestinationIp4 = 20,
    /// IPv6 source address of a direction.
    SourceIp6 = 21,
    /// IPv6 destination address of a direction.
    DestinationIp6 = 22,
}

/// Bits of [`Ct::State`].
pub mod ct_state {
    /// Cannot be followed.
    pub const INVALID: u32 = 1;
    /// Of a connection seen in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// Opens a connection that belongs to another.
    pub const RELATED: u32 = 4;
    /// Opens a connection.
    pub const NEW: u32 = 8;
}

/// `IPS_*` bits of [`Ct::Status`] (linux/netfilter/nf_conntrack_common.h).
pub mod ct_status {
    /// The source was rewritten.
    pub const SRC_NAT: u32 = 1 << 4;
    /// The destination was rewritten.
    pub const DST_NAT: u32 = 1 << 5;
}

numbers! {
    /// Where `payload` counts its offset from (`NFT_PAYLOAD_*`).
    Base:
    /// The link layer's header.
    Link = 0,
    /// The IP header.
    Network = 1,
    /// The TCP, UDP or SCTP header.
    Transport = 2,
}

numbers! {
    /// How `cmp` compares (`NFT_CMP_*`).
    Op:
    /// Equal.
    Eq = 0,
    /// Not equal.
    Neq = 1,
    /// Less.
    Lt = 2,
    /// Less or equal.
    Lte = 3,
    /// Greater.
    Gt = 4,
    /// Greater or equal.
    Gte = 5,
}

numbers! {
    /// What `fib` tells (`NFT_FIB_RESULT_*`).
    Fib:
    /// Index of the outgoing link.
    Oif = 1,
    /// Name of the outgoing link.
    OifName = 2,
    /// Kind of address: 2 is local (`RTN_LOCAL`).
    AddressType = 3,
}

/// Bits of [`Expr::Fib`]'s flags (`NFTA_FIB_F_*`).
pub mod fib_flag {
    /// Look the source up.
    pub const SADDR: u32 = 1;
    /// Look the destination up.
    pub const DADDR: u32 = 2;
    /// With the packet's mark.
    pub const MARK: u32 = 4;
    /// On the incoming link only.
    pub const IIF: u32 = 8;
    /// On the outgoing link only.
    pub const OIF: u32 = 16;
}

/// Bits of the flags of nat, masquerade and redirect (`NF_NAT_RANGE_*`).
pub mod nat_flag {
    /// A random port.
    pub const RANDOM: u32 = 4;
    /// The same address for one client.
    pub const PERSISTENT: u32 = 8;
    /// A fully random port.
    pub const FULLY_RANDOM: u32 = 16;
}

/// Where a packet goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this base chain.
    Accept,
    /// It is dropped.
    Drop,
    /// On with the next rule.
    Continue,
    /// Back to the chain that jumped.
    Return,
    /// To another chain, and back.
    Jump(String),
    /// To another chain, not back here.
    Goto(String),
    /// A number that has no name here.
    Other(u32),
}

impl Verdict {
    fn number(&self) -> u32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Continue => -1i32 as u32,
            Verdict::Jump(_) => -3i32 as u32,
            Verdict::Goto(_) => -4i32 as u32,
            Verdict::Return => -5i32 as u32,
            Verdict::Other(n) => *n,
        }
    }

    /// The chain it leads to.
    pub fn chain(&self) -> Option<&str> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            _ => None,
        }
    }

    /// As the content of NFTA_*_DATA.
    pub(crate) fn put(&self, data: &mut Attrs) {
        data.nest(2, |v| {
            v.u32(1, self.number());
            if let Some(chain) = self.chain() {
                v.text(2, chain);
            }
        });
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Verdict, Cause> {
        let (mut code, mut chain) = (None, None);
        wire::attributes(bytes, |kind, value| match kind {
            1 => code = attr::to_u32(value),
            2 => chain = Some(wire::to_text(value)),
            _ => {}
        })?;
        let code = code.ok_or_else(|| wire::malformed("a verdict without a code"))?;
        Ok(match (code as i32, chain) {
            (0, _) => Verdict::Drop,
            (1, _) => Verdict::Accept,
            (-1, _) => Verdict::Continue,
            (-3, Some(chain)) => Verdict::Jump(chain),
            (-4, Some(chain)) => Verdict::Goto(chain),
            (-5, _) => Verdict::Return,
            _ => Verdict::Other(code),
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Continue => f.write_str("continue"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
            Verdict::Other(n) => write!(f, "verdict {n}"),
        }
    }
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the kernel's own, by name")]
pub enum Expr {
    /// Loads something about the packet.
    Meta { key: Meta, dreg: Reg },
    /// Sets something about the packet.
    MetaSet { key: Meta, sreg: Reg },
    /// Loads something about the connection; addresses and ports need a direction (0 original, 1 reply).
    Ct { key: Ct, dreg: Reg, direction: Option<u8> },
    /// Sets something about the connection.
    CtSet { key: Ct, sreg: Reg },
    /// Loads bytes of the packet.
    Payload { base: Base, offset: u32, len: u32, dreg: Reg },
    /// Ends the rule unless the register compares so.
    Cmp { sreg: Reg, op: Op, data: Vec<u8> },
    /// Ends the rule unless the register is between two values, or when it is.
    Range { sreg: Reg, op: Op, from: Vec<u8>, to: Vec<u8> },
    /// `dreg = (sreg & mask) ^ xor`.
    Bitwise { sreg: Reg, dreg: Reg, mask: Vec<u8>, xor: Vec<u8> },
    /// Puts a value in a register.
    Immediate { dreg: Reg, data: Vec<u8> },
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// Ends the rule unless the register is in the set (or when it is); in a map, loads the value, or with
    /// `to_verdict` takes the verdict that it finds.
    Lookup { set: String, sreg: Reg, dreg: Option<Reg>, to_verdict: bool, invert: bool },
    /// Rewrites the destination.
    Dnat { family: u32, addr: Option<Reg>, port: Option<Reg>, flags: u32 },
    /// Rewrites the source.
    Snat { family: u32, addr: Option<Reg>, port: Option<Reg>, flags: u32 },
    /// Rewrites the source to the outgoing link's address.
    Masquerade { flags: u32 },
    /// Rewrites the destination to this machine.
    Redirect { port: Option<Reg>, flags: u32 },
    /// Asks the routing table.
    Fib { result: Fib, flags: u32, dreg: Reg },
    /// Loads `offset` and a number below `modulus`: the next one, or with `random` any.
    Numgen { dreg: Reg, modulus: u32, random: bool, offset: u32 },
    /// Puts the register into a dynamic set, or with `update` also starts its time anew. It ends the rule when the set
    /// takes no more.
    Dynset { set: String, key: Reg, update: bool },
    /// Counts packets and bytes.
    Counter { packets: u64, bytes: u64 },
    /// Ends the rule when there were more packets than so many in so many seconds.
    Limit { rate: u64, unit: u64, burst: u32 },
    /// Refuses the packet: type (`NFT_REJECT_*`) and code.
    Reject { kind: u32, code: u8 },
    /// A match of xtables through nft_compat.
    Match { name: String, revision: u32, info: Vec<u8> },
    /// A target of xtables through nft_compat.
    Target { name: String, revision: u32, info: Vec<u8> },
    /// Anything else, as it came: name and attributes.
    Other { name: String, data: Vec<u8> },
}

impl Expr {
    /// The name by which the kernel knows it.
    pub fn name(&self) -> &str {
        match self {
            Expr::Meta { .. } | Expr::MetaSet { .. } => "meta",
            Expr::Ct { .. } | Expr::CtSet { .. } => "ct",
            Expr::Payload { .. } => "payload",
            Expr::Cmp { .. } => "cmp",
            Expr::Range { .. } => "range",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
            Expr::Lookup { .. } => "lookup",
            Expr::Dnat { .. } | Expr::Snat { .. } => "nat",
            Expr::Masquerade { .. } => "masq",
            Expr::Redirect { .. } => "redir",
            Expr::Fib { .. } => "fib",
            Expr::Numgen { .. } => "numgen",
            Expr::Dynset { .. } => "dynset",
            Expr::Counter { .. } => "counter",
            Expr::Limit { .. } => "limit",
            Expr::Reject { .. } => "reject",
            Expr::Match { .. } => "match",
            Expr::Target { .. } => "target",
            Expr::Other { name, .. } => name,
        }
    }

    /// As one NFTA_LIST_ELEM of a rule's expressions.
    pub(crate) fn put(&self, list: &mut Attrs) {
        list.nest(1, |e| {
            e.text(1, self.name());
            e.nest(2, |d| self.put_data(d));
        });
    }

    fn put_data(&self, d: &mut Attrs) {
        // NFTA_DATA_VALUE within the attribute `kind`.
        let value = |d: &mut Attrs, kind: u16, bytes: &[u8]| {
            d.nest(kind, |v| {
                v.raw(1, bytes);
            });
        };
        match self {
            Expr::Meta { key, dreg } => _ = d.u32(1, dreg.0).u32(2, key.number()),
            Expr::MetaSet { key, sreg } => _ = d.u32(2, key.number()).u32(3, sreg.0),
            Expr::Ct { key, dreg, direction } => {
                d.u32(1, dreg.0).u32(2, key.number());
                if let Some(direction) = direction {
                    d.u8(3, *direction);
                }
            }
            Expr::CtSet { key, sreg } => _ = d.u32(2, key.number()).u32(4, sreg.0),
            Expr::Payload { base, offset, len, dreg } => {
                d.u32(1, dreg.0).u32(2, base.number()).u32(3, *offset).u32(4, *len);
            }
            Expr::Cmp { sreg, op, data } => {
                d.u32(1, sreg.0).u32(2, op.number());
                value(d, 3, data);
            }
            Expr::Range { sreg, op, from, to } => {
                d.u32(1, sreg.0).u32(2, op.number());
                value(d, 3, from);
                value(d, 4, to);
            }
            Expr::Bitwise { sreg, dreg, mask, xor } => {
                d.u32(1, sreg.0).u32(2, dreg.0).u32(3, mask.len() as u32);
                value(d, 4, mask);
                value(d, 5, xor);
            }
            Expr::Immediate { dreg, data } => {
                d.u32(1, dreg.0);
                value(d, 2, data);
            }
            Expr::Verdict(verdict) => _ = d.u32(1, 0).nest(2, |v| verdict.put(v)),
            Expr::Lookup { set, sreg, dreg, to_verdict, invert } => {
                d.text(1, set).u32(2, sreg.0);
                match dreg {
                    _ if *to_verdict => _ = d.u32(3, 0),
                    Some(dreg) => _ = d.u32(3, dreg.0),
                    None => {}
                }
                if *invert {
                    d.u32(5, 1);
                }
            }
            Expr::Dnat { family, addr, port, flags } => put_nat(d, 1, *family, *addr, *port, *flags),
            Expr::Snat { family, addr, port, flags } => put_nat(d, 0, *family, *addr, *port, *flags),
            Expr::Masquerade { flags } => {
                if *flags != 0 {
                    d.u32(1, *flags);
                }
            }
            Expr::Redirect { port, flags } => {
                if let Some(port) = port {
                    d.u32(1, port.0);
                }
                if *flags != 0 {
                    d.u32(3, *flags);
                }
            }
            Expr::Fib { result, flags, dreg } => {
                d.u32(1, dreg.0).u32(2, result.number()).u32(3, *flags);
            }
            Expr::Numgen { dreg, modulus, random, offset } => {
                d.u32(1, dreg.0).u32(2, *modulus).u32(3, u32::from(*random)).u32(4, *offset);
            }
            Expr::Dynset { set, key, update } => _ = d.text(1, set).u32(3, u32::from(*update)).u32(4, key.0),
            Expr::Counter { packets, bytes } => _ = d.u64(1, *bytes).u64(2, *packets),
            Expr::Limit { rate, unit, burst } => {
                d.u64(1, *rate).u64(2, *unit).u32(3, *burst).u32(4, 0).u32(5, 0);
            }
            Expr::Reject { kind, code } => _ = d.u32(1, *kind).u8(2, *code),
            Expr::Match { name, revision, info } | Expr::Target { name, revision, info } => {
                d.text(1, name).u32(2, *revision).raw(3, info);
            }
            Expr::Other { data, .. } => d.bytes.extend(data),
        }
    }
}

fn put_nat(d: &mut Attrs, kind: u32, family: u32, addr: Option<Reg>, port: Option<Reg>, flags: u32) {
    d.u32(1, kind).u32(2, family);
    if let Some(addr) = addr {
        d.u32(3, addr.0);
    }
    if let Some(port) = port {
        d.u32(5, port.0);
    }
    if flags != 0 {
        d.u32(7, flags);
    }
}
