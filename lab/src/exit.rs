//! The exit codes of `podlab`, in one place.

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
