//! A real kube-apiserver and etcd in namespaces of a test: they are what the tests of the node agent stand on, so these
//! tests are of the harness. Programs come from `scripts/kube-assets`; where they are missing the tests fail.

mod control_plane;
mod life;
mod machine;

use std::net::SocketAddr;

use anyhow::Result;
use kernel::Netns;
use podnet_tests::kube::{self, ControlPlane};

/// A namespace with one address, and a control plane there.
fn start() -> Result<(Netns, ControlPlane)> {
    start_at("10.7.0.1:6443".parse()?)
}

fn start_at(address: SocketAddr) -> Result<(Netns, ControlPlane)> {
    let netns = Netns::create()?;
    let given = format!("addr add {} dev lo", address.ip());
    podnet_tests::world::ip_batch(&netns, &["link set lo up", &given])?;
    let control = ControlPlane::start(&netns, address, &kube::assets(&[])?)?;
    Ok((netns, control))
}
