//! Routing policy rules: list, add, delete. Marks and actions other than a look into a table are read, not made.

use ipnetwork::IpNetwork;
use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAttribute, RuleHeader, RuleMessage};

use crate::error::{Cause, Result};
use crate::route::Family;
use crate::rtnl::Rtnl;
use crate::wire;

/// linux/fib_rules.h, `FRA_*`
mod fra {
    pub(super) const DST: u16 = 1;
    pub(super) const SRC: u16 = 2;
    pub(super) const IIFNAME: u16 = 3;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const FWMARK: u16 = 10;
    pub(super) const TABLE: u16 = 15;
    pub(super) const FWMASK: u16 = 16;
    pub(super) const OIFNAME: u16 = 17;
}

/// FR_ACT_TO_TBL: look in the table.
pub const ACTION_TABLE: u8 = 1;

/// A routing policy rule (RTM_NEWRULE, linux/fib_rules.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The IP version it is for.
    pub family: Family,
    /// Rules are asked in the order of this number.
    pub priority: u32,
    /// Source addresses it is for; None is all.
    pub src: Option<IpNetwork>,
    /// Destination addresses it is for; None is all.
    pub dst: Option<IpNetwork>,
    /// The name of the incoming link it is for.
    pub iif: Option<String>,
    /// The name of the outgoing link it is for.
    pub oif: Option<String>,
    /// Firewall mark and mask it is for.
    pub mark: Option<(u32, u32)>,
    /// What to do (`FR_ACT_*`); 1 is: look in `table`.
    pub action: u8,
    /// The table to look in.
    pub table: u32,
}

/// The rules of one family in the socket's namespace.
pub fn list(rtnl: &mut Rtnl, family: Family) -> Result<Vec<Rule>> {
    let mut query = RuleMessage::default();
    query.header.family = family.number();
    rtnl.dump(libc::RTM_GETRULE, &query, |payload, all| {
        all.extend(read(payload)?);
        Ok(())
    })
    .map_err(|c| c.about("list rules"))
}

/// Adds a rule by source, destination, incoming and outgoing link that has packets look in `table`; mark and other
/// actions are not sent. Priority 0 leaves the choice to the kernel, which takes the number before the first that is not
/// 0. `is_exists()` when there is the same one; one that differs in the priority only is another.
pub fn add(rtnl: &mut Rtnl, rule: &Rule) -> Result<()> {
    rtnl.change(libc::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &message(rule))
        .map_err(|c| c.about(format!("add rule {} to table {}", rule.priority, rule.table)))
}

/// Deletes the first rule with these properties, of any priority when that is 0. `is_not_found()` when there is none.
pub fn delete(rtnl: &mut Rtnl, rule: &Rule) -> Result<()> {
    rtnl.change(libc::RTM_DELRULE, 0, &message(rule))
        .map_err(|c| c.about(format!("delete rule {} to table {}", rule.priority, rule.table)))
}

fn message(rule: &Rule) -> RuleMessage {
    let mut m = RuleMessage::default();
    m.header.family = rule.family.number();
    m.header.action = rule.action.into();
    m.attributes = vec![RuleAttribute::Table(rule.table)];
    m.attributes.extend((rule.priority != 0).then_some(RuleAttribute::Priority(rule.priority)));
    m.attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    m.attributes.extend(rule.oif.clone().map(RuleAttribute::Oifname));
    if let Some(src) = rule.src {
        m.header.src_len = src.prefix();
        m.attributes.push(RuleAttribute::Source(src.ip()));
    }
    if let Some(dst) = rule.dst {
        m.header.dst_len = dst.prefix();
        m.attributes.push(RuleAttribute::Destination(dst.ip()));
    }
    m
}

fn read(payload: &[u8]) -> std::result::Result<Option<Rule>, Cause> {
    let header = RuleHeader::parse(payload).map_err(wire::malformed)?;
    let Some(family) = Family::from_number(header.family) else { return Ok(None) };
    let mut rule = Rule {
        family,
        priority: 0,
        src: None,
        dst: None,
        iif: None,
        oif: None,
        mark: None,
        action: header.action.into(),
        table: u32::from(header.table),
    };
    let (mut mark, mut mask, mut src, mut dst) = (None, None, None, None);
    wire::attributes(wire::after(payload, header.buffer_len()), |kind, value| match kind {
        fra::DST => dst = wire::to_ip(value),
        fra::SRC => src = wire::to_ip(value),
        fra::IIFNAME => rule.iif = Some(wire::to_text(value)),
        fra::OIFNAME => rule.oif = Some(wire::to_text(value)),
        fra::PRIORITY => rule.priority = wire::to_u32(value).unwrap_or(0),
        fra::FWMARK => mark = wire::to_u32(value),
        fra::FWMASK => mask = wire::to_u32(value),
        fra::TABLE => rule.table = wire::to_u32(value).unwrap_or(rule.table),
        _ => {}
    })?;
    let net = |ip: Option<_>, len| ip.map(|ip| IpNetwork::new(ip, len)).transpose().map_err(wire::malformed);
    rule.src = net(src, header.src_len)?;
    rule.dst = net(dst, header.dst_len)?;
    rule.mark = mark.map(|m| (m, mask.unwrap_or(u32::MAX)));
    Ok(Some(rule))
}
