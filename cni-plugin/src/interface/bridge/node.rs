//! The node's side of `bridge`: the bridge itself, the node's end of the veth, gateway addresses.

use std::net::IpAddr;
use std::time::Duration;

use cni::{Call, CniResult, Error, Undo, code};
use ipnetwork::IpNetwork;
use kernel::addr::AddrOptions;
use kernel::link::{self, Change, Link, Port};
use kernel::{Mac, Rtnl, addr, sysctl};

use super::config::BridgeConfig;
use super::vlan;
use crate::interface::attach::{failed, network};
use crate::interface::forwarding::{self, unless_others};
use crate::interface::saved::Saved;
use crate::interface::veth::{self, NodeEnd};

/// How long a new port may take to forward: the sum of the reference's waits.
const PORT_DEADLINE: Duration = Duration::from_millis(2550);
/// The alias of a bridge that podnet made, which therefore keeps its MAC.
const BRIDGE_ALIAS: &str = "podnet";

/// The bridge of the configuration, made if it is not there, up, promiscuous if asked.
///
/// The MAC of a new bridge is chosen here and so stays, instead of following the lowest of its ports; the
/// alias says so to later ADDs. The caller holds a [`NodeLock`](crate::interface::forwarding::NodeLock) until its
/// veth is plugged.
pub(super) fn ensure_bridge(
    rtnl: &mut Rtnl,
    call: &Call,
    config: &BridgeConfig,
    undo: &mut Undo,
) -> Result<Link, Error> {
    let name = config.bridge.as_str();
    let mut found = link::by_name(rtnl, name);
    let mut made = false;
    if found.as_ref().is_err_and(kernel::Error::is_not_found) {
        let wanted = link::Bridge {
            name,
            mac: Some(bridge_mac(call, name)),
            mtu: config.mtu,
            vlan_filtering: config.vlans.is_some(),
            up: true,
        };
        match link::add_bridge(rtnl, &wanted) {
            Ok(()) => {
                made = true;
                let name = name.to_owned();
                undo.push("delete the bridge", move || remove_unused_bridge(&name).map_err(|err| err.msg));
            }
            // Another ADD was quicker: its bridge serves as well.
            Err(err) if err.is_exists() => {}
            Err(err) => return Err(failed(format!("create bridge {name:?}"))(err)),
        }
        found = link::by_name(rtnl, name);
    }
    let mut bridge = found.map_err(failed(format!("find bridge {name:?}")))?;
    if bridge.kind.as_deref() != Some("bridge") {
        return Err(Error::internal(format!("{name:?} already exists but is not a bridge")));
    }
    let index = bridge.index;
    if made {
        set_alias(rtnl, &mut bridge)?;
    }
    if config.vlans.is_some() {
        vlan::ensure_filtering(rtnl, &bridge, is_pinned(&bridge), undo)?;
    }
    refuse_router_advertisements(&bridge, undo);
    let change = Change {
        up: (!bridge.up).then_some(true),
        promisc: (config.promisc && !bridge.promisc).then_some(true),
        ..Change::default()
    };
    if change.up.is_some() || change.promisc.is_some() {
        if !made {
            let (up, promisc) = (change.up.map(|_| false), change.promisc.map(|_| false));
            let saved = Saved::of(rtnl, index)?;
            undo.push("set the bridge back", move || {
                let mut rtnl = Rtnl::open().map_err(|err| err.to_string())?;
                let back = Change { up, promisc, ..Change::default() };
                link::set(&mut rtnl, index, &back).map_err(|err| err.to_string())?;
                if up.is_some() { saved.restore(&mut rtnl) } else { Ok(()) }
            });
        }
        link::set(rtnl, index, &change).map_err(failed(format!("set bridge {name:?} up")))?;
    }
    Ok(bridge)
}

/// A node must not take its default route from a pod. Best effort, as in the reference.
fn refuse_router_advertisements(bridge: &Link, undo: &mut Undo) {
    let Some(before) = bridge.accept_ra.filter(|&value| value != 0) else { return };
    let key = format!("net/ipv6/conf/{}/accept_ra", bridge.name);
    if sysctl::write(&key, "0").is_ok() {
        undo.push("accept router advertisements again", move || {
            // Gone with a bridge that this ADD made.
            let _ = sysctl::write(&key, &before.to_string());
            Ok(())
        });
    }
}

