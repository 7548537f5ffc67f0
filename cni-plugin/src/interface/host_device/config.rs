//! The configuration of `host-device`: as written (`Written`), and resolved (`HostDeviceConfig`).

use cni::{Call, Dns, Error};
use kernel::Mac;
use kernel::Rtnl;
use kernel::link::{self, Link};
use serde::Deserialize;

use super::sysfs::{Bus, Sysfs};
use crate::interface::attach::failed;
use crate::interface::dns::WrittenDns;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    device: String,
    hwaddr: String,
    kernelpath: String,
    #[serde(rename = "pciBusID")]
    pci_bus_id: String,
    dns: WrittenDns,
    runtime_config: RuntimeConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    #[serde(rename = "deviceID")]
    device_id: String,
}

/// Which device it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// The link of this name.
    Named(String),
    /// The first link with this MAC.
    WithMac(Mac),
    /// The link at a path below `/sys/devices`.
    At(String),
    /// The link of a device on a bus.
    On(Bus, String),
    /// A PCI device that a program in user space drives: there is no link to move.
    InUserSpace(String),
}

/// A complete, valid configuration of one attachment.
#[derive(Debug)]
pub(super) struct HostDeviceConfig {
    /// The device.
    pub(super) device: Device,
    /// DNS of the configuration; replaces the IPAM's when any key of it was written.
    pub(super) dns: Option<Dns>,
}

impl HostDeviceConfig {
    /// Reads and checks the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 when no device is named or what names it is not valid.
    pub(super) fn resolve(call: &Call, sysfs: Sysfs<'_>) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        Ok(Self { device: written.device(sysfs)?, dns: written.dns.chosen() })
    }

    /// Whether the runtime is to name the device, and has not: STATUS is not about one container.
    pub(super) fn awaits_runtime(call: &Call) -> bool {
        let named = |written: Written| {
            let keys = [written.device, written.hwaddr, written.kernelpath, written.pci_bus_id];
            keys.iter().chain([&written.runtime_config.device_id]).any(|key| !key.is_empty())
        };
        let asked =
            call.conf.capabilities.iter().any(|(key, on)| *on && key.eq_ignore_ascii_case("deviceID"));
        asked && call.conf_as::<Written>().is_ok_and(|written| !named(written))
    }
}

