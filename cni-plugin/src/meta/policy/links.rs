//! The pod's link on the node: in the device group of pods' links the agent's rules hold what comes in by it against
//! the pod's own addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::{CniResult, Error};
use kernel::link::{self, Change, Link};
use kernel::{Rtnl, route};

use crate::interface::attach::failed;

/// The device group (`agent/src/policy/program.rs`, `LINKS`).
const GROUP: u32 = 10180;

/// Puts the attachment's links into the group.
///
/// # Errors
/// They cannot be told, or the kernel's words.
pub(super) fn mark(result: &CniResult, addresses: &[IpAddr]) -> Result<(), Error> {
    let mut rtnl = open()?;
    for link in links(&mut rtnl, result, addresses)? {
        let change = Change { group: Some(GROUP), ..Change::default() };
        link::set(&mut rtnl, link.index, &change).map_err(failed("put the pod's link into its group"))?;
    }
    Ok(())
}

/// Whether the attachment's links are in the group.
///
/// # Errors
/// One is not, or as [`mark`].
pub(super) fn check(result: &CniResult, addresses: &[IpAddr]) -> Result<(), Error> {
    match links(&mut open()?, result, addresses)?.into_iter().find(|it| it.group != GROUP) {
        None => Ok(()),
        Some(link) => Err(Error::internal(format!(
            "link {} is in group {} and not in {GROUP}: nobody looks whether the pod forges its source",
            link.name, link.group
        ))),
    }
}

fn open() -> Result<Rtnl, Error> {
    Rtnl::open().map_err(failed("links of the node"))
}

/// The links on the node by which the pod sends: of those that the plugins before have made, the ones to which the
/// node's routes to the pod's addresses lead; without addresses, all.
fn links(rtnl: &mut Rtnl, result: &CniResult, addresses: &[IpAddr]) -> Result<Vec<Link>, Error> {
    let mut made = Vec::new();
    for interface in result.interfaces.iter().filter(|it| it.sandbox.is_empty()) {
        made.push(link::by_name(rtnl, &interface.name).map_err(failed("look up the pod's link"))?);
    }
    let mut used = BTreeSet::new();
    for address in addresses {
        let found = route::lookup(rtnl, *address).map_err(failed("look up the way to the pod"))?;
        if !made.iter().any(|it| Some(it.index) == found.oif) {
            return Err(Error::internal(format!(
                "the node's route to {address} leads to none of the links of prevResult: \
                 nobody could tell whether the pod forges its source"
            )));
        }
        used.extend(found.oif);
    }
    made.retain(|it| addresses.is_empty() || used.contains(&it.index));
    Ok(made)
}
