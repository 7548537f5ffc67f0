//! The two processes of a pod: `kubia`, the app, and `sidecar`, the prober. Both share the pod's network and
//! UTS namespaces and are started from this same executable; there are no images.
//!
//! They are members of the capsule's PID namespace and end with it.

use std::fs::{self, File};
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};

use crate::cluster::{Containers, Space};
use crate::construct::{enter, in_thread};
use crate::probe::{self, Sidecar};
use crate::{exit, kubia};

/// The argument under which the binary is a container; the container's name follows.
pub const CONTAINER: &str = "__container";
/// Where each pod's processes log.
const LOGS: &str = "/run/podlab/pods";

/// Processes that have been started.
#[derive(Debug)]
pub struct Started {
    /// The processes.
    pub running: Containers,
    /// Ends when kubia listens; taken once it has been waited for.
    pub ready: Option<PipeReader>,
}

impl Started {
    /// Waits until kubia listens.
    ///
    /// # Errors
    /// It ended instead.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        wait_until_ready(self.ready.take())
    }
}

/// Waits until the kubia behind `ready` listens.
///
/// # Errors
/// It ended instead; its log is in the error.
pub fn wait_until_ready(ready: Option<PipeReader>) -> Result<()> {
    let Some(mut ready) = ready else { return Ok(()) };
    let mut word = Vec::new();
    ready.read_to_end(&mut word)?;
    if word.is_empty() {
        bail!("it ended before it listened");
    }
    Ok(())
}

/// Starts both processes in the space.
///
/// # Errors
/// They cannot be started.
pub fn start(space: &Space) -> Result<Started> {
    let dir = PathBuf::from(LOGS).join(&space.name);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let kubia_log = dir.join("kubia.log");
    let log = |name: &str| {
        let path = dir.join(name);
        File::create(&path).with_context(|| format!("create {}", path.display()))
    };
    let container = |name: &str| {
        let mut command = Command::new("/proc/self/exe");
        command.arg(CONTAINER).arg(name).env_clear();
        command
    };
    in_thread(|| {
        enter(space)?;
        let (ready, ready_end) = std::io::pipe()?;
        let kubia = container("kubia")
            .stdin(ready_end)
            .stdout(log("kubia.log")?)
            .stderr(log("kubia.err")?)
            .spawn()
            .context("start kubia")?;
        let mut sidecar = container("sidecar")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log("sidecar.err")?)
            .spawn()
            .context("start sidecar")?;
        let (Some(requests), Some(answers)) = (sidecar.stdin.take(), sidecar.stdout.take()) else {
            return Err(anyhow!("the sidecar has no pipes"));
        };
        let running = Containers {
            kubia_pid: kubia.id() as i32,
            sidecar_pid: sidecar.id() as i32,
            sidecar: Mutex::new(Sidecar::new(requests, answers)),
            kubia_log: kubia_log.clone(),
        };
        Ok(Started { running, ready: Some(ready) })
    })
    .with_context(|| format!("containers of {}", space.name))
}

/// Runs as the container `name` until the lab ends.
pub fn run(name: &str) -> u8 {
    let outcome = match name {
        "kubia" => {
            let host = nix::unistd::gethostname().unwrap_or_default();
            kubia::run(&host.to_string_lossy(), tell_ready).map(|never| match never {})
        }
        "sidecar" => probe::serve_sidecar(std::io::stdin().lock(), std::io::stdout().lock()),
        _ => return exit::BUG,
    };
    match outcome {
        Ok(()) => exit::OK,
        Err(err) => {
            eprintln!("error: container {name}: {err}");
            exit::FAILED
        }
    }
}

/// Standard input is the pipe that the supervisor waits on. The word is written and the pipe closed by
/// putting nothing in its place.
fn tell_ready() {
    let tell = || -> std::io::Result<()> {
        let mut pipe = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        pipe.write_all(b"ready")?;
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        Ok(())
    };
    // A supervisor that is gone takes this process with it.
    let _ = tell();
}
