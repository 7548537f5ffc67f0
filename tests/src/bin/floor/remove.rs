//! What a DEL cannot do without: RTM_DELLINK. The kernel holds the caller until nothing refers to the link any more, long
//! after it has gone from the namespace; another process may wait in the caller's place.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::attach::{enter, index, open};
use crate::message::{Messages, Socket};

/// linux/rtnetlink.h: RTM_DELLINK, RTMGRP_LINK.
const DELLINK: u16 = 17;
const GROUP_LINK: u32 = 1;

fn delete(index: u32) -> Messages {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut messages = Messages::default();
    messages.put(DELLINK, 0, &header, |_| ());
    messages
}

/// Deletes a link of the current namespace and waits until it is freed.
pub(crate) fn complete(name: &str) -> Result<()> {
    Socket::route(0)?.send(delete(index(name)?), "delete the link")
}

/// Deletes a link of a pod.
pub(crate) fn inside(netns: &str, ifname: &str) -> Result<()> {
    enter(&open(netns)?)?;
    complete(ifname)
}

/// Has a second process delete the link, and returns when the kernel tells everybody that it is gone. That process has
/// none of the caller's files.
pub(crate) fn announced(name: &str) -> Result<()> {
    let index = index(name)?;
    let listener = Socket::route(GROUP_LINK)?;
    let mut second = Command::new("/proc/self/exe");
    second.args(["delete", name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    second.spawn().context("start a second process")?;
    listener.wait("wait for the announcement", |kind, _, body| {
        // A bridge tells in its own family first that it lost the port.
        kind == DELLINK && body.first() == Some(&0) && body.get(4..8) == Some(&index.to_ne_bytes()[..])
    })
}
