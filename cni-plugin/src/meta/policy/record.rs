//! What the agent is to know of an attachment: whose its addresses are. One file each, written whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use cni::{Call, Error, Json, args, json};
use serde::Deserialize;

/// An attachment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// The container's id.
    pub(super) container: String,
    /// The interface's name in it.
    pub(super) ifname: String,
    /// The network's name.
    pub(super) network: String,
    /// The interface's addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The pod's namespace; empty for what is no pod of Kubernetes.
    namespace: String,
    /// The pod's name.
    name: String,
    /// The pod's uid, where the runtime gives it.
    uid: String,
}

impl Record {
    /// That of `call`. Both containerd and CRI-O name the pod in CNI_ARGS.
    ///
    /// # Errors
    /// CNI_ARGS that are none.
    pub(super) fn of(call: &Call, addresses: Vec<IpAddr>) -> Result<Self, Error> {
        const INFRA: &str = "K8S_POD_INFRA_CONTAINER_ID";
        let known = ["K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", INFRA];
        let mut found = args::parse(&call.env.args, &known)?;
        let mut take = |key: &str| found.remove(key).unwrap_or_default();
        Ok(Self {
            container: call.env.container_id.clone(),
            ifname: call.env.ifname.clone(),
            network: call.conf.name.clone(),
            addresses,
            namespace: take("K8S_POD_NAMESPACE"),
            name: take("K8S_POD_NAME"),
            uid: take("K8S_POD_UID"),
        })
    }

    /// Container and interface, for messages.
    pub(super) fn id(&self) -> String {
        format!("{} {}", self.container, self.ifname)
    }

    /// As one line of JSON.
    pub(super) fn to_json(&self) -> String {
        let addresses = self.addresses.iter().map(|it| it.to_string().as_str().into()).collect();
        let mut entries = vec![
            ("container".to_owned(), Json::from(self.container.as_str())),
            ("ifname".to_owned(), self.ifname.as_str().into()),
            ("network".to_owned(), self.network.as_str().into()),
            ("addresses".to_owned(), Json::Array(addresses)),
        ];
        for (key, value) in [("namespace", &self.namespace), ("name", &self.name), ("uid", &self.uid)] {
            if !value.is_empty() {
                entries.push((key.to_owned(), value.as_str().into()));
            }
        }
        Json::Object(entries).to_compact()
    }

    /// Writes it in place of one that is there.
    ///
    /// # Errors
    /// The directory or the file cannot be made.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let refuse =
            |err: std::io::Error| Error::internal(format!("write the record {}: {err}", path.display()));
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(refuse)?;
        }
        let fresh = path.with_extension(format!("{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all((self.to_json() + "\n").as_bytes()))
            .and_then(|()| fs::rename(&fresh, path));
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written.map_err(refuse)
    }

    /// Reads it; `None` when there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let refuse = |err: &dyn std::fmt::Display| {
            Error::internal(format!("read the record {}: {err}", path.display()))
        };
        match fs::read(path) {
            Ok(bytes) => json::from_slice(&bytes).map(Some).map_err(|err| refuse(&err)),
            // No attachment has a file of a name that no file can have.
            Err(err)
                if matches!(
                    err.kind(),
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
                ) =>
            {
                Ok(None)
            }
            Err(err) => Err(refuse(&err)),
        }
    }
}

/// All that can be read in a directory, which need not be there.
///
/// # Errors
/// It is there and cannot be read.
pub(super) fn all(dir: &Path) -> Result<Vec<Record>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(|err| Error::internal(format!("read {}: {err}", dir.display())))?,
    };
    let files = entries.flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    Ok(files.filter_map(|path| Record::read(&path).ok().flatten()).collect())
}

/// Removes the file of a record, which need not be there.
///
/// # Errors
/// It stays.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            Err(Error::internal(format!("remove the record {}: {err}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_names_the_pod() {
        let env = cni::Env {
            command: "ADD".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
            args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=a;K8S_POD_UID=u\"1;IP=1.2.3.4".into(),
            ..cni::Env::default()
        };
        let text = r#"{"cniVersion":"1.0.0","name":"net","type":"podnet-policy"}"#;
        let call = Call::new(env, text.into()).unwrap();
        let record =
            Record::of(&call, vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]).unwrap();
        assert_eq!(
            record.to_json(),
            r#"{"container":"c1","ifname":"eth0","network":"net","addresses":["10.1.0.2","fd00::2"],"namespace":"x","name":"a","uid":"u\"1"}"#
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots/c1-eth0.json");
        assert_eq!(Record::read(&path).unwrap(), None);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
        fs::write(dir.path().join("slots/half.json"), "{\"contai").unwrap();
        fs::write(dir.path().join("slots/c1-eth0.77"), record.to_json()).unwrap();
        assert_eq!(all(&dir.path().join("slots")).unwrap(), [record]);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), None);
    }

    #[test]
    fn what_is_no_pod_has_no_name() {
        let env = cni::Env { command: "ADD".into(), container_id: "c1".into(), ..cni::Env::default() };
        let text = r#"{"cniVersion":"1.0.0","name":"net","type":"podnet-policy"}"#;
        let record = Record::of(&Call::new(env, text.into()).unwrap(), Vec::new()).unwrap();
        assert!(!record.to_json().contains("namespace"), "{}", record.to_json());
    }
}
