//! Taking a bundle apart. Nothing is written anywhere: parts are known by their exact names and kept in memory, within
//! limits; any other entry, and any part that is not what the manifest says, has the whole refused.

use std::collections::BTreeMap;
use std::io::{self, Read};

use flate2::read::GzDecoder;
use tar::Archive;

use super::{Bundle, Entry, MANIFEST, Manifest, PARTS, SCHEMA};

/// How much a bundle may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest part, in bytes.
    pub part: u64,
    /// All of the archive when it is unpacked, in bytes.
    pub whole: u64,
}

impl Default for Limits {
    /// The evidence of a lab of a thousand pods, several times.
    fn default() -> Self {
        Self { part: 1 << 30, whole: 2 << 30 }
    }
}

/// Reads a bundle.
///
/// # Errors
/// What is wrong first.
pub fn read(input: impl Read, limits: Limits) -> Result<Bundle, String> {
    let unpacked = Limited { inner: GzDecoder::new(input), left: limits.whole };
    let mut archive = Archive::new(unpacked);
    let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let broken = |err: io::Error| format!("no bundle: {err}");
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !PARTS.contains(&name.as_str()) && name != MANIFEST {
            return Err(format!("{name:?} is no part of a bundle"));
        }
        if !entry.header().entry_type().is_file() {
            return Err(format!("{name} is no regular file"));
        }
        let size = entry.size();
        if size > limits.part {
            return Err(format!("{name} has {size} bytes, more than {}", limits.part));
        }
        let mut part = Vec::new();
        entry.read_to_end(&mut part).map_err(|err| format!("{name}: {err}"))?;
        if parts.insert(name.clone(), part).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    let manifest = parts.remove(MANIFEST).ok_or_else(|| format!("{MANIFEST} is missing"))?;
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|err| format!("{MANIFEST}: {err}"))?;
    if manifest.schema != SCHEMA {
        return Err(format!("{MANIFEST}: schema {:?}, not {SCHEMA:?}", manifest.schema));
    }
    if let Some(unknown) = manifest.parts.keys().find(|name| !PARTS.contains(&name.as_str())) {
        return Err(format!("{MANIFEST}: {unknown:?} is no part of a bundle"));
    }
    let mut all: [Vec<u8>; 8] = Default::default();
    for (name, place) in PARTS.iter().zip(&mut all) {
        let part = parts.remove(*name).ok_or_else(|| format!("{name} is missing"))?;
        let claimed = manifest.parts.get(*name).ok_or_else(|| format!("{MANIFEST} does not name {name}"))?;
        let found = Entry::of(&part);
        if *claimed != found {
            return Err(format!(
                "{name} was changed: {} bytes, SHA-256 {}, and the manifest says {} bytes, {}",
                found.bytes, found.sha256, claimed.bytes, claimed.sha256
            ));
        }
        *place = part;
    }
    Ok(Bundle::of_parts(all))
}

/// Reads no more than there may be: what grows without end when it is unpacked is refused, not cut.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::other("it is larger than a bundle may be when it is unpacked"))?;
        Ok(n)
    }
}
