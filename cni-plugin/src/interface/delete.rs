//! DEL and GC of links: the key `delete`, the pod's link, many of the node's at once.
//!
//! After a link is gone the kernel makes the one who deleted it wait, about 20 ms, until no processor can be using what it
//! frees. `complete` waits. `announced` (the default) returns when the kernel has announced that the link is gone, with
//! its addresses and routes; a child of the plugin waits, and holds nothing of the runtime's. Either way the next ADD may
//! use the name, the MAC and the addresses.

use std::os::fd::BorrowedFd;

use cni::{Call, Error};
use kernel::link::{self, Change, Link};
use kernel::{Batch, Rtnl};
use serde::Deserialize;

use super::attach::{self, failed};

/// When DEL returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Delete {
    /// When the kernel has freed the link.
    Complete,
    /// When the kernel has announced that the link is gone.
    #[default]
    Announced,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    delete: Option<String>,
}

impl Delete {
    /// The key `delete` of the configuration.
    ///
    /// # Errors
    /// Code 7 for a value that is none.
    pub(crate) fn of(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        match written.delete.as_deref() {
            None | Some("") => Ok(Self::default()),
            Some("complete") => Ok(Self::Complete),
            Some("announced") => Ok(Self::Announced),
            Some(other) => {
                Err(Error::invalid(format!("delete {other:?} is neither \"complete\" nor \"announced\"")))
            }
        }
    }
}

/// Deletes the link CNI_IFNAME in the pod, and says whether there was one; a pod whose namespace is gone has none.
///
/// `keep` are sockets whose end would wait for the kernel too: who waits for the link keeps them open meanwhile.
///
/// # Errors
/// The kernel's refusal, with the link and the namespace.
pub(crate) fn pod_link(call: &Call, keep: &[BorrowedFd<'_>]) -> Result<bool, Error> {
    let Some(mut pod) = attach::open_pod_for_del(call)? else { return Ok(false) };
    // DEL does not mind what ADD would refuse.
    let how = Delete::of(call).unwrap_or_default();
    let deleted = link::by_name(&mut pod, &call.env.ifname).and_then(|found| match how {
        Delete::Complete => link::delete(&mut pod, found.index),
        Delete::Announced => link::delete_announced(&mut pod, found.index, keep),
    });
    match deleted {
        Ok(()) => Ok(true),
        Err(err) if err.is_not_found() => Ok(false),
        Err(err) => {
            Err(failed(format!("delete link {:?} in netns {:?}", call.env.ifname, call.env.netns))(err))
        }
    }
}

/// Deletes links of the node: several at once, as a device group, in the time of one.
///
/// # Errors
/// Every link that would not go; one that is gone already is fine.
pub(crate) fn node_links(rtnl: &mut Rtnl, all: &[Link], stale: &[&Link]) -> Result<(), Error> {
    if stale.len() > 1 && together(rtnl, all, stale).is_ok() {
        return Ok(());
    }
    let one_by_one = stale.iter().map(|link| match link::delete(rtnl, link.index) {
        Err(err) if !err.is_not_found() => Err(failed(format!("delete link {:?}", link.name))(err)),
        _ => Ok(()),
    });
    Error::join(one_by_one.collect::<Vec<_>>())
}

/// Puts the links into a group that nobody is in, and deletes the group.
fn together(rtnl: &mut Rtnl, all: &[Link], stale: &[&Link]) -> kernel::Result<()> {
    let mut batch = Batch::new();
    let taken = |group: u32| group == 0 || all.iter().any(|link| link.group == group);
    // The index of the first: as good as random, and no two GCs at once have the same.
    let group = (stale[0].index | 1 << 30..).find(|&group| !taken(group)).unwrap_or(u32::MAX);
    for link in stale {
        batch.link_set(link.index, &Change { group: Some(group), ..Change::default() });
    }
    for answer in rtnl.send(batch)? {
        match answer {
            Err(err) if !err.is_not_found() => return Err(err),
            _ => {}
        }
    }
    link::delete_group(rtnl, group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str) -> Result<Delete, Error> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"bridge"{key}}}"#);
        Delete::of(&Call::new(cni::Env::default(), text.into_bytes()).unwrap())
    }

    #[test]
    fn the_key_has_two_values_and_announced_is_the_default() {
        assert_eq!(of("").unwrap(), Delete::Announced);
        assert_eq!(of(r#","delete":"announced""#).unwrap(), Delete::Announced);
        assert_eq!(of(r#","delete":"complete""#).unwrap(), Delete::Complete);
        assert_eq!(of(r#","delete":"later""#).unwrap_err().code, 7);
    }
}
