//! The pod's side of a lease: its namespace and link, opened when there is something to do and closed afterwards, so that
//! the daemon keeps no namespace alive.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use cni::{CniResult, Error, code};
use ipnetwork::IpNetwork;
use kernel::addr::AddrOptions;
use kernel::link::{self, Change, Link};
use kernel::packet::PacketSocket;
use kernel::route::{self, Family, Route};
use kernel::{Netns, Rtnl, addr, sysctl};

use crate::ipam::dhcp::frame::{CLIENT4, CLIENT6, FILTER};

/// linux/if_addr.h, IFA_F_PERMANENT: not made up by the kernel from a router's prefix.
const PERMANENT: u32 = 0x80;
/// RTPROT_RA: a route that a router advertised.
const PROTOCOL_RA: u8 = 9;

/// Why a pod cannot be reached.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Its namespace or its link is not there.
    Gone(String),
    /// The kernel refuses, perhaps for now.
    Refused(String),
}

impl Trouble {
    /// The CNI error for a caller that wants a lease.
    pub(super) fn into_error(self) -> Error {
        match self {
            Trouble::Gone(text) => Error::new(code::INVALID_NETNS, text),
            Trouble::Refused(text) => Error::internal(text),
        }
    }
}

fn trouble(what: &str) -> impl Fn(kernel::Error) -> Trouble + '_ {
    move |error| {
        let text = format!("{what}: {error}");
        let unusable = error.is_not_netns() || error.errno() == Some(nix::errno::Errno::EINVAL as i32);
        if error.is_not_found() || unusable { Trouble::Gone(text) } else { Trouble::Refused(text) }
    }
}

/// An open namespace with the link in it.
pub(super) struct Pod {
    netns: Netns,
    rtnl: Rtnl,
    pub(super) id: (u64, u64),
    pub(super) link: Link,
}

impl Pod {
    /// Opens the namespace at `path` and finds its link.
    pub(super) fn open(path: &Path, ifname: &str) -> Result<Pod, Trouble> {
        let what = format!("netns {path:?}");
        let netns = Netns::open(path).map_err(trouble(&what))?;
        let mut rtnl = Rtnl::open_in(&netns).map_err(trouble(&what))?;
        let id = netns.id().map_err(trouble(&what))?;
        let looking = format!("error looking up {ifname:?}");
        let link = link::by_name(&mut rtnl, ifname).map_err(trouble(&looking))?;
        Ok(Pod { netns, rtnl, id, link })
    }

    /// Sets the link up. For IPv6 the kernel is first told to leave routers to the daemon: what it made up of their
    /// prefixes would be in the way of the address that the interface plugin adds.
    pub(super) fn prepare(&mut self, v6: bool) -> Result<(), Trouble> {
        let name = self.link.name.clone();
        if v6 {
            let sysctls = || {
                let key = |what: &str| format!("net/ipv6/conf/{name}/{what}");
                sysctl::ensure(&key("disable_ipv6"), "0")?;
                sysctl::ensure(&key("accept_ra"), "0")?;
                sysctl::ensure(&key("autoconf"), "0").map(drop)
            };
            let what = format!("prepare IPv6 on {name:?}");
            self.netns
                .run(sysctls)
                .and_then(|set| set)
                .map_err(|error| Trouble::Refused(format!("{what}: {error}")))?;
            if self.link.up {
                self.drop_made_up().map_err(trouble(&what))?;
            }
        }
        if !self.link.up {
            let up = Change { up: Some(true), ..Change::default() };
            let what = format!("set {name:?} up");
            link::set(&mut self.rtnl, self.link.index, &up).map_err(trouble(&what))?;
        }
        Ok(())
    }

    fn drop_made_up(&mut self) -> kernel::Result<()> {
        let gone = |outcome: kernel::Result<()>| match outcome {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        };
        let index = self.link.index;
        for address in addr::list(&mut self.rtnl, Some(index))? {
            let made_up = address.flags & PERMANENT == 0 && address.scope == route::SCOPE_UNIVERSE;
            if address.net.is_ipv6() && made_up {
                gone(addr::delete(&mut self.rtnl, index, address.net))?;
            }
        }
        let routes = route::list(&mut self.rtnl, Family::V6)?;
        for route in routes.iter().filter(|r| r.oif == Some(index) && r.protocol == PROTOCOL_RA) {
            gone(route::delete(&mut self.rtnl, route))?;
        }
        Ok(())
    }

    /// Whether frames get through, as far as the kernel can tell.
    pub(super) fn is_running(&mut self) -> bool {
        link::by_index(&mut self.rtnl, self.link.index)
            .is_ok_and(|link| link.oper_up || matches!(link.oper_state.as_str(), "unknown" | "dormant"))
    }

