//! Lines of a lesson, run as a student would: by `sh -e`, with `podlab` on the path and `PODLAB_NAME` set to the lesson's lab.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::model::Commands;
use crate::exit::{self, Failure};

/// How long lines may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What lines came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ran {
    /// The exit code.
    pub(super) code: u8,
    /// What they printed, on whichever output.
    pub(super) text: String,
}

/// Runs lines. What they have started ends with them.
///
/// # Errors
/// There is no shell, or they take too long.
pub(super) fn run(lab: &str, lines: &str) -> Result<Ran, Failure> {
    let failed = |err: std::io::Error| Failure::new(exit::FAILED, format!("sh: {err}"));
    let own = std::env::current_exe().map_err(failed)?;
    let mut path = own.parent().unwrap_or(&own).as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    let mut command = Command::new("sh");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PODLAB_")) {
        command.env_remove(name);
    }
    let (mut reader, writer) = std::io::pipe().map_err(failed)?;
    command.args(["-e", "-c", lines]).env("PATH", path).env("PODLAB_NAME", lab).env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(failed)?).stderr(writer).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    drop(command);
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was printed until an error is what was printed.
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let ended = await_end(&mut child);
    // Those that were started in the background hold the output.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    if ended.is_none() {
        let _ = child.wait();
    }
    let text = reading.join().unwrap_or_default();
    match ended {
        Some(status) => Ok(Ran { code: exit::of_status(status), text }),
        None => Err(Failure::new(
            exit::TIMEOUT,
            format!("{lines:?} takes longer than {} s in lab {lab}", LIMIT.as_secs()),
        )),
    }
}

fn await_end(child: &mut Child) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

impl Ran {
    /// What is other than it has to be, in words; None when nothing is.
    pub(super) fn differs(&self, exit: u8, words: &[String], without: &[String]) -> Option<String> {
        let missing = words.iter().find(|words| !self.text.contains(words.as_str()));
        let unwanted = without.iter().find(|words| self.text.contains(words.as_str()));
        match (missing, unwanted) {
            _ if self.code != exit => Some(format!("exit {}, not {exit}: {}", self.code, self.last())),
            (Some(words), _) => Some(format!("no {words:?} in: {}", self.last())),
            (_, Some(words)) => Some(format!("{words:?} in: {}", self.last())),
            (None, None) => None,
        }
    }

    /// The last lines, on one.
    pub(super) fn last(&self) -> String {
        const MOST: usize = 6;
        let lines: Vec<&str> = self.text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match lines.len().checked_sub(MOST) {
            _ if lines.is_empty() => "nothing was printed".to_owned(),
            Some(more) if more > 0 => format!("… | {}", lines[more..].join(" | ")),
            _ => lines.join(" | "),
        }
    }
}

impl Commands {
    /// Runs them, and says what is other than the lesson says.
    pub(super) fn run_in(&self, lab: &str) -> Result<(Ran, Option<String>), Failure> {
        let ran = run(lab, &self.run)?;
        let differs = ran.differs(self.exit, &self.words, &self.without);
        Ok((ran, differs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_first_that_fails_and_take_what_they_have_started_with_them() {
        let ran = run("a", "echo $PODLAB_NAME\nsleep 1000 &\necho two >&2\nfalse\necho three").unwrap();
        assert_eq!((ran.code, ran.text.as_str()), (1, "a\ntwo\n"));
        let words = |text: &str| vec![text.to_owned()];
        assert_eq!(ran.differs(1, &words("two"), &words("three")), None);
        assert_eq!(ran.differs(0, &[], &[]).unwrap(), "exit 1, not 0: a | two");
        assert_eq!(ran.differs(1, &words("three"), &[]).unwrap(), "no \"three\" in: a | two");
        assert_eq!(ran.differs(1, &[], &words("two")).unwrap(), "\"two\" in: a | two");
    }
}
