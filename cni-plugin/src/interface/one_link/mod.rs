//! What the plugins share that give the pod one link and leave nothing on the node: `macvlan`, `ipvlan`, `vlan`,
//! `dummy`. Each of them resolves its configuration to a [`OneLink`]; every verb is here.
//!
//! Order of ADD: namespace, the link below, the link straight in the pod, addresses (IPAM: `dhcp` needs the link),
//! the pod's addresses and routes. DEL asks for nothing but the name of the link: what lies below may be gone.

mod check;
mod parent;

use cni::{Call, CniResult, Dns, Error, Interface, Undo};
use kernel::link::{self, Change, Link, LinkKind, NewLink};
use kernel::{Mac, Netns, Rtnl};

use super::attach::{self, Announce, Options, failed};
use super::delete;
use super::veth;
use crate::ipam::Ipam;
pub(crate) use check::{check, status};
use parent::Found;
pub(crate) use parent::Parent;

/// A complete, valid configuration of one attachment.
#[derive(Debug)]
pub(crate) struct OneLink {
    /// What the link is.
    pub(crate) kind: LinkKind,
    /// What it stands on; `None` for a kind that stands on nothing.
    pub(crate) parent: Option<Parent>,
    /// The MAC asked for.
    pub(crate) mac: Option<Mac>,
    /// Its MTU in bytes, 0 for that of the link below.
    pub(crate) mtu: u32,
    /// The MTU may not be above that of the link below.
    pub(crate) mtu_within_parent: bool,
    /// Addresses and routes that the attachment has without an IPAM plugin.
    pub(crate) given: Option<CniResult>,
    /// DNS of the configuration; replaces the IPAM's when any key of it was written.
    pub(crate) dns: Option<Dns>,
}

/// ADD.
///
/// # Errors
/// What is missing, what the IPAM plugin or the kernel says.
pub(crate) fn add(call: &Call, config: OneLink, undo: &mut Undo) -> Result<CniResult, Error> {
    let (netns, mut pod) = attach::open_pod(call)?;
    let ipam = call.conf.ipam_type().is_some().then(|| Ipam::find(call)).transpose()?;
    let mut parent = config.parent.as_ref().map(|parent| parent.find(&mut pod)).transpose()?;
    if let Some(Found { link: below, .. }) = parent.as_ref().filter(|_| config.mtu_within_parent)
        && config.mtu > below.mtu
    {
        return Err(Error::invalid(format!(
            "invalid MTU {}, must be [0, master MTU({})]",
            config.mtu, below.mtu
        )));
    }

    let ifname = call.env.ifname.as_str();
    create(&config, ifname, (&netns, &mut pod), parent.as_mut())?;
    let path = call.env.netns.clone();
    let name = ifname.to_owned();
    undo.push("delete the pod's link", move || delete(&path, &name).map_err(|err| err.to_string()));
    let link = link::by_name(&mut pod, ifname).map_err(failed(format!("find {ifname:?} in the pod")))?;
    let link = with_mac(&config, &mut pod, link)?;

    let mut result = match ipam {
        Some(ipam) => {
            let result = ipam.add(call, undo)?;
            if result.ips.is_empty() {
                return Err(Error::internal("IPAM plugin returned missing IP config"));
            }
            result
        }
        None => config.given.unwrap_or_default(),
    };
    for ip in &mut result.ips {
        ip.interface = Some(0);
    }
    if result.ips.is_empty() {
        link::set(&mut pod, link.index, &Change { up: Some(true), ..Change::default() })
            .map_err(failed(format!("set {ifname:?} up")))?;
    } else {
        let shared_lan = config.parent.is_some();
        let announce = if shared_lan { Announce::WhenUp } else { Announce::No };
        let options = Options { announce, shared_lan, ..Options::default() };
        attach::configure(&netns, &mut pod, (ifname, link.index), &result, options)?;
    }
    result.interfaces = vec![Interface {
        name: ifname.to_owned(),
        mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        sandbox: call.env.netns.clone(),
        ..Interface::default()
    }];
    if let Some(dns) = config.dns {
        result.dns = dns;
    }
    Ok(result)
}

