//! The bytes of messages: literally, and as another implementation (the crate netlink-packet-netfilter) reads them.

use netlink_packet_core::{Emitable, ParseableParametrized};
use netlink_packet_netfilter::nftables::NfTablesMessage;

use super::*;
use crate::wire::Messages;

const TABLE: Table<'_> = Table::new(Family::Ip, "t");

#[cfg(target_endian = "little")]
#[test]
fn rule_is_its_expressions_in_order_and_its_comment() {
    let mut batch = Batch::new();
    batch.append(TABLE, "c", &Rule::new().l4proto(6).jump("d").comment("hi"));
    let mut expected = vec![
        188, 0, 0, 0, 6, 10, 1, 12, 0, 0, 0, 0, 0, 0, 0,
        0, // nlmsghdr: NEWRULE, REQUEST, CREATE, APPEND
        2, 0, 0, 0, // nfgenmsg: ip
        6, 0, 1, 0, b't', 0, 0, 0, // NFTA_RULE_TABLE
        6, 0, 2, 0, b'c', 0, 0, 0, // NFTA_RULE_CHAIN
    ];
    expected.extend([140, 0, 4, 0x80]); // NFTA_RULE_EXPRESSIONS
    expected.extend([36, 0, 1, 0x80, 9, 0, 1, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0]); // NFTA_LIST_ELEM, NAME
    expected.extend([20, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 16]); // DATA: DREG, KEY
    expected.extend([44, 0, 1, 0x80, 8, 0, 1, 0, b'c', b'm', b'p', 0]);
    expected.extend([32, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0]); // SREG, OP
    expected.extend([12, 0, 3, 0x80, 5, 0, 1, 0, 6, 0, 0, 0]); // NFTA_CMP_DATA, NFTA_DATA_VALUE
    expected.extend([56, 0, 1, 0x80, 14, 0, 1, 0]);
    expected.extend(*b"immediate\0\0\0");
    expected.extend([36, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0]); // DREG: the verdict
    expected.extend([24, 0, 2, 0x80, 20, 0, 2, 0x80]); // NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT
    expected.extend([8, 0, 1, 0, 255, 255, 255, 253, 6, 0, 2, 0, b'd', 0, 0, 0]); // NFT_JUMP, chain
    expected.extend([9, 0, 7, 0, 0, 3, b'h', b'i', 0, 0, 0, 0]); // NFTA_RULE_USERDATA
    assert_eq!(batch.bytes, expected);
}

/// Everything that the other implementation has types for: it reads our bytes and writes the same again.
#[test]
fn another_implementation_reads_our_messages_and_writes_the_same() {
    let hook = Hook { device: Some("eth0"), ..Hook::new(ChainKind::Filter, Point::Ingress, -5) };
    let netdev = Table::new(Family::Netdev, "n");
    let net = |text: &str| text.parse::<ipnetwork::IpNetwork>().unwrap();
    let rule = Rule::new()
        .nfproto([10, 0, 0, 1].into())
        .saddr(Op::Eq, net("10.1.0.0/16"))
        .daddr(Op::Neq, net("10.1.2.3/32"))
        .iifname(Op::Eq, "veth0")
        .mark(Op::Neq, 1, 0xff)
        .set_mark_bits(2)
        .in_set("s", true)
        .verdict_map("m")
        .return_()
        .comment("all of them");
    let key = [Type::InetProto, Type::InetService];
    let element = Element::key_of(&[&[6], &[0, 80]]).to_verdict(Verdict::Jump("d".into())).comment("x");
    let mut batch = Batch::new();
    batch
        .add_table(TABLE, Some("of ours"))
        .add_chain_with_comment(TABLE, "c", None, "regular")
        .add_chain(TABLE, "b", Some(&Hook::new(ChainKind::Nat, Point::Postrouting, priority::SRCNAT)))
        .add_chain(netdev, "i", Some(&hook))
        .add_set(TABLE, &Set { name: "s", key: &key, comment: Some("c"), ..Set::default() })
        .add_set(TABLE, &Set { name: "m", key: &key, value: Some(Value::Verdict), ..Set::default() })
        .add_elements(TABLE, "m", &[element.clone(), Element::key_of(&[&[17], &[0, 53]])])
        .append(TABLE, "c", &rule)
        .insert_after(TABLE, "c", 7, &Rule::new().nfproto([10, 0, 0, 1].into()).goto("d"))
        .delete_rule(TABLE, "c", 8)
        .flush_chain(TABLE, "c")
        .delete_elements(TABLE, "m", &[element])
        .delete_chain(TABLE, "c")
        .delete_set(TABLE, "m")
        .delete_table(TABLE);
    let mut seen = 0;
    for (m, (_, subject)) in Messages(&batch.bytes).zip(&batch.requests) {
        assert_eq!(m.kind >> 8, msg::SUBSYSTEM);
        let body = &m.payload[4..];
        let read = NfTablesMessage::parse_with_param(body, m.kind as u8)
            .unwrap_or_else(|e| panic!("{subject}: {e}"));
        assert_eq!(u8::from(read.message_type()), m.kind as u8);
        let shown = format!("{read:?}");
        assert!(!shown.contains("Other("), "{subject}: {shown}");
        let mut again = vec![0; read.buffer_len()];
        read.emit(&mut again);
        assert_eq!(again, body, "{subject}");
        seen += 1;
    }
    assert_eq!(seen, batch.len());
}

