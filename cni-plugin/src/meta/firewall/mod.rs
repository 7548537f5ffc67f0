//! `firewall`: lets the pod's packets through the node's packet filter, and says who may reach it.
//!
//! Accepting is done where drops are: in FORWARD of iptables' table (see `accept`), or by firewalld (see `firewalld`)
//! where it runs. The ingress policies are rules in a table of our own (see `registry`) whoever accepts.

mod accept;
mod config;
mod dbus;
mod firewalld;
mod registry;

use std::net::IpAddr;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo, Version, code};
use kernel::Nfnl;
use kernel::nft::RuleInfo;

use super::owner::{Owner, Stale};
use crate::interface::attach::failed;
use crate::rules::Rules;
use config::{Backend, FirewallConfig, Policy, addresses, bridge_and_port};
use firewalld::Firewalld;
use registry::Entry;

/// The plugin.
pub(crate) struct Firewall;

impl Plugin for Firewall {
    fn name(&self) -> &'static str {
        "firewall"
    }

    fn versions(&self) -> &'static [Version] {
        &[Version::V0_4_0, Version::V1_0_0, Version::V1_1_0]
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = FirewallConfig::resolve(call)?;
        let result = previous(call)?;
        let (owner, addresses) = (Owner::of(call), addresses(result));
        let mut entries: Vec<Entry> = policy_entry(&config, result)?.into_iter().collect();
        let firewalld = firewalld(&config)?;
        if firewalld.is_some() {
            entries.extend(addresses.iter().map(|ip| Entry::Source { zone: config.zone.clone(), ip: *ip }));
        }
        if !entries.is_empty() {
            enter(call, owner, &entries, config.policy != Policy::Open, undo)?;
        }
        match firewalld {
            Some(mut firewalld) => {
                for ip in addresses {
                    if firewalld.add(&config.zone, ip)? {
                        let zone = config.zone.clone();
                        undo.push("take the address out of firewalld's zone", move || {
                            let mut firewalld = Firewalld::required().map_err(|err| err.msg)?;
                            firewalld.remove(&zone, ip).map_err(|err| err.msg)
                        });
                    }
                }
            }
            None => accept_all(owner, &config.admin_chain, &addresses, undo)?,
        }
        Ok(result.clone())
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        // What is there is found by its owner; the configuration may have become unreadable.
        let config = FirewallConfig::resolve(call).ok();
        let owner = Owner::of(call);
        let addresses = call.conf.prev_result.as_ref().map(addresses).unwrap_or_default();
        let mut outcomes = Vec::new();
        if let Some(mut rules) = Rules::open_for_del("netfilter on the node")? {
            let nfnl = &mut rules.nfnl;
            for v6 in [false, true] {
                let own = of_family(&addresses, v6);
                let removed = accept::remove_attachment(nfnl, v6, owner, &own);
                outcomes.push(removed.map_err(failed("remove rules of the pod's addresses")));
            }
            let sources = match registry::has_entries(nfnl, owner) {
                Ok(true) => registry::change(nfnl, |rule| owner.owns(&rule.userdata), None),
                Ok(false) => sources_of_reference(nfnl, config.as_ref(), &addresses),
                Err(err) => Err(err),
            };
            let sources = sources.map_err(failed("remove the attachment's entries"));
            outcomes.push(sources.and_then(|sources| release(&sources)));
            rules.end(call);
        }
        Error::join(outcomes)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = FirewallConfig::resolve(call)?;
        let result = previous(call)?;
        let (owner, addresses) = (Owner::of(call), addresses(result));
        let mut nfnl = Nfnl::open().map_err(failed("netfilter on the node"))?;
        let what = failed("look at the firewall's rules");
        if let Some(entry) = policy_entry(&config, result)? {
            registry::check(&mut nfnl, owner, &entry).map_err(&what)?.map_err(Error::internal)?;
        }
        if let Some(mut firewalld) = firewalld(&config)? {
            return addresses.iter().try_for_each(|ip| firewalld.check(&config.zone, *ip));
        }
        for v6 in [false, true] {
            let own = of_family(&addresses, v6);
            if !own.is_empty() {
                let checked = accept::check(&mut nfnl, owner, &config.admin_chain, &own, v6);
                checked.map_err(&what)?.map_err(Error::internal)?;
            }
        }
        Ok(())
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let Some(stale) = Stale::of(call) else { return Ok(()) };
        let Some(Rules { mut nfnl, .. }) = Rules::open_for_del("netfilter on the node")? else {
            return Ok(());
        };
        let gone = |rule: &RuleInfo| stale.covers(&rule.userdata);
        let mut outcomes: Vec<Result<(), Error>> = Vec::new();
        for v6 in [false, true] {
            let removed = accept::remove(&mut nfnl, v6, gone);
            outcomes.push(removed.map(drop).map_err(failed("remove rules of stale addresses")));
        }
        let sources = registry::change(&mut nfnl, gone, None).map_err(failed("remove stale entries"));
        outcomes.push(sources.and_then(|sources| release(&sources)));
        Error::join(outcomes)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let config = FirewallConfig::resolve(call)?;
        let unavailable = |what: String| Error::new(code::UNAVAILABLE, what);
        let running = firewalld(&config).map_err(|err| unavailable(err.msg))?.is_some();
        let mut probes = Vec::new();
        if !running {
            probes.push(accept::probe());
        }
        probes.push(registry::probe(config.policy));
        for probe in probes.into_iter().filter(|probe| !probe.is_empty()) {
            let answer = Nfnl::open().and_then(|mut nfnl| nfnl.try_out(probe));
            answer.map_err(|err| unavailable(format!("firewall: {err}")))?;
        }
        Ok(())
    }
}

