//! Network sysctls of the calling thread's namespace, by their path below /proc/sys.
//!
//! Slow where many namespaces exist (a lookup walks them); what rtnetlink can set is set there instead, see
//! [`crate::link::Change`].

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Cause, Result};

/// Where proc(5) is.
const ROOT: &str = "/proc";
/// The room that proc(5) makes for a value.
const PAGE: usize = 4096;

/// Another mount of proc(5), for the whole process.
static MOUNT: OnceLock<PathBuf> = OnceLock::new();

/// Has [`read`], [`write`](fn@write) and [`ensure`] of this process use another mount of proc(5) than /proc from now on: that
/// of a container is read-only. Only the first call counts.
pub fn use_mount(proc: &Path) {
    let _ = MOUNT.set(proc.to_owned());
}

fn mount() -> &'static Path {
    MOUNT.get().map_or(Path::new(ROOT), PathBuf::as_path)
}

fn file(path: &str) -> std::result::Result<PathBuf, Cause> {
    below(mount(), path)
}

fn below(root: &Path, path: &str) -> std::result::Result<PathBuf, Cause> {
    // One path, one sysctl: nothing outside /proc/sys is reachable from here.
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Cause::errno(libc::EINVAL));
    }
    Ok(root.join("sys").join(path))
}

/// The value of the sysctl at `path`, for example `net/ipv4/ip_forward`, without the white space around it.
/// `is_not_found()` when the kernel has no such sysctl.
pub fn read(path: &str) -> Result<String> {
    let get = || -> std::result::Result<String, Cause> {
        // The kernel gives the whole value to a read that has room for it, and none has more than a page.
        let mut bytes = [0; PAGE];
        let n = OpenOptions::new().read(true).open(file(path)?)?.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..n]).trim().to_owned())
    };
    get().map_err(|c| c.about(format!("read sysctl {path:?}")))
}

/// Writes the sysctl at `path`, in a single write as proc(5) asks for.
pub fn write(path: &str, value: &str) -> Result<()> {
    write_by(mount(), path, value)
}

/// As [`write`](fn@write), by another mount of proc(5) than /proc. A mount remembers what was looked up in it, for each namespace
/// anew, and its look-ups cost the more of that there is: who looks into many namespaces does so by a mount that it
/// renews now and then.
pub fn write_by(proc: &Path, path: &str, value: &str) -> Result<()> {
    let put = || -> std::result::Result<(), Cause> {
        Ok(OpenOptions::new().write(true).open(below(proc, path)?)?.write_all(value.as_bytes())?)
    };
    put().map_err(|c| c.about(format!("write {value:?} to sysctl {path:?}")))
}

/// Writes the sysctl only when its value differs, so that a read-only /proc/sys with the right value is enough.
/// True when it wrote.
pub fn ensure(path: &str, value: &str) -> Result<bool> {
    if read(path)? == value {
        return Ok(false);
    }
    write(path, value)?;
    Ok(true)
}
