//! IP addresses of links.
//!
//! No waiting for duplicate address detection: an address that is known to be unique is added with `nodad`.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage};

use crate::error::{Cause, Result};
use crate::rtnl::Rtnl;
use crate::wire;

/// linux/if_addr.h: duplicate address detection is still running.
pub const F_TENTATIVE: u32 = 0x40;
/// linux/if_addr.h: duplicate address detection found the address in use.
pub const F_DADFAILED: u32 = 0x08;
/// linux/if_addr.h: no duplicate address detection.
pub const F_NODAD: u32 = 0x02;
/// linux/if_addr.h: in use while duplicate address detection runs (RFC 4429).
pub const F_OPTIMISTIC: u32 = 0x04;
/// linux/if_addr.h: no route to the address' prefix.
pub const F_NOPREFIXROUTE: u32 = 0x200;

/// linux/if_addr.h, `IFA_*`
mod ifa {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const LOCAL: u16 = 2;
    pub(super) const LABEL: u16 = 3;
    pub(super) const BROADCAST: u16 = 4;
    pub(super) const FLAGS: u16 = 8;
    pub(super) const PROTO: u16 = 11;
}

/// An address as the kernel shows it (RTM_NEWADDR, rtnetlink(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The link that has it.
    pub index: u32,
    /// The address itself, host bits kept, with its prefix length.
    pub net: IpNetwork,
    /// How far it is valid (`RT_SCOPE_*`): 0 everywhere, 253 on the link, 254 on this host.
    pub scope: u8,
    /// `IFA_F_*`, linux/if_addr.h.
    pub flags: u32,
    /// The label, IPv4 only; normally the link's name.
    pub label: Option<String>,
    /// The broadcast address, IPv4 only.
    pub broadcast: Option<Ipv4Addr>,
    /// Who added it (IFA_PROTO, `IFAPROT_*`); 0 where nobody told, or the kernel does not keep it (before Linux 5.18).
    pub protocol: u8,
}

impl Address {
    /// Duplicate address detection has not finished.
    pub fn is_tentative(&self) -> bool {
        self.flags & F_TENTATIVE != 0
    }

    /// Duplicate address detection found another owner.
    pub fn is_dad_failed(&self) -> bool {
        self.flags & F_DADFAILED != 0
    }
}

/// How to add an address.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddrOptions {
    /// IPv6: skip duplicate address detection, so that the address is usable at once. No meaning for IPv4.
    pub nodad: bool,
    /// IPv6: use the address while duplicate address detection runs. The kernel heeds it only where
    /// net.ipv6.conf.NAME.optimistic_dad is on, and not together with `nodad`.
    pub optimistic: bool,
    /// The kernel makes no route to the rest of the address' prefix.
    pub noprefixroute: bool,
    /// `RT_SCOPE_*`; None is everywhere.
    pub scope: Option<u8>,
}

/// The addresses of one link, or of all links of the socket's namespace. `is_not_found()` when the link does not
/// exist.
pub fn list(rtnl: &mut Rtnl, index: Option<u32>) -> Result<Vec<Address>> {
    let mut query = AddressMessage::default();
    query.header.index = index.unwrap_or(0);
    let wanted = |a: &Address| index.is_none_or(|i| i == a.index);
    rtnl.dump(libc::RTM_GETADDR, &query, |payload, all| {
        all.extend(read(payload)?.filter(wanted));
        Ok(())
    })
    .map_err(|c| match index {
        Some(i) => c.about(format!("list addresses of link {i}")),
        None => c.about("list addresses"),
    })
}

/// Adds an address, for IPv4 with the broadcast address of its prefix when that is shorter than 31 bits.
/// `is_exists()` when the link has it.
pub fn add(rtnl: &mut Rtnl, index: u32, net: IpNetwork, options: &AddrOptions) -> Result<()> {
    rtnl.change(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &add_message(index, net, options))
        .map_err(|c| c.about(about_add(index, net)))
}

/// As [`add`], told to the kernel as added by `protocol` (IFA_PROTO), which one before Linux 5.18 forgets.
pub fn add_marked(
    rtnl: &mut Rtnl,
    index: u32,
    net: IpNetwork,
    options: &AddrOptions,
    protocol: u8,
) -> Result<()> {
    let mut m = add_message(index, net, options);
    m.attributes.push(AddressAttribute::Protocol(protocol.into()));
    rtnl.change(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m).map_err(|c| c.about(about_add(index, net)))
}

/// Adds an address just as [`list`] showed it: with its broadcast address or without one, its scope and label, and
/// without duplicate address detection. `is_exists()` when the link has it.
pub fn restore(rtnl: &mut Rtnl, address: &Address) -> Result<()> {
    let noprefixroute = address.flags & F_NOPREFIXROUTE != 0;
    let options =
        AddrOptions { nodad: true, noprefixroute, scope: Some(address.scope), ..AddrOptions::default() };
    let mut m = add_message(address.index, address.net, &options);
    m.attributes.retain(|a| !matches!(a, AddressAttribute::Broadcast(_)));
    m.attributes.extend(address.broadcast.map(AddressAttribute::Broadcast));
    m.attributes.extend(address.label.clone().map(AddressAttribute::Label));
    rtnl.change(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m)
        .map_err(|c| c.about(about_add(address.index, address.net)))
}

