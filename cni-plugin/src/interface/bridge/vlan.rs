//! VLANs of `bridge`: those that a pod's port is in, the bridge's filtering by them, and the gateway of one VLAN, an
//! interface `BRIDGE.VLAN` of the node.
//!
//! The gateway is a veth whose other end is a port of the bridge in that VLAN alone, as in the reference; unlike
//! there it goes with the last pod's port of the VLAN. Only what bears podnet's alias is ever removed.

use cni::{Call, Error, Undo};
use kernel::link::{self, Change, Link, PortVlan, Veth};
use kernel::{Rtnl, sysctl};
use serde::Deserialize;

use crate::interface::attach::failed;
use crate::interface::forwarding::NodeLock;
use crate::interface::veth::{self, GATEWAY_ALIAS};

/// The VLAN of untagged frames on a trunk for which `vlan` names none, as in the reference.
const DEFAULT: u16 = 1;

/// An entry of `vlanTrunk` as it stands in the configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Trunk {
    #[serde(rename = "minID")]
    min_id: Option<i64>,
    #[serde(rename = "maxID")]
    max_id: Option<i64>,
    id: Option<i64>,
}

/// The VLANs of a pod's port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vlans {
    /// The VLAN of `vlan`: the pod's untagged frames, and the gateway.
    pub(super) native: Option<u16>,
    /// All that the port is to be a member of; empty leaves it as the bridge does.
    members: Vec<PortVlan>,
    /// It stays in the bridge's default VLAN too.
    preserve_default: bool,
}

impl Vlans {
    /// From the keys `vlan`, `vlanTrunk` and `preserveDefaultVlan`; `None` where no VLAN is asked for.
    ///
    /// # Errors
    /// Code 7 with the reference's sentences.
    pub(super) fn resolve(
        vlan: i64,
        trunk: Option<&[Trunk]>,
        preserve_default: bool,
    ) -> Result<Option<Self>, Error> {
        let native = u16::try_from(vlan)
            .ok()
            .filter(|id| *id <= 4094)
            .ok_or_else(|| Error::invalid(format!("invalid VLAN ID {vlan} (must be between 0 and 4094)")))?;
        let native = Some(native).filter(|id| *id != 0);
        let mut tagged = Vec::new();
        for entry in trunk.unwrap_or_default() {
            entry.add_to(&mut tagged)?;
        }
        if native.is_none() && trunk.is_none() {
            return Ok(None);
        }
        tagged.sort_unstable();
        tagged.dedup();
        // Named as `vlan`, a VLAN is untagged also where a range of the trunk covers it.
        let untagged = native.or((!tagged.is_empty()).then_some(DEFAULT));
        let mut members: Vec<PortVlan> = tagged
            .into_iter()
            .filter(|id| Some(*id) != untagged)
            .map(|id| PortVlan { id, pvid: false, untagged: false })
            .collect();
        members.extend(untagged.map(|id| PortVlan { id, pvid: true, untagged: true }));
        members.sort_unstable();
        Ok(Some(Self { native, members, preserve_default }))
    }
}

impl Trunk {
    fn add_to(&self, all: &mut Vec<u16>) -> Result<(), Error> {
        let refuse = |what: &str| Error::invalid(what);
        let valid = |id: i64, what: &str| {
            u16::try_from(id)
                .ok()
                .filter(|id| (1..=4094).contains(id))
                .ok_or_else(|| refuse(&format!("incorrect trunk {what} parameter")))
        };
        let min = self.min_id.map(|id| valid(id, "minID")).transpose()?;
        let max = self.max_id.map(|id| valid(id, "maxID")).transpose()?;
        match (min, max) {
            (Some(min), Some(max)) if min > max => {
                return Err(refuse("minID is greater than maxID in trunk parameter"));
            }
            (Some(min), Some(max)) => all.extend(min..=max),
            (None, None) => {}
            (min, _) => {
                let missing = if min.is_none() { "minID" } else { "maxID" };
                return Err(refuse(&format!(
                    "minID and maxID should be configured simultaneously, {missing} is missing"
                )));
            }
        }
        all.extend(self.id.map(|id| valid(id, "id")).transpose()?);
        Ok(())
    }
}

/// The name of a VLAN's gateway on the node.
///
/// # Errors
/// Code 7 when it is longer than a link's name can be.
pub(super) fn gateway_name(bridge: &str, vlan: u16) -> Result<String, Error> {
    let name = format!("{bridge}.{vlan}");
    if name.len() > 15 {
        return Err(Error::invalid(format!(
            "the gateway of VLAN {vlan} would be named {name:?}, which is longer than 15 bytes (shorten \"bridge\")"
        )));
    }
    Ok(name)
}

