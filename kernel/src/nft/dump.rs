//! What is there: tables, chains, rules of a chain, sets, elements.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use super::attr::{self, Attrs, Body};
use super::decode;
use super::expr::{Base, Expr, Op, Verdict};
use super::rule::Rule;
use super::set::{Data, Element, INTERVAL_END};
use super::userdata::Userdata;
use super::{Family, Table, msg};
use crate::error::{Cause, Result};
use crate::nfnl::Nfnl;
use crate::wire;

/// `struct nfgenmsg`
const HEADER: usize = 4;

/// A table that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// The number by which the kernel knows it, never used twice.
    pub handle: u64,
    /// How many chains, sets and the like are in it.
    pub used: u32,
    /// Comment and own records.
    pub userdata: Userdata,
}

impl TableInfo {
    /// Which table it is.
    pub fn table(&self) -> Table<'_> {
        Table::new(self.family, &self.name)
    }
}

/// A chain that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The number by which the kernel knows it.
    pub handle: u64,
    /// How many rules and jumps rely on it: 0 for an empty chain to which none jumps.
    pub used: u32,
    /// Hook number and priority of a base chain.
    pub hook: Option<(u32, i32)>,
    /// `filter`, `nat` or `route`, of a base chain.
    pub kind: Option<String>,
    /// Packets at the end of a base chain go on.
    pub accept: Option<bool>,
    /// Comment and own records.
    pub userdata: Userdata,
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// The number by which the kernel knows it.
    pub handle: u64,
    /// What it does.
    pub expressions: Vec<Expr>,
    /// Comment and own records.
    pub userdata: Userdata,
}

impl RuleInfo {
    /// The comment that `nft` shows.
    pub fn comment(&self) -> Option<&str> {
        self.userdata.text()
    }

    /// Whether it does just what `rule` would, whatever it has counted; user data are not compared.
    pub fn does(&self, rule: &Rule) -> bool {
        let Ok(mut wanted) = decode::expressions(rule.expressions()) else { return false };
        let mut found = self.expressions.clone();
        for expression in found.iter_mut().chain(&mut wanted) {
            if matches!(expression, Expr::Counter { .. }) {
                *expression = Expr::Counter { packets: 0, bytes: 0 };
            }
        }
        found == wanted
    }

    /// The source addresses that it is for, if it compares them with one address or prefix.
    pub fn source(&self) -> Option<IpNetwork> {
        self.address(12, 8)
    }

    /// The destination addresses that it is for, if it compares them with one address or prefix.
    pub fn destination(&self) -> Option<IpNetwork> {
        self.address(16, 24)
    }

    /// The network to which the address at this offset of the IPv4 or IPv6 header is compared.
    fn address(&self, v4: u32, v6: u32) -> Option<IpNetwork> {
        let mut rest = self.expressions.iter().skip_while(
            |e| !matches!(e, Expr::Payload { base: Base::Network, offset, .. } if *offset == v4 || *offset == v6),
        );
        let Some(Expr::Payload { offset, len, .. }) = rest.next() else { return None };
        let (mut mask, mut next) = (vec![0xff; *len as usize], rest.next()?);
        if let Expr::Bitwise { mask: m, .. } = next {
            (mask, next) = (m.clone(), rest.next()?);
        }
        let Expr::Cmp { op: Op::Eq, data, .. } = next else { return None };
        // `nft` loads no more bytes than the prefix has.
        let prefix = mask.iter().map(|byte| byte.count_ones() as u8).sum();
        let whole = |size: usize| [data.as_slice(), &vec![0; size.saturating_sub(data.len())]].concat();
        let size = if *offset == v4 && *len <= 4 { 4 } else { 16 };
        IpNetwork::new(wire::to_ip(&whole(size))?, prefix).ok()
    }

    /// The chain to which it leads, if it ends in a jump or goto.
    pub fn leads_to(&self) -> Option<&str> {
        self.expressions.iter().find_map(|e| match e {
            Expr::Verdict(verdict) => verdict.chain(),
            _ => None,
        })
    }
}

