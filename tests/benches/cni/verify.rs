//! What the kernel has to say after an ADD and after a DEL. Each function gives what is wrong.

use kernel::link;
use kernel::netns::Netns;
use kernel::route::{self, Family};
use kernel::{Rtnl, addr, tc};

use anyhow::Result;

use crate::attachment::Attachment;
use crate::node::Node;
use crate::peer::Kind;
use crate::shape::{BRIDGE, Link, NETWORK, PARENT, Shape};

/// After an ADD: link, addresses, default routes in the pod; the other end on the node. Notes the latter's index.
pub(crate) fn attached(
    node: &Node,
    shape: &Shape,
    pod: &Netns,
    attachment: &mut Attachment,
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut inside = Rtnl::open_in(pod)?;
    let link = match link::by_name(&mut inside, &attachment.ifname) {
        Ok(link) => link,
        Err(error) if error.is_not_found() => return Ok(vec!["no link in the pod".into()]),
        Err(error) => return Err(error.into()),
    };
    if !link.up {
        wrong.push("the pod's link is down".into());
    }
    let addresses = addr::list(&mut inside, Some(link.index))?;
    if shape.link == Link::Loopback {
        if !addresses.iter().any(|address| address.net.ip().is_loopback()) {
            wrong.push("loopback has no address".into());
        }
        return Ok(wrong);
    }
    let families = if shape.v6 { 2 } else { 1 };
    if attachment.nets.len() != families {
        wrong.push(format!("{} addresses instead of {families}", attachment.nets.len()));
    }
    for net in &attachment.nets {
        match addresses.iter().find(|address| address.net.ip() == net.ip()) {
            None => wrong.push(format!("the pod has no {net}")),
            Some(address) if address.is_tentative() => wrong.push(format!("{net} is tentative")),
            Some(_) => {}
        }
    }
    for gateway in shape.gateways() {
        let family = Family::of(gateway);
        let default = |route: &route::Route| {
            route.dst.is_none() && route.oif == Some(link.index) && route.gateway == Some(gateway)
        };
        if !route::list(&mut inside, family)?.iter().any(default) {
            wrong.push(format!("no default route by {gateway}"));
        }
    }
    let mut outside = Rtnl::open_in(&node.netns)?;
    attachment.near = link.link;
    let Some(near) = link.link else {
        wrong.push("the pod's link has no other end".into());
        return Ok(wrong);
    };
    let near = link::by_index(&mut outside, near)?;
    match shape.link {
        Link::Macvlan => {
            if link.kind.as_deref() != Some("macvlan") || near.name != PARENT {
                wrong.push(format!("a {:?} on {}", link.kind, near.name));
            }
        }
        Link::Bridge => {
            let bridge = link::by_name(&mut outside, BRIDGE)?.index;
            if near.master != Some(bridge) {
                wrong.push(format!("{} is no port of {BRIDGE}", near.name));
            }
        }
        Link::Ptp | Link::Loopback => {
            let routes = route::list(&mut outside, Family::V4)?;
            let to_pod = |route: &route::Route| {
                route.oif == Some(near.index)
                    && attachment.nets.iter().any(|net| route.dst.is_some_and(|dst| dst.ip() == net.ip()))
            };
            if !routes.iter().any(to_pod) {
                wrong.push("the node has no route to the pod".into());
            }
        }
    }
    if !near.up {
        wrong.push(format!("{} is down", near.name));
    }
    if shape.bandwidth && shapers(&mut outside)? < 2 {
        wrong.push("not shaped both ways".into());
    }
    Ok(wrong)
}

/// The number of queues on the node that limit a rate.
fn shapers(rtnl: &mut Rtnl) -> Result<usize> {
    let mut count = 0;
    for link in link::list(rtnl)? {
        let qdiscs = tc::qdiscs(rtnl, link.index)?;
        count += qdiscs.iter().filter(|q| matches!(q.kind, tc::Kind::Tbf(_) | tc::Kind::Htb { .. })).count();
    }
    Ok(count)
}

/// After a DEL: no link at either end, no reservation.
pub(crate) fn gone(node: &Node, shape: &Shape, pod: &Netns, attachment: &Attachment) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut inside = Rtnl::open_in(pod)?;
    let link = match link::by_name(&mut inside, &attachment.ifname) {
        Ok(link) => Some(link),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    match (shape.link, link) {
        (Link::Loopback, Some(link)) if !link.up => return Ok(wrong),
        (_, Some(_)) => wrong.push("the pod still has the link".into()),
        (_, None) => {}
    }
    if let (Link::Bridge | Link::Ptp, Some(near)) = (shape.link, attachment.near) {
        let mut outside = Rtnl::open_in(&node.netns)?;
        match link::by_index(&mut outside, near) {
            Ok(near) => wrong.push(format!("the node still has {}", near.name)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if node.peer.kind == Kind::Plugins {
        let directory = node.data().join(NETWORK);
        for net in attachment.nets.iter().filter(|net| directory.join(net.ip().to_string()).exists()) {
            wrong.push(format!("{} is still reserved", net.ip()));
        }
    }
    Ok(wrong)
}
