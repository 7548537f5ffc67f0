//! What the interface was before ADD: a file in the reference's place and form, for DEL of either.
//!
//! Ours also names the network, which the reference passes over: without it GC could not tell whose a file
//! is, and leaves it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni::{Call, Error, Undo, json};
use kernel::Mac;
use kernel::link::{Change, Link};
use serde::Deserialize;

/// The properties that ADD changed, as they were; in the order in which the reference writes them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Backup {
    mac: String,
    promisc: Option<bool>,
    mtu: u32,
    allmulti: Option<bool>,
    #[serde(rename = "txQLen")]
    tx_q_len: Option<u32>,
    network: String,
}

impl Backup {
    /// What `link` has of the properties that `change` will set.
    pub(super) fn of(link: &Link, change: &Change<'_>, network: &str) -> Self {
        let mac = link.mac.filter(|_| change.mac.is_some());
        Self {
            mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
            promisc: change.promisc.map(|_| link.promisc),
            mtu: change.mtu.map_or(0, |_| link.mtu),
            allmulti: change.allmulti.map(|_| link.allmulti),
            tx_q_len: change.txqlen.map(|_| link.txqlen),
            network: network.to_owned(),
        }
    }

    /// The change that brings it all back.
    pub(super) fn change(&self) -> Change<'static> {
        Change {
            mac: self.mac.parse::<Mac>().ok(),
            promisc: self.promisc,
            mtu: Some(self.mtu).filter(|&mtu| mtu != 0),
            allmulti: self.allmulti,
            txqlen: self.tx_q_len,
            ..Change::default()
        }
    }

    /// Writes it. What an earlier `tuning` of the same chain saved is older, and so stays.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn save(&self, path: &Path, undo: &mut Undo) -> Result<(), Error> {
        let before = fs::read(path).ok();
        let older: Backup =
            before.as_ref().and_then(|bytes| json::from_slice(bytes).ok()).unwrap_or_default();
        let refuse =
            |err: std::io::Error| Error::internal(format!("failed to save {}: {err}", path.display()));
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refuse)?;
        }
        let taken_back = path.to_owned();
        undo.push("take back the saved properties", move || {
            match &before {
                Some(bytes) => fs::write(&taken_back, bytes),
                None => fs::remove_file(&taken_back),
            }
            .map_err(|err| format!("{}: {err}", taken_back.display()))
        });
        write(path, older.or(self).to_json().as_bytes()).map_err(refuse)
    }

    /// The same, with what only `newer` has.
    fn or(self, newer: &Self) -> Self {
        Self {
            mac: if self.mac.is_empty() { newer.mac.clone() } else { self.mac },
            promisc: self.promisc.or(newer.promisc),
            mtu: if self.mtu == 0 { newer.mtu } else { self.mtu },
            allmulti: self.allmulti.or(newer.allmulti),
            tx_q_len: self.tx_q_len.or(newer.tx_q_len),
            network: newer.network.clone(),
        }
    }

    /// Reads it; `None` when there is none. One that was cut short restores nothing.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, Error> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(json::from_slice(&bytes).unwrap_or_default())),
            // No attachment has a file of a name that no file can have.
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename) => Ok(None),
            Err(err) if err.kind() == ErrorKind::NotADirectory => Ok(None),
            Err(err) => Err(Error::internal(format!("read {}: {err}", path.display()))),
        }
    }

    fn to_json(&self) -> String {
        let mut lines = Vec::new();
        let mut text = |key: &str, value: &str| lines.push(format!(" {key:?}: {value}"));
        if !self.mac.is_empty() {
            text("mac", &format!("{:?}", self.mac));
        }
        if let Some(on) = self.promisc {
            text("promisc", &on.to_string());
        }
        if self.mtu != 0 {
            text("mtu", &self.mtu.to_string());
        }
        if let Some(on) = self.allmulti {
            text("allmulti", &on.to_string());
        }
        if let Some(len) = self.tx_q_len {
            text("txQLen", &len.to_string());
        }
        text("network", &format!("{:?}", self.network));
        format!("{{\n{}\n}}", lines.join(",\n"))
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(bytes)
}

/// The file of the attachment of `call`.
pub(super) fn path(dir: &Path, call: &Call) -> PathBuf {
    dir.join(name(&call.env.container_id, &call.env.ifname))
}

fn name(container_id: &str, ifname: &str) -> String {
    format!("{container_id}_{ifname}.json")
}

/// Removes the file; absent is success.
///
/// # Errors
/// It is still there, and why.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            Err(Error::internal(format!("remove {}: {err}", path.display())))
        }
        _ => Ok(()),
    }
}

/// GC: removes the files of this network that belong to no valid attachment. Those that name no network, which
/// the reference wrote, stay.
///
/// # Errors
/// Every file that would not go.
pub(super) fn collect(dir: &Path, call: &Call) -> Result<(), Error> {
    let Some(valid) = &call.conf.valid_attachments else { return Ok(()) };
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|err| Error::internal(format!("read directory {}: {err}", dir.display())))?,
    };
    let keep: Vec<String> =
        valid.iter().map(|attachment| name(&attachment.container_id, &attachment.ifname)).collect();
    let stale = entries.filter_map(Result::ok).filter(|entry| {
        let file = entry.file_name().to_string_lossy().into_owned();
        file.ends_with(".json") && !keep.contains(&file)
    });
    let of_network = |path: &PathBuf| match Backup::load(path) {
        Ok(Some(backup)) => backup.network == call.conf.name,
        _ => false,
    };
    Error::join(stale.map(|entry| entry.path()).filter(of_network).map(|path| remove(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_references_with_the_network_behind() {
        let backup = Backup {
            mac: "02:00:00:00:00:01".into(),
            promisc: Some(false),
            mtu: 1500,
            allmulti: Some(true),
            tx_q_len: Some(0),
            network: "net".into(),
        };
        let text = "{\n \"mac\": \"02:00:00:00:00:01\",\n \"promisc\": false,\n \"mtu\": 1500,\n \
                    \"allmulti\": true,\n \"txQLen\": 0,\n \"network\": \"net\"\n}";
        assert_eq!(backup.to_json(), text);
        assert_eq!(json::from_slice::<Backup>(text.as_bytes()), Ok(backup));
        let theirs: Backup = json::from_slice(b"{\n \"mtu\": 1500\n}").unwrap();
        let change = theirs.change();
        assert_eq!((change.mtu, change.mac, change.promisc, change.txqlen), (Some(1500), None, None, None));
    }

    #[test]
    fn what_was_saved_first_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below").join("c_eth0.json");
        let first = Backup { mtu: 1500, network: "net".into(), ..Backup::default() };
        let second = Backup { mtu: 1300, tx_q_len: Some(9), network: "net".into(), ..Backup::default() };
        first.save(&path, &mut Undo::new()).unwrap();
        let mut undo = Undo::new();
        second.save(&path, &mut undo).unwrap();
        let both = Backup { tx_q_len: Some(9), ..first.clone() };
        assert_eq!(Backup::load(&path).unwrap(), Some(both));
        undo.run(&mut Vec::new());
        assert_eq!(Backup::load(&path).unwrap(), Some(first));
    }
}
