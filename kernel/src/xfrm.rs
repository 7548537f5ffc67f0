//! IPsec by the kernel (xfrm): associations and policies of ESP in tunnel mode with AES-GCM, added over NETLINK_XFRM.
//!
//! Nothing is listed or deleted, and no key is exchanged: what is added lives as long as its namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::channel::Channel;
use crate::error::{Cause, Result};
use crate::netns::Netns;
use crate::nft::{Attrs, Body};
use crate::route::Family;

/// linux/netlink.h, `NETLINK_XFRM`
const PROTOCOL: isize = 6;
/// linux/xfrm.h, `XFRM_MSG_NEWSA`, `XFRM_MSG_NEWPOLICY`
const NEW_SA: u16 = 0x10;
const NEW_POLICY: u16 = 0x13;
/// `XFRMA_TMPL`, `XFRMA_ALG_AEAD`
const TMPL: u16 = 5;
const ALG_AEAD: u16 = 18;
/// `XFRM_MODE_TUNNEL`
const TUNNEL: u8 = 1;
/// linux/in.h, `IPPROTO_ESP`
const ESP: u8 = 50;
/// The kernel's name of RFC 4106.
const GCM: &[u8] = b"rfc4106(gcm(aes))";
/// `XFRM_INF`
const NO_LIMIT: u64 = u64::MAX;
/// Packets that may come out of order.
const REPLAY_WINDOW: u8 = 32;

/// One direction of ESP between two addresses.
#[derive(Debug, Clone, Copy)]
pub struct Association<'a> {
    /// Who encrypts.
    pub source: IpAddr,
    /// Who decrypts; of the same IP version.
    pub target: IpAddr,
    /// The number in every packet, at least 256 (RFC 4303, 2.1).
    pub spi: u32,
    /// Key and four bytes of salt (RFC 4106, 8.1): 20, 28 or 36 bytes.
    pub key: &'a [u8],
}

/// Which packets a policy is about (`XFRM_POLICY_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those that are for this host.
    In,
    /// Those that leave it.
    Out,
    /// Those that it passes on after decryption.
    Forward,
}

/// Packets between two prefixes are in ESP between two addresses.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Which packets.
    pub direction: Direction,
    /// From where.
    pub from: IpNetwork,
    /// Where to; of the same IP version as all else here.
    pub to: IpNetwork,
    /// Who encrypts.
    pub source: IpAddr,
    /// Who decrypts; of the same IP version.
    pub target: IpAddr,
}

/// A NETLINK_XFRM socket. It keeps acting in the namespace in which it was opened.
#[derive(Debug)]
pub struct Xfrm {
    channel: Channel,
}

impl Xfrm {
    /// Opens a socket in `ns`. `lacks()` when the kernel has no xfrm.
    pub fn open_in(ns: &Netns) -> Result<Xfrm> {
        let channel = ns.run(|| Channel::open(PROTOCOL))?;
        channel.map(|channel| Xfrm { channel }).map_err(|c| match c {
            Cause::Os { errno: libc::EPROTONOSUPPORT, .. } => {
                Cause::Lacks("xfrm (CONFIG_XFRM_USER)".into()).about("open xfrm socket")
            }
            other => other.about("open xfrm socket"),
        })
    }

    /// Adds an association. `is_exists()` when target and SPI are taken; `lacks()` names what the kernel has not.
    pub fn add_association(&mut self, association: &Association<'_>) -> Result<()> {
        let m = association_message(association);
        self.channel.change(NEW_SA, NLM_F_CREATE | NLM_F_EXCL, &Body(&m)).map_err(|c| {
            let about = format!(
                "add ESP association {:#x} from {} to {}",
                association.spi, association.source, association.target
            );
            match c {
                Cause::Os { errno: libc::EPROTONOSUPPORT, .. } => match association.target {
                    IpAddr::V4(_) => Cause::Lacks("ESP (CONFIG_INET_ESP)".into()),
                    IpAddr::V6(_) => Cause::Lacks("ESP over IPv6 (CONFIG_INET6_ESP)".into()),
                },
                Cause::Os { errno: libc::ENOSYS, .. } => {
                    Cause::Lacks("rfc4106(gcm(aes)) (CONFIG_CRYPTO_GCM, CONFIG_CRYPTO_SEQIV)".into())
                }
                other => other,
            }
            .about(about)
        })
    }

