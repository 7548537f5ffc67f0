//! What the kernel's IP configuration says of all links of a namespace (linux/netconf.h). A look here takes neither the
//! kernel's routing lock nor a walk through /proc/sys, whose cost grows with the namespaces of the machine.

use crate::error::Result;
use crate::nft::Body;
use crate::route::Family;
use crate::rtnl::Rtnl;
use crate::wire;

/// linux/rtnetlink.h, `RTM_GETNETCONF`
const GET: u16 = 82;
/// linux/netconf.h, `NETCONFA_IFINDEX`, `NETCONFA_FORWARDING`
const IFINDEX: u16 = 1;
const FORWARDING: u16 = 2;
/// linux/netconf.h, `NETCONFA_IFINDEX_ALL`
const ALL: i32 = -1;

/// Whether the socket's namespace forwards packets of a family: the sysctl `net.ipv4.ip_forward` or
/// `net.ipv6.conf.all.forwarding`.
///
/// # Errors
/// The kernel refuses, or has no such family.
pub fn forwarding(rtnl: &mut Rtnl, family: Family) -> Result<bool> {
    // struct netconfmsg and one attribute.
    let mut bytes = [0; 12];
    bytes[0] = u8::from(family.number());
    bytes[4..6].copy_from_slice(&8u16.to_ne_bytes());
    bytes[6..8].copy_from_slice(&IFINDEX.to_ne_bytes());
    bytes[8..].copy_from_slice(&ALL.to_ne_bytes());
    let read = |payload: &[u8]| {
        let mut value = None;
        wire::attributes(wire::after(payload, 4), |kind, bytes| {
            if kind == FORWARDING {
                value = wire::to_i32(bytes);
            }
        })?;
        value.ok_or_else(|| wire::malformed("a configuration without forwarding"))
    };
    let value = rtnl.get(GET, &Body(&bytes), read);
    value
        .map(|value| value != 0)
        .map_err(|c| c.about(format!("read whether the node forwards {family:?} packets")))
}
