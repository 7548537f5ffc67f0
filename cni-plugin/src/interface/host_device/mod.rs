//! `host-device`: a network device of the node goes into the pod, and comes back with DEL.
//!
//! Order of ADD: configuration, namespace, device, addresses (IPAM: `dhcp` needs the link), the pod's addresses and
//! routes. Each step first notes how to take it back. A PCI device that a program in user space drives (DPDK) has no
//! link: only addresses are reserved for it.
//!
//! GC is the IPAM plugin's: a device in the namespace of a container that is gone comes back by the kernel (to the
//! initial network namespace, if it is hardware; a virtual one is destroyed), and while the namespace lives nobody
//! knows its path.

mod config;
mod sysfs;
mod transfer;

use std::path::Path;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Interface, Undo, code};
use kernel::Rtnl;
use kernel::link::{self, Change, Link};

use super::attach::{self, Announce, Options, failed};
use super::one_link;
use crate::ipam::Ipam;
use config::{Device, HostDeviceConfig};
use sysfs::Sysfs;

/// The plugin.
pub(crate) struct HostDevice;

/// The node's own.
fn sysfs() -> Sysfs<'static> {
    Sysfs { root: Path::new("/sys") }
}

impl Plugin for HostDevice {
    fn name(&self) -> &'static str {
        "host-device"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = HostDeviceConfig::resolve(call, sysfs())?;
        let (netns, mut pod) = attach::open_pod(call)?;
        let ipam = call.conf.ipam_type().is_some().then(|| Ipam::find(call)).transpose()?;
        let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
        let device = config.device.find(&mut rtnl, sysfs())?;
        let moved = device
            .map(|link| transfer::to_pod(&mut rtnl, &link, call, (&netns, &mut pod), undo))
            .transpose()?;

        let mut result = CniResult::default();
        if let Some(ipam) = ipam {
            result = ipam.add(call, undo)?;
            if result.ips.is_empty() {
                return Err(Error::internal("IPAM plugin returned missing IP config"));
            }
        }
        for ip in &mut result.ips {
            ip.interface = Some(0);
        }
        let ifname = call.env.ifname.as_str();
        match &moved {
            Some(link) if result.ips.is_empty() => {
                link::set(&mut pod, link.index, &Change { up: Some(true), ..Change::default() })
                    .map_err(failed(format!("set {ifname:?} up")))?;
            }
            Some(link) => {
                let options = Options { announce: Announce::WhenUp, shared_lan: true, ..Options::default() };
                attach::configure(&netns, &mut pod, (ifname, link.index), &result, options)?;
            }
            None => {}
        }
        result.interfaces = vec![interface(call, &config.device, moved.as_ref())];
        if let Some(dns) = config.dns {
            result.dns = dns;
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        // The reservation first: a DHCP lease is given back through the link. Each is tried whatever became of
        // the other.
        let address = match call.conf.ipam_type() {
            Some(_) => Ipam::find(call).and_then(|ipam| ipam.del(call)),
            None => Ok(()),
        };
        let in_user_space = HostDeviceConfig::resolve(call, sysfs())
            .is_ok_and(|config| matches!(config.device, Device::InUserSpace(_)));
        let device = if in_user_space { Ok(()) } else { transfer::to_node(call) };
        Error::join([address, device])
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = HostDeviceConfig::resolve(call, sysfs())?;
        let mut pod = attach::open_pod(call)?.1;
        if call.conf.ipam_type().is_some() {
            Ipam::find(call)?.check(call)?;
        }
        let previous = attach::prev_result(call)?;
        let (position, recorded) = attach::pod_interface(call, previous)?;
        if matches!(config.device, Device::InUserSpace(_)) {
            return Ok(());
        }
        let ifname = call.env.ifname.as_str();
        let link = attach::check_link(&mut pod, ifname, recorded)?;
        if transfer::former_name(&link).is_none() {
            return Err(Error::internal(format!(
                "{ifname:?} in the pod has no alias with the name that it had on the node"
            )));
        }
        attach::check_addresses(&mut pod, (ifname, link.index), previous, position)?;
        attach::check_routes(&mut pod, previous)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        one_link::gc(call)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        if !HostDeviceConfig::awaits_runtime(call) {
            let config = HostDeviceConfig::resolve(call, sysfs())?;
            let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
            config.device.find(&mut rtnl, sysfs()).map_err(|err| Error { code: code::UNAVAILABLE, ..err })?;
        }
        match call.conf.ipam_type() {
            Some(_) => Ipam::find_for_status(call)?.status(call),
            None => Ok(()),
        }
    }
}

fn interface(call: &Call, device: &Device, link: Option<&Link>) -> Interface {
    Interface {
        name: call.env.ifname.clone(),
        mac: link.and_then(|link| link.mac).map(|mac| mac.to_string()).unwrap_or_default(),
        sandbox: call.env.netns.clone(),
        pci_id: device.pci_id().to_owned(),
        ..Interface::default()
    }
}
