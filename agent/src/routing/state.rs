//! What the kernel holds of what a plan is about.

use std::net::IpAddr;

use kernel::neigh::{FdbEntry, Neigh};
use kernel::route::{KIND_UNICAST, TABLE_MAIN};
use kernel::{Family, IpNetwork, Result, Rtnl, addr, link, neigh, route, rule};

use super::{PROTOCOL, TABLE};

/// The loopback link.
const LOOPBACK: &str = "lo";

/// What the kernel holds.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Unicast routes of the two tables, whosever they are, in the kernel's order.
    pub(super) routes: Vec<route::Route>,
    /// Neighbours on the tunnels.
    pub(super) neighs: Vec<Neigh>,
    /// Forwarding entries of the tunnels.
    pub(super) fdb: Vec<FdbEntry>,
    /// Rules that lead to [`TABLE`].
    pub(super) rules: Vec<rule::Rule>,
    /// The index of the loopback link.
    pub(super) loopback: u32,
    /// Its addresses and the tunnels', each with the link's index, and whether it is marked as ours.
    pub(super) gateways: Vec<(u32, IpNetwork, bool)>,
}

impl State {
    /// Asks the kernel; `tunnels` are the indices of the tunnels that are there.
    ///
    /// # Errors
    /// Something cannot be listed.
    pub(super) fn gather(rtnl: &mut Rtnl, tunnels: &[u32]) -> Result<State> {
        let mut state = State::default();
        for family in [Family::V4, Family::V6] {
            let tables = [TABLE_MAIN, TABLE];
            let routes = route::list(rtnl, family)?.into_iter();
            let wanted = |it: &route::Route| it.kind == KIND_UNICAST && tables.contains(&it.table_id());
            state.routes.extend(routes.filter(wanted));
            let rules = rule::list(rtnl, family)?.into_iter();
            state.rules.extend(rules.filter(|it| it.table == TABLE && it.action == rule::ACTION_TABLE));
        }
        if !tunnels.is_empty() {
            state.neighs = neigh::list(rtnl)?;
            state.neighs.retain(|it| tunnels.contains(&it.index));
            state.fdb = neigh::fdb(rtnl)?;
            state.fdb.retain(|it| tunnels.contains(&it.index));
        }
        state.loopback = link::by_name(rtnl, LOOPBACK)?.index;
        for index in std::iter::once(state.loopback).chain(tunnels.iter().copied()) {
            let addresses = addr::list(rtnl, Some(index))?.into_iter();
            state.gateways.extend(addresses.map(|it| (index, it.net, it.protocol == PROTOCOL)));
        }
        Ok(state)
    }

    /// Whether a link has an address.
    pub(super) fn has_gateway(&self, index: u32, ip: IpAddr) -> bool {
        self.gateways.iter().any(|(link, net, _)| *link == index && net.ip() == ip)
    }
}
