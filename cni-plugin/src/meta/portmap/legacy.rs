//! What the reference's iptables backend made, found and removed in the tables of iptables-nft (`ip nat`,
//! `ip6 nat`). The tables of the older iptables, which the kernel keeps apart from nf_tables, are out of reach.

use kernel::nft::{self, Batch, Family, Table, compat};
use kernel::{Nfnl, Result};

use crate::hash::sha512_hex;

/// Chain of the container, and the chain whose rules jump to it. The second pair is of releases before 0.8.
const CHAINS: [(&str, &str); 2] = [("CNI-DN-", "CNI-HOSTPORT-DNAT"), ("CNI-SN-", "CNI-HOSTPORT-SNAT")];
/// Digits of the hash: iptables takes names of 28 bytes.
const DIGITS: usize = 21;

const fn table(v6: bool) -> Table<'static> {
    Table::new(if v6 { Family::Ip6 } else { Family::Ip }, "nat")
}

fn name(prefix: &str, network: &str, container: &str) -> String {
    format!("{prefix}{}", sha512_hex(&[network, container], DIGITS))
}

/// Puts into `batch` the deletion of the container's chains and of the jumps to them; the shared chains stay,
/// as the reference leaves them.
pub(super) fn remove(
    nfnl: &mut Nfnl,
    batch: &mut Batch,
    v6: bool,
    network: &str,
    container: &str,
) -> Result<()> {
    for (prefix, from) in CHAINS {
        let chain = name(prefix, network, container);
        if nft::chain(nfnl, table(v6), &chain)?.is_none() {
            continue;
        }
        for rule in nft::rules(nfnl, table(v6), from)? {
            if rule.leads_to() == Some(&chain) {
                batch.delete_rule(table(v6), from, rule.handle);
            }
        }
        batch.flush_chain(table(v6), &chain).delete_chain(table(v6), &chain);
    }
    Ok(())
}

/// The containers of a network that have mappings here, by the comments of the jumps to their chains. A comment that
/// iptables had to cut names none.
pub(super) fn containers(nfnl: &mut Nfnl, v6: bool, network: &str) -> Result<Vec<String>> {
    let [(prefix, from), _] = CHAINS;
    let head = format!("dnat name: \"{network}\" id: \"");
    let mut found: Vec<String> = Vec::new();
    for rule in nft::rules(nfnl, table(v6), from)? {
        let comment = compat::comment(&rule).unwrap_or_default();
        let container = comment.strip_prefix(&head).and_then(|rest| rest.strip_suffix('"'));
        // The chain's name tells that the comment is the reference's.
        found.extend(
            container.filter(|id| rule.leads_to() == Some(&name(prefix, network, id))).map(str::to_owned),
        );
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Whether the reference's mappings of the container are in place: its chain has rules, and is jumped to.
pub(super) fn is_there(nfnl: &mut Nfnl, v6: bool, network: &str, container: &str) -> Result<bool> {
    let [(prefix, from), _] = CHAINS;
    let chain = name(prefix, network, container);
    let led = |rule: &nft::RuleInfo| rule.leads_to() == Some(&chain);
    Ok(!nft::rules(nfnl, table(v6), &chain)?.is_empty() && nft::rules(nfnl, table(v6), from)?.iter().any(led))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_references() {
        assert_eq!(name("CNI-DN-", "test", "1234"), "CNI-DN-2bbe0c48b91a7d1b8a675");
    }
}
