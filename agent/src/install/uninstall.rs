//! Everything off a node again, in the order in which it does no harm: first the configuration, so that no pod is made
//! any more; then what the kernel holds, then the plugins, at last what is kept in files.
//!
//! It goes on after errors and tells all of them; what is absent is success, so it may be called again.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kernel::Rtnl;
use nix::sys::signal::{SigSet, Signal};

use super::{binaries, conflist, files, reservations};
use crate::places::{NETWORK, Places};

/// Takes something of the kernel's back: routes, masquerade, policy. Says what it removed, or nothing where there was
/// nothing.
pub type Hook<'h> = (&'static str, Box<dyn FnOnce() -> Result<Option<String>> + 'h>);

/// What an uninstallation did, a line each, and what it could not do.
#[derive(Debug, Default)]
pub struct Report {
    /// What was removed, and what is left on purpose.
    pub done: Vec<String>,
    /// What could not be removed. Another call goes on from there.
    pub failed: Vec<anyhow::Error>,
}

impl Report {
    fn note(&mut self, what: &str, result: Result<Option<String>>) {
        match result {
            Ok(Some(text)) => self.done.push(format!("{what}: {text}")),
            Ok(None) => {}
            Err(err) => self.failed.push(err.context(what.to_owned())),
        }
    }
}

/// Takes podnet off this node: its configuration first, then routes, rules, plugins and files. What is not podnet's
/// stays, and pods that still run keep their links and addresses. May be repeated.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where the node's files are
    #[arg(long, default_value = "/", env = "PODNETD_ROOT")]
    pub root: PathBuf,
    /// Do not end when it is done, but wait for a signal: for a DaemonSet, whose pods are to stay
    #[arg(long)]
    pub stay: bool,
}

/// Uninstalls, prints what was done, and gives the exit code: 0 done, 1 when something could not be removed.
///
/// # Errors
/// The kernel cannot be asked at all, or nobody takes the output.
pub fn run(args: &Args, hooks: Vec<Hook<'_>>) -> Result<u8> {
    let report = uninstall(&Places::below(&args.root), &mut Rtnl::open()?, hooks);
    let mut out = std::io::stdout();
    for line in &report.done {
        writeln!(out, "{line}").context("print what was done")?;
    }
    for err in &report.failed {
        eprintln!("error: {err:#} · try: podnetd uninstall again");
    }
    if !report.failed.is_empty() {
        return Ok(1);
    }
    if report.done.is_empty() {
        writeln!(out, "nothing of podnet's is on this node").context("print what was done")?;
    }
    if args.stay {
        wait_for_the_end()?;
    }
    Ok(0)
}

/// The first process of a container gets no signal that it does not ask for.
fn wait_for_the_end() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().context("block signals")?;
    signals.wait().map(drop).context("wait for a signal")
}

/// Takes the network off the node. The hooks are called in their order, after the configuration is gone.
///
/// Pods that still run keep their links, routes and addresses until they are deleted; their reservations stay as well.
pub fn uninstall(places: &Places, rtnl: &mut Rtnl, hooks: Vec<Hook<'_>>) -> Report {
    let mut report = Report::default();
    let removed = conflist::remove(places);
    let file = places.conflist();
    report.note("configuration", removed.map(|it| it.then(|| format!("removed {}", file.display()))));
    for (what, hook) in hooks {
        report.note(what, hook());
    }
    report.note("plugins", plugins(places));
    report.note("reservations", release(places, rtnl));
    report.note("state", state(places));
    report
}

fn plugins(places: &Places) -> Result<Option<String>> {
    let removed = binaries::remove(&places.plugins())?;
    let mut text = String::new();
    if !removed.removed.is_empty() {
        let _ = write!(text, "removed {}", removed.removed.join(", "));
    }
    if !removed.restored.is_empty() {
        let separator = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{separator}put back what was replaced: {}", removed.restored.join(", "));
    }
    Ok((!text.is_empty()).then_some(text))
}

fn release(places: &Places, rtnl: &mut Rtnl) -> Result<Option<String>> {
    let swept = reservations::sweep(places, rtnl, Duration::ZERO)?;
    if !swept.problems.is_empty() {
        return Err(anyhow!(swept.problems.join("; ")));
    }
    let unmarked = reservations::unmark(places).context("remove the note of the last start")?;
    if swept.in_use == 0 {
        // What is left of the network is the plugin's memory of where it was, and its index.
        let networks = places.reservations();
        let indexes = networks.join(ipam::INDEXES);
        for dir in [networks.join(NETWORK), indexes.join(NETWORK)] {
            files::unless_absent(fs::remove_dir_all(&dir))
                .with_context(|| format!("remove {}", dir.display()))?;
        }
        // Other networks' indexes may be beside it.
        let _ = fs::remove_dir(&indexes);
    }
    Ok(match (swept.released.len(), swept.in_use) {
        (0, 0) => unmarked.then(|| "none left".to_owned()),
        (released, 0) => Some(format!("released {released}")),
        (released, in_use) => Some(format!(
            "released {released}; {in_use} left, of pods that still run · try: delete these pods, then uninstall again"
        )),
    })
}

fn state(places: &Places) -> Result<Option<String>> {
    let run = places.run();
    let removed = files::unless_absent(fs::remove_dir_all(&run));
    // In the agent's pod the directory is a mount, which stays when it has been emptied.
    let removed = match removed {
        Err(_) if fs::read_dir(&run).is_ok_and(|mut left| left.next().is_none()) => Ok(false),
        other => other,
    };
    let removed = removed.with_context(|| format!("remove {}", run.display()))?;
    Ok(removed.then(|| format!("removed {}", run.display())))
}
