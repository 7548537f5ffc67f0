//! What nf_tables did with the probe's packets, rule by rule, between the interfaces where they were seen.
//!
//! While a trace runs with `--hooks`, every namespace on the way has a table of ours whose only rules mark packets of the
//! probe's protocol from or to its ends for tracing. They are the first of all chains, change nothing in a packet, and go
//! with the trace; what a trace that was cut off has left goes with the next one, or with the lab.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use kernel::nft::{
    self, Batch, ChainInfo, ChainKind, Expr, Family, Hook, Op, Point, Rule, RuleInfo, Table, TraceEvent,
    TraceKind, Tracer, Verdict,
};
use kernel::{IpNetwork, Nfnl};
use serde::{Deserialize, Serialize};

use crate::cluster::Space;
use crate::packet::{Ip, Transport};
use crate::probe::Protocol;

/// The table that is ours.
const TABLE: Table<'_> = Table::new(Family::Inet, "podlab-trace");
/// Before connection tracking puts fragments together (-400).
const FIRST: i32 = -450;
/// The hooks by the kernel's number (`NF_INET_*`, linux/netfilter.h).
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// One thing that a chain did with a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStep {
    /// The namespace.
    pub space: String,
    /// `prerouting`, `input`, `forward`, `output` or `postrouting`.
    pub hook: String,
    /// `ip filter`, `inet fw`.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle; None where a policy or the end of a chain decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
    /// The rule's comment, or else what its last expression is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `accept`, `drop`, `continue`, `jump svc-1`, `policy accept`, `return`.
    pub verdict: String,
}

impl HookStep {
    /// The packet went no further.
    pub fn is_drop(&self) -> bool {
        matches!(self.verdict.as_str(), "drop" | "policy drop") || self.rule.as_deref() == Some("reject")
    }

    /// It is before the packet leaves, not after it came.
    pub fn is_outward(&self) -> bool {
        matches!(self.hook.as_str(), "output" | "postrouting")
    }

    /// `forward inet fw forward, rule 5 (no guests): drop`
    pub fn words(&self) -> String {
        let rule = match (&self.handle, &self.rule) {
            (Some(handle), Some(rule)) => format!(", rule {handle} ({rule})"),
            (Some(handle), None) => format!(", rule {handle}"),
            (None, _) => String::new(),
        };
        format!("{} {} {}{rule}: {}", self.hook, self.table, self.chain, self.verdict)
    }
}

/// What tells the packets of a probe apart in headers alone: version, protocol, IP identification, and what of the transport
/// header no rewriting changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    id: Option<u16>,
    protocol: u8,
    numbers: (u32, u32),
}

impl Mark {
    pub(super) fn of(ip: &Ip) -> Mark {
        let (protocol, numbers) = match ip.transport {
            Transport::Tcp(tcp) => (6, (tcp.seq, tcp.ack)),
            Transport::Udp { .. } => (17, (0, 0)),
            Transport::Icmp { kind, seq, .. } => {
                (if ip.source.is_ipv4() { 1 } else { 58 }, (kind.into(), seq.into()))
            }
            Transport::Other(protocol) => (protocol, (0, 0)),
        };
        Mark { id: ip.id, protocol, numbers }
    }

    /// From the headers of an event; None when it has none.
    fn of_event(event: &TraceEvent) -> Option<Mark> {
        let (network, transport) = (&event.network_header, &event.transport_header);
        let word = |at: usize| {
            let four = transport.get(at..at + 4)?;
            Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
        };
        let is_v4 = network.first()? >> 4 == 4;
        let protocol = *network.get(if is_v4 { 9 } else { 6 })?;
        let id = if is_v4 { Some(u16::from_be_bytes([*network.get(4)?, *network.get(5)?])) } else { None };
        let numbers = match protocol {
            6 => (word(4)?, word(8)?),
            1 | 58 => (u32::from(*transport.first()?), word(4)? & 0xffff),
            _ => (0, 0),
        };
        Some(Mark { id, protocol, numbers })
    }
}

/// Namespaces that are watched. The tables go when it is dropped.
pub(super) struct Watch {
    spaces: Vec<Watched>,
}

struct Watched {
    name: String,
    tracer: Tracer,
    nfnl: Nfnl,
}

/// What a watch saw: steps with the packet that they are of.
#[derive(Debug, Default)]
pub(super) struct Watching {
    pub(super) steps: Vec<(Mark, HookStep)>,
    /// Namespaces of which the kernel could not tell everything.
    pub(super) gaps: Vec<String>,
}

impl Watch {
    /// Watches packets of a protocol from or to these addresses.
    ///
    /// # Errors
    /// A namespace whose nf_tables cannot be changed or heard.
    pub(super) fn start<'c>(
        spaces: impl IntoIterator<Item = &'c Space>,
        protocol: Protocol,
        ends: &[IpAddr],
    ) -> Result<Watch> {
        let mut watch = Watch { spaces: Vec::new() };
        for space in spaces {
            let context = || format!("watch nf_tables in {}", space.name);
            let tracer = Tracer::open_in(&space.netns).with_context(context)?;
            let nfnl = Nfnl::open_in(&space.netns).with_context(context)?;
            // From here on the table goes when the watch does.
            watch.spaces.push(Watched { name: space.name.clone(), tracer, nfnl });
            if let Some(watched) = watch.spaces.last_mut() {
                mark(&mut watched.nfnl, protocol, ends).with_context(context)?;
            }
        }
        Ok(watch)
    }

    /// What was seen until now.
    pub(super) fn finish(mut self) -> Result<Watching> {
        let mut watching = Watching::default();
        for watched in &mut self.spaces {
            let events = match watched.tracer.events(Instant::now()) {
                Ok(events) => events,
                Err(_) => {
                    watching.gaps.push(watched.name.clone());
                    continue;
                }
            };
            let steps = steps(&watched.name, &mut watched.nfnl, &events);
            watching.steps.extend(steps.with_context(|| format!("read the rules of {}", watched.name))?);
        }
        Ok(watching)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for watched in &mut self.spaces {
            let mut batch = Batch::new();
            batch.delete_table(TABLE);
            // It may never have been made; what is left goes with the next trace or with the lab.
            let _ = watched.nfnl.commit(batch);
        }
    }
}

