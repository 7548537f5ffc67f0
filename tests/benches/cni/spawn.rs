//! Processes and their time. stdin, stdout and stderr are files in memory: no pipe, no thread that serves one.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, Result};
use kernel::netns::Netns;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A program to start, with its whole environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) stdin: Vec<u8>,
}

impl Call {
    /// The same, run by `floor memory`, which writes the peak of its memory to a file.
    pub(crate) fn with_memory(self, floor: &Path, file: &Path) -> Call {
        let head = ["memory".to_owned(), text(file), text(&self.program)];
        let arguments = head.into_iter().chain(self.arguments).collect();
        Call { program: floor.to_path_buf(), arguments, ..self }
    }
}

/// A path as an argument; those of the benchmark are its own and plain.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A process that runs.
pub(crate) struct Started {
    child: Child,
    since: Instant,
    stdout: File,
    stderr: File,
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// From before it was made until it had been waited for.
    pub(crate) micros: f64,
    /// It ended with exit code 0.
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ended {
    /// What it said, for the report of a failure.
    pub(crate) fn words(&self) -> String {
        let words = [&self.stdout[..], &self.stderr[..]].concat();
        let words = String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ");
        words.chars().take(300).collect()
    }
}

fn memory_file(name: &str) -> Result<File> {
    let fd: OwnedFd = memfd_create(name, MFdFlags::MFD_CLOEXEC).context("make a file in memory")?;
    Ok(File::from(fd))
}

fn content(file: &File) -> Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata().context("size of the output")?.len() as usize];
    file.read_exact_at(&mut bytes, 0).context("read the output")?;
    Ok(bytes)
}

/// Starts a program in the calling thread's namespace.
pub(crate) fn start(call: &Call) -> Result<Started> {
    let mut stdin = memory_file("stdin")?;
    stdin.write_all(&call.stdin).context("write stdin")?;
    stdin.rewind().context("rewind stdin")?;
    let (stdout, stderr) = (memory_file("stdout")?, memory_file("stderr")?);
    let copy = |file: &File| file.try_clone().context("copy a descriptor");
    let mut command = Command::new(&call.program);
    command.args(&call.arguments).env_clear();
    command.envs(call.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(stdin).stdout(copy(&stdout)?).stderr(copy(&stderr)?);
    let since = Instant::now();
    let child = command.spawn().with_context(|| format!("start {}", call.program.display()))?;
    Ok(Started { child, since, stdout, stderr })
}

impl Started {
    pub(crate) fn id(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Result<Ended> {
        let status = self.child.wait().context("wait for the program")?;
        let at = Instant::now();
        self.ended(status.success(), at)
    }

    /// What it left, after it has been waited for by its id.
    pub(crate) fn ended(self, success: bool, at: Instant) -> Result<Ended> {
        let micros = at.duration_since(self.since).as_secs_f64() * 1e6;
        Ok(Ended { micros, success, stdout: content(&self.stdout)?, stderr: content(&self.stderr)? })
    }
}

/// Runs a program in a namespace.
pub(crate) fn run(netns: &Netns, call: &Call) -> Result<Ended> {
    netns.run(|| start(call)?.wait()).context("enter the node's namespace")?
}
