//! CHECK and STATUS of the plugins with one link in the pod.

use cni::{Call, Error, code};
use kernel::Rtnl;
use kernel::link::{self, Link, LinkKind};

use super::OneLink;
use crate::interface::attach::{self, failed};
use crate::ipam::Ipam;

/// CHECK: kernel and `prevResult` agree, and the IPAM plugin's reservation stands.
///
/// # Errors
/// The first thing that is missing or different.
pub(crate) fn check(call: &Call, config: &OneLink) -> Result<(), Error> {
    let (_, mut pod) = attach::open_pod(call)?;
    if call.conf.ipam_type().is_some() {
        Ipam::find(call)?.check(call)?;
    }
    let previous = attach::prev_result(call)?;
    let (position, recorded) = attach::pod_interface(call, previous)?;
    let ifname = call.env.ifname.as_str();
    let link = link::by_name(&mut pod, ifname).map_err(failed(format!("find {ifname:?} in the pod")))?;

    let kind = config.kind.name();
    if link.kind.as_deref() != Some(kind) {
        return Err(Error::internal(format!("{ifname:?} in the pod is not a {kind}")));
    }
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
    if config.mtu != 0 && config.mtu != link.mtu {
        return Err(Error::internal(format!(
            "{ifname:?} in the pod has MTU {}, not {}",
            link.mtu, config.mtu
        )));
    }
    if let Some((property, wanted, is)) = difference(config.kind, link.data) {
        return Err(Error::internal(format!("{ifname:?} in the pod: {property} is {is}, not {wanted}")));
    }
    check_parent(config, &mut pod, &link)?;
    attach::check_addresses(&mut pod, (ifname, link.index), previous, position)?;
    attach::check_routes(&mut pod, previous)
}

/// The first property in which a link is another than wanted: its key, the wanted value, the link's.
fn difference(wanted: LinkKind, is: Option<LinkKind>) -> Option<(&'static str, String, String)> {
    use LinkKind::{Dummy, Ipvlan, Macvlan, Vlan};
    let differs = |key, wanted: String, is: String| (wanted != is).then_some((key, wanted, is));
    match (wanted, is) {
        (Macvlan { mode, bc_queue_len }, Some(Macvlan { mode: now, bc_queue_len: queue })) => {
            differs("mode", mode.name().into(), now.name().into()).or_else(|| {
                let (wanted, is) = (bc_queue_len?, queue?);
                differs("bcqueuelen", wanted.to_string(), is.to_string())
            })
        }
        (Ipvlan { mode }, Some(Ipvlan { mode: now })) => {
            differs("mode", mode.name().into(), now.name().into())
        }
        (Vlan { id, .. }, Some(Vlan { id: now, .. })) => differs("vlanId", id.to_string(), now.to_string()),
        (Dummy, Some(Dummy)) => None,
        // A mode that podnet never sets.
        (_, is) => Some(("kind", format!("{wanted:?}"), format!("{is:?}"))),
    }
}

/// A link below that the configuration names is there, and it is the one that the pod's link stands on. The one of a
/// default route may be another by now.
fn check_parent(config: &OneLink, pod: &mut Rtnl, link: &Link) -> Result<(), Error> {
    let Some(parent) = config.parent.as_ref().filter(|parent| parent.name.is_some()) else { return Ok(()) };
    let below = parent.find(pod)?.link;
    if link.link != Some(below.index) || link.link_netnsid.is_some() == parent.in_pod {
        return Err(Error::internal(format!(
            "{:?} in the pod does not stand on {:?}",
            link.name, below.name
        )));
    }
    Ok(())
}

/// STATUS: the kernel has the kind of link, the link below is there, the IPAM plugin has addresses.
///
/// # Errors
/// Code 50 with what is missing.
pub(crate) fn status(call: &Call, config: &OneLink) -> Result<(), Error> {
    let unavailable = |err: Error| Error { code: code::UNAVAILABLE, ..err };
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node")).map_err(unavailable)?;
    link::require(&mut rtnl, &config.kind).map_err(|err| Error::new(code::UNAVAILABLE, err.to_string()))?;
    if let Some(parent) = &config.parent {
        parent.find_on_node().map_err(unavailable)?;
    }
    match call.conf.ipam_type() {
        Some(_) => Ipam::find_for_status(call)?.status(call),
        None => Ok(()),
    }
}
