//! One "host" network namespace, pods beside it, and a data directory: what a runtime sees of a node. Plugins are called
//! in it by [`Call`]; [`World::snapshot`] pictures all that a plugin may have touched.
//!
//! A world starts as the kernel makes it: loopback down, forwarding off. Nothing of it outlives the value.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::facts::{Facts, segment};
use crate::nodes;
use crate::plugins::Side;
use crate::process::{self, Invocation, Outcome, Stdout};
use crate::reader::{self, Names, Reading};
use kernel::netns::Netns;

/// The name of the network in every configuration that does not choose another.
pub const NETWORK: &str = "testnet";

/// A node with pods.
#[derive(Debug)]
pub struct World {
    /// The node's namespace: plugins run in it.
    pub host: Netns,
    /// The pods' namespaces.
    pub pods: Vec<Netns>,
    /// Names and MACs as shown in snapshots.
    pub names: Names,
    dir: TempDir,
    plugins: PathBuf,
}

/// A picture of a world.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `host/…`, `pod0/…`, `data/…`.
    pub facts: Facts,
    /// The host's links and MACs.
    pub host: Reading,
    /// Each pod's links and MACs.
    pub pods: Vec<Reading>,
}

impl World {
    /// A world that runs the plugins of `side`.
    ///
    /// # Errors
    /// The plugins are missing, or namespaces cannot be made.
    pub fn new(side: Side, pods: usize) -> Result<Self> {
        Ok(World {
            host: Netns::create().context("make the host namespace")?,
            pods: (0..pods)
                .map(|_| Netns::create().context("make a pod namespace"))
                .collect::<Result<_>>()?,
            names: Names::default(),
            dir: TempDir::with_prefix("podnet-e2e-").context("make the world's directory")?,
            plugins: side.dir()?,
        })
    }

    /// Goes on with the plugins of the other side.
    ///
    /// # Errors
    /// They are missing.
    pub fn switch(&mut self, side: Side) -> Result<()> {
        self.plugins = side.dir()?;
        Ok(())
    }

    /// A directory of this world alone.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the plugins are.
    pub fn plugins(&self) -> &Path {
        &self.plugins
    }

    /// host-local's `dataDir` in this world; the plugin makes it.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The path a runtime would pass as CNI_NETNS for a pod.
    ///
    /// # Panics
    /// There is no such pod.
    pub fn netns(&self, pod: usize) -> String {
        self.path_of(&self.pods[pod])
    }

    /// The path by which any process can open a namespace that this process holds.
    pub fn path_of(&self, netns: &Netns) -> String {
        nodes::path(netns)
    }

    /// Runs `ip` with a batch of commands in the host namespace.
    ///
    /// # Errors
    /// A command fails.
    pub fn host_ip(&self, commands: &[&str]) -> Result<()> {
        ip_batch(&self.host, commands)
    }

    /// Runs `ip` with a batch of commands in a pod's namespace.
    ///
    /// # Errors
    /// A command fails.
    ///
    /// # Panics
    /// There is no such pod.
    pub fn pod_ip(&self, pod: usize, commands: &[&str]) -> Result<()> {
        ip_batch(&self.pods[pod], commands)
    }

    /// A call of `plugin` with `verb` for pod 0, container `c0`, interface `eth0`, and no configuration yet.
    pub fn call<'w>(&'w self, plugin: &str, verb: &str) -> Call<'w> {
        let call = Call {
            world: self,
            plugin: plugin.to_owned(),
            env: Vec::new(),
            through: Vec::new(),
            stdin: Vec::new(),
            stdout: Stdout::Read,
        };
        let call = call
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c0")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.plugins.clone())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        if self.pods.is_empty() { call } else { call.env("CNI_NETNS", self.netns(0)) }
    }

    /// A configuration text made whole: `{…}` gets cniVersion, name and type in front, `@DATA@` becomes this world's
    /// [`data`](World::data), `@DIR@` its [`dir`](World::dir).
    pub fn config(&self, plugin: &str, version: &str, text: &str) -> String {
        let rest = text.trim_start().strip_prefix('{').unwrap_or(text);
        let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
        let head = format!(r#"{{"cniVersion":"{version}","name":"{NETWORK}","type":"{plugin}"{comma}"#);
        self.fill(&format!("{head}{rest}"))
    }

    /// Replaces `@DATA@`, `@DIR@`, `@PLUGINS@`, `@HOST@` (path of the host's namespace) and `@POD@` (of pod 0's).
    pub fn fill(&self, text: &str) -> String {
        let pod = self.pods.first().map(|pod| self.path_of(pod)).unwrap_or_default();
        text.replace("@DATA@", &self.data().to_string_lossy())
            .replace("@DIR@", &self.dir().to_string_lossy())
            .replace("@PLUGINS@", &self.plugins.to_string_lossy())
            .replace("@HOST@", &self.path_of(&self.host))
            .replace("@POD@", &pod)
    }

    /// A picture of the host, every pod and the data directory.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let host = reader::read(&self.host, &self.names)?;
        let pods = self.pods.iter().map(|pod| reader::read(pod, &self.names)).collect::<Result<Vec<_>>>()?;
        let mut facts = Facts::new();
        facts.absorb("host", host.facts.clone());
        for (i, pod) in pods.iter().enumerate() {
            facts.absorb(&format!("pod{i}"), pod.facts.clone());
        }
        read_tree(&self.data(), "data", &mut facts)?;
        Ok(Snapshot { facts, host, pods })
    }

    /// The addresses that host-local's directory holds for a network, sorted by name.
    ///
    /// # Errors
    /// The directory cannot be read; a missing one holds nothing.
    pub fn reservations(&self, network: &str) -> Result<Vec<String>> {
        reservations(&self.data().join(network))
    }
}

