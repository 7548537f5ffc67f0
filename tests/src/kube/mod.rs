//! A real Kubernetes for tests: the control plane of the crate `apiserver`, and nodes with containerd and kubelet.

mod image;
mod kubelet;
mod objects;

pub use apiserver::{ADMIN, Client, ControlPlane, Event, PODS, Program, Refused, assets, condition, refusal};
pub use image::{IMAGE, WHO, who, write_programs};
pub use kubelet::Machine;
pub use objects::{patient, server, web};