/// A set or map that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `NFT_SET_*` bits.
    pub flags: u32,
    /// `nft`'s number of the key's type.
    pub key_type: u32,
    /// Length of a key in bytes.
    pub key_len: u32,
    /// Records of `nft`'s, and the comment (type 7).
    pub userdata: Userdata,
}

/// Every table of a family, or of all.
pub fn tables(nfnl: &mut Nfnl, family: Option<Family>) -> Result<Vec<TableInfo>> {
    let query = Attrs::message(family.map_or(0, Family::number), 0);
    nfnl.dump(msg::kind(msg::GETTABLE), &Body(&query.bytes), |payload, all| {
        all.extend(read_table(payload)?);
        Ok(())
    })
    .map_err(|c| c.about("list tables"))
}

/// The table, if it is there.
pub fn table(nfnl: &mut Nfnl, table: Table<'_>) -> Result<Option<TableInfo>> {
    let mut query = table.attrs();
    query.text(1, table.name);
    match nfnl.get(msg::kind(msg::GETTABLE), &Body(&query.bytes), read_table) {
        Ok(found) => Ok(found),
        Err(Cause::Os { errno: libc::ENOENT, .. }) => Ok(None),
        Err(c) => Err(c.about(format!("find table {table}"))),
    }
}

fn read_table(payload: &[u8]) -> std::result::Result<Option<TableInfo>, Cause> {
    let Some(family) = payload.first().copied().and_then(Family::from_number) else { return Ok(None) };
    let mut found =
        TableInfo { family, name: String::new(), handle: 0, used: 0, userdata: Userdata::default() };
    wire::attributes(wire::after(payload, HEADER), |kind, value| match kind {
        1 => found.name = wire::to_text(value),
        3 => found.used = attr::to_u32(value).unwrap_or(0),
        4 => found.handle = attr::to_u64(value).unwrap_or(0),
        6 => found.userdata = Userdata::from_bytes(value),
        _ => {}
    })?;
    Ok(Some(found))
}

/// Every chain of a table; none when there is no such table.
pub fn chains(nfnl: &mut Nfnl, table: Table<'_>) -> Result<Vec<ChainInfo>> {
    nfnl.dump(msg::kind(msg::GETCHAIN), &Body(&table.attrs().bytes), |payload, all| {
        let chain = read_chain(payload)?;
        if chain.table == table.name {
            all.push(chain);
        }
        Ok(())
    })
    .map_err(|c| c.about(format!("list chains of table {table}")))
}

/// The chain, if it is there.
pub fn chain(nfnl: &mut Nfnl, table: Table<'_>, chain: &str) -> Result<Option<ChainInfo>> {
    let mut query = table.attrs();
    query.text(1, table.name).text(3, chain);
    match nfnl.get(msg::kind(msg::GETCHAIN), &Body(&query.bytes), read_chain) {
        Ok(found) => Ok(Some(found)),
        Err(Cause::Os { errno: libc::ENOENT, .. }) => Ok(None),
        Err(c) => Err(c.about(format!("find chain {table} {chain}"))),
    }
}

fn read_chain(payload: &[u8]) -> std::result::Result<ChainInfo, Cause> {
    let mut found = ChainInfo {
        table: String::new(),
        name: String::new(),
        handle: 0,
        used: 0,
        hook: None,
        kind: None,
        accept: None,
        userdata: Userdata::default(),
    };
    let mut hook = None;
    wire::attributes(wire::after(payload, HEADER), |kind, value| match kind {
        1 => found.table = wire::to_text(value),
        2 => found.handle = attr::to_u64(value).unwrap_or(0),
        3 => found.name = wire::to_text(value),
        4 => hook = Some(value),
        5 => found.accept = attr::to_u32(value).map(|policy| policy == 1),
        6 => found.used = attr::to_u32(value).unwrap_or(0),
        7 => found.kind = Some(wire::to_text(value)),
        12 => found.userdata = Userdata::from_bytes(value),
        _ => {}
    })?;
    if let Some(hook) = hook {
        let (mut number, mut priority) = (0, 0);
        wire::attributes(hook, |kind, value| match kind {
            1 => number = attr::to_u32(value).unwrap_or(0),
            2 => priority = attr::to_u32(value).unwrap_or(0) as i32,
            _ => {}
        })?;
        found.hook = Some((number, priority));
    }
    Ok(found)
}

