//! `bandwidth`: limits what goes to the pod and what comes from it, on the node's end of its veth.
//!
//! To the pod: a token bucket on that end. From the pod: what comes in there is redirected to an ifb, which
//! has a token bucket in its turn, because the kernel shapes only what leaves. The qdiscs on the veth go with
//! it; DEL has the ifb to delete.

mod check;
mod config;
mod ifb;
mod shaper;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Interface, Undo, Version, code};
use kernel::link::{self, Link};
use kernel::tc::{self, Address, Filter, INGRESS, Kind, Qdisc, ROOT};
use kernel::{Netns, Rtnl};

use crate::interface::attach::{self, failed};
use crate::interface::veth;
use config::BandwidthConfig;
use shaper::Shaper;

/// The plugin.
pub(crate) struct Bandwidth;

/// The handle of the qdisc that sees what comes in.
const INGRESS_HANDLE: u32 = tc::handle(0xffff, 0);

impl Plugin for Bandwidth {
    fn name(&self) -> &'static str {
        "bandwidth"
    }

    fn versions(&self) -> &'static [Version] {
        Version::ALL.split_at(2).1
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = BandwidthConfig::resolve(call)?;
        let mut result = previous(call)?.clone();
        if config.ingress.is_none() && config.egress.is_none() {
            return Ok(result);
        }
        let (mut pod, mut node) = (attach::open_pod(call)?.1, open_node()?);
        let port = node_end(call, &result, &mut pod, &mut node)?;
        if let Some(shaper) = &config.ingress {
            shape(&mut node, &port, shaper, Address::Source, undo)?;
        }
        if let Some(shaper) = &config.egress {
            add_ingress_qdisc(&mut node, &port, undo)?;
            let ifb = ifb::create(&mut node, call, port.mtu, undo)?;
            shaper.apply(&mut node, ifb.index, Address::Destination).map_err(failed(&ifb.name))?;
            tc::add_filter(&mut node, &redirect(&port, &ifb))
                .map_err(failed(format!("redirect what {:?} receives to {:?}", port.name, ifb.name)))?;
            result.interfaces.push(Interface {
                mac: ifb.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                name: ifb.name,
                ..Interface::default()
            });
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        ifb::delete(&mut open_node()?, call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = BandwidthConfig::resolve(call)?;
        let previous = previous(call)?;
        if config.ingress.is_none() && config.egress.is_none() {
            return Ok(());
        }
        let (mut pod, mut node) = (attach::open_pod(call)?.1, open_node()?);
        let port = node_end(call, previous, &mut pod, &mut node)?;
        if let Some(shaper) = &config.ingress {
            check::check_shaper(&mut node, &port, shaper, Address::Source)?;
        }
        let Some(shaper) = &config.egress else { return Ok(()) };
        let ifb = ifb::find(&mut node, call)?;
        check::check_redirect(&mut node, &port, &ifb)?;
        check::check_shaper(&mut node, &ifb, shaper, Address::Destination)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        veth::collect_kind(call, "ifb")
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let unavailable = |err: Error| Error { code: code::UNAVAILABLE, ..err };
        let config = BandwidthConfig::resolve(call).map_err(unavailable)?;
        try_kernel(&config).map_err(failed("traffic control")).map_err(unavailable)
    }
}

fn previous(call: &Call) -> Result<&CniResult, Error> {
    call.conf.prev_result.as_ref().ok_or_else(|| Error::invalid("must be called as chained plugin"))
}

fn open_node() -> Result<Rtnl, Error> {
    Rtnl::open().map_err(failed("netlink on the node"))
}