/// Deletes an address. `is_not_found()` when the link or its address is not there.
pub fn delete(rtnl: &mut Rtnl, index: u32, net: IpNetwork) -> Result<()> {
    rtnl.change(libc::RTM_DELADDR, 0, &delete_message(index, net))
        .map_err(|c| c.about(about_delete(index, net)))
}

pub(crate) fn about_add(index: u32, net: IpNetwork) -> String {
    format!("add address {net} to link {index}")
}

pub(crate) fn about_delete(index: u32, net: IpNetwork) -> String {
    format!("delete address {net} from link {index}")
}

pub(crate) fn delete_message(index: u32, net: IpNetwork) -> AddressMessage {
    let mut m = AddressMessage::default();
    m.header.family = if net.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    m.header.index = index;
    m.header.prefix_len = net.prefix();
    m.attributes = vec![AddressAttribute::Local(net.ip()), AddressAttribute::Address(net.ip())];
    m
}

pub(crate) fn add_message(index: u32, net: IpNetwork, options: &AddrOptions) -> AddressMessage {
    let mut m = delete_message(index, net);
    m.header.scope = options.scope.unwrap_or(0).into();
    let mut flags = 0;
    match net {
        IpNetwork::V4(v4) if v4.prefix() < 31 => {
            m.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        IpNetwork::V6(_) if options.nodad => flags |= F_NODAD,
        IpNetwork::V6(_) if options.optimistic => flags |= F_OPTIMISTIC,
        _ => {}
    }
    if options.noprefixroute {
        flags |= F_NOPREFIXROUTE;
    }
    if flags != 0 {
        m.attributes.push(AddressAttribute::Flags(AddressFlags::from_bits_retain(flags)));
    }
    m
}

/// Reads an RTM_NEWADDR; None for a family that is no IP.
pub(crate) fn read(payload: &[u8]) -> std::result::Result<Option<Address>, Cause> {
    let header = AddressHeader::parse(payload).map_err(wire::malformed)?;
    let (mut local, mut address, mut label, mut broadcast) = (None, None, None, None);
    let (mut flags, mut protocol) = (u32::from(header.flags.bits()), 0);
    wire::attributes(wire::after(payload, header.buffer_len()), |kind, value| match kind {
        // On a point-to-point link IFA_ADDRESS is the other side; IFA_LOCAL, where present, is always ours.
        ifa::LOCAL => local = wire::to_ip(value),
        ifa::ADDRESS => address = wire::to_ip(value),
        ifa::LABEL => label = Some(wire::to_text(value)),
        ifa::BROADCAST => broadcast = wire::to_ip(value),
        ifa::FLAGS => flags = wire::to_u32(value).unwrap_or(flags),
        ifa::PROTO => protocol = wire::to_u8(value).unwrap_or(0),
        _ => {}
    })?;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return Ok(None);
    }
    let ip = local.or(address).ok_or_else(|| wire::malformed("an address message without address"))?;
    let broadcast = broadcast.and_then(|b| match b {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    Ok(Some(Address {
        index: header.index,
        net: IpNetwork::new(ip, header.prefix_len).map_err(wire::malformed)?,
        scope: header.scope.into(),
        flags,
        label,
        broadcast,
        protocol,
    }))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    fn bytes(net: &str, options: &AddrOptions) -> Vec<u8> {
        let m = add_message(3, net.parse().unwrap(), options);
        let mut out = vec![0xee; m.buffer_len()];
        m.emit(&mut out);
        out
    }

    #[test]
    fn ipv4_message_has_the_broadcast_address_and_no_flags() {
        let expected = [
            2, 24, 0, 0, 3, 0, 0, 0, // ifaddrmsg: family, prefix length, flags, scope, index
            8, 0, 2, 0, 10, 1, 2, 3, // IFA_LOCAL
            8, 0, 1, 0, 10, 1, 2, 3, // IFA_ADDRESS
            8, 0, 4, 0, 10, 1, 2, 255, // IFA_BROADCAST
        ];
        assert_eq!(bytes("10.1.2.3/24", &AddrOptions { nodad: true, ..AddrOptions::default() }), expected);
        let mut expected = expected.to_vec();
        expected.extend([8, 0, 8, 0, 0, 2, 0, 0]); // IFA_FLAGS: IFA_F_NOPREFIXROUTE
        assert_eq!(
            bytes("10.1.2.3/24", &AddrOptions { noprefixroute: true, ..AddrOptions::default() }),
            expected
        );
    }

    #[test]
    fn ipv6_message_asks_for_no_duplicate_address_detection() {
        let ip = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        let mut expected = vec![10, 64, 0, 253, 3, 0, 0, 0];
        expected.extend([20, 0, 2, 0]);
        expected.extend(ip);
        expected.extend([20, 0, 1, 0]);
        expected.extend(ip);
        expected.extend([8, 0, 8, 0, 2, 0, 0, 0]); // IFA_FLAGS: IFA_F_NODAD
        let mut options = AddrOptions { nodad: true, scope: Some(253), ..AddrOptions::default() };
        assert_eq!(bytes("fd00::5/64", &options), expected);
        (options.nodad, options.optimistic) = (false, true);
        expected[52] = 4; // IFA_F_OPTIMISTIC
        assert_eq!(bytes("fd00::5/64", &options), expected);
    }
}
