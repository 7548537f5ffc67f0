//! One attachment of the daemon: its state machines, the socket while they listen, and who waits for them.
//!
//! It answers nobody and writes no file: the daemon looks at it after each step.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use cni::{CniResult, Dns};
use ipnetwork::IpNetwork;

use super::pod::{Pod, Trouble, Wire};
use super::{Settings, log};
use crate::ipam::dhcp::config::Mode;
use crate::ipam::dhcp::frame::{self, SERVER4};
use crate::ipam::dhcp::hash::fnv128;
use crate::ipam::dhcp::machine::{Action, Event};
use crate::ipam::dhcp::rpc::{Key, Wish};
use crate::ipam::dhcp::state::Entry;
use crate::ipam::dhcp::timing::{Ms, Random, SECOND};
use crate::ipam::dhcp::{v4, v6};

/// How long a link may take to carry frames before the first message is sent anyway.
const WARMING: Ms = 2 * SECOND;
/// How often link and link-local address are looked at while they are waited for.
const LOOK: Ms = 20;
/// The largest frame that an answer comes in.
const FRAME: usize = 4096;

/// What becomes of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its link does not carry frames yet.
    Warming { until: Ms },
    /// It is acquiring or holding leases.
    Running,
    /// It holds none any more. The text says why.
    Over(String),
}

/// One attachment.
pub(super) struct Attachment {
    pub(super) entry: Entry,
    pub(super) phase: Phase,
    /// The connections that wait for the lease.
    pub(super) waiting: Vec<u64>,
    /// A lease came or changed since the daemon last looked.
    pub(super) changed: bool,
    /// The lease cannot be had. The text says why.
    pub(super) failed: Option<String>,
    /// The connection that asked for it has been answered.
    pub(super) answered: bool,
    broadcast: bool,
    v4: Option<v4::Machine>,
    v6: Option<v6::Machine>,
    wire: Option<Wire>,
    /// When to look at the link again.
    look: Ms,
}

impl Attachment {
    /// Begins to acquire.
    ///
    /// # Errors
    /// The pod or its link cannot be reached.
    pub(super) fn acquire(
        settings: &Settings,
        key: Key,
        netns: String,
        wish: Wish,
        now: Ms,
    ) -> Result<Attachment, Trouble> {
        let mut pod = Pod::open(&settings.prefixed(&netns), &key.ifname)?;
        pod.prepare(wish.mode != Mode::Dhcp4)?;
        let Some(mac) = pod.link.mac else {
            return Err(Trouble::Refused(format!("link {:?} has no Ethernet address", key.ifname)));
        };
        let index = pod.link.index;
        let entry = Entry { key, wish, netns, netns_id: pod.id, index, mac, v4: None, v6: None };
        let broadcast = settings.flags.broadcast || is_shared(&pod);
        let wire = Some(pod.listen()?);
        let phase = Phase::Warming { until: now + WARMING };
        Ok(Attachment { wire, broadcast, ..Attachment::new(entry, phase, now) })
    }

    /// Goes on with what a daemon before this one had.
    ///
    /// # Errors
    /// The pod is gone, or is another one.
    pub(super) fn adopt(
        settings: &Settings,
        entry: Entry,
        random: &mut Random,
        now: Ms,
    ) -> Result<Attachment, Trouble> {
        let mut attachment = Attachment::new(entry, Phase::Running, now);
        attachment.answered = true;
        match attachment.open_wire(settings) {
            // What is refused now may be had when the machines ask again.
            Err(Trouble::Refused(text)) => log(&attachment.entry.key, &text),
            outcome => outcome?,
        }
        if let Some(wire) = &attachment.wire {
            attachment.broadcast = settings.flags.broadcast || is_shared(&wire.pod);
        }
        let timing = settings.flags.timing;
        let (client4, client6) = attachment.clients(settings);
        if let Some(lease) = attachment.entry.v4.clone() {
            let (machine, actions) = v4::Machine::adopt(client4, timing, random.fork(), now, lease);
            attachment.v4 = Some(machine);
            attachment.act(settings, actions);
        }
        if let Some(lease) = attachment.entry.v6.clone() {
            let (machine, actions) = v6::Machine::adopt(client6, timing, random.fork(), now, lease);
            attachment.v6 = Some(machine);
            attachment.act(settings, actions);
        }
        Ok(attachment)
    }

    fn new(entry: Entry, phase: Phase, now: Ms) -> Attachment {
        Attachment {
            entry,
            phase,
            waiting: Vec::new(),
            changed: false,
            failed: None,
            answered: false,
            broadcast: false,
            v4: None,
            v6: None,
            wire: None,
            look: now,
        }
    }

