//! TAP devices that outlive their maker, TUN and TAP devices that do not: creation through /dev/net/tun, the only way to have
//! one, and reading back. Nothing here reads or writes frames or packets.

use std::fs::{File, OpenOptions};
use std::io;

use crate::error::{Cause, Result};
use crate::netns::Netns;
use crate::sys;
use crate::wire::{self, ifla};

const DEVICE: &str = "/dev/net/tun";

/// A TAP device to create.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tap<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Several programs, or threads of one, may read and write it at once (IFF_MULTI_QUEUE).
    pub multi_queue: bool,
    /// The user who may attach to it without CAP_NET_ADMIN, as the calling thread's user namespace numbers them.
    pub owner: Option<u32>,
    /// The group whose members may.
    pub group: Option<u32>,
    /// The SELinux context in which it is created. There is no other way to give a device its label than to be in that
    /// context: see [`add`].
    pub label: Option<&'a str>,
}

/// What the kernel shows of a TUN or TAP device (`IFLA_TUN_*`, linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tun {
    /// Frames with Ethernet headers: a TAP device.
    pub tap: bool,
    /// It stays when nobody is attached.
    pub persist: bool,
    /// Several may be attached at once.
    pub multi_queue: bool,
    /// The user who may attach.
    pub owner: Option<u32>,
    /// The group that may attach.
    pub group: Option<u32>,
}

/// Creates a persistent TAP device in `ns`, down, with virtio-net headers and without the protocol's four bytes, which
/// whoever attaches may choose otherwise. `is_exists()` when the name is taken, by whatever kind of link;
/// `lacks()` names what a kernel without TAP devices has not. A process that is killed meanwhile leaves nothing.
///
/// With a label the work is done in a child of this process, forked and not another program: the kernel labels the
/// device with the context of the task that creates it (`selinux_tun_dev_create` looks at no `sockcreate` or `exec`
/// attribute), and a task that has gone into a container's context has no right to come back. The process must have
/// one thread only: SELinux lets no other change its context. `lacks()` says so when SELinux is not running.
pub fn add(ns: &Netns, tap: &Tap<'_>) -> Result<()> {
    let about = |c: Cause| c.about(format!("create link {:?}", tap.name));
    let create = || -> std::result::Result<(), Cause> {
        let file = open()?;
        sys::tap_create(&file, tap).map_err(|e| match e.raw_os_error() {
            // Exclusive creation says so for any link of that name.
            Some(libc::EBUSY) => Cause::errno(libc::EEXIST),
            _ => e.into(),
        })
    };
    let Some(label) = tap.label else { return ns.run(create)?.map_err(about) };
    if !takes_labels() {
        return Err(about(Cause::Lacks("a running SELinux (CONFIG_SECURITY_SELINUX)".into())));
    }
    let enter = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open("/proc/self/attr/current")?;
        io::Write::write_all(&mut file, label.as_bytes())
    };
    ns.run(|| sys::in_child(&[&enter, &|| create().map_err(|c| c.into_io())]))?.map_err(
        |(step, e)| match step {
            Some(0) => Cause::from(e).about(format!("enter SELinux context {label:?}")),
            _ => about(e.into()),
        },
    )
}

/// Creates a TUN device in the calling thread's namespace, down: what is routed to it is read from the file, a packet a
/// time, and what is written to the file has come in on it. It goes when the last descriptor of the file is closed.
/// Reading and writing do not block. `is_exists()` when the name is taken; `lacks()` as [`add`].
pub fn open_tun(name: &str) -> Result<File> {
    open_device(name, libc::IFF_TUN)
}

/// As [`open_tun`], a TAP device: frames with their Ethernet headers, and nothing before them. What is sent out of it is
/// read with its checksum and in single packets, as the device offers the kernel to do neither.
pub fn open_tap(name: &str) -> Result<File> {
    open_device(name, libc::IFF_TAP)
}

fn open_device(name: &str, kind: libc::c_int) -> Result<File> {
    let create = || -> std::result::Result<File, Cause> {
        let file = open()?;
        sys::tun_create(&file, name, kind).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => Cause::errno(libc::EEXIST),
            _ => e.into(),
        })?;
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(file)
    };
    create().map_err(|c| c.about(format!("create link {name:?}")))
}

/// Asks whether TAP devices can be created; nothing is. `lacks()` names what is missing when the kernel has none.
pub fn require() -> Result<()> {
    open().map(drop).map_err(|c| c.about("look for TAP devices"))
}

/// Opening it binds what is created through it to the calling thread's network namespace.
fn open() -> std::result::Result<File, Cause> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|e| match e.raw_os_error() {
        // No file, or a file without a driver behind it.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            Cause::Lacks(format!("tun (CONFIG_TUN), or there is no {DEVICE}"))
        }
        _ => e.into(),
    })
}

/// Whether devices have labels: SELinux runs. A kernel that has it, and was started with it, knows its file system.
pub fn takes_labels() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("selinuxfs"))
}

/// Reads IFLA_INFO_DATA of a link of the kind `tun`.
pub(crate) fn read(data: &[u8]) -> std::result::Result<Tun, Cause> {
    let mut tun = Tun::default();
    let is_on = |value: &[u8]| wire::to_u8(value).is_some_and(|v| v != 0);
    wire::attributes(data, |kind, value| match kind {
        ifla::TUN_OWNER => tun.owner = wire::to_u32(value),
        ifla::TUN_GROUP => tun.group = wire::to_u32(value),
        ifla::TUN_TYPE => tun.tap = wire::to_u8(value) == Some(libc::IFF_TAP as u8),
        ifla::TUN_PERSIST => tun.persist = is_on(value),
        ifla::TUN_MULTI_QUEUE => tun.multi_queue = is_on(value),
        _ => {}
    })?;
    Ok(tun)
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_shows_of_a_tap_is_read() {
        let bytes = [
            8, 0, 1, 0, 0xe8, 3, 0, 0, // IFLA_TUN_OWNER
            8, 0, 2, 0, 0xe9, 3, 0, 0, // IFLA_TUN_GROUP
            5, 0, 3, 0, 2, 0, 0, 0, // IFLA_TUN_TYPE
            5, 0, 4, 0, 0, 0, 0, 0, // IFLA_TUN_PI
            5, 0, 5, 0, 1, 0, 0, 0, // IFLA_TUN_VNET_HDR
            5, 0, 6, 0, 1, 0, 0, 0, // IFLA_TUN_PERSIST
            5, 0, 7, 0, 1, 0, 0, 0, // IFLA_TUN_MULTI_QUEUE
        ];
        let all = Tun { tap: true, persist: true, multi_queue: true, owner: Some(1000), group: Some(1001) };
        assert_eq!(read(&bytes), Ok(all));
        assert_eq!(read(&[5, 0, 3, 0, 1, 0, 0, 0]), Ok(Tun::default()), "a TUN");
        assert!(read(&[9, 0, 3, 0]).is_err());
    }
}
