//! The two processes of a pod: `kubia`, the app, and `sidecar`, the prober. Both share the pod's network and
//! UTS namespaces and are forks of the node's agent; there are no images.
//!
//! They are members of the capsule's PID namespace and end with it.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kernel::{Netns, fork};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::{exit, kubia, probe};

/// How long a killed process may take to end.
const LAST_BREATH: Duration = Duration::from_secs(5);
/// Where each pod's processes log.
const LOGS: &str = "/run/podlab/pods";

/// Processes that have been started.
#[derive(Debug)]
pub struct Started {
    /// Process id of kubia.
    pub kubia_pid: i32,
    /// Process id of the sidecar.
    pub sidecar_pid: i32,
    /// Where kubia logs.
    pub kubia_log: PathBuf,
    /// The sidecar's standard input.
    pub requests: PipeWriter,
    /// Its standard output.
    pub answers: PipeReader,
    /// Ends when kubia listens; taken once it has been waited for.
    pub ready: Option<PipeReader>,
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

/// Starts both processes of the pod `name` in the calling thread's namespaces. The process must have one thread.
///
/// # Errors
/// They cannot be started.
pub fn start(name: &str) -> Result<Started> {
    let dir = PathBuf::from(LOGS).join(name);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let log = |file: &str| -> Result<OwnedFd> {
        let path = dir.join(file);
        Ok(File::create(&path).with_context(|| format!("create {}", path.display()))?.into())
    };
    let (ready, ready_end) = pipe()?;
    let kubia_pid = run("kubia", [ready_end.into(), log("kubia.log")?, log("kubia.err")?], || {
        let host = nix::unistd::gethostname().unwrap_or_default();
        kubia::run(&host.to_string_lossy(), tell_ready).map(|never| match never {})
    })?;
    let (stdin, requests) = pipe()?;
    let (answers, stdout) = pipe()?;
    let sidecar_pid = run("sidecar", [stdin.into(), stdout.into(), log("sidecar.err")?], || {
        probe::serve_sidecar(std::io::stdin().lock(), std::io::stdout().lock())
    })?;
    let kubia_log = dir.join("kubia.log");
    Ok(Started { kubia_pid, sidecar_pid, kubia_log, requests, answers, ready: Some(ready) })
}

/// Starts a process that does `work` until the lab ends, under the name that ps(1) shows.
fn run(name: &'static str, stdio: [OwnedFd; 3], work: impl FnOnce() -> std::io::Result<()>) -> Result<i32> {
    let container = || {
        // Only the name would be missing.
        let _ = fs::write("/proc/self/comm", name);
        match work() {
            Ok(()) => exit::OK,
            Err(err) => {
                eprintln!("error: container {name}: {err}");
                exit::FAILED
            }
        }
    };
    let [stdin, stdout, stderr] = &stdio;
    fork::start([stdin, stdout, stderr], container).with_context(|| format!("start {name}"))
}

/// Kills every process in a network namespace, those of `exec` too, and waits for those that this process started.
///
/// # Errors
/// The namespace or /proc cannot be read, or a process does not end though it is killed.
pub fn end(netns: &Netns) -> Result<()> {
    let own = netns.id()?;
    let deadline = Instant::now() + LAST_BREATH;
    // A process may start another while they are being counted; what it starts is found the next time.
    loop {
        let mut found = 0;
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let there = fs::metadata(format!("/proc/{pid}/ns/net"));
            let is_there = there.is_ok_and(|meta| (meta.dev(), meta.ino()) == own);
            if is_there && pid != std::process::id() as i32 {
                let pid = Pid::from_raw(pid);
                // It may have ended by itself, and need not be a child.
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitpid(pid, None);
                found += 1;
            }
        }
        if found == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{found} processes of the pod do not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Standard input is the pipe that the agent waits on. The word is written and the pipe closed by
/// putting nothing in its place.
fn tell_ready() {
    let tell = || -> std::io::Result<()> {
        let mut pipe = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        pipe.write_all(b"ready")?;
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        Ok(())
    };
    // A lab that is gone takes this process with it.
    let _ = tell();
}
