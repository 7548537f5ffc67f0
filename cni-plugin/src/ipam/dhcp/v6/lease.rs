//! An IPv6 lease: an address with its times, and what the router and the server told besides.

use std::net::{IpAddr, Ipv6Addr};

use cni::{Dns, IpConfig, Route};
use ipnetwork::{IpNetwork, Ipv6Network};
use kernel::Family;

use super::message::{Given, Reply};
use super::router::{Advertisement, Prefix};
use crate::ipam::dhcp::timing::{Ms, SECOND};

/// A lease with the times at which it must be looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The address, with the length of the on-link prefix it lies in; 128 when there is none.
    pub(crate) address: Ipv6Network,
    /// The router's link-local address.
    pub(crate) gateway: Option<Ipv6Addr>,
    /// The DUID of the server; empty for an address of SLAAC.
    pub(crate) server: Vec<u8>,
    /// Name servers.
    pub(crate) dns: Vec<Ipv6Addr>,
    /// Domains to search.
    pub(crate) search: Vec<String>,
    /// From then on the server, or the router, is asked to prolong it.
    pub(crate) renew: Ms,
    /// From then on any server is.
    pub(crate) rebind: Ms,
    /// From then on the address must not be used.
    pub(crate) expire: Ms,
}

/// A prefix length that is known to be one makes a network of any address.
fn network(address: Ipv6Addr, length: u8) -> Ipv6Network {
    Ipv6Network::new(address, length).unwrap_or_else(|_| Ipv6Network::from(address))
}

impl Lease {
    /// An address of SLAAC, from an advertisement that arrived at `now`.
    pub(super) fn made_up(address: Ipv6Addr, prefix: &Prefix, told: &Advertisement, now: Ms) -> Lease {
        let at = |seconds: u64| now + seconds * SECOND;
        // The router must not be forgotten before it is asked again either.
        let shorter = match told.lifetime {
            0 => prefix.valid,
            lifetime => prefix.valid.min(lifetime.into()),
        };
        Lease {
            address: network(address, told.length_for(address)),
            gateway: told.gateway(),
            server: Vec::new(),
            dns: told.dns.clone(),
            search: told.search.clone(),
            renew: at(u64::from(shorter) / 2),
            rebind: at(prefix.valid.into()),
            expire: at(prefix.valid.into()),
        }
    }

    /// An address of DHCPv6, from a reply that arrived at `now`. Without a router's word, what it told for the lease
    /// before holds on.
    pub(super) fn given(
        reply: &Reply,
        given: &Given,
        told: Option<&Advertisement>,
        before: Option<&Lease>,
        now: Ms,
    ) -> Lease {
        let length = match (told, before) {
            (Some(told), _) => told.length_for(given.address),
            (None, Some(lease)) if lease.address.contains(given.address) => lease.address.prefix(),
            _ => 128,
        };
        let gateway = match told {
            Some(told) => told.gateway(),
            None => before.and_then(|lease| lease.gateway),
        };
        let (dns, search) = match told {
            Some(told) if reply.dns.is_empty() => (told.dns.clone(), told.search.clone()),
            _ => (reply.dns.clone(), reply.search.clone()),
        };
        let usable = u64::from(if given.preferred > 0 { given.preferred } else { given.valid });
        let or = |told: u32, default: u64| if told > 0 { u64::from(told) } else { default };
        let rebind = or(given.rebind, usable * 8 / 10).min(given.valid.into());
        let renew = or(given.renew, usable / 2).min(rebind);
        let at = |seconds: u64| now + seconds * SECOND;
        Lease {
            address: network(given.address, length),
            gateway,
            server: reply.server.clone(),
            dns,
            search,
            renew: at(renew),
            rebind: at(rebind),
            expire: at(given.valid.into()),
        }
    }

    /// The address for the result.
    pub(crate) fn ip_config(&self) -> IpConfig {
        IpConfig {
            interface: None,
            address: IpNetwork::V6(self.address),
            gateway: self.gateway.map(IpAddr::V6),
        }
    }

    /// The default route, when there is a router.
    pub(crate) fn routes(&self) -> Vec<Route> {
        let default = |gateway| Route::new(Family::V6.any(), Some(IpAddr::V6(gateway)));
        self.gateway.map(default).into_iter().collect()
    }

    /// Name resolution.
    pub(crate) fn dns(&self) -> Dns {
        Dns {
            nameservers: self.dns.iter().map(Ipv6Addr::to_string).collect(),
            search: self.search.clone(),
            ..Dns::default()
        }
    }
}
