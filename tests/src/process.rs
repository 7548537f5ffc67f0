//! One call of a plugin program inside a network namespace: environment, stdin, and what came out.
//! It knows nothing of CNI configurations; [`crate::world`] fills it in.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kernel::{Netns, uninterrupted};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use serde_json::Value;

/// No verb of a plugin may take longer than this.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where a plugin's stdout goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdout {
    /// A pipe that the test reads.
    Read,
    /// A pipe whose reading end is closed: writing gives EPIPE.
    Closed,
    /// /dev/full: writing gives ENOSPC.
    Full,
}

/// Everything that goes into a call.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The executable.
    pub program: PathBuf,
    /// A program that runs it, with its arguments (`setpriv …`); mostly empty.
    pub through: Vec<String>,
    /// Its whole environment; nothing is inherited.
    pub env: Vec<(String, OsString)>,
    /// Its stdin.
    pub stdin: Vec<u8>,
    /// Its stdout.
    pub stdout: Stdout,
}

/// What a call left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code, or `None` when a signal ended it.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// The error object of specification section 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// `code`.
    pub code: u64,
    /// `msg`.
    pub msg: String,
    /// `details`, empty when absent.
    pub details: String,
}

impl Outcome {
    /// stdout as one JSON document.
    ///
    /// # Errors
    /// stdout is empty, not JSON, or more than one document.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("stdout is not one JSON document: {self:?}"))
    }

    /// The result of a successful ADD.
    ///
    /// # Errors
    /// Another exit code than 0, or stdout is not one JSON document.
    pub fn result(&self) -> Result<Value> {
        ensure!(self.exit == Some(0), "plugin failed: {self:?}");
        self.json()
    }

    /// Success of a verb that prints nothing.
    ///
    /// # Errors
    /// Another exit code than 0, or something on stdout.
    pub fn silent(&self) -> Result<()> {
        ensure!(self.exit == Some(0) && self.stdout.is_empty(), "plugin failed or was not silent: {self:?}");
        Ok(())
    }

    /// The error object of a failed verb: exit code 1, one JSON object with a code and a sentence.
    ///
    /// # Errors
    /// The call did not fail in that form.
    pub fn error(&self) -> Result<CniError> {
        ensure!(self.exit == Some(1), "expected exit code 1: {self:?}");
        let json = self.json()?;
        let Some(object) = json.as_object() else { bail!("error is not an object: {self:?}") };
        for key in object.keys() {
            ensure!(
                ["cniVersion", "code", "msg", "details"].contains(&key.as_str()),
                "unknown key {key:?} in the error: {self:?}"
            );
        }
        let code = json["code"].as_u64().with_context(|| format!("error without a code: {self:?}"))?;
        let msg = json["msg"].as_str().with_context(|| format!("error without a sentence: {self:?}"))?;
        Ok(CniError { code, msg: msg.into(), details: json["details"].as_str().unwrap_or_default().into() })
    }

    /// Whether stderr holds the trace of a panic, in Rust's or in Go's words.
    pub fn panicked(&self) -> bool {
        self.stderr.contains("panicked at")
            || self.stderr.contains("goroutine ")
            || self.stderr.contains("panic:")
    }
}

/// Starts the program inside `netns` without waiting for it; stdin is written and closed.
///
/// # Errors
/// The program cannot be started.
pub fn spawn(netns: &Netns, call: &Invocation) -> Result<Child> {
    let mut command = match call.through.split_first() {
        None => Command::new(&call.program),
        Some((wrapper, args)) => {
            let mut command = Command::new(wrapper);
            command.args(args).arg(&call.program);
            command
        }
    };
    command.env_clear().envs(call.env.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    match call.stdout {
        Stdout::Read => command.stdout(Stdio::piped()),
        Stdout::Closed => {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
            drop(reader);
            command.stdout(writer)
        }
        Stdout::Full => command.stdout(std::fs::File::create("/dev/full").context("open /dev/full")?),
    };
    let mut child = netns
        .run(|| command.spawn())
        .context("enter the host namespace")?
        .with_context(|| format!("start {}", call.program.display()))?;
    drop(command);
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that fails before it reads stdin closes the pipe: no business of ours.
        let _ = stdin.write_all(&call.stdin);
    }
    Ok(child)
}

/// Reads what a started program prints until it ends.
///
/// # Errors
/// It did not end in time (it is killed then).
pub fn finish(mut child: Child, started: Instant) -> Result<Outcome> {
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while out.is_some() || err.is_some() {
        let (out_ready, err_ready) = {
            let mut fds = Vec::new();
            fds.extend(out.as_ref().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)));
            fds.extend(err.as_ref().map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)));
            let left = DEADLINE.saturating_sub(started.elapsed());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut fds, timeout).context("poll")? == 0 {
                let _ = child.kill();
                let _ = child.wait();
                bail!("plugin ran longer than {DEADLINE:?}; stderr {:?}", String::from_utf8_lossy(&stderr));
            }
            let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
            (out.is_some() && ready.next().unwrap_or(false), err.is_some() && ready.next().unwrap_or(false))
        };
        if out_ready && !read_some(out.as_mut(), &mut stdout)? {
            out = None;
        }
        if err_ready && !read_some(err.as_mut(), &mut stderr)? {
            err = None;
        }
    }
    let status = child.wait().context("wait for the plugin")?;
    Ok(Outcome {
        exit: status.code(),
        signal: status.signal(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        took: started.elapsed(),
    })
}

/// One read; false at the end of the stream.
fn read_some(stream: Option<&mut impl Read>, into: &mut Vec<u8>) -> Result<bool> {
    let Some(stream) = stream else { return Ok(false) };
    let mut buffer = [0; 8192];
    let n = uninterrupted(|| stream.read(&mut buffer)).context("read the plugin's output")?;
    into.extend_from_slice(&buffer[..n]);
    Ok(n > 0)
}

/// Starts a program and waits for its end.
///
/// # Errors
/// It cannot be started, or did not end in time.
pub fn run(netns: &Netns, call: &Invocation) -> Result<Outcome> {
    let started = Instant::now();
    finish(spawn(netns, call)?, started)
}
