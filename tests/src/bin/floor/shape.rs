//! A rate limit both ways (linux/pkt_sched.h): a token bucket on the node's link, and what the pod sends redirected to an
//! ifb with another.

use anyhow::{Context, Result};

use crate::attach::{index, named_link};
use crate::message::{CREATE, Messages, Socket};
use crate::remove;

/// linux/rtnetlink.h.
const NEWQDISC: u16 = 36;
const NEWFILTER: u16 = 44;
/// TCA_KIND, TCA_OPTIONS.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// TCA_TBF_PARMS, TCA_TBF_BURST.
const TBF_PARMS: u16 = 1;
const TBF_BURST: u16 = 6;
/// TCA_U32_SEL, TCA_U32_ACT; TCA_ACT_KIND, TCA_ACT_OPTIONS; TCA_MIRRED_PARMS.
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
/// TC_H_ROOT, TC_H_INGRESS, and the handles of the two queues.
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const ROOT_HANDLE: u32 = 0x0001_0000;
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// TC_LINKLAYER_ETHERNET, TC_U32_TERMINAL, TC_ACT_STOLEN, TCA_EGRESS_REDIR.
const ETHERNET: u8 = 1;
const TERMINAL: u8 = 1;
const STOLEN: u32 = 4;
const EGRESS_REDIRECT: u32 = 1;
/// ETH_P_ALL in network byte order, with priority 1 before it.
const EVERY_PROTOCOL: u32 = 1 << 16 | 3u16.to_be() as u32;
/// 100 Mbit/s, a burst of 10 Mbit, and as much again that waits; in bytes.
const RATE: u32 = 100_000_000 / 8;
const BURST: u32 = 10_000_000 / 8;

/// `struct tcmsg`.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let words = [0, index, handle, parent, info];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn put_bucket(messages: &mut Messages, index: u32) {
    messages.put(NEWQDISC, CREATE, &header(index, ROOT_HANDLE, ROOT, 0), |m| {
        m.text(KIND, "tbf");
        m.nest(OPTIONS, |m| {
            // struct tc_tbf_qopt: two of struct tc_ratespec, limit, buffer, mtu.
            let mut parms = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
            parms.extend_from_slice(&RATE.to_ne_bytes());
            parms.resize(24, 0);
            for word in [2 * BURST, BURST, 0] {
                parms.extend_from_slice(&word.to_ne_bytes());
            }
            m.attribute(TBF_PARMS, &parms);
            m.number(TBF_BURST, BURST);
        });
    });
}

fn put_redirect(messages: &mut Messages, from: u32, to: u32) {
    messages.put(NEWQDISC, CREATE, &header(from, INGRESS_HANDLE, INGRESS, 0), |m| m.text(KIND, "ingress"));
    messages.put(NEWFILTER, CREATE, &header(from, 0, INGRESS_HANDLE, EVERY_PROTOCOL), |m| {
        m.text(KIND, "u32");
        m.nest(OPTIONS, |m| {
            // struct tc_u32_sel with one key of which no bit counts.
            let mut selector = vec![TERMINAL, 0, 1];
            selector.resize(32, 0);
            m.attribute(U32_SEL, &selector);
            m.nest(U32_ACT, |m| {
                m.nest(1, |m| {
                    m.text(ACT_KIND, "mirred");
                    m.nest(ACT_OPTIONS, |m| {
                        // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
                        let words = [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to];
                        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                        m.attribute(MIRRED_PARMS, &bytes);
                    });
                });
            });
        });
    });
}

/// The ifb of a link of the node.
fn beside(host: &str) -> String {
    format!("i{}", host.get(1..).unwrap_or_default())
}

/// Limits what goes to a pod by its link on the node, and what comes from it.
pub(crate) fn add(host: &str) -> Result<()> {
    let socket = Socket::route(0)?;
    let ifb = beside(host);
    socket.send(named_link(&ifb, "ifb"), "create the ifb")?;
    let (near, other) = (index(host)?, index(&ifb)?);
    let mut messages = Messages::default();
    put_bucket(&mut messages, near);
    put_redirect(&mut messages, near, other);
    put_bucket(&mut messages, other);
    socket.send(messages, "limit the rates").context("shape")
}

/// Takes away what does not go with the link.
pub(crate) fn delete(host: &str) -> Result<()> {
    remove::complete(&beside(host))
}