    /// A link-local address that duplicate address detection is done with.
    pub(super) fn link_local(&mut self) -> Option<Ipv6Addr> {
        let present = addr::list(&mut self.rtnl, Some(self.link.index)).ok()?;
        present.into_iter().filter(|address| !address.is_tentative() && !address.is_dad_failed()).find_map(
            |address| match address.net {
                IpNetwork::V6(v6) if v6.ip().is_unicast_link_local() => Some(v6.ip()),
                _ => None,
            },
        )
    }

    /// Opens the socket of an exchange.
    pub(super) fn listen(self) -> Result<Wire, Trouble> {
        let socket = PacketSocket::open_on(&self.netns, self.link.index, &FILTER)
            .map_err(trouble("listen on the pod's link"))?;
        // Answers to an address that the pod has reach its own stack too, which would call the port unreachable. An
        // error only means that something in the pod has the port.
        let quiet = || {
            let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT4));
            let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, CLIENT6));
            [v4.ok(), v6.ok()]
        };
        let quiet = self.netns.run(quiet).map_err(trouble("enter the pod's netns"))?;
        Ok(Wire { pod: self, socket, _quiet: quiet })
    }

    /// Brings the link from one result to another, after a lease with other contents.
    pub(super) fn change(&mut self, old: &CniResult, new: &CniResult) -> Vec<String> {
        let mut errors = Vec::new();
        let mut note = |outcome: kernel::Result<()>| match outcome {
            Err(error) if !error.is_not_found() && !error.is_exists() => errors.push(error.to_string()),
            _ => {}
        };
        let (index, rtnl) = (self.link.index, &mut self.rtnl);
        for v6 in [false, true] {
            let addresses = |result: &CniResult| -> Vec<IpNetwork> {
                let own = result.ips.iter().map(|ip| ip.address);
                own.filter(|address| address.is_ipv6() == v6).collect()
            };
            let routes = |result: &CniResult| -> Vec<cni::Route> {
                result.routes.iter().filter(|route| route.dst.is_ipv6() == v6).cloned().collect()
            };
            let (was, is) = (addresses(old), addresses(new));
            let (had, has) = (routes(old), routes(new));
            for route in had.iter().filter(|route| !has.contains(route)) {
                note(route::delete(rtnl, &on_link(route, index)));
            }
            // The old address goes first: as the first of its subnet it would take the new one along.
            for address in was.iter().filter(|address| !is.contains(address)) {
                note(addr::delete(rtnl, index, *address));
            }
            for address in is.iter().filter(|address| !was.contains(address)) {
                let options = AddrOptions { nodad: true, ..AddrOptions::default() };
                note(addr::add(rtnl, index, *address, &options));
            }
            for route in has.iter().filter(|route| was != is || !had.contains(route)) {
                note(route::replace(rtnl, &on_link(route, index)));
            }
        }
        errors
    }

    /// What becomes of the link when a lease is over: without any lease it is set down, as in the reference; while
    /// another one holds, only the address goes.
    pub(super) fn expire(&mut self, addresses: &[IpNetwork], alone: bool) -> Result<(), String> {
        let index = self.link.index;
        if alone {
            let down = Change { up: Some(false), ..Change::default() };
            return link::set(&mut self.rtnl, index, &down).map_err(|error| error.to_string());
        }
        for address in addresses {
            match addr::delete(&mut self.rtnl, index, *address) {
                Err(error) if !error.is_not_found() => return Err(error.to_string()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A route of a result as the kernel takes it.
fn on_link(route: &cni::Route, index: u32) -> Route {
    Route {
        dst: Some(route.dst),
        gateway: route.gw.filter(|gateway| !gateway.is_unspecified()),
        oif: Some(index),
        priority: route.priority.filter(|&metric| metric != 0),
        scope: route.scope,
        ..Route::default()
    }
}

/// An open pod with the socket of an exchange.
pub(super) struct Wire {
    pub(super) pod: Pod,
    pub(super) socket: PacketSocket,
    _quiet: [Option<UdpSocket>; 2],
}

impl Wire {
    /// Sends a frame from the hardware address that the link has now. The client goes on to name itself by the one that
    /// it had at first, by which the server knows it.
    pub(super) fn send(&self, frame: &[u8]) -> kernel::Result<()> {
        match (self.pod.link.mac, frame.get(..6), frame.get(12..)) {
            (Some(mac), Some(to), Some(rest)) => self.socket.send(&[to, &mac.0, rest].concat()),
            _ => self.socket.send(frame),
        }
    }
}
