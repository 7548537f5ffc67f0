//! `vrf`: puts the pod's interface into a VRF, a routing domain with a table of its own.
//!
//! All of it is in the pod's namespace and goes with it, so GC has nothing to look for. The result is passed
//! on as it came: its routes are in the VRF's table afterwards, which CHECK of the interface plugins
//! understands.

mod member;

use std::rc::Rc;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo, Version, code};
use kernel::link::{self, Change, Link, LinkKind, NewLink};
use kernel::route::{self, Family};
use kernel::{Netns, Rtnl, rule};
use serde::Deserialize;

use crate::interface::attach::{self, failed};

/// The plugin.
pub(crate) struct Vrf;

/// A complete, valid configuration of one attachment.
struct VrfConfig {
    name: String,
    /// `None`: that of the VRF if there is one, else the first that is free.
    table: Option<u32>,
}

impl VrfConfig {
    /// Reads and checks the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 without a name.
    fn resolve(call: &Call) -> Result<Self, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Written {
            vrfname: String,
            table: u32,
        }
        let Written { vrfname, table } = call.conf_as()?;
        if vrfname.is_empty() {
            return Err(Error::invalid("configuration is expected to have a valid vrf name"));
        }
        Ok(Self { name: vrfname, table: Some(table).filter(|&table| table != 0) })
    }
}

impl Plugin for Vrf {
    fn name(&self) -> &'static str {
        "vrf"
    }

    fn versions(&self) -> &'static [Version] {
        Version::ALL.split_at(3).1
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = VrfConfig::resolve(call)?;
        let previous = previous(call)?;
        let (netns, mut pod) = attach::open_pod(call)?;
        let netns = Rc::new(netns);
        let link = member::find_free(&mut pod, &call.env.ifname)?;
        let vrf = ensure(&mut pod, &config, &netns, undo)?;
        member::join(&mut pod, &link, &vrf, &netns, undo)?;
        Ok(previous.clone())
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let Some(mut pod) = attach::open_pod_for_del(call)? else { return Ok(()) };
        // Without a name there is no VRF that could be ours.
        let Ok(config) = VrfConfig::resolve(call) else { return Ok(()) };
        let Some(vrf) = find(&mut pod, &config.name)?.filter(|link| table_of(link).is_some()) else {
            return Ok(());
        };
        member::leave(&mut pod, &call.env.ifname, vrf.index)?;
        let links = link::list(&mut pod).map_err(failed("list links of the pod"))?;
        if links.iter().any(|link| link.master == Some(vrf.index)) {
            return Ok(());
        }
        match link::delete(&mut pod, vrf.index) {
            Err(err) if !err.is_not_found() => Err(failed(format!("delete VRF {:?}", config.name))(err)),
            _ => Ok(()),
        }
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = VrfConfig::resolve(call)?;
        let previous = previous(call)?;
        let mut pod = attach::open_pod(call)?.1;
        let name = &config.name;
        let vrf = find(&mut pod, name)?
            .ok_or_else(|| Error::internal(format!("VRF {name:?} is missing in the pod")))?;
        check_table(&vrf, config.table)?;
        if !vrf.up {
            return Err(Error::internal(format!("VRF {name:?} is down")));
        }
        let ifname = &call.env.ifname;
        let link = find(&mut pod, ifname)?.filter(|link| link.master == Some(vrf.index));
        if link.is_none() {
            return Err(Error::internal(format!("failed to find {ifname} associated to vrf {name}")));
        }
        attach::check_routes(&mut pod, previous)
    }

    fn gc(&self, _call: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let unavailable = |err: Error| Error { code: code::UNAVAILABLE, ..err };
        VrfConfig::resolve(call).map_err(unavailable)?;
        let mut rtnl = Rtnl::open().map_err(failed("netlink on the node")).map_err(unavailable)?;
        link::require(&mut rtnl, &LinkKind::Vrf { table: 1 }).map_err(failed("VRF")).map_err(unavailable)
    }
}

fn previous(call: &Call) -> Result<&CniResult, Error> {
    let previous = call.conf.prev_result.as_ref();
    previous.ok_or_else(|| Error::invalid("missing prevResult from earlier plugin"))
}

fn find(pod: &mut Rtnl, name: &str) -> Result<Option<Link>, Error> {
    match link::by_name(pod, name) {
        Err(err) if err.is_not_found() => Ok(None),
        other => other.map(Some).map_err(failed(format!("find {name:?} in the pod"))),
    }
}

/// The table of a VRF; `None` for another kind of link.
fn table_of(link: &Link) -> Option<u32> {
    match link.data {
        Some(LinkKind::Vrf { table }) => Some(table),
        _ => None,
    }
}

/// The link is a VRF, with this table if one is asked for; returns its table.
fn check_table(link: &Link, wanted: Option<u32>) -> Result<u32, Error> {
    let table =
        table_of(link).ok_or_else(|| Error::internal(format!("Netlink {} is not a VRF", link.name)))?;
    match wanted {
        Some(wanted) if wanted != table => Err(Error::internal(format!(
            "VRF {} already exist with different routing table {table}",
            link.name
        ))),
        _ => Ok(table),
    }
}

/// A VRF of the pod.
struct Domain {
    index: u32,
    name: String,
    table: u32,
}

/// The VRF of the configuration, made if it is not there, up.
fn ensure(pod: &mut Rtnl, config: &VrfConfig, netns: &Rc<Netns>, undo: &mut Undo) -> Result<Domain, Error> {
    let name = config.name.as_str();
    if let Some(there) = find(pod, name)? {
        let table = check_table(&there, config.table)?;
        if !there.up {
            link::set(pod, there.index, &Change { up: Some(true), ..Change::default() })
                .map_err(failed(format!("set VRF {name:?} up")))?;
        }
        return Ok(Domain { index: there.index, name: name.to_owned(), table });
    }
    let table = match config.table {
        Some(table) => table,
        None => free_table(pod)?,
    };
    let wanted = NewLink { up: true, ..NewLink::new(name, LinkKind::Vrf { table }) };
    link::add(pod, &wanted).map_err(failed(format!("could not add VRF {name}")))?;
    let made = link::by_name(pod, name).map_err(failed(format!("find VRF {name:?}")))?;
    let (index, back) = (made.index, Rc::clone(netns));
    undo.push("delete the VRF", move || {
        let mut pod = Rtnl::open_in(&back).map_err(|err| err.to_string())?;
        link::delete(&mut pod, index).map_err(|err| err.to_string())
    });
    Ok(Domain { index, name: name.to_owned(), table })
}

/// The first table that no VRF, rule or route of the pod uses.
fn free_table(pod: &mut Rtnl) -> Result<u32, Error> {
    let links = link::list(pod).map_err(failed("list links of the pod"))?;
    let mut taken: Vec<u32> = links.iter().filter_map(table_of).collect();
    for family in [Family::V4, Family::V6] {
        let rules = rule::list(pod, family).map_err(failed("list rules of the pod"))?;
        taken.extend(rules.iter().map(|rule| rule.table));
        let routes = route::list(pod, family).map_err(failed("list routes of the pod"))?;
        taken.extend(routes.iter().map(route::Route::table_id));
    }
    (1..u32::MAX)
        .find(|table| !taken.contains(table))
        .ok_or_else(|| Error::internal("Failed to find an available routing id"))
}
