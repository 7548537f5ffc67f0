//! The DHCPv4 client (RFC 2131) as a state machine: an event with its time goes in, actions come out.
//!
//! It opens no socket, reads no clock and sends nothing itself. Not here either: probing an address for
//! duplicates before it is used, which the reference does not do.

mod lease;
mod message;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use kernel::Mac;

use super::frame::{self, EVERYBODY, Packet};
use super::machine::{Action, Event};
use super::timing::{Backoff, Ms, Random, SECOND, Timing};
pub(super) use lease::Lease;
pub(super) use message::{Options, code};
use message::{Reply, Request, kind, options_for};

/// The shortest pause between two requests to renew (RFC 2131, section 4.4.5).
const RENEW_PAUSE: Ms = 60 * SECOND;

/// Who asks, and for what.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Hardware address of the pod's link.
    pub(super) mac: Mac,
    /// What goes into every message: the client's id, what is asked for and what is provided.
    pub(super) options: Options,
    /// Answers must be broadcasts: the link cannot take a unicast to an address that it does not have yet.
    pub(super) broadcast: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// DISCOVER is out.
    Selecting,
    /// The offer with these options was taken: REQUEST is out.
    Requesting {
        address: Ipv4Addr,
        server: Ipv4Addr,
        offer: Options,
    },
    /// A lease from before the daemon's start is being confirmed (INIT-REBOOT).
    Confirming,
    Bound,
    Renewing,
    Rebinding,
    /// Failed, expired or released.
    Over,
}

/// One client.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    client: Client,
    timing: Timing,
    random: Random,
    state: State,
    lease: Option<Lease>,
    xid: u32,
    backoff: Backoff,
    /// When the acquisition began.
    began: Ms,
    /// When to send again.
    next: Ms,
    /// When the exchange under way counts as unanswered.
    unanswered: Ms,
    /// The last thing that went wrong, for the error.
    refused: Option<String>,
}

impl Machine {
    /// Begins to ask for a lease.
    pub(super) fn acquire(client: Client, timing: Timing, random: Random, now: Ms) -> (Machine, Vec<Action>) {
        let mut machine = Self::new(client, timing, random, now, State::Selecting, None);
        let mut actions = Vec::new();
        machine.discover(now, &mut actions);
        (machine, actions)
    }

    /// Goes on with a lease that was had before, after asking whether it still holds. It is used meanwhile.
    pub(super) fn adopt(
        client: Client,
        timing: Timing,
        random: Random,
        now: Ms,
        lease: Lease,
    ) -> (Machine, Vec<Action>) {
        let mut machine = Self::new(client, timing, random, now, State::Confirming, Some(lease));
        machine.exchange(now);
        let mut actions = Vec::new();
        machine.send(now, &mut actions);
        (machine, actions)
    }

    fn new(
        client: Client,
        timing: Timing,
        random: Random,
        now: Ms,
        state: State,
        lease: Option<Lease>,
    ) -> Self {
        Machine {
            client,
            timing,
            random,
            state,
            lease,
            xid: 0,
            backoff: Backoff::default(),
            began: now,
            next: now,
            unanswered: now,
            refused: None,
        }
    }

    /// The lease, while it is valid.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Whether answers are waited for.
    pub(super) fn listens(&self) -> bool {
        !matches!(self.state, State::Bound | State::Over)
    }

    /// When [`Event::Timer`] is due next; `None` when the machine is over.
    pub(super) fn deadline(&self) -> Option<Ms> {
        let lease = self.lease.as_ref();
        let expire = lease.map_or(Ms::MAX, |lease| lease.expire);
        Some(match self.state {
            State::Over => return None,
            State::Bound => lease.map_or(Ms::MAX, |lease| lease.renew),
            State::Renewing => self.next.min(lease.map_or(Ms::MAX, |lease| lease.rebind)),
            State::Rebinding => self.next.min(expire),
            State::Selecting | State::Requesting { .. } | State::Confirming => {
                let give_up = if lease.is_none() { self.began + self.timing.resend_timeout } else { expire };
                self.next.min(self.unanswered).min(give_up)
            }
        })
    }