#[test]
fn expressions_are_read_as_they_were_written() {
    let (family, flags) = (2, nat_flag::RANDOM);
    let all = [
        Expr::Meta { key: Meta::L4Proto, dreg: Reg::R1 },
        Expr::MetaSet { key: Meta::Mark, sreg: Reg::R2 },
        Expr::Ct { key: Ct::State, dreg: Reg::R1, direction: None },
        Expr::Ct { key: Ct::DestinationPort, dreg: Reg::word(5), direction: Some(0) },
        Expr::CtSet { key: Ct::Mark, sreg: Reg::R1 },
        Expr::Payload { base: Base::Transport, offset: 2, len: 2, dreg: Reg::R1 },
        Expr::Cmp { sreg: Reg::R1, op: Op::Gte, data: vec![1, 2, 3] },
        Expr::Range { sreg: Reg::R1, op: Op::Neq, from: vec![0, 1], to: vec![0, 9] },
        Expr::Bitwise { sreg: Reg::R1, dreg: Reg::R2, mask: vec![255, 0], xor: vec![0, 1] },
        Expr::Immediate { dreg: Reg::R1, data: vec![9; 16] },
        Expr::Verdict(Verdict::Accept),
        Expr::Verdict(Verdict::Drop),
        Expr::Verdict(Verdict::Continue),
        Expr::Verdict(Verdict::Return),
        Expr::Verdict(Verdict::Jump("a".into())),
        Expr::Verdict(Verdict::Goto("b".into())),
        Expr::Lookup { set: "s".into(), sreg: Reg::R1, dreg: None, to_verdict: false, invert: true },
        Expr::Lookup {
            set: "s".into(),
            sreg: Reg::R1,
            dreg: Some(Reg::R2),
            to_verdict: false,
            invert: false,
        },
        Expr::Lookup { set: "s".into(), sreg: Reg::R1, dreg: None, to_verdict: true, invert: false },
        Expr::Dnat { family, addr: Some(Reg::R1), port: Some(Reg::R2), flags },
        Expr::Snat { family, addr: Some(Reg::R1), port: None, flags: 0 },
        Expr::Masquerade { flags },
        Expr::Redirect { port: Some(Reg::R1), flags: 0 },
        Expr::Fib { result: Fib::AddressType, flags: fib_flag::DADDR, dreg: Reg::R1 },
        Expr::Counter { packets: 3, bytes: 1 << 40 },
        Expr::Limit { rate: 10, unit: 60, burst: 5 },
        Expr::Reject { kind: 1, code: 0 },
        compat::comment_match("a comment"),
        Expr::Target { name: "MASQUERADE".into(), revision: 0, info: vec![0; 24] },
        Expr::Numgen { dreg: Reg::R1, modulus: 3, random: false, offset: 0 },
        Expr::Numgen { dreg: Reg::R2, modulus: 10, random: true, offset: 5 },
        Expr::Dynset { set: "s".into(), key: Reg::R1, update: true },
        Expr::Dynset { set: "s".into(), key: Reg::R3, update: false },
        Expr::Other { name: "hash".into(), data: vec![8, 0, 1, 0, 0, 0, 0, 1] },
    ];
    let rule = all.iter().cloned().fold(Rule::new(), Rule::expr);
    assert_eq!(decode::expressions(rule.expressions()).unwrap(), all);
    assert_eq!((Reg::word(0), Reg::word(4), Reg::word(1)), (Reg::R1, Reg::R2, Reg(9)));
}
