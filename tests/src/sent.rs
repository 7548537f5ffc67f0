//! The rtnetlink messages that a plugin sends, read by pyroute2 (Debian's package `python3-pyroute2`): kinds, modes, ids and flags are
//! checked also where the kernel lacks the device and refuses them. Written down by `strace`, so nothing of ours stands
//! between the plugin and the decoder.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::Outcome;
use crate::world::{Call, World};

/// Not the first `python3` of PATH, which may be one without Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

/// `strace` with arguments that make it write to `log` what [`decode`] reads; the program to trace comes after them.
pub fn strace(log: &Path) -> Vec<String> {
    let log = log.to_string_lossy();
    let trace = "trace=socket,close,sendto,sendmsg,write";
    ["strace", "-f", "-o", &log, "-s", "0", "-e", "write=all", "-e", trace].map(str::to_owned).to_vec()
}

/// Makes a call; its outcome, and the log of what it sent.
///
/// # Errors
/// The programs are missing.
pub fn record(world: &World, call: Call<'_>) -> Result<(Outcome, String)> {
    let log = world.dir().join("sent");
    let strace = strace(&log);
    let outcome = call.through(&strace.iter().map(String::as_str).collect::<Vec<_>>()).run()?;
    Ok((outcome, std::fs::read_to_string(&log).context("read strace's log")?))
}

/// The changes that each log shows rtnetlink was asked for, in their order. Attributes are `[name, value]` in their order;
/// the number of a file descriptor, which is a matter of chance, is `fd`.
///
/// # Errors
/// The decoder is missing, or a message cannot be read.
pub fn decode(logs: &[String]) -> Result<Vec<Vec<Value>>> {
    let mut decoder = Command::new(PYTHON)
        .args(["-c", include_str!("sent.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {PYTHON}"))?;
    let stdin = decoder.stdin.take().context("the decoder's stdin")?;
    // One that ends at once closes the pipe; its stderr says why.
    let written = serde_json::to_writer(&stdin, logs);
    drop(stdin);
    let output = decoder.wait_with_output().context("wait for the decoder")?;
    ensure!(
        output.status.success(),
        "decode what was sent (is python3-pyroute2 installed?): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    written.context("write to the decoder")?;
    let mut messages: Vec<Vec<Value>> =
        serde_json::from_slice(&output.stdout).context("read the decoder's answer")?;
    messages.iter_mut().flatten().for_each(forget_descriptors);
    Ok(messages)
}

fn forget_descriptors(value: &mut Value) {
    match value {
        Value::Array(list) if list.len() == 2 && list[0] == "IFLA_NET_NS_FD" => list[1] = "fd".into(),
        Value::Array(list) => list.iter_mut().for_each(forget_descriptors),
        Value::Object(map) => map.values_mut().for_each(forget_descriptors),
        _ => {}
    }
}
