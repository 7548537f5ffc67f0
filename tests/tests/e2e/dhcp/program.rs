//! A program that runs beside a test and whose log is waited for; it ends with the value, whatever the test does.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kernel::netns::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No line takes longer to come.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

/// A running program.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    log: Arc<Log>,
}

impl Program {
    /// Starts it in a namespace, stderr read, with an empty environment but for `env`.
    pub(super) fn start(
        netns: &Netns,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Program> {
        Self::start_with(netns, program, args, env, None)
    }

    /// As [`Program::start`], with a descriptor as its stdin.
    pub(super) fn start_with(
        netns: &Netns,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
        stdin: Option<OwnedFd>,
    ) -> Result<Program> {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(env.iter().copied());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.stdin(stdin.map_or_else(Stdio::null, Stdio::from));
        let mut child =
            netns.run(|| command.spawn())?.with_context(|| format!("start {}", program.display()))?;
        let stderr = child.stderr.take().context("stderr")?;
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(|line| line.ok()) {
                writer.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
                writer.more.notify_all();
            }
            writer.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
            writer.more.notify_all();
        });
        Ok(Program { child, log })
    }

    /// Waits for a line with this text; returns how many have it.
    pub(super) fn wait_for(&self, text: &str) -> Result<usize> {
        self.wait_for_number(text, 1)
    }

    /// Waits until so many lines have this text.
    pub(super) fn wait_for_number(&self, text: &str, number: usize) -> Result<usize> {
        let began = Instant::now();
        let mut lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let count = lines.0.iter().filter(|line| line.contains(text)).count();
            if count >= number {
                return Ok(count);
            }
            let left = DEADLINE.saturating_sub(began.elapsed());
            if left.is_zero() || lines.1 {
                bail!("{count} of {number} lines with {text:?} in:\n{}", lines.0.join("\n"));
            }
            lines = self.log.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many lines so far have this text.
    pub(super) fn count(&self, text: &str) -> usize {
        let lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.iter().filter(|line| line.contains(text)).count()
    }

    /// Everything it said.
    pub(super) fn log(&self) -> String {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).0.join("\n")
    }

    /// The number of the process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal and waits for its end.
    pub(super) fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.child.id() as i32), signal).context("signal")?;
        self.wait()
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > DEADLINE {
                bail!("it does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
