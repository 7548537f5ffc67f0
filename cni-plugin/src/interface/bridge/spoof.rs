//! `macspoofchk`: frames from the pod's port leave with the MAC that the pod was given, or not at all.
//!
//! Tables, chains and comments are the reference's: in table `bridge nat` a jump by the port's name from
//! PREROUTING to a chain of the attachment, and from there to a second that returns for the right MAC and
//! drops. All of it is one transaction, which also replaces what the attachment has left from before. A record
//! beside the comment names the network, for GC; another on table and base chain says that they are ours to
//! delete when the last rule is gone.

use cni::{Call, Error, Undo, code};
use kernel::nft::{self, Batch, ChainKind, Family, Hook, Op, Point, Rule, Table, Userdata, priority};
use kernel::{Mac, Nfnl, Result};

use crate::interface::attach::failed;
use crate::meta::owner::{Owner, Stale, is_scaffolding, scaffolding};
use crate::rules::Rules;

const TABLE: Table<'static> = Table::new(Family::Bridge, "nat");
const PREROUTING: &str = "PREROUTING";
const HOOK: Hook<'static> = Hook::new(ChainKind::Filter, Point::Prerouting, priority::BRIDGE_DSTNAT);
const COMMENT: &str = "macspoofchk-";
const CHAIN: &str = "cni-br-iface-";
/// What errors of this module begin with.
const WHAT: &str = "MAC spoof check";

/// What an attachment's chains and comments are called by.
fn id(call: &Call) -> String {
    format!("{}-{}", call.env.container_id, call.env.ifname)
}

/// The chains of an attachment: the one for its port, the one that compares the MAC.
fn chains(id: &str) -> [String; 2] {
    [format!("{CHAIN}{id}"), format!("{CHAIN}{id}-mac")]
}

/// Lets frames from the port `port` pass with the source `mac` only.
///
/// # Errors
/// What the kernel lacks or refuses.
pub(super) fn add(call: &Call, port: &str, mac: Mac, undo: &mut Undo) -> std::result::Result<(), Error> {
    let id = id(call);
    let mut nfnl = Nfnl::open().map_err(failed(WHAT))?;
    let taken_back = id.clone();
    undo.push("remove the MAC spoof check", move || {
        let mut nfnl = Nfnl::open().map_err(|err| err.to_string())?;
        remove_of(&mut nfnl, &taken_back).map_err(|err| err.to_string())
    });
    let userdata = Owner::of(call).record(Userdata::comment(&format!("{COMMENT}{id}")), &[]);
    nfnl.transact(|nfnl, batch| {
        take_out(nfnl, batch, &id)?;
        // A chain that is there is not added again: that counts as a change of it, and makes the end wait.
        if nft::chain(nfnl, TABLE, PREROUTING)?.is_none() {
            put_base(batch);
        }
        put(batch, &id, &userdata, (port, mac));
        Ok(())
    })
    .map_err(failed(WHAT))
}

/// Removes the attachment's rules and chains; none is success.
///
/// # Errors
/// What is still there and why.
pub(super) fn remove(rules: &mut Rules, call: &Call) -> std::result::Result<(), Error> {
    match rules.has(TABLE) {
        true => remove_of(&mut rules.nfnl, &id(call)).map_err(failed(WHAT)),
        false => Ok(()),
    }
}

/// GC: removes the rules and chains of this network's attachments that are not valid any more. What the reference
/// made names no network and stays.
///
/// # Errors
/// What is still there and why.
pub(super) fn collect(call: &Call) -> std::result::Result<(), Error> {
    let Some(stale) = Stale::of(call) else { return Ok(()) };
    let collected = Nfnl::open().and_then(|mut nfnl| {
        let rules = nfnl.transact(|nfnl, _| nft::handles(nfnl, TABLE, PREROUTING))?;
        let of_stale = rules.iter().filter(|(_, userdata)| stale.covers(userdata));
        let ids: Vec<&str> =
            of_stale.filter_map(|(_, userdata)| userdata.text()?.strip_prefix(COMMENT)).collect();
        ids.iter().try_for_each(|id| remove_of(&mut nfnl, id))
    });
    forgiving(collected)
}