/// Every rule of a chain, in order; none when there is no such table or chain.
pub fn rules(nfnl: &mut Nfnl, table: Table<'_>, chain: &str) -> Result<Vec<RuleInfo>> {
    rules_of(nfnl, table, chain, |_| true)
}

/// As [`rules`]; those whose user data `which` does not pick are without their expressions, which saves most of the
/// work in a long chain.
pub fn rules_of(
    nfnl: &mut Nfnl,
    table: Table<'_>,
    chain: &str,
    which: impl Fn(&Userdata) -> bool,
) -> Result<Vec<RuleInfo>> {
    let mut query = table.attrs();
    query.text(1, table.name).text(2, chain);
    nfnl.dump(msg::kind(msg::GETRULE), &Body(&query.bytes), |payload, all| {
        // A kernel that does not filter dumps every rule of the family.
        all.extend(read_rule(payload, table.name, Some(chain), &which)?.map(|(_, rule)| rule));
        Ok(())
    })
    .map_err(|c| c.about(format!("list rules of chain {table} {chain}")))
}

/// Handle and user data of every rule of a chain, in order: as [`rules`], without a look at what they do.
pub fn handles(nfnl: &mut Nfnl, table: Table<'_>, chain: &str) -> Result<Vec<(u64, Userdata)>> {
    let mut query = table.attrs();
    query.text(1, table.name).text(2, chain);
    nfnl.dump(msg::kind(msg::GETRULE), &Body(&query.bytes), |payload, all| {
        let (mut named, mut handle, mut userdata) = (0, 0, Userdata::new());
        wire::attributes(wire::after(payload, HEADER), |kind, value| match kind {
            1 => named += u32::from(wire::to_text(value) == table.name),
            2 => named += u32::from(wire::to_text(value) == chain),
            3 => handle = attr::to_u64(value).unwrap_or(0),
            7 => userdata = Userdata::from_bytes(value),
            _ => {}
        })?;
        if named == 2 {
            all.push((handle, userdata));
        }
        Ok(())
    })
    .map_err(|c| c.about(format!("list rules of chain {table} {chain}")))
}

/// Every rule of a table, in one pass: by chain, in order. A chain without rules has no entry.
pub fn rules_by_chain(nfnl: &mut Nfnl, table: Table<'_>) -> Result<BTreeMap<String, Vec<RuleInfo>>> {
    let mut query = table.attrs();
    query.text(1, table.name);
    let found = nfnl.dump(msg::kind(msg::GETRULE), &Body(&query.bytes), |payload, all| {
        // A kernel that does not filter dumps every rule of the family.
        all.extend(read_rule(payload, table.name, None, |_| true)?);
        Ok(())
    });
    let found = found.map_err(|c| c.about(format!("list rules of table {table}")))?;
    let mut chains: BTreeMap<String, Vec<RuleInfo>> = BTreeMap::new();
    for (chain, rule) in found {
        chains.entry(chain).or_default().push(rule);
    }
    Ok(chains)
}

/// A rule and its chain; None for one of another table, or of another chain than the one that is asked for.
fn read_rule(
    payload: &[u8],
    table: &str,
    chain: Option<&str>,
    which: impl Fn(&Userdata) -> bool,
) -> std::result::Result<Option<(String, RuleInfo)>, Cause> {
    let (mut is_of_table, mut name, mut list) = (false, String::new(), &[][..]);
    let mut found = RuleInfo { handle: 0, expressions: Vec::new(), userdata: Userdata::default() };
    wire::attributes(wire::after(payload, HEADER), |kind, value| match kind {
        1 => is_of_table = wire::to_text(value) == table,
        2 => name = wire::to_text(value),
        3 => found.handle = attr::to_u64(value).unwrap_or(0),
        4 => list = value,
        7 => found.userdata = Userdata::from_bytes(value),
        _ => {}
    })?;
    if !is_of_table || chain.is_some_and(|it| it != name) {
        return Ok(None);
    }
    if which(&found.userdata) {
        found.expressions = decode::expressions(list)?;
    }
    Ok(Some((name, found)))
}