    /// Takes one event.
    pub(super) fn on_event(&mut self, now: Ms, event: Event<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            _ if self.state == State::Over => {}
            Event::Timer => self.on_timer(now, &mut actions),
            Event::Packet(Packet::Dhcp4 { from, payload }) => {
                let ours = |reply: &Reply| reply.xid == self.xid && reply.mac == self.client.mac;
                if let Some(reply) = Reply::parse(payload).filter(ours) {
                    self.on_reply(now, &reply, *from, &mut actions);
                }
            }
            Event::Packet(_) | Event::LinkLocal(_) => {}
            Event::Release => {
                actions.extend(self.lease.take().map(|lease| self.release(&lease)));
                self.state = State::Over;
            }
        }
        actions
    }

    fn on_timer(&mut self, now: Ms, actions: &mut Vec<Action>) {
        if let Some(lease) = &self.lease {
            if now >= lease.expire {
                self.lease = None;
                self.state = State::Over;
                actions.push(Action::Expired);
                return;
            }
            let (renew, rebind) = (lease.renew, lease.rebind);
            match self.state {
                State::Bound | State::Renewing if now >= rebind => {
                    actions.push(Action::Note("renewal time expired, rebinding".into()));
                    self.enter(State::Rebinding, now, actions);
                    return;
                }
                State::Bound if now >= renew => {
                    actions.push(Action::Note("renewing lease".into()));
                    self.enter(State::Renewing, now, actions);
                    return;
                }
                State::Confirming if now >= self.unanswered => {
                    // No server answers: the lease may be used to its end (RFC 2131, section 3.2).
                    self.state = State::Bound;
                    return;
                }
                State::Bound => return,
                _ => {}
            }
        } else if now >= self.began + self.timing.resend_timeout {
            self.state = State::Over;
            let why = self.refused.take().unwrap_or_else(|| "no server answered".into());
            actions.push(Action::Failed(format!("no more tries: {why}")));
            return;
        }
        if now >= self.unanswered && matches!(self.state, State::Selecting | State::Requesting { .. }) {
            if matches!(self.state, State::Requesting { .. }) {
                self.refused = Some("the server made an offer and then fell silent".into());
            }
            self.discover(now, actions);
        } else if now >= self.next {
            self.send(now, actions);
        }
    }

    fn on_reply(&mut self, now: Ms, reply: &Reply, from: Mac, actions: &mut Vec<Action>) {
        let server = reply.options.address(code::SERVER);
        let expected = match &self.state {
            State::Requesting { server, .. } => Some(*server),
            State::Renewing => self.lease.as_ref().and_then(|lease| lease.server),
            _ => None,
        };
        match (&self.state, reply.kind) {
            (State::Selecting, kind::OFFER) if lease::usable(reply.yiaddr) => {
                let Some(server) = server else { return };
                let offer = reply.options.clone();
                self.state = State::Requesting { address: reply.yiaddr, server, offer };
                self.unanswered = now + self.timing.timeout;
                self.send(now, actions);
            }
            (State::Selecting | State::Bound, _) => {}
            (_, kind::ACK | kind::NAK) if expected.is_some() && server.is_some() && server != expected => {}
            (_, kind::ACK) => self.on_ack(now, reply, from, actions),
            (_, kind::NAK) => {
                let words = reply.options.text(code::MESSAGE);
                let words = words.map(|words| format!(": {}", words.escape_debug())).unwrap_or_default();
                let refused = format!("the server refused the request{words}");
                actions.push(Action::Note(refused.clone()));
                self.refused = Some(refused);
                // What is held stays in use until another address takes its place or it expires.
                self.state = State::Selecting;
                if self.lease.is_some() {
                    (self.began, self.backoff) = (now, Backoff::default());
                    self.discover(now, actions);
                } else {
                    self.next = now + self.backoff.pause(&self.timing, &mut self.random);
                    self.unanswered = self.next;
                }
            }
            _ => {}
        }
    }

    fn on_ack(&mut self, now: Ms, ack: &Reply, from: Mac, actions: &mut Vec<Action>) {
        let offer = match &self.state {
            State::Requesting { offer, .. } => Some(offer),
            _ => self.lease.as_ref().map(|lease| &lease.options),
        };
        match Lease::new(ack, offer, from, now) {
            Ok(lease) => {
                self.lease = Some(lease);
                self.state = State::Bound;
                self.refused = None;
                actions.push(Action::Bound);
            }
            Err(why) if self.lease.is_none() => {
                // The server counts it as ours.
                if let (Some(server), true) = (ack.options.address(code::SERVER), lease::usable(ack.yiaddr)) {
                    actions.push(self.release_of(ack.yiaddr, server, from));
                }
                self.state = State::Over;
                actions.push(Action::Failed(why));
            }
            Err(why) => actions.push(Action::Note(why)),
        }
    }

    /// A new exchange from the start.
    fn discover(&mut self, now: Ms, actions: &mut Vec<Action>) {
        self.state = State::Selecting;
        self.exchange(now);
        self.send(now, actions);
    }

    fn enter(&mut self, state: State, now: Ms, actions: &mut Vec<Action>) {
        self.state = state;
        (self.began, self.backoff) = (now, Backoff::default());
        self.exchange(now);
        self.send(now, actions);
    }

    fn exchange(&mut self, now: Ms) {
        self.xid = self.random.next();
        self.unanswered = now + self.timing.timeout;
    }

    /// Sends the message of the present state and decides when to send it again.
    fn send(&mut self, now: Ms, actions: &mut Vec<Action>) {
        let held = self.lease.as_ref();
        let mut options =
            options_for(if self.state == State::Selecting { kind::DISCOVER } else { kind::REQUEST });
        let (mut from, mut to) = (Ipv4Addr::UNSPECIFIED, EVERYBODY);
        match &self.state {
            State::Requesting { address, server, .. } => {
                options.set(code::REQUESTED, address.octets());
                options.set(code::SERVER, server.octets());
            }
            State::Selecting | State::Confirming => {
                // After a refusal the same address is still the best one to hope for.
                if let Some(lease) = held {
                    options.set(code::REQUESTED, lease.address.ip().octets());
                }
            }
            State::Renewing | State::Rebinding => {
                let Some(lease) = held else { return };
                from = lease.address.ip();
                if let (State::Renewing, Some(server)) = (&self.state, lease.server) {
                    to = (lease.hop, server);
                }
            }
            State::Bound | State::Over => return,
        }
        options.fill(&self.client.options);
        let until = match (&self.state, held) {
            (State::Renewing, Some(lease)) => lease.rebind,
            (State::Rebinding, Some(lease)) => lease.expire,
            _ => now,
        };
        self.next = now
            + match self.state {
                State::Renewing | State::Rebinding => (until.saturating_sub(now) / 2).max(RENEW_PAUSE),
                _ => self.backoff.pause(&self.timing, &mut self.random),
            };
        let request = Request {
            xid: self.xid,
            secs: u16::try_from((now - self.began.min(now)) / SECOND).unwrap_or(u16::MAX),
            // An address that the link has can be reached by unicast.
            broadcast: self.client.broadcast && from.is_unspecified(),
            ciaddr: from,
            mac: self.client.mac,
            options,
        };
        actions.push(Action::Send(frame::dhcp4((self.client.mac, from), to, &request.to_bytes())));
    }

    fn release(&mut self, lease: &Lease) -> Action {
        let server = lease.server.unwrap_or(Ipv4Addr::BROADCAST);
        self.release_of(lease.address.ip(), server, lease.hop)
    }

    fn release_of(&mut self, address: Ipv4Addr, server: Ipv4Addr, hop: Mac) -> Action {
        let mut options = options_for(kind::RELEASE);
        options.set(code::SERVER, server.octets());
        if let Some(id) = self.client.options.get(code::CLIENT_ID) {
            options.set(code::CLIENT_ID, id);
        }
        let request = Request {
            xid: self.random.next(),
            secs: 0,
            broadcast: false,
            ciaddr: address,
            mac: self.client.mac,
            options,
        };
        let to = if server.is_broadcast() { EVERYBODY } else { (hop, server) };
        Action::Send(frame::dhcp4((self.client.mac, address), to, &request.to_bytes()))
    }
}
