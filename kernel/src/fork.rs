//! Children that are copies of the calling process: a fork costs a tenth of what starting a program does.

use std::os::fd::OwnedFd;

use crate::error::{Cause, Result};
use crate::sys;

/// Starts a child of this process with `stdio` as its descriptors 0, 1 and 2 and no other; it runs `work` in the calling
/// thread's namespaces and ends with what that returns, or with 101 when it panics. Returns its process id.
///
/// # Errors
/// EBUSY when this process has another thread, whose locks the child would have for good; the kernel's refusal. A kernel
/// without close_range(2) (before Linux 5.9) shows in the child's status only, 101.
pub fn start(stdio: [&OwnedFd; 3], work: impl FnOnce() -> u8) -> Result<i32> {
    const SUBJECT: &str = "fork";
    let tasks = std::fs::read_dir("/proc/self/task").map_err(|e| Cause::from(e).about(SUBJECT))?;
    if tasks.count() != 1 {
        return Err(Cause::errno(libc::EBUSY).about(SUBJECT));
    }
    sys::fork(stdio, work).map_err(|e| Cause::from(e).about(SUBJECT))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::pipe;

    use super::*;

    #[test]
    fn process_with_threads_is_refused() {
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        let (ended, end) = pipe().unwrap();
        let other = std::thread::spawn(move || std::io::read_to_string(ended));
        let refused = start([&null, &null, &null], || 0).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EBUSY));
        drop(end);
        other.join().unwrap().unwrap();
    }
}
