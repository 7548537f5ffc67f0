//! The cache of results in libcni's directory and format, so that either side finds what the other wrote.
//!
//! An entry is written to another name and renamed, so a crash leaves the old entry or the new one. The
//! cached configuration is written for libcni; it is not read back here.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Attachment, Network};
use crate::error::{Error, code};

/// The value of `kind` in every entry.
const KIND: &str = "cniCacheV1";

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    kind: String,
    container_id: String,
    config: String,
    if_name: String,
    network_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cni_args: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    capability_args: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

fn path(dir: &Path, network: &Network, attachment: &Attachment) -> PathBuf {
    let name = format!("{}-{}-{}", network.name, attachment.container_id, attachment.ifname);
    dir.join("results").join(name)
}

/// Keeps the result of an ADD.
pub(super) fn write(
    dir: &Path,
    network: &Network,
    attachment: &Attachment,
    result: &Value,
) -> Result<(), Error> {
    let entry = Entry {
        kind: KIND.to_owned(),
        container_id: attachment.container_id.clone(),
        config: base64(&network.bytes),
        if_name: attachment.ifname.clone(),
        network_name: network.name.clone(),
        netns: attachment.netns.to_string_lossy().into_owned(),
        cni_args: attachment.args.clone(),
        capability_args: attachment.capability_args.clone(),
        result: Some(result.clone()),
    };
    let path = path(dir, network, attachment);
    let refuse =
        |error: std::io::Error| Error::new(code::IO, format!("cache result in {}: {error}", path.display()));
    let bytes = serde_json::to_vec(&entry).map_err(|error| refuse(error.into()))?;
    replace(&dir.join("results"), &path, &bytes).map_err(refuse)
}

/// Puts `bytes` at `path` in `dir`, all or nothing.
fn replace(dir: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let fresh = dir.join(format!(".tmp-{}-{number}", std::process::id()));
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// The cached result of an attachment.
pub(super) fn read(dir: &Path, network: &Network, attachment: &Attachment) -> Result<Option<Value>, Error> {
    let path = path(dir, network, attachment);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::new(code::IO, format!("read {}: {error}", path.display()))),
        Ok(bytes) => {
            let entry: Entry = serde_json::from_slice(&bytes)
                .map_err(|error| Error::new(code::DECODING, format!("decode {}: {error}", path.display())))?;
            Ok(entry.result)
        }
    }
}

/// Drops an attachment; absent is success.
pub(super) fn remove(dir: &Path, network: &Network, attachment: &Attachment) -> Result<(), Error> {
    let path = path(dir, network, attachment);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::new(code::IO, format!("remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Every cached attachment of the network with its result, sorted by file name. Files that are no entries
/// are passed over, as in libcni.
pub(super) fn list(dir: &Path, network: &Network) -> Result<Vec<(Attachment, Option<Value>)>, Error> {
    let dir = dir.join("results");
    let refuse =
        |error: std::io::Error| Error::new(code::IO, format!("read directory {}: {error}", dir.display()));
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(refuse)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(refuse)?.path());
    }
    paths.sort();
    let read = |path: &PathBuf| serde_json::from_slice::<Entry>(&fs::read(path).ok()?).ok();
    let own = |entry: &Entry| entry.kind == KIND && entry.network_name == network.name;
    Ok(paths.iter().filter_map(read).filter(own).map(attachment_of).collect())
}

fn attachment_of(entry: Entry) -> (Attachment, Option<Value>) {
    let attachment = Attachment {
        container_id: entry.container_id,
        ifname: entry.if_name,
        netns: entry.netns.into(),
        args: entry.cni_args,
        capability_args: entry.capability_args,
    };
    (attachment, entry.result)
}

/// Standard base64 with padding (RFC 4648, section 4), as Go writes byte slices.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, &byte| group << 8 | u32::from(byte));
        let group = group << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let sextet = (group >> (18 - 6 * position)) & 0x3f;
            out.push(if position <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    out
}
