//! `portmap`: ports of the node that lead to the pod, by rules in the kernel.
//!
//! The reference's two backends are one here: its nftables layout (see `table`), whatever `backend` says. DEL
//! also removes what either backend of the reference left (see `legacy`). Without mappings the plugin passes
//! the result on and does nothing else.

mod conditions;
mod config;
mod flows;
mod legacy;
mod localnet;
mod rules;
mod table;

use std::net::IpAddr;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo, code};
use kernel::Nfnl;
use kernel::nft::{RuleInfo, Userdata};

use super::owner::{self, Owner, Stale};
use crate::interface::attach::failed;
use crate::rules::Rules;
use config::{Mapping, PortmapConfig, pod_addresses};
use table::Seen;

/// The plugin.
pub(crate) struct Portmap;

impl Plugin for Portmap {
    fn name(&self) -> &'static str {
        "portmap"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = PortmapConfig::resolve(call)?;
        let result = call
            .conf
            .prev_result
            .as_ref()
            .ok_or_else(|| Error::invalid("must be called as chained plugin"))?;
        if config.mappings.is_empty() {
            return Ok(result.clone());
        }
        let mut nfnl = Nfnl::open().map_err(failed("netfilter on the node"))?;
        for pod in pod_addresses(result, &call.env.ifname).into_iter().flatten() {
            let wanted = rules::wanted(&config, pod);
            if wanted.is_empty() {
                continue;
            }
            let (v6, owner) = (pod.is_ipv6(), Owner::of(call));
            undo.push("remove the port mappings", move || {
                let mut nfnl = Nfnl::open().map_err(|err| err.to_string())?;
                remove(&mut nfnl, v6, |data| owner.owns(data), |_| true)
                    .map(drop)
                    .map_err(|err| err.to_string())
            });
            let device = if !v6 && localnet::is_needed(&config) { localnet::device(pod.ip()) } else { None };
            let by = (owner, call.env.container_id.as_str());
            let off = nfnl.transact(|nfnl, batch| {
                let off = device.as_deref().filter(|device| localnet::is_off(device));
                table::install(&Seen::read(nfnl, v6, |_| false)?, batch, by, &wanted, off);
                Ok(off.is_some())
            });
            let off = off.map_err(failed(format!("set up port mappings to {}", pod.ip())))?;
            if let Some(device) = device.as_deref().filter(|_| off) {
                localnet::switch_on(device)?;
            }
            flows::forget_former(&mut nfnl, &config.mappings, v6);
        }
        Ok(result.clone())
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let mappings = PortmapConfig::for_del(call);
        if mappings.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let Some(mut open) = Rules::open_for_del("netfilter on the node")? else {
            return Ok(());
        };
        let nfnl = &mut open.nfnl;
        let pods = call.conf.prev_result.as_ref().map(|result| pod_addresses(result, &call.env.ifname));
        let pods: Vec<IpAddr> = pods.into_iter().flatten().flatten().map(|pod| pod.ip()).collect();
        let mut outcomes = Vec::new();
        for v6 in [false, true] {
            outcomes.push(forget(nfnl, call, v6, mappings.as_deref(), &pods));
            let (network, container) = (call.conf.name.as_str(), call.env.container_id.as_str());
            let legacy = nfnl.transact(|nfnl, batch| {
                legacy::remove(nfnl, batch, v6, network, container)?;
                Ok(!batch.is_empty())
            });
            let found = legacy.map_err(failed("remove port mappings of iptables"));
            if let (Ok(true), Some(mappings)) = (&found, &mappings) {
                for pod in pods.iter().filter(|pod| pod.is_ipv6() == v6) {
                    flows::forget_to_pod(nfnl, mappings, *pod);
                }
            }
            outcomes.push(found.map(drop));
        }
        open.end(call);
        Error::join(outcomes)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = PortmapConfig::resolve(call)?;
        let result = crate::interface::attach::prev_result(call)?;
        if config.mappings.is_empty() {
            return Ok(());
        }
        let mut nfnl = Nfnl::open().map_err(failed("netfilter on the node"))?;
        for pod in pod_addresses(result, &call.env.ifname).into_iter().flatten() {
            let wanted = rules::wanted(&config, pod);
            let seen =
                Seen::read(&mut nfnl, pod.is_ipv6(), |_| true).map_err(failed("look at port mappings"))?;
            let Err(what) = table::check(&seen, Owner::of(call), &wanted) else { continue };
            if !is_of_reference(&mut nfnl, call, &seen, pod.ip(), &wanted)? {
                return Err(Error::internal(what));
            }
        }
        Ok(())
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let Some(stale) = Stale::of(call) else { return Ok(()) };
        let Some(Rules { mut nfnl, .. }) = Rules::open_for_del("netfilter on the node")? else {
            return Ok(());
        };
        Error::join([false, true].map(|v6| {
            let removed = remove(&mut nfnl, v6, |data| stale.covers(data), |_| true);
            let removed = removed.map_err(failed("remove stale port mappings"))?;
            forget_flows(&mut nfnl, &removed);
            collect_legacy(&mut nfnl, call, v6).map_err(failed("remove stale port mappings of iptables"))
        }))
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        PortmapConfig::resolve(call)?;
        let probe = |v6| Nfnl::open().and_then(|mut nfnl| nfnl.try_out(table::probe(v6)));
        probe(false).map_err(|err| Error::new(code::UNAVAILABLE, format!("port mappings: {err}")))
    }
}