/// Lets the bridge filter by VLAN. One that podnet made, or without ports, is changed; another's is left alone.
///
/// # Errors
/// It has ports that another program plugged in, or what the kernel says.
pub(super) fn ensure_filtering(
    rtnl: &mut Rtnl,
    bridge: &Link,
    podnets_own: bool,
    undo: &mut Undo,
) -> Result<(), Error> {
    if bridge.vlan_filtering == Some(true) {
        return Ok(());
    }
    let index = bridge.index;
    let ports = ports_of(rtnl, index)?;
    if !podnets_own && !ports.is_empty() {
        return Err(Error::internal(format!(
            "bridge {:?} does not filter by VLAN, and podnet did not make it: its {} ports could lose frames \
             (try: ip link set {} type bridge vlan_filtering 1)",
            bridge.name,
            ports.len(),
            bridge.name
        )));
    }
    let before = members(rtnl, &ports)?;
    undo.push("stop filtering by VLAN", move || {
        let back = || {
            let _alone = NodeLock::alone()?;
            let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
            let ports = ports_of(&mut rtnl, index)?;
            // A port that has come since may rely on it.
            if members(&mut rtnl, &ports)?.iter().all(|member| before.contains(member)) {
                link::set_vlan_filtering(&mut rtnl, index, false).map_err(failed("bridge"))?;
            }
            Ok(())
        };
        back().map_err(|err: Error| err.msg)
    });
    link::set_vlan_filtering(rtnl, index, true).map_err(failed(format!("bridge {:?}", bridge.name)))
}

/// Puts a pod's port into its VLANs, and out of the bridge's default one unless that is to stay.
///
/// # Errors
/// What the kernel says.
pub(super) fn set(rtnl: &mut Rtnl, port: u32, vlans: &Vlans) -> Result<(), Error> {
    if vlans.members.is_empty() {
        return Ok(());
    }
    let what = failed("VLANs of the pod's port");
    if !vlans.preserve_default {
        link::clear_port_vlans(rtnl, port).map_err(&what)?;
    }
    link::add_port_vlans(rtnl, port, &vlans.members).map_err(what)
}

/// The gateway of the VLAN on this bridge, made if it is not there, up. The caller holds the bridge lock until its
/// own port `own` is in the VLAN.
///
/// # Errors
/// The name is taken by something else, or what the kernel says.
pub(super) fn ensure_gateway(
    rtnl: &mut Rtnl,
    bridge: &Link,
    (vlan, own): (u16, u32),
    undo: &mut Undo,
) -> Result<Link, Error> {
    let name = gateway_name(&bridge.name, vlan)?;
    let what = failed(format!("gateway {name:?}"));
    let mut found = link::by_name(rtnl, &name);
    if found.as_ref().is_err_and(kernel::Error::is_not_found) {
        let port = veth::name_from(veth::random_mac()?);
        let wanted = Veth {
            name: &port,
            peer: &name,
            mac: Some(veth::node_mac()?),
            peer_mac: Some(veth::random_mac()?),
            mtu: bridge.mtu,
            master: Some(bridge.index),
            up: true,
            peer_netns: None,
        };
        let (on, alias) = (bridge.name.clone(), alias(&bridge.name, vlan));
        match link::add_veth(rtnl, &wanted) {
            Ok(_) => {
                undo.push("delete the VLAN's gateway", move || {
                    remove_unused(&on, vlan, Some(own)).map_err(|err| err.msg)
                });
                let made = link::by_name(rtnl, &name).map_err(&what)?;
                for end in [Some(made.index), made.link].into_iter().flatten() {
                    link::set(rtnl, end, &Change { alias: Some(&alias), ..Change::default() })
                        .map_err(&what)?;
                }
                // A node must not take its default route from a pod. Best effort, as on the bridge.
                let _ = sysctl::ensure(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
            }
            // Another ADD was quicker: its gateway serves as well.
            Err(err) if err.is_exists() => {}
            Err(err) => return Err(what(err)),
        }
        found = link::by_name(rtnl, &name);
    }
    let gateway = found.map_err(&what)?;
    let port = gateway_port(rtnl, bridge, &gateway)?;
    // Whoever comes second does what the first has perhaps not done yet.
    let wanted = PortVlan { id: vlan, pvid: true, untagged: true };
    if members(rtnl, &[port])? != [(port, wanted)] {
        link::clear_port_vlans(rtnl, port).map_err(&what)?;
        link::add_port_vlans(rtnl, port, &[wanted]).map_err(&what)?;
    }
    if !gateway.up {
        link::set(rtnl, gateway.index, &Change { up: Some(true), ..Change::default() }).map_err(what)?;
    }
    Ok(gateway)
}

/// The gateway's other end, which must be a port of the bridge.
fn gateway_port(rtnl: &mut Rtnl, bridge: &Link, gateway: &Link) -> Result<u32, Error> {
    let here =
        gateway.link.filter(|_| gateway.kind.as_deref() == Some("veth") && gateway.link_netnsid.is_none());
    let port = here.and_then(|index| link::by_index(rtnl, index).ok());
    match port.filter(|port| port.master == Some(bridge.index)) {
        Some(port) => Ok(port.index),
        None => Err(Error::internal(format!(
            "{:?} already exists but is not a gateway of bridge {:?}",
            gateway.name, bridge.name
        ))),
    }
}

/// DEL: the gateway of the VLAN goes when no port of a pod is in it any more. A configuration that does not tell
/// which VLAN that is leaves it to GC.
///
/// # Errors
/// What the kernel says.
pub(super) fn release(call: &Call) -> Result<(), Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Written {
        bridge: Option<String>,
        vlan: i64,
    }
    let Ok(written) = call.conf_as::<Written>() else { return Ok(()) };
    match u16::try_from(written.vlan) {
        Ok(vlan) if vlan != 0 => {
            remove_unused(written.bridge.as_deref().unwrap_or(super::config::DEFAULT_BRIDGE), vlan, None)
        }
        _ => Ok(()),
    }
}

