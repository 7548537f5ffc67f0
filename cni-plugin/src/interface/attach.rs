//! What the interface plugins share: opening the pod's namespace, configuring its link from a result,
//! checking a link against a result, and removing it.
//!
//! Deliberately not here: anything on the node's side, which differs from plugin to plugin.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::delete::Delete;
use cni::{Call, CniResult, Error, Interface, code};
use ipnetwork::IpNetwork;
use kernel::addr::{AddrOptions, Address};
use kernel::link::{Change, Link, LinkKind};
use kernel::route::{Family, Route};
use kernel::{Batch, Mac, Netns, Rtnl, addr, link, route, rule, sysctl};

/// How long duplicate address detection may take, as the reference waits.
const SETTLE: Duration = Duration::from_secs(5);

/// What `configure` does besides the result's addresses and routes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Who announces the addresses by gratuitous ARP.
    pub(crate) announce: Announce,
    /// Run IPv6 duplicate address detection and wait for its end.
    pub(crate) detect_duplicates: bool,
    /// Other hosts share the link's LAN: duplicate address detection runs beside the pod, which uses its
    /// IPv6 addresses meanwhile (RFC 4429) and announces them. Where the kernel cannot do that, it is
    /// waited for as with `detect_duplicates`.
    pub(crate) shared_lan: bool,
    /// The link leads to a router and to no one else (see [`gateway_routes`]).
    pub(crate) routed: bool,
}

/// How the addresses of the pod's link are announced by gratuitous ARP, now and whenever the link comes up again (the
/// sysctl `arp_notify`).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Announce {
    /// Not at all.
    #[default]
    No,
    /// By the kernel, when the link comes up.
    WhenUp,
    /// By the caller, who calls [`announce`]; by the kernel only later.
    ByCaller,
}

/// What becomes of IPv6 duplicate address detection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dad {
    /// The addresses are known to be unique.
    Skip,
    /// It runs while the addresses are in use already.
    Optimistic,
    /// Its end is waited for.
    Wait,
}

impl Options {
    fn dad(self) -> Dad {
        match self {
            Options { detect_duplicates: true, .. } => Dad::Wait,
            Options { shared_lan: true, .. } => Dad::Optimistic,
            _ => Dad::Skip,
        }
    }
}

/// A CNI error for something that went wrong with `what`.
pub(crate) fn failed(what: impl std::fmt::Display) -> impl Fn(kernel::Error) -> Error {
    let what = what.to_string();
    move |err| Error::internal(format!("{what}: {err}"))
}

/// The pod's network namespace and a netlink socket in it, for ADD and CHECK.
///
/// # Errors
/// Code 8 when CNI_NETNS is no network namespace, 7 for a key `delete` that is none.
pub(crate) fn open_pod(call: &Call) -> Result<(Netns, Rtnl), Error> {
    Delete::of(call)?;
    let open = || {
        let netns = Netns::open(Path::new(&call.env.netns))?;
        // Entering tells a network namespace from the other kinds, which live on the same file system.
        let rtnl = Rtnl::open_in(&netns)?;
        Ok((netns, rtnl))
    };
    open().map_err(|err: kernel::Error| {
        Error::new(code::INVALID_NETNS, format!("failed to open netns {:?}: {err}", call.env.netns))
    })
}

/// A netlink socket in the pod's network namespace for DEL: `None` when there is nothing left to delete in,
/// which is an empty CNI_NETNS, a path that is gone, or a path that is no namespace any more (a bind mount
/// undone).
///
/// # Errors
/// What else keeps the kernel from opening it.
pub(crate) fn open_pod_for_del(call: &Call) -> Result<Option<Rtnl>, Error> {
    const EINVAL: i32 = nix::errno::Errno::EINVAL as i32;
    const ENOTDIR: i32 = nix::errno::Errno::ENOTDIR as i32;
    match Netns::open(Path::new(&call.env.netns)).and_then(|netns| Rtnl::open_in(&netns)) {
        Ok(rtnl) => Ok(Some(rtnl)),
        // EINVAL: a namespace, but not a network's.
        Err(err) if err.is_not_found() || err.is_not_netns() => Ok(None),
        Err(err) if matches!(err.errno(), Some(EINVAL | ENOTDIR)) => Ok(None),
        Err(err) => Err(failed(format!("open netns {:?}", call.env.netns))(err)),
    }
}

