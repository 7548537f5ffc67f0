//! Rules: expressions put together from matches and statements that `nft` shows as one word each.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::attr::Attrs;
use super::expr::{Base, Ct, Expr, Fib, Meta, Op, Reg, Verdict, fib_flag};
use super::userdata::Userdata;
use crate::mac::Mac;

/// linux/rtnetlink.h, `RTN_LOCAL`
const LOCAL: u32 = 2;
/// linux/netfilter.h, `NFPROTO_IPV4` and `NFPROTO_IPV6`
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// linux/netfilter/nf_tables.h, `NFT_REJECT_ICMP_UNREACH`
const ICMP_UNREACHABLE: u32 = 0;
/// linux/icmp.h, `ICMP_PORT_UNREACH`
const PORT_UNREACHABLE: u8 = 3;

/// A rule to add: expressions in order, and what `nft` shows as its comment.
///
/// Addresses and ports say nothing by themselves about the protocol: in a table of family inet an address needs
/// [`Rule::nfproto`] before it, and a port needs [`Rule::l4proto`], or the rule reads other bytes than it means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    expressions: Attrs,
    pub(crate) userdata: Userdata,
}

impl Rule {
    /// A rule that does nothing yet.
    pub fn new() -> Rule {
        Rule::default()
    }

    pub(crate) fn expressions(&self) -> &[u8] {
        &self.expressions.bytes
    }

    /// The comment that `nft` shows, cut at 128 bytes.
    #[must_use]
    pub fn comment(self, text: &str) -> Rule {
        self.userdata(Userdata::comment(text))
    }

    /// What the kernel is to keep with the rule.
    #[must_use]
    pub fn userdata(mut self, userdata: Userdata) -> Rule {
        self.userdata = userdata;
        self
    }

    /// One more expression.
    #[must_use]
    pub fn expr(mut self, expr: Expr) -> Rule {
        expr.put(&mut self.expressions);
        self
    }

    fn cmp(self, op: Op, data: &[u8]) -> Rule {
        self.expr(Expr::Cmp { sreg: Reg::R1, op, data: data.to_vec() })
    }

    fn meta(self, key: Meta) -> Rule {
        self.expr(Expr::Meta { key, dreg: Reg::R1 })
    }

    fn payload(self, base: Base, offset: u32, len: u32) -> Rule {
        self.expr(Expr::Payload { base, offset, len, dreg: Reg::R1 })
    }

    fn masked(self, mask: &[u8]) -> Rule {
        let xor = vec![0; mask.len()];
        self.expr(Expr::Bitwise { sreg: Reg::R1, dreg: Reg::R1, mask: mask.to_vec(), xor })
    }

    /// The packet is of the IP version of `ip`.
    #[must_use]
    pub fn nfproto(self, ip: IpAddr) -> Rule {
        self.meta(Meta::NfProto).cmp(Op::Eq, &[if ip.is_ipv4() { IPV4 } else { IPV6 }])
    }

    /// The transport protocol: 6 TCP, 17 UDP, 132 SCTP.
    #[must_use]
    pub fn l4proto(self, protocol: u8) -> Rule {
        self.meta(Meta::L4Proto).cmp(Op::Eq, &[protocol])
    }

    /// Name of the incoming link.
    #[must_use]
    pub fn iifname(self, op: Op, name: &str) -> Rule {
        self.meta(Meta::IifName).cmp(op, &name_bytes(name))
    }

    /// Name of the outgoing link.
    #[must_use]
    pub fn oifname(self, op: Op, name: &str) -> Rule {
        self.meta(Meta::OifName).cmp(op, &name_bytes(name))
    }

    /// Device group of the incoming link ([`crate::link::Link::group`]), or another one.
    #[must_use]
    pub fn iifgroup(self, op: Op, group: u32) -> Rule {
        self.meta(Meta::IifGroup).cmp(op, &group.to_ne_bytes())
    }

    /// The way back to the source is not the link by which the packet came in (`fib saddr . iif oif 0`). What has no
    /// such way by its nature passes: a packet of `::` or 0.0.0.0 that asks for an address (nft_fib_ipv6.c,
    /// nft_fib_ipv4.c). For chains at prerouting, input and forward.
    #[must_use]
    pub fn came_another_way(self) -> Rule {
        let flags = fib_flag::SADDR | fib_flag::IIF;
        self.expr(Expr::Fib { result: Fib::Oif, flags, dreg: Reg::R1 }).cmp(Op::Eq, &[0; 4])
    }

