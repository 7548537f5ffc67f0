//! The policy of one node from end to end: what the agent's loop calls.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kernel::{Nfnl, Rtnl};

use super::apply::{Anew, Applied, Kept};
use super::compile::{Compiler, locals};
use super::cut::{self, Cut};
use super::links;
use super::program::Program;
use super::slots::{self, Request, Slots, Verb};
use crate::model::Cluster;

/// What a call did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was changed in the table.
    pub applied: Applied,
    /// Connections cut and restored.
    pub cut: Cut,
    /// Addresses of this node's pods that are open or isolated.
    pub armed: usize,
    /// Pods that wait for the API to tell of them.
    pub waiting: usize,
    /// What went wrong without harm to the table: records that cannot be read, connections that cannot be cut.
    pub warnings: Vec<String>,
}

/// Keeps the table of one node.
#[derive(Debug)]
pub struct Enforcer {
    node: String,
    records: PathBuf,
    rtnl: Rtnl,
    nfnl: Nfnl,
    compiler: Compiler,
    kept: Kept,
    slots: Slots,
    waiting: Vec<Request>,
    /// Whose connections are still to be judged, since that went wrong the last time.
    uncut: Anew,
}

impl Enforcer {
    /// Of the node of this name, in the calling thread's network namespace, with the records below `root`. The table that
    /// is there stays until the first [`Enforcer::sync`].
    ///
    /// # Errors
    /// The kernel has no nfnetlink, or records cannot be read.
    pub fn open(node: &str, root: &Path) -> Result<Enforcer> {
        let records = root.join(slots::RECORDS);
        let (slots, _) = Slots::read(&records)?;
        Ok(Enforcer {
            node: node.to_owned(),
            records,
            rtnl: Rtnl::open()?,
            nfnl: Nfnl::open()?,
            compiler: Compiler::new(node),
            kept: Kept::new(),
            slots,
            waiting: Vec::new(),
            uncut: Anew::Nobody,
        })
    }

    /// The number by which the kernel names this one's changes ([`kernel::events::Event::Table`]).
    pub fn port(&self) -> u32 {
        self.nfnl.port()
    }

    /// What is programmed.
    pub fn program(&self) -> Option<&Program> {
        self.kept.program()
    }

    /// Makes the table what the cluster asks for, cuts connections that are forbidden by now, and answers plugins whose
    /// pods are armed. To be called when all kinds of objects were listed once, and after every change.
    ///
    /// # Errors
    /// The cluster does not know this node, or the kernel refuses; the table stays as it was.
    pub fn sync(&mut self, cluster: &Cluster) -> Result<Outcome> {
        ensure!(
            cluster.nodes.get(&self.node).is_some_and(|node| !node.pod_cidrs.is_empty()),
            "policy of node {}: the API knows no such node, or no podCIDR of it",
            self.node
        );
        self.slots.tidy(cluster);
        let program = self.compiler.compile(cluster, self.slots.all(), self.slots.released());
        let mut outcome = Outcome::default();
        if self.kept.program().is_none() {
            // Before the rules are there that ask for it.
            self.mark(cluster)?;
        }
        let applied = self.kept.apply(&mut self.nfnl, program);
        outcome.applied = applied.with_context(|| format!("policy of node {}", self.node))?;
        self.uncut |= outcome.applied.anew.clone();
        if self.uncut != Anew::Nobody {
            let locals = locals(cluster, &self.node, self.slots.all(), self.slots.released());
            match cut::cut(&mut self.nfnl, cluster, &locals, &self.uncut) {
                Ok(cut) => (outcome.cut, self.uncut) = (cut, Anew::Nobody),
                Err(error) => outcome.warnings.push(format!("cut connections: {error}")),
            }
        }
        self.answer();
        outcome.armed = self.armed().count();
        outcome.waiting = self.waiting.len();
        Ok(outcome)
    }

    /// Takes what the plugin tells, and makes it so.
    ///
    /// # Errors
    /// As [`Enforcer::sync`]. The plugin is answered by a later one that succeeds, if it still waits.
    pub fn take(&mut self, request: Request, cluster: &Cluster) -> Result<Outcome> {
        match request.verb {
            Verb::Add => {
                // A look at the records may have armed it before the plugin took a former pod's verdicts away.
                self.kept.forget(&request.slot.addresses);
                self.slots.put(request.slot.clone());
            }
            Verb::Del => _ = self.slots.remove(&request.slot),
        }
        self.waiting.push(request);
        self.sync(cluster)
    }

    /// Has the kernel know the pods' links.
    fn mark(&mut self, cluster: &Cluster) -> Result<usize> {
        let cidrs = cluster.nodes.get(&self.node).map(|it| it.pod_cidrs.as_slice()).unwrap_or_default();
        links::mark(&mut self.rtnl, cidrs).with_context(|| format!("links of the pods of node {}", self.node))
    }

    fn armed(&self) -> impl Iterator<Item = IpAddr> {
        self.kept.program().into_iter().flat_map(|it| it.pods.keys().copied())
    }

    /// Answers those that got what they wait for, and forgets those that do not wait any more.
    fn answer(&mut self) {
        let armed: HashSet<IpAddr> = self.armed().collect();
        for request in std::mem::take(&mut self.waiting) {
            if request.verb == Verb::Del || request.slot.addresses.iter().all(|it| armed.contains(it)) {
                request.done();
            } else if !request.is_given_up() {
                self.waiting.push(request);
            }
        }
    }

    /// Looks whether records and table are what they should be and makes them so: to be called when the kernel announces
    /// that another program touched the table (`whole`), and every few seconds. Gives what was other than it should be.
    ///
    /// # Errors
    /// As [`Enforcer::sync`], and that the kernel cannot be asked.
    pub fn repair(&mut self, cluster: &Cluster, whole: bool) -> Result<(Option<String>, Outcome)> {
        let (read, refused) = Slots::read(&self.records)?;
        self.slots.follow(read);
        let mut outcome = self.sync(cluster)?;
        outcome.warnings.extend(refused);
        let marked = if whole { self.mark(cluster)? } else { 0 };
        let drift = self.kept.drift(&mut self.nfnl, whole).context("look at the table of policies")?;
        if drift.is_some() {
            self.kept.distrust();
            outcome = self.sync(cluster)?;
        }
        let unmarked = (marked > 0).then(|| format!("{marked} links of pods were in another device group"));
        Ok((drift.or(unmarked), outcome))
    }
}
