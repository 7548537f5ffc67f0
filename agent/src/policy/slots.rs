//! The node's pods as the chained plugin `podnet-policy` knows them: one record for each attachment, and a socket on
//! which the plugin says what it has written and waits until the pod's rules are in the kernel.
//!
//! A record is a file `CONTAINER-IFNAME.json`, written whole by the plugin and read here, never changed:
//! `{"container":"…","ifname":"eth0","network":"podnet","addresses":["10.244.1.2"],"namespace":"x","name":"a",
//! "uid":"…"}`, the last three absent for what is no pod. A request is one line, `{"verb":"add","record":{…}}` or
//! `{"verb":"del","record":{…}}`; the answer is one line, `{"armed":true}`, or `{"error":"…"}`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::model::{Cluster, Key, Pod};

/// Where records are, below the root.
pub const RECORDS: &str = "run/podnet/slots";
/// Where the socket is, below the root.
pub const SOCKET: &str = "run/podnet/agent.sock";

/// A request is no longer than this, in bytes.
const LONGEST: u64 = 64 * 1024;

/// One attachment of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slot {
    /// The container's id.
    pub container: String,
    /// The interface's name in it.
    pub ifname: String,
    /// The interface's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its pod; `None` for what is no pod of Kubernetes.
    pub key: Option<Key>,
    /// The pod's uid as the runtime gave it; empty where it gave none.
    pub uid: String,
}

impl Slot {
    /// Whether the pod of its name is this one: see [`super::compile::locals`].
    pub fn is_of(&self, pod: &Pod) -> bool {
        self.key.as_ref() == Some(&pod.key)
            && (self.uid.is_empty()
                || self.uid == pod.uid
                || pod.ips.iter().any(|it| self.addresses.contains(it)))
    }

    /// The name of its file without the ending.
    pub fn id(&self) -> String {
        format!("{}-{}", self.container, self.ifname)
    }
}

/// A record as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    container: String,
    ifname: String,
    addresses: Vec<IpAddr>,
    namespace: String,
    name: String,
    uid: String,
}

impl From<Written> for Slot {
    fn from(it: Written) -> Slot {
        let pod = !it.namespace.is_empty() && !it.name.is_empty();
        Slot {
            container: it.container,
            ifname: it.ifname,
            addresses: it.addresses,
            key: pod.then_some(Key { namespace: it.namespace, name: it.name }),
            uid: it.uid,
        }
    }
}

/// The node's attachments.
#[derive(Debug, Default)]
pub struct Slots {
    records: BTreeMap<String, Slot>,
    /// Uids of pods whose attachment ended: the API tells their addresses for a while.
    released: HashSet<String>,
}

impl Slots {
    /// Reads all records of a directory; one that is not there has none. What cannot be read as a record is passed over
    /// and named. Where two have one address, the one that was written last counts.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(dir: &Path) -> Result<(Slots, Vec<String>)> {
        let (mut slots, mut refused) = (Slots::default(), Vec::new());
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((slots, refused)),
            entries => entries.with_context(|| format!("read {}", dir.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
            if path.extension().is_none_or(|it| it != "json") {
                continue;
            }
            let read = || -> Result<(SystemTime, Written)> {
                let written = fs::metadata(&path)?.modified()?;
                Ok((written, serde_json::from_slice(&fs::read(&path)?)?))
            };
            match read() {
                Ok(read) => found.push(read),
                // A pod that has ended meanwhile.
                Err(_) if !path.exists() => {}
                Err(error) => refused.push(format!("{}: {error:#}", path.display())),
            }
        }
        found.sort_by_key(|(written, _)| *written);
        for (_, written) in found {
            slots.put(written.into());
        }
        Ok((slots, refused))
    }

    /// An attachment is there. One of before that has one of its addresses is not: the address was given anew.
    pub fn put(&mut self, slot: Slot) {
        self.records.retain(|_, it| !it.addresses.iter().any(|ip| slot.addresses.contains(ip)));
        self.released.remove(&slot.uid);
        self.records.insert(slot.id(), slot);
    }

