//! The kernel's table made equal to a program: at first the whole of it, later only what is other than before, each
//! time in one transaction, so that no packet sees half of a change.

mod elements;
mod look;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::BitOrAssign;
use std::sync::Arc;

use kernel::nft::{
    Batch, ChainKind, Family, Hook, Point, Set as NewSet, Table, Type, Value, Verdict, priority,
};
use kernel::{Nfnl, Result};

use super::Direction;
use super::program::{self, Line, Program, Set, TABLE, Target, Verdicts};
pub(super) use elements::rule;
use elements::{elements, pair, verdict};

/// The table.
pub const OURS: Table<'static> = Table::new(Family::Inet, TABLE);

/// What a change was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The table was made anew as a whole.
    pub whole: bool,
    /// How many messages it took; 0: everything was as it should be.
    pub messages: usize,
    /// Of whom connections that are there may be judged otherwise.
    pub anew: Anew,
}

/// The addresses of this node of which connections may be judged otherwise than before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Anew {
    /// None: new pods alone, or nothing that concerns one.
    #[default]
    Nobody,
    /// These.
    Of(BTreeSet<IpAddr>),
    /// All that there are, and those that were.
    Everybody,
}

impl BitOrAssign for Anew {
    fn bitor_assign(&mut self, other: Anew) {
        match (&mut *self, other) {
            (_, Anew::Nobody) | (Anew::Everybody, _) => {}
            (Anew::Of(mine), Anew::Of(others)) => mine.extend(others),
            (_, other) => *self = other,
        }
    }
}

/// The table as this process made it.
#[derive(Debug, Default)]
pub struct Kept {
    programmed: Option<Program>,
    /// The kernel's number of the table, never used twice.
    handle: u64,
    /// The ruleset's number after our last change or look, if nobody else changed anything meanwhile.
    generation: Option<u32>,
}

impl Kept {
    /// Nothing is known of what is there.
    pub fn new() -> Kept {
        Kept::default()
    }

    /// What is programmed.
    pub fn program(&self) -> Option<&Program> {
        self.programmed.as_ref()
    }

    /// The next change makes the whole table.
    pub fn distrust(&mut self) {
        self.programmed = None;
    }

    /// These addresses may be in no map by now: the plugin takes them out. The next change puts them in again.
    pub fn forget<'a>(&mut self, addresses: impl IntoIterator<Item = &'a IpAddr>) {
        if let Some(program) = &mut self.programmed {
            for address in addresses {
                program.pods.remove(address);
            }
        }
    }

    /// Makes the table equal to `program`. Where only the difference is asked of the kernel and it refuses that, since
    /// another program has changed the table, the whole table is made anew.
    ///
    /// # Errors
    /// The kernel refused the whole table; what was there stays.
    pub fn apply(&mut self, nfnl: &mut Nfnl, program: Program) -> Result<Applied> {
        if let Some(before) = &self.programmed {
            let (batch, anew) = (difference(before, &program), judged_anew(before, &program));
            let messages = batch.len();
            if batch.is_empty() {
                self.programmed = Some(program);
                return Ok(Applied::default());
            }
            let at = nfnl.generation()?;
            if nfnl.commit(batch).is_ok() {
                self.programmed = Some(program);
                self.note_generation(nfnl, at)?;
                return Ok(Applied { whole: false, messages, anew });
            }
        }
        self.programmed = None;
        let batch = whole(&program);
        let messages = batch.len();
        let at = nfnl.generation()?;
        nfnl.commit(batch)?;
        self.note_generation(nfnl, at)?;
        self.handle = kernel::nft::table(nfnl, OURS)?.map_or(0, |it| it.handle);
        self.programmed = Some(program);
        Ok(Applied { whole: true, messages, anew: Anew::Everybody })
    }

    /// Our change raised the number by one; more says that another program came between, and a look is due.
    fn note_generation(&mut self, nfnl: &mut Nfnl, before: u32) -> Result<()> {
        let now = nfnl.generation()?;
        self.generation = (before.checked_add(1) == Some(now)).then_some(now);
        Ok(())
    }
}

/// The batch that makes the whole table, whatever is there.
pub fn whole(program: &Program) -> Batch {
    let mut batch = Batch::new();
    batch.add_table(OURS, None).delete_table(OURS).add_table(OURS, Some("podnet: NetworkPolicy"));
    for ipv6 in [false, true] {
        let address = address_type(ipv6);
        for direction in Direction::ALL {
            let map = NewSet {
                name: program::map(direction, ipv6),
                key: &[address],
                value: Some(Value::Verdict),
                ..NewSet::default()
            };
            batch.add_set(OURS, &map);
        }
        let key = &[address, address];
        batch.add_set(OURS, &NewSet { name: program::itself(ipv6), key, ..NewSet::default() });
    }
    change(&mut batch, &Program::default(), program);
    batch
}

/// The batch that makes a table of `before` one of `after`.
pub fn difference(before: &Program, after: &Program) -> Batch {
    let mut batch = Batch::new();
    change(&mut batch, before, after);
    batch
}

