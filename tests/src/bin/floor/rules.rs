//! Masquerade and port mappings as one batch of set elements in a table that is there (linux/netfilter/nf_tables.h): no
//! rule is added per pod. The sets are `pods { type ipv4_addr }` and
//! `ports { type inet_proto . inet_service : ipv4_addr . inet_service }`.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

use crate::message::{CREATE_OR_CHANGE, Messages, Socket, WITH_ACK};

/// linux/netfilter/nfnetlink.h: NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NFTABLES: u16 = 10;
/// NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM.
const NEW_ELEMENT: u16 = NFTABLES << 8 | 12;
const DELETE_ELEMENT: u16 = NFTABLES << 8 | 14;
/// NFTA_SET_ELEM_LIST_TABLE, _SET, _ELEMENTS; NFTA_LIST_ELEM; NFTA_SET_ELEM_KEY, _DATA; NFTA_DATA_VALUE.
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
/// The first port of the node, and of the pod, that is mapped.
const HOST_PORT: u16 = 10000;
const POD_PORT: u16 = 80;
/// IPPROTO_TCP.
const TCP: u8 = 6;

/// Adds or deletes the elements that the command line's RULES names.
pub(crate) fn apply(rules: &str, add: bool) -> Result<()> {
    let (set, elements) = match rules.split_once('=') {
        Some(("masquerade", address)) => {
            let address: Ipv4Addr = address.parse().with_context(|| format!("address {address}"))?;
            ("pods", vec![(address.octets().to_vec(), None)])
        }
        Some(("ports", mappings)) => {
            let (count, address) = mappings.split_once('@').context("ports=COUNT@ADDRESS")?;
            let address: Ipv4Addr = address.parse().with_context(|| format!("address {address}"))?;
            let count: u16 = count.parse().with_context(|| format!("count {count}"))?;
            ("ports", (0..count).map(|i| mapping(address, i)).collect())
        }
        _ => bail!("no such rules: {rules}"),
    };
    // nfgenmsg: family, version, resource id in network byte order.
    let batch = [&[0, 0], &NFTABLES.to_be_bytes()[..]].concat();
    let mut messages = Messages::default();
    messages.put(BATCH_BEGIN, 0, &batch, |_| ());
    let (kind, flags) = if add { (NEW_ELEMENT, CREATE_OR_CHANGE) } else { (DELETE_ELEMENT, 0) };
    let header = [nix::libc::AF_INET as u8, 0, 0, 0];
    messages.put(kind, flags | WITH_ACK, &header, |m| {
        m.text(TABLE, "floor");
        m.text(SET, set);
        m.nest(ELEMENTS, |m| {
            for (key, data) in &elements {
                m.nest(ELEMENT, |m| {
                    m.nest(KEY, |m| m.attribute(VALUE, key));
                    if let (true, Some(data)) = (add, data) {
                        m.nest(DATA, |m| m.attribute(VALUE, data));
                    }
                });
            }
        });
    });
    messages.put(BATCH_END, 0, &batch, |_| ());
    Socket::netfilter()?.send_batch(&messages, "change the set")
}

/// The n-th mapping: protocol and port of the node, each in a field of four bytes; address and port of the pod.
fn mapping(address: Ipv4Addr, n: u16) -> (Vec<u8>, Option<Vec<u8>>) {
    let [a, b] = (HOST_PORT + n).to_be_bytes();
    let [c, d] = (POD_PORT + n).to_be_bytes();
    (vec![TCP, 0, 0, 0, a, b, 0, 0], Some([&address.octets()[..], &[c, d, 0, 0]].concat()))
}
