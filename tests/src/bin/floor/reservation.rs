//! One reservation: the lock that both programs of a node must take, a file that must not be there yet, its content.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Holds the lock of a directory of reservations.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    file.lock().context("take the lock")?;
    Ok(file)
}

/// Reserves an address for an owner.
pub(crate) fn reserve(directory: &str, address: &str, id: &str) -> Result<()> {
    let directory = Path::new(directory);
    let _lock = lock(directory)?;
    let path = directory.join(address);
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
    let mut file = file.with_context(|| format!("create {}", path.display()))?;
    file.write_all(format!("{id}\r\neth0").as_bytes()).context("write the owner")
}

/// Releases an address that its owner holds.
pub(crate) fn release(directory: &str, address: &str, id: &str) -> Result<()> {
    let directory = Path::new(directory);
    let _lock = lock(directory)?;
    let path = directory.join(address);
    let owner = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(owner.starts_with(id), "{address} is another's");
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}