fn change(batch: &mut Batch, before: &Program, after: &Program) {
    // What is to be named has to be there first: sets and chains, then elements and rules, then the pods' verdicts.
    for (name, set) in after.sets.iter().filter(|(name, _)| !before.sets.contains_key(*name)) {
        add_set(batch, name, set);
    }
    for (name, chain) in after.chains.iter().filter(|(name, _)| !before.chains.contains_key(*name)) {
        let hook = hook(name);
        batch.add_chain_with_comment(OURS, name, hook.as_ref(), &chain.about);
    }
    for (name, set) in &after.sets {
        let added = elements(set, before.sets.get(name));
        if !added.is_empty() {
            batch.add_elements(OURS, name, &added);
        }
    }
    for (name, chain) in &after.chains {
        match before.chains.get(name) {
            Some(there) if Arc::ptr_eq(there, chain) || there.lines == chain.lines => continue,
            Some(_) => _ = batch.flush_chain(OURS, name),
            None => {}
        }
        for line in &chain.lines {
            batch.append(OURS, name, &rule(line));
        }
    }
    change_pods(batch, before, after);
    for (name, set) in &before.sets {
        if let Some(now) = after.sets.get(name) {
            let gone = elements(set, Some(now));
            if !gone.is_empty() {
                batch.delete_elements(OURS, name, &gone);
            }
        }
    }
    let gone: Vec<_> = before.chains.keys().filter(|name| !after.chains.contains_key(*name)).collect();
    for name in &gone {
        batch.flush_chain(OURS, name);
    }
    for name in gone {
        batch.delete_chain(OURS, name);
    }
    for name in before.sets.keys().filter(|name| !after.sets.contains_key(*name)) {
        batch.delete_set(OURS, name);
    }
}

/// Elements of the pods' maps. The plugin takes them away by itself when a pod goes, so each is added once more, which
/// changes nothing where it is there, before it is deleted.
fn change_pods(batch: &mut Batch, before: &Program, after: &Program) {
    for ipv6 in [false, true] {
        for direction in Direction::ALL {
            let map = program::map(direction, ipv6);
            let of = |it: &Verdicts| it.of(direction).clone();
            let of_family = |program: &Program, other: &Program| {
                let changed = program.pods.iter().filter(|(address, it)| {
                    address.is_ipv6() == ipv6
                        && other.pods.get(*address).is_none_or(|other| of(other) != of(it))
                });
                changed.map(|(address, it)| verdict(*address, &of(it))).collect::<Vec<_>>()
            };
            let gone = of_family(before, after);
            if !gone.is_empty() {
                batch.add_elements(OURS, map, &gone).delete_elements(OURS, map, &gone);
            }
            let added = of_family(after, before);
            if !added.is_empty() {
                batch.add_elements(OURS, map, &added);
            }
        }
        let of_family = |program: &Program, other: &Program| {
            let fresh =
                program.pods.keys().filter(|it| it.is_ipv6() == ipv6 && !other.pods.contains_key(*it));
            fresh.map(|it| pair(*it)).collect::<Vec<_>>()
        };
        let (gone, added) = (of_family(before, after), of_family(after, before));
        if !gone.is_empty() {
            batch.delete_elements(OURS, program::itself(ipv6), &gone);
        }
        if !added.is_empty() {
            batch.add_elements(OURS, program::itself(ipv6), &added);
        }
    }
}

/// Whose connections may be judged otherwise: the pods that are there as before whose verdicts, chains or sets are others.
fn judged_anew(before: &Program, after: &Program) -> Anew {
    if before.chains.get("egress") != after.chains.get("egress") {
        return Anew::Everybody;
    }
    let is_other = |set: &str| before.sets.get(set) != after.sets.get(set);
    let mut other: HashSet<&str> = HashSet::new();
    for (name, chain) in &after.chains {
        let looks_into = |line: &Line| line.sets().any(is_other);
        if before.chains.get(name) != Some(chain) || chain.lines.iter().any(looks_into) {
            other.insert(name);
        }
    }
    let is_asked = |target: &Target| match target {
        Target::Open => false,
        Target::Chain(name) => {
            let asked = after.chains.get(name).into_iter().flat_map(|it| &it.lines);
            other.contains(&**name) || asked.filter_map(Line::asks).any(|it| other.contains(it))
        }
    };
    let is_anew = |address: &IpAddr, now: &Verdicts| {
        before
            .pods
            .get(address)
            .is_some_and(|then| then != now || Direction::ALL.iter().any(|it| is_asked(now.of(*it))))
    };
    let anew: BTreeSet<IpAddr> = after
        .pods
        .iter()
        .filter(|(address, now)| is_anew(address, now))
        .map(|(address, _)| *address)
        .collect();
    if anew.is_empty() { Anew::Nobody } else { Anew::Of(anew) }
}

fn hook(chain: &str) -> Option<Hook<'static>> {
    let at = |priority| Some(Hook::new(ChainKind::Filter, Point::Forward, priority));
    match chain {
        // For the node itself as well, and before the kernel takes a packet for one of a connection.
        program::SOURCES => Some(Hook::new(ChainKind::Filter, Point::Prerouting, priority::RAW)),
        // One behind the other: what the first lets through has still to pass the second.
        "egress" => at(priority::FILTER),
        "ingress" => at(priority::FILTER + 1),
        _ => None,
    }
}

fn address_type(ipv6: bool) -> Type {
    if ipv6 { Type::Ipv6Addr } else { Type::Ipv4Addr }
}

fn add_set(batch: &mut Batch, name: &str, set: &Set) {
    let (key, interval): (&[Type], bool) = match set {
        Set::Pods { ipv6, .. } => (&[address_type(*ipv6)], false),
        Set::Named { ipv6, .. } => (&[address_type(*ipv6), Type::InetProto, Type::InetService], false),
        Set::Block { ipv6, .. } => (&[address_type(*ipv6)], true),
        Set::Ports(_) => (&[Type::InetService], true),
    };
    batch.add_set(OURS, &NewSet { name, key, interval, ..NewSet::default() });
}

/// The kernel's verdict.
fn to_verdict(target: &Target) -> Verdict {
    match target {
        Target::Open => Verdict::Accept,
        Target::Chain(chain) => Verdict::Goto(chain.to_string()),
    }
}
