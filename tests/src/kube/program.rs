//! A program of the cluster that runs in a namespace: it writes to a file and ends with the test, whatever ends that.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use kernel::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::nodes::Running;

/// How much of a program's last words an error repeats, in bytes.
const LAST_WORDS: usize = 4000;

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    running: Running,
}

impl Program {
    /// Starts `path` in `netns`; it writes to `NAME.log` in `dir`, behind what an earlier one of the name has written.
    /// It is killed when dropped, and also when the thread that starts it ends (prctl(2), PR_SET_PDEATHSIG).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(netns: &Netns, dir: &Path, path: &Path, arguments: &[String]) -> Result<Program> {
        let name = path.file_name().context("a program has a name")?.to_string_lossy().into_owned();
        Program::start_as(&name, netns, dir, path, arguments)
    }

    /// [`Program::start`] under another name, for one that is brought to where it runs by a second program.
    pub(super) fn start_as(
        name: &str,
        netns: &Netns,
        dir: &Path,
        path: &Path,
        arguments: &[String],
    ) -> Result<Program> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(path).args(arguments).current_dir(dir);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", dir);
        let running = Running::start(netns, &mut command, &dir.join(format!("{name}.log")))?;
        Ok(Program { name: name.to_owned(), running })
    }

    /// Its file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Stops it for a while (SIGSTOP): it answers nobody, and its connections stay.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.running.kill().with_context(|| self.name.clone())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.running.runs()
    }

    /// The end of what it has written, with its name on top.
    pub fn last_words(&self) -> String {
        let log = self.running.log();
        let mut from = log.len().saturating_sub(LAST_WORDS);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        format!("{}: {}", self.name, &log[from..])
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }
}
