//! Network namespaces by file descriptor: open, make, enter for the length of a closure.
//!
//! Nothing here gives a namespace a name: bind mounts under /run/netns are the runtime's affair.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;
use nix::sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, statfs};

use crate::error::{Cause, Result};

const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace; it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Netns {
    /// Takes a descriptor that is known to be a network namespace; nothing is checked until it is used.
    fn from(fd: OwnedFd) -> Self {
        Netns { fd }
    }
}

impl From<Netns> for OwnedFd {
    fn from(ns: Netns) -> Self {
        ns.fd
    }
}

impl Netns {
    /// Opens the namespace at `path`. `is_not_found()` for a missing path and for the empty one; `is_not_netns()`
    /// for a file that is neither on nsfs nor on procfs, such as a bind mount's leftover.
    pub fn open(path: &Path) -> Result<Netns> {
        let subject = || format!("open netns {path:?}");
        if path.as_os_str().is_empty() {
            return Err(Cause::errno(libc::ENOENT).about(subject()));
        }
        let magic = statfs(path).map_err(|e| Cause::from(e).about(subject()))?.filesystem_type();
        if magic != NSFS_MAGIC && magic != PROC_SUPER_MAGIC {
            return Err(
                Cause::NotNetns { magic: magic.0 as u64 }.about(format!("unknown FS magic on {path:?}"))
            );
        }
        let file = File::open(path).map_err(|e| Cause::from(e).about(subject()))?;
        Ok(Netns { fd: file.into() })
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Netns> {
        let file = File::open(OWN).map_err(|e| Cause::from(e).about("open the current netns"))?;
        Ok(Netns { fd: file.into() })
    }

    /// A new namespace with only a loopback device in it, down. The caller stays where it is: a thread that ends
    /// again at once makes the namespace.
    pub fn create() -> Result<Netns> {
        const SUBJECT: &str = "create a netns";
        let made = std::thread::Builder::new()
            .name("netns".into())
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Cause::from(e).about(SUBJECT))?;
                Netns::current()
            })
            .map_err(|e| Cause::from(e).about(SUBJECT))?;
        made.join().unwrap_or_else(|_| Err(Cause::errno(libc::EIO).about(SUBJECT)))
    }

    /// Runs `f` on the calling thread inside this namespace and brings the thread back, also when `f` panics. A
    /// thread that cannot be brought back ends the process: going on would touch the wrong machine's network.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        let home = Home(Netns::current()?);
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| Cause::from(e).about("enter netns"))?;
        let value = f();
        drop(home);
        Ok(value)
    }

    /// What tells namespaces apart: device and inode of the nsfs file (`st_dev`, `st_ino`; namespaces(7)).
    pub fn id(&self) -> Result<(u64, u64)> {
        let st = fstat(&self.fd).map_err(|e| Cause::from(e).about("stat netns"))?;
        Ok((st.st_dev, st.st_ino))
    }
}

/// Where the thread came from; dropping it brings the thread back.
struct Home(Netns);

impl Drop for Home {
    fn drop(&mut self) {
        let back = || setns(self.0.fd.as_fd(), CloneFlags::CLONE_NEWNET);
        // A moment's lack of memory is no reason to die half-way through a change.
        if let Err(e) = back().or_else(|_| back()) {
            eprintln!("return to the netns of origin: {e}");
            std::process::abort();
        }
    }
}
