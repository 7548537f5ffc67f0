//! Programs that run in a namespace: each writes to a file and ends with the value that stands for it; those of a cluster
//! also with the thread that started them, whatever ends that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use kernel::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How much of a program's last words an error repeats, in bytes.
const LAST_WORDS: usize = 4000;

/// A program that runs in a namespace until it is ended; killed when dropped. What it writes goes to a file.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(netns: &Netns, command: &mut Command, log: &Path) -> Result<Running> {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).context("open a log")?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = netns.run(|| command.spawn()).context("enter a namespace")?;
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Running { child: child.with_context(|| format!("start {program}"))?, log: log.to_owned() })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL and waits.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill")?;
        self.child.wait().context("wait")?;
        Ok(())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

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
    ///
    /// # Errors
    /// Likewise.
    pub fn start_as(
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