    /// An attachment is gone; gives what it had.
    pub fn remove(&mut self, slot: &Slot) -> Option<Slot> {
        let gone = self.records.remove(&slot.id())?;
        if !gone.uid.is_empty() {
            self.released.insert(gone.uid.clone());
        }
        Some(gone)
    }

    /// Takes over what the directory has now: what is new, and that what is not in it any more has ended.
    pub fn follow(&mut self, read: Slots) {
        let gone: Vec<Slot> =
            self.records.values().filter(|it| !read.records.contains_key(&it.id())).cloned().collect();
        for slot in &gone {
            self.remove(slot);
        }
        // Among what was read no two have one address.
        for slot in read.records.into_values() {
            self.put(slot);
        }
    }

    /// All that are there.
    pub fn all(&self) -> impl Iterator<Item = &Slot> {
        self.records.values()
    }

    /// Uids of pods whose attachment ended.
    pub fn released(&self) -> &HashSet<String> {
        &self.released
    }

    /// Forgets the ended ones that the API does not know any more.
    pub fn tidy(&mut self, cluster: &Cluster) {
        if !self.released.is_empty() {
            let there: HashSet<&str> = cluster.pods.values().map(|pod| pod.uid.as_str()).collect();
            self.released.retain(|uid| there.contains(uid.as_str()));
        }
    }
}

/// What the plugin tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// An attachment was made and waits to be armed.
    Add,
    /// An attachment is gone.
    Del,
}

#[derive(Debug, Deserialize)]
struct Asked {
    verb: Verb,
    record: Written,
}

/// What the plugin asks, and where the answer goes. Dropped without an answer, the plugin's pod stays closed until it
/// is armed.
#[derive(Debug)]
pub struct Request {
    /// What it tells.
    pub verb: Verb,
    /// Of which attachment.
    pub slot: Slot,
    stream: UnixStream,
}

impl Request {
    /// Answers that it is done: the pod's rules are in the kernel, or gone.
    pub fn done(self) {
        self.answer("{\"armed\":true}\n");
    }

    /// Answers why it is not done.
    pub fn refused(self, why: &str) {
        self.answer(&format!("{}\n", serde_json::json!({ "error": why })));
    }

    /// The plugin does not wait any more.
    pub fn is_given_up(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Ok(0))
    }

    /// The few bytes fit the socket's buffer; who has gone does not want them.
    fn answer(self, line: &str) {
        let _ = self.stream.try_write(line.as_bytes());
    }
}

/// What the plugins ask, in order.
#[derive(Debug)]
pub struct Requests {
    queue: mpsc::Receiver<Request>,
    path: PathBuf,
}

impl Requests {
    /// The next one. It does not end; it can be called again after it was dropped (it is cancel safe).
    pub async fn next(&mut self) -> Request {
        match self.queue.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens on a socket at `path`, for root alone; one that was left there goes. To be called within a tokio runtime.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(path: &Path) -> Result<Requests> {
    let at = || format!("listen on {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(at)?;
    }
    // Bound beside its place and moved there, it is never there with nobody behind it or too open.
    let fresh = path.with_extension(format!("{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).with_context(at)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).with_context(at)?;
    fs::rename(&fresh, path).with_context(at)?;
    let (to, queue) = mpsc::channel(64);
    tokio::spawn(async move {
        while !to.is_closed() {
            // What is out of descriptors comes back to it; a client that has gone is nothing.
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = to.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => _ = tokio::spawn(read(stream, to.clone())),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    });
    Ok(Requests { queue, path: path.to_owned() })
}

async fn read(mut stream: UnixStream, to: mpsc::Sender<Request>) {
    let mut line = String::new();
    let read = BufReader::new((&mut stream).take(LONGEST)).read_line(&mut line).await;
    if read.is_err() {
        return;
    }
    match serde_json::from_str::<Asked>(&line) {
        Ok(asked) => _ = to.send(Request { verb: asked.verb, slot: asked.record.into(), stream }).await,
        Err(error) => {
            let answer = serde_json::json!({ "error": format!("not a request: {error}") });
            let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
        }
    }
}
