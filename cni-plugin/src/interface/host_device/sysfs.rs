//! Which network device stands behind a PCI address, an auxiliary device or a path of the kernel, as sysfs tells it.
//!
//! The root is an argument, so tests have a tree of their own. Nothing is written.

use std::fs;
use std::path::{Path, PathBuf};

use cni::Error;

/// Drivers that give a device to a program in user space: it has no link then.
const USERSPACE_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// What `runtimeConfig.deviceID` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    /// A PCI device.
    Pci,
    /// An auxiliary device, such as a subfunction of a network card.
    Auxiliary,
}

/// A mounted sysfs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sysfs<'a> {
    /// Where it is mounted: `/sys`.
    pub(super) root: &'a Path,
}

impl Sysfs<'_> {
    fn device(&self, bus: Bus, id: &str) -> PathBuf {
        let bus = match bus {
            Bus::Pci => "pci",
            Bus::Auxiliary => "auxiliary",
        };
        self.root.join("bus").join(bus).join("devices").join(id)
    }

    /// The bus that has a device of this id.
    ///
    /// # Errors
    /// Neither has.
    pub(super) fn bus_of(&self, id: &str) -> Result<Bus, Error> {
        let is_name = !id.contains('/') && !matches!(id, "." | "..");
        let found = [Bus::Pci, Bus::Auxiliary].into_iter().find(|bus| self.device(*bus, id).exists());
        found
            .filter(|_| is_name)
            .ok_or_else(|| Error::invalid(format!("runtime config DeviceID {id} not found or unsupported")))
    }

    /// Whether a program in user space drives the PCI device. One without any driver is nobody's.
    pub(super) fn is_in_user_space(&self, pci: &str) -> bool {
        let driver = fs::canonicalize(self.device(Bus::Pci, pci).join("driver"));
        driver.is_ok_and(|path| {
            path.file_name().is_some_and(|name| USERSPACE_DRIVERS.iter().any(|driver| name == *driver))
        })
    }

    /// The name of the link of a device on a bus. A virtio device has its own below the PCI device.
    ///
    /// # Errors
    /// The device is not there, has no driver, or has no link in the namespace that this sysfs shows.
    pub(super) fn link_on(&self, bus: Bus, id: &str) -> Result<String, Error> {
        let device = self.device(bus, id);
        if let Some(name) = first_entry(&device.join("net")) {
            return Ok(name);
        }
        let virtio = entries(&device).into_iter().filter(|name| name.starts_with("virtio"));
        if let Some(name) = virtio.filter_map(|name| first_entry(&device.join(name).join("net"))).next() {
            return Ok(name);
        }
        let what = match bus {
            Bus::Pci => "pci device",
            Bus::Auxiliary => "auxiliary device",
        };
        let why = if !device.exists() {
            "there is no such device"
        } else if bus == Bus::Pci && !device.join("driver").exists() {
            "no driver is bound to it"
        } else {
            "its link is not in this network namespace"
        };
        Err(Error::internal(format!("no net directory under {what} {id}: {why}")))
    }

    /// The name of the link of the device at a path below `/sys/devices`.
    ///
    /// # Errors
    /// The path is another, or no link is there.
    pub(super) fn link_at(&self, kernelpath: &str) -> Result<String, Error> {
        let inside = kernelpath.strip_prefix("/sys/").filter(|rest| rest.starts_with("devices/"));
        let Some(inside) = inside.filter(|rest| !rest.split('/').any(|part| part == "..")) else {
            return Err(Error::invalid(format!(
                "kernel device path {kernelpath:?} must be absolute and begin with /sys/devices/"
            )));
        };
        let net = self.root.join(inside).join("net");
        first_entry(&net)
            .ok_or_else(|| Error::internal(format!("failed to find network device in path {kernelpath}/net")))
    }
}

fn first_entry(dir: &Path) -> Option<String> {
    entries(dir).into_iter().next()
}

