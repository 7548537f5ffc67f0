//! A real Kubernetes API inside a network namespace: etcd, kube-apiserver and, where they are wanted, the other programs
//! of a control plane; and a client of it that waits.
//!
//! Nothing of it is installed or configured on this machine: certificates are made anew for each control plane, data and
//! logs are in one directory, and every program ends with the value that stands for it, even when its process is killed.
//! Nothing is built here: `scripts/kube-assets` does that, and PODNET_KUBE_ASSETS names the folder.

mod authority;
mod client;
mod control_plane;
mod objects;
mod program;
mod programs;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

pub use client::{Client, Event, Refused, refusal};
pub use control_plane::{ADMIN, ControlPlane};
pub use objects::{condition, node};
pub use program::{Program, Running};
pub use programs::PODS;

/// The folder with `etcd`, `kube-apiserver` and these programs.
///
/// # Errors
/// PODNET_KUBE_ASSETS does not name one; the text says what to run.
pub fn assets(programs: &[&str]) -> Result<PathBuf> {
    let all: Vec<&str> = ["kube-apiserver"].iter().chain(programs).copied().collect();
    let advice = || format!("try: PODNET_KUBE_ASSETS=$(scripts/kube-assets {})", all.join(" "));
    let dir = std::env::var_os("PODNET_KUBE_ASSETS").filter(|value| *value != OsString::new());
    let dir = PathBuf::from(dir.with_context(|| format!("no PODNET_KUBE_ASSETS · {}", advice()))?);
    for name in ["etcd"].iter().chain(&all) {
        let path = dir.join(name);
        ensure!(path.is_file(), "no such file: {} · {}", path.display(), advice());
    }
    Ok(dir)
}