/// Removes rules of one family that `marked` picks by their user data and `which` among those, and what nothing
/// needs then. Gives what was mapped to where.
fn remove(
    nfnl: &mut Nfnl,
    v6: bool,
    marked: impl Fn(&Userdata) -> bool,
    which: impl Fn(&RuleInfo) -> bool,
) -> kernel::Result<Vec<(Mapping, IpAddr)>> {
    let mut switched_off: Vec<String> = Vec::new();
    let outcome = nfnl.transact(|nfnl, batch| {
        // Another ADD came between.
        localnet::set(&std::mem::take(&mut switched_off), true);
        let seen = Seen::read(nfnl, v6, &marked)?;
        let gone = seen.content(|rule| marked(&rule.userdata) && which(rule));
        if table::remove(&seen, batch, &gone) {
            switched_off = table::guarded(&seen);
            localnet::set(&switched_off, false);
        }
        Ok(gone.iter().filter_map(|(_, rule)| table::mapping_of(rule)).collect())
    });
    if outcome.is_err() {
        localnet::set(&switched_off, true);
    }
    outcome
}

/// Removes what the reference's iptables backend left for containers that have no valid attachment.
fn collect_legacy(nfnl: &mut Nfnl, call: &Call, v6: bool) -> kernel::Result<()> {
    let network = &call.conf.name;
    let Some(valid) = &call.conf.valid_attachments else { return Ok(()) };
    nfnl.transact(|nfnl, batch| {
        for container in legacy::containers(nfnl, v6, network)? {
            if valid.iter().all(|one| one.container_id != container) {
                legacy::remove(nfnl, batch, v6, network, &container)?;
            }
        }
        Ok(())
    })
}

/// DEL in one family.
///
/// The reference's rules name the container alone, so those of its other interfaces look the same: only rules
/// about the addresses in `pods` go. Without prevResult the addresses are those that this configuration's
/// mappings lead to; without either, all of the container's go, as with the reference.
fn forget(
    nfnl: &mut Nfnl,
    call: &Call,
    v6: bool,
    mappings: Option<&[Mapping]>,
    pods: &[IpAddr],
) -> Result<(), Error> {
    let what = failed("remove port mappings");
    let owner = Owner::of(call);
    let of_reference =
        |data: &Userdata| owner::owner(data).is_none() && data.text() == Some(&call.env.container_id);
    let mut known: Vec<IpAddr> = pods.to_vec();
    if let (true, Some(mappings)) = (known.is_empty(), mappings) {
        let seen = Seen::read(nfnl, v6, of_reference).map_err(&what)?;
        let asked = |mapping: &Mapping| {
            mappings.iter().any(|one| {
                (one.protocol, one.host_port, one.container_port)
                    == (mapping.protocol, mapping.host_port, mapping.container_port)
            })
        };
        let rules = seen
            .content(|rule| of_reference(&rule.userdata))
            .into_iter()
            .filter_map(|(_, rule)| table::mapping_of(rule));
        known.extend(rules.filter(|(mapping, _)| asked(mapping)).map(|(_, pod)| pod));
    }
    let everything = mappings.is_none() && pods.is_empty();
    let marked = |data: &Userdata| owner.owns(data) || of_reference(data);
    let removed = remove(nfnl, v6, marked, |rule| {
        let of_pod = || known.iter().any(|pod| table::leads_to_pod(rule, *pod));
        owner.owns(&rule.userdata) || everything || of_pod()
    });
    forget_flows(nfnl, &removed.map_err(what)?);
    Ok(())
}

fn forget_flows(nfnl: &mut Nfnl, removed: &[(Mapping, IpAddr)]) {
    for (mapping, pod) in removed {
        flows::forget_to_pod(nfnl, std::slice::from_ref(mapping), *pod);
    }
}

/// CHECK of a pod that the reference attached: either of its backends has its rules in place.
fn is_of_reference(
    nfnl: &mut Nfnl,
    call: &Call,
    seen: &Seen,
    pod: IpAddr,
    wanted: &rules::Wanted,
) -> Result<bool, Error> {
    if !seen.content(|rule| Owner::of(call).owns(&rule.userdata)).is_empty() {
        return Ok(false);
    }
    let theirs = seen.content(|rule| {
        let theirs = owner::owner(&rule.userdata).is_none();
        theirs
            && rule.comment() == Some(&call.env.container_id)
            && table::mapping_of(rule).is_some_and(|(_, to)| to == pod)
    });
    if theirs.len() >= wanted.mappings() {
        return Ok(true);
    }
    legacy::is_there(nfnl, pod.is_ipv6(), &call.conf.name, &call.env.container_id)
        .map_err(failed("look at port mappings of iptables"))
}