/// The names in a directory in order; none when it cannot be read.
fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A card with two functions (the first virtual, the second in user space), a virtio card, one without a driver,
    /// and a subfunction on the auxiliary bus.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(dir.path().join(path)).unwrap();
        let card = "devices/pci0000:00/0000:03:00.0";
        make("bus/pci/devices");
        make("bus/auxiliary/devices");
        for driver in ["mlx5_core", "vfio-pci", "virtio-pci"] {
            make(&format!("bus/pci/drivers/{driver}"));
        }
        make(&format!("{card}/net/ens1v0"));
        make("devices/pci0000:00/0000:03:00.1");
        make("devices/pci0000:00/0000:00:04.0/virtio1/net/ens4");
        make("devices/pci0000:00/0000:00:05.0");
        make(&format!("{card}/mlx5_core.sf.2/net/ens1sf2"));
        for (name, driver) in [
            ("0000:03:00.0", Some("mlx5_core")),
            ("0000:03:00.1", Some("vfio-pci")),
            ("0000:00:04.0", Some("virtio-pci")),
            ("0000:00:05.0", None),
        ] {
            let device = dir.path().join("devices/pci0000:00").join(name);
            symlink(&device, dir.path().join("bus/pci/devices").join(name)).unwrap();
            if let Some(driver) = driver {
                symlink(dir.path().join("bus/pci/drivers").join(driver), device.join("driver")).unwrap();
            }
        }
        let aux = "mlx5_core.sf.2";
        symlink(dir.path().join(card).join(aux), dir.path().join("bus/auxiliary/devices").join(aux)).unwrap();
        dir
    }

    #[test]
    fn a_device_is_found_by_what_it_is_on() {
        let dir = tree();
        let sysfs = Sysfs { root: dir.path() };
        assert_eq!(sysfs.link_on(Bus::Pci, "0000:03:00.0").unwrap(), "ens1v0");
        assert_eq!(sysfs.link_on(Bus::Pci, "0000:00:04.0").unwrap(), "ens4");
        assert_eq!(sysfs.link_on(Bus::Auxiliary, "mlx5_core.sf.2").unwrap(), "ens1sf2");
        assert_eq!(sysfs.link_at("/sys/devices/pci0000:00/0000:03:00.0").unwrap(), "ens1v0");
    }

    #[test]
    fn what_has_no_link_is_named_with_the_reason() {
        let dir = tree();
        let sysfs = Sysfs { root: dir.path() };
        for (id, words) in [
            ("0000:ff:00.0", "there is no such device"),
            ("0000:00:05.0", "no driver is bound to it"),
            ("0000:03:00.1", "its link is not in this network namespace"),
        ] {
            let error = sysfs.link_on(Bus::Pci, id).unwrap_err();
            assert!(error.msg.contains(words) && error.msg.contains(id), "{error}");
        }
        assert!(
            sysfs.link_at("/sys/devices/pci0000:00/0000:00:05.0").unwrap_err().msg.contains("00:05.0/net")
        );
    }

    #[test]
    fn a_path_outside_of_sys_devices_is_refused() {
        let dir = tree();
        let sysfs = Sysfs { root: dir.path() };
        for path in
            ["devices/x", "/sys/class/net/eth0", "/etc", "/sys/devices/../class/net/eth0", "/sys/devices"]
        {
            assert_eq!(sysfs.link_at(path).unwrap_err().code, 7, "{path}");
        }
    }

    #[test]
    fn a_device_id_is_looked_for_on_both_buses() {
        let dir = tree();
        let sysfs = Sysfs { root: dir.path() };
        assert_eq!(sysfs.bus_of("0000:03:00.1").unwrap(), Bus::Pci);
        assert_eq!(sysfs.bus_of("mlx5_core.sf.2").unwrap(), Bus::Auxiliary);
        for id in ["0000:ff:00.0", "../devices/0000:03:00.1", ".."] {
            let error = sysfs.bus_of(id).unwrap_err();
            assert_eq!(error.msg, format!("runtime config DeviceID {id} not found or unsupported"));
        }
    }

    #[test]
    fn drivers_of_user_space_are_recognised() {
        let dir = tree();
        let sysfs = Sysfs { root: dir.path() };
        let seen = ["0000:03:00.0", "0000:03:00.1", "0000:00:05.0", "0000:ff:00.0"]
            .map(|pci| sysfs.is_in_user_space(pci));
        assert_eq!(seen, [false, true, false, false]);
    }
}
