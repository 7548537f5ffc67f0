//! The IPv6 client as a state machine: router advertisements (RFC 4861), then an address of its own making (SLAAC,
//! RFC 4862) or one from DHCPv6 (RFC 8415).
//!
//! A lease of SLAAC is the prefix's lifetime: it is kept up by asking the routers again. It opens no socket, reads no
//! clock and sends nothing itself. Not here: duplicate address detection, which is the interface plugin's, and privacy
//! addresses.

mod lease;
mod message;
mod router;
#[cfg(test)]
mod tests;

use std::net::Ipv6Addr;

use kernel::Mac;

use super::frame::{self, Packet};
use super::machine::{Action, Event};
use super::timing::{Backoff, Ms, Random, SECOND, Timing};
pub(super) use lease::Lease;
use message::{Reply, Request, kind};
use router::Advertisement;

/// How long DHCPv6 waits for a router, which tells the gateway and the prefix length but is not needed. A router may
/// take 3.5 s to answer (RFC 4861, section 10).
const ROUTER_WAIT: Ms = 4 * SECOND;
/// The shortest pause between two requests to renew.
const RENEW_PAUSE: Ms = 10 * SECOND;
/// DHCPv6 status: the server does not know the address as ours.
const NO_BINDING: u16 = 3;

/// Where the address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A DHCPv6 server.
    Dhcp,
    /// The prefix that a router advertises.
    Slaac,
    /// What the router says: DHCPv6 when it sets the flag "managed", else SLAAC.
    Router,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Hardware address of the pod's link.
    pub(super) mac: Mac,
    /// The client's DUID.
    pub(super) duid: Vec<u8>,
    /// The number of its identity association.
    pub(super) iaid: u32,
    /// Where the address comes from.
    pub(super) source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Router solicitations are out, no address yet.
    AskingRouter,
    Soliciting,
    Requesting {
        server: Vec<u8>,
        address: Ipv6Addr,
    },
    Bound,
    /// Router solicitations are out to prolong an address of SLAAC.
    Refreshing,
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
    router: Option<Advertisement>,
    link_local: Option<Ipv6Addr>,
    xid: u32,
    backoff: Backoff,
    began: Ms,
    next: Ms,
    unanswered: Ms,
    refused: Option<String>,
}

impl Machine {
    /// Begins to ask for an address.
    pub(super) fn acquire(client: Client, timing: Timing, random: Random, now: Ms) -> (Machine, Vec<Action>) {
        let mut machine = Self::new(client, timing, random, now, None);
        let mut actions = Vec::new();
        machine.enter(State::AskingRouter, now, &mut actions);
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
        let state = if lease.server.is_empty() { State::Refreshing } else { State::Renewing };
        let mut machine = Self::new(client, timing, random, now, Some(lease));
        let mut actions = Vec::new();
        machine.enter(state, now, &mut actions);
        (machine, actions)
    }