/// The node's end of the pod's veth, which `previous` must list.
fn node_end(call: &Call, previous: &CniResult, pod: &mut Rtnl, node: &mut Rtnl) -> Result<Link, Error> {
    if previous.interfaces.is_empty() {
        return Err(Error::internal("no interfaces provided"));
    }
    let ifname = call.env.ifname.as_str();
    let own = link::by_name(pod, ifname).map_err(failed(format!("find {ifname:?} in the pod")))?;
    let peer = own.link.filter(|_| own.kind.as_deref() == Some("veth"));
    let index =
        peer.ok_or_else(|| Error::internal(format!("container interface {ifname} has no veth peer")))?;
    let end = link::by_index(node, index)
        .map_err(failed(format!("veth peer with index {index} is not in host ns")))?;
    // An index says nothing of the namespace: some other link may have it here.
    let is_peer = end.kind.as_deref() == Some("veth") && end.link == Some(own.index);
    let listed = previous.interfaces.iter().any(|there| there.sandbox.is_empty() && there.name == end.name);
    if !is_peer || !listed {
        return Err(Error::internal("no veth peer of container interface found in host ns"));
    }
    Ok(end)
}

/// Shapes what leaves by the veth's end, that is, what goes to the pod.
fn shape(
    node: &mut Rtnl,
    port: &Link,
    shaper: &Shaper,
    remote: Address,
    undo: &mut Undo,
) -> Result<(), Error> {
    // Noted after the first step, which alone refuses where a qdisc stands already: that one is not ours.
    let index = port.index;
    shaper.begin(node, index).map_err(|err| taken(err, port))?;
    undo.push("delete the qdisc", move || delete_qdisc(index, ROOT));
    shaper.complete(node, index, remote).map_err(failed(&port.name))
}

fn add_ingress_qdisc(node: &mut Rtnl, port: &Link, undo: &mut Undo) -> Result<(), Error> {
    let index = port.index;
    let qdisc = Qdisc { index, handle: INGRESS_HANDLE, parent: INGRESS, kind: Kind::Ingress };
    tc::add_qdisc(node, &qdisc).map_err(|err| taken(err, port))?;
    undo.push("delete the ingress qdisc", move || delete_qdisc(index, INGRESS));
    Ok(())
}

fn taken(err: kernel::Error, port: &Link) -> Error {
    if err.is_exists() {
        return Error::internal(format!(
            "{:?} has a qdisc already: is bandwidth, or another plugin that shapes, called twice for it? ({err})",
            port.name
        ));
    }
    failed(&port.name)(err)
}

fn delete_qdisc(index: u32, parent: u32) -> Result<(), String> {
    let mut node = Rtnl::open().map_err(|err| err.to_string())?;
    match tc::delete_qdisc(&mut node, index, parent) {
        Err(err) if !err.is_not_found() => Err(err.to_string()),
        _ => Ok(()),
    }
}

/// The filter that sends everything that the veth's end receives out of the ifb.
fn redirect(port: &Link, ifb: &Link) -> Filter {
    Filter {
        index: port.index,
        parent: INGRESS_HANDLE,
        priority: 1,
        protocol: tc::PROTOCOL_ALL,
        words: Vec::new(),
        class: tc::handle(1, 1),
        redirect: Some(ifb.index),
    }
}

/// Makes all that ADD would in a namespace of its own, which is gone with the end of this function.
fn try_kernel(config: &BandwidthConfig) -> kernel::Result<()> {
    let mut rtnl = Rtnl::open_in(&Netns::create()?)?;
    link::add_ifb(&mut rtnl, "ifb", 0)?;
    let (lo, ifb) = (link::by_name(&mut rtnl, "lo")?, link::by_name(&mut rtnl, "ifb")?);
    let usual = Shaper::usual();
    let shapers = [config.ingress.as_ref(), config.egress.as_ref()];
    let shaper = shapers.into_iter().flatten().find(|shaper| shaper.has_subnets()).unwrap_or(&usual);
    shaper.apply(&mut rtnl, ifb.index, Address::Destination)?;
    tc::add_qdisc(
        &mut rtnl,
        &Qdisc { index: lo.index, handle: INGRESS_HANDLE, parent: INGRESS, kind: Kind::Ingress },
    )?;
    tc::add_filter(&mut rtnl, &redirect(&lo, &ifb))
}