/// Gives the link `ifname` (index `index` in `rtnl`'s namespace, which is `netns`) the addresses of
/// `result` that belong to it, sets it up and adds the routes; the order is the reference's.
///
/// # Errors
/// The first thing that the kernel refused, named.
pub(crate) fn configure(
    netns: &Netns,
    rtnl: &mut Rtnl,
    (ifname, index): (&str, u32),
    result: &CniResult,
    options: Options,
) -> Result<(), Error> {
    let own = result.ips.iter().filter(|ip| ip.interface.is_some());
    let addresses: Vec<IpNetwork> = own.map(|ip| ip.address).collect();
    let mut dad = options.dad();
    if addresses.iter().any(IpNetwork::is_ipv6) {
        dad = netns
            .run(|| enable_ipv6(ifname, dad))
            .map_err(failed("enter the pod's netns"))?
            .map_err(failed(format!("enable IPv6 on {ifname:?}")))?;
    }

    let mut batch = Batch::new();
    let mut what = Vec::new();
    for address in &addresses {
        let nodad = address.is_ipv6() && dad == Dad::Skip;
        let optimistic = address.is_ipv6() && dad == Dad::Optimistic;
        let noprefixroute = options.routed;
        let options = AddrOptions { nodad, optimistic, noprefixroute, ..AddrOptions::default() };
        batch.addr_add(index, *address, &options);
        what.push(format!("add address {address} to {ifname:?}"));
    }
    let notify = |batch: &mut Batch, what: &mut Vec<String>| {
        batch.link_set(index, &Change { arp_notify: Some(true), ..Change::default() });
        what.push(format!("set arp_notify of {ifname:?}"));
    };
    if options.announce == Announce::WhenUp {
        notify(&mut batch, &mut what);
    }
    batch.link_set(index, &Change { up: Some(true), ..Change::default() });
    what.push(format!("set {ifname:?} up"));
    if options.announce == Announce::ByCaller {
        notify(&mut batch, &mut what);
    }
    let wait = dad == Dad::Wait && result.ips.iter().any(|ip| matches!(ip.gateway, Some(IpAddr::V6(_))));
    if wait {
        send(rtnl, batch, &what)?;
        settle(rtnl, ifname, index)?;
        batch = Batch::new();
        what.clear();
    }
    if options.routed {
        for route in gateway_routes(index, result) {
            what.push(format!("add route {} dev {ifname}", route.destination()));
            batch.route_add(&route);
        }
    }
    for wanted in &result.routes {
        let mut full = resolve_route(wanted, index, result);
        full.onlink = options.routed && is_neighbour(full.gateway, result);
        what.push(match full.gateway {
            Some(gateway) => format!("add route {} via {gateway} dev {ifname}", wanted.dst),
            None => format!("add route {} dev {ifname}", wanted.dst),
        });
        batch.route_add(&full);
    }
    send(rtnl, batch, &what)
}

/// Has the kernel announce the addresses of the pod's link by gratuitous ARP, which it does for a MAC that is set (the
/// sysctl `arp_notify`). Best effort: who does not hear it asks again when its entry has aged.
///
/// Where `crowded`, a child does it: a frame that a bridge floods to many ports keeps its sender busy for milliseconds.
pub(crate) fn announce(mut pod: Rtnl, index: u32, mac: Mac, crowded: bool) {
    let change = Change { mac: Some(mac), ..Change::default() };
    let _ = if crowded {
        let mut batch = Batch::new();
        batch.link_set(index, &change);
        pod.send_by_child(batch)
    } else {
        link::set(&mut pod, index, &change)
    };
}

