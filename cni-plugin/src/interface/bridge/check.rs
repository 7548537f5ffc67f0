//! CHECK of `bridge`: what an earlier ADD recorded in `prevResult` is still so in the kernel.
//!
//! MACs of the node's end and of the bridge are not compared: udev and kata change them and nothing
//! breaks. The pod's own MAC is, as it is what neighbours have learnt.

use cni::{Call, Error};
use kernel::Rtnl;
use kernel::link::{self, Link};

use super::config::BridgeConfig;
use super::{node, spoof, vlan};
use crate::interface::attach::{self, failed};
use crate::interface::forwarding;
use crate::masq;

/// Compares kernel and `prevResult`.
///
/// # Errors
/// The first thing that is missing or different.
pub(super) fn check(call: &Call, config: &BridgeConfig, mut pod: Rtnl) -> Result<(), Error> {
    let previous = attach::prev_result(call)?;
    let (position, recorded) = attach::pod_interface(call, previous)?;
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
    let bridge = check_bridge(&mut rtnl, config)?;

    let ifname = call.env.ifname.as_str();
    let link = link::by_name(&mut pod, ifname).map_err(failed(format!("find {ifname:?} in the pod")))?;
    if link.kind.as_deref() != Some("veth") {
        return Err(Error::internal(format!("{ifname:?} in the pod is not a veth")));
    }
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !recorded.mac.is_empty() && !recorded.mac.eq_ignore_ascii_case(&mac) {
        return Err(Error::internal(format!(
            "{ifname:?} in the pod has MAC {mac}, but prevResult recorded {}",
            recorded.mac
        )));
    }
    if !link.up && !config.leave_down {
        return Err(Error::internal(format!("{ifname:?} in the pod is down")));
    }
    let port = check_port(&mut rtnl, &bridge, config, &link, previous)?;
    if config.macspoofchk
        && let Some(mac) = link.mac
    {
        spoof::check(call, &port.name, mac)?;
    }
    if config.ipam.is_some() {
        attach::check_addresses(&mut pod, (ifname, link.index), previous, position)?;
        attach::check_routes(&mut pod, previous)?;
        if config.ip_masq {
            let own = previous.ips.iter().filter(|ip| ip.interface.is_none_or(|at| at == position));
            masq::check(call, &own.map(|ip| ip.address).collect::<Vec<_>>())?;
        }
    }
    if let Some(vlans) = &config.vlans {
        vlan::check(&mut rtnl, &bridge, &port, vlans)?;
    }
    if config.is_gateway {
        let native = config.vlans.as_ref().and_then(|vlans| vlans.native);
        let on = native.map(|id| vlan::find_gateway(&mut rtnl, &bridge, id)).transpose()?.unwrap_or(bridge);
        for gateway in previous.ips.iter().filter_map(|ip| ip.gateway) {
            forwarding::check(&mut rtnl, gateway.is_ipv6())?;
            if !node::has_address(&mut rtnl, &on, gateway)? {
                return Err(Error::internal(format!("gateway {gateway} is not on {:?}", on.name)));
            }
        }
    }
    Ok(())
}

fn check_bridge(rtnl: &mut Rtnl, config: &BridgeConfig) -> Result<Link, Error> {
    let name = config.bridge.as_str();
    let bridge = link::by_name(rtnl, name).map_err(failed(format!("find bridge {name:?}")))?;
    if bridge.kind.as_deref() != Some("bridge") {
        return Err(Error::internal(format!("{name:?} is not a bridge")));
    }
    if !bridge.up {
        return Err(Error::internal(format!("bridge {name:?} is down")));
    }
    if config.promisc && !bridge.promisc {
        return Err(Error::internal(format!("bridge {name:?} is not promiscuous")));
    }
    Ok(bridge)
}

/// The node's end of the pod's link is the one recorded, plugged into the bridge, with its options.
fn check_port(
    rtnl: &mut Rtnl,
    bridge: &Link,
    config: &BridgeConfig,
    pod_link: &Link,
    previous: &cni::CniResult,
) -> Result<Link, Error> {
    let missing = || Error::internal(format!("CNI veth created for bridge {:?} was not found", bridge.name));
    let index = pod_link.link.ok_or_else(missing)?;
    let port = link::by_index(rtnl, index).map_err(|err| match err.is_not_found() {
        true => missing(),
        false => failed("find the node's end of the veth")(err),
    })?;
    let listed = previous.interfaces.iter().any(|there| there.sandbox.is_empty() && there.name == port.name);
    if port.kind.as_deref() != Some("veth") || port.link != Some(pod_link.index) || !listed {
        return Err(missing());
    }
    if port.master != Some(bridge.index) {
        let master = port
            .master
            .and_then(|index| link::by_index(rtnl, index).ok())
            .map_or_else(|| "no bridge".to_owned(), |master| format!("{:?}", master.name));
        return Err(Error::internal(format!(
            "veth {:?} is on {master}, not on bridge {:?}",
            port.name, bridge.name
        )));
    }
    if !port.up {
        return Err(Error::internal(format!("veth {:?} is down", port.name)));
    }
    let options = port.port.unwrap_or_default();
    for (what, wanted, is) in
        [("hairpin", config.hairpin, options.hairpin), ("isolated", config.isolated, options.isolated)]
    {
        if wanted != is {
            return Err(Error::internal(format!(
                "bridge port {:?}: {what} is {is}, not {wanted}",
                port.name
            )));
        }
    }
    Ok(port)
}
