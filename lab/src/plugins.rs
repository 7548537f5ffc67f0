//! The CNI plugins as a lab calls them: where they are, what a pod is called towards them, ADD and DEL.
//!
//! Called on a node, in its namespace. What a plugin did not do is told, not repaired.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use cni::runtime::{Added, Attachment, Network, Runtime, Transcript};
use kernel::Mac;
use serde_json::{Value, json};

use crate::construct::{IFNAME, netns_path};
use crate::topology::{Topology, pod_mac};

/// Where the lab has a name for every plugin of the podnet beside podlab.
pub const DIR: &str = "/run/podlab/bin";
/// How long a plugin may take before it is killed.
const LIMIT: Duration = Duration::from_secs(60);

/// The directories that plugins are found in: those of the topology, or one in the capsule with every name
/// of the podnet that stands beside podlab.
///
/// # Errors
/// There is no podnet beside podlab.
pub fn path(topology: &Topology) -> Result<Vec<PathBuf>> {
    if !topology.cni_bin.is_empty() {
        return Ok(topology.cni_bin.clone());
    }
    let beside = beside("podnet").map_err(|err| anyhow!("{err}, or --cni-bin DIR"))?;
    let dir = PathBuf::from(DIR);
    let list = Command::new(&beside).arg("list").output().context("podnet list")?;
    let names = String::from_utf8_lossy(&list.stdout).into_owned();
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        symlink(&beside, dir.join(name)).with_context(|| format!("plugin {name}"))?;
    }
    Ok(vec![dir])
}

/// The program of that name beside podlab.
///
/// # Errors
/// There is none.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe().context("find podlab itself")?.with_file_name(name);
    if !path.is_file() {
        bail!("no {name} beside podlab ({}) · try: cargo build --release", path.display());
    }
    Ok(path)
}

/// The form of a transcript.
const CALL_SCHEMA: &str = "podlab.call/1";
/// The capsule's own directory of transcripts, a file for each node.
const TRANSCRIPTS: &str = "/run/podlab/cni";

/// Every call of a plugin since the lab was made, a document in a line each, the nodes one after the other.
///
/// # Errors
/// A file that cannot be read.
pub fn transcripts() -> Result<Vec<u8>> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(TRANSCRIPTS)? {
            paths.push(entry?.path());
        }
        paths.sort();
        let mut all = Vec::new();
        for path in paths {
            all.extend(std::fs::read(path)?);
        }
        Ok(all)
    };
    match read() {
        // No pod was ever made.
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.with_context(|| format!("read {TRANSCRIPTS}")),
    }
}

/// One node's network and how its plugins are run.
pub struct Plugins {
    node: String,
    network: Network,
    runtime: Runtime,
    lab: String,
    index: usize,
    /// The MAC of every pod so far, for plugins that take one.
    macs: RefCell<BTreeMap<String, Mac>>,
    /// host-local's `dataDir`, where it is as the built-in configuration or the node's agent says.
    reserved: PathBuf,
}

impl Plugins {
    /// Of node `index`; where the mode has a root on the node, its own plugins and the network that a runtime takes there.
    ///
    /// # Errors
    /// What is no network configuration.
    pub fn new(topology: &Topology, index: usize, path: Vec<PathBuf>) -> Result<Self> {
        let node = topology.node_name(index).to_owned();
        let (network, path, reserved) = match topology.mode.root(&node) {
            Some(root) => (
                Network::load_first(&root.join("etc/cni/net.d"))?,
                vec![root.join("opt/cni/bin")],
                root.join("var/lib/cni/networks"),
            ),
            None => (
                Network::parse(topology.network(index).as_bytes())?,
                path,
                Path::new("/run/podlab/ipam").join(&node),
            ),
        };
        Ok(Self {
            node,
            network,
            reserved,
            runtime: Runtime { path, cache: None, timeout: Some(LIMIT) },
            lab: topology.name.clone(),
            index,
            macs: RefCell::default(),
        })
    }

    /// The container id of a pod, as a runtime would make one up; here it follows from the names.
    pub fn container_id(&self, pod: &str) -> String {
        format!("{}-{pod}", self.lab)
    }

    /// What a pod is called towards the plugins, with the arguments that a kubelet passes.
    fn attachment(&self, pod: &str) -> Attachment {
        let mut macs = self.macs.borrow_mut();
        let number = macs.len();
        let mac = *macs.entry(pod.to_owned()).or_insert_with(|| pod_mac(self.index, number));
        let args = [("IgnoreUnknown", "1"), ("K8S_POD_NAMESPACE", "default"), ("K8S_POD_NAME", pod)];
        Attachment {
            container_id: self.container_id(pod),
            ifname: IFNAME.to_owned(),
            netns: netns_path(pod),
            capability_args: [("mac".to_owned(), mac.to_string().into())].into_iter().collect(),
            args: args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    /// CNI ADD of a pod.
    ///
    /// # Errors
    /// The plugin's words, with all that went into it and came out.
    pub fn add(&self, pod: &str) -> Result<Added> {
        let report = self.runtime.add_list(&self.network, &self.attachment(pod));
        self.remember(pod, &report.calls)?;
        report.outcome.map_err(|err| {
            let call = report.calls.iter().find(|call| call.exit != Some(0));
            let call = call.map(transcript).unwrap_or_default();
            anyhow!("{}: CNI ADD of pod {pod} to network {:?}: {err}{call}", self.node, self.network.name)
        })
    }

    /// Adds calls to the node's transcripts, a document in a line each.
    fn remember(&self, pod: &str, calls: &[Transcript]) -> Result<()> {
        let mut lines = Vec::new();
        for call in calls {
            let line = json!({ "schema": CALL_SCHEMA, "node": self.node, "pod": pod, "call": call });
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        let path = Path::new(TRANSCRIPTS).join(&self.node).with_extension("ndjson");
        let append = || -> std::io::Result<()> {
            std::fs::create_dir_all(TRANSCRIPTS)?;
            OpenOptions::new().create(true).append(true).open(&path)?.write_all(&lines)
        };
        append().with_context(|| format!("write {}", path.display()))
    }

    /// CNI DEL of a pod, with the result of its ADD or null.
    ///
    /// # Errors
    /// The plugin's words.
    pub fn del(&self, pod: &str, result: &Value) -> Result<()> {
        let result = Some(result).filter(|result| !result.is_null());
        let report = self.runtime.del_list(&self.network, &self.attachment(pod), result);
        self.remember(pod, &report.calls)?;
        report.outcome.map_err(|err| anyhow!("CNI DEL of pod {pod}: {err}"))
    }

    /// The addresses that the node's host-local still holds, where it keeps them as expected.
    pub fn reservations(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.reserved.join(&self.network.name)).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }
}

/// A plugin's call as text: what went in and came out.
fn transcript(call: &Transcript) -> String {
    let env: Vec<String> = call.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let exit = call.exit.map_or_else(|| "no exit code".to_owned(), |code| format!("exit {code}"));
    format!(
        "\n  plugin: {}\n  env:    {}\n  stdin:  {}\n  stdout: {}\n  stderr: {}\n  {exit} after {:.1} ms",
        call.plugin.display(),
        env.join(" "),
        call.stdin.trim(),
        call.stdout.trim(),
        call.stderr.trim(),
        call.ms
    )
}
