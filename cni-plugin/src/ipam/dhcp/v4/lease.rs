//! A DHCPv4 lease: what a server's acknowledgement means for the pod.
//!
//! Routes and gateway follow the reference: option 121 alone when it is there (RFC 3442), else option 33 and a
//! default route through the first router.

use std::net::{IpAddr, Ipv4Addr};

use cni::{Dns, IpConfig, Route};
use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::{Family, Mac, route};

use super::message::{Options, Reply, code};
use crate::ipam::dhcp::hash::pieces;
use crate::ipam::dhcp::names;
use crate::ipam::dhcp::timing::{Ms, SECOND};

/// How long a lease lasts when the server does not say.
const DEFAULT_TIME: u32 = 3600;

/// A lease with the times at which it must be looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The address, with the length of its subnet mask.
    pub(crate) address: Ipv4Network,
    /// The server, if it named itself.
    pub(crate) server: Option<Ipv4Addr>,
    /// The hardware address that the server's answers come from: its own, or that of the relay before it.
    pub(crate) hop: Mac,
    /// Everything the server said.
    pub(crate) options: Options,
    /// T1: from then on the server is asked to renew.
    pub(crate) renew: Ms,
    /// T2: from then on any server is.
    pub(crate) rebind: Ms,
    /// From then on the address must not be used.
    pub(crate) expire: Ms,
}

impl Lease {
    /// The lease of an acknowledgement that arrived at `now`. What it leaves out holds on from `earlier`: some
    /// servers repeat little when they renew.
    ///
    /// # Errors
    /// The reference's sentence when no subnet mask is known, another when address or mask cannot be used.
    pub(crate) fn new(ack: &Reply, earlier: Option<&Options>, hop: Mac, now: Ms) -> Result<Lease, String> {
        let Reply { yiaddr, options, .. } = ack;
        let mut options = options.clone();
        if let Some(earlier) = earlier {
            options.inherit(earlier);
        }
        let mask =
            options.address(code::SUBNET_MASK).ok_or("DHCP option Subnet Mask not found in DHCPACK")?;
        let address = Ipv4Network::with_netmask(*yiaddr, mask)
            .map_err(|_| format!("DHCPACK with the subnet mask {mask}, which is none"))?;
        if !usable(*yiaddr) {
            return Err(format!("DHCPACK for the address {yiaddr}, which no host can have"));
        }
        let seconds = |code, default| options.seconds(code).unwrap_or(default);
        let whole = seconds(code::LEASE_TIME, DEFAULT_TIME).max(1);
        let rebind = seconds(code::REBINDING, (u64::from(whole) * 85 / 100) as u32);
        let renew = seconds(code::RENEWAL, whole / 2);
        // Times out of order are as good as none.
        let (renew, rebind) = match renew <= rebind && rebind <= whole {
            true => (renew, rebind),
            false => (whole / 2, (u64::from(whole) * 85 / 100) as u32),
        };
        let at = |seconds: u32| now + u64::from(seconds) * SECOND;
        Ok(Lease {
            address,
            server: options.address(code::SERVER),
            hop,
            options,
            renew: at(renew),
            rebind: at(rebind),
            expire: at(whole),
        })
    }

    /// The address for the result, with the first router as its gateway.
    pub(crate) fn ip_config(&self) -> IpConfig {
        let gateway = self.options.address(code::ROUTERS).map(IpAddr::V4);
        IpConfig { interface: None, address: IpNetwork::V4(self.address), gateway }
    }

    /// The routes for the result.
    pub(crate) fn routes(&self) -> Vec<Route> {
        if let Some(routes) = self.options.get(code::CLASSLESS_ROUTES).and_then(classless) {
            return routes;
        }
        let pairs = pieces(self.options.get(code::STATIC_ROUTES).unwrap_or_default());
        let mut routes: Vec<Route> = pairs
            .filter_map(|[a, b, c, d, e, f, g, h]| {
                let dst = Ipv4Addr::new(a, b, c, d);
                let dst = Ipv4Network::new(dst, classful(dst)?).ok()?;
                Some(Route::new(IpNetwork::V4(dst), Some(IpAddr::V4(Ipv4Addr::new(e, f, g, h)))))
            })
            .collect();
        if let Some(gateway) = self.options.address(code::ROUTERS) {
            routes.push(Route::new(Family::V4.any(), Some(IpAddr::V4(gateway))));
        }
        routes
    }

    /// Name resolution from options 6, 15 and 119.
    pub(crate) fn dns(&self) -> Dns {
        let search = self.options.get(code::SEARCH).map(names::decode).unwrap_or_default();
        Dns {
            nameservers: self.options.addresses(code::DNS).map(|server| server.to_string()).collect(),
            domain: self.options.text(code::DOMAIN).unwrap_or_default(),
            search,
            options: Vec::new(),
        }
    }
}

/// Whether a host may have this address.
pub(super) fn usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

/// The prefix length of an address's class; none for the classes D and E.
fn classful(address: Ipv4Addr) -> Option<u8> {
    match address.octets()[0] {
        0..=127 => Some(8),
        128..=191 => Some(16),
        192..=223 => Some(24),
        _ => None,
    }
}

