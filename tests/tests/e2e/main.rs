//! End-to-end tests, one module per topic. Each runs the real programs in network namespaces of its own; they need root
//! (a missing privilege fails), `ip`, `nft`, `iptables`, `strace`, `setpriv`, and Debian's packages
//! `containernetworking-plugins`, `dnsmasq-base` and `python3-jsonschema`; those of [`kube`] need what
//! `scripts/kube-assets` builds, and `containerd`, `runc` and `busybox-static`.

mod agent;
mod alone;
mod bad_input;
mod budget;
mod chained;
mod cluster;
mod devices;
mod dhcp;
mod docs;
mod everywhere;
mod floor;
mod host_device;
mod hostport;
mod kube;
mod lab;
mod licences;
mod links;
mod matrix;
mod migration;
mod page;
mod parallel;
mod policy;
mod ptp;
mod rollback;
mod rules;
mod specification;
mod tap;
mod verbs;
