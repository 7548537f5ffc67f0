//! A link goes from the node to the pod, and back. Either way is one request, in which it arrives under its new
//! name: a process that is killed leaves it on one side or the other, never on its way, and no program that watches
//! the node's links sees a name that is none of its own.
//!
//! On its way into the pod the link keeps its old name as its alias, as the reference has it, so either's DEL finds
//! what the other's ADD moved.

use std::os::fd::AsFd;

use cni::{Call, Error, Undo};
use kernel::link::{self, Change, Link};
use kernel::{Mac, Netns, Rtnl};

use crate::interface::attach::{self, failed};
use crate::interface::saved::Saved;

/// The longest name that a link can have.
const NAME_MAX: usize = 15;

/// What the link was on the node.
struct Before {
    name: String,
    mac: Option<Mac>,
    alias: Option<String>,
    up: bool,
    saved: Saved,
}

/// Moves `link` from the node to the pod under CNI_IFNAME, and looks it up there. It arrives down and without
/// addresses, as the kernel has it. Taken back, it has its name, alias, addresses and routes again, and is up if
/// it was.
///
/// # Errors
/// CNI_IFNAME is taken in the pod, or what the kernel says: not every link can be moved.
pub(super) fn to_pod(
    rtnl: &mut Rtnl,
    link: &Link,
    call: &Call,
    (netns, pod): (&Netns, &mut Rtnl),
    undo: &mut Undo,
) -> Result<Link, Error> {
    let ifname = call.env.ifname.as_str();
    if link::by_name(pod, ifname).is_ok() {
        return Err(Error::internal(format!("interface name {ifname:?} already exists in the pod")));
    }
    let before = Before {
        name: link.name.clone(),
        mac: link.mac,
        alias: link.alias.clone(),
        up: link.up,
        saved: Saved::of(rtnl, link.index)?,
    };
    let io = |err: std::io::Error| Error::internal(format!("keep the pod's netns open: {err}"));
    let (pod_again, arrived) = (netns.as_fd().try_clone_to_owned().map_err(io)?, ifname.to_owned());
    undo.push("give the device back to the node", move || {
        take_back(&pod_again.into(), &arrived, before).map_err(|err| err.to_string())?
    });
    let change = Change {
        netns: Some(netns.as_fd()),
        name: Some(ifname),
        alias: Some(&link.name),
        ..Change::default()
    };
    link::set(rtnl, link.index, &change)
        .map_err(failed(format!("move {:?} into the pod as {ifname:?}", link.name)))?;
    link::by_name(pod, ifname).map_err(failed(format!("find {ifname:?} in the pod")))
}

/// Brings the link back from wherever a failed ADD left it: in the pod under its new name, there under its old one
/// (which is what a new name that is taken meanwhile leads to), or not moved at all.
fn take_back(pod: &Netns, arrived: &str, before: Before) -> kernel::Result<Result<(), String>> {
    let mut inside = Rtnl::open_in(pod)?;
    let under =
        |rtnl: &mut Rtnl, name: &str| link::by_name(rtnl, name).ok().filter(|link| link.mac == before.mac);
    let moved = under(&mut inside, arrived)
        .filter(|link| link.alias.as_ref() == Some(&before.name))
        .or_else(|| under(&mut inside, &before.name));
    if let Some(moved) = moved {
        let home = Netns::current()?;
        let change = Change {
            netns: Some(home.as_fd()),
            name: Some(&before.name),
            alias: Some(before.alias.as_deref().unwrap_or_default()),
            ..Change::default()
        };
        link::set(&mut inside, moved.index, &change)?;
    }
    let mut node = Rtnl::open()?;
    let back = link::by_name(&mut node, &before.name)?;
    if before.up && !back.up {
        link::set(&mut node, back.index, &Change { up: Some(true), ..Change::default() })?;
    }
    Ok(before.saved.at(back.index).restore(&mut node))
}

/// Gives the pod's link CNI_IFNAME back to the node under the name that its alias says, down: what it was before,
/// nobody knows. Absent, also with its namespace, is success; so is a link that was not moved by this plugin, which
/// stays where it is.
///
/// # Errors
/// The node has another link of that name (the device stays in the pod then), or what the kernel says.
pub(super) fn to_node(call: &Call) -> Result<(), Error> {
    let ifname = call.env.ifname.as_str();
    let Some(mut pod) = attach::open_pod_for_del(call)? else { return Ok(()) };
    let link = match link::by_name(&mut pod, ifname) {
        Err(err) if err.is_not_found() => return Ok(()),
        found => found.map_err(failed(format!("find {ifname:?} in the pod")))?,
    };
    let Some(name) = former_name(&link) else { return Ok(()) };
    let mut node = Rtnl::open().map_err(failed("netlink on the node"))?;
    if link::by_name(&mut node, name).is_ok() {
        return Err(Error::internal(format!(
            "failed to rename device {ifname:?} to {name:?}: the node has a link of that name; the device stays in \
             the pod (rename the other one, and delete again)"
        )));
    }
    let home = Netns::current().map_err(failed("the node's netns"))?;
    let change = Change { netns: Some(home.as_fd()), name: Some(name), alias: Some(""), ..Change::default() };
    match link::set(&mut pod, link.index, &change) {
        Err(err) if !err.is_not_found() => {
            Err(failed(format!("move {ifname:?} to the node as {name:?}"))(err))
        }
        _ => Ok(()),
    }
}

/// The name that the link had on the node: its alias, if that can be the name of a link.
pub(super) fn former_name(link: &Link) -> Option<&str> {
    link.alias.as_deref().filter(|alias| {
        !alias.is_empty()
            && alias.len() <= NAME_MAX
            && !matches!(*alias, "." | "..")
            && !alias.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace())
    })
}
