//! The ifb of an attachment: its name, whose it is, creation and removal.
//!
//! The name is the reference's, which has the network and the container in it but not the interface. A second
//! attachment of one container to one network gets a name with the interface in it instead of an error. The
//! alias says whose an ifb is; one that the reference made has none.

use cni::{Call, Error, Undo};
use kernel::Rtnl;
use kernel::link::{self, Change, Link};

use crate::hash::sha512_hex;
use crate::interface::attach::failed;
use crate::interface::veth;

/// What the name begins with; twelve digits of a hash follow.
const PREFIX: &str = "bwp";
const DIGITS: usize = 12;

/// The names an attachment's ifb may have: the reference's, and one of its own.
fn names(network: &str, container_id: &str, ifname: &str) -> [String; 2] {
    let name = |parts: &[&str]| format!("{PREFIX}{}", sha512_hex(parts, DIGITS));
    [name(&[network, container_id]), name(&[network, ":", container_id, ":", ifname])]
}

fn names_of(call: &Call) -> [String; 2] {
    names(&call.conf.name, &call.env.container_id, &call.env.ifname)
}

fn alias_of(call: &Call) -> String {
    veth::alias(&call.conf.name, &call.env.container_id, &call.env.ifname)
}

/// Looks a link up; `None` when there is none, or none that is an ifb.
fn by_name(node: &mut Rtnl, name: &str) -> Result<Option<Link>, Error> {
    match link::by_name(node, name) {
        Err(err) if err.is_not_found() => Ok(None),
        other => other.map(Some).map_err(failed(format!("find {name:?}"))),
    }
    .map(|found| found.filter(|link| link.kind.as_deref() == Some("ifb")))
}

/// Creates the ifb, up. One that an earlier ADD of the same attachment has left behind is replaced: the
/// caller has made sure that nothing is redirected to it any more.
///
/// # Errors
/// Both names are taken, or what the kernel says.
pub(super) fn create(node: &mut Rtnl, call: &Call, mtu: u32, undo: &mut Undo) -> Result<Link, Error> {
    let alias = alias_of(call);
    let names = names_of(call);
    for name in &names {
        if let Some(left) = by_name(node, name)?.filter(|link| link.alias.as_ref() == Some(&alias)) {
            remove(node, &left)?;
        }
    }
    for name in &names {
        match link::add_ifb(node, name, mtu) {
            Err(err) if err.is_exists() => continue,
            other => other.map_err(failed(format!("create ifb {name:?}")))?,
        }
        let made = name.clone();
        undo.push("delete the ifb", move || {
            let mut node = Rtnl::open().map_err(|err| err.to_string())?;
            let link = by_name(&mut node, &made).map_err(|err| err.msg)?;
            link.map_or(Ok(()), |link| remove(&mut node, &link)).map_err(|err| err.msg)
        });
        let link = link::by_name(node, name).map_err(failed(format!("find {name:?}")))?;
        link::set(node, link.index, &Change { alias: Some(&alias), ..Change::default() })
            .map_err(failed(format!("set alias of {name:?}")))?;
        return Ok(link);
    }
    Err(Error::internal(format!(
        "create ifb: {:?} and {:?} are taken by other attachments",
        names[0], names[1]
    )))
}

/// The ifb of the attachment, for CHECK.
///
/// # Errors
/// There is none.
pub(super) fn find(node: &mut Rtnl, call: &Call) -> Result<Link, Error> {
    let names = names_of(call);
    for name in &names {
        if let Some(link) = by_name(node, name)?.filter(|link| is_own(link, call, name == &names[0])) {
            return Ok(link);
        }
    }
    Err(Error::internal(format!("get ifb device: {:?} not found", names[0])))
}

/// Deletes the attachment's ifb, whoever made it; absent is success.
///
/// # Errors
/// It is still there, and why.
pub(super) fn delete(node: &mut Rtnl, call: &Call) -> Result<(), Error> {
    let names = names_of(call);
    let mut outcomes = Vec::new();
    for name in &names {
        match by_name(node, name) {
            Ok(Some(link)) if is_own(&link, call, name == &names[0]) => outcomes.push(remove(node, &link)),
            Ok(_) => {}
            Err(err) => outcomes.push(Err(err)),
        }
    }
    Error::join(outcomes)
}

/// Whether an ifb belongs to the attachment: by its alias; and one without, which the reference made, by its
/// name, unless the result of ADD knows nothing of it: then it is another interface's.
fn is_own(link: &Link, call: &Call, has_references_name: bool) -> bool {
    match link.alias.as_deref() {
        Some(alias) if !alias.is_empty() => alias == alias_of(call),
        _ => {
            let listed = match &call.conf.prev_result {
                Some(previous) if !previous.interfaces.is_empty() => {
                    previous.interfaces.iter().any(|there| there.name == link.name)
                }
                _ => true,
            };
            has_references_name && listed
        }
    }
}

fn remove(node: &mut Rtnl, link: &Link) -> Result<(), Error> {
    match link::delete(node, link.index) {
        Err(err) if !err.is_not_found() => Err(failed(format!("delete ifb {:?}", link.name))(err)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_the_references_and_the_second_has_the_interface_in_it() {
        let [first, second] = names("net", "cid", "eth0");
        assert_eq!(first, "bwpf74d2f3ccf98");
        assert_eq!(second.len(), 15);
        let [same, other] = names("net", "cid", "net1");
        assert_eq!(same, first);
        assert_ne!(other, second);
        // The reference puts nothing in between.
        assert_eq!(names("ne", "tcid", "eth0")[0], first);
        assert_ne!(names("ne", "tcid", "eth0")[1], second);
    }
}
