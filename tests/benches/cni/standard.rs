//! The usual case: ADD and DEL of one pod after the other, beside a pod that stays.

use anyhow::Result;
use kernel::netns::Netns;
use podnet_tests::bench::run::Unit;

use crate::node::Node;
use crate::peer::Kind;
use crate::session::{GAP, Session, WARM_UP, pods, settle, turn};
use crate::shape::{Link, Shape};
use crate::{traffic, verify};

/// Iterations in which packets are sent too.
const WITH_PACKETS: usize = WARM_UP + 2;
/// After so many failures in a row a peer is left out.
const PATIENCE: usize = 3;

/// ADD and DEL of a shape by all peers that can.
pub(crate) fn measure(session: &mut Session<'_>, case: &str, shape: Shape) -> Result<()> {
    let simple =
        shape.link == Link::Bridge && !shape.v6 && !shape.masquerade && shape.ports == 0 && !shape.bandwidth;
    let nodes = session.nodes(case, &shape, |peer| match peer.kind {
        // The ways of DEL are compared in the simplest case.
        _ if peer.announces() => simple,
        Kind::Plugins => peer.has(&shape.plugins()),
        Kind::Netavark => simple,
        Kind::Floor => true,
    })?;
    measure_on(session, case, None, shape, nodes)
}

/// The same on nodes that are there, at a point of a case that grows.
pub(crate) fn measure_on(
    session: &mut Session<'_>,
    case: &str,
    point: Option<u64>,
    shape: Shape,
    mut nodes: Vec<Node>,
) -> Result<()> {
    let ifname = if shape.link == Link::Loopback { "lo" } else { "eth0" };
    let count = session.iterations(if point.is_some() { 2 } else { 1 }) + WARM_UP;
    // All pods are there before, and stay until the end: making one and taking one apart must not count.
    let spaces = (0..count).map(|_| pods(nodes.len())).collect::<Result<Vec<_>>>()?;
    // Another pod is on each node: what the first one makes for all, bridge, tables and base chains, must not count.
    let residents = pods(nodes.len())?;
    for (node, pod) in nodes.iter_mut().zip(&residents) {
        if let Err(error) = node.add(&shape.resident(node.peer.kind), pod, ifname) {
            session.fail(case, &node.peer.name.clone(), "ADD of the resident pod", &format!("{error:#}"));
        }
    }
    let mut failures = vec![0; nodes.len()];
    for (i, pods) in spaces.iter().enumerate() {
        for n in turn(i, nodes.len()) {
            if failures[n] >= PATIENCE {
                continue;
            }
            let node = &mut nodes[n];
            let pod = &pods[n];
            let name = node.peer.name.clone();
            match once(node, &shape, pod, ifname, i < WITH_PACKETS) {
                Ok(times) => {
                    failures[n] = 0;
                    if i >= WARM_UP {
                        for (operation, micros) in ["ADD", "DEL"].into_iter().zip(times) {
                            session.put(case, operation, point, &name, Unit::Microseconds, vec![micros]);
                        }
                    }
                }
                Err(error) => {
                    failures[n] += 1;
                    session.fail(case, &name, "ADD and DEL", &format!("{error:#}"));
                }
            }
        }
    }
    drop((nodes, spaces, residents));
    settle()
}

/// One ADD and one DEL, verified; their times in microseconds.
fn once(node: &mut Node, shape: &Shape, pod: &Netns, ifname: &str, packets: bool) -> Result<[f64; 2]> {
    let (mut attachment, add) = node.add(shape, pod, ifname)?;
    let mut wrong = verify::attached(node, shape, pod, &mut attachment)?;
    if packets && wrong.is_empty() {
        wrong = traffic::check(node, shape, pod, &attachment)?;
    }
    std::thread::sleep(GAP);
    let del = node.del(shape, pod, &attachment)?;
    wrong.extend(verify::gone(node, shape, pod, &attachment)?);
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok([add.micros, del.micros])
}
