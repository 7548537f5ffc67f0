//! The sysctl `route_localnet` of the node's link towards a pod: without it the kernel sends no packet with a
//! source in 127.0.0.0/8 out, so a mapping cannot be reached by 127.0.0.1 on the node.
//!
//! It also lets the link's other side reach what listens on the node's loopback addresses; the guard
//! in `table` keeps that out, and says which links were switched on here.

use std::net::IpAddr;

use cni::Error;
use kernel::{Rtnl, route, sysctl};
use nix::net::if_::if_indextoname;

use super::config::{HostIp, PortmapConfig};

/// Whether a mapping of the configuration can be asked for by a loopback address.
pub(super) fn is_needed(config: &PortmapConfig) -> bool {
    let local = |host_ip: HostIp| match host_ip {
        HostIp::Any => true,
        HostIp::AnyOf { v6 } => !v6,
        HostIp::One(ip) => ip.is_ipv4() && ip.is_loopback(),
    };
    config.snat && config.mappings.iter().any(|mapping| local(mapping.host_ip))
}

/// The node's link towards the pod; `None` when no route leads there.
pub(super) fn device(pod: IpAddr) -> Option<String> {
    let mut rtnl = Rtnl::open().ok()?;
    let index = route::lookup(&mut rtnl, pod).ok()?.oif?;
    // Of all that a link is, its name alone, for which the kernel takes no lock.
    if_indextoname(index).ok()?.into_string().ok()
}

fn key(device: &str) -> String {
    format!("net/ipv4/conf/{device}/route_localnet")
}

/// Whether it is off, which is also what cannot be read.
pub(super) fn is_off(device: &str) -> bool {
    sysctl::read(&key(device)).is_ok_and(|value| value != "1")
}

/// Switches it on. Where /proc/sys is read-only the mapping works but for loopback addresses, which is no
/// reason to fail a pod.
///
/// # Errors
/// Another reason of the kernel's.
pub(super) fn switch_on(device: &str) -> Result<(), Error> {
    use nix::errno::Errno;
    match sysctl::ensure(&key(device), "1") {
        Err(err)
            if [Errno::EROFS, Errno::EACCES, Errno::EPERM].iter().any(|e| err.errno() == Some(*e as i32)) =>
        {
            eprintln!("127.0.0.1 on the node will not reach this pod's ports: {err}");
            Ok(())
        }
        Err(err) => Err(Error::internal(format!("unable to enable route_localnet: {err}"))),
        Ok(_) => Ok(()),
    }
}

/// Sets it for links that were switched on here; one that is gone needs nothing.
pub(super) fn set(devices: &[String], on: bool) {
    for device in devices {
        match sysctl::ensure(&key(device), if on { "1" } else { "0" }) {
            Err(err) if !err.is_not_found() => eprintln!("route_localnet of {device:?}: {err}"),
            _ => {}
        }
    }
}
