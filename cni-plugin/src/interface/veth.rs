//! The veth pair from a pod to its node: creation in one request, whose it is, GC by that.
//!
//! What the node's end is plugged into, and its addresses and routes, is the plugin's own affair.

use std::os::fd::{AsFd, BorrowedFd};

use cni::{Call, Error, Undo};
use kernel::link::{self, Change, Link, Port, Veth};
use kernel::{Batch, Mac, Netns, Rtnl, sysctl};

use super::attach::failed;
use super::delete;
use crate::hash::sha512;

/// How often a name for the node's end is tried.
const NAME_TRIES: u32 = 10;
/// What the alias of a node's end begins with; network, container and interface follow.
const ALIAS: &str = "podnet";

/// What the alias of both ends of a VLAN's gateway on a bridge begins with; bridge and VLAN follow.
pub(crate) const GATEWAY_ALIAS: &str = "podnet-gateway";

/// What the two ends are to be.
pub(crate) struct Ends {
    /// MAC of the pod's end.
    pub(crate) mac: PodMac,
    /// MTU of both in bytes; 0 is the kernel's default.
    pub(crate) mtu: u32,
    /// The bridge that the node's end is plugged into.
    pub(crate) master: Option<u32>,
}

/// Which MAC the pod's end gets.
#[derive(Clone, Copy)]
pub(crate) enum PodMac {
    /// This one.
    Asked(Mac),
    /// One that nobody has had: pods of several machines may share a link.
    Random,
    /// The attachment's own: nobody but the node sees it.
    Derived,
}

/// The node's end of a new veth.
pub(crate) struct NodeEnd {
    /// Its name.
    pub(crate) name: String,
    /// Its MAC.
    pub(crate) mac: Mac,
    /// Its index.
    pub(crate) index: u32,
    /// The pod's end: its index in the pod, and its MAC.
    pub(crate) pod: (u32, Mac),
}

/// Creates the veth: the node's end up and plugged, the other straight in the pod under its final name and
/// MAC.
///
/// # Errors
/// CNI_IFNAME is taken in the pod, or what the kernel says.
pub(crate) fn add(
    rtnl: &mut Rtnl,
    call: &Call,
    netns: &Netns,
    ends: &Ends,
    undo: &mut Undo,
) -> Result<NodeEnd, Error> {
    let ifname = call.env.ifname.as_str();
    let mac = highest(derived(call, "node"));
    let pod_mac = match ends.mac {
        PodMac::Asked(mac) => mac,
        PodMac::Random => random_mac()?,
        PodMac::Derived => derived(call, "pod"),
    };
    let mut tries = 0;
    let (name, made) = loop {
        // What was there before under this name may still be going.
        let name = name_from(if tries == 0 { derived(call, "name") } else { random_mac()? });
        let veth = Veth {
            name: &name,
            peer: ifname,
            mac: Some(mac),
            peer_mac: Some(pod_mac),
            mtu: ends.mtu,
            master: ends.master,
            up: true,
            peer_netns: Some(netns.as_fd()),
        };
        match link::add_veth(rtnl, &veth) {
            Ok(made) => break (name, made),
            Err(err) if err.is_exists() => {
                let mut pod = Rtnl::open_in(netns).map_err(failed("netlink in the pod"))?;
                if link::by_name(&mut pod, ifname).is_ok() {
                    return Err(Error::internal(format!("container veth name ({ifname:?}) already exists")));
                }
                tries += 1;
                if tries == NAME_TRIES {
                    return Err(failed("create veth pair")(err));
                }
            }
            Err(err) => {
                return Err(failed(format!("create veth pair {name:?} to {ifname:?} in the pod"))(err));
            }
        }
    };
    let taken_back = name.clone();
    undo.push("delete the veth pair", move || {
        let mut rtnl = Rtnl::open().map_err(|err| err.to_string())?;
        match link::by_name(&mut rtnl, &taken_back).and_then(|link| link::delete(&mut rtnl, link.index)) {
            Err(err) if !err.is_not_found() => Err(err.to_string()),
            _ => Ok(()),
        }
    });
    let made = match made {
        Some(made) => made,
        None => link::by_name(rtnl, &name).map_err(failed(format!("find veth {name:?}")))?,
    };
    let peer = made.link.ok_or_else(|| Error::internal(format!("veth {name:?} has no other end")))?;
    Ok(NodeEnd { name, mac, index: made.index, pod: (peer, pod_mac) })
}