fn send(rtnl: &mut Rtnl, batch: Batch, what: &[String]) -> Result<(), Error> {
    if what.is_empty() {
        return Ok(());
    }
    let answers = rtnl.send(batch).map_err(failed("netlink in the pod"))?;
    for (answer, what) in answers.into_iter().zip(what) {
        answer.map_err(failed(what))?;
    }
    Ok(())
}

/// The gateway that a route names. DHCP's option 121 writes 0.0.0.0 for none.
fn told_gateway(route: &cni::Route) -> Option<IpAddr> {
    route.gw.filter(|gateway| !gateway.is_unspecified())
}

/// The kernel's route for `wanted`: without a gateway of its own it takes the first gateway of its
/// family among the result's addresses, as the reference does, unless its scope says that the destination
/// is on the link.
fn resolve_route(wanted: &cni::Route, index: u32, result: &CniResult) -> Route {
    let v6 = wanted.dst.is_ipv6();
    let on_link = wanted.scope.is_some_and(|scope| scope >= route::SCOPE_LINK);
    let told = told_gateway(wanted);
    let fallback = || result.ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv6() == v6);
    Route {
        dst: Some(wanted.dst),
        gateway: if on_link { told } else { told.or_else(fallback) },
        oif: Some(index),
        priority: wanted.priority.filter(|&metric| metric != 0),
        table: wanted.table,
        scope: wanted.scope,
        mtu: wanted.mtu.filter(|&bytes| bytes != 0),
        advmss: wanted.advmss.filter(|&bytes| bytes != 0),
        ..Route::default()
    }
}

/// The routes of a pod whose link leads to a router only: to each gateway over the link, and through it to the
/// rest of the address' subnet. Several addresses may share a gateway or a subnet.
pub(crate) fn gateway_routes(index: u32, result: &CniResult) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let with_gateway = result.ips.iter().filter_map(|ip| Some((ip.address, ip.gateway?)));
    for (address, gateway) in with_gateway {
        let to_gateway = Route {
            dst: Some(host_prefix(gateway)),
            oif: Some(index),
            src: Some(address.ip()),
            scope: address.is_ipv4().then_some(route::SCOPE_LINK),
            ..Route::default()
        };
        let subnet = network(address);
        let to_subnet =
            Route { dst: Some(subnet), gateway: Some(gateway), scope: None, ..to_gateway.clone() };
        let alone = subnet == host_prefix(address.ip());
        for route in [Some(to_gateway), (!alone).then_some(to_subnet)].into_iter().flatten() {
            if !routes.iter().any(|there| there.dst == route.dst) {
                routes.push(route);
            }
        }
    }
    routes
}

/// Whether the gateway of a route is neither that of an address nor outside of every subnet: the kernel then
/// has to be told that it is on the link, where the reference still has the connected route when it adds it.
fn is_neighbour(gateway: Option<IpAddr>, result: &CniResult) -> bool {
    gateway.is_some_and(|gateway| {
        result.ips.iter().all(|ip| ip.gateway != Some(gateway))
            && result.ips.iter().any(|ip| ip.address.contains(gateway))
    })
}

/// An address as a prefix of full length.
pub(crate) fn host_prefix(ip: IpAddr) -> IpNetwork {
    ip.into()
}

