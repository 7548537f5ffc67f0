//! The least work that an operation of a pod network can cost on this machine: the requests that the kernel must be sent,
//! and nothing else. No JSON, no address management, no check, no undo; every argument is believed. It stands in the
//! benchmark beside the plugins and shows how much of their time is the kernel's own. It is no plugin.
//!
//! ```text
//! floor nothing                                                     starts and ends
//! floor loopback NETNS up|down
//! floor bridge   NETNS IFNAME HOSTLINK BRIDGE GATEWAYS ADDRESSES [RULES]
//! floor ptp      NETNS IFNAME HOSTLINK GATEWAYS ADDRESSES
//! floor macvlan  NETNS IFNAME PARENT GATEWAYS ADDRESSES
//! floor delete   HOSTLINK [RULES]                                   returns when the kernel has freed the link
//! floor announce HOSTLINK                                           returns when the kernel has announced its end
//! floor delete-in NETNS IFNAME
//! floor reserve|release DIRECTORY ADDRESS ID                        one reservation
//! floor memory   FILE PROGRAM ARGUMENTS...                          runs a program, notes its peak memory in KiB
//! ```
//!
//! GATEWAYS and ADDRESSES are lists with commas, addresses with their prefix length. RULES is `masquerade=ADDRESS` or
//! `ports=COUNT@ADDRESS`, elements of the set `pods` or the map `ports` in the table `ip floor`, which must be there; or
//! `bandwidth`, 100 Mbit/s both ways.

mod attach;
mod message;
mod remove;
mod reservation;
mod rules;
mod shape;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&words).unwrap_or_else(|error| {
        eprintln!("floor: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(words: &[&str]) -> Result<ExitCode> {
    match *words {
        ["nothing"] => {}
        ["loopback", netns, state] => attach::loopback(netns, state == "up")?,
        ["bridge", netns, ifname, host, bridge, gateways, addresses, ref rules @ ..] => {
            attach::bridge(netns, ifname, host, bridge, &attach::Plan::parse(gateways, addresses)?)?;
            match rules {
                ["bandwidth"] => shape::add(host)?,
                [rules] => rules::apply(rules, true)?,
                _ => {}
            }
        }
        ["ptp", netns, ifname, host, gateways, addresses] => {
            attach::ptp(netns, ifname, host, &attach::Plan::parse(gateways, addresses)?)?;
        }
        ["macvlan", netns, ifname, parent, gateways, addresses] => {
            attach::macvlan(netns, ifname, parent, &attach::Plan::parse(gateways, addresses)?)?;
        }
        ["delete", host, ref rules @ ..] => {
            match rules {
                ["bandwidth"] => shape::delete(host)?,
                [rules] => rules::apply(rules, false)?,
                _ => {}
            }
            remove::complete(host)?;
        }
        ["announce", host] => remove::announced(host)?,
        ["delete-in", netns, ifname] => remove::inside(netns, ifname)?,
        ["reserve", directory, address, id] => reservation::reserve(directory, address, id)?,
        ["release", directory, address, id] => reservation::release(directory, address, id)?,
        ["memory", file, program, ref arguments @ ..] => return memory(file, program, arguments),
        _ => bail!("no such use: {words:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a program and writes the peak of its resident memory, and of the programs that it waited for, to a file. The
/// kernel counts the memory of the process before `execve` too, hence a parent as small as this one.
fn memory(file: &str, program: &str, arguments: &[&str]) -> Result<ExitCode> {
    let status =
        Command::new(program).args(arguments).status().with_context(|| format!("start {program}"))?;
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).context("read the use of memory")?.max_rss();
    fs::write(file, peak.to_string()).with_context(|| format!("write {file}"))?;
    let code = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
