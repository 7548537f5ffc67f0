//! Files that are whole or not there: written beside, flushed, renamed, and the directory flushed after.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where a file is written before it gets its name. It begins with a dot and ends in no configuration's extension, so
/// no runtime reads it.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

/// Puts a file in place as a whole, over whatever stood there.
pub(super) fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let draft = beside(path);
    let done = write(&draft, content, mode).and_then(|()| fs::rename(&draft, path));
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done.with_context(|| format!("write {}", path.display()))?;
    flush_parent(path)
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // What a crash has left under this name is not written into, as a plugin may be running from it.
    unless_absent(fs::remove_file(path))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // The mode that was asked for, whatever the umask.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.sync_all()
}

/// Makes what was done to the names of a file's directory last.
pub(super) fn flush_parent(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("flush {}", dir.display()))
}

/// True when it did something, false when there was nothing to do it to.
pub(super) fn unless_absent(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

/// The names in a directory, sorted; none where there is no such directory.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", dir.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", dir.display()))?;
        // A name that is no text is none of ours, nor of a runtime.
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conflist");
        // What a crash left behind is no obstacle.
        fs::write(beside(&path), "half").unwrap();
        put(&path, b"one", 0o644).unwrap();
        let reader = File::open(&path).unwrap();
        put(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // Who has opened the old one reads the old one to its end.
        assert_eq!(io::read_to_string(reader).unwrap(), "one");
        assert_eq!(names(dir.path()).unwrap(), ["a.conflist"]);
    }

    #[test]
    fn a_file_that_cannot_be_put_in_place_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        let err = put(&path, b"x", 0o644).unwrap_err();
        assert!(format!("{err:#}").contains("taken"), "{err:#}");
        assert_eq!(names(dir.path()).unwrap(), ["taken"]);
    }
}
