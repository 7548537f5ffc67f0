//! Traffic-control messages as the kernel wants them. Building only: nothing is sent here.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage};

use super::{Class, Filter, Kind, Qdisc, Tbf};
use crate::wire::{self, tca};

/// TC_LINKLAYER_ETHERNET
const ETHERNET: u8 = 1;
/// The version of htb's interface that every kernel asks for (`struct tc_htb_glob`).
const HTB_VERSION: u32 = 3;
/// What tc(8) tells as well; unused, as every class is given its quantum.
const RATE_TO_QUANTUM: u32 = 10;
/// Bytes that a class sends before it is another's turn: a tenth of its rate, which the kernel would take, is too
/// little for slow classes and too much for fast ones, and it complains of both.
const QUANTUM: u32 = 10_000;
/// TC_U32_TERMINAL: a packet that matches goes to the class.
const TERMINAL: u8 = 1;
/// TC_ACT_STOLEN: the packet goes on nowhere else.
const STOLEN: u32 = 4;
/// TCA_EGRESS_REDIR
const EGRESS_REDIRECT: u32 = 1;

/// A message that says which place on which link and nothing else.
pub(super) fn place(index: u32, parent: u32) -> TcMessage {
    message(index, 0, parent, 0)
}

fn message(index: u32, handle: u32, parent: u32, info: u32) -> TcMessage {
    let mut m = TcMessage::default();
    m.header = TcHeader {
        index: index as i32,
        handle: TcHandle::from(handle),
        parent: TcHandle::from(parent),
        info,
        ..TcHeader::default()
    };
    m
}

pub(super) fn qdisc(qdisc: &Qdisc) -> TcMessage {
    let mut m = message(qdisc.index, qdisc.handle, qdisc.parent, 0);
    m.attributes.push(TcAttribute::Kind(qdisc.kind.name().into()));
    let options = match &qdisc.kind {
        Kind::Tbf(tbf) => Some(tbf_options(tbf)),
        Kind::Htb { default } => {
            let glob = [HTB_VERSION, RATE_TO_QUANTUM, *default, 0, 0];
            Some(nest(&[DefaultNla::new(tca::HTB_INIT, words(&glob))]))
        }
        // Not a nest: `struct tc_fifo_qopt`.
        Kind::Bfifo { limit } | Kind::Pfifo { limit } => {
            Some(DefaultNla::new(tca::OPTIONS, limit.to_ne_bytes().to_vec()))
        }
        Kind::Ingress | Kind::Clsact | Kind::Other(_) => None,
    };
    m.attributes.extend(options.map(TcAttribute::Other));
    m
}

fn tbf_options(tbf: &Tbf) -> DefaultNla {
    let mut parms = rate_spec(tbf.rate);
    parms.extend([0; 12]); // no peak rate
    parms.extend(words(&[tbf.limit, tbf.buffer, 0]));
    let mut inner = vec![DefaultNla::new(tca::TBF_PARMS, parms)];
    inner.extend(rate64(tca::TBF_RATE64, tbf.rate));
    nest(&inner)
}

pub(super) fn class(class: &Class) -> TcMessage {
    let mut m = message(class.index, class.handle, class.parent, 0);
    let mut parms = rate_spec(class.rate);
    parms.extend(rate_spec(class.rate));
    // buffer, cbuffer, quantum, level, prio
    parms.extend(words(&[class.buffer, class.buffer, QUANTUM, 0, 0]));
    let mut inner = vec![DefaultNla::new(tca::HTB_PARMS, parms)];
    inner.extend(rate64(tca::HTB_RATE64, class.rate));
    inner.extend(rate64(tca::HTB_CEIL64, class.rate));
    m.attributes.push(TcAttribute::Kind("htb".into()));
    m.attributes.push(TcAttribute::Other(nest(&inner)));
    m
}

pub(super) fn filter(filter: &Filter) -> TcMessage {
    let info = u32::from(filter.priority) << 16 | u32::from(filter.protocol.to_be());
    let mut m = message(filter.index, 0, filter.parent, info);
    // u32 always looks at one word at least: of this one no bit counts.
    let all = [super::Word { offset: 0, mask: 0, value: 0 }];
    let keys = if filter.words.is_empty() { &all[..] } else { &filter.words };
    // struct tc_u32_sel
    let mut sel = vec![TERMINAL, 0, keys.len() as u8];
    sel.resize(16, 0);
    for key in keys {
        sel.extend(key.mask.to_be_bytes());
        sel.extend(key.value.to_be_bytes());
        sel.extend(key.offset.to_ne_bytes());
        sel.extend([0; 4]);
    }
    let mut inner = vec![
        DefaultNla::new(tca::U32_CLASSID, filter.class.to_ne_bytes().to_vec()),
        DefaultNla::new(tca::U32_SEL, sel),
    ];
    if let Some(link) = filter.redirect {
        // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex
        let mirred = words(&[0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, link]);
        let options = wire::nest(tca::ACT_OPTIONS, &[DefaultNla::new(tca::MIRRED_PARMS, mirred)]);
        let kind = DefaultNla::new(tca::ACT_KIND, b"mirred\0".to_vec());
        inner.push(wire::nest(tca::U32_ACT, &[wire::nest(1, &[kind, options])]));
    }
    m.attributes.push(TcAttribute::Kind("u32".into()));
    m.attributes.push(TcAttribute::Other(nest(&inner)));
    m
}

