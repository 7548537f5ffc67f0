//! A world whose namespaces belong to a user namespace of their own, as those of a rootless runtime do: plugins run in
//! it without any right on the machine. Made by `unshare` and `nsenter`, as a person would; each namespace is held by a
//! process that ends with the value.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use kernel::netns::Netns;

use crate::plugins::Side;
use crate::world::{Call, World};

/// What a holder runs once its namespaces are made.
const HOLD: [&str; 3] = ["sh", "-c", "echo && exec sleep infinity"];

/// A node with pods in a user namespace.
#[derive(Debug)]
pub struct Rootless {
    /// The world; its calls must go through [`call`](Rootless::call).
    pub world: World,
    /// The node's holder, then those of the pods.
    holders: Vec<Child>,
}

impl Rootless {
    /// A node with so many pods.
    ///
    /// # Errors
    /// The plugins are missing, or this machine makes no user namespaces.
    pub fn new(side: Side, pods: usize) -> Result<Self> {
        let mut rootless = Rootless { world: World::new(side, 0)?, holders: Vec::new() };
        rootless.world.host = rootless.hold(&["unshare", "--user", "--map-root-user", "--net"])?;
        for _ in 0..pods {
            let node = rootless.holders[0].id().to_string();
            let pod = rootless.hold(&["nsenter", "-t", &node, "--user", "unshare", "--net"])?;
            rootless.world.pods.push(pod);
        }
        Ok(rootless)
    }

    /// Starts a holder by `through`; its network namespace.
    fn hold(&mut self, through: &[&str]) -> Result<Netns> {
        let mut holder = Command::new(through[0]);
        holder.args(&through[1..]).args(HOLD).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = holder.spawn().with_context(|| format!("start {through:?}"))?;
        let path = format!("/proc/{}/ns/net", child.id());
        let stdout = child.stdout.take();
        self.holders.push(child);
        let read = stdout.context("stdout")?.read(&mut [0]).context("wait for a holder")?;
        ensure!(read == 1, "{through:?} made no namespace");
        Ok(Netns::open(Path::new(&path))?)
    }

    /// A call of `plugin` for pod `n`, by root of the user namespace.
    ///
    /// # Panics
    /// There is no such pod.
    pub fn call(&self, plugin: &str, verb: &str, n: usize) -> Call<'_> {
        let (node, pod) = (self.holders[0].id().to_string(), self.holders[n + 1].id());
        let call = self.world.call(plugin, verb).container(&format!("c{n}"));
        call.env("CNI_NETNS", format!("/proc/{pod}/ns/net")).through(&["nsenter", "-t", &node, "--user"])
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}