/// Every set and map of a table; none when there is no such table.
pub fn sets(nfnl: &mut Nfnl, table: Table<'_>) -> Result<Vec<SetInfo>> {
    let mut query = table.attrs();
    query.text(1, table.name);
    let found = nfnl.dump(msg::kind(msg::GETSET), &Body(&query.bytes), |payload, all| {
        let set = read_set(payload)?;
        if set.table == table.name {
            all.push(set);
        }
        Ok(())
    });
    match found {
        Err(Cause::Os { errno: libc::ENOENT, .. }) => Ok(Vec::new()),
        other => other.map_err(|c| c.about(format!("list sets of table {table}"))),
    }
}

fn read_set(payload: &[u8]) -> std::result::Result<SetInfo, Cause> {
    let mut found = SetInfo {
        table: String::new(),
        name: String::new(),
        flags: 0,
        key_type: 0,
        key_len: 0,
        userdata: Userdata::default(),
    };
    wire::attributes(wire::after(payload, HEADER), |kind, value| match kind {
        1 => found.table = wire::to_text(value),
        2 => found.name = wire::to_text(value),
        3 => found.flags = attr::to_u32(value).unwrap_or(0),
        4 => found.key_type = attr::to_u32(value).unwrap_or(0),
        5 => found.key_len = attr::to_u32(value).unwrap_or(0),
        13 => found.userdata = Userdata::from_bytes(value),
        _ => {}
    })?;
    Ok(found)
}

/// Every element of a set or map; none when there is no such table or set.
pub fn elements(nfnl: &mut Nfnl, table: Table<'_>, set: &str) -> Result<Vec<Element>> {
    let mut query = table.attrs();
    query.text(1, table.name).text(2, set);
    let found = nfnl.dump(msg::kind(msg::GETSETELEM), &Body(&query.bytes), |payload, all| {
        let mut lists = Vec::new();
        wire::attributes(wire::after(payload, HEADER), |kind, value| {
            if kind == 3 {
                lists.push(value);
            }
        })?;
        for list in lists {
            let mut elements = Vec::new();
            wire::attributes(list, |_, value| elements.push(value))?;
            for element in elements {
                all.push(read_element(element)?);
            }
        }
        Ok(())
    });
    match found {
        Err(Cause::Os { errno: libc::ENOENT, .. }) => Ok(Vec::new()),
        other => other.map_err(|c| c.about(format!("list elements of set {table} {set}"))),
    }
}

fn read_element(bytes: &[u8]) -> std::result::Result<Element, Cause> {
    let (mut key, mut end, mut data) = (None, None, None);
    let mut found = Element::default();
    wire::attributes(bytes, |kind, value| match kind {
        1 => key = Some(value),
        2 => data = Some(value),
        3 => found.is_end = attr::to_u32(value).unwrap_or(0) & INTERVAL_END != 0,
        6 => found.userdata = Userdata::from_bytes(value),
        10 => end = Some(value),
        _ => {}
    })?;
    if let Some(Data::Value(value)) = key.map(read_data).transpose()? {
        found.key = value;
    }
    if let Some(Data::Value(value)) = end.map(read_data).transpose()? {
        found.key_end = Some(value);
    }
    found.data = data.map(read_data).transpose()?;
    Ok(found)
}

/// The content of an attribute of kind data: a value or a verdict.
fn read_data(bytes: &[u8]) -> std::result::Result<Data, Cause> {
    let mut found = None;
    wire::attributes(bytes, |kind, value| {
        found = match kind {
            1 => Some(Ok(Data::Value(value.to_vec()))),
            2 => Some(Verdict::read(value).map(Data::Verdict)),
            _ => return,
        };
    })?;
    found.unwrap_or_else(|| Ok(Data::Value(Vec::new())))
}