/// The MAC of a new bridge: it follows from the host's name and from the attachment that it is made for.
fn bridge_mac(call: &Call, bridge: &str) -> Mac {
    let host = nix::unistd::gethostname().unwrap_or_default();
    veth::derived(call, &format!("bridge {bridge} of {}", host.to_string_lossy()))
}

/// Whether the bridge keeps its MAC whatever its ports are: podnet made it. The gateway of a VLAN has no ports.
fn is_pinned(bridge: &Link) -> bool {
    bridge.alias.as_deref() == Some(BRIDGE_ALIAS) || bridge.kind.as_deref() != Some("bridge")
}

fn set_alias(rtnl: &mut Rtnl, bridge: &mut Link) -> Result<(), Error> {
    link::set(rtnl, bridge.index, &Change { alias: Some(BRIDGE_ALIAS), ..Change::default() })
        .map_err(failed(format!("set alias of bridge {:?}", bridge.name)))?;
    bridge.alias = Some(BRIDGE_ALIAS.to_owned());
    Ok(())
}

/// Lets a bridge that another program made keep the MAC it had before this ADD, as the reference does when
/// it adds a gateway address; a bridge without any, emptied of its ports, gets one.
fn pin_mac(rtnl: &mut Rtnl, bridge: &mut Link) -> Result<(), Error> {
    if is_pinned(bridge) {
        return Ok(());
    }
    let mac = match bridge.mac {
        Some(mac) if mac != Mac([0; 6]) => mac,
        _ => veth::random_mac()?,
    };
    link::set(rtnl, bridge.index, &Change { mac: Some(mac), ..Change::default() })
        .map_err(failed(format!("set MAC of bridge {:?}", bridge.name)))?;
    bridge.mac = Some(mac);
    Ok(())
}

/// The MAC of the bridge now that the port is plugged.
pub(super) fn current_mac(rtnl: &mut Rtnl, bridge: &Link) -> Result<Option<Mac>, Error> {
    if is_pinned(bridge) {
        return Ok(bridge.mac);
    }
    let now = link::by_index(rtnl, bridge.index).map_err(failed(format!("find bridge {:?}", bridge.name)))?;
    Ok(now.mac)
}

/// Deletes a bridge that this ADD made, unless another ADD has plugged into it meanwhile. This ADD's own
/// port is gone by now.
fn remove_unused_bridge(name: &str) -> Result<(), Error> {
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
    let index = match link::by_name(&mut rtnl, name) {
        Ok(bridge) => bridge.index,
        Err(err) if err.is_not_found() => return Ok(()),
        Err(err) => return Err(failed(format!("find bridge {name:?}"))(err)),
    };
    unless_others(0, |port| port.master == Some(index), || link::delete(&mut rtnl, index))
}

/// Says on the node's end whose it is, gives it its port options, and waits until it carries frames, which the kernel
/// tells a moment after the pod's end is up. Called when that is so, and one look at the link then serves both.
///
/// # Errors
/// Code 11 when the port does not come up in time.
pub(super) fn complete_port(
    rtnl: &mut Rtnl,
    config: &BridgeConfig,
    call: &Call,
    veth: &NodeEnd,
) -> Result<Link, Error> {
    let (name, index) = (veth.name.as_str(), veth.index);
    let port = Port { hairpin: config.hairpin, isolated: config.isolated, learning: true };
    let link = veth::complete(rtnl, call, veth, (port != Port::default()).then_some(&port))?;
    if config.leave_down || link.oper_up {
        return Ok(link);
    }
    let up =
        link::wait_oper_up(rtnl, index, PORT_DEADLINE).map_err(failed(format!("bridge port {name:?}")))?;
    if up {
        return Ok(link);
    }
    let state =
        link::by_index(rtnl, index).map(|link: Link| link.oper_state).unwrap_or_else(|err| err.to_string());
    Err(Error::new(code::TRY_LATER, format!("bridge port in error state: {state} ({name:?})")))
}

