//! `podlab run`: a script in a lab or in a capsule of its own, with what it tells of tests.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::enter::{Surroundings, spawn_in};
use super::{RunArgs, Style};
use crate::capsule;
use crate::control::Client;
use crate::exit::{self, Failure};
use crate::output::Format;
use crate::runner::{self, Job, Print};

pub(super) fn run(args: &RunArgs, style: Style) -> Result<u8, Failure> {
    // Entering a mount namespace leaves the current directory behind, so the script is named in full.
    let script = args.script.canonicalize().map_err(|err| exit::of_spawn(args.script.as_os_str(), &err))?;
    let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let job = Job {
        evidence: evidence(args.evidence.as_deref(), &name)?,
        junit: args.junit.as_deref().map(runner::writable).transpose()?,
        print: match (style.tests, style.format) {
            (Some(tests), _) => Print::Tests(tests),
            (None, Format::Json) => Print::Json,
            (None, Format::Table) => Print::Script,
        },
        lab: args.name.clone(),
        script: name,
    };
    let job = serde_json::to_string(&job).map_err(|err| Failure::usage(format!("a path: {err}")))?;
    let executable = script.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
    let mut command: Vec<OsString> = vec!["/proc/self/exe".into(), runner::RUNNER.into(), job.into()];
    if !executable {
        command.push("sh".into());
    }
    command.push(script.into());
    command.extend(args.args.iter().cloned());
    match &args.name {
        Some(name) => spawn_in(&Client::connect(name)?.enter(None)?, &command, Surroundings::default()),
        None => capsule::run_command(&command),
    }
}

/// A directory that there is not yet, in the one that was asked for or the usual one for temporary files.
fn evidence(within: Option<&Path>, script: &str) -> Result<PathBuf, Failure> {
    let name = format!("podlab-run-{script}-{}", std::process::id());
    let usual = || runner::outside_of_capsules(&std::env::temp_dir().join(&name));
    match within {
        Some(dir) => runner::outside_of_capsules(&dir.join(&name)),
        None => usual().or_else(|_| runner::outside_of_capsules(&Path::new("/tmp").join(&name))),
    }
}
