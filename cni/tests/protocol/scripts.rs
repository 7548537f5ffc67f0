//! Plugins that are shell scripts, in a directory of their own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory with plugins; it goes away with the value.
pub(crate) struct Scripts {
    dir: TempDir,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::with_prefix("podnet-cni-").unwrap() }
    }

    /// Where the scripts are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// CNI_PATH with an empty directory before it.
    pub(crate) fn path(&self) -> Vec<PathBuf> {
        vec![self.dir().join("none"), self.dir().to_owned()]
    }

    /// A plugin with this body; it finds its directory in `$DIR`.
    pub(crate) fn add(&self, name: &str, body: &str) -> PathBuf {
        let path = self.dir().join(name);
        let text = format!("#!/bin/sh\nDIR={}\n{body}\n", self.dir().display());
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o755).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }

    /// A plugin that appends `NAME COMMAND` to the file `log`, keeps its stdin in `NAME.COMMAND`, and does
    /// `add` on ADD.
    pub(crate) fn logging(&self, name: &str, add: &str) -> PathBuf {
        let head =
            format!("cat > \"$DIR/{name}.$CNI_COMMAND\"; echo \"{name} $CNI_COMMAND\" >> \"$DIR/log\"");
        self.add(name, &format!("{head}\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n{add}"))
    }

    /// A file of the directory, or the empty text.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap_or_default()
    }

    /// The lines of `log`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.read("log").lines().map(str::to_owned).collect()
    }
}
