//! When the kernel's state has become another than the agent made it, or the ground that it stands on has: the kernel's
//! own announcements, reduced to what is to be looked at again.
//!
//! No clock is in it. Whoever looks makes the kernel equal to what is wanted and changes nothing where it is, so the
//! agent's own changes lead to one more look and then to silence. What a pod's coming and going makes (its link, its
//! route, its addresses) leads to none.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::BitOrAssign;

use ipnetwork::IpNetwork;
use kernel::events::{Event, Heard, Listener};
use kernel::route::{Route, TABLE_MAIN};
use kernel::{Family, Result, Rtnl, link, nft};
use nix::libc::EPERM;
use tokio::io::unix::AsyncFd;

use crate::masquerade;
use crate::model::Node;
use crate::policy::program;
use crate::routing::{self, Plan};

/// What is to be looked at again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Facts of the machine, routes, tunnels.
    pub routes: bool,
    /// The table of the masquerade.
    pub masquerade: bool,
    /// The table of the policies.
    pub policy: bool,
}

impl Look {
    /// Everything.
    pub const ALL: Look = Look { routes: true, masquerade: true, policy: true };

    /// Something.
    pub fn is_any(self) -> bool {
        self != Look::default()
    }
}

impl BitOrAssign for Look {
    fn bitor_assign(&mut self, other: Look) {
        self.routes |= other.routes;
        self.masquerade |= other.masquerade;
        self.policy |= other.policy;
    }
}

/// Which announcements matter.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// This node's PodCIDRs: what happens within them is pods coming and going.
    pub pods: Vec<IpNetwork>,
    /// The links that peers are reached over.
    pub uplinks: BTreeSet<u32>,
    /// Ports of sockets ([`kernel::Nfnl::port`]) whose changes of the policies' table are the agent's own.
    pub own: BTreeSet<u32>,
}

impl Interest {
    /// What matters to the node `own` with this plan.
    pub fn of(own: &Node, plan: &Plan) -> Interest {
        Interest { pods: own.pod_cidrs.clone(), uplinks: plan.uplinks.clone(), own: BTreeSet::new() }
    }
}

/// Hears what the kernel announces.
#[derive(Debug)]
pub struct Watch {
    routing: AsyncFd<Listener>,
    /// None on a kernel without nf_tables, or without the leave to hear of them.
    tables: Option<AsyncFd<Listener>>,
    sieve: Sieve,
}

impl Watch {
    /// Hears of everything from now on that `interest` says matters, in the calling thread's namespace. To be called
    /// within a tokio runtime, before the first look: so nothing is missed in between.
    ///
    /// # Errors
    /// The sockets cannot be had.
    pub fn open(interest: Interest) -> Result<Watch> {
        let tables = match Listener::tables() {
            Ok(tables) => Some(polled(tables)?),
            // Who may not change tables has none to keep; what is missing is told by another ([`crate::policy::probe`]).
            Err(error) if error.lacks().is_some() || error.errno() == Some(EPERM) => None,
            Err(error) => return Err(error),
        };
        let routing = polled(Listener::routing()?)?;
        let mut sieve = Sieve { interest, ..Sieve::default() };
        for there in link::list(&mut Rtnl::open()?)? {
            sieve.link(there.index, &there.name);
            sieve.link_of_pod(there.index, Some(there.group));
        }
        Ok(Watch { routing, tables, sieve })
    }

    /// From now on this matters.
    pub fn set_interest(&mut self, interest: Interest) {
        self.sieve.interest = interest;
    }