/// Writes on the node's end whose it is, gives it the options of a bridge's port if any, keeps the node from taking
/// routes from the pod, and gives the link as it is then.
///
/// # Errors
/// What the kernel says.
pub(crate) fn complete(
    rtnl: &mut Rtnl,
    call: &Call,
    veth: &NodeEnd,
    port: Option<&Port>,
) -> Result<Link, Error> {
    let (name, index) = (veth.name.as_str(), veth.index);
    let alias = alias(&call.conf.name, &call.env.container_id, &call.env.ifname);
    let mut batch = Batch::new();
    batch.link_set(index, &Change { alias: Some(&alias), ..Change::default() });
    if let Some(port) = port {
        batch.link_set_port(index, port);
    }
    let (answers, link) =
        rtnl.send_and_look(batch, index).map_err(failed(format!("complete veth {name:?}")))?;
    for (answer, what) in answers.into_iter().zip(["set alias", "set bridge port options"]) {
        answer.map_err(failed(format!("{what} of {name:?}")))?;
    }
    if link.accept_ra.is_some_and(|value| value != 0) {
        // Best effort, as in the reference.
        let _ = sysctl::write(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
    }
    Ok(link)
}

/// DEL of the attachment's veth: by the pod's end, or by the node's where the pod's namespace is gone but not
/// its link yet, or the pod's end has another name by now. Absent is success.
///
/// # Errors
/// The kernel's refusal, with the link.
pub(crate) fn delete(call: &Call, keep: &[BorrowedFd<'_>]) -> Result<(), Error> {
    if delete::pod_link(call, keep)? {
        return Ok(());
    }
    let own = alias(&call.conf.name, &call.env.container_id, &call.env.ifname);
    delete_where("veth", |alias| *alias == own)
}

/// GC of links: deletes the node's veths whose alias names this network and an attachment that is not
/// valid any more. Without the list of valid attachments nothing is deleted.
///
/// # Errors
/// Every link that would not go.
pub(crate) fn collect(call: &Call) -> Result<(), Error> {
    collect_kind(call, "veth")
}

/// As [`collect`], for the node's links of another kind.
///
/// # Errors
/// Every link that would not go.
pub(crate) fn collect_kind(call: &Call, kind: &str) -> Result<(), Error> {
    let Some(valid) = &call.conf.valid_attachments else { return Ok(()) };
    let keep: Vec<String> = valid
        .iter()
        .map(|attachment| alias(&call.conf.name, &attachment.container_id, &attachment.ifname))
        .collect();
    delete_where(kind, |alias| is_of(alias, &call.conf.name) && !keep.contains(alias))
}

/// Deletes the node's links of a kind whose alias is one that `which` wants.
fn delete_where(kind: &str, which: impl Fn(&String) -> bool) -> Result<(), Error> {
    let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;
    let links = link::list(&mut rtnl).map_err(failed("list links of the node"))?;
    let is_stale =
        |link: &&Link| link.kind.as_deref() == Some(kind) && link.alias.as_ref().is_some_and(&which);
    let stale: Vec<&Link> = links.iter().filter(is_stale).collect();
    delete::node_links(&mut rtnl, &links, &stale)
}

/// A MAC for the node's end: the highest first byte, so that a bridge which follows the lowest MAC of its
/// ports does not take this one and change its own under the pods that learnt it.
pub(crate) fn node_mac() -> Result<Mac, Error> {
    random_mac().map(highest)
}

fn highest(Mac(mut bytes): Mac) -> Mac {
    bytes[0] = 0xfe;
    Mac(bytes)
}

/// A unicast, locally administered MAC that follows from the attachment and from what it is for: the same at every ADD
/// of the attachment, another for every other one (the first 48 bits of SHA-512, with those two bits set).
pub(crate) fn derived(call: &Call, what: &str) -> Mac {
    let (network, env) = (&call.conf.name, &call.env);
    let hash = sha512(&[what, "\0", network, "\0", &env.container_id, "\0", &env.ifname]);
    Mac([(hash[0] & 0xfc) | 0x02, hash[1], hash[2], hash[3], hash[4], hash[5]])
}

/// A unicast, locally administered MAC.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn random_mac() -> Result<Mac, Error> {
    Mac::random().map_err(failed("make up a MAC"))
}

/// `veth` and eight hexadecimal digits of a `source`, as the reference names links.
pub(crate) fn name_from(source: Mac) -> String {
    let Mac(bytes) = source;
    format!("veth{:02x}{:02x}{:02x}{:02x}", bytes[2], bytes[3], bytes[4], bytes[5])
}

/// The alias (`ip link` shows it) that says whose a node's link is; GC finds its own by it.
pub(crate) fn alias(network: &str, container_id: &str, ifname: &str) -> String {
    format!("{ALIAS} {network} {container_id} {ifname}").chars().take(255).collect()
}

/// Whether a link of the node is the veth of an attachment that podnet made.
pub(crate) fn is_owned(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
        && link.alias.as_deref().is_some_and(|alias| alias.split(' ').next() == Some(ALIAS))
}

/// Whether a link is an end of a VLAN's gateway that podnet made.
pub(crate) fn is_gateway(link: &Link) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.split(' ').next() == Some(GATEWAY_ALIAS))
}

/// Whether an alias was written for `network`: its second word, whole.
fn is_of(alias: &str, network: &str) -> bool {
    let mut words = alias.split(' ');
    words.next() == Some(ALIAS) && words.next() == Some(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_of_its_network_only() {
        let written = alias("net", "c1", "eth0");
        assert_eq!(written, "podnet net c1 eth0");
        assert!(is_of(&written, "net"));
        assert!(!is_of(&written, "ne") && !is_of(&written, "net c1") && !is_of("net c1 eth0", "net"));
        assert_eq!(alias("n", &"x".repeat(300), "eth0").len(), 255);
    }
}
