//! The agent's table as far as the plugin knows it: its name, and the maps from pods' addresses to verdicts.

use std::net::IpAddr;

use cni::Error;
use kernel::Nfnl;
use kernel::nft::{self, Element, Family, Table, ip_bytes};

use crate::interface::attach::failed;

/// The table, which the agent makes.
pub(super) const TABLE: Table<'static> = Table::new(Family::Inet, "podnet-policy");
/// Why nothing can be done without it.
pub(super) const ABSENT: &str =
    "table inet podnet-policy is not there: podnetd has not yet prepared this node for pods";

/// The maps of a family.
fn maps(v6: bool) -> [&'static str; 2] {
    if v6 { ["egress6", "ingress6"] } else { ["egress4", "ingress4"] }
}

/// Whether the agent has made the table.
///
/// # Errors
/// The kernel's words.
pub(super) fn is_there(nfnl: &mut Nfnl) -> Result<bool, Error> {
    nft::table(nfnl, TABLE).map(|found| found.is_some()).map_err(failed("look for the table of policies"))
}

/// Takes the addresses out of the maps, so that nothing passes to or from them.
///
/// # Errors
/// The kernel's words.
pub(super) fn close(nfnl: &mut Nfnl, addresses: &[IpAddr]) -> Result<(), Error> {
    let closed = nfnl.transact(|nfnl, batch| {
        for v6 in [false, true].into_iter().filter(|v6| addresses.iter().any(|it| it.is_ipv6() == *v6)) {
            for map in maps(v6) {
                let there = nft::elements(nfnl, TABLE, map)?;
                let stale: Vec<Element> = there.into_iter().filter(|it| is_of(it, addresses)).collect();
                if !stale.is_empty() {
                    batch.delete_elements(TABLE, map, &stale);
                }
            }
        }
        Ok(())
    });
    closed.map_err(failed("close the pod's addresses"))
}

/// Whether each of the addresses has a verdict in both directions.
///
/// # Errors
/// One has none, or the kernel's words.
pub(super) fn check(nfnl: &mut Nfnl, addresses: &[IpAddr]) -> Result<(), Error> {
    for address in addresses {
        for map in maps(address.is_ipv6()) {
            let there = nft::elements(nfnl, TABLE, map).map_err(failed("look at the table of policies"))?;
            if !there.iter().any(|it| is_of(it, std::slice::from_ref(address))) {
                return Err(Error::internal(format!(
                    "{address} is closed: podnetd has not armed it ({map})"
                )));
            }
        }
    }
    Ok(())
}

fn is_of(element: &Element, addresses: &[IpAddr]) -> bool {
    addresses.iter().any(|it| ip_bytes(*it) == element.key)
}