/// The result of the plugins before.
fn previous(call: &Call) -> Result<&CniResult, Error> {
    let none = || Error::invalid("missing prevResult from earlier plugin");
    call.conf.prev_result.as_ref().ok_or_else(none)
}

/// firewalld, when it is to accept the pod's packets.
fn firewalld(config: &FirewallConfig) -> Result<Option<Firewalld>, Error> {
    match config.backend {
        Backend::Rules => Ok(None),
        Backend::Auto => Ok(Firewalld::running()),
        Backend::Firewalld => Firewalld::required().map(Some),
    }
}

fn policy_entry(config: &FirewallConfig, result: &CniResult) -> Result<Option<Entry>, Error> {
    match config.policy {
        Policy::Open => Ok(None),
        policy => {
            let (bridge, port) = bridge_and_port(result, policy)?;
            Ok(Some(Entry::Policy { bridge: bridge.to_owned(), isolated: port.map(str::to_owned) }))
        }
    }
}

fn of_family(addresses: &[IpAddr], v6: bool) -> Vec<IpAddr> {
    addresses.iter().copied().filter(|ip| ip.is_ipv6() == v6).collect()
}

/// Notes the attachment's entries and sets the rules that follow from them. Where firewalld filters and the
/// kernel has no nf_tables, entries of sources alone are not worth a failure.
fn enter(call: &Call, owner: Owner, entries: &[Entry], required: bool, undo: &mut Undo) -> Result<(), Error> {
    let own = move |rule: &RuleInfo| owner.owns(&rule.userdata);
    undo.push("remove the attachment's entries", move || {
        let mut nfnl = Nfnl::open().map_err(|err| err.to_string())?;
        registry::change(&mut nfnl, own, None).map(drop).map_err(|err| err.to_string())
    });
    let comment = format!("{} {} {}", call.conf.name, call.env.container_id, call.env.ifname);
    let entered =
        Nfnl::open().and_then(|mut nfnl| registry::change(&mut nfnl, own, Some((owner, &comment, entries))));
    match entered {
        Err(err) if err.lacks().is_some() && !required => Ok(()),
        outcome => outcome.map(drop).map_err(failed("set the ingress policy")),
    }
}

fn accept_all(owner: Owner, admin: &str, addresses: &[IpAddr], undo: &mut Undo) -> Result<(), Error> {
    let mut nfnl = Nfnl::open().map_err(failed("netfilter on the node"))?;
    for v6 in [false, true] {
        let own = of_family(addresses, v6);
        if own.is_empty() {
            continue;
        }
        undo.push("remove the rules of the pod's addresses", move || {
            let mut nfnl = Nfnl::open().map_err(|err| err.to_string())?;
            let removed = accept::remove(&mut nfnl, v6, |rule| owner.owns(&rule.userdata));
            removed.map(drop).map_err(|err| err.to_string())
        });
        accept::add(&mut nfnl, owner, admin, &own, v6).map_err(failed("accept the pod's packets"))?;
    }
    Ok(())
}

/// The sources that the reference may have put into the zone: the pod's addresses, but for those that an
/// attachment of ours has now.
fn sources_of_reference(
    nfnl: &mut Nfnl,
    config: Option<&FirewallConfig>,
    addresses: &[IpAddr],
) -> kernel::Result<Vec<Entry>> {
    let Some(config) = config.filter(|config| config.backend != Backend::Rules) else {
        return Ok(Vec::new());
    };
    let mut sources = Vec::new();
    for ip in addresses {
        let entry = Entry::Source { zone: config.zone.clone(), ip: *ip };
        if !registry::is_held(nfnl, &entry)? {
            sources.push(entry);
        }
    }
    Ok(sources)
}

/// Takes sources out of their zones. firewalld that does not run has none.
fn release(sources: &[Entry]) -> Result<(), Error> {
    if sources.is_empty() {
        return Ok(());
    }
    let Some(mut firewalld) = Firewalld::running() else { return Ok(()) };
    Error::join(sources.iter().map(|entry| match entry {
        Entry::Source { zone, ip } => firewalld.remove(zone, *ip),
        Entry::Policy { .. } => Ok(()),
    }))
}
