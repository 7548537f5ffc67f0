//! Descriptors that a process gets from the one that started it, by number, as systemd's socket activation hands
//! them on.
//!
//! What they are is for the caller to find out.

use std::os::fd::OwnedFd;

use crate::error::{Cause, Result};
use crate::sys;

/// A duplicate, closed on exec, of the descriptor that this process was started with under `number`. EBADF when
/// there is none.
pub fn descriptor(number: i32) -> Result<OwnedFd> {
    sys::duplicate(number).map_err(|e| Cause::from(e).about(format!("take over file descriptor {number}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_duplicate_is_the_same_file() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut copy = std::fs::File::from(descriptor(writer.as_raw_fd()).unwrap());
        copy.write_all(b"a").unwrap();
        writer.write_all(b"b").unwrap();
        drop((copy, writer));
        assert_eq!(std::io::read_to_string(reader).unwrap(), "ab");
        assert_eq!(descriptor(1 << 20).unwrap_err().errno(), Some(libc::EBADF));
    }
}