/// The names of the reservations in host-local's directory of one network.
///
/// # Errors
/// The directory cannot be read; a missing one holds nothing.
pub fn reservations(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", dir.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_reservation(&name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a file name in host-local's directory is an address.
pub fn is_reservation(name: &str) -> bool {
    name.parse::<std::net::IpAddr>().is_ok()
}

fn read_tree(dir: &Path, at: &str, facts: &mut Facts) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    facts.put(format!("{at}/"), "directory");
    for entry in entries {
        let entry = entry?;
        let at = format!("{at}/{}", segment(&entry.file_name().to_string_lossy()));
        let Ok(kind) = entry.metadata() else { continue };
        if kind.is_dir() {
            read_tree(&entry.path(), &at, facts)?;
            continue;
        }
        facts.put(format!("{at}/mode"), format!("{:o}", kind.permissions().mode() & 0o7777));
        let content = fs::read(entry.path()).unwrap_or_default();
        facts.put(format!("{at}/content"), String::from_utf8_lossy(&content).escape_default().to_string());
    }
    Ok(())
}

/// Runs `ip` with each of these commands in a namespace.
///
/// # Errors
/// One fails.
pub fn ip_batch(netns: &Netns, commands: &[&str]) -> Result<()> {
    for command in commands {
        let output = netns
            .run(|| Command::new("ip").args(command.split_whitespace()).output())
            .context("enter a namespace")?
            .context("start ip")?;
        ensure!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A call that is being put together.
#[derive(Clone, Debug)]
pub struct Call<'w> {
    world: &'w World,
    plugin: String,
    env: Vec<(String, OsString)>,
    through: Vec<String>,
    stdin: Vec<u8>,
    stdout: Stdout,
}

impl Call<'_> {
    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.env.retain(|(k, _)| k != key);
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// Takes an environment variable away.
    #[must_use]
    pub fn unset(mut self, key: &str) -> Self {
        self.env.retain(|(k, _)| k != key);
        self
    }

    /// For pod `n`: its namespace, and container id `cN`.
    #[must_use]
    pub fn pod(self, n: usize) -> Self {
        let netns = self.world.netns(n);
        self.env("CNI_NETNS", netns).env("CNI_CONTAINERID", format!("c{n}"))
    }

    /// For another container id.
    #[must_use]
    pub fn container(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    /// stdin as bytes.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// stdin from a configuration text, see [`World::config`].
    #[must_use]
    pub fn config(self, version: &str, text: &str) -> Self {
        let whole = self.world.config(&self.plugin, version, text);
        self.stdin(whole)
    }

    /// Puts `prevResult` into the configuration that is there already.
    #[must_use]
    pub fn prev(self, result: &Value) -> Self {
        self.with("prevResult", &result.to_string())
    }

    /// Puts one more key, with a JSON text as its value, at the end of the configuration that is there already.
    ///
    /// # Panics
    /// There is no configuration yet.
    #[must_use]
    pub fn with(self, key: &str, json: &str) -> Self {
        let text = String::from_utf8_lossy(&self.stdin).into_owned();
        let body = text.trim_end().strip_suffix('}').expect("a configuration ends in }");
        let stdin = format!("{body},{key:?}:{json}}}");
        self.stdin(stdin)
    }

    /// Runs the plugin by another program, such as `setpriv`, given with its arguments.
    #[must_use]
    pub fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Where stdout goes.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdout) -> Self {
        self.stdout = stdout;
        self
    }

    /// What would be run.
    pub fn invocation(&self) -> Invocation {
        Invocation {
            program: self.world.plugins.join(&self.plugin),
            through: self.through.clone(),
            env: self.env.clone(),
            stdin: self.stdin.clone(),
            stdout: self.stdout,
        }
    }

    /// Calls the plugin and waits.
    ///
    /// # Errors
    /// It cannot be started or does not end.
    pub fn run(&self) -> Result<Outcome> {
        process::run(&self.world.host, &self.invocation())
    }

    /// Starts the plugin, kills it with SIGKILL at `moment` from now unless it has ended, and waits.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run_killed(&self, moment: std::time::Duration) -> Result<Outcome> {
        let started = Instant::now();
        let mut child = process::spawn(&self.world.host, &self.invocation())?;
        while started.elapsed() < moment {
            std::thread::sleep(moment.saturating_sub(started.elapsed()));
        }
        child.kill().context("kill the plugin")?;
        process::finish(child, started)
    }
}
