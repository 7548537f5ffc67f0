//! Waiting for a link's operational state by the kernel's own announcements. No polling: an idle wait costs nothing.

use std::time::{Duration, Instant};

use super::{build, read};
use crate::error::{Cause, Result};
use crate::rtnl::Rtnl;
use crate::wire;

/// Waits until the link's operational state is `up`, at most `limit`; false when the time is over, an error with
/// `is_not_found()` when the link does not exist or disappears.
///
/// It listens to RTNLGRP_LINK on the socket given, in that socket's namespace, and reads the state after it has
/// begun to listen, so no change is lost. A link that is up already costs one request.
pub fn wait_oper_up(rtnl: &mut Rtnl, index: u32, limit: Duration) -> Result<bool> {
    // A year stands for ever, which an Instant cannot hold.
    let deadline = Instant::now() + limit.min(Duration::from_secs(365 * 86_400));
    let wait = |rtnl: &mut Rtnl| -> std::result::Result<bool, Cause> {
        if is_up(rtnl, index)? {
            return Ok(true);
        }
        rtnl.join(libc::RTNLGRP_LINK)?;
        let outcome = listen(rtnl, index, deadline);
        rtnl.leave(libc::RTNLGRP_LINK).and(outcome)
    };
    wait(rtnl).map_err(|c| c.about(format!("wait for link {index} to be up")))
}

fn is_up(rtnl: &mut Rtnl, index: u32) -> std::result::Result<bool, Cause> {
    let state = rtnl.get(libc::RTM_GETLINK, &build::query(index, None), |payload| {
        read::oper_state(payload).ok_or_else(|| wire::malformed("a link without a header"))
    })?;
    Ok(state.1 == Some(wire::OPER_UP))
}

fn listen(rtnl: &mut Rtnl, index: u32, deadline: Instant) -> std::result::Result<bool, Cause> {
    if is_up(rtnl, index)? {
        return Ok(true);
    }
    loop {
        let (mut up, mut gone) = (false, false);
        let event = rtnl.events(deadline, |m| {
            if let Some((at, state)) = read::oper_state(m.payload).filter(|s| s.0 == index) {
                match m.kind {
                    libc::RTM_NEWLINK => up = state == Some(wire::OPER_UP),
                    libc::RTM_DELLINK => gone = at == index,
                    _ => {}
                }
            }
        });
        match event {
            Ok(false) => return Ok(false),
            Ok(true) if gone => return Err(Cause::errno(libc::ENODEV)),
            Ok(true) if up => return Ok(true),
            Ok(true) => {}
            // Events were lost, perhaps the one waited for.
            Err(Cause::Os { errno: libc::ENOBUFS, .. }) => {
                if is_up(rtnl, index)? {
                    return Ok(true);
                }
            }
            Err(c) => return Err(c),
        }
    }
}
