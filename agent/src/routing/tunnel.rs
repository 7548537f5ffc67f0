//! The tunnels' links: made, put right, deleted.

use kernel::ethtool::{self, Offload};
use kernel::link::{self, Change, LinkKind, NewLink};
use kernel::{Family, Result, Rtnl};

use super::apply::Applied;
use super::plan::{Plan, Tunnel};
use super::steps::Tunnels;
use super::{PORT, VNI, tunnel_name};

/// Makes the links of the plan's tunnels, and puts right those that are there; the indices of all that are of use.
///
/// What is wrong with one is told in `applied`, and the other one goes on.
pub(super) fn ensure(rtnl: &mut Rtnl, plan: &Plan, applied: &mut Applied) -> Tunnels {
    let mut tunnels = Tunnels::new();
    for tunnel in &plan.tunnels {
        match one(rtnl, tunnel, applied) {
            Ok(index) => drop(tunnels.insert(tunnel.family, index)),
            Err(reason) => applied.trouble.push(reason),
        }
    }
    tunnels
}

/// Deletes the tunnels that the plan does not have.
pub(super) fn delete_others(rtnl: &mut Rtnl, plan: &Plan, applied: &mut Applied) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        if plan.tunnels.iter().any(|it| it.family == family) {
            continue;
        }
        match link::by_name(rtnl, tunnel_name(family)) {
            Ok(there) if is_ours(&there) => {
                link::delete(rtnl, there.index)?;
                applied.changes += 1;
            }
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A VXLAN of our number; another link of that name is left alone.
fn is_ours(link: &link::Link) -> bool {
    matches!(link.data, Some(LinkKind::Vxlan { vni: VNI, .. }))
}

fn one(rtnl: &mut Rtnl, tunnel: &Tunnel, applied: &mut Applied) -> std::result::Result<u32, String> {
    let name = tunnel_name(tunnel.family);
    let kind = LinkKind::Vxlan { vni: VNI, local: tunnel.local, port: PORT };
    let told = |error: kernel::Error| match error.lacks() {
        Some(_) => format!("tunnel {name}: {error}; nodes behind routers cannot be reached without it"),
        None => format!("tunnel {name}: {error}"),
    };
    let there = match link::by_name(rtnl, name) {
        Ok(there) if there.data == Some(kind) && there.learns == Some(false) => Some(there),
        Ok(there) if is_ours(&there) => {
            // Its datagrams come from another address than they should, which cannot be changed; or it has learned from
            // whoever sent it one where others are, and with the link that goes, too.
            link::delete(rtnl, there.index).map_err(told)?;
            applied.changes += 1;
            None
        }
        Ok(there) => {
            let kind = there.kind.unwrap_or_else(|| "physical".to_owned());
            let hint = format!("delete it: ip link delete {name}");
            return Err(format!("tunnel {name}: there is a {kind} link of that name ({hint})"));
        }
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(told(error)),
    };
    let there = match there {
        Some(there) => there,
        None => {
            let new = NewLink { mac: Some(tunnel.mac), mtu: tunnel.mtu, ..NewLink::new(name, kind) };
            link::add(rtnl, &new).map_err(told)?;
            applied.changes += 1;
            link::by_name(rtnl, name).map_err(told)?
        }
    };
    settings(tunnel.family, applied);
    let change = Change {
        mac: (there.mac != Some(tunnel.mac)).then_some(tunnel.mac),
        mtu: (there.mtu != tunnel.mtu).then_some(tunnel.mtu),
        up: (!there.up).then_some(true),
        ..Change::default()
    };
    if change.mac.is_some() || change.mtu.is_some() || change.up.is_some() {
        link::set(rtnl, there.index, &change).map_err(told)?;
        applied.changes += 1;
    }
    Ok(there.index)
}

/// The link's sysctls, before it is up, and its checksums.
fn settings(family: Family, applied: &mut Applied) {
    let name = tunnel_name(family);
    match family {
        // A packet of a peer itself comes with its InternalIP, which this node reaches by another link.
        Family::V4 => applied.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "2"),
        Family::V6 => {
            // Nobody needs a link-local address here, and no router is in a tunnel.
            applied.sysctl(&format!("net/ipv6/conf/{name}/addr_gen_mode"), "1");
            applied.sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
        }
    }
    // Checksums left to the device come out wrong where packets are both translated and encapsulated, and segments
    // are lost until TCP gives up on large ones, after a minute.
    match ethtool::get(name, Offload::TxChecksum) {
        Ok(false) => {}
        Ok(true) => match ethtool::set(name, Offload::TxChecksum, false) {
            Ok(()) => applied.changes += 1,
            Err(error) => applied.trouble.push(format!("tunnel {name}: {error}")),
        },
        Err(error) => applied.trouble.push(format!("tunnel {name}: {error}")),
    }
}
