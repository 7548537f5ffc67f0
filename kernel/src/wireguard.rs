//! WireGuard devices: keys, peers and where these are, over generic netlink (linux/wireguard.h). The link itself is made by
//! [`crate::link::add`].

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use crate::channel::Channel;
use crate::error::{Cause, Result};
use crate::netns::Netns;
use crate::nft::{Attrs, Body};
use crate::route::Family;
use crate::wire;

/// linux/netlink.h, `NETLINK_GENERIC`; linux/genetlink.h, `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_*`
const PROTOCOL: isize = 16;
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`
const HEADER: usize = 4;
/// linux/wireguard.h, `WG_CMD_*`
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;

/// `WGDEVICE_A_*`, `WGPEER_A_*`, `WGALLOWEDIP_A_*`
mod wg {
    pub(super) const IFNAME: u16 = 2;
    pub(super) const PRIVATE_KEY: u16 = 3;
    pub(super) const PUBLIC_KEY: u16 = 4;
    pub(super) const LISTEN_PORT: u16 = 6;
    pub(super) const PEERS: u16 = 8;
    pub(super) const PEER_PUBLIC_KEY: u16 = 1;
    pub(super) const PEER_ENDPOINT: u16 = 4;
    pub(super) const PEER_ALLOWED: u16 = 9;
    pub(super) const ALLOWED_FAMILY: u16 = 1;
    pub(super) const ALLOWED_ADDRESS: u16 = 2;
    pub(super) const ALLOWED_LENGTH: u16 = 3;
}

/// A key of Curve25519.
pub type Key = [u8; 32];

/// Another end.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Its public key.
    pub key: Key,
    /// Where it is.
    pub endpoint: SocketAddr,
    /// The addresses that it may send from, and that are sent to it.
    pub allowed: &'a [IpNetwork],
}

/// A generic netlink socket that knows WireGuard's family. It keeps acting in the namespace in which it was opened.
#[derive(Debug)]
pub struct WireGuard {
    channel: Channel,
    family: u16,
}

impl WireGuard {
    /// Opens a socket in `ns`. `lacks()` when the kernel has no WireGuard.
    pub fn open_in(ns: &Netns) -> Result<WireGuard> {
        let open = || -> std::result::Result<WireGuard, Cause> {
            let mut channel = Channel::open(PROTOCOL)?;
            let mut query = header(GET_FAMILY, 1);
            query.text(FAMILY_NAME, "wireguard");
            let family = channel.get(CONTROLLER, &Body(&query.bytes), |payload| {
                let mut id = None;
                wire::attributes(wire::after(payload, HEADER), |kind, value| {
                    if kind == FAMILY_ID {
                        id = wire::to_u16(value);
                    }
                })?;
                id.ok_or_else(|| wire::malformed("a family without a number"))
            });
            let family = family.map_err(|c| match c {
                Cause::Os { errno: libc::ENOENT, .. } => Cause::Lacks("wireguard (CONFIG_WIREGUARD)".into()),
                other => other,
            })?;
            Ok(WireGuard { channel, family })
        };
        ns.run(open)?.map_err(|c| c.about("open WireGuard socket"))
    }

    /// Gives the device its private key and the port it listens on; returns its public key, which the kernel computes.
    pub fn set_device(&mut self, name: &str, private: &Key, port: u16) -> Result<Key> {
        let m = device_message(name, private, port);
        let set = self.channel.change(self.family, 0, &Body(&m.bytes));
        set.map_err(|c| c.about(format!("set WireGuard device {name:?}")))?;
        let mut query = header(GET_DEVICE, 1);
        query.text(wg::IFNAME, name);
        let keys = self.channel.dump(self.family, &Body(&query.bytes), |payload, all| {
            wire::attributes(wire::after(payload, HEADER), |kind, value| {
                if kind == wg::PUBLIC_KEY {
                    all.extend(Key::try_from(value));
                }
            })
        });
        let about = || format!("read WireGuard device {name:?}");
        let keys = keys.map_err(|c| c.about(about()))?;
        keys.into_iter().next().ok_or_else(|| wire::malformed("a device without a key").about(about()))
    }

    /// Adds a peer to the device.
    pub fn add_peer(&mut self, name: &str, peer: &Peer<'_>) -> Result<()> {
        let m = peer_message(name, peer);
        let set = self.channel.change(self.family, 0, &Body(&m.bytes));
        set.map_err(|c| c.about(format!("add peer {} to WireGuard device {name:?}", peer.endpoint)))
    }
}

/// `struct genlmsghdr`: command, version, two bytes of nothing.
fn header(command: u8, version: u8) -> Attrs {
    Attrs { bytes: vec![command, version, 0, 0] }
}

fn device_message(name: &str, private: &Key, port: u16) -> Attrs {
    let mut m = header(SET_DEVICE, 1);
    m.text(wg::IFNAME, name).raw(wg::PRIVATE_KEY, private).raw(wg::LISTEN_PORT, &port.to_ne_bytes());
    m
}

fn peer_message(name: &str, peer: &Peer<'_>) -> Attrs {
    let mut m = header(SET_DEVICE, 1);
    m.text(wg::IFNAME, name);
    m.nest(wg::PEERS, |list| {
        list.nest(0, |one| {
            one.raw(wg::PEER_PUBLIC_KEY, &peer.key).raw(wg::PEER_ENDPOINT, &endpoint(peer.endpoint));
            one.nest(wg::PEER_ALLOWED, |list| {
                for net in peer.allowed {
                    list.nest(0, |one| {
                        one.raw(wg::ALLOWED_FAMILY, &family(net.ip()).to_ne_bytes())
                            .raw(wg::ALLOWED_ADDRESS, &octets(net.network()))
                            .u8(wg::ALLOWED_LENGTH, net.prefix());
                    });
                }
            });
        });
    });
    m
}

/// `struct sockaddr_in` or `sockaddr_in6`
fn endpoint(end: SocketAddr) -> Vec<u8> {
    let mut bytes = family(end.ip()).to_ne_bytes().to_vec();
    bytes.extend(end.port().to_be_bytes());
    match end {
        SocketAddr::V4(v4) => {
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend([0; 4]); // flow label
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn family(address: IpAddr) -> u16 {
    u16::from(u8::from(Family::of(address).number()))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn device_and_peer_are_literal_messages() {
        let mut expected = vec![1, 1, 0, 0, 8, 0, 2, 0, b'w', b'g', b'0', 0]; // WG_CMD_SET_DEVICE, IFNAME
        expected.extend([36, 0, 3, 0]); // PRIVATE_KEY
        expected.extend([7; 32]);
        expected.extend([6, 0, 6, 0, 0x6c, 0xca, 0, 0]); // LISTEN_PORT 51820, in the host's order
        assert_eq!(device_message("wg0", &[7; 32], 51820).bytes, expected);

        let peer = Peer {
            key: [9; 32],
            endpoint: "192.0.2.12:51820".parse().unwrap(),
            allowed: &["10.244.2.0/24".parse().unwrap()],
        };
        let mut expected = vec![1, 1, 0, 0, 8, 0, 2, 0, b'w', b'g', b'0', 0];
        expected.extend([96, 0, 8, 0x80, 92, 0, 0, 0x80]); // PEERS, the first
        expected.extend([36, 0, 1, 0]); // PUBLIC_KEY
        expected.extend([9; 32]);
        // ENDPOINT: AF_INET, port and address in network order
        expected.extend([20, 0, 4, 0, 2, 0, 0xca, 0x6c, 192, 0, 2, 12, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([32, 0, 9, 0x80, 28, 0, 0, 0x80]); // ALLOWEDIPS, the first
        expected.extend([6, 0, 1, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 244, 2, 0, 5, 0, 3, 0, 24, 0, 0, 0]);
        assert_eq!(peer_message("wg0", &peer).bytes, expected);
    }

    #[test]
    fn peer_of_ipv6_with_pods_of_both_versions_is_a_literal_message() {
        let peer = Peer {
            key: [9; 32],
            endpoint: "[fd00:192:0:2::12]:51820".parse().unwrap(),
            allowed: &["10.244.2.0/24".parse().unwrap(), "fd00:10:244:2::/64".parse().unwrap()],
        };
        let mut expected = vec![1, 1, 0, 0, 8, 0, 2, 0, b'w', b'g', b'0', 0];
        expected.extend([148, 0, 8, 0x80, 144, 0, 0, 0x80]);
        expected.extend([36, 0, 1, 0]);
        expected.extend([9; 32]);
        expected.extend([32, 0, 4, 0, 10, 0, 0xca, 0x6c, 0, 0, 0, 0]);
        expected.extend([0xfd, 0, 1, 0x92, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x12, 0, 0, 0, 0]);
        expected.extend([72, 0, 9, 0x80, 28, 0, 0, 0x80]);
        expected.extend([6, 0, 1, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 244, 2, 0, 5, 0, 3, 0, 24, 0, 0, 0]);
        expected.extend([40, 0, 0, 0x80, 6, 0, 1, 0, 10, 0, 0, 0, 20, 0, 2, 0]);
        expected.extend([0xfd, 0, 0, 0x10, 2, 0x44, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([5, 0, 3, 0, 64, 0, 0, 0]);
        assert_eq!(peer_message("wg0", &peer).bytes, expected);
    }
}
