//! The exit codes of `podlab`, in one place.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// All good.
pub const OK: u8 = 0;
/// A check failed.
pub const FAILED: u8 = 1;
/// The command line or the topology is not valid.
pub const USAGE: u8 = 2;
/// No check ran.
pub const NOTHING: u8 = 4;
/// The kernel or a permission lacks a needed feature; `podlab doctor` says which.
pub const LACKING: u8 = 5;
/// Something took too long.
pub const TIMEOUT: u8 = 6;
/// A defect of podlab's own.
pub const BUG: u8 = 70;
/// `exec` and `run`: podlab itself failed.
pub const RUN_FAILED: u8 = 125;
/// `exec` and `run`: the command cannot be run.
pub const NOT_RUNNABLE: u8 = 126;
/// `exec` and `run`: the command was not found.
pub const NOT_FOUND: u8 = 127;

/// The exit code of a command that ended: its own, or 128 and the signal.
pub fn of_status(status: ExitStatus) -> u8 {
    let signal = || 128_i32.saturating_add(status.signal().unwrap_or(0));
    u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(RUN_FAILED)
}

/// The failure of a command that could not be started, with the shell's codes.
pub fn of_spawn(program: &OsStr, err: &io::Error) -> Failure {
    let code = match err.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        io::ErrorKind::PermissionDenied => NOT_RUNNABLE,
        _ if err.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32) => NOT_RUNNABLE,
        _ => RUN_FAILED,
    };
    Failure::new(code, format!("{}: {err}", program.to_string_lossy()))
}

/// An error that knows its exit code.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub code: u8,
    /// What failed, where, the kernel's words, what to try.
    pub text: String,
}

impl Failure {
    /// An error with a code.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// A wrong use of the command line or a topology that is not valid.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(USAGE, text)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(err: anyhow::Error) -> Self {
        match err.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(err) => Failure::new(FAILED, format!("{err:#}")),
        }
    }
}
