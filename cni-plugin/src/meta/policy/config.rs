//! The configuration of `podnet-policy`.

use std::path::{Path, PathBuf};

use cni::{Call, Error};
use serde::Deserialize;

use super::record::Record;

/// Where records and socket are, unless the configuration says otherwise: gone with the node's pods when it starts anew.
const DIRECTORY: &str = "/run/podnet";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    data_dir: String,
}

/// The configuration, complete.
#[derive(Debug)]
pub(super) struct PolicyConfig {
    /// The directory of records.
    pub(super) records: PathBuf,
    /// The agent's socket.
    pub(super) socket: PathBuf,
}

impl PolicyConfig {
    /// Makes a complete value of the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 for a directory that is not absolute.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf.read_as()?;
        let dir = if written.data_dir.is_empty() { DIRECTORY } else { &written.data_dir };
        if !Path::new(dir).is_absolute() {
            return Err(Error::invalid(format!("dataDir {dir:?} is not absolute")));
        }
        Ok(Self::in_dir(Path::new(dir)))
    }

    /// As far as it can be read.
    pub(super) fn for_del(call: &Call) -> Self {
        Self::resolve(call).unwrap_or_else(|_| Self::in_dir(Path::new(DIRECTORY)))
    }

    fn in_dir(dir: &Path) -> Self {
        Self { records: dir.join("slots"), socket: dir.join("agent.sock") }
    }

    /// The file of an attachment.
    pub(super) fn path(&self, container: &str, ifname: &str) -> PathBuf {
        self.records.join(format!("{container}-{ifname}.json"))
    }

    /// The file of a record.
    pub(super) fn path_of(&self, record: &Record) -> PathBuf {
        self.path(&record.container, &record.ifname)
    }
}
