//! A wire that is held: the cable between a node's uplink and its switch, led through two TAP devices and this process.
//!
//! ```text
//!   node1/eth0 ══ node1 ⇄ step-node ── frames wait here ── step-switch ── lan0
//!   (the node)    (the switch's end, by tc mirred)          (a port of the bridge, in the place of `node1`)
//! ```
//! The node's own link, its addresses and routes are not touched. The way back is taken by [`Wire::mend`] or, at the
//! latest, by the end of this value; the TAP devices go with their descriptors.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, Result, bail};
use kernel::link::{self, Change, Port};
use kernel::tc::{self, Filter, INGRESS, Kind, Qdisc};
use kernel::{Rtnl, sysctl, tap};

use super::Side;
use crate::breaking::unless_gone;
use crate::cluster::{Cluster, Node, Space};
use crate::exit::{self, Failure};
use crate::fabric::{SWITCH, UPLINK};
use crate::look::{self, link_of, switch_of};

/// The TAP device on the node's side.
pub(crate) const TO_NODE: &str = "step-node";
/// The TAP device on the switch's side.
pub(crate) const TO_SWITCH: &str = "step-switch";
/// Longer than any frame.
const LONGEST: usize = 64 * 1024;
/// How often a neighbour is asked for, once a second: a person takes longer than the kernel's three seconds.
const PATIENCE: &str = "600";
/// Which of its questions (ip-sysctl.rst, neigh).
const QUESTIONS: [&str; 2] = ["mcast_solicit", "ucast_solicit"];

/// The held wire of a node.
pub(super) struct Wire<'c> {
    cluster: &'c Cluster,
    space: &'c Space,
    port: u32,
    /// Where the port belongs, and with what properties.
    bridge: u32,
    settings: Port,
    /// By side; none once the wire is mended.
    ends: Option<[File; 2]>,
    /// What was changed of the questions for neighbours: where, which, how it was.
    asked: Vec<(&'c Space, String, String)>,
}

