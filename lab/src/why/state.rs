//! What the kernel has in a namespace, read over netlink at one moment, and what it would do with a packet by that:
//! the route that it takes, the link that it leaves by, who has an address.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use kernel::addr::Address;
use kernel::link::{self, Link};
use kernel::neigh::{self, FdbEntry, Neigh};
use kernel::nft::{self, ChainInfo, Element, Expr, RuleInfo};
use kernel::route::{self, Family, Route, TABLE_LOCAL, TABLE_MAIN};
use kernel::rule::{self, Rule};
use kernel::tc::{self, Qdisc};
use kernel::{Mac, Nfnl, Rtnl, addr, sysctl};

use crate::cluster::{Role, Space};
use crate::fabric::forwarding;
use crate::sockets;

/// A table of nf_tables with its chains and their rules.
#[derive(Debug, Default)]
pub(super) struct TableState {
    pub(super) family: Option<nft::Family>,
    pub(super) name: String,
    pub(super) chains: Vec<(ChainInfo, Vec<RuleInfo>)>,
    /// What is in the maps by which its rules come to a verdict.
    pub(super) maps: HashMap<String, Vec<Element>>,
}

/// A namespace's state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) neighbours: Vec<Neigh>,
    pub(super) fdb: Vec<FdbEntry>,
    pub(super) qdiscs: Vec<Qdisc>,
    pub(super) tables: Vec<TableState>,
    /// By IP version: IPv4, IPv6.
    forwards: [bool; 2],
    /// By link: the stricter of its own and everybody's, as the kernel counts.
    pub(super) rp_filter: HashMap<String, u8>,
    /// Of a place where an app runs.
    pub(super) listening: Option<Vec<SocketAddr>>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
}

/// The links and addresses alone.
pub(super) struct Outline {
    pub(super) name: String,
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
}

impl Outline {
    pub(super) fn read(space: &Space) -> Result<Outline> {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        let (links, addresses) = (link::list(&mut rtnl)?, addr::list(&mut rtnl, None)?);
        Ok(Outline { name: space.name.clone(), links, addresses })
    }

    pub(super) fn mac(&self, interface: &str) -> Option<Mac> {
        self.links.iter().find(|link| link.name == interface)?.mac
    }

    /// The link that has this address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Link> {
        let index = self.addresses.iter().find(|it| it.net.ip() == address)?.index;
        self.links.iter().find(|link| link.index == index)
    }
}

impl State {
    /// `app` is a process of the place whose sockets are looked at.
    pub(super) fn read(space: &Space, app: Option<i32>) -> Result<State> {
        let read = || -> Result<State> {
            let mut rtnl = Rtnl::open_in(&space.netns)?;
            let Outline { name, links, addresses } = Outline::read(space)?;
            let mut qdiscs = Vec::new();
            for link in &links {
                qdiscs.extend(tc::qdiscs(&mut rtnl, link.index)?);
            }
            Ok(State {
                role: space.role,
                neighbours: neigh::list(&mut rtnl)?,
                fdb: neigh::fdb(&mut rtnl)?,
                routes: [route::list(&mut rtnl, Family::V4)?, route::list(&mut rtnl, Family::V6)?].concat(),
                rules: [rule::list(&mut rtnl, Family::V4)?, rule::list(&mut rtnl, Family::V6)?].concat(),
                tables: tables(&mut Nfnl::open_in(&space.netns)?)?,
                forwards: space.netns.run(|| {
                    [Family::V4, Family::V6]
                        .map(|family| sysctl::read(forwarding(family)).is_ok_and(|it| it.trim() == "1"))
                })?,
                rp_filter: space.netns.run(|| rp_filter(&links))??,
                // Who is gone does not listen.
                listening: app.map(|pid| sockets::listening(pid).unwrap_or_default()),
                name,
                links,
                addresses,
                qdiscs,
            })
        };
        read().with_context(|| format!("look into {}", space.name))
    }

    /// It routes for others.
    pub(super) fn forwards(&self, family: Family) -> bool {
        self.forwards[usize::from(family == Family::V6)]
    }

    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    pub(super) fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|it| it.net.ip() == address)
    }

    /// The route of a packet that comes in at `iif`, or is the place's own. None where no route leads there.
    pub(super) fn lookup(&self, to: IpAddr, from: IpAddr, iif: Option<&str>) -> Option<&Route> {
        let is_meant = |rule: &&Rule| rule.table != TABLE_LOCAL && rule.family == Family::of(to);
        let mut rules: Vec<&Rule> = self.rules.iter().filter(is_meant).collect();
        rules.sort_by_key(|rule| rule.priority);
        let applies = |rule: &&&Rule| {
            let by_link = rule.iif.as_deref().is_none_or(|name| Some(name) == iif);
            let by_address =
                rule.src.is_none_or(|net| net.contains(from)) && rule.dst.is_none_or(|net| net.contains(to));
            by_link
                && by_address
                && rule.oif.is_none()
                && rule.mark.is_none()
                && rule.action == rule::ACTION_TABLE
        };
        let tables = rules.iter().filter(applies).map(|rule| rule.table);
        tables.chain([TABLE_MAIN]).find_map(|table| self.best(to, table))
    }

    /// The longest prefix of a table, then the lowest metric.
    fn best(&self, to: IpAddr, table: u32) -> Option<&Route> {
        let of_table = self.routes.iter().filter(|route| route.table_id() == table);
        let fitting = of_table.filter(|route| route.destination().contains(to));
        fitting.max_by_key(|route| (route.destination().prefix(), std::cmp::Reverse(route.priority)))
    }

    pub(super) fn neighbour(&self, index: u32, address: IpAddr) -> Option<&Neigh> {
        self.neighbours.iter().find(|entry| entry.index == index && entry.addr == address)
    }
}

fn tables(nfnl: &mut Nfnl) -> kernel::Result<Vec<TableState>> {
    let mut all = Vec::new();
    for table in nft::tables(nfnl, None)? {
        let mut chains = Vec::new();
        for chain in nft::chains(nfnl, table.table())? {
            let rules = nft::rules(nfnl, table.table(), &chain.name)?;
            chains.push((chain, rules));
        }
        let expressions = chains.iter().flat_map(|(_, rules)| rules).flat_map(|rule| &rule.expressions);
        let led_by = |expression: &Expr| match expression {
            Expr::Lookup { set, to_verdict: true, .. } => Some(set.clone()),
            _ => None,
        };
        let names: HashSet<String> = expressions.filter_map(led_by).collect();
        let read = |name: String| Ok((name.clone(), nft::elements(nfnl, table.table(), &name)?));
        let maps = names.into_iter().map(read).collect::<kernel::Result<_>>()?;
        all.push(TableState { family: Some(table.family), name: table.name, chains, maps });
    }
    Ok(all)
}

fn rp_filter(links: &[Link]) -> kernel::Result<HashMap<String, u8>> {
    let read = |name: &str| -> kernel::Result<u8> {
        let text = sysctl::read(&format!("net/ipv4/conf/{name}/rp_filter"))?;
        Ok(text.trim().parse().unwrap_or(0))
    };
    let all = read("all")?;
    links.iter().map(|link| Ok((link.name.clone(), read(&link.name)?.max(all)))).collect()
}