    /// Adds a policy. `is_exists()` when there is one of these prefixes and this direction.
    pub fn add_policy(&mut self, policy: &Policy) -> Result<()> {
        let m = policy_message(policy);
        self.channel.change(NEW_POLICY, NLM_F_CREATE | NLM_F_EXCL, &Body(&m)).map_err(|c| {
            c.about(format!("add xfrm policy {:?} from {} to {}", policy.direction, policy.from, policy.to))
        })
    }
}

/// Asks, in a namespace that is gone afterwards, whether the kernel has ESP with AES-GCM over an IP version. `lacks()` names
/// what it has not.
pub fn require(family: Family) -> Result<()> {
    let (source, target): (IpAddr, IpAddr) = match family {
        Family::V4 => ([127, 0, 0, 1].into(), [127, 0, 0, 2].into()),
        // Documentation (RFC 3849).
        Family::V6 => (
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into(),
        ),
    };
    let probe = Association { source, target, spi: 256, key: &[0; 20] };
    Xfrm::open_in(&Netns::create()?)?.add_association(&probe)
}

/// `struct xfrm_usersa_info` and XFRMA_ALG_AEAD.
fn association_message(association: &Association<'_>) -> Vec<u8> {
    let mut m = Attrs::default();
    // Zeros: the whole of what the association is asked for.
    let any = IpNetwork::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
    selector(&mut m.bytes, any, any, 0);
    id(&mut m.bytes, association.target, association.spi);
    address(&mut m.bytes, association.source);
    lifetime(&mut m.bytes);
    m.bytes.extend([0; 12]); // xfrm_stats
    m.bytes.extend([0; 8]); // seq, reqid
    m.bytes.extend(family(association.target).to_ne_bytes());
    m.bytes.extend([TUNNEL, REPLAY_WINDOW, 0]); // mode, replay window, flags
    m.bytes.resize(224, 0);
    let mut name = GCM.to_vec();
    name.resize(64, 0);
    let mut aead = name;
    aead.extend((association.key.len() as u32 * 8).to_ne_bytes());
    aead.extend(128_u32.to_ne_bytes());
    aead.extend(association.key);
    m.raw(ALG_AEAD, &aead);
    m.bytes
}

/// `struct xfrm_userpolicy_info` and XFRMA_TMPL.
fn policy_message(policy: &Policy) -> Vec<u8> {
    let mut m = Attrs::default();
    selector(&mut m.bytes, policy.from, policy.to, family(policy.from.ip()));
    lifetime(&mut m.bytes);
    m.bytes.extend([0; 8]); // priority, index
    let direction = match policy.direction {
        Direction::In => 0,
        Direction::Out => 1,
        Direction::Forward => 2,
    };
    m.bytes.extend([direction, 0, 0, 0]); // action: allow, flags, share
    m.bytes.resize(168, 0);
    let mut tmpl = Vec::new();
    id(&mut tmpl, policy.target, 0);
    tmpl.extend(family(policy.target).to_ne_bytes());
    tmpl.extend([0; 2]);
    address(&mut tmpl, policy.source);
    tmpl.extend([0; 4]); // reqid
    tmpl.extend([TUNNEL, 0, 0, 0]); // mode, share, optional
    tmpl.extend([0xff; 12]); // algorithms: any
    m.raw(TMPL, &tmpl);
    m.bytes
}

fn family(address: IpAddr) -> u16 {
    u16::from(u8::from(Family::of(address).number()))
}

/// `struct xfrm_selector`; family 0 is the whole of what the association is asked for.
fn selector(out: &mut Vec<u8>, from: IpNetwork, to: IpNetwork, family: u16) {
    let length = |net: IpNetwork| if family == 0 { 0 } else { net.prefix() };
    address(out, to.network());
    address(out, from.network());
    out.extend([0; 8]); // ports and their masks
    out.extend(family.to_ne_bytes());
    out.extend([length(to), length(from), 0]); // protocol: any
    out.extend([0; 3]);
    out.extend([0; 8]); // ifindex, user
}

/// `xfrm_address_t`
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.extend(v4.octets());
            out.extend([0; 12]);
        }
        IpAddr::V6(v6) => out.extend(v6.octets()),
    }
}

