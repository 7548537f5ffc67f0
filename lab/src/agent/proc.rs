//! A mount of proc(5) of the agent's own, renewed now and then; see [`kernel::sysctl::write_by`] for what that saves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// So many namespaces are looked into by one mount.
const LOOKS: u32 = 32;

/// The mount, once there is one.
#[derive(Debug, Default)]
pub(super) struct Instance {
    mounted: Option<PathBuf>,
    looks: u32,
}

impl Instance {
    /// Where it is. Where none can be had, as in a user namespace that sees a part of /proc only, it is /proc.
    ///
    /// # Errors
    /// The mount cannot be renewed.
    pub(super) fn path(&mut self) -> Result<&Path> {
        if self.looks == LOOKS {
            self.end()?;
        }
        if self.looks == 0 {
            self.mounted = new()?;
        }
        self.looks += 1;
        Ok(self.mounted.as_deref().unwrap_or(Path::new("/proc")))
    }

    /// Takes the mount away.
    ///
    /// # Errors
    /// The kernel's words.
    pub(super) fn end(&mut self) -> Result<()> {
        self.looks = 0;
        let Some(path) = self.mounted.take() else { return Ok(()) };
        umount2(&path, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", path.display()))
    }
}

/// None where it is not permitted.
fn new() -> Result<Option<PathBuf>> {
    let path = PathBuf::from(format!("/run/podlab/proc.{}", std::process::id()));
    std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    match mount(Some("proc"), &path, Some("proc"), MsFlags::empty(), None::<&str>) {
        Ok(()) => Ok(Some(path)),
        Err(Errno::EPERM) => Ok(None),
        Err(err) => Err(err).with_context(|| format!("mount proc on {}", path.display())),
    }
}
