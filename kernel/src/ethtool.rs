//! Device offloads, by the ioctl that ethtool(8) uses (SIOCETHTOOL, linux/ethtool.h).
//!
//! Only the switches that a virtual link has and that change what a capture shows; no statistics, no hardware.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Cause, Result};
use crate::sys;

/// An offload that can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offload {
    /// Checks of received checksums left to the device.
    RxChecksum,
    /// Checksums of sent packets left to the device: a capture on the sender shows none.
    TxChecksum,
    /// TCP segmentation left to the device: captures show packets longer than the MTU.
    Tso,
    /// Generic segmentation as late as possible.
    Gso,
    /// Generic receive offload: captures on the receiver show packets put together.
    Gro,
}

impl Offload {
    /// The commands that read and switch it.
    fn commands(self) -> (u32, u32) {
        match self {
            Offload::RxChecksum => (0x14, 0x15),
            Offload::TxChecksum => (0x16, 0x17),
            Offload::Tso => (0x1e, 0x1f),
            Offload::Gso => (0x23, 0x24),
            Offload::Gro => (0x2b, 0x2c),
        }
    }
}

/// Whether an offload is on, for the link `name` of the calling thread's namespace. `is_not_found()` when there is no
/// such link.
pub fn get(name: &str, offload: Offload) -> Result<bool> {
    let value = call(name, offload.commands().0, 0);
    value.map(|v| v != 0).map_err(|c| c.about(format!("read offload {offload:?} of link {name:?}")))
}

/// Switches an offload of the link `name` of the calling thread's namespace. The kernel switches TSO off as well when
/// transmit checksums go.
pub fn set(name: &str, offload: Offload, on: bool) -> Result<()> {
    let word = if on { "on" } else { "off" };
    call(name, offload.commands().1, u32::from(on))
        .map(drop)
        .map_err(|c| c.about(format!("switch offload {offload:?} of link {name:?} {word}")))
}

fn call(name: &str, command: u32, value: u32) -> std::result::Result<u32, Cause> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    Ok(sys::ethtool_value(&fd, name, command, value)?)
}
