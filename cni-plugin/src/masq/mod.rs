//! Masquerade of what a pod sends beyond its own subnet, for every plugin with the key `ipMasq`.
//!
//! The rules are written over netlink in the reference's nftables layout, whichever of its two backends a
//! configuration asks for, so its DEL finds ours and ours finds its own: rules are found by their owner (network,
//! container, interface) and need neither addresses nor a pod that still exists. What its iptables backend
//! left in the tables of iptables-nft is removed too; what iptables-legacy holds is out of reach of netlink
//! and stays.

mod table;
mod xtables;

use cni::{Call, Error, Undo, code};
use ipnetwork::IpNetwork;
use kernel::Nfnl;

use crate::hash::sha512_hex;
use crate::interface::attach::failed;
use crate::rules::Rules;

/// What errors of this module begin with.
const WHAT: &str = "masquerade";
/// The longest comment that `nft` takes, in bytes.
const COMMENT_MAX: usize = 128;

/// Whose rules: the attachment, as the reference names it.
#[derive(Clone, Debug)]
struct Owner {
    network: String,
    ifname: String,
    container: String,
}

impl Owner {
    fn of(call: &Call) -> Self {
        Self::new(&call.conf.name, &call.env.ifname, &call.env.container_id)
    }

    fn new(network: &str, ifname: &str, container: &str) -> Self {
        Self { network: network.to_owned(), ifname: ifname.to_owned(), container: container.to_owned() }
    }

    /// What the comments of all rules of a network begin with.
    fn network_mark(network: &str) -> String {
        format!("{}-", sha512_hex(&[network], 16))
    }

    /// What the comments of this attachment's rules begin with.
    fn mark(&self) -> String {
        Self::network_mark(&self.network) + &sha512_hex(&[&self.ifname, ":", &self.container], 16)
    }

