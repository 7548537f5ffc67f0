//! The machine that a run is on, in words, and the scheduling of what is measured.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::gettid;

/// Name and value of what figures depend on.
pub(crate) fn describe(podnet: &Path, floor: &Path) -> Result<Vec<(String, String)>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str, between: char| {
        let value = text.lines().find_map(|line| {
            line.split_once(between)
                .filter(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        });
        value.unwrap_or_else(|| "unknown".into())
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let size = |path: &Path| fs::metadata(path).map(|file| file.len());
    let version = Command::new(podnet).arg("version").output().context("start podnet")?;
    let values = [
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("system", field(&read("/etc/os-release"), "PRETTY_NAME", '=').trim_matches('"').to_owned()),
        ("processors", format!("{processors} × {}", field(&read("/proc/cpuinfo"), "model name", ':'))),
        ("memory", field(&read("/proc/meminfo"), "MemTotal", ':')),
        ("load before the run", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
        (
            "podnet",
            format!(
                "{}, {} bytes",
                String::from_utf8_lossy(&version.stdout).trim(),
                size(podnet).context("size of podnet")?
            ),
        ),
        ("floor", format!("{} bytes", size(floor).context("size of floor")?)),
        ("debian", package("containernetworking-plugins")),
        ("netavark", package("netavark")),
        ("nftables, iptables", format!("{}, {}", package("nftables"), package("iptables"))),
    ];
    Ok(values.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// The version of a Debian package.
fn package(name: &str) -> String {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]).output();
    let version = output.ok().filter(|output| output.status.success());
    version.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Lets this thread and what it starts run before the machine's other programs (SCHED_RR), or like them; whether the
/// kernel permits it.
pub(crate) fn prefer(first: bool) -> bool {
    let policy: &[&str] = if first { &["--rr", "--pid", "1"] } else { &["--other", "--pid", "0"] };
    let mut command = Command::new("chrt");
    command.args(policy).arg(gettid().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