/// The sysctls that the reference sets before the first IPv6 address, in the calling thread's netns.
/// A value that is already right is not written, so a read-only /proc/sys does no harm then. Returns how
/// duplicate address detection can be done.
fn enable_ipv6(ifname: &str, mut dad: Dad) -> kernel::Result<Dad> {
    for name in ["lo", ifname] {
        sysctl::ensure(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
    }
    sysctl::ensure(&format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1")?;
    let own = |key: &str, value: &str| sysctl::ensure(&format!("net/ipv6/conf/{ifname}/{key}"), value);
    if dad == Dad::Optimistic {
        // A kernel without CONFIG_IPV6_OPTIMISTIC_DAD has neither; a read-only /proc/sys takes neither.
        let optimistic = own("optimistic_dad", "1").and_then(|_| own("use_optimistic", "1"));
        if optimistic.is_err() {
            dad = Dad::Wait;
        }
        // Best effort, as in the reference.
        let _ = own("ndisc_notify", "1");
    }
    if dad != Dad::Skip {
        // Best effort: an older kernel has no enhanced_dad.
        let _ = own("enhanced_dad", "1");
    }
    let _ = own("accept_dad", if dad == Dad::Skip { "0" } else { "1" });
    Ok(dad)
}

/// Waits for the end of duplicate address detection on the link.
fn settle(rtnl: &mut Rtnl, ifname: &str, index: u32) -> Result<(), Error> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let addresses =
            addr::list(rtnl, Some(index)).map_err(failed(format!("list addresses of {ifname:?}")))?;
        addresses.iter().try_for_each(|address| refuse_duplicate(address, ifname))?;
        if !addresses.iter().any(Address::is_tentative) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let link = link::by_index(rtnl, index).map_err(failed(format!("link {ifname:?}")))?;
            return if link.oper_up {
                Err(Error::internal(format!("link {ifname:?} still has tentative addresses after 5 s")))
            } else {
                Ok(())
            };
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An address that duplicate address detection found with somebody else is an error.
fn refuse_duplicate(address: &Address, ifname: &str) -> Result<(), Error> {
    if !address.is_dad_failed() {
        return Ok(());
    }
    Err(Error::internal(format!(
        "address {} of {ifname:?} is in use by another host on its link (duplicate address detection)",
        address.net
    )))
}

/// The key `mtu` as a number of bytes; 0 leaves it to the kernel.
///
/// # Errors
/// Code 7 for what is none.
pub(crate) fn mtu(written: i64) -> Result<u32, Error> {
    u32::try_from(written)
        .map_err(|_| Error::invalid(format!("mtu {written} is not a number of bytes from 0 to {}", u32::MAX)))
}

/// The previous result that CHECK must be given.
///
/// # Errors
/// Code 7 when the configuration has none.
pub(crate) fn prev_result(call: &Call) -> Result<&CniResult, Error> {
    call.conf.prev_result.as_ref().ok_or_else(|| Error::invalid("Required prevResult missing"))
}

/// The pod's interface in `result`: named CNI_IFNAME, in a sandbox, which must be CNI_NETNS.
///
/// # Errors
/// It is not listed, or stands in another sandbox.
pub(crate) fn pod_interface<'r>(call: &Call, result: &'r CniResult) -> Result<(usize, &'r Interface), Error> {
    let mut named = result.interfaces.iter().enumerate();
    let Some((index, interface)) =
        named.find(|(_, interface)| interface.name == call.env.ifname && !interface.sandbox.is_empty())
    else {
        return Err(Error::internal(format!("interface {:?} is not in prevResult", call.env.ifname)));
    };
    if interface.sandbox != call.env.netns {
        return Err(Error::internal(format!(
            "Sandbox in prevResult {:?} doesn't match configured netns {:?}",
            interface.sandbox, call.env.netns
        )));
    }
    Ok((index, interface))
}

/// CHECK of the pod's link: it is there, up, and has the MAC that `recorded` has.
///
/// # Errors
/// What is missing or different.
pub(crate) fn check_link(rtnl: &mut Rtnl, ifname: &str, recorded: &Interface) -> Result<Link, Error> {
    let link = link::by_name(rtnl, ifname).map_err(failed(format!("find {ifname:?} in the pod")))?;
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !recorded.mac.is_empty() && !recorded.mac.eq_ignore_ascii_case(&mac) {
        return Err(Error::internal(format!(
            "{ifname:?} in the pod has MAC {mac}, but prevResult recorded {}",
            recorded.mac
        )));
    }
    if !link.up {
        return Err(Error::internal(format!("{ifname:?} in the pod is down")));
    }
    Ok(link)
}

/// CHECK of addresses: each one that `result` records for interface `position` is on the link with its
/// prefix length, and the kernel has the connected route of its prefix.
///
/// # Errors
/// The first address or connected route that is missing.
pub(crate) fn check_addresses(
    rtnl: &mut Rtnl,
    (ifname, index): (&str, u32),
    result: &CniResult,
    position: usize,
) -> Result<(), Error> {
    let present = addr::list(rtnl, Some(index)).map_err(failed(format!("list addresses of {ifname:?}")))?;
    let routes = list_routes(rtnl)?;
    for ip in result.ips.iter().filter(|ip| ip.interface.is_none_or(|at| at == position)) {
        let Some(address) = present.iter().find(|address| address.net == ip.address) else {
            return Err(Error::internal(format!("address {} is not on {ifname:?}", ip.address)));
        };
        refuse_duplicate(address, ifname)?;
        let full = if ip.address.is_ipv4() { 32 } else { 128 };
        let subnet = network(ip.address);
        let connected = ip.address.prefix() == full
            || routes.iter().any(|route| route.oif == Some(index) && network(route.destination()) == subnet);
        if !connected {
            return Err(Error::internal(format!("connected route {subnet} of {ifname:?} is missing")));
        }
    }
    Ok(())
}

/// CHECK of routes: each of `result` is in the table it asks for; one that asks for none is in the main table,
/// or in one that a later plugin of the chain moved it to: which a rule leads to, or a VRF. A gateway must
/// match, except a default route's, which such a plugin may have changed.
///
/// # Errors
/// The first route that is missing.
pub(crate) fn check_routes(rtnl: &mut Rtnl, result: &CniResult) -> Result<(), Error> {
    let present = list_routes(rtnl)?;
    let mut other_tables: Option<Vec<u32>> = None;
    for wanted in &result.routes {
        let default = wanted.dst.prefix() == 0;
        let same = |route: &Route| {
            network(route.destination()) == network(wanted.dst)
                && (default || told_gateway(wanted).is_none() || route.gateway == wanted.gw)
        };
        let table = wanted.table.unwrap_or(route::TABLE_MAIN);
        if present.iter().any(|route| route.table_id() == table && same(route)) {
            continue;
        }
        let others: &[u32] = match (wanted.table, &mut other_tables) {
            (Some(_), _) => &[],
            (None, Some(tables)) => tables,
            (None, none) => none.insert(tables_in_use(rtnl)?),
        };
        if !present.iter().any(|route| others.contains(&route.table_id()) && same(route)) {
            let gateway = wanted.gw.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            return Err(Error::internal(format!("route {}{gateway} is missing in the pod", wanted.dst)));
        }
    }
    Ok(())
}

/// The tables that a rule leads to, or that are a VRF's.
fn tables_in_use(rtnl: &mut Rtnl) -> Result<Vec<u32>, Error> {
    let mut tables = Vec::new();
    for family in [Family::V4, Family::V6] {
        let rules = rule::list(rtnl, family).map_err(failed("list rules of the pod"))?;
        tables.extend(rules.into_iter().map(|rule| rule.table));
    }
    let links = link::list(rtnl).map_err(failed("list links of the pod"))?;
    tables.extend(links.into_iter().filter_map(|link| match link.data {
        Some(LinkKind::Vrf { table }) => Some(table),
        _ => None,
    }));
    Ok(tables)
}

fn list_routes(rtnl: &mut Rtnl) -> Result<Vec<Route>, Error> {
    let mut routes = route::list(rtnl, Family::V4).map_err(failed("list routes of the pod"))?;
    routes.extend(route::list(rtnl, Family::V6).map_err(failed("list IPv6 routes of the pod"))?);
    Ok(routes)
}

/// The prefix with its host bits cleared.
pub(crate) fn network(net: IpNetwork) -> IpNetwork {
    match net {
        IpNetwork::V4(v4) => {
            ipnetwork::Ipv4Network::new(v4.network(), v4.prefix()).map_or(net, IpNetwork::V4)
        }
        IpNetwork::V6(v6) => {
            ipnetwork::Ipv6Network::new(v6.network(), v6.prefix()).map_or(net, IpNetwork::V6)
        }
    }
}
