//! A closure run on a thread with a mount namespace of its own, for file systems that are full or read-only. What is
//! mounted there is seen by nobody else and is gone with the thread.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs `f` where its mounts are private; children that it starts share them.
///
/// # Errors
/// The mount namespace cannot be made, `f` fails or panics.
pub fn sealed<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .context("make the mounts private")?;
            f()
        });
        thread.join().map_err(|_| anyhow!("the sealed thread panicked"))?
    })
}

/// Mounts a tmpfs with these options (`size=64k`) on a directory, which is made if missing.
///
/// # Errors
/// The kernel refuses.
pub fn tmpfs(dir: &Path, options: &str) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(options))
        .with_context(|| format!("mount a tmpfs on {}", dir.display()))
}

/// Makes what is under a directory read-only.
///
/// # Errors
/// The kernel refuses.
pub fn read_only(dir: &Path) -> Result<()> {
    mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("bind {}", dir.display()))?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, dir, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("make {} read-only", dir.display()))
}
