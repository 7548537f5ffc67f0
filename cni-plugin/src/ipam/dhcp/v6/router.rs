//! Router advertisements (RFC 4861, RFC 8106): the prefixes, the router and the names they tell of.
//!
//! Reading takes any bytes and never panics. MTU and routes (RFC 4191) are not read.

use std::net::Ipv6Addr;

use ipnetwork::Ipv6Network;
use kernel::Mac;

use crate::ipam::dhcp::hash::pieces;
use crate::ipam::dhcp::names;

/// A prefix of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) net: Ipv6Network,
    /// Its addresses are reached without a router.
    pub(super) on_link: bool,
    /// Hosts may make up addresses in it.
    pub(super) autonomous: bool,
    /// For how many seconds it is valid.
    pub(super) valid: u32,
    /// For how many seconds addresses in it should be used for new connections.
    pub(super) preferred: u32,
}

/// What a router says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advertisement {
    /// The router's link-local address.
    pub(super) router: Ipv6Addr,
    /// For how many seconds it is a default router; 0 when it is none.
    pub(super) lifetime: u16,
    /// Addresses are to be had by DHCPv6.
    pub(super) managed: bool,
    pub(super) prefixes: Vec<Prefix>,
    pub(super) dns: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
}

impl Advertisement {
    /// Reads an ICMPv6 message from `router`; `None` when it is no advertisement.
    pub(super) fn parse(router: Ipv6Addr, bytes: &[u8]) -> Option<Advertisement> {
        let (head, mut rest) = bytes.split_at_checked(16)?;
        if head[..2] != [134, 0] {
            return None;
        }
        let mut told = Advertisement {
            router,
            lifetime: u16::from_be_bytes([head[6], head[7]]),
            managed: head[5] & 0x80 != 0,
            prefixes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
        };
        while let [kind, length, ..] = *rest {
            // Lengths are in units of eight bytes; 0 makes the whole message void (RFC 4861, section 4.6).
            let (option, next) =
                rest.split_at_checked(usize::from(length).checked_mul(8).filter(|&n| n > 0)?)?;
            match kind {
                3 => told.prefixes.extend(prefix(option)),
                25 => {
                    let servers = pieces(option.get(8..).unwrap_or_default());
                    told.dns.extend(servers.map(|octets: [u8; 16]| Ipv6Addr::from(octets)));
                }
                31 => told.search.extend(names::decode(option.get(8..).unwrap_or_default())),
                _ => {}
            }
            rest = next;
        }
        Some(told)
    }

    /// The prefix that addresses may be made up in, and the address of `mac` in it (modified EUI-64, RFC 4291).
    pub(super) fn autonomous(&self, mac: Mac) -> Option<(Ipv6Addr, Prefix)> {
        let usable = |prefix: &&Prefix| prefix.autonomous && prefix.net.prefix() == 64 && prefix.valid > 0;
        let prefix = *self.prefixes.iter().find(usable)?;
        Some((eui64(prefix.net.network(), mac), prefix))
    }

    /// The length of the on-link prefix that `address` lies in; 128 when there is none.
    pub(super) fn length_for(&self, address: Ipv6Addr) -> u8 {
        let mut around = self.prefixes.iter().filter(|prefix| prefix.on_link && prefix.net.contains(address));
        around.next().map_or(128, |prefix| prefix.net.prefix())
    }

    /// The router, if it is a default router.
    pub(super) fn gateway(&self) -> Option<Ipv6Addr> {
        (self.lifetime > 0).then_some(self.router)
    }
}