/// GC: every gateway that podnet made for a VLAN in which no port of a pod is any more.
///
/// # Errors
/// What the kernel says.
pub(super) fn collect(call: &Call) -> Result<(), Error> {
    if call.conf.valid_attachments.is_none() {
        return Ok(());
    }
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
    let links = link::list(&mut rtnl).map_err(failed("list links of the node"))?;
    let gateways = links.iter().filter_map(|link| {
        let mut words = link.alias.as_deref()?.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(GATEWAY_ALIAS), Some(bridge), Some(vlan), None) => Some((bridge, vlan.parse().ok()?)),
            _ => None,
        }
    });
    Error::join(gateways.map(|(bridge, vlan)| remove_unused(bridge, vlan, None)))
}

/// Deletes the gateway of a VLAN unless a port other than `own` is in the VLAN; no ADD is under way meanwhile.
fn remove_unused(bridge: &str, vlan: u16, own: Option<u32>) -> Result<(), Error> {
    let Ok(name) = gateway_name(bridge, vlan) else { return Ok(()) };
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
    // Mostly there is none, and then nobody need wait for anybody.
    if link::by_name(&mut rtnl, &name).is_err_and(|err| err.is_not_found()) {
        return Ok(());
    }
    let _alone = NodeLock::alone()?;
    let what = failed(format!("gateway {name:?}"));
    let gateway = match link::by_name(&mut rtnl, &name) {
        Err(err) if err.is_not_found() => return Ok(()),
        other => other.map_err(&what)?,
    };
    if gateway.alias.as_deref() != Some(&alias(bridge, vlan)) {
        return Ok(());
    }
    let ports = match link::by_name(&mut rtnl, bridge) {
        Ok(bridge) => ports_of(&mut rtnl, bridge.index)?,
        Err(_) => Vec::new(),
    };
    let others: Vec<u32> =
        ports.into_iter().filter(|port| Some(*port) != gateway.link && Some(*port) != own).collect();
    if members(&mut rtnl, &others)?.iter().any(|(_, member)| member.id == vlan) {
        return Ok(());
    }
    match link::delete(&mut rtnl, gateway.index) {
        Err(err) if !err.is_not_found() => Err(what(err)),
        _ => Ok(()),
    }
}