    /// Source address within `net`, or not.
    #[must_use]
    pub fn saddr(self, op: Op, net: IpNetwork) -> Rule {
        let offset = if net.is_ipv4() { 12 } else { 8 };
        self.address(offset, op, net)
    }

    /// Destination address within `net`, or not.
    #[must_use]
    pub fn daddr(self, op: Op, net: IpNetwork) -> Rule {
        let offset = if net.is_ipv4() { 16 } else { 24 };
        self.address(offset, op, net)
    }

    fn address(self, offset: u32, op: Op, net: IpNetwork) -> Rule {
        let (network, mask) = (ip_bytes(net.network()), ip_bytes(net.mask()));
        let loaded = self.payload(Base::Network, offset, network.len() as u32);
        let whole = mask.iter().all(|&byte| byte == 0xff);
        let loaded = if whole { loaded } else { loaded.masked(&mask) };
        loaded.cmp(op, &network)
    }

    /// Source MAC of the frame.
    #[must_use]
    pub fn ether_saddr(self, op: Op, mac: Mac) -> Rule {
        self.payload(Base::Link, 6, 6).cmp(op, &mac.0)
    }

    /// Source port of TCP, UDP or SCTP.
    #[must_use]
    pub fn sport(self, op: Op, port: u16) -> Rule {
        self.payload(Base::Transport, 0, 2).cmp(op, &port.to_be_bytes())
    }

    /// Destination port of TCP, UDP or SCTP.
    #[must_use]
    pub fn dport(self, op: Op, port: u16) -> Rule {
        self.payload(Base::Transport, 2, 2).cmp(op, &port.to_be_bytes())
    }

    /// The destination is an address of this machine (`fib daddr type local`), or is not.
    #[must_use]
    pub fn daddr_local(self, op: Op) -> Rule {
        self.expr(Expr::Fib { result: Fib::AddressType, flags: fib_flag::DADDR, dreg: Reg::R1 })
            .cmp(op, &LOCAL.to_ne_bytes())
    }

    /// The connection is in one of these states ([`super::ct_state`]).
    #[must_use]
    pub fn ct_state(self, bits: u32) -> Rule {
        self.ct_bits(Ct::State, bits)
    }

    /// The connection has one of these [`super::ct_status`] bits.
    #[must_use]
    pub fn ct_status(self, bits: u32) -> Rule {
        self.ct_bits(Ct::Status, bits)
    }

    /// The connection's mark has one of these bits.
    #[must_use]
    pub fn ct_mark(self, bits: u32) -> Rule {
        self.ct_bits(Ct::Mark, bits)
    }

    fn ct_bits(self, key: Ct, bits: u32) -> Rule {
        self.expr(Expr::Ct { key, dreg: Reg::R1, direction: None })
            .masked(&bits.to_ne_bytes())
            .cmp(Op::Neq, &[0; 4])
    }

    /// These bits of the packet's mark have this value.
    #[must_use]
    pub fn mark(self, op: Op, value: u32, mask: u32) -> Rule {
        let loaded = self.meta(Meta::Mark);
        let loaded = if mask == u32::MAX { loaded } else { loaded.masked(&mask.to_ne_bytes()) };
        loaded.cmp(op, &value.to_ne_bytes())
    }

    /// Has the packet traced from here on ([`super::Tracer`]).
    #[must_use]
    pub fn set_trace(self) -> Rule {
        self.expr(Expr::Immediate { dreg: Reg::R1, data: vec![1] })
            .expr(Expr::MetaSet { key: Meta::Trace, sreg: Reg::R1 })
    }

    /// Sets these bits of the packet's mark, and leaves the others.
    #[must_use]
    pub fn set_mark_bits(self, bits: u32) -> Rule {
        let (mask, xor) = ((!bits).to_ne_bytes().to_vec(), bits.to_ne_bytes().to_vec());
        self.meta(Meta::Mark)
            .expr(Expr::Bitwise { sreg: Reg::R1, dreg: Reg::R1, mask, xor })
            .expr(Expr::MetaSet { key: Meta::Mark, sreg: Reg::R1 })
    }