impl<'c> Wire<'c> {
    /// Leads the node's wire through this process.
    ///
    /// # Errors
    /// TAP devices cannot be had, with the exit code for that; or the kernel's words. The wire is as it was then.
    pub(super) fn hold(cluster: &'c Cluster, node: &'c Node) -> Result<Wire<'c>> {
        let space = switch_of(cluster, node);
        let port = link_of(space, &node.space.name)?;
        let (Some(bridge), Some(settings)) = (port.master, port.port) else {
            bail!("{}/{} is no port of {SWITCH}", space.name, port.name)
        };
        let open = |name| space.netns.run(|| tap::open_tap(name))?;
        let ends = [open(TO_NODE), open(TO_SWITCH)].map(|end| {
            end.map_err(|err| Failure::new(exit::LACKING, format!("{}: {err} · podlab doctor", space.name)))
        });
        let [near, far] = ends;
        // From here on the end of this value takes back whatever there is.
        let mut wire = Wire {
            cluster,
            space,
            port: port.index,
            bridge,
            settings,
            ends: Some([near?, far?]),
            asked: Vec::new(),
        };
        wire.lead().with_context(|| format!("hold the wire of {}", node.space.name))?;
        Ok(wire)
    }

    fn lead(&mut self) -> Result<()> {
        let mut rtnl = Rtnl::open_in(&self.space.netns)?;
        let near = link::by_name(&mut rtnl, TO_NODE)?.index;
        let far = link::by_name(&mut rtnl, TO_SWITCH)?.index;
        redirect(&mut rtnl, near, self.port)?;
        let up = Change { up: Some(true), ..Change::default() };
        link::set(&mut rtnl, near, &up)?;
        link::set(&mut rtnl, far, &up)?;
        self.ask_patiently()?;
        redirect(&mut rtnl, self.port, near)?;
        link::set(&mut rtnl, self.port, &Change { master: Some(0), ..Change::default() })?;
        link::set(&mut rtnl, far, &Change { master: Some(self.bridge), ..Change::default() })?;
        Ok(())
    }

    /// Whoever is on this network asks for neighbours until a person has let the question go by.
    fn ask_patiently(&mut self) -> Result<()> {
        let cluster = self.cluster;
        let pods = cluster.pods.iter().filter(|_| cluster.mode.on_lan());
        let nodes = cluster.nodes.iter().map(|node| (&node.space, UPLINK));
        let all =
            nodes.chain(pods.map(|pod| (&pod.space, pod.ifname.as_str()))).chain([(self.space, SWITCH)]);
        for (space, link) in all {
            for question in QUESTIONS {
                let path = format!("net/ipv4/neigh/{link}/{question}");
                let change = || -> kernel::Result<String> {
                    let was = sysctl::read(&path)?;
                    sysctl::write(&path, PATIENCE).map(|()| was)
                };
                let was = space.netns.run(change)?.with_context(|| space.name.clone())?;
                self.asked.push((space, path, was.trim().to_owned()));
            }
        }
        Ok(())
    }

    /// The descriptors of both sides, to be waited on.
    pub(super) fn ends(&self) -> Option<&[File; 2]> {
        self.ends.as_ref()
    }

    /// A frame that has come from that side; none when there is no more.
    ///
    /// # Errors
    /// The kernel's words.
    pub(super) fn receive(&self, from: Side) -> Result<Option<Vec<u8>>> {
        let Some(ends) = &self.ends else { return Ok(None) };
        let mut frame = vec![0; LONGEST];
        match kernel::uninterrupted(|| (&ends[from.index()]).read(&mut frame)) {
            Ok(bytes) => {
                frame.truncate(bytes);
                Ok(Some(frame))
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(err) => Err(err).context("read from the held wire"),
        }
    }

    /// Sends a frame on to the other side.
    ///
    /// # Errors
    /// The kernel's words.
    pub(super) fn send(&self, to: Side, frame: &[u8]) -> Result<()> {
        let Some(ends) = &self.ends else { return Ok(()) };
        let sent = kernel::uninterrupted(|| (&ends[to.index()]).write(frame));
        sent.map(drop).context("write to the held wire")
    }

    /// Puts everything back as it was. Once is enough; again does nothing.
    ///
    /// # Errors
    /// What could not be put back; the rest is.
    pub(super) fn mend(&mut self) -> Result<()> {
        if self.ends.take().is_none() {
            return Ok(());
        }
        let mut failed: Vec<String> = Vec::new();
        let mut note = |what: &str, done: Result<()>| {
            failed.extend(done.err().map(|err| format!("{what}: {err:#}")));
        };
        match Rtnl::open_in(&self.space.netns) {
            Err(err) => note("the switch", Err(err.into())),
            Ok(mut rtnl) => {
                note("redirect", unless_none(tc::delete_qdisc(&mut rtnl, self.port, INGRESS)));
                let change = Change { master: Some(self.bridge), ..Change::default() };
                note("port", link::set(&mut rtnl, self.port, &change).map_err(Into::into));
                note("port", link::set_port(&mut rtnl, self.port, &self.settings).map_err(Into::into));
            }
        }
        for (space, path, was) in self.asked.drain(..).rev() {
            let done = space.netns.run(|| sysctl::write(&path, &was)).and_then(|written| written);
            note(&space.name, done.map_err(Into::into));
        }
        note("neighbours", look::forget_silence(self.cluster));
        if failed.is_empty() { Ok(()) } else { bail!("the wire is not as it was: {}", failed.join("; ")) }
    }
}

impl Drop for Wire<'_> {
    /// For all ways out that are none of the usual ones; there is nobody to tell.
    fn drop(&mut self) {
        let _ = self.mend();
    }
}

/// It was not there yet.
fn unless_none(deleted: kernel::Result<()>) -> Result<()> {
    match deleted {
        Err(err) if err.errno() == Some(nix::libc::EINVAL) => Ok(()),
        other => unless_gone(other),
    }
}

/// What comes in on a link is sent out of another one instead, before anything else sees it.
fn redirect(rtnl: &mut Rtnl, from: u32, to: u32) -> Result<()> {
    let handle = tc::handle(0xffff, 0);
    tc::add_qdisc(rtnl, &Qdisc { index: from, handle, parent: INGRESS, kind: Kind::Ingress })?;
    let filter = Filter {
        index: from,
        parent: handle,
        priority: 1,
        protocol: tc::PROTOCOL_ALL,
        words: Vec::new(),
        class: tc::handle(1, 1),
        redirect: Some(to),
    };
    Ok(tc::add_filter(rtnl, &filter)?)
}
