//! Devices that a kernel may lack. Each test is named `device_…` and asks `podnet_tests::devices::require` first; those that
//! skip here run in a virtual machine with Debian's kernel (`scripts/vm`), where none may skip.

mod bridge_vlan;
mod decode;
mod dummy;
mod ipvlan;
mod lacking;
mod node;
mod smoke;
mod vlan;
mod vrf;