/// CHECK: the bridge filters, the port is in its VLANs and, unless the default one stays, in no other.
///
/// # Errors
/// The first thing that is different.
pub(super) fn check(rtnl: &mut Rtnl, bridge: &Link, port: &Link, vlans: &Vlans) -> Result<(), Error> {
    if bridge.vlan_filtering != Some(true) {
        return Err(Error::internal(format!("bridge {:?} does not filter by VLAN", bridge.name)));
    }
    let present: Vec<PortVlan> =
        members(rtnl, &[port.index])?.into_iter().map(|(_, member)| member).collect();
    let missing = vlans.members.iter().find(|wanted| !present.contains(wanted));
    if let Some(missing) = missing {
        return Err(Error::internal(format!("bridge port {:?} is not in {}", port.name, shown(missing))));
    }
    let strict = !vlans.members.is_empty() && !vlans.preserve_default;
    match present.iter().find(|member| strict && !vlans.members.contains(member)) {
        Some(other) => {
            Err(Error::internal(format!("bridge port {:?} is in {} too", port.name, shown(other))))
        }
        None => Ok(()),
    }
}

/// The gateway of the VLAN, for CHECK.
///
/// # Errors
/// It is missing or is something else.
pub(super) fn find_gateway(rtnl: &mut Rtnl, bridge: &Link, vlan: u16) -> Result<Link, Error> {
    let name = gateway_name(&bridge.name, vlan)?;
    let gateway = link::by_name(rtnl, &name).map_err(failed(format!("find gateway {name:?}")))?;
    gateway_port(rtnl, bridge, &gateway)?;
    Ok(gateway)
}

fn shown(member: &PortVlan) -> String {
    format!("VLAN {} ({})", member.id, if member.untagged { "untagged" } else { "tagged" })
}

fn alias(bridge: &str, vlan: u16) -> String {
    format!("{GATEWAY_ALIAS} {bridge} {vlan}")
}

fn ports_of(rtnl: &mut Rtnl, bridge: u32) -> Result<Vec<u32>, Error> {
    let links = link::list(rtnl).map_err(failed("list links of the node"))?;
    Ok(links.iter().filter(|link| link.master == Some(bridge)).map(|link| link.index).collect())
}

/// The VLANs of these ports.
fn members(rtnl: &mut Rtnl, ports: &[u32]) -> Result<Vec<(u32, PortVlan)>, Error> {
    let mut all = link::port_vlans(rtnl).map_err(failed("bridges of the node"))?;
    all.retain(|(port, _)| ports.contains(port));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(min_id: Option<i64>, max_id: Option<i64>, id: Option<i64>) -> Trunk {
        Trunk { min_id, max_id, id }
    }

    fn ids(vlans: &Vlans) -> Vec<u16> {
        vlans.members.iter().map(|member| member.id).collect()
    }

    #[test]
    fn without_keys_there_are_no_vlans() {
        assert_eq!(Vlans::resolve(0, None, true), Ok(None));
        let empty = Vlans::resolve(0, Some(&[]), false).unwrap().unwrap();
        assert_eq!((ids(&empty), empty.native), (vec![], None), "filtering alone");
    }

    #[test]
    fn vlan_is_the_one_of_untagged_frames() {
        let access = Vlans::resolve(100, None, false).unwrap().unwrap();
        assert_eq!(access.native, Some(100));
        assert_eq!(access.members, [PortVlan { id: 100, pvid: true, untagged: true }]);
    }

    #[test]
    fn trunk_is_a_union_beside_the_default_for_untagged_frames() {
        let trunk =
            [entry(Some(20), Some(22), Some(21)), entry(None, None, Some(5)), entry(None, None, None)];
        let vlans = Vlans::resolve(0, Some(&trunk), false).unwrap().unwrap();
        assert_eq!((ids(&vlans), vlans.native), (vec![1, 5, 20, 21, 22], None));
        let untagged: Vec<u16> =
            vlans.members.iter().filter(|m| m.untagged && m.pvid).map(|m| m.id).collect();
        assert_eq!(untagged, [1]);
    }

    #[test]
    fn native_vlan_stays_untagged_where_the_trunk_covers_it() {
        let vlans = Vlans::resolve(21, Some(&[entry(Some(20), Some(22), None)]), false).unwrap().unwrap();
        assert_eq!(ids(&vlans), [20, 21, 22]);
        assert_eq!(vlans.members[1], PortVlan { id: 21, pvid: true, untagged: true });
    }

    #[test]
    fn gateway_name_must_fit_a_link() {
        assert_eq!(gateway_name("cni0", 100).unwrap(), "cni0.100");
        assert_eq!(gateway_name("tenletters", 4094).unwrap(), "tenletters.4094");
        assert_eq!(gateway_name("elevenchars", 4094).unwrap_err().code, 7);
    }
}