    /// Waits until something has happened that matters, and says what is to be looked at. Nothing is lost when the
    /// future is dropped before it is ready.
    ///
    /// # Errors
    /// A socket cannot be read.
    pub async fn next(&mut self) -> Result<Look> {
        loop {
            let heard = match &mut self.tables {
                Some(tables) => tokio::select! {
                    heard = hear(&mut self.routing) => heard?,
                    heard = hear(tables) => heard?,
                },
                None => hear(&mut self.routing).await?,
            };
            let look = self.sieve.sift(&heard);
            if look.is_any() {
                return Ok(look);
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "what replaces it is unsafe; a listener's descriptor is its own and never another"
)]
fn polled(listener: Listener) -> Result<AsyncFd<Listener>> {
    AsyncFd::with_interest(listener, tokio::io::Interest::READABLE)
        .map_err(|error| kernel::Error::io("wait for what the kernel announces", error))
}

async fn hear(listener: &mut AsyncFd<Listener>) -> Result<Heard> {
    let ready = listener.readable_mut().await;
    let mut ready = ready.map_err(|error| kernel::Error::io("wait for what the kernel announces", error))?;
    // Everything that waits is read, so what comes now makes it ready again.
    let heard = ready.get_inner_mut().heard();
    ready.clear_ready();
    heard
}

/// Tells what matters from what does not.
#[derive(Debug, Default)]
struct Sieve {
    interest: Interest,
    /// The indices of tunnels that there are or were.
    tunnels: BTreeSet<u32>,
    /// The indices of pods' links.
    pods: BTreeSet<u32>,
    loopback: u32,
}

impl Sieve {
    fn sift(&mut self, heard: &Heard) -> Look {
        let mut look = if heard.lost { Look::ALL } else { Look::default() };
        for event in &heard.events {
            look |= self.of(event);
        }
        look
    }

    fn of(&mut self, event: &Event) -> Look {
        let routes = match event {
            Event::Link { index, name, group } => {
                // A pod's link that is taken out of its group.
                let policy = self.link_of_pod(*index, *group) && group.is_some();
                let routes = self.link(*index, name) || self.interest.uplinks.contains(index);
                return Look { routes, policy, masquerade: false };
            }
            Event::Address(address) => {
                let ip = address.net.ip();
                let is_gateway = self.tunnels.contains(&address.index) && self.is_pods(ip);
                let is_strange = !(self.is_pods(ip) || is_on_every_link(ip));
                address.index == self.loopback || is_gateway || is_strange
            }
            Event::Route(route) => self.route(route),
            Event::Neigh { index } => self.tunnels.contains(index),
            Event::Rule(_) => true,
            Event::Config { index, .. } => index.is_none_or(|it| self.tunnels.contains(&it)),
            Event::Table { family, name, port } => {
                let ours = |table: &str| *family == nft::Family::Inet && name == table;
                let masquerade = ours(masquerade::TABLE.name);
                let policy = ours(program::TABLE) && !self.interest.own.contains(port);
                return Look { routes: false, masquerade, policy };
            }
        };
        Look { routes, ..Look::default() }
    }

    /// Whether a link was one of a pod's and is so no more.
    fn link_of_pod(&mut self, index: u32, group: Option<u32>) -> bool {
        match group {
            Some(program::LINKS) => {
                self.pods.insert(index);
                false
            }
            _ => self.pods.remove(&index),
        }
    }

    /// Whether a link is a tunnel; remembers it.
    fn link(&mut self, index: u32, name: &str) -> bool {
        if name == "lo" {
            self.loopback = index;
        }
        let tunnel = [Family::V4, Family::V6].iter().any(|it| routing::tunnel_name(*it) == name);
        if tunnel {
            self.tunnels.insert(index);
        }
        tunnel
    }

    fn route(&self, route: &Route) -> bool {
        let dst = route.destination();
        let tables = [TABLE_MAIN, routing::TABLE];
        // To a pod: a route of full length within the PodCIDR.
        let pod = dst.prefix() == (if dst.is_ipv4() { 32 } else { 128 }) && self.is_pods(dst.ip());
        route.protocol == routing::PROTOCOL
            || tables.contains(&route.table_id()) && !pod && !is_on_every_link(dst.ip())
    }

    fn is_pods(&self, ip: IpAddr) -> bool {
        self.interest.pods.iter().any(|it| it.is_ipv6() == ip.is_ipv6() && it.contains(ip))
    }
}

/// Link-local and multicast addresses of IPv6, which the kernel gives every link.
fn is_on_every_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieve() -> Sieve {
        let interest = Interest {
            pods: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            uplinks: BTreeSet::from([2]),
            own: BTreeSet::from([77]),
        };
        let mut sieve = Sieve { interest, ..Sieve::default() };
        assert!(!sieve.link(1, "lo") && sieve.link(9, "podnet-vxlan") && !sieve.link(2, "eth0"));
        sieve
    }

    fn route(dst: &str) -> Event {
        Event::Route(Route { dst: Some(dst.parse().unwrap()), ..Route::default() })
    }

    fn table(name: &str, port: u32) -> Event {
        Event::Table { family: nft::Family::Inet, name: name.to_owned(), port }
    }

    fn looks(event: &Event) -> Look {
        sieve().of(event)
    }

    #[test]
    fn pods_coming_and_going_are_nothing_to_look_at() {
        for event in [
            Event::Link { index: 30, name: "veth1".into(), group: Some(0) },
            route("10.244.1.7/32"),
            route("fd00:1::7/128"),
            route("fe80::/64"),
            Event::Neigh { index: 30 },
            Event::Config { family: Family::V4, index: Some(30) },
            table("kube-proxy", 5),
        ] {
            assert_eq!(looks(&event), Look::default(), "{event:?}");
        }
    }

    #[test]
    fn what_routes_and_tunnels_stand_on_is_looked_at() {
        let ours = Route { protocol: routing::PROTOCOL, table: Some(5), ..Route::default() };
        for event in [
            Event::Link { index: 9, name: "podnet-vxlan".into(), group: Some(0) },
            Event::Link { index: 44, name: "podnet-vxlan6".into(), group: Some(0) },
            Event::Link { index: 2, name: "eth0".into(), group: Some(0) },
            route("0.0.0.0/0"),
            route("10.244.2.0/24"),
            route("10.244.1.0/24"),
            Event::Route(ours),
            Event::Neigh { index: 9 },
            Event::Rule(Family::V6),
            Event::Config { family: Family::V4, index: None },
            Event::Config { family: Family::V4, index: Some(9) },
        ] {
            assert_eq!(looks(&event), Look { routes: true, ..Look::default() }, "{event:?}");
        }
    }

    #[test]
    fn tables_are_told_apart_and_own_changes_of_the_policies_are_not_heard() {
        assert_eq!(looks(&table("podnet-masq", 77)), Look { masquerade: true, ..Look::default() });
        assert_eq!(looks(&table("podnet-policy", 5)), Look { policy: true, ..Look::default() });
        assert_eq!(looks(&table("podnet-policy", 77)), Look::default());
        let other = Event::Table { family: nft::Family::Ip, name: "podnet-masq".into(), port: 5 };
        assert_eq!(looks(&other), Look::default());
    }

    #[test]
    fn a_pods_link_that_leaves_its_group_is_looked_at_and_one_that_is_deleted_is_not() {
        let mut sieve = sieve();
        let mut look = |index, group| sieve.of(&Event::Link { index, name: "veth1".into(), group });
        for (index, group) in
            [(30, Some(0)), (30, Some(program::LINKS)), (31, Some(program::LINKS)), (31, None)]
        {
            assert_eq!(look(index, group), Look::default(), "{index} {group:?}");
        }
        assert_eq!(look(30, Some(0)), Look { policy: true, ..Look::default() });
        assert_eq!(look(30, Some(0)), Look::default(), "it is told once");
    }

    #[test]
    fn lost_announcements_may_have_been_about_anything() {
        let heard = Heard { events: Vec::new(), lost: true };
        assert_eq!(sieve().sift(&heard), Look::ALL);
    }

    #[test]
    fn a_tunnel_is_known_by_its_new_number_once_it_was_announced() {
        let mut sieve = sieve();
        assert!(!sieve.of(&Event::Neigh { index: 44 }).is_any());
        sieve.of(&Event::Link { index: 44, name: "podnet-vxlan".into(), group: Some(0) });
        assert!(sieve.of(&Event::Neigh { index: 44 }).routes);
    }
}
