//! Before anything is measured: every fault that the verification is to see is made once, and must be seen. A run whose
//! verification is blind fails.

use std::fs;

use anyhow::{Context, Result, ensure};
use kernel::link::{self, Change};
use kernel::netns::Netns;
use kernel::route::{self, Route};
use kernel::{Rtnl, addr};

use crate::attachment::Attachment;
use crate::node::Node;
use crate::peer::Kind;
use crate::session::{Session, pods};
use crate::shape::{GATEWAY, Link, NETWORK, Shape, plain};
use crate::{traffic, verify};

/// What is done to an attachment that is right: its name, and the change, in the pod or on the node.
type Fault = (&'static str, fn(&mut Rtnl, &mut Rtnl, u32, &Attachment) -> Result<()>);

const FAULTS: [Fault; 6] = [
    ("the pod's link is gone", |pod, _, index, _| Ok(link::delete(pod, index)?)),
    ("the pod's link is down", |pod, _, index, _| {
        Ok(link::set(pod, index, &Change { up: Some(false), ..Change::default() })?)
    }),
    ("the address is gone", |pod, _, index, of| {
        Ok(addr::delete(pod, index, *of.nets.first().context("an address")?)?)
    }),
    ("the route is gone", |pod, _, index, _| {
        let default = Route { gateway: Some(GATEWAY.into()), oif: Some(index), ..Route::default() };
        Ok(route::delete(pod, &default)?)
    }),
    ("the node's link is down", |_, node, _, of| {
        let near = of.near.context("the other end")?;
        Ok(link::set(node, near, &Change { up: Some(false), ..Change::default() })?)
    }),
    ("the node's link is no port", |_, node, _, of| {
        let near = of.near.context("the other end")?;
        Ok(link::set(node, near, &Change { master: Some(0), ..Change::default() })?)
    }),
];

/// Makes each fault and sees whether it is seen.
pub(crate) fn prove(session: &mut Session<'_>) -> Result<()> {
    let shape = plain(Link::Bridge);
    let wanted = |peer: &crate::peer::Peer| peer.kind == Kind::Floor && !peer.announces();
    let masquerade = Shape { masquerade: true, ..shape };
    let mut nodes = session.nodes("faults", &masquerade, wanted)?;
    let node = nodes.first_mut().context("the floor")?;
    for (name, fault) in FAULTS {
        let (pod, mut attachment) = attach(node, &shape)?;
        let (mut inside, mut outside) = (Rtnl::open_in(&pod)?, Rtnl::open_in(&node.netns)?);
        let index = link::by_name(&mut inside, &attachment.ifname)?.index;
        fault(&mut inside, &mut outside, index, &attachment).context(name)?;
        ensure!(!verify::attached(node, &shape, &pod, &mut attachment)?.is_empty(), "not seen: {name}");
    }
    let (pod, mut attachment) = attach(node, &shape)?;
    ensure!(!verify::gone(node, &shape, &pod, &attachment)?.is_empty(), "not seen: DEL did nothing");
    for (name, shape) in [
        ("no masquerade", masquerade),
        ("no mapped port", Shape { ports: 1, ..shape }),
        ("no mapped port of ten", Shape { ports: 10, ..shape }),
    ] {
        ensure!(!traffic::check(node, &shape, &pod, &attachment)?.is_empty(), "not seen: {name}");
    }
    for (name, shape) in
        [("no IPv6", Shape { v6: true, ..shape }), ("no rate", Shape { bandwidth: true, ..shape })]
    {
        let wrong = verify::attached(node, &shape, &pod, &mut attachment)?;
        ensure!(!wrong.is_empty(), "not seen: {name}");
    }
    node.del(&shape, &pod, &attachment)?;
    reservation_left(node, &shape, &pod, &attachment)
}

/// An attachment in which nothing is wrong.
fn attach(node: &mut Node, shape: &Shape) -> Result<(Netns, Attachment)> {
    let pod = pods(1)?.remove(0);
    let (mut attachment, _) = node.add(shape, &pod, "eth0")?;
    let wrong = verify::attached(node, shape, &pod, &mut attachment)?;
    ensure!(wrong.is_empty(), "seen, and not there: {}", wrong.join("; "));
    Ok((pod, attachment))
}

/// A reservation that DEL left.
fn reservation_left(node: &mut Node, shape: &Shape, pod: &Netns, attachment: &Attachment) -> Result<()> {
    let gone = |node: &Node| verify::gone(node, shape, pod, attachment);
    ensure!(gone(node)?.is_empty(), "seen, and not there: {}", gone(node)?.join("; "));
    let directory = node.data().join(NETWORK);
    fs::create_dir_all(&directory).context("make a directory of reservations")?;
    let ip = attachment.nets.first().context("an address")?.ip();
    fs::write(directory.join(ip.to_string()), &attachment.id).context("reserve an address")?;
    // Only plugins reserve; the floor's own ADD does not.
    node.peer.kind = Kind::Plugins;
    ensure!(!gone(node)?.is_empty(), "not seen: the address is still reserved");
    Ok(())
}
