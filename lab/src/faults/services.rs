//! Services: nobody behind them, the wrong port, pods that have gone, answers that take another way.
//!
//! The first two change what the lab wants, as a person with an editor does; the others what a node's rules say, as a
//! proxy that lags behind does. When pods or services change, the lab puts its rules right by itself.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, bail};
use kernel::Nfnl;

use super::{Act, Fault, always};
use crate::breaking::Work;
use crate::cluster::{Cluster, Node};
use crate::controller::work::Order;
use crate::services::model::{Backed, Service, TrafficPolicy};
use crate::services::ruleset::{Chain, Ruleset, Step, ruleset};
use crate::services::{self, apply};
use crate::supervisor::Lab;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "svc-selector",
        does: "the selector of a service chooses no pod",
        seen: "REFUSED at the service, which has no endpoints; every pod answers at its own address",
        amount: None,
        unless: always,
        act: Act::Service(selector),
    },
    Fault {
        id: "svc-targetport",
        does: "a service leads to a port of its pods that nobody listens on",
        seen: "REFUSED at the service though it has endpoints; the pods send the RST",
        amount: None,
        unless: always,
        act: Act::Service(target_port),
    },
    Fault {
        id: "svc-stale-endpoint",
        does: "the rules of a service lead one connection in turn to a pod that is gone",
        seen: "one connection of so many pods fails, always the next in turn",
        amount: None,
        unless: always,
        act: Act::Service(stale_endpoint),
    },
    Fault {
        id: "no-return-snat",
        does: "nodes do not put their own address on what comes to a service from outside",
        seen: "from outside a node's port works only if the pod is on that node: else the answer takes another way",
        amount: None,
        unless: always,
        act: Act::Service(no_return_snat),
    },
];

/// A port that kubia does not listen on.
const WRONG_PORT: u16 = 8081;

fn selector(work: &mut Work<'_>, name: &str) -> Result<()> {
    edit(
        work,
        name,
        "selector",
        |service| {
            let nobody = [("app".to_owned(), "nobody".to_owned())].into();
            std::mem::replace(&mut service.selector, nobody)
        },
        |service, was| service.selector = was.clone(),
    )
}

fn target_port(work: &mut Work<'_>, name: &str) -> Result<()> {
    edit(
        work,
        name,
        "port",
        |service| {
            let was = service.port;
            service.port.iter_mut().for_each(|port| port.target_port = WRONG_PORT);
            was
        },
        |service, was| service.port = *was,
    )
}

/// Changes what the lab wants, and waits until its nodes do it. A service that is gone by the undo needs none.
fn edit<S: Send + 'static>(
    work: &mut Work<'_>,
    name: &str,
    what: &str,
    change: impl FnOnce(&mut Service) -> S,
    back: impl Fn(&mut Service, &S) + Send + 'static,
) -> Result<()> {
    let lab = work.lab;
    let change = || {
        let saved = with_service(lab, name, change).context("no such service")?;
        let done = follow(lab);
        done.map(|()| saved)
    };
    let own = name.to_owned();
    work.change(format!("service {name}: {what}"), change, move |lab, saved| {
        with_service(lab, &own, |service| back(service, saved));
        follow(lab)?;
        services::forget_connections(&lab.cluster(), &own)
    })
}

fn with_service<T>(lab: &Lab, name: &str, edit: impl FnOnce(&mut Service) -> T) -> Option<T> {
    let mut cluster = lab.cluster_mut();
    cluster.objects.services.iter_mut().find(|service| service.name == name).map(edit)
}

fn follow(lab: &Lab) -> Result<()> {
    match lab.orders.carry_out(Order::Reconcile) {
        troubles if troubles.is_empty() => Ok(()),
        troubles => bail!(troubles.join("; ")),
    }
}

fn stale_endpoint(work: &mut Work<'_>, name: &str) -> Result<()> {
    spoil(work, name, |cluster, backed, rules| {
        let last = backed.endpoints.last().context("nobody is behind it")?;
        let gone = unused(cluster, &cluster.nodes[last.node])?;
        for step in chains(rules, &backed.service, "endpoint").flat_map(|chain| &mut chain.steps) {
            match step {
                Step::Dnat(_, to) if *to.ip() == last.address => *to = SocketAddrV4::new(gone, to.port()),
                _ => {}
            }
        }
        Ok(())
    })
}

fn no_return_snat(work: &mut Work<'_>, name: &str) -> Result<()> {
    spoil(work, name, |_, backed, rules| {
        let service = &backed.service;
        let mut marked = false;
        for chain in chains(rules, service, "external") {
            marked |= chain.steps.contains(&Step::Mark);
            chain.steps.retain(|step| *step != Step::Mark);
        }
        match (marked, service.policy) {
            (true, _) => Ok(()),
            (false, TrafficPolicy::Local) => bail!("with the local policy the source stays anyway"),
            (false, TrafficPolicy::Cluster) => bail!("it is not reached from outside · try: --type=NodePort"),
        }
    })
}

/// The chains of a service of a kind, as `services::ruleset` names them.
fn chains<'r>(rules: &'r mut Ruleset, service: &Service, kind: &str) -> impl Iterator<Item = &'r mut Chain> {
    let prefix = format!("{kind}/{}/", service.name);
    rules.chains.iter_mut().filter(move |chain| chain.name.starts_with(&prefix))
}

/// An address of a node's pods that no pod has.
fn unused(cluster: &Cluster, node: &Node) -> Result<Ipv4Addr> {
    let (_, pods) = node.v4().context("no IPv4")?;
    let (first, size) = (u32::from(pods.network()), pods.size());
    let taken = |address: Ipv4Addr| cluster.pods.iter().any(|pod| pod.addresses.contains(&address.into()));
    let mut free = (2..size - 1).rev().map(|number| Ipv4Addr::from(first + number));
    free.find(|address| !taken(*address)).context("every address is a pod's")
}

/// Has every node follow rules that are not those of its services.
fn spoil(
    work: &mut Work<'_>,
    name: &str,
    spoil: impl Fn(&Cluster, &Backed, &mut Ruleset) -> Result<()>,
) -> Result<()> {
    let lab = work.lab;
    let change = || {
        let cluster = lab.cluster();
        let all = services::backed(&cluster);
        let backed = all.iter().find(|backed| backed.service.name == name).context("no such service")?;
        let mut spoilt = Vec::new();
        for index in 0..cluster.nodes.len() {
            let mut rules = ruleset(&services::view(&cluster, index)?, &all);
            spoil(&cluster, backed, &mut rules)?;
            spoilt.push(rules);
        }
        let put = |(node, rules): (&Node, &Ruleset)| put(node, rules);
        cluster.nodes.iter().zip(&spoilt).try_for_each(put).or_else(|err| right(&cluster).and(Err(err)))
    };
    let own = name.to_owned();
    work.change("rules of services", change, move |lab, ()| {
        right(&lab.cluster())?;
        services::forget_connections(&lab.cluster(), &own)
    })
}

/// Has every node follow its services' rules.
fn right(cluster: &Cluster) -> Result<()> {
    let all = services::backed(cluster);
    let all = all.as_slice();
    cluster
        .nodes
        .iter()
        .enumerate()
        .try_for_each(|(index, node)| put(node, &ruleset(&services::view(cluster, index)?, all)))
}

fn put(node: &Node, rules: &Ruleset) -> Result<()> {
    Ok(apply::apply(&mut Nfnl::open_in(&node.space.netns)?, rules)?)
}