/// CHECK: frames from `port` pass with the source `mac` only.
///
/// # Errors
/// What is missing.
pub(super) fn check(call: &Call, port: &str, mac: Mac) -> std::result::Result<(), Error> {
    let wanted = rules(&id(call), port, mac);
    // Looked at again when another program changes anything meanwhile.
    let missing = Nfnl::open().and_then(|mut nfnl| {
        nfnl.transact(|nfnl, _| {
            for (chain, rule) in &wanted {
                if !nft::rules(nfnl, TABLE, chain)?.iter().any(|found| found.does(rule)) {
                    return Ok(Some(chain));
                }
            }
            Ok(None)
        })
    });
    match missing.map_err(failed(WHAT))? {
        None => Ok(()),
        Some(chain) => Err(Error::internal(format!(
            "{WHAT} of port {port:?} for MAC {mac}: a rule of chain {TABLE} {chain} is missing"
        ))),
    }
}

/// STATUS: the kernel would take the rules; nothing is changed.
///
/// # Errors
/// Code 50 with what the kernel lacks or refuses.
pub(super) fn status() -> std::result::Result<(), Error> {
    let mut batch = Batch::new();
    put_base(&mut batch);
    put(&mut batch, "status", &Userdata::new(), ("status", Mac([0; 6])));
    let tried = Nfnl::open().and_then(|mut nfnl| nfnl.try_out(batch));
    tried.map_err(|err| Error::new(code::UNAVAILABLE, format!("{WHAT}: {err}")))
}

fn forgiving(removed: Result<()>) -> std::result::Result<(), Error> {
    match removed {
        Err(err) if err.lacks().is_none() => Err(failed(WHAT)(err)),
        _ => Ok(()),
    }
}

/// The rules of an attachment, each with its chain.
fn rules(id: &str, port: &str, mac: Mac) -> [(String, Rule); 4] {
    let [of_port, of_mac] = chains(id);
    [
        (PREROUTING.to_owned(), Rule::new().iifname(Op::Eq, port).jump(&of_port)),
        (of_port, Rule::new().jump(&of_mac)),
        (of_mac.clone(), Rule::new().ether_saddr(Op::Eq, mac).return_()),
        (of_mac, Rule::new().drop()),
    ]
}

fn put_base(batch: &mut Batch) {
    let ours = scaffolding(Userdata::new());
    batch.add_table_with(TABLE, &ours).add_chain_with(TABLE, PREROUTING, Some(&HOOK), &ours);
}

fn put(batch: &mut Batch, id: &str, userdata: &Userdata, (port, mac): (&str, Mac)) {
    for chain in chains(id) {
        batch.add_chain(TABLE, &chain, None);
    }
    for (chain, rule) in rules(id, port, mac) {
        batch.append(TABLE, &chain, &rule.userdata(userdata.clone()));
    }
}

/// Puts into the batch the removal of what an attachment has: so many jumps and so many chains.
fn take_out(nfnl: &mut Nfnl, batch: &mut Batch, id: &str) -> Result<(usize, usize)> {
    let comment = format!("{COMMENT}{id}");
    let mut jumps = nft::handles(nfnl, TABLE, PREROUTING)?;
    jumps.retain(|(_, userdata)| userdata.text() == Some(&comment));
    for (handle, _) in &jumps {
        batch.delete_rule(TABLE, PREROUTING, *handle);
    }
    let mut own = 0;
    // The first leads to the second.
    for chain in chains(id) {
        if nft::chain(nfnl, TABLE, &chain)?.is_some() {
            batch.flush_chain(TABLE, &chain).delete_chain(TABLE, &chain);
            own += 1;
        }
    }
    Ok((jumps.len(), own))
}

fn remove_of(nfnl: &mut Nfnl, id: &str) -> Result<()> {
    nfnl.transact(|nfnl, batch| {
        let (jumps, chains) = take_out(nfnl, batch, id)?;
        if batch.is_empty() {
            return Ok(());
        }
        let Some(base) = nft::chain(nfnl, TABLE, PREROUTING)? else { return Ok(()) };
        let Some(table) = nft::table(nfnl, TABLE)? else { return Ok(()) };
        if base.used as usize == jumps && is_scaffolding(&base.userdata) {
            batch.delete_chain(TABLE, PREROUTING);
            if table.used as usize == 1 + chains && is_scaffolding(&table.userdata) {
                batch.delete_empty_table(TABLE);
            }
        }
        Ok(())
    })
}
