//! A plugin that calls another one, as every main plugin calls its IPAM (specification section 4).
//!
//! The delegate gets the caller's stdin as it was received and the caller's environment with another
//! CNI_COMMAND. There is no time-out, as in the reference: the runtime kills both.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde::Deserialize;

use crate::env::Env;
use crate::error::{Error, code};
use crate::json::{self, Json};
use crate::process;
use crate::result::{CniResult, version_text};
use crate::version::Version;

/// Finds the plugin `name` in the directories of `path`: the first that holds a regular file (or a link to
/// one) of that name. Whether it may be executed shows when it is.
///
/// # Errors
/// The reference's sentences: code 7 for a name that is none, 999 for an empty `path` or not found.
pub fn find(name: &str, path: &[PathBuf]) -> Result<PathBuf, Error> {
    if name.is_empty() {
        return Err(Error::invalid("no plugin name provided"));
    }
    if name.contains('/') {
        return Err(Error::invalid(format!("invalid plugin name: {name}")));
    }
    if path.is_empty() {
        return Err(Error::internal("no paths provided"));
    }
    let mut candidates = path.iter().map(|dir| dir.join(name));
    candidates.find(|file| file.is_file()).ok_or_else(|| {
        let dirs: Vec<String> = path.iter().map(|dir| dir.display().to_string()).collect();
        Error::internal(format!("failed to find plugin {name:?} in path [{}]", dirs.join(" ")))
    })
}

/// Whether `path` is the executable of this very process, under any name: then the caller can do the
/// delegate's work itself instead of starting another process.
pub fn is_self(path: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let own = identity(Path::new("/proc/self/exe"));
    own.is_some() && identity(path) == own
}

/// Runs the plugin at `path` for `command` and returns the result of ADD; of other verbs there is none.
///
/// # Errors
/// The error object that the delegate printed, with its code; code 999 when it could not be started or
/// printed none; code 6 when the result of ADD does not decode.
pub fn exec(path: &Path, command: &str, stdin: &[u8], env: &Env) -> Result<Option<CniResult>, Error> {
    let mut child = Command::new(path);
    child.env("CNI_COMMAND", command);
    for (name, value) in env.variables().into_iter().skip(1) {
        // A variable that is as the caller got it stays so byte for byte, unset ones too.
        let inherited = std::env::var_os(name).unwrap_or_default();
        if inherited.to_string_lossy() != value {
            child.env(name, value);
        }
    }
    let output = process::run(&mut child, stdin, None)
        .map_err(|error| Error::internal(format!("run plugin {}: {error}", path.display())))?;
    if !output.status.success() {
        return Err(failure(output.status, &output.stdout, &output.stderr));
    }
    // The log is best effort.
    let _ = std::io::stderr().write_all(&output.stderr);
    if command != "ADD" {
        return Ok(None);
    }
    CniResult::parse(&output.stdout, config_version(stdin)).map(Some)
}

/// The version that a delegate's result has when it names none.
fn config_version(stdin: &[u8]) -> Version {
    let text = Json::parse(stdin).and_then(|json| version_text(&json)).unwrap_or_default();
    Version::of_config(&text).unwrap_or(Version::CURRENT)
}

/// The error of a plugin that ended with `status`, from what it printed.
pub(crate) fn failure(status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Error {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Written {
        code: u32,
        msg: String,
        details: String,
    }
    let printed = String::from_utf8_lossy(stdout);
    if stdout.is_empty() && stderr.is_empty() {
        let status = describe(status);
        return Error::internal(format!("netplugin failed with no error message: {status}"));
    }
    if stdout.is_empty() {
        let log = String::from_utf8_lossy(stderr);
        return Error::internal(format!("netplugin failed: {log:?}")).with_details(describe(status));
    }
    let why = match json::from_slice::<Written>(stdout) {
        Ok(Written { code: 0, msg, .. }) if msg.is_empty() => "it has neither code nor msg".to_owned(),
        // No error has the code 0.
        Ok(Written { code: 0, msg, details }) => return Error { code: code::INTERNAL, msg, details },
        Ok(Written { code, msg, details }) => return Error { code, msg, details },
        Err(error) => error.to_string(),
    };
    Error::internal(format!("netplugin failed but error parsing its diagnostic message {printed:?}: {why}"))
}

/// The exit status in the words of the reference.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => status.to_string(),
    }
}