/// Option 121: prefix length, as many octets of the prefix as it needs, router. `None` when nothing of it can be
/// read. A router of 0.0.0.0 says that the destination is on the link.
fn classless(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let [length, rest @ ..] = bytes {
        if *length > 32 {
            return None;
        }
        let (octets, rest) = rest.split_at_checked(usize::from(length.div_ceil(8)))?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut dst = [0; 4];
        dst[..octets.len()].copy_from_slice(octets);
        let dst = Ipv4Network::new(Ipv4Addr::from(dst), *length).ok()?;
        let router = Ipv4Addr::from(*router);
        routes.push(Route {
            scope: router.is_unspecified().then_some(route::SCOPE_LINK),
            ..Route::new(IpNetwork::V4(dst), Some(IpAddr::V4(router)))
        });
        bytes = rest;
    }
    (!routes.is_empty()).then_some(routes)
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::reply;
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn lease(options: &[u8]) -> Result<Lease, String> {
        let options = [&[53, 1, 5][..], options].concat();
        let ack = Reply::parse(&reply(1, [10, 0, 0, 7], MAC, &options)).unwrap();
        Lease::new(&ack, None, MAC, 1000)
    }

    const MASK: [u8; 6] = [1, 4, 255, 255, 255, 0];

    fn routes(options: &[u8]) -> Vec<(String, String, Option<u8>)> {
        let lease = lease(&[&MASK, options].concat()).unwrap();
        let show = |r: Route| (r.dst.to_string(), r.gw.map(|gw| gw.to_string()).unwrap_or_default(), r.scope);
        lease.routes().into_iter().map(show).collect()
    }

    #[test]
    fn classless_routes_stand_alone() {
        let options = [
            3, 4, 10, 0, 0, 1, 33, 8, 192, 168, 5, 0, 10, 0, 0, 2, 121, 18, 0, 10, 0, 0, 9, 24, 192, 168, 7,
            10, 0, 0, 8, 8, 172, 0, 0, 0, 0,
        ];
        let mut options = options.to_vec();
        options[17] = 5 + 8 + 6;
        let expected = [
            ("0.0.0.0/0", "10.0.0.9", None),
            ("192.168.7.0/24", "10.0.0.8", None),
            ("172.0.0.0/8", "0.0.0.0", Some(253)),
        ];
        let expected: Vec<_> = expected.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), *c)).collect();
        assert_eq!(routes(&options), expected);
    }

    #[test]
    fn static_routes_are_classful_and_the_router_is_the_default() {
        let options = [
            33, 24, 10, 9, 0, 0, 10, 0, 0, 2, 172, 20, 0, 0, 10, 0, 0, 3, 192, 168, 5, 0, 10, 0, 0, 4, 3, 8,
            10, 0, 0, 1, 10, 0, 0, 5,
        ];
        let expected = [
            ("10.9.0.0/8", "10.0.0.2"),
            ("172.20.0.0/16", "10.0.0.3"),
            ("192.168.5.0/24", "10.0.0.4"),
            ("0.0.0.0/0", "10.0.0.1"),
        ];
        let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).into(), (*b).into(), None)).collect();
        assert_eq!(routes(&options), expected);
        // An option 121 that cannot be read does not hide the others.
        assert_eq!(routes(&[&[121, 2, 40, 1][..], &options].concat()), expected);
    }

    #[test]
    fn times_default_as_in_the_reference() {
        let times = |options: &[u8]| {
            let lease = lease(&[&MASK, options].concat()).unwrap();
            [lease.renew, lease.rebind, lease.expire].map(|at| (at - 1000) / SECOND)
        };
        assert_eq!(times(&[]), [1800, 3060, 3600]);
        assert_eq!(times(&[51, 4, 0, 0, 0, 120]), [60, 102, 120]);
        assert_eq!(times(&[51, 4, 0, 0, 0, 120, 58, 4, 0, 0, 0, 10, 59, 4, 0, 0, 0, 20]), [10, 20, 120]);
        assert_eq!(times(&[51, 4, 0, 0, 0, 120, 58, 4, 0, 0, 0, 90, 59, 4, 0, 0, 0, 20]), [60, 102, 120]);
        assert_eq!(times(&[51, 4, 255, 255, 255, 255])[2], u64::from(u32::MAX));
    }

    #[test]
    fn a_missing_or_torn_mask_is_an_error() {
        assert_eq!(lease(&[]).unwrap_err(), "DHCP option Subnet Mask not found in DHCPACK");
        assert!(lease(&[1, 4, 255, 0, 255, 0]).unwrap_err().contains("255.0.255.0"));
    }

    #[test]
    fn what_a_renewal_leaves_out_holds_on() {
        let first = lease(&[&MASK[..], &[3, 4, 10, 0, 0, 1, 51, 4, 0, 0, 0, 120]].concat()).unwrap();
        let ack = Reply::parse(&reply(1, [10, 0, 0, 7], MAC, &[53, 1, 5])).unwrap();
        let second = Lease::new(&ack, Some(&first.options), MAC, 0).unwrap();
        assert_eq!(second.ip_config(), first.ip_config());
        assert_eq!(second.expire, 3600 * SECOND, "times are not inherited");
    }

    #[test]
    fn names_come_from_three_options() {
        let options = [
            &MASK[..],
            &[6, 8, 10, 0, 0, 1, 10, 0, 0, 2, 15, 3, b'l', b'a', b'n'],
            // "a.lan", and "b" with a pointer to "lan" (RFC 3397).
            &[119, 11, 1, b'a', 3, b'l', b'a', b'n', 0, 1, b'b', 0xc0, 2],
        ]
        .concat();
        let dns = lease(&options).unwrap().dns();
        assert_eq!(dns.nameservers, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!((dns.domain.as_str(), dns.search), ("lan", vec!["a.lan".into(), "b.lan".into()]));
    }
}