/// A prefix information option.
fn prefix(option: &[u8]) -> Option<Prefix> {
    let option: &[u8; 32] = option.first_chunk()?;
    let number = |at: usize| u32::from_be_bytes([option[at], option[at + 1], option[at + 2], option[at + 3]]);
    let (_, address) = option.split_last_chunk::<16>()?;
    let net = Ipv6Network::new(Ipv6Addr::from(*address), option[2]).ok()?;
    let (valid, preferred) = (number(4), number(8));
    let link_local = net.network().is_unicast_link_local() || net.network().is_multicast();
    (!link_local && preferred <= valid).then_some(Prefix {
        net,
        on_link: option[3] & 0x80 != 0,
        autonomous: option[3] & 0x40 != 0,
        valid,
        preferred,
    })
}

/// The address of a host in a prefix of 64 bits.
fn eui64(prefix: Ipv6Addr, mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let mut octets = prefix.octets();
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ipam::dhcp::timing::Random;

    /// An advertisement of 2001:db8:5::/64 as bytes.
    pub(crate) fn advertisement(flags: u8, lifetime: u16, prefix_flags: u8, valid: u32) -> Vec<u8> {
        let mut bytes = vec![134, 0, 0, 0, 64, flags];
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend([3, 4, 64, prefix_flags]);
        bytes.extend([valid.to_be_bytes(), (valid / 2).to_be_bytes(), [0; 4]].concat());
        bytes.extend("2001:db8:5::".parse::<Ipv6Addr>().unwrap().octets());
        bytes
    }

    #[test]
    fn prefixes_router_and_names_are_read() {
        let router = "fe80::1".parse().unwrap();
        let mut bytes = advertisement(0x80, 1800, 0xc0, 600);
        bytes.extend([1, 1, 2, 0, 0, 0, 0, 9]);
        bytes.extend([25, 3, 0, 0, 0, 0, 1, 0]);
        bytes.extend("2001:db8::53".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend([31, 2, 0, 0, 0, 0, 1, 0, 3, b'l', b'a', b'n', 0, 0, 0, 0]);
        let told = Advertisement::parse(router, &bytes).unwrap();
        assert_eq!((told.managed, told.gateway()), (true, Some(router)));
        assert_eq!((told.dns.len(), told.search.as_slice()), (1, &["lan".to_owned()][..]));
        let (address, prefix) = told.autonomous(Mac([0, 0x16, 0x3e, 1, 2, 3])).unwrap();
        assert_eq!(address.to_string(), "2001:db8:5:0:216:3eff:fe01:203");
        assert_eq!((prefix.valid, prefix.preferred), (600, 300));
        assert_eq!(told.length_for(address), 64);
        assert_eq!(told.length_for("2001:db8:6::1".parse().unwrap()), 128);
    }

    #[test]
    fn a_router_that_is_no_default_and_a_prefix_that_is_over_are_not_used() {
        let told = |bytes: &[u8]| Advertisement::parse("fe80::1".parse().unwrap(), bytes);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        assert_eq!(told(&advertisement(0, 0, 0xc0, 600)).unwrap().gateway(), None);
        assert_eq!(told(&advertisement(0, 9, 0x80, 600)).unwrap().autonomous(mac), None);
        assert_eq!(told(&advertisement(0, 9, 0xc0, 0)).unwrap().autonomous(mac), None);
        let mut zero = advertisement(0, 9, 0xc0, 600);
        zero[17] = 0;
        assert_eq!(told(&zero), None, "an option without length");
        zero[17] = 5;
        assert_eq!(told(&zero), None, "an option longer than the message");
    }

    #[test]
    fn hostile_bytes_are_read_without_a_panic() {
        let mut random = Random::new(0x5eed);
        let template = [advertisement(0x80, 1800, 0xc0, 600), vec![25, 3], vec![0; 22]].concat();
        let mut read = 0;
        for round in 0..20_000 {
            let mut bytes = template.clone();
            for _ in 0..random.below(5) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
            if round % 3 == 0 {
                bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            }
            if let Some(told) = Advertisement::parse("fe80::1".parse().unwrap(), &bytes) {
                read += 1;
                let _ = told.autonomous(Mac([0; 6]));
            }
        }
        assert!(read > 1000, "only {read} were understood at all");
    }
}