fn nest(inner: &[DefaultNla]) -> DefaultNla {
    wire::nest(tca::OPTIONS, inner)
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// `struct tc_ratespec`: cell_log, linklayer, overhead, cell_align, mpu, rate.
fn rate_spec(rate: u64) -> Vec<u8> {
    let mut spec = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    spec.extend(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    spec
}

/// A rate that the 32 bits of the structure do not hold goes into an attribute of its own as well.
fn rate64(kind: u16, rate: u64) -> Option<DefaultNla> {
    (rate > u64::from(u32::MAX)).then(|| DefaultNla::new(kind, rate.to_ne_bytes().to_vec()))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::tc::{INGRESS, PROTOCOL_ALL, PROTOCOL_IPV4, ROOT, Word, handle};
    use netlink_packet_core::Emitable;

    fn bytes(m: &TcMessage) -> Vec<u8> {
        let mut out = vec![0xee; m.buffer_len()];
        m.emit(&mut out);
        out
    }

    /// `struct tcmsg`: family, pads, ifindex, handle, parent, info.
    fn head(index: u8, handle: [u8; 4], parent: [u8; 4], info: [u8; 4]) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 0, index, 0, 0, 0];
        out.extend(handle);
        out.extend(parent);
        out.extend(info);
        out
    }

    #[test]
    fn tbf_has_rate_limit_and_buffer_and_a_wide_rate_where_needed() {
        let tbf = |rate| Qdisc {
            index: 3,
            handle: handle(1, 0),
            parent: ROOT,
            kind: Kind::Tbf(Tbf { rate, limit: 5000, buffer: 0x0102_0304 }),
        };
        let mut expected = head(3, [0, 0, 1, 0], [255; 4], [0; 4]);
        expected.extend([8, 0, 1, 0, b't', b'b', b'f', 0]); // TCA_KIND
        expected.extend([44, 0, 2, 0x80]); // TCA_OPTIONS
        expected.extend([40, 0, 1, 0]); // TCA_TBF_PARMS
        expected.extend([0, 1, 0, 0, 0, 0, 0, 0, 0x48, 0xe8, 1, 0]); // rate: 125000
        expected.extend([0; 12]); // peakrate
        expected.extend([0x88, 0x13, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0]); // limit, buffer, mtu
        assert_eq!(bytes(&qdisc(&tbf(125_000))), expected);

        let wide = bytes(&qdisc(&tbf(1 << 32)));
        assert_eq!(wide[44..48], [255; 4], "the structure's rate");
        assert_eq!(wide[72..], [12, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0], "TCA_TBF_RATE64");
    }

    #[test]
    fn ingress_qdisc_has_no_options() {
        let ingress = Qdisc { index: 3, handle: handle(0xffff, 0), parent: INGRESS, kind: Kind::Ingress };
        let mut expected = head(3, [0, 0, 255, 255], [0xf1, 255, 255, 255], [0; 4]);
        expected.extend([12, 0, 1, 0, b'i', b'n', b'g', b'r', b'e', b's', b's', 0]);
        assert_eq!(bytes(&qdisc(&ingress)), expected);
    }

    #[test]
    fn filter_that_redirects_everything_is_one_masked_out_word_and_mirred() {
        let all = Filter {
            index: 3,
            parent: handle(0xffff, 0),
            priority: 1,
            protocol: PROTOCOL_ALL,
            words: vec![],
            class: handle(1, 1),
            redirect: Some(9),
        };
        let mut expected = head(3, [0; 4], [0, 0, 255, 255], [0, 3, 1, 0]);
        expected.extend([8, 0, 1, 0, b'u', b'3', b'2', 0]); // TCA_KIND
        expected.extend([104, 0, 2, 0x80]); // TCA_OPTIONS
        expected.extend([8, 0, 1, 0, 1, 0, 1, 0]); // TCA_U32_CLASSID 1:1
        expected.extend([36, 0, 5, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // TCA_U32_SEL
        expected.extend([0; 16]);
        expected.extend([56, 0, 7, 0x80, 52, 0, 1, 0x80]); // TCA_U32_ACT, its first
        expected.extend([11, 0, 1, 0, b'm', b'i', b'r', b'r', b'e', b'd', 0, 0]); // TCA_ACT_KIND
        expected.extend([36, 0, 2, 0x80]); // TCA_ACT_OPTIONS
        expected.extend([32, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]); // TCA_MIRRED_PARMS
        expected.extend([0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(bytes(&filter(&all)), expected);
    }

    #[test]
    fn words_of_a_filter_are_in_network_order_and_their_offset_is_not() {
        let one = Filter {
            index: 3,
            parent: handle(1, 0),
            priority: 16,
            protocol: PROTOCOL_IPV4,
            words: vec![Word { offset: 16, mask: 0xff00_0000, value: 0x0a00_0000 }],
            class: handle(1, 1),
            redirect: None,
        };
        let all = bytes(&filter(&one));
        assert_eq!(all[16..20], [8, 0, 16, 0], "protocol in network order, priority");
        assert_eq!(all[all.len() - 16..], [255, 0, 0, 0, 10, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]);
    }
}
