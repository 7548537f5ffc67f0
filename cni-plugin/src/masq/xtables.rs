//! What the reference's iptables backend left, where iptables-nft made it: in table `nat` of IPv4 and IPv6 a
//! chain for each container of a network, and jumps to it from POSTROUTING for each of its addresses.
//!
//! The chain does not know interfaces, so attachments of one container to one network share it: jumps
//! go by address, and the chain goes with the last jump.

use ipnetwork::IpNetwork;
use kernel::nft::{self, Family, RuleInfo, Table, compat};
use kernel::{Nfnl, Result};

use super::Owner;
use crate::hash::sha512_hex;
use crate::rules::Rules;

const TABLES: [Table<'static>; 2] = [Table::new(Family::Ip, "nat"), Table::new(Family::Ip6, "nat")];
const POSTROUTING: &str = "POSTROUTING";
const PREFIX: &str = "CNI-";
const DIGITS: usize = 24;
/// Where the kernel lists the tables of iptables-legacy that are in use.
const LEGACY: &str = "/proc/self/net/ip_tables_names";

/// The chain of a container.
fn chain_of(network: &str, container: &str) -> String {
    format!("{PREFIX}{}", sha512_hex(&[network, container], DIGITS))
}

/// Removes the attachment's jumps and, with the last, the chain. Without addresses all jumps are meant.
pub(super) fn remove(rules: &mut Rules, owner: &Owner, ips: &[IpNetwork]) -> Result<()> {
    let chain = chain_of(&owner.network, &owner.container);
    let is_meant = |rule: &RuleInfo| ips.is_empty() || ips.iter().any(|ip| is_from(rule, *ip));
    for table in TABLES {
        if rules.has(table) {
            remove_chain(&mut rules.nfnl, table, &chain, &is_meant)?;
        }
    }
    Ok(())
}

/// Removes the chains of a network's containers that have no valid attachment.
pub(super) fn collect(nfnl: &mut Nfnl, network: &str, valid: &[Owner]) -> Result<()> {
    for table in TABLES {
        let stale = nfnl.transact(|nfnl, _| stale_chains(nfnl, table, network, valid))?;
        stale.iter().try_for_each(|chain| remove_chain(nfnl, table, chain, &|_| true))?;
    }
    Ok(())
}

fn stale_chains(nfnl: &mut Nfnl, table: Table<'_>, network: &str, valid: &[Owner]) -> Result<Vec<String>> {
    let mut stale = Vec::new();
    for chain in nft::chains(nfnl, table)? {
        if !chain.name.starts_with(PREFIX) || chain.name.len() != PREFIX.len() + DIGITS {
            continue;
        }
        let rules = nft::rules(nfnl, table, &chain.name)?;
        let comment = rules.iter().find_map(compat::comment).unwrap_or_default();
        let Some(container) = container_in(&comment, network) else { continue };
        // The name tells a chain for masquerade from one of another plugin with such a comment.
        let is_masquerade = chain.name == chain_of(network, container);
        if is_masquerade && valid.iter().all(|owner| owner.container != container) {
            stale.push(chain.name);
        }
    }
    Ok(stale)
}

/// Those of `ips` for which the attachment has no jump.
pub(super) fn missing(nfnl: &mut Nfnl, owner: &Owner, mut ips: Vec<IpNetwork>) -> Result<Vec<IpNetwork>> {
    let chain = chain_of(&owner.network, &owner.container);
    for table in TABLES {
        if ips.is_empty() || nft::chain(nfnl, table, &chain)?.is_none() {
            continue;
        }
        let mut jumps = nft::rules(nfnl, table, POSTROUTING)?;
        jumps.retain(|rule| rule.leads_to() == Some(&chain));
        ips.retain(|ip| !jumps.iter().any(|rule| is_from(rule, *ip)));
    }
    Ok(ips)
}

/// Whether iptables-legacy has a table `nat` here, whose rules netlink does not show.
pub(super) fn legacy_in_use() -> bool {
    std::fs::read_to_string(LEGACY).is_ok_and(|names| names.lines().any(|name| name == "nat"))
}

/// Older versions of the reference wrote the address with its prefix length.
fn is_from(rule: &RuleInfo, ip: IpNetwork) -> bool {
    let subnet = crate::interface::attach::network(ip);
    rule.source().is_some_and(|source| source == ip.ip().into() || source == subnet)
}

/// The container in a rule's comment, if it names this network.
fn container_in<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    comment.strip_prefix(&format!("name: \"{network}\" id: \""))?.strip_suffix('"')
}

fn remove_chain(
    nfnl: &mut Nfnl,
    table: Table<'_>,
    chain: &str,
    is_meant: &dyn Fn(&RuleInfo) -> bool,
) -> Result<()> {
    nfnl.transact(|nfnl, batch| {
        let Some(found) = nft::chain(nfnl, table, chain)? else { return Ok(()) };
        let mut jumps = nft::rules(nfnl, table, POSTROUTING)?;
        jumps.retain(|rule| rule.leads_to() == Some(chain));
        let all = jumps.len();
        jumps.retain(is_meant);
        for jump in &jumps {
            batch.delete_rule(table, POSTROUTING, jump.handle);
        }
        let own = nft::handles(nfnl, table, chain)?.len();
        if jumps.len() == all && found.used as usize == all + own {
            batch.flush_chain(table, chain).delete_chain(table, chain);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_references() {
        assert_eq!(chain_of("test", "1234"), "CNI-2bbe0c48b91a7d1b8a6753a8");
        let comment = "name: \"net\" id: \"c1\"";
        assert_eq!(container_in(comment, "net"), Some("c1"));
        assert_eq!(container_in(comment, "ne"), None);
        assert_eq!(container_in("dnat name: \"net\" id: \"c1\"", "net"), None);
    }
}
