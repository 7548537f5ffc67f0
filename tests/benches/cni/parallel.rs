//! 128 ADDs to one node, so many of them in flight at a time.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, Result};
use kernel::netns::Netns;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use podnet_tests::bench::run::Unit;

use crate::attachment::Attachment;
use crate::node::Node;
use crate::peer::Kind;
use crate::session::{Session, pods, settle, turn};
use crate::shape::{Link, Shape, plain};
use crate::spawn::{Ended, Started, start};
use crate::verify;

const IN_FLIGHT: [u64; 4] = [1, 2, 8, 32];

/// What one round gave.
struct Round {
    seconds: f64,
    done: Vec<(usize, Ended)>,
}

pub(crate) fn measure(session: &mut Session<'_>) -> Result<()> {
    let shape = plain(Link::Bridge);
    let (count, rounds) = if session.options.quick { (32, 1) } else { (128, 3) };
    for in_flight in IN_FLIGHT {
        for round in 0..rounds {
            let mut nodes = session.nodes("parallel", &shape, |peer| match peer.kind {
                Kind::Netavark => false,
                Kind::Floor => !peer.announces(),
                Kind::Plugins => !peer.announces() && peer.has(&shape.plugins()),
            })?;
            // What one peer's round leaves must not be taken apart during the next one's.
            let mut held = Vec::new();
            for n in turn(round, nodes.len()) {
                held.push(on_node(session, &shape, &mut nodes[n], count, in_flight)?);
            }
            drop((nodes, held));
            settle()?;
        }
    }
    Ok(())
}

/// One round of one peer; gives the pods.
fn on_node(
    session: &mut Session<'_>,
    shape: &Shape,
    node: &mut Node,
    count: usize,
    in_flight: u64,
) -> Result<Vec<Netns>> {
    let peer = node.peer.name.clone();
    // The bridge is made by the first pod, which does not count.
    let all = pods(count + 1)?;
    let (first, pods) = all.split_at(1);
    if let Err(error) = node.add(shape, &first[0], "eth0") {
        session.fail("parallel", &peer, "ADD", &format!("{error:#}"));
        return Ok(all);
    }
    let mut attachments: Vec<Attachment> = pods.iter().map(|_| node.attachment(shape, "eth0")).collect();
    let round = round(node, shape, pods, &attachments, in_flight as usize)?;
    let (mut errors, mut seen) = (0, BTreeSet::new());
    let mut addresses = 0;
    for (i, ended) in round.done {
        if !ended.success {
            errors += 1;
            session.fail("parallel", &peer, "ADD", &ended.words());
            continue;
        }
        let attachment = &mut attachments[i];
        if node.peer.kind == Kind::Plugins {
            attachment.took(&ended.stdout)?;
        }
        addresses += attachment.nets.len();
        seen.extend(attachment.nets.iter().map(|net| net.ip()));
        let wrong = verify::attached(node, shape, &pods[i], attachment)?;
        if !wrong.is_empty() {
            session.fail("parallel", &peer, "ADD", &wrong.join("; "));
        }
    }
    let duplicates = addresses - seen.len();
    if duplicates > 0 {
        session.fail("parallel", &peer, "ADD", &format!("{duplicates} addresses were given out twice"));
    }
    let point = Some(in_flight);
    let rate = count as f64 / round.seconds;
    session.put("parallel", "ADD", point, &peer, Unit::PodsPerSecond, vec![rate]);
    session.put("parallel", "errors", point, &peer, Unit::Mishaps, vec![f64::from(errors)]);
    session.put("parallel", "duplicates", point, &peer, Unit::Mishaps, vec![duplicates as f64]);
    Ok(all)
}

/// Starts ADDs as long as there is room, and waits for whichever ends.
fn round(
    node: &Node,
    shape: &Shape,
    pods: &[Netns],
    attachments: &[Attachment],
    in_flight: usize,
) -> Result<Round> {
    let calls = pods.iter().zip(attachments).map(|(pod, of)| node.single_add(shape, pod, of));
    let calls = calls.collect::<Result<Vec<_>>>()?;
    node.netns.run(|| {
        let mut live: HashMap<i32, (usize, Started)> = HashMap::new();
        let mut done = Vec::new();
        let mut next = 0;
        let began = Instant::now();
        while next < calls.len() || !live.is_empty() {
            while next < calls.len() && live.len() < in_flight {
                let started = start(&calls[next])?;
                live.insert(started.id(), (next, started));
                next += 1;
            }
            let (id, success) = match waitpid(None, Some(WaitPidFlag::empty())) {
                Ok(WaitStatus::Exited(id, code)) => (id, code == 0),
                Ok(WaitStatus::Signaled(id, ..)) => (id, false),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("wait for an ADD"),
            };
            let at = Instant::now();
            if let Some((i, started)) = live.remove(&id.as_raw()) {
                done.push((i, started.ended(success, at)?));
            }
        }
        Ok(Round { seconds: began.elapsed().as_secs_f64(), done })
    })?
}
