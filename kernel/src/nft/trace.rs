//! What nf_tables did with packets that a rule marked for tracing (`meta nftrace set 1`): one event for each rule that had
//! something to say, and for each policy and return (NFT_MSG_TRACE, linux/netfilter/nf_tables.h).
//!
//! Nothing is marked here. The kernel sends events only while somebody listens.

use std::time::Instant;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::attr;
use super::expr::Verdict;
use super::{Family, msg};
use crate::channel::Channel;
use crate::error::{Cause, Result};
use crate::netns::Netns;
use crate::wire;

/// linux/netfilter/nfnetlink.h, `NFNLGRP_NFTRACE`
const GROUP: u32 = 9;
/// `struct nfgenmsg`
const HEADER: usize = 4;
/// `NFT_MSG_TRACE`
const TRACE: u8 = 17;

/// `NFTA_TRACE_*`
mod nfta {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const HANDLE: u16 = 3;
    pub(super) const TYPE: u16 = 4;
    pub(super) const VERDICT: u16 = 5;
    pub(super) const ID: u16 = 6;
    pub(super) const NETWORK_HEADER: u16 = 8;
    pub(super) const TRANSPORT_HEADER: u16 = 9;
    pub(super) const IIF: u16 = 10;
    pub(super) const OIF: u16 = 12;
    pub(super) const POLICY: u16 = 16;
}

/// What an event tells of (`NFT_TRACETYPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceKind {
    /// A base chain was at its end, and its policy decided.
    Policy,
    /// A chain was at its end, and the packet went back.
    Return,
    /// A rule decided, or did something.
    Rule,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// The packet: the same number for all its events in a namespace.
    pub id: u32,
    /// The family of the table.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// What decided.
    pub kind: TraceKind,
    /// The handle of the rule.
    pub handle: Option<u64>,
    /// What became of the packet.
    pub verdict: Option<Verdict>,
    /// The link that it came in by.
    pub iif: Option<u32>,
    /// The link that it leaves by.
    pub oif: Option<u32>,
    /// Its network header, in the first event of a base chain.
    pub network_header: Vec<u8>,
    /// The beginning of what follows that.
    pub transport_header: Vec<u8>,
}

/// A listener to events of one namespace.
#[derive(Debug)]
pub struct Tracer {
    channel: Channel,
}

impl Tracer {
    /// Listens in `ns` from now on.
    pub fn open_in(ns: &Netns) -> Result<Tracer> {
        let open = || -> std::result::Result<Tracer, Cause> {
            let mut channel = Channel::open(NETLINK_NETFILTER)?;
            channel.join(GROUP)?;
            Ok(Tracer { channel })
        };
        ns.run(open)?.map_err(|c| c.about("listen to nf_tables traces"))
    }

    /// All events until `deadline`, which may be now: then those that wait. ENOBUFS says that some were lost.
    pub fn events(&mut self, deadline: Instant) -> Result<Vec<TraceEvent>> {
        let mut all = Vec::new();
        let mut unusable = Ok(());
        let mut read = |m: &wire::Message<'_>| {
            if m.kind == msg::kind(TRACE) && unusable.is_ok() {
                unusable = event(m.payload).map(|found| all.extend(found));
            }
        };
        let drained = loop {
            match self.channel.events(deadline, &mut read) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(cause) => break Err(cause),
            }
        };
        drained.and(unusable).map_err(|c| c.about("read nf_tables traces"))?;
        Ok(all)
    }
}

/// None for a family that has no tables.
fn event(payload: &[u8]) -> std::result::Result<Option<TraceEvent>, Cause> {
    let Some(family) = payload.first().copied().and_then(Family::from_number) else { return Ok(None) };
    let mut found = TraceEvent {
        id: 0,
        family,
        table: String::new(),
        chain: String::new(),
        kind: TraceKind::Rule,
        handle: None,
        verdict: None,
        iif: None,
        oif: None,
        network_header: Vec::new(),
        transport_header: Vec::new(),
    };
    let (mut verdict, mut policy) = (Ok(None), None);
    wire::attributes(wire::after(payload, HEADER), |kind, value| match kind {
        nfta::TABLE => found.table = wire::to_text(value),
        nfta::CHAIN => found.chain = wire::to_text(value),
        nfta::HANDLE => found.handle = attr::to_u64(value),
        nfta::TYPE => {
            found.kind = match attr::to_u32(value) {
                Some(1) => TraceKind::Policy,
                Some(2) => TraceKind::Return,
                _ => TraceKind::Rule,
            };
        }
        nfta::VERDICT => verdict = Verdict::read(value).map(Some),
        nfta::ID => found.id = attr::to_u32(value).unwrap_or(0),
        nfta::NETWORK_HEADER => found.network_header = value.to_vec(),
        nfta::TRANSPORT_HEADER => found.transport_header = value.to_vec(),
        nfta::IIF => found.iif = attr::to_u32(value),
        nfta::OIF => found.oif = attr::to_u32(value),
        nfta::POLICY => policy = attr::to_u32(value),
        _ => {}
    })?;
    found.verdict = verdict?.or(policy.map(|policy| match policy {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        other => Verdict::Other(other),
    }));
    Ok(Some(found))
}
