//! `podnetd explain`: the command line of [`super::explain`].

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::explain::{self, Asked, Who};
use crate::model::Cluster;

/// Says whether one end may open a connection to another, and which policy and rule decide that.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// Who opens it: NAMESPACE/POD, an address, or node/NAME
    pub source: Who,
    /// To whom: likewise
    pub destination: Who,
    /// The destination's port: a number or a name, with /TCP, /UDP or /SCTP (TCP where none is given)
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub port: Asked,
    /// Reads Pods, Namespaces, Nodes and NetworkPolicies from this file or directory of YAML instead of the
    /// cluster; may be given several times
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Answers as a JSON array
    #[arg(long)]
    pub json: bool,
}

impl Explain {
    /// The cluster of the manifests; `None` where the live one is meant.
    ///
    /// # Errors
    /// As [`explain::from_manifests`].
    pub fn manifests(&self) -> Result<Option<Cluster>> {
        if self.filename.is_empty() { Ok(None) } else { explain::from_manifests(&self.filename).map(Some) }
    }

    /// Writes the answer. True: the connection is allowed, in every IP version.
    ///
    /// # Errors
    /// An end is not in the cluster, or nobody takes the answer.
    pub fn run(&self, cluster: &Cluster, out: &mut dyn Write) -> Result<bool> {
        let all = explain::explain(cluster, &self.source, &self.destination, &self.port)?;
        let text = if self.json { serde_json::to_string_pretty(&all)? + "\n" } else { explain::text(&all) };
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write the answer")?;
        Ok(all.iter().all(|one| one.allowed))
    }
}
