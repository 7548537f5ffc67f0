//! Verification and traces on real packets, in namespaces of the test's own.
//!
//! ```text
//!              outside 203.0.113.9
//!                 │ wan0
//!   ┌──────── fabric [lan0] 192.0.2.1 ────────┐
//!   │ eth0 192.0.2.11        192.0.2.12 eth0  │
//!  node1 [cni0 10.244.1.1]      node2 [cni0 10.244.2.1]
//!   ├─ kubia-1 10.244.1.2        ├─ kubia-3 10.244.2.2
//!   └─ kubia-2 10.244.1.3        └─ kubia-4 10.244.2.3
//! ```
//! No capsule, no CNI and no supervisor: those have tests of their own. The containers are threads.

mod bed;
mod capture;
mod causes;
mod faults;
mod oracle;
mod services;
mod trace;
mod verify;
