//! The path of datagrams, as far as a socket can ask about it.

use std::os::fd::AsFd;

use crate::error::{Cause, Result};
use crate::sys;

/// Has a UDP socket send its datagrams whole and marked so that nobody on their way divides them (DF), whatever the kernel
/// has learned of the path before: one that is longer than the link's MTU is refused (EMSGSIZE), one that is too long for a
/// link behind gets lost. `v6` is the socket's family.
pub fn send_whole(socket: &impl AsFd, v6: bool) -> Result<()> {
    sys::probe_path(socket, v6)
        .map_err(|error| Cause::from(error).about("forbid the fragmentation of datagrams"))
}