/// Puts the gateway addresses of `result` on `on`, which is bridge `bridge` or the gateway of a VLAN on it, and lets the
/// node forward their families.
pub(super) fn add_gateways(
    rtnl: &mut Rtnl,
    config: &BridgeConfig,
    (bridge, on): (u32, &mut Link),
    veth: &NodeEnd,
    result: &CniResult,
    undo: &mut Undo,
) -> Result<(), Error> {
    for v6 in [false, true] {
        let mut any = false;
        for ip in &result.ips {
            let Some(gateway) = ip.gateway.filter(|gateway| gateway.is_ipv6() == v6) else { continue };
            let address = IpNetwork::new(gateway, ip.address.prefix())
                .map_err(|err| Error::internal(format!("gateway {gateway} of {}: {err}", ip.address)))?;
            ensure_address(rtnl, config, (bridge, on, veth.index), address, undo)?;
            any = true;
        }
        if any {
            forwarding::enable(rtnl, v6, veth.index, undo)?;
        }
    }
    Ok(())
}

/// The address is on `on`. Another IPv4 address, or an overlapping IPv6 one, conflicts: with
/// `forceAddress` it is replaced, else it is an error.
fn ensure_address(
    rtnl: &mut Rtnl,
    config: &BridgeConfig,
    (bridge, on, own): (u32, &mut Link, u32),
    address: IpNetwork,
    undo: &mut Undo,
) -> Result<(), Error> {
    let (name, index) = (on.name.clone(), on.index);
    let present = addr::list(rtnl, Some(index)).map_err(failed(format!("list addresses of {name:?}")))?;
    if present.iter().any(|there| there.net == address) {
        return Ok(());
    }
    let mut saved = false;
    for other in present.iter().map(|there| there.net) {
        let conflicts = match (other, address) {
            (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
            (IpNetwork::V6(_), IpNetwork::V6(_)) => overlap(other, address),
            _ => false,
        };
        if !conflicts {
            continue;
        }
        if !config.force_address {
            return Err(Error::internal(format!(
                "{name:?} already has an IP address different from {address} (it has {other}; \
                 set forceAddress to replace it, or give this network a bridge of its own)"
            )));
        }
        if !saved {
            let before = Saved::of(rtnl, index)?;
            undo.push("put the bridge's addresses back", move || {
                before.restore(&mut Rtnl::open().map_err(|err| err.to_string())?)
            });
            saved = true;
        }
        match addr::delete(rtnl, index, other) {
            // A secondary address goes with its primary.
            Err(err) if !err.is_not_found() => {
                return Err(failed(format!("delete address {other} of {name:?}"))(err));
            }
            _ => {}
        }
    }
    let options = AddrOptions { nodad: address.is_ipv6() && !config.enable_dad, ..AddrOptions::default() };
    match addr::add(rtnl, index, address, &options) {
        Ok(()) => {
            undo.push("delete the gateway address", move || {
                let delete = || {
                    let mut rtnl = Rtnl::open()?;
                    addr::delete(&mut rtnl, index, address)
                };
                unless_others(own, |port| port.master == Some(bridge), delete).map_err(|err| err.msg)
            });
            pin_mac(rtnl, on)
        }
        // Another ADD put it there.
        Err(err) if err.is_exists() => Ok(()),
        Err(err) => Err(failed(format!("add gateway address {address} to {name:?}"))(err)),
    }
}

/// Whether two prefixes of one family share an address.
fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    network(a).contains(b.ip()) || network(b).contains(a.ip())
}

/// STATUS of the node's side: the bridge's name is free or a bridge's.
pub(super) fn status(config: &BridgeConfig) -> Result<(), Error> {
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
    if config.vlans.is_some() {
        link::require_vlan_filtering(&mut rtnl)
            .map_err(|err| Error::new(code::UNAVAILABLE, err.to_string()))?;
    }
    match link::by_name(&mut rtnl, &config.bridge) {
        Ok(link) if link.kind.as_deref() != Some("bridge") => Err(Error::new(
            code::UNAVAILABLE,
            format!("{:?} already exists but is not a bridge", config.bridge),
        )),
        Err(err) if !err.is_not_found() => {
            Err(Error::new(code::UNAVAILABLE, format!("find bridge {:?}: {err}", config.bridge)))
        }
        _ => Ok(()),
    }
}

/// The interface addresses that lie on the bridge, for CHECK.
pub(super) fn has_address(rtnl: &mut Rtnl, bridge: &Link, wanted: IpAddr) -> Result<bool, Error> {
    let present = addr::list(rtnl, Some(bridge.index))
        .map_err(failed(format!("list addresses of {:?}", bridge.name)))?;
    Ok(present.iter().any(|address| address.net.ip() == wanted))
}