    fn clients(&self, settings: &Settings) -> (v4::Client, v6::Client) {
        let mac = self.entry.mac;
        let options = self.entry.wish.options.clone();
        let source = match self.entry.wish.mode {
            Mode::Slaac => v6::Source::Slaac,
            Mode::Dual => v6::Source::Router,
            Mode::Dhcp4 | Mode::Dhcp6 => v6::Source::Dhcp,
        };
        let Key { network, container_id, ifname } = &self.entry.key;
        // Each pod is a client of its own: a DUID of type UUID (RFC 6355) from the machine and the attachment, or
        // without a machine id one of the pod's hardware address.
        let duid = match settings.machine_id() {
            Some(id) => {
                let uuid = fnv128(&[&id, network, container_id, ifname]);
                [&[0, 4][..], &uuid.to_be_bytes()].concat()
            }
            None => [&[0, 3, 0, 1][..], &mac.0].concat(),
        };
        let iaid = fnv128(&[ifname]) as u32;
        (v4::Client { mac, options, broadcast: self.broadcast }, v6::Client { mac, duid, iaid, source })
    }

    /// Whether the leases are all there.
    pub(super) fn is_bound(&self) -> bool {
        let wants = self.entry.wish.mode;
        let v4 = wants == Mode::Dhcp6 || wants == Mode::Slaac || self.entry.v4.is_some();
        let v6 = wants == Mode::Dhcp4 || self.entry.v6.is_some();
        self.phase == Phase::Running && v4 && v6
    }

    /// Whether the pod is still the one that the lease was had for.
    pub(super) fn is_same_pod(&self, settings: &Settings, netns: &str) -> bool {
        Pod::open(&settings.prefixed(netns), &self.entry.key.ifname).is_ok_and(|pod| self.is_same(&pod))
    }

    /// A link's index is not given again in its namespace. Its hardware address may change: a later plugin of the chain
    /// may have set one.
    fn is_same(&self, pod: &Pod) -> bool {
        pod.id == self.entry.netns_id && pod.link.index == self.entry.index
    }

    /// The socket to poll.
    pub(super) fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    /// When [`Attachment::on_timer`] is due.
    pub(super) fn deadline(&self) -> Ms {
        let machines = [
            self.v4.as_ref().and_then(v4::Machine::deadline),
            self.v6.as_ref().and_then(v6::Machine::deadline),
        ];
        let machines = machines.into_iter().flatten().min().unwrap_or(Ms::MAX);
        let looking = self.v6.as_ref().is_some_and(v6::Machine::wants_link_local);
        match self.phase {
            Phase::Over(_) => Ms::MAX,
            Phase::Warming { until } => self.look.min(until),
            Phase::Running if looking => self.look.min(machines),
            Phase::Running => machines,
        }
    }

    /// Does what is due.
    pub(super) fn on_timer(&mut self, settings: &Settings, random: &mut Random, now: Ms) {
        if let Phase::Warming { until } = self.phase {
            let running = self.wire.as_mut().is_some_and(|wire| wire.pod.is_running());
            if running || now >= until {
                self.begin(settings, random, now);
            }
            self.look = now + LOOK;
            return;
        }
        if now >= self.look && self.v6.as_ref().is_some_and(v6::Machine::wants_link_local) {
            self.look = now + LOOK;
            if let Some(address) = self.wire.as_mut().and_then(|wire| wire.pod.link_local()) {
                self.tell_v6(settings, now, Event::LinkLocal(address));
            }
        }
        if self.v4.as_ref().and_then(v4::Machine::deadline).is_some_and(|at| now >= at) {
            self.tell_v4(settings, now, Event::Timer);
        }
        if self.v6.as_ref().and_then(v6::Machine::deadline).is_some_and(|at| now >= at) {
            self.tell_v6(settings, now, Event::Timer);
        }
        self.close_if_quiet();
    }

    fn begin(&mut self, settings: &Settings, random: &mut Random, now: Ms) {
        self.phase = Phase::Running;
        let (timing, mode) = (settings.flags.timing, self.entry.wish.mode);
        let (client4, client6) = self.clients(settings);
        if matches!(mode, Mode::Dhcp4 | Mode::Dual) {
            let (machine, actions) = v4::Machine::acquire(client4, timing, random.fork(), now);
            self.v4 = Some(machine);
            self.act(settings, actions);
        }
        if mode != Mode::Dhcp4 {
            let (machine, actions) = v6::Machine::acquire(client6, timing, random.fork(), now);
            self.v6 = Some(machine);
            self.act(settings, actions);
        }
    }

