//! Whether the kernel's table is still what was programmed.

use std::collections::{BTreeMap, BTreeSet};

use kernel::nft::{self, Data};
use kernel::{Nfnl, Result};

use super::elements::{elements, pair};
use super::{Kept, OURS, to_verdict};
use crate::policy::Direction;
use crate::policy::program;

impl Kept {
    /// What of the table is other than it was programmed, in words; `None`: nothing. One question to the kernel where
    /// nobody has changed any table since the last time. Else it counts the rules of each chain and compares the pods' maps,
    /// and with `whole` counts the elements of every set, too.
    ///
    /// Rules that were replaced one by one with others, as many as before, are not noticed.
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
        let mut chains: BTreeMap<String, usize> =
            nft::chains(nfnl, OURS)?.into_iter().map(|it| (it.name, 0)).collect();
        for chain in nft::chains_of_rules(nfnl, OURS)? {
            *chains.entry(chain).or_default() += 1;
        }
        for (name, chain) in &program.chains {
            match chains.remove(&**name) {
                None => return Ok(Some(format!("chain {name} is gone"))),
                Some(rules) if rules != chain.lines.len() => {
                    let wanted = chain.lines.len();
                    return Ok(Some(format!("chain {name} has {rules} rules and not {wanted}")));
                }
                Some(_) => {}
            }
        }
        if let Some(chain) = chains.keys().next() {
            return Ok(Some(format!("chain {chain} is another program's")));
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
                let (wanted, there) = (elements(set, None).len(), nft::elements(nfnl, OURS, name)?.len());
                if wanted != there {
                    return Ok(Some(format!("set {name} has {there} elements and not {wanted}")));
                }
            }
            // What was not looked at may still be other, so only a whole look saves the next.
            self.generation = Some(generation);
        }
        Ok(None)
    }
}
