//! The node forwards packets: switched on when an ADD needs it, switched off again when that ADD fails, unless
//! another attachment has come to rely on it meanwhile. The lock that makes this safe is here too.
//!
//! DEL never switches it off: nobody knows who else relies on it.

use std::fs::File;

use cni::{Error, Undo};
use kernel::link::{self, Link};
use kernel::{Family, Rtnl, netconf, sysctl};
use nix::fcntl::{Flock, FlockArg};

use super::attach::failed;
use super::saved::forwarding_interfaces;
use super::veth;

/// A lock on the node's network namespace, so that an ADD that takes back what others may rely on (a bridge,
/// forwarding) does not take it from one that is about to. Every ADD holds it shared until its link can be
/// seen on the node; only the taking back holds it alone. It is on the namespace itself: no file is made.
pub(crate) struct NodeLock(#[allow(dead_code, reason = "held, not read")] Flock<File>);

impl NodeLock {
    /// Shared, as every ADD takes it.
    ///
    /// # Errors
    /// The namespace's file cannot be opened or locked.
    pub(crate) fn shared() -> Result<Self, Error> {
        Self::take(FlockArg::LockShared)
    }

    /// Alone, for what takes something back that others may have come to rely on.
    ///
    /// # Errors
    /// As `shared`.
    pub(crate) fn alone() -> Result<Self, Error> {
        Self::take(FlockArg::LockExclusive)
    }

    fn take(how: FlockArg) -> Result<Self, Error> {
        let path = "/proc/thread-self/ns/net";
        let io = |err: std::io::Error| Error::internal(format!("lock the node's netns {path}: {err}"));
        let file = File::open(path).map_err(io)?;
        Flock::lock(file, how).map(Self).map_err(|(_, errno)| io(errno.into()))
    }
}

/// What is looked at.
const READ: &str = "read whether the node forwards";

/// The sysctl that lets the node forward packets of a family.
fn key(v6: bool) -> &'static str {
    if v6 { "net/ipv6/conf/all/forwarding" } else { "net/ipv4/ip_forward" }
}

/// Lets the node forward packets of a family; nothing is written when it does. `own` is the index of this
/// attachment's link on the node.
///
/// # Errors
/// The kernel does not tell, or the sysctl cannot be written.
pub(crate) fn enable(rtnl: &mut Rtnl, v6: bool, own: u32, undo: &mut Undo) -> Result<(), Error> {
    if netconf::forwarding(rtnl, Family::v6_if(v6)).map_err(failed(READ))? {
        return Ok(());
    }
    let what = failed(format!("enable forwarding ({})", key(v6)));
    let before = forwarding_interfaces(if v6 { "ipv6" } else { "ipv4" });
    undo.push("disable forwarding", move || {
        let back = || {
            sysctl::write(key(v6), "0")?;
            before.iter().try_for_each(|key| sysctl::write(key, "1"))
        };
        unless_others(own, |_| true, back).map_err(|err| err.msg)
    });
    sysctl::write(key(v6), "1").map_err(what)
}

/// CHECK: the node forwards packets of a family.
///
/// # Errors
/// It does not, or the kernel does not tell.
pub(crate) fn check(rtnl: &mut Rtnl, v6: bool) -> Result<(), Error> {
    match netconf::forwarding(rtnl, Family::v6_if(v6)).map_err(failed(READ))? {
        true => Ok(()),
        false => Err(Error::internal(format!("the node does not forward: {} is 0", key(v6)))),
    }
}

/// Runs `back` unless a link of another attachment than `own` that fits `which`, a bridge port or a veth of
/// podnet's, has come to rely on what it takes back; no other ADD is under way meanwhile.
///
/// # Errors
/// The lock, the list of links, or what `back` says; what is not there is success.
pub(crate) fn unless_others(
    own: u32,
    which: impl Fn(&Link) -> bool,
    back: impl FnOnce() -> kernel::Result<()>,
) -> Result<(), Error> {
    let _alone = NodeLock::alone()?;
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
    let links = link::list(&mut rtnl).map_err(failed("list links of the node"))?;
    // The port of a VLAN's gateway serves the pods' ports and goes with the last of them.
    let attached = |link: &Link| link.master.is_some() && !veth::is_gateway(link) || veth::is_owned(link);
    if links.iter().any(|link| attached(link) && link.index != own && which(link)) {
        return Ok(());
    }
    match back() {
        Err(err) if !err.is_not_found() => Err(failed("take back")(err)),
        _ => Ok(()),
    }
}
