//! The rtnetlink messages that a plugin sends, read by pyroute2 (Debian's package `python3-pyroute2`): kinds, modes, ids and flags are
//! checked also where the kernel lacks the device and refuses them. Written down by `strace`, so nothing of ours stands
//! between the plugin and the decoder.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::Outcome;
use crate::world::{Call, World};

/// Not the first `python3` of PATH, which may be one without Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

/// Makes a call; its outcome, and the changes it asked rtnetlink for, in their order. Attributes are `[name, value]` in
/// their order; the number of a file descriptor, which is a matter of chance, is `fd`.
///
/// # Errors
/// The programs are missing, or a message cannot be read.
pub fn by(world: &World, call: Call<'_>) -> Result<(Outcome, Vec<Value>)> {
    let log = world.dir().join("sent");
    let path = log.to_string_lossy();
    let trace = "trace=socket,close,sendto,sendmsg,write";
    let outcome =
        call.through(&["strace", "-f", "-o", &path, "-s", "0", "-e", "write=all", "-e", trace]).run()?;
    let decoder = Command::new(PYTHON).args(["-c", include_str!("sent.py")]).arg(&log).output();
    let decoder = decoder.with_context(|| format!("start {PYTHON}"))?;
    ensure!(
        decoder.status.success(),
        "decode what was sent (is python3-pyroute2 installed?): {}",
        String::from_utf8_lossy(&decoder.stderr)
    );
    let mut messages: Vec<Value> =
        serde_json::from_slice(&decoder.stdout).context("read the decoder's answer")?;
    messages.iter_mut().for_each(forget_descriptors);
    Ok((outcome, messages))
}

fn forget_descriptors(value: &mut Value) {
    match value {
        Value::Array(list) if list.len() == 2 && list[0] == "IFLA_NET_NS_FD" => list[1] = "fd".into(),
        Value::Array(list) => list.iter_mut().for_each(forget_descriptors),
        Value::Object(map) => map.values_mut().for_each(forget_descriptors),
        _ => {}
    }
}