/// DEL. The reservation first, as in the reference: a DHCP lease is given back through the link.
///
/// # Errors
/// All that would not go.
pub(crate) fn del(call: &Call) -> Result<(), Error> {
    let address = match call.conf.ipam_type() {
        Some(_) => Ipam::find(call).and_then(|ipam| ipam.del(call)),
        None => Ok(()),
    };
    Error::join([address, delete::pod_link(call, &[]).map(drop)])
}

/// GC. The links went with their pods; what may be left is the IPAM plugin's.
///
/// # Errors
/// The IPAM plugin's own.
pub(crate) fn gc(call: &Call) -> Result<(), Error> {
    match call.conf.ipam_type() {
        Some(_) => Ipam::find(call)?.gc(call),
        None => Ok(()),
    }
}

/// Creates the link in the pod, down.
fn create(
    config: &OneLink,
    ifname: &str,
    (netns, pod): (&Netns, &mut Rtnl),
    parent: Option<&mut Found>,
) -> Result<(), Error> {
    let what = format!("create {} {ifname:?} in the pod", config.kind.name());
    let below = parent.as_ref().map(|found| found.link.index);
    let wanted =
        NewLink { parent: below, mac: config.mac, mtu: config.mtu, ..NewLink::new(ifname, config.kind) };
    let made = match parent {
        // The link below is found by its index in the socket's namespace.
        Some(Found { node: Some(node), .. }) => create_from(node, netns, pod, &wanted),
        _ => link::add(pod, &wanted),
    };
    match made {
        Ok(()) => Ok(()),
        Err(err) if err.is_exists() && link::by_name(pod, ifname).is_ok() => {
            Err(Error::internal(format!("interface name {ifname:?} already exists in the pod")))
        }
        Err(err) => Err(failed(what)(err)),
    }
}

/// Creates the link in the pod by a request on the node. Before Linux 6.15 that is refused when the node itself has
/// a link of the name, as it mostly has an `eth0`; then the link is born under a random name and renamed in the pod.
fn create_from(node: &mut Rtnl, netns: &Netns, pod: &mut Rtnl, wanted: &NewLink<'_>) -> kernel::Result<()> {
    use std::os::fd::AsFd;

    let wanted = NewLink { netns: Some(netns.as_fd()), ..*wanted };
    let refused = match link::add(node, &wanted) {
        Err(err) if err.is_exists() && link::by_name(node, wanted.name).is_ok() => err,
        other => return other,
    };
    if link::by_name(pod, wanted.name).is_ok() {
        return Err(refused);
    }
    let random = veth::name_from(Mac::random()?);
    link::add(node, &NewLink { name: &random, ..wanted })?;
    let born = link::by_name(pod, &random)?;
    let renamed = link::set(pod, born.index, &Change { name: Some(wanted.name), ..Change::default() });
    if renamed.is_err() {
        // The error that matters is the one above.
        let _ = link::delete(pod, born.index);
    }
    renamed
}

/// The link with the MAC asked for: at its creation the kernel gives a passthru macvlan its parent's instead.
fn with_mac(config: &OneLink, pod: &mut Rtnl, mut link: Link) -> Result<Link, Error> {
    if let Some(mac) = config.mac.filter(|mac| link.mac != Some(*mac)) {
        link::set(pod, link.index, &Change { mac: Some(mac), ..Change::default() })
            .map_err(failed(format!("set MAC of {:?}", link.name)))?;
        link.mac = Some(mac);
    }
    Ok(link)
}

fn delete(netns: &str, name: &str) -> kernel::Result<()> {
    let mut pod = Rtnl::open_in(&Netns::open(std::path::Path::new(netns))?)?;
    match link::by_name(&mut pod, name).and_then(|link| link::delete(&mut pod, link.index)) {
        Err(err) if !err.is_not_found() => Err(err),
        _ => Ok(()),
    }
}
