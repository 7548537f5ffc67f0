//! The lab as a person uses it: the program `podlab`, from outside. Each test has labs of its own name and takes them
//! down, also when it fails.

mod bench;
mod cleanliness;
mod command_line;
mod contract;
mod document;
mod evidence;
mod faults;
mod flood;
mod graph;
mod http;
mod ipv6;
mod kubectl;
mod kubernetes;
mod lessons;
mod manual;
mod modes;
mod rootless;
mod run;
mod scale;
mod serve;
mod service_modes;
mod services;
mod step;
mod topology;
mod verdicts;
mod vxlan;
mod walks;

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podnet_tests::plugins;
use serde_json::Value;

/// A lab that ends with this value.
struct Lab {
    name: String,
}

impl Lab {
    /// Brings a detached lab up.
    fn up(name: &str, options: &[&str]) -> Result<Lab> {
        let lab = Lab { name: format!("e2e-{name}-{}", std::process::id()) };
        let mut args = vec!["up", "--detach", "--name", &lab.name];
        args.extend(options);
        let output = podlab(&args)?;
        ensure!(output.status.success(), "podlab {args:?}: {}", text(&output));
        Ok(lab)
    }

    /// Runs a verb on it.
    fn podlab(&self, verb: &str, rest: &[&str]) -> Result<Output> {
        let mut args = vec![verb, "--name", &self.name];
        args.extend(rest);
        podlab(&args)
    }

    /// Runs a command in one of its namespaces; an exit code other than 0 is an error.
    fn exec(&self, target: &str, command: &[&str]) -> Result<String> {
        let mut rest = vec![target, "--"];
        rest.extend(command);
        let output = self.podlab("exec", &rest)?;
        ensure!(output.status.success(), "{command:?} in {target}: {}", text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Verifies it: the exit code and the report.
    fn verify(&self, checks: &[&str]) -> Result<(i32, Value)> {
        let mut rest = vec!["-o", "json"];
        rest.extend(checks);
        let output = self.podlab("verify", &rest)?;
        let report = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        Ok((output.status.code().unwrap_or(-1), report))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It may be down already.
        let _ = self.podlab("down", &["-q"]);
    }
}

/// Runs `podlab` and waits for it. A document that it prints must be as its schema says.
fn podlab(args: &[impl AsRef<OsStr>]) -> Result<Output> {
    let mut command = command(args)?;
    let output = command.stdin(Stdio::null()).output().context("start podlab")?;
    let words: Vec<String> = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned()).collect();
    contract::check(&words, &output)?;
    Ok(output)
}

/// `podlab` with these arguments and none of this environment's settings for it.
fn command(args: &[impl AsRef<OsStr>]) -> Result<Command> {
    let mut command = Command::new(plugins::podlab()?);
    without_settings(&mut command).args(args);
    Ok(command)
}

/// Keeps this environment's settings for `podlab` from it.
fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PODLAB_") {
            command.env_remove(name);
        }
    }
    command
}

/// Waits, a minute at most, until something is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What a program said, for errors.
fn text(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