    /// The comment of each of its rules: the hashes, and for people what they stand for.
    fn comment(&self) -> String {
        let mut text = format!(
            "{}, net: {}, if: {}, id: {}",
            self.mark(),
            self.network,
            self.ifname.replace('"', ""),
            self.container
        );
        let mut end = text.len().min(COMMENT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text
    }
}

/// Whether masquerade is asked for, by the keys `ipMasq` and `ipMasqBackend` as written. Both of the
/// reference's backends are served by the same rules.
///
/// # Errors
/// Code 7 for a backend that is none, when masquerade is asked for.
pub(crate) fn wanted(ip_masq: bool, backend: Option<&str>) -> Result<bool, Error> {
    match backend {
        Some(other) if ip_masq && !matches!(other, "" | "iptables" | "nftables") => {
            Err(Error::invalid(format!("unknown ipmasq backend {other:?}")))
        }
        _ => Ok(ip_masq),
    }
}

/// Masquerades what the addresses in `ips` (each with its subnet's prefix length) send beyond their subnet.
///
/// # Errors
/// What the kernel lacks or refuses.
pub(crate) fn add(call: &Call, ips: &[IpNetwork], undo: &mut Undo) -> Result<(), Error> {
    let owner = Owner::of(call);
    let mut nfnl = Nfnl::open().map_err(failed(WHAT))?;
    let taken_back = owner.clone();
    undo.push("remove the masquerade rules", move || {
        let mut nfnl = Nfnl::open().map_err(|err| err.to_string())?;
        table::remove(&mut nfnl, &of(&taken_back)).map_err(|err| err.to_string())
    });
    table::add(&mut nfnl, &owner, ips).map_err(failed(WHAT))
}

/// Removes the attachment's masquerade rules; none is success.
///
/// # Errors
/// What is still there and why.
pub(crate) fn remove(rules: &mut Rules, call: &Call) -> Result<(), Error> {
    let owner = Owner::of(call);
    let ours = match rules.has(table::TABLE) {
        true => table::remove(&mut rules.nfnl, &of(&owner)).map_err(failed(WHAT)),
        false => Ok(()),
    };
    let known: Vec<IpNetwork> =
        call.conf.prev_result.iter().flat_map(|result| &result.ips).map(|ip| ip.address).collect();
    let theirs = xtables::remove(rules, &owner, &known).map_err(failed(WHAT));
    Error::join([ours, theirs])
}

/// GC: removes the rules of this network whose attachment is not valid any more. Without the list of valid
/// attachments nothing is removed.
///
/// # Errors
/// What is still there and why.
pub(crate) fn collect(call: &Call) -> Result<(), Error> {
    let Some(valid) = &call.conf.valid_attachments else { return Ok(()) };
    let network = call.conf.name.as_str();
    let owners: Vec<Owner> =
        valid.iter().map(|one| Owner::new(network, &one.ifname, &one.container_id)).collect();
    let Some(Rules { mut nfnl, .. }) = Rules::open_for_del(WHAT)? else { return Ok(()) };
    let of_network = Owner::network_mark(network);
    let keep: Vec<String> = owners.iter().map(Owner::mark).collect();
    let stale = |comment: &str| {
        comment.starts_with(&of_network) && !keep.iter().any(|mark| comment.starts_with(mark))
    };
    let ours = table::remove(&mut nfnl, &stale).map_err(failed(WHAT));
    let theirs = xtables::collect(&mut nfnl, network, &owners).map_err(failed(WHAT));
    Error::join([ours, theirs])
}

/// CHECK: each of `ips` is masqueraded, by rules of ours or of the reference's.
///
/// # Errors
/// The first address that is not.
pub(crate) fn check(call: &Call, ips: &[IpNetwork]) -> Result<(), Error> {
    let owner = Owner::of(call);
    let mut nfnl = Nfnl::open().map_err(failed(WHAT))?;
    // Looked at again when another program changes anything meanwhile.
    let missing = nfnl.transact(|nfnl, _| {
        let missing = table::missing(nfnl, &owner, ips)?;
        xtables::missing(nfnl, &owner, missing)
    });
    let missing = missing.map_err(failed(WHAT))?;
    match missing.first() {
        Some(ip) if !xtables::legacy_in_use() => {
            Err(Error::internal(format!("masquerade rule for {} is missing", ip.ip())))
        }
        _ => Ok(()),
    }
}

/// STATUS: the kernel would take the rules; nothing is changed.
///
/// # Errors
/// Code 50 with what the kernel lacks or refuses.
pub(crate) fn status() -> Result<(), Error> {
    let tried = Nfnl::open().and_then(|mut nfnl| table::try_out(&mut nfnl));
    tried.map_err(|err| Error::new(code::UNAVAILABLE, format!("{WHAT}: {err}")))
}

/// Picks an attachment's rules by their comment.
fn of(owner: &Owner) -> impl Fn(&str) -> bool {
    let mark = owner.mark();
    move |comment| comment.starts_with(&mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_references() {
        let owner = Owner::new("net", "eth0", "cid");
        assert_eq!(owner.mark(), "a4861f4ae9f7d238-f67e6d6b66294011");
        let comment = "a4861f4ae9f7d238-f67e6d6b66294011, net: net, if: eth0, id: cid";
        assert_eq!(owner.comment(), comment);
        let long = Owner::new("net", "eth0", &"c".repeat(200)).comment();
        assert!(long.len() == 128 && long.starts_with("a4861f4ae9f7d238-"));
    }

    #[test]
    fn either_backend_is_served_and_others_are_refused_when_asked_for() {
        for backend in [None, Some(""), Some("iptables"), Some("nftables")] {
            assert!(wanted(true, backend).unwrap() && !wanted(false, backend).unwrap());
        }
        let err = wanted(true, Some("pf")).unwrap_err();
        assert_eq!((err.code, err.msg.as_str()), (7, "unknown ipmasq backend \"pf\""));
        assert_eq!(wanted(false, Some("pf")), Ok(false));
    }
}