fn mark(nfnl: &mut Nfnl, protocol: Protocol, ends: &[IpAddr]) -> kernel::Result<()> {
    let mut batch = Batch::new();
    if nft::table(nfnl, TABLE)?.is_some() {
        batch.delete_table(TABLE);
    }
    batch.add_table(TABLE, Some("marks packets of podlab trace; goes with it"));
    for (chain, point) in [("prerouting", Point::Prerouting), ("output", Point::Output)] {
        batch.add_chain(TABLE, chain, Some(&Hook::new(ChainKind::Filter, point, FIRST)));
        for &end in ends {
            let net = IpNetwork::from(end);
            let rule = || Rule::new().nfproto(end).l4proto(protocol.number(kernel::Family::of(end)));
            batch.append(TABLE, chain, &rule().saddr(Op::Eq, net).set_trace());
            batch.append(TABLE, chain, &rule().daddr(Op::Eq, net).set_trace());
        }
    }
    nfnl.commit(batch)
}

/// Chains and rules of the tables that events name, each read once.
struct Rules<'n> {
    nfnl: &'n mut Nfnl,
    chains: HashMap<(Family, String), Vec<ChainInfo>>,
    rules: HashMap<(Family, String, String), Vec<RuleInfo>>,
}

impl Rules<'_> {
    /// The hook of a base chain.
    fn hook(&mut self, event: &TraceEvent) -> kernel::Result<Option<&'static str>> {
        let key = (event.family, event.table.clone());
        if !self.chains.contains_key(&key) {
            let all = nft::chains(self.nfnl, Table::new(event.family, &event.table))?;
            self.chains.insert(key.clone(), all);
        }
        let chain = self.chains.get(&key).and_then(|all| all.iter().find(|c| c.name == event.chain));
        let number = chain.and_then(|chain| chain.hook).map(|(number, _)| number as usize);
        Ok(number.and_then(|number| HOOKS.get(number).copied()))
    }

    /// The comment of the event's rule, or else what its last expression is called.
    fn words(&mut self, event: &TraceEvent) -> kernel::Result<Option<String>> {
        let Some(handle) = event.handle else { return Ok(None) };
        let key = (event.family, event.table.clone(), event.chain.clone());
        if !self.rules.contains_key(&key) {
            let all = nft::rules(self.nfnl, Table::new(event.family, &event.table), &event.chain)?;
            self.rules.insert(key.clone(), all);
        }
        let rule = self.rules.get(&key).and_then(|all| all.iter().find(|rule| rule.handle == handle));
        Ok(rule.and_then(|rule| {
            let last = rule.expressions.iter().rev().find(|e| !matches!(e, Expr::Verdict(_)));
            let reject = rule.expressions.iter().find(|e| matches!(e, Expr::Reject { .. }));
            let name = reject.or(last).map(|e| e.name().to_owned());
            if reject.is_some() { name } else { rule.comment().map(str::to_owned).or(name) }
        }))
    }
}

fn steps(space: &str, nfnl: &mut Nfnl, events: &[TraceEvent]) -> kernel::Result<Vec<(Mark, HookStep)>> {
    let mut rules = Rules { nfnl, chains: HashMap::new(), rules: HashMap::new() };
    let mut marks: HashMap<u32, Mark> = HashMap::new();
    let mut hooks: HashMap<u32, &'static str> = HashMap::new();
    let mut all = Vec::new();
    for event in events {
        // Headers come with the first event of each base chain, and so does the hook.
        if let Some(mark) = Mark::of_event(event) {
            marks.insert(event.id, mark);
        }
        if let Some(hook) = rules.hook(event)? {
            hooks.insert(event.id, hook);
        }
        let (Some(mark), Some(hook)) = (marks.get(&event.id), hooks.get(&event.id)) else { continue };
        if (event.family, event.table.as_str()) == (TABLE.family, TABLE.name) {
            continue;
        }
        let verdict = event.verdict.as_ref().map(word).unwrap_or_default();
        let verdict = match event.kind {
            TraceKind::Policy => format!("policy {verdict}"),
            TraceKind::Return => "return".to_owned(),
            TraceKind::Rule => verdict,
        };
        let step = HookStep {
            space: space.to_owned(),
            hook: (*hook).to_owned(),
            table: format!("{} {}", event.family, event.table),
            chain: event.chain.clone(),
            handle: event.handle,
            rule: rules.words(event)?,
            verdict,
        };
        all.push((*mark, step));
    }
    Ok(all)
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".into(),
        Verdict::Drop => "drop".into(),
        Verdict::Continue => "continue".into(),
        Verdict::Return => "return".into(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Other(number) => format!("verdict {number}"),
    }
}