/// `struct xfrm_id`
fn id(out: &mut Vec<u8>, target: IpAddr, spi: u32) {
    address(out, target);
    out.extend(spi.to_be_bytes());
    out.extend([ESP, 0, 0, 0]);
}

/// `struct xfrm_lifetime_cfg`, without limits, and `struct xfrm_lifetime_cur`.
fn lifetime(out: &mut Vec<u8>) {
    (0..4).for_each(|_| out.extend(NO_LIMIT.to_ne_bytes()));
    out.extend([0; 4 * 8 + 32]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeros with these bytes at these places.
    #[cfg(target_endian = "little")]
    fn filled(len: usize, places: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; len];
        places.iter().for_each(|(at, value)| bytes[*at..at + value.len()].copy_from_slice(value));
        bytes
    }

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
    const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12));

    /// As `ip xfrm state add ... mode tunnel replay-window 32 aead 'rfc4106(gcm(aes))' KEY 128` (iproute2 6.1) sends it.
    #[cfg(target_endian = "little")]
    #[test]
    fn association_is_what_iproute2_sends() {
        let mut key = [7; 36];
        key[35] = 0xff;
        let expected = filled(
            336,
            &[
                (56, &[192, 0, 2, 12]),
                (72, &[0, 0, 0x12, 0x34, 50]),
                (80, &[192, 0, 2, 11]),
                (96, &[0xff; 32]),
                (212, &[2, 0, 1, 32]),
                (224, &[0x70, 0, 18, 0]),
                (228, GCM),
                (292, &[0x20, 1, 0, 0, 0x80, 0, 0, 0]),
                (300, &key),
            ],
        );
        let association = Association { source: SOURCE, target: TARGET, spi: 0x1234, key: &key };
        assert_eq!(association_message(&association), expected);
    }

    /// As `ip xfrm policy add ... dir fwd tmpl ... proto esp mode tunnel` (iproute2 6.1) sends it.
    #[cfg(target_endian = "little")]
    #[test]
    fn policy_is_what_iproute2_sends() {
        let expected = filled(
            236,
            &[
                (0, &[10, 244, 2, 0]),
                (16, &[10, 244, 1, 0]),
                (40, &[2, 0, 24, 24]),
                (56, &[0xff; 32]),
                (160, &[2]),
                (168, &[0x44, 0, 5, 0]),
                (172, &[192, 0, 2, 12]),
                (192, &[50]),
                (196, &[2]),
                (200, &[192, 0, 2, 11]),
                (220, &[1]),
                (224, &[0xff; 12]),
            ],
        );
        let (from, to) = ("10.244.1.0/24".parse().unwrap(), "10.244.2.0/24".parse().unwrap());
        let policy = Policy { direction: Direction::Forward, from, to, source: SOURCE, target: TARGET };
        assert_eq!(policy_message(&policy), expected);
    }

    /// As iproute2 6.1 sends it with addresses of IPv6.
    #[cfg(target_endian = "little")]
    #[test]
    fn policy_of_ipv6_has_whole_addresses_and_its_own_family() {
        let net = |text: &str| text.parse::<IpNetwork>().unwrap();
        let (from, to) = (net("fd00:10:244:1::/64"), net("fd00:10:244:2::/64"));
        let (source, target): (IpAddr, IpAddr) =
            ("fd00:192:0:2::11".parse().unwrap(), "fd00:192:0:2::12".parse().unwrap());
        let bytes = policy_message(&Policy { direction: Direction::Out, from, to, source, target });
        assert_eq!(bytes[..8], [0xfd, 0, 0, 0x10, 2, 0x44, 0, 2]);
        assert_eq!(bytes[16..24], [0xfd, 0, 0, 0x10, 2, 0x44, 0, 1]);
        assert_eq!(bytes[40..44], [10, 0, 64, 64]);
        assert_eq!((bytes[172..174].to_vec(), bytes[187]), (vec![0xfd, 0], 0x12));
        assert_eq!((bytes[192], bytes[196], bytes[215]), (50, 10, 0x11));
        let association = Association { source, target, spi: 0x1234, key: &[7; 36] };
        let bytes = association_message(&association);
        assert_eq!((bytes[71], bytes[95], &bytes[212..214]), (0x12, 0x11, &[10, 0][..]));
    }
}
