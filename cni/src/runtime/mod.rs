//! The runtime side: calls a network's plugins for a container, as libcni does.
//!
//! ADD that fails is followed by DEL of every plugin; DEL, GC and STATUS go on after an error and report
//! all of them. Every call is recorded. There is no daemon, no locking between calls, and no choice among
//! several configurations in a directory: that is the caller's business.

mod cache;
mod call;
mod chain;
mod network;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use network::Network;

use crate::error::Error;
use crate::result::CniResult;

/// A container's place in a network, as the runtime names it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_NETNS; empty when it is gone (DEL).
    pub netns: PathBuf,
    /// CNI_ARGS, as keys and values.
    pub args: Vec<(String, String)>,
    /// What the runtime provides for each capability; a plugin gets those that it has enabled.
    pub capability_args: Map<String, Value>,
}

/// How plugins are called.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    /// The directories that plugins are searched in, in order.
    pub path: Vec<PathBuf>,
    /// libcni's cache directory (it uses /var/lib/cni): results are kept in `results/` below it for DEL,
    /// CHECK and GC. `None`: the caller keeps them.
    pub cache: Option<PathBuf>,
    /// How long one call may take before the plugin is killed.
    pub timeout: Option<Duration>,
}

/// What a verb came to, and every call that was made for it, in order.
#[derive(Clone, Debug)]
pub struct Report<T> {
    /// The outcome. An error has the code of the first plugin that failed.
    pub outcome: Result<T, Error>,
    /// The calls.
    pub calls: Vec<Transcript>,
}

/// What ADD of a list came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    /// The last plugin's result as printed, with `cniVersion`: the `prevResult` of CHECK and DEL.
    pub json: Value,
    /// The same in the model of 1.1.0.
    pub result: CniResult,
}

/// One call of a plugin: all that went in and came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// The executable.
    pub plugin: PathBuf,
    /// CNI_COMMAND.
    pub command: String,
    /// The CNI variables that were set; the rest of the environment is inherited.
    pub env: Vec<(String, String)>,
    /// stdin.
    pub stdin: String,
    /// stdout, U+FFFD for what is not UTF-8.
    pub stdout: String,
    /// stderr, likewise.
    pub stderr: String,
    /// The exit code; `None` when a signal ended it or it could not be started.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The time-out was over and it was killed.
    pub timed_out: bool,
    /// How long it ran, in milliseconds, to the microsecond.
    pub ms: f64,
}
