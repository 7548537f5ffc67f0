//! Cases without growth that attach nothing, or once: the start of a process, peak memory, the size of the files.

use anyhow::Result;
use kernel::netns::Netns;
use podnet_tests::bench::run::Unit;

use crate::peer::{self, Kind};
use crate::session::{Session, WARM_UP, pods, turn};
use crate::shape::{Link, plain};
use crate::spawn::{Call, run};
use crate::verify;

/// A process that has next to nothing to do: CNI's VERSION, netavark's `version`, the floor's `nothing`.
pub(crate) fn start(session: &mut Session<'_>) -> Result<()> {
    let netns = Netns::create()?;
    let peers: Vec<_> = session.peers.iter().filter(|peer| !peer.announces()).cloned().collect();
    for i in 0..session.iterations(1) * 2 + WARM_UP {
        for n in turn(i, peers.len()) {
            let peer = &peers[n];
            let call = match peer.kind {
                Kind::Plugins => Call {
                    program: peer.path.join("bridge"),
                    environment: vec![("CNI_COMMAND", "VERSION".into())],
                    stdin: br#"{"cniVersion":"1.0.0"}"#.to_vec(),
                    ..Call::default()
                },
                kind => {
                    let word = if kind == Kind::Floor { "nothing" } else { "version" };
                    Call { program: peer.path.clone(), arguments: vec![word.into()], ..Call::default() }
                }
            };
            let ended = run(&netns, &call)?;
            if !ended.success {
                session.fail("start", &peer.name, "start", &ended.words());
            } else if i >= WARM_UP {
                session.put("start", "start", None, &peer.name, Unit::Microseconds, vec![ended.micros]);
            }
        }
    }
    Ok(())
}

/// The peak of the memory of one ADD and one DEL, all processes that the plugin waits for included.
pub(crate) fn memory(session: &mut Session<'_>) -> Result<()> {
    let shape = plain(Link::Bridge);
    let mut nodes = session.nodes("memory", &shape, |peer| !peer.announces())?;
    let floor = session.floor.clone();
    for i in 0..session.iterations(8) {
        for node in &mut nodes {
            let pod = pods(1)?.remove(0);
            node.memory = Some(floor.clone());
            let peer = node.peer.name.clone();
            let (mut attachment, add) = match node.add(&shape, &pod, "eth0") {
                Ok(done) => done,
                Err(error) => {
                    session.fail("memory", &peer, "ADD", &format!("{error:#}"));
                    continue;
                }
            };
            let mut wrong = verify::attached(node, &shape, &pod, &mut attachment)?;
            let del = node.del(&shape, &pod, &attachment)?;
            wrong.extend(verify::gone(node, &shape, &pod, &attachment)?);
            if !wrong.is_empty() {
                session.fail("memory", &peer, "ADD and DEL", &wrong.join("; "));
            } else if i > 0 {
                session.put("memory", "ADD", None, &peer, Unit::Kibibytes, vec![add.peak]);
                session.put("memory", "DEL", None, &peer, Unit::Kibibytes, vec![del.peak]);
            }
        }
    }
    Ok(())
}

/// The files of all plugins.
pub(crate) fn size(session: &mut Session<'_>) -> Result<()> {
    for peer in session.peers.clone() {
        if peer.kind == Kind::Plugins && !peer.announces() {
            let bytes = peer::installed_bytes(&peer.path)? as f64;
            session.put("size", "installed", None, &peer.name, Unit::Bytes, vec![bytes]);
        }
    }
    Ok(())
}