    /// What is in the first register is in the set, or is not.
    #[must_use]
    pub fn in_set(self, set: &str, invert: bool) -> Rule {
        self.expr(Expr::Lookup { set: set.into(), sreg: Reg::R1, dreg: None, to_verdict: false, invert })
    }

    /// Takes the verdict that the map holds for what is in the first register; none goes on.
    #[must_use]
    pub fn verdict_map(self, map: &str) -> Rule {
        self.expr(Expr::Lookup {
            set: map.into(),
            sreg: Reg::R1,
            dreg: None,
            to_verdict: true,
            invert: false,
        })
    }

    /// Takes turns: the first packet that gets here goes where `map` sends 0, the next where it sends 1, and so on
    /// below `modulus`. The keys of the map are four bytes in the host's order.
    #[must_use]
    pub fn in_turn(self, modulus: u32, map: &str) -> Rule {
        self.expr(Expr::Numgen { dreg: Reg::R1, modulus, random: false, offset: 0 }).verdict_map(map)
    }

    /// Keeps the IPv4 source in a dynamic set, for as long as the set keeps elements.
    #[must_use]
    pub fn remember_saddr(self, set: &str) -> Rule {
        self.payload(Base::Network, 12, 4).expr(Expr::Dynset { set: set.into(), key: Reg::R1, update: true })
    }

    /// Refuses the packet with an ICMP error (IPv4), which a client takes for a refused connection.
    #[must_use]
    pub fn reject(self) -> Rule {
        self.expr(Expr::Reject { kind: ICMP_UNREACHABLE, code: PORT_UNREACHABLE })
    }

    /// Counts what gets here.
    #[must_use]
    pub fn counter(self) -> Rule {
        self.expr(Expr::Counter { packets: 0, bytes: 0 })
    }

    /// Rewrites the source to the outgoing link's address.
    #[must_use]
    pub fn masquerade(self) -> Rule {
        self.expr(Expr::Masquerade { flags: 0 })
    }

    /// Rewrites destination address and port.
    #[must_use]
    pub fn dnat(self, to: IpAddr, port: Option<u16>) -> Rule {
        let (rule, family, addr, port) = self.nat_target(to, port);
        rule.expr(Expr::Dnat { family, addr, port, flags: 0 })
    }

    /// Rewrites source address and port.
    #[must_use]
    pub fn snat(self, to: IpAddr, port: Option<u16>) -> Rule {
        let (rule, family, addr, port) = self.nat_target(to, port);
        rule.expr(Expr::Snat { family, addr, port, flags: 0 })
    }

    fn nat_target(self, to: IpAddr, port: Option<u16>) -> (Rule, u32, Option<Reg>, Option<Reg>) {
        let mut rule = self.expr(Expr::Immediate { dreg: Reg::R1, data: ip_bytes(to) });
        if let Some(port) = port {
            rule = rule.expr(Expr::Immediate { dreg: Reg::R2, data: port.to_be_bytes().to_vec() });
        }
        let family = if to.is_ipv4() { IPV4 } else { IPV6 };
        (rule, u32::from(family), Some(Reg::R1), port.map(|_| Reg::R2))
    }

    /// Ends with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Rule {
        self.expr(Expr::Verdict(verdict))
    }

    /// Accepts the packet in this base chain.
    #[must_use]
    pub fn accept(self) -> Rule {
        self.verdict(Verdict::Accept)
    }

    /// Drops the packet.
    #[must_use]
    pub fn drop(self) -> Rule {
        self.verdict(Verdict::Drop)
    }

    /// Goes back to the chain that jumped.
    #[must_use]
    pub fn return_(self) -> Rule {
        self.verdict(Verdict::Return)
    }

    /// Goes on in another chain, then back.
    #[must_use]
    pub fn jump(self, chain: &str) -> Rule {
        self.verdict(Verdict::Jump(chain.into()))
    }

    /// Goes on in another chain.
    #[must_use]
    pub fn goto(self, chain: &str) -> Rule {
        self.verdict(Verdict::Goto(chain.into()))
    }
}

/// A link's name as registers hold it: 16 bytes, the rest NUL.
pub fn name_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// An address in network byte order.
pub fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
