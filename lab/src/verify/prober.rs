//! Probes without a container: from nodes, which run none, while services are verified, and such as may take as long as a
//! person does. A thread in the namespace does what a pod's sidecar does.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use anyhow::{Context, Result};
use kernel::Netns;

use crate::cluster::Space;
use crate::probe::{Sidecar, serve_sidecar};

/// A prober in a namespace. Its thread ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Prober {
    pub(crate) sidecar: Mutex<Sidecar>,
}

impl Prober {
    pub(crate) fn start(space: &Space) -> Result<Prober> {
        let netns = Netns::from(space.netns.as_fd().try_clone_to_owned()?);
        let (requests, ask) = std::io::pipe()?;
        let (answers, answer) = std::io::pipe()?;
        std::thread::Builder::new()
            .name("prober".into())
            .spawn(move || {
                let files = (File::from(OwnedFd::from(requests)), File::from(OwnedFd::from(answer)));
                // Whoever asks is told by the closed pipe.
                let _ = netns.run(|| serve_sidecar(files.0, files.1));
            })
            .with_context(|| format!("prober of {}", space.name))?;
        let sidecar = Sidecar::new(OwnedFd::from(ask), OwnedFd::from(answers));
        Ok(Prober { sidecar: Mutex::new(sidecar) })
    }
}
