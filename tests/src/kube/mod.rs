//! A real Kubernetes control plane inside network namespaces that a test made: etcd and kube-apiserver, and where the
//! assets hold them the other programs of a cluster.
//!
//! Nothing of it is installed or configured on this machine: certificates are made anew for each control plane, data and
//! logs are in a directory for temporary files, and every program ends with the test, even when that is killed. It
//! builds no program: `scripts/kube-assets` does, and PODNET_KUBE_ASSETS names the folder.

mod authority;
mod client;
mod cluster;
mod control_plane;
mod image;
mod kubelet;
mod objects;
mod program;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

pub use client::{Client, Event, Refused, refusal};
pub use cluster::PODS;
pub use control_plane::{ADMIN, ControlPlane};
pub use image::{IMAGE, write_programs};
pub use kubelet::Machine;
pub use objects::{condition, web};
pub use program::Program;

/// The folder with `etcd`, `kube-apiserver` and these programs.
///
/// # Errors
/// PODNET_KUBE_ASSETS does not name one; the text says what to run.
pub fn assets(programs: &[&str]) -> Result<PathBuf> {
    let all: Vec<&str> = ["kube-apiserver"].iter().chain(programs).copied().collect();
    let advice = || format!("run PODNET_KUBE_ASSETS=$(scripts/kube-assets {})", all.join(" "));
    let dir = std::env::var_os("PODNET_KUBE_ASSETS").filter(|value| *value != OsString::new());
    let dir = PathBuf::from(dir.with_context(|| format!("no PODNET_KUBE_ASSETS: {}", advice()))?);
    for name in ["etcd"].iter().chain(&all) {
        let path = dir.join(name);
        ensure!(path.is_file(), "no such file: {}: {}", path.display(), advice());
    }
    Ok(dir)
}
