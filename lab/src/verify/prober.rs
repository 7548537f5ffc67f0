//! Probes from nodes. A node runs no containers, so while services are verified a thread in its namespace does what a
//! pod's sidecar does.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use anyhow::{Context, Result};
use kernel::Netns;

use crate::cluster::Node;
use crate::probe::{Sidecar, serve_sidecar};

/// A prober in a node's namespace. Its thread ends when it is dropped.
#[derive(Debug)]
pub(super) struct Prober {
    pub(super) sidecar: Mutex<Sidecar>,
}

impl Prober {
    pub(super) fn start(node: &Node) -> Result<Prober> {
        let netns = Netns::from(node.space.netns.as_fd().try_clone_to_owned()?);
        let (requests, ask) = std::io::pipe()?;
        let (answers, answer) = std::io::pipe()?;
        std::thread::Builder::new()
            .name("prober".into())
            .spawn(move || {
                let files = (File::from(OwnedFd::from(requests)), File::from(OwnedFd::from(answer)));
                // Whoever asks is told by the closed pipe.
                let _ = netns.run(|| serve_sidecar(files.0, files.1));
            })
            .with_context(|| format!("prober of {}", node.space.name))?;
        let sidecar = Sidecar::new(OwnedFd::from(ask), OwnedFd::from(answers));
        Ok(Prober { sidecar: Mutex::new(sidecar) })
    }
}