    /// Reads what has come on the socket.
    pub(super) fn on_readable(&mut self, settings: &Settings, now: Ms) {
        let mut buffer = [0; FRAME];
        // A flood must not keep the daemon from its other pods.
        for _ in 0..64 {
            let Some(received) = self.wire.as_ref().map(|wire| wire.socket.recv(&mut buffer)) else { break };
            match received {
                Ok(Some(frame)) if frame.outgoing => {}
                Ok(Some(frame)) => {
                    if let Some(packet) = frame::parse(&buffer[..frame.len], frame.csum_not_ready) {
                        self.tell_v4(settings, now, Event::Packet(&packet));
                        self.tell_v6(settings, now, Event::Packet(&packet));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    // ENETDOWN and the like: the timers find out what has become of the link.
                    log(&self.entry.key, &error.to_string());
                    self.wire = None;
                }
            }
        }
        self.close_if_quiet();
    }

    fn tell_v4(&mut self, settings: &Settings, now: Ms, event: Event<'_>) {
        if let Some(machine) = &mut self.v4 {
            let actions = machine.on_event(now, event);
            self.act(settings, actions);
        }
    }

    fn tell_v6(&mut self, settings: &Settings, now: Ms, event: Event<'_>) {
        if let Some(machine) = &mut self.v6 {
            let actions = machine.on_event(now, event);
            self.act(settings, actions);
        }
    }

    fn act(&mut self, settings: &Settings, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Note(text) => log(&self.entry.key, &text),
                Action::Failed(why) => self.failed = Some(why),
                Action::Send(frame) => self.send(settings, &frame),
                Action::Bound => self.take_over(settings),
                Action::Expired => self.expire(settings),
            }
        }
    }

    fn send(&mut self, settings: &Settings, frame: &[u8]) {
        match self.open_wire(settings) {
            Ok(()) => {}
            Err(Trouble::Gone(text)) => {
                self.end(format!("the interface no longer exists: {text}"));
                return;
            }
            Err(Trouble::Refused(text)) => {
                log(&self.entry.key, &text);
                return;
            }
        }
        // A frame that does not get out is like one that gets lost: it is sent again in time.
        if let Some(Err(error)) = self.wire.as_ref().map(|wire| wire.send(frame)) {
            log(&self.entry.key, &error.to_string());
            self.wire = None;
        }
    }

    /// Opens the pod's link for an exchange.
    fn open_wire(&mut self, settings: &Settings) -> Result<(), Trouble> {
        if self.wire.is_some() {
            return Ok(());
        }
        let mut wire = self.open_pod(settings)?.listen()?;
        if let (Some(machine), Some(address)) = (&mut self.v6, wire.pod.link_local()) {
            // It has nothing to say about that now: it is about to.
            let _ = machine.on_event(0, Event::LinkLocal(address));
        }
        self.wire = Some(wire);
        Ok(())
    }

    /// Opens the pod, if it is the same as ever.
    fn open_pod(&self, settings: &Settings) -> Result<Pod, Trouble> {
        let pod = Pod::open(&settings.prefixed(&self.entry.netns), &self.entry.key.ifname)?;
        if !self.is_same(&pod) {
            return Err(Trouble::Gone("the namespace or the link is another one".into()));
        }
        Ok(pod)
    }

    fn close_if_quiet(&mut self) {
        let listens = self.v4.as_ref().is_some_and(v4::Machine::listens)
            || self.v6.as_ref().is_some_and(v6::Machine::listens);
        if self.phase == Phase::Running && !listens {
            self.wire = None;
        }
    }

    /// Takes over what the machines hold now; the link follows when it was configured before.
    fn take_over(&mut self, settings: &Settings) {
        let before = self.result();
        self.entry.v4 = self.v4.as_ref().and_then(|machine| machine.lease().cloned());
        self.entry.v6 = self.v6.as_ref().and_then(|machine| machine.lease().cloned());
        self.changed = true;
        let after = self.result();
        let same = before.ips == after.ips && before.routes == after.routes;
        if !self.answered || same {
            return;
        }
        log(&self.entry.key, &format!("the lease changed to {}", addresses(&after)));
        let errors = match self.open_pod(settings) {
            Ok(mut pod) => pod.change(&before, &after),
            Err(Trouble::Gone(text) | Trouble::Refused(text)) => vec![text],
        };
        errors.iter().for_each(|error| log(&self.entry.key, error));
    }

    fn expire(&mut self, settings: &Settings) {
        let before = self.result();
        self.entry.v4 = self.v4.as_ref().and_then(|machine| machine.lease().cloned());
        self.entry.v6 = self.v6.as_ref().and_then(|machine| machine.lease().cloned());
        let after = self.result();
        let gone: Vec<IpNetwork> = before.ips.iter().map(|ip| ip.address).collect();
        let gone: Vec<IpNetwork> =
            gone.into_iter().filter(|address| after.ips.iter().all(|ip| ip.address != *address)).collect();
        let alone = after.ips.is_empty();
        let what = if alone { "bringing interface DOWN" } else { "removing its address" };
        log(&self.entry.key, &format!("lease expired, {what}"));
        match self.open_pod(settings) {
            Ok(mut pod) => {
                if let Err(error) = pod.expire(&gone, alone) {
                    log(&self.entry.key, &error);
                }
            }
            Err(Trouble::Gone(text) | Trouble::Refused(text)) => log(&self.entry.key, &text),
        }
        if alone {
            self.end("the lease expired".into());
        } else {
            self.changed = true;
        }
    }

    fn end(&mut self, why: String) {
        log(&self.entry.key, &format!("{why}, terminating lease maintenance"));
        if !self.answered {
            self.failed = Some(why.clone());
        }
        self.phase = Phase::Over(why);
        (self.v4, self.v6, self.wire) = (None, None, None);
        self.changed = true;
    }

    /// Gives the leases back, as well as that can be done.
    pub(super) fn release(&mut self, settings: &Settings, now: Ms) {
        log(&self.entry.key, "releasing lease");
        let reached = self.open_wire(settings).is_ok();
        let v4 = self.v4.as_mut().map(|machine| machine.on_event(now, Event::Release)).unwrap_or_default();
        let v6 = self.v6.as_mut().map(|machine| machine.on_event(now, Event::Release)).unwrap_or_default();
        for action in v4.into_iter().chain(v6) {
            let Action::Send(frame) = action else { continue };
            let sent = match (&self.wire, reached) {
                (Some(wire), true) => wire.send(&frame).map_err(|error| error.to_string()),
                _ => release_from_here(&frame),
            };
            if let Err(error) = sent {
                log(&self.entry.key, &format!("failed to release DHCP lease: {error}"));
            }
        }
        (self.v4, self.v6, self.wire) = (None, None, None);
    }

    /// The result of ADD.
    pub(super) fn result(&self) -> CniResult {
        let Entry { v4, v6, wish, .. } = &self.entry;
        let mut result = CniResult::default();
        let mut dns = Dns::default();
        if let Some(lease) = v4 {
            result.ips.push(lease.ip_config());
            result.routes.extend(lease.routes());
            dns = lease.dns();
        }
        if let Some(lease) = v6 {
            result.ips.push(lease.ip_config());
            result.routes.extend(lease.routes());
            let more = lease.dns();
            dns.nameservers.extend(more.nameservers);
            let new: Vec<String> =
                more.search.into_iter().filter(|name| !dns.search.contains(name)).collect();
            dns.search.extend(new);
        }
        if wish.priority != 0 {
            for route in &mut result.routes {
                route.priority = Some(wish.priority);
            }
        }
        result.dns = dns;
        result
    }
}