    fn new(client: Client, timing: Timing, random: Random, now: Ms, lease: Option<Lease>) -> Self {
        Machine {
            client,
            timing,
            random,
            state: State::AskingRouter,
            lease,
            router: None,
            link_local: None,
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

    /// Whether it has something to say and does not know the link-local address to say it from.
    pub(super) fn wants_link_local(&self) -> bool {
        self.link_local.is_none() && self.is_dhcp()
    }

    fn is_dhcp(&self) -> bool {
        matches!(
            self.state,
            State::Soliciting | State::Requesting { .. } | State::Renewing | State::Rebinding
        )
    }

    /// When [`Event::Timer`] is due next; `None` when the machine is over.
    pub(super) fn deadline(&self) -> Option<Ms> {
        let held = |at: fn(&Lease) -> Ms| self.lease.as_ref().map_or(Ms::MAX, at);
        Some(match self.state {
            State::Over => return None,
            State::Bound => held(|lease| lease.renew),
            State::Renewing => self.next.min(held(|lease| lease.rebind)),
            State::Refreshing | State::Rebinding => self.next.min(held(|lease| lease.expire)),
            State::AskingRouter | State::Soliciting | State::Requesting { .. } => {
                self.next.min(self.unanswered).min(self.give_up())
            }
        })
    }

    /// When to stop trying: the end of what is held, else the configured time.
    fn give_up(&self) -> Ms {
        self.lease.as_ref().map_or(self.began + self.timing.resend_timeout, |lease| lease.expire)
    }

    /// Takes one event.
    pub(super) fn on_event(&mut self, now: Ms, event: Event<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            _ if self.state == State::Over => {}
            Event::Timer => self.on_timer(now, &mut actions),
            Event::Packet(Packet::Router { from, payload }) => {
                if let Some(told) = Advertisement::parse(*from, payload) {
                    self.on_router(now, told, &mut actions);
                }
            }
            Event::Packet(Packet::Dhcp6 { payload }) => {
                let ours = |reply: &Reply| reply.xid == self.xid && reply.client == self.client.duid;
                if let Some(reply) = Reply::parse(payload, self.client.iaid).filter(ours) {
                    self.on_reply(now, reply, &mut actions);
                }
            }
            Event::Packet(_) => {}
            Event::LinkLocal(address) => {
                let waited = self.wants_link_local();
                self.link_local = Some(address);
                if waited {
                    self.send(now, &mut actions);
                }
            }
            Event::Release => {
                if let Some(lease) = self.lease.take().filter(|lease| !lease.server.is_empty()) {
                    self.exchange(now);
                    let address = Some(lease.address.ip());
                    actions.extend(self.message(now, kind::RELEASE, Some(&lease.server), address));
                }
                self.state = State::Over;
            }
        }
        actions
    }

    fn on_timer(&mut self, now: Ms, actions: &mut Vec<Action>) {
        if now >= self.give_up() && (self.lease.is_some() || self.state != State::Bound) {
            self.state = State::Over;
            if self.lease.take().is_some() {
                actions.push(Action::Expired);
                return;
            }
            let why = self.refused.take().unwrap_or_else(|| match (&self.router, self.client.source) {
                (None, Source::Slaac | Source::Router) => "no router advertised itself".into(),
                (Some(_), Source::Slaac) => "no router advertised a prefix for SLAAC".into(),
                _ => "no DHCPv6 server answered".into(),
            });
            actions.push(Action::Failed(format!("no more tries: {why}")));
            return;
        }
        let (renew, rebind) = self.lease.as_ref().map_or((Ms::MAX, Ms::MAX), |l| (l.renew, l.rebind));
        let slaac = self.lease.as_ref().is_some_and(|lease| lease.server.is_empty());
        match self.state {
            State::Bound if slaac && now >= renew => self.enter(State::Refreshing, now, actions),
            State::Bound | State::Renewing if !slaac && now >= rebind => {
                actions.push(Action::Note("renewal time expired, rebinding".into()));
                self.enter(State::Rebinding, now, actions);
            }
            State::Bound if now >= renew => {
                actions.push(Action::Note("renewing lease".into()));
                self.enter(State::Renewing, now, actions);
            }
            State::AskingRouter if self.client.source == Source::Dhcp && now >= self.unanswered => {
                self.solicit(now, actions);
            }
            State::Requesting { .. } | State::Soliciting if now >= self.unanswered => {
                self.solicit(now, actions);
            }
            State::Bound | State::Over => {}
            _ if now >= self.next => self.send(now, actions),
            _ => {}
        }
    }

    fn on_router(&mut self, now: Ms, told: Advertisement, actions: &mut Vec<Action>) {
        let managed = told.managed;
        self.router = Some(told);
        match (&self.state, self.client.source) {
            (State::AskingRouter, Source::Dhcp) => self.solicit(now, actions),
            (State::AskingRouter, Source::Router) if managed => self.solicit(now, actions),
            (State::AskingRouter | State::Refreshing, _) => self.make_up(now, actions),
            _ => {}
        }
    }

    /// SLAAC: an address in the router's prefix.
    fn make_up(&mut self, now: Ms, actions: &mut Vec<Action>) {
        let Some(told) = &self.router else { return };
        match told.autonomous(self.client.mac) {
            Some((address, prefix)) => {
                self.lease = Some(Lease::made_up(address, &prefix, told, now));
                self.bound(actions);
            }
            None => actions.push(Action::Note("a router advertised no prefix for SLAAC".into())),
        }
    }

    fn on_reply(&mut self, now: Ms, reply: Reply, actions: &mut Vec<Action>) {
        if let Some((status, words)) = &reply.refused {
            let refused = format!("the DHCPv6 server refused: status {status} {words}");
            actions.push(Action::Note(refused.clone()));
            self.refused = Some(refused);
        }
        let lost = matches!(reply.refused, Some((NO_BINDING, _)));
        match (&self.state, reply.kind, reply.given) {
            (State::Soliciting, kind::ADVERTISE, Some(given)) => {
                self.state = State::Requesting { server: reply.server, address: given.address };
                self.exchange(now);
                self.send(now, actions);
            }
            (State::Soliciting, kind::REPLY, Some(given)) if reply.rapid => {
                self.on_given(now, &reply, &given, actions);
            }
            (State::Requesting { server, .. }, kind::REPLY, given) if *server == reply.server => {
                match given {
                    Some(given) => self.on_given(now, &reply, &given, actions),
                    None => {
                        self.state = State::Soliciting;
                        self.next = now + self.backoff.pause(&self.timing, &mut self.random);
                        self.unanswered = self.next;
                    }
                }
            }
            (State::Renewing | State::Rebinding, kind::REPLY, Some(given)) => {
                self.on_given(now, &reply, &given, actions);
            }
            (State::Renewing | State::Rebinding, kind::REPLY, None) if lost => {
                (self.began, self.backoff) = (now, Backoff::default());
                self.solicit(now, actions);
            }
            _ => {}
        }
    }

    fn on_given(&mut self, now: Ms, reply: &Reply, given: &message::Given, actions: &mut Vec<Action>) {
        let lease = Lease::given(reply, given, self.router.as_ref(), self.lease.as_ref(), now);
        self.lease = Some(lease);
        self.bound(actions);
    }

    fn bound(&mut self, actions: &mut Vec<Action>) {
        self.state = State::Bound;
        self.refused = None;
        actions.push(Action::Bound);
    }

    fn solicit(&mut self, now: Ms, actions: &mut Vec<Action>) {
        self.state = State::Soliciting;
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
        self.xid = self.random.next() & 0x00ff_ffff;
        let patience = if self.state == State::AskingRouter { ROUTER_WAIT } else { self.timing.timeout };
        self.unanswered = now + patience;
        if self.state == State::AskingRouter && self.client.source != Source::Dhcp {
            // There is nothing else to go on to.
            self.unanswered = Ms::MAX;
        }
    }

    /// Sends the message of the present state and decides when to send it again.
    fn send(&mut self, now: Ms, actions: &mut Vec<Action>) {
        let lease = self.lease.clone();
        let held = lease.as_ref().map(|lease| lease.address.ip());
        let server = lease.as_ref().map(|lease| lease.server.as_slice());
        let until = match (&self.state, &lease) {
            (State::Renewing, Some(lease)) => lease.rebind,
            (_, Some(lease)) => lease.expire,
            _ => now,
        };
        self.next = now
            + match self.state {
                State::Renewing | State::Rebinding | State::Refreshing => {
                    (until.saturating_sub(now) / 2).max(RENEW_PAUSE)
                }
                _ => self.backoff.pause(&self.timing, &mut self.random),
            };
        let message = match &self.state {
            State::AskingRouter | State::Refreshing => None,
            State::Soliciting => self.message(now, kind::SOLICIT, None, held),
            State::Requesting { server, address } => {
                self.message(now, kind::REQUEST, Some(server), Some(*address))
            }
            // The router may have changed as well.
            State::Renewing => {
                actions.push(Action::Send(frame::router_solicitation(self.client.mac)));
                self.message(now, kind::RENEW, server, held)
            }
            State::Rebinding => self.message(now, kind::REBIND, None, held),
            State::Bound | State::Over => return,
        };
        match message {
            Some(message) => actions.push(message),
            None if !self.is_dhcp() => {
                actions.push(Action::Send(frame::router_solicitation(self.client.mac)));
            }
            None => {}
        }
    }

    /// A DHCPv6 message; `None` while there is no address to send it from.
    fn message(&self, now: Ms, kind: u8, server: Option<&[u8]>, address: Option<Ipv6Addr>) -> Option<Action> {
        let from = self.link_local?;
        let request = Request {
            kind,
            xid: self.xid,
            duid: &self.client.duid,
            server,
            iaid: self.client.iaid,
            address,
            elapsed: u16::try_from(now.saturating_sub(self.began) / 10).unwrap_or(u16::MAX),
        };
        Some(Action::Send(frame::dhcp6(self.client.mac, from, &request.to_bytes())))
    }
}
