//! `podnet-policy`: closes a pod's addresses before the pod's first instant, and has the node's agent (`podnetd`) arm
//! them with the NetworkPolicies that concern the pod.
//!
//! The agent's table drops what goes to or from an address of the node that is in none of its maps. So all that ADD
//! has to do is to see that the table is there, that no former pod's verdict is left for the address, and to say whose
//! the address is: in a record on disk, which an agent that comes later reads, and to the one that runs. Without an agent
//! the pod stays closed until there is one. It makes no rule itself and knows no policy.

mod agent;
mod config;
mod links;
mod record;
mod table;

use std::net::IpAddr;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo, code};
use kernel::{Nfnl, conntrack};

use crate::interface::attach::{self, failed};
use crate::rules::Rules;
use config::PolicyConfig;
use record::Record;

/// The plugin.
pub(crate) struct Policy;

impl Plugin for Policy {
    fn name(&self) -> &'static str {
        "podnet-policy"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = PolicyConfig::resolve(call)?;
        let previous = call
            .conf
            .prev_result
            .as_ref()
            .ok_or_else(|| Error::invalid("must be called as chained plugin"))?;
        let record = Record::of(call, addresses(call, previous))?;
        let mut nfnl = open()?;
        if !table::is_there(&mut nfnl)? {
            return Err(Error::new(code::TRY_LATER, table::ABSENT));
        }
        let (path, told, socket) = (config.path_of(&record), record.clone(), config.socket.clone());
        undo.push("take back the record", move || {
            record::remove(&path).map_err(|err| err.msg)?;
            agent::tell(&socket, "del", &told);
            Ok(())
        });
        // The record first: from now on the agent knows that the addresses are no former pod's.
        record.write(&config.path_of(&record))?;
        links::mark(previous, &record.addresses)?;
        table::close(&mut nfnl, &record.addresses)?;
        forget_flows(&mut nfnl, &record.addresses);
        if let Err(why) = agent::arm(&config.socket, &record) {
            eprintln!("podnet-policy: {}: {why}; the pod stays closed until podnetd arms it", record.id());
        }
        Ok(previous.clone())
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let config = PolicyConfig::for_del(call);
        let path = config.path(&call.env.container_id, &call.env.ifname);
        // Without a record the addresses may be another pod's by now.
        let Some(record) = Record::read(&path)? else { return Ok(()) };
        end(call, &config, &record)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = PolicyConfig::resolve(call)?;
        let previous = attach::prev_result(call)?;
        let wanted = Record::of(call, addresses(call, previous))?;
        let path = config.path_of(&wanted);
        let Some(record) = Record::read(&path)? else {
            return Err(Error::internal(format!("record {} is missing", path.display())));
        };
        if record != wanted {
            return Err(Error::internal(format!("record {} is of another attachment", path.display())));
        }
        let mut nfnl = open()?;
        if !table::is_there(&mut nfnl)? {
            return Err(Error::internal(table::ABSENT));
        }
        links::check(previous, &record.addresses)?;
        table::check(&mut nfnl, &record.addresses)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let Some(valid) = &call.conf.valid_attachments else { return Ok(()) };
        let config = PolicyConfig::for_del(call);
        let is_valid = |record: &Record| {
            valid.iter().any(|it| (&it.container_id, &it.ifname) == (&record.container, &record.ifname))
        };
        let stale = record::all(&config.records)?
            .into_iter()
            .filter(|record| record.network == call.conf.name && !is_valid(record));
        Error::join(stale.map(|record| end(call, &config, &record)).collect::<Vec<_>>())
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let unavailable = |err: Error| Error { code: code::UNAVAILABLE, ..err };
        PolicyConfig::resolve(call).map_err(unavailable)?;
        let there = open().and_then(|mut nfnl| table::is_there(&mut nfnl)).map_err(unavailable)?;
        if there { Ok(()) } else { Err(Error::new(code::UNAVAILABLE, table::ABSENT)) }
    }
}

fn open() -> Result<Nfnl, Error> {
    Nfnl::open().map_err(failed("netfilter on the node"))
}

/// The addresses of the pod's interface.
fn addresses(call: &Call, result: &CniResult) -> Vec<IpAddr> {
    let own = |index: usize| {
        result.interfaces.get(index).is_some_and(|it| it.name == call.env.ifname && !it.sandbox.is_empty())
    };
    let all = result.ips.iter().filter(|ip| ip.interface.is_none_or(own));
    all.map(|ip| ip.address.ip()).collect()
}

/// Takes away what there is of an attachment, whatever of it is there.
fn end(call: &Call, config: &PolicyConfig, record: &Record) -> Result<(), Error> {
    let mut outcomes = Vec::new();
    match Rules::open_for_del("netfilter on the node") {
        Ok(Some(mut rules)) => {
            if rules.has(table::TABLE) {
                outcomes.push(table::close(&mut rules.nfnl, &record.addresses));
            }
            forget_flows(&mut rules.nfnl, &record.addresses);
            rules.end(call);
        }
        Ok(None) => {}
        Err(err) => outcomes.push(Err(err)),
    }
    outcomes.push(record::remove(&config.path_of(record)));
    agent::tell(&config.socket, "del", record);
    Error::join(outcomes)
}

/// What the kernel still follows of the addresses is another pod's. Best effort: a connection that nobody goes on with
/// ends by itself.
fn forget_flows(nfnl: &mut Nfnl, addresses: &[IpAddr]) {
    if let Err(err) = conntrack::delete_of(nfnl, addresses) {
        eprintln!("podnet-policy: stale connections: {err}");
    }
}