/// Whether the link shares its hardware address with others, so that only a broadcast reaches it before it has an
/// address.
fn is_shared(pod: &Pod) -> bool {
    pod.link.kind.as_deref() == Some("ipvlan")
}

/// The addresses of a result, for the log.
pub(super) fn addresses(result: &CniResult) -> String {
    let addresses: Vec<String> = result.ips.iter().map(|ip| ip.address.to_string()).collect();
    addresses.join(", ")
}

/// Sends a DHCPv4 release from the daemon's own namespace, when the pod's link is gone already: the server knows the
/// lease by what is in the message, not by where it comes from.
fn release_from_here(frame: &[u8]) -> Result<(), String> {
    // Ethernet 14, IPv4 20 with the destination at its end, UDP 8.
    let server = frame.get(30..34).and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(Ipv4Addr::from);
    let (Some(server), Some(payload), Some([8, 0])) = (server, frame.get(42..), frame.get(12..14)) else {
        return Err("the interface is gone".into());
    };
    if server.is_broadcast() {
        return Err("the interface is gone and the server is not known".into());
    }
    let send = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(payload, (server, SERVER4));
    send().map(drop).map_err(|error| format!("from the node to {server}: {error}"))
}

impl Settings {
    /// A path as the daemon sees it.
    pub(super) fn prefixed(&self, path: &str) -> PathBuf {
        format!("{}{path}", self.flags.host_prefix).into()
    }
}
