//! Whether the kernel's table is still what was programmed.

use std::collections::{BTreeMap, BTreeSet};

use kernel::nft::{self, ChainInfo, Data, Element};
use kernel::{Nfnl, Result};

use super::elements::{elements, pair};
use super::{Kept, OURS, hook, rule, to_verdict};
use crate::policy::Direction;
use crate::policy::program::{self, Program};

impl Kept {
    /// What of the table is other than it was programmed, in words; `None`: nothing. One question to the kernel where
    /// nobody has changed any table since the last time. Else it compares chains, rules and the pods' maps, and with `whole`
    /// the elements of every set, too.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn drift(&mut self, nfnl: &mut Nfnl, whole: bool) -> Result<Option<String>> {
        let Some(program) = &self.programmed else { return Ok(None) };
        let generation = nfnl.generation()?;
        if self.generation == Some(generation) {
            return Ok(None);
        }
        match nft::table(nfnl, OURS)? {
            None => return Ok(Some(format!("table {OURS} is gone"))),
            Some(table) if table.handle != self.handle => {
                return Ok(Some(format!("table {OURS} was made anew by another program")));
            }
            Some(_) => {}
        }
        if let Some(drift) = drift_of_chains(nfnl, program)? {
            return Ok(Some(drift));
        }
        for ipv6 in [false, true] {
            for direction in Direction::ALL {
                let map = program::map(direction, ipv6);
                let wanted = program.pods.iter().filter(|(address, _)| address.is_ipv6() == ipv6).map(
                    |(address, it)| {
                        (kernel::nft::ip_bytes(*address), Some(Data::Verdict(to_verdict(it.of(direction)))))
                    },
                );
                let wanted: BTreeMap<_, _> = wanted.collect();
                let there: BTreeMap<_, _> =
                    nft::elements(nfnl, OURS, map)?.into_iter().map(|it| (it.key, it.data)).collect();
                if wanted != there {
                    let (wanted, there) = (wanted.len(), there.len());
                    return Ok(Some(format!("map {map} is other than it was: {there} elements of {wanted}")));
                }
            }
            let wanted = program.pods.keys().filter(|it| it.is_ipv6() == ipv6).map(|it| pair(*it).key);
            let wanted: BTreeSet<_> = wanted.collect();
            let set = program::itself(ipv6);
            if wanted != nft::elements(nfnl, OURS, set)?.into_iter().map(|it| it.key).collect() {
                return Ok(Some(format!("set {set} is other than it was")));
            }
        }
        if whole {
            for (name, set) in &program.sets {
                let keys = |all: Vec<Element>| -> BTreeSet<(Vec<u8>, bool)> {
                    all.into_iter().map(|it| (it.key, it.is_end)).collect()
                };
                let (wanted, there) = (keys(elements(set, None)), keys(nft::elements(nfnl, OURS, name)?));
                if wanted != there {
                    let (wanted, there) = (wanted.len(), there.len());
                    return Ok(Some(format!(
                        "set {name} is other than it was: {there} elements of {wanted}"
                    )));
                }
            }
            // What was not looked at may still be other, so only a whole look saves the next.
            self.generation = Some(generation);
        }
        Ok(None)
    }
}

/// What of the chains and their rules is other than in the program.
fn drift_of_chains(nfnl: &mut Nfnl, program: &Program) -> Result<Option<String>> {
    let mut chains: BTreeMap<String, ChainInfo> =
        nft::chains(nfnl, OURS)?.into_iter().map(|it| (it.name.clone(), it)).collect();
    let mut rules = nft::rules_by_chain(nfnl, OURS)?;
    for (name, chain) in &program.chains {
        let Some(there) = chains.remove(&**name) else { return Ok(Some(format!("chain {name} is gone"))) };
        let at = hook(name).map(|it| (it.point.number(OURS.family), it.priority));
        if there.hook != at || there.accept.unwrap_or(true) != hook(name).is_none_or(|it| it.accept) {
            return Ok(Some(format!("chain {name} stands elsewhere, or drops at its end")));
        }
        let (there, wanted) = (rules.remove(&**name).unwrap_or_default(), chain.lines.len());
        if there.len() != wanted {
            return Ok(Some(format!("chain {name} has {} rules and not {wanted}", there.len())));
        }
        if let Some(at) = there.iter().zip(&chain.lines).position(|(it, line)| !it.does(&rule(line))) {
            let line = &chain.lines[at];
            return Ok(Some(format!("rule {} of chain {name} is not {line}", at + 1)));
        }
    }
    Ok(chains.keys().next().map(|chain| format!("chain {chain} is another program's")))
}
