//! `tuning`: sysctls of the pod's network namespace, and MAC, MTU, queue length and flags of its interface.
//!
//! Sysctls are not restored by DEL, as in the reference: they go with the namespace. Properties of the
//! interface are, from the file that ADD leaves, because some interfaces (host-device) outlive the pod.

mod allowlist;
mod backup;
mod config;
mod sysctls;

use std::rc::Rc;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo, code};
use kernel::link::{self, Change, Link};
use kernel::{Batch, Mac, Rtnl};

use crate::interface::attach::{self, failed};
use backup::Backup;
use config::{TuningConfig, data_dir};

/// The plugin.
pub(crate) struct Tuning;

impl Plugin for Tuning {
    fn name(&self) -> &'static str {
        "tuning"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = TuningConfig::resolve(call)?;
        allowlist::check(config.sysctls.iter().map(|sysctl| sysctl.key.as_str()))?;
        let mut result = attach::prev_result(call)?.clone();
        let (netns, mut pod) = attach::open_pod(call)?;
        let netns = Rc::new(netns);
        for sysctl in &config.sysctls {
            sysctls::set(&netns, sysctl, undo)?;
        }
        let change = config.change();
        if !properties(&change).is_empty() {
            let ifname = call.env.ifname.as_str();
            let link = find(&mut pod, ifname)?;
            let before = Backup::of(&link, &change, &call.conf.name);
            before.save(&backup::path(&config.data_dir, call), undo)?;
            let (index, back) = (link.index, netns);
            undo.push("set the interface back", move || {
                let mut pod = Rtnl::open_in(&back).map_err(|err| err.to_string())?;
                apply(&mut pod, index, &before.change()).map_err(|err| err.msg)
            });
            apply(&mut pod, link.index, &change).map_err(|err| named(err, ifname))?;
            tell(&mut result, call, &change);
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let path = backup::path(&data_dir(call), call);
        let Some(before) = Backup::load(&path)? else { return Ok(()) };
        let Some(mut pod) = attach::open_pod_for_del(call)? else { return backup::remove(&path) };
        let link = match link::by_name(&mut pod, &call.env.ifname) {
            Err(err) if err.is_not_found() => return backup::remove(&path),
            other => other.map_err(failed(format!("find {:?} in the pod", call.env.ifname)))?,
        };
        match apply(&mut pod, link.index, &before.change()) {
            Ok(()) => backup::remove(&path),
            // An error would keep the plugins before this one from their DEL, and an address reserved for
            // the sake of an MTU. The file stays for the next try, and for GC.
            Err(err) => {
                eprintln!("tuning: {}", named(err, &call.env.ifname));
                Ok(())
            }
        }
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = TuningConfig::resolve(call)?;
        attach::prev_result(call)?;
        let (netns, mut pod) = attach::open_pod(call)?;
        for sysctl in &config.sysctls {
            sysctls::check(&netns, sysctl)?;
        }
        let link = find(&mut pod, &call.env.ifname)?;
        check_link(&link, &config.change())
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        backup::collect(&data_dir(call), call)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let resolved = TuningConfig::resolve(call)
            .and_then(|config| allowlist::check(config.sysctls.iter().map(|sysctl| sysctl.key.as_str())));
        resolved.map_err(|err| Error { code: code::UNAVAILABLE, ..err })
    }
}

fn find(pod: &mut Rtnl, ifname: &str) -> Result<Link, Error> {
    link::by_name(pod, ifname).map_err(failed(format!("failed to get {ifname:?}")))
}

fn named(err: Error, ifname: &str) -> Error {
    Error { msg: format!("{ifname:?}: {}", err.msg), ..err }
}

/// The properties that a change sets, one each with its name, in the reference's order.
fn properties(change: &Change<'_>) -> Vec<(String, Change<'static>)> {
    let one = Change::default;
    let mut all = Vec::new();
    all.extend(change.mac.map(|mac| (format!("set MAC {mac}"), Change { mac: Some(mac), ..one() })));
    let promisc =
        change.promisc.map(|on| (format!("set promisc {on}"), Change { promisc: Some(on), ..one() }));
    all.extend(promisc);
    all.extend(change.mtu.map(|mtu| (format!("set MTU {mtu}"), Change { mtu: Some(mtu), ..one() })));
    let allmulti =
        change.allmulti.map(|on| (format!("set allmulti {on}"), Change { allmulti: Some(on), ..one() }));
    all.extend(allmulti);
    let txqlen = |len| (format!("set txQLen {len}"), Change { txqlen: Some(len), ..one() });
    all.extend(change.txqlen.map(txqlen));
    all
}

/// Sets the properties one by one, so that a refusal names its own, in one send.
fn apply(pod: &mut Rtnl, index: u32, change: &Change<'_>) -> Result<(), Error> {
    let properties = properties(change);
    let mut batch = Batch::new();
    for (_, one) in &properties {
        batch.link_set(index, one);
    }
    let answers = pod.send(batch).map_err(failed("netlink in the pod"))?;
    let named = answers.into_iter().zip(&properties);
    Error::join(named.map(|(answer, (what, _))| answer.map_err(failed(what))))
}

/// Puts the new MAC, and the MTU where one was told, into the result: on the pod's own interface when it is
/// listed as such, else, as the reference does, on every one of that name.
fn tell(result: &mut CniResult, call: &Call, change: &Change<'_>) {
    let named = |name: &str| name == call.env.ifname;
    let own = result.interfaces.iter().any(|there| named(&there.name) && there.sandbox == call.env.netns);
    for interface in &mut result.interfaces {
        if !named(&interface.name) || own && interface.sandbox != call.env.netns {
            continue;
        }
        if let Some(mac) = change.mac {
            interface.mac = mac.to_string();
        }
        if let Some(mtu) = change.mtu.filter(|_| interface.mtu != 0) {
            interface.mtu = mtu;
        }
    }
}

fn check_link(link: &Link, wanted: &Change<'_>) -> Result<(), Error> {
    let differs = |what: &str, wanted: String, is: String| {
        Err(Error::internal(format!(
            "{:?}: tuning configured {what} {wanted}, current value is {is}",
            link.name
        )))
    };
    let mac = |mac: Option<Mac>| mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
    match wanted.mac {
        Some(_) if wanted.mac != link.mac => return differs("MAC", mac(wanted.mac), mac(link.mac)),
        _ => {}
    }
    let flags = [("promisc", wanted.promisc, link.promisc), ("allmulti", wanted.allmulti, link.allmulti)];
    for (what, wanted, is) in flags {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
            return differs(what, wanted.to_string(), is.to_string());
        }
    }
    for (what, wanted, is) in [("MTU", wanted.mtu, link.mtu), ("txQLen", wanted.txqlen, link.txqlen)] {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
            return differs(what, wanted.to_string(), is.to_string());
        }
    }
    Ok(())
}