impl Written {
    /// The device that the keys name; of several, the order is the reference's.
    fn device(&self, sysfs: Sysfs<'_>) -> Result<Device, Error> {
        let mut on_bus = (!self.pci_bus_id.is_empty()).then_some((Bus::Pci, self.pci_bus_id.as_str()));
        let id = self.runtime_config.device_id.as_str();
        if !id.is_empty() {
            on_bus = Some((sysfs.bus_of(id)?, id));
        }
        match on_bus {
            Some((Bus::Pci, pci)) if sysfs.is_in_user_space(pci) => Ok(Device::InUserSpace(pci.to_owned())),
            _ if !self.device.is_empty() => Ok(Device::Named(self.device.clone())),
            _ if !self.hwaddr.is_empty() => self
                .hwaddr
                .parse()
                .map(Device::WithMac)
                .map_err(|_| Error::invalid(format!("failed to parse MAC address {:?}", self.hwaddr))),
            _ if !self.kernelpath.is_empty() => Ok(Device::At(self.kernelpath.clone())),
            Some((bus, id)) => Ok(Device::On(bus, id.to_owned())),
            None => Err(Error::invalid(r#"specify either "device", "hwaddr", "kernelpath" or "pciBusID""#)),
        }
    }
}

impl Device {
    /// The device's link on the node; `None` for one in user space.
    ///
    /// # Errors
    /// There is none, with what was looked for.
    pub(super) fn find(&self, rtnl: &mut Rtnl, sysfs: Sysfs<'_>) -> Result<Option<Link>, Error> {
        let name = match self {
            Device::Named(name) => name.clone(),
            Device::At(path) => sysfs.link_at(path)?,
            Device::On(bus, id) => sysfs.link_on(*bus, id)?,
            Device::WithMac(mac) => {
                let links = link::list(rtnl).map_err(failed("list links of the node"))?;
                let found = links.into_iter().find(|link| link.mac == Some(*mac));
                return found.map(Some).ok_or_else(|| {
                    Error::internal(format!("failed to find host device: no link of the node has MAC {mac}"))
                });
            }
            Device::InUserSpace(_) => return Ok(None),
        };
        let found = link::by_name(rtnl, &name);
        found.map(Some).map_err(failed(format!("failed to find host device {name:?}")))
    }

    /// The PCI address that names it, for the result.
    pub(super) fn pci_id(&self) -> &str {
        match self {
            Device::On(Bus::Pci, id) | Device::InUserSpace(id) => id,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str) -> Result<Device, Error> {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).unwrap();
        make("bus/pci/devices/0000:03:00.0");
        make("bus/pci/devices/0000:03:00.1");
        make("bus/pci/drivers/uio_pci_generic");
        make("bus/auxiliary/devices/mlx5_core.sf.2");
        let driver = root.path().join("bus/pci/drivers/uio_pci_generic");
        std::os::unix::fs::symlink(driver, root.path().join("bus/pci/devices/0000:03:00.1/driver")).unwrap();
        HostDeviceConfig::resolve(&call(keys), Sysfs { root: root.path() }).map(|config| config.device)
    }

    fn call(keys: &str) -> Call {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"host-device"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        Call::new(env, text.into_bytes()).unwrap()
    }

    #[test]
    fn the_first_of_device_hwaddr_kernelpath_and_pci_counts() {
        let (pci, path) = (r#","PCIBusID":"0000:03:00.0""#, r#","kernelpath":"/sys/devices/x""#);
        let (mac, name) = (r#","hwaddr":"02-00-00-00-00-0A""#, r#","device":"ens1""#);
        for (keys, device) in [
            (pci.to_owned(), Device::On(Bus::Pci, "0000:03:00.0".into())),
            (format!("{pci}{path}"), Device::At("/sys/devices/x".into())),
            (format!("{pci}{path}{mac}"), Device::WithMac(Mac([2, 0, 0, 0, 0, 10]))),
            (format!("{pci}{path}{mac}{name}"), Device::Named("ens1".into())),
        ] {
            assert_eq!(resolve(&keys).unwrap(), device, "{keys}");
        }
    }

    #[test]
    fn the_runtimes_device_id_takes_the_place_of_the_pci_address() {
        let id = |id: &str| format!(r#","pciBusID":"0000:03:00.0","runtimeConfig":{{"deviceID":"{id}"}}"#);
        assert_eq!(resolve(&id("0000:03:00.1")).unwrap(), Device::InUserSpace("0000:03:00.1".into()));
        let aux = Device::On(Bus::Auxiliary, "mlx5_core.sf.2".into());
        assert_eq!(resolve(&id("mlx5_core.sf.2")).unwrap(), aux);
        assert_eq!(resolve(&id("")).unwrap(), Device::On(Bus::Pci, "0000:03:00.0".into()));
        assert!(resolve(&id("0000:ff:00.0")).unwrap_err().msg.contains("not found or unsupported"));
    }

    #[test]
    fn what_names_no_device_is_refused() {
        assert!(resolve("").unwrap_err().msg.starts_with("specify either"));
        let error = resolve(r#","hwaddr":"nonsense""#).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (7, r#"failed to parse MAC address "nonsense""#));
    }

    #[test]
    fn a_device_of_the_runtime_is_awaited_only_where_it_is_announced() {
        let capability = r#","capabilities":{"deviceID":true}"#;
        assert!(HostDeviceConfig::awaits_runtime(&call(capability)));
        assert!(!HostDeviceConfig::awaits_runtime(&call("")));
        assert!(!HostDeviceConfig::awaits_runtime(&call(r#","capabilities":{"deviceID":false}"#)));
        assert!(!HostDeviceConfig::awaits_runtime(&call(&format!(r#"{capability},"device":"ens1""#))));
    }
}
