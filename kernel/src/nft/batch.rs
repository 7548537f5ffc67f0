//! Changes that the kernel makes all together or not at all.

use super::attr::{Attrs, Body};
use super::rule::Rule;
use super::set::{Element, Set};
use super::userdata::Userdata;
use super::{Hook, Table, msg};
use crate::error::Result;
use crate::nfnl::Nfnl;
use crate::wire;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

/// linux/netlink.h, `NLM_F_APPEND`
const APPEND: u16 = 0x800;
/// linux/netlink.h, `NLM_F_NONREC`: refuse to delete what still holds something.
const NOT_WHAT_IS_IN_IT: u16 = 0x100;
/// The most bytes of elements in one message: attributes count their length in 16 bits.
const ELEMENTS: usize = 32 * 1024;

/// Changes to tables, chains, rules, sets and elements, to make with [`crate::Nfnl::commit`] in the order in which they
/// were put in. A later change sees what an earlier one made.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    /// Of each request: where it starts in `bytes`, and what an error is to call it.
    pub(crate) requests: Vec<(usize, String)>,
    sets: u32,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// The number of messages in it.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Adds a table; one that is there stays as it is.
    pub fn add_table(&mut self, table: Table<'_>, comment: Option<&str>) -> &mut Batch {
        self.add_table_with(table, &comment.map_or_else(Userdata::new, Userdata::comment))
    }

    /// As [`Batch::add_table`], with all that the kernel is to keep with the table.
    pub fn add_table_with(&mut self, table: Table<'_>, userdata: &Userdata) -> &mut Batch {
        let mut a = table.attrs();
        a.text(1, table.name).u32(2, 0);
        if !userdata.is_empty() {
            a.raw(6, userdata.bytes());
        }
        self.push(msg::NEWTABLE, NLM_F_CREATE, &a, format!("add table {table}"))
    }

    /// Deletes a table and everything in it.
    pub fn delete_table(&mut self, table: Table<'_>) -> &mut Batch {
        self.table(table, 0)
    }

    /// Deletes a table in which there must be nothing any more.
    pub fn delete_empty_table(&mut self, table: Table<'_>) -> &mut Batch {
        self.table(table, NOT_WHAT_IS_IN_IT)
    }

    fn table(&mut self, table: Table<'_>, flags: u16) -> &mut Batch {
        let mut a = table.attrs();
        a.text(1, table.name);
        self.push(msg::DELTABLE, flags, &a, format!("delete table {table}"))
    }

    /// Adds a chain; `hook` makes it a base chain. One that is there stays, if its hook is the same; to the kernel that
    /// is a change of it, which makes the end of the socket wait as a deletion does.
    pub fn add_chain(&mut self, table: Table<'_>, chain: &str, hook: Option<&Hook<'_>>) -> &mut Batch {
        self.add_chain_with(table, chain, hook, &Userdata::new())
    }

    /// As [`Batch::add_chain`], with a comment.
    pub fn add_chain_with_comment(
        &mut self,
        table: Table<'_>,
        chain: &str,
        hook: Option<&Hook<'_>>,
        comment: &str,
    ) -> &mut Batch {
        self.add_chain_with(table, chain, hook, &Userdata::comment(comment))
    }

    /// As [`Batch::add_chain`], with all that the kernel is to keep with the chain.
    pub fn add_chain_with(
        &mut self,
        table: Table<'_>,
        chain: &str,
        hook: Option<&Hook<'_>>,
        userdata: &Userdata,
    ) -> &mut Batch {
        self.chain(table, chain, hook, userdata, NLM_F_CREATE)
    }

    /// Adds a chain that must not be there yet.
    pub fn create_chain(&mut self, table: Table<'_>, chain: &str, hook: Option<&Hook<'_>>) -> &mut Batch {
        self.chain(table, chain, hook, &Userdata::new(), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn chain(
        &mut self,
        table: Table<'_>,
        chain: &str,
        hook: Option<&Hook<'_>>,
        userdata: &Userdata,
        flags: u16,
    ) -> &mut Batch {
        let mut a = table.attrs();
        a.text(1, table.name).text(3, chain);
        if let Some(hook) = hook {
            a.nest(4, |h| {
                h.u32(1, hook.point.number(table.family)).u32(2, hook.priority as u32);
                if let Some(device) = hook.device {
                    h.text(3, device);
                }
            });
            a.u32(5, u32::from(hook.accept)).text(7, hook.kind.as_str());
        }
        if !userdata.is_empty() {
            a.raw(12, userdata.bytes());
        }
        self.push(msg::NEWCHAIN, flags, &a, format!("add chain {table} {chain}"))
    }

    /// Deletes a chain, which must be empty and jumped to from nowhere.
    pub fn delete_chain(&mut self, table: Table<'_>, chain: &str) -> &mut Batch {
        let mut a = table.attrs();
        a.text(1, table.name).text(3, chain);
        self.push(msg::DELCHAIN, NOT_WHAT_IS_IN_IT, &a, format!("delete chain {table} {chain}"))
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: Table<'_>, chain: &str) -> &mut Batch {
        let mut a = table.attrs();
        a.text(1, table.name).text(2, chain);
        self.push(msg::DELRULE, 0, &a, format!("flush chain {table} {chain}"))
    }

    /// Adds a rule at the end of a chain.
    pub fn append(&mut self, table: Table<'_>, chain: &str, rule: &Rule) -> &mut Batch {
        self.rule(table, chain, rule, None, NLM_F_CREATE | APPEND)
    }

    /// Adds a rule at the head of a chain.
    pub fn insert(&mut self, table: Table<'_>, chain: &str, rule: &Rule) -> &mut Batch {
        self.rule(table, chain, rule, None, NLM_F_CREATE)
    }

    /// Adds a rule behind the one with this handle.
    pub fn insert_after(&mut self, table: Table<'_>, chain: &str, handle: u64, rule: &Rule) -> &mut Batch {
        self.rule(table, chain, rule, Some(handle), NLM_F_CREATE | APPEND)
    }

    /// Adds a rule before the one with this handle.
    pub fn insert_before(&mut self, table: Table<'_>, chain: &str, handle: u64, rule: &Rule) -> &mut Batch {
        self.rule(table, chain, rule, Some(handle), NLM_F_CREATE)
    }

    fn rule(
        &mut self,
        table: Table<'_>,
        chain: &str,
        rule: &Rule,
        position: Option<u64>,
        flags: u16,
    ) -> &mut Batch {
        let mut a = table.attrs();
        a.text(1, table.name).text(2, chain);
        a.nest(4, |list| list.bytes.extend(rule.expressions()));
        if let Some(position) = position {
            a.u64(6, position);
        }
        if !rule.userdata.is_empty() {
            a.raw(7, rule.userdata.bytes());
        }
        self.push(msg::NEWRULE, flags, &a, format!("add rule to chain {table} {chain}"))
    }

    /// Deletes the rule with this handle.
    pub fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: u64) -> &mut Batch {
        let mut a = table.attrs();
        a.text(1, table.name).text(2, chain).u64(3, handle);
        self.push(msg::DELRULE, 0, &a, format!("delete rule {handle} of chain {table} {chain}"))
    }

    /// Adds a set or map; one of the same kind that is there stays.
    pub fn add_set(&mut self, table: Table<'_>, set: &Set<'_>) -> &mut Batch {
        self.sets += 1;
        let mut a = table.attrs();
        set.put(&mut a, table.name, self.sets);
        self.push(msg::NEWSET, NLM_F_CREATE, &a, format!("add set {table} {}", set.name))
    }

    /// Deletes a set or map, which no rule must use.
    pub fn delete_set(&mut self, table: Table<'_>, set: &str) -> &mut Batch {
        let mut a = table.attrs();
        a.text(1, table.name).text(2, set);
        self.push(msg::DELSET, 0, &a, format!("delete set {table} {set}"))
    }

    /// Adds elements; one that is there already, with the same value, stays.
    pub fn add_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) -> &mut Batch {
        self.elements(msg::NEWSETELEM, NLM_F_CREATE, "add", table, set, elements)
    }

    /// Adds elements of which none may be there.
    pub fn create_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) -> &mut Batch {
        self.elements(msg::NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, "add", table, set, elements)
    }

    /// Deletes elements, all of which must be there.
    pub fn delete_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) -> &mut Batch {
        self.elements(msg::DELSETELEM, 0, "delete", table, set, elements)
    }

    fn elements(
        &mut self,
        kind: u8,
        flags: u16,
        verb: &str,
        table: Table<'_>,
        set: &str,
        elements: &[Element],
    ) -> &mut Batch {
        let mut rest = elements;
        while !rest.is_empty() {
            let mut a = table.attrs();
            a.text(1, table.name).text(2, set);
            let mut taken = 0;
            a.nest(3, |list| {
                let start = list.bytes.len();
                for element in rest {
                    element.put(list);
                    taken += 1;
                    if list.bytes.len() - start > ELEMENTS {
                        break;
                    }
                }
            });
            rest = &rest[taken..];
            self.push(kind, flags, &a, format!("{verb} elements of set {table} {set}"));
        }
        self
    }

    fn push(&mut self, kind: u8, flags: u16, body: &Attrs, subject: String) -> &mut Batch {
        self.requests.push((self.bytes.len(), subject));
        // The sequence number is the socket's to give, when the batch is sent.
        wire::push(&mut self.bytes, msg::kind(kind), NLM_F_REQUEST | flags, 0, &Body(&body.bytes));
        self
    }
}

/// Deletes a table and everything in it; true when there was one. A table that goes meanwhile is none.
///
/// # Errors
/// The kernel's words.
pub fn remove(nfnl: &mut Nfnl, table: Table<'_>) -> Result<bool> {
    if super::table(nfnl, table)?.is_none() {
        return Ok(false);
    }
    let mut batch = Batch::new();
    batch.delete_table(table);
    match nfnl.commit(batch) {
        Err(error) if error.is_not_found() => Ok(false),
        done => done.map(|()| true),
    }
}
