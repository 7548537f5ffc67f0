//! Network sysctls of the calling thread's namespace, by their path below /proc/sys.
//!
//! Slow where many namespaces exist (a lookup walks them); what rtnetlink can set is set there instead, see
//! [`crate::link::Change`].

use std::fs::OpenOptions;
use std::io::{Read, Write};

use crate::error::{Cause, Result};

/// The room that proc(5) makes for a value.
const PAGE: usize = 4096;

fn file(path: &str) -> std::result::Result<String, Cause> {
    // One path, one sysctl: nothing outside /proc/sys is reachable from here.
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Cause::errno(libc::EINVAL));
    }
    Ok(format!("/proc/sys/{path}"))
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
    let put = || -> std::result::Result<(), Cause> {
        Ok(OpenOptions::new().write(true).open(file(path)?)?.write_all(value.as_bytes())?)
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
