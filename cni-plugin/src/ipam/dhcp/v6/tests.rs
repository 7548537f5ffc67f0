//! The state machine under a made-up clock, with router and server of a few lines of bytes.

use super::message::tests::reply;
use super::router::tests::advertisement;
use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const MANAGED: u8 = 0x80;
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
/// T1, T2, preferred, valid.
const TIMES: [u32; 4] = [100, 160, 200, 300];

struct Play {
    machine: Machine,
    now: Ms,
    log: Vec<Action>,
}

impl Play {
    fn acquire(source: Source) -> Play {
        let client = Client { mac: MAC, duid: b"me".to_vec(), iaid: 7, source };
        let (machine, log) = Machine::acquire(client, Timing::default(), Random::new(1), 0);
        Play { machine, now: 0, log }
    }

    /// A DHCPv6 lease had at 0 s, times as in [`TIMES`].
    fn bound() -> Play {
        let mut play = Play::acquire(Source::Dhcp);
        play.link_local();
        play.router(&advertisement(MANAGED, 1800, 0x80, 600));
        play.answer(kind::ADVERTISE, "2001:db8:5::7", &[]);
        play.answer(kind::REPLY, "2001:db8:5::7", &[]);
        assert_eq!(play.log.pop(), Some(Action::Bound));
        play.log.clear();
        play
    }

    fn event(&mut self, event: Event<'_>) {
        let actions = self.machine.on_event(self.now, event);
        self.log.extend(actions);
    }

    fn link_local(&mut self) {
        self.event(Event::LinkLocal(LINK_LOCAL));
    }

    fn router(&mut self, payload: &[u8]) {
        self.event(Event::Packet(&Packet::Router { from: "fe80::1".parse().unwrap(), payload }));
    }

    fn answer(&mut self, kind: u8, address: &str, more: &[u8]) {
        let payload = reply(kind, self.machine.xid, Some((address, TIMES)), more);
        self.event(Event::Packet(&Packet::Dhcp6 { payload: &payload }));
    }

    fn refuse(&mut self, kind: u8, status: u8) {
        let payload = reply(kind, self.machine.xid, None, &[0, 13, 0, 3, 0, status, b'x']);
        self.event(Event::Packet(&Packet::Dhcp6 { payload: &payload }));
    }

    fn until(&mut self, seconds: Ms) {
        while let Some(at) = self.machine.deadline().filter(|at| *at <= seconds * SECOND) {
            self.now = self.now.max(at);
            self.event(Event::Timer);
        }
        self.now = seconds * SECOND;
    }

    /// The message types sent; 133 for a router solicitation.
    fn sent(&self) -> Vec<u8> {
        let kind = |action: &Action| match action {
            Action::Send(frame) if frame[20] == 58 => Some(frame[54]),
            Action::Send(frame) => Some(frame[62]),
            _ => None,
        };
        self.log.iter().filter_map(kind).collect()
    }

    fn lease(&self) -> (String, String, [Ms; 3]) {
        let lease = self.machine.lease().unwrap();
        let gateway = lease.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        (lease.address.to_string(), gateway, [lease.renew, lease.rebind, lease.expire].map(|at| at / SECOND))
    }
}

#[test]
fn slaac_makes_an_address_of_prefix_and_mac() {
    let mut play = Play::acquire(Source::Slaac);
    play.router(&advertisement(0, 1800, 0xc0, 600));
    assert_eq!((play.sent(), play.log.last()), (vec![133], Some(&Action::Bound)));
    let expected = ("2001:db8:5::ff:fe00:1/64".into(), "fe80::1".into(), [300, 600, 600]);
    assert_eq!(play.lease(), expected);
    let routes = play.machine.lease().unwrap().routes();
    assert_eq!((routes.len(), routes[0].dst.to_string()), (1, "::/0".into()));
}

#[test]
fn slaac_is_refreshed_and_ends_when_no_router_answers() {
    let mut play = Play::acquire(Source::Slaac);
    play.router(&advertisement(0, 1800, 0xc0, 600));
    play.until(299);
    assert_eq!(play.sent(), [133]);
    play.until(301);
    assert_eq!(play.sent(), [133, 133]);
    play.router(&advertisement(0, 0, 0xc0, 600));
    assert_eq!(play.lease(), ("2001:db8:5::ff:fe00:1/64".into(), String::new(), [601, 901, 901]));
    play.until(900);
    assert!(play.sent().len() > 4);
    play.until(901);
    assert_eq!((play.log.last(), play.machine.lease()), (Some(&Action::Expired), None));
}

#[test]
fn slaac_without_a_router_or_a_prefix_says_which_is_missing() {
    for (told, why) in [
        (None, "no more tries: no router advertised itself"),
        (Some(advertisement(0, 1800, 0x80, 600)), "no more tries: no router advertised a prefix for SLAAC"),
    ] {
        let mut play = Play::acquire(Source::Slaac);
        if let Some(told) = told {
            play.router(&told);
        }
        play.until(300);
        assert_eq!(play.log.last(), Some(&Action::Failed(why.into())));
    }
}

#[test]
fn dhcp6_asks_router_then_server() {
    let mut play = Play::acquire(Source::Dhcp);
    play.router(&advertisement(MANAGED, 1800, 0x80, 600));
    assert!(play.machine.wants_link_local());
    assert_eq!(play.sent(), [133], "nothing to send from yet");
    play.link_local();
    play.answer(kind::ADVERTISE, "2001:db8:5::7", &[]);
    play.answer(kind::REPLY, "2001:db8:5::7", &[]);
    assert_eq!(play.sent(), [133, kind::SOLICIT, kind::REQUEST]);
    assert_eq!(play.lease(), ("2001:db8:5::7/64".into(), "fe80::1".into(), [100, 160, 300]));
    assert!(!play.machine.listens());
}

#[test]
fn dhcp6_does_without_a_router() {
    let mut play = Play::acquire(Source::Dhcp);
    play.link_local();
    play.until(4);
    assert_eq!(play.sent().last(), Some(&kind::SOLICIT));
    play.answer(kind::REPLY, "2001:db8:5::7", &[0, 14, 0, 0]);
    assert_eq!(play.lease(), ("2001:db8:5::7/128".into(), String::new(), [104, 164, 304]));
}

#[test]
fn rapid_commit_needs_the_option_in_the_reply() {
    let mut play = Play::acquire(Source::Dhcp);
    play.link_local();
    play.router(&advertisement(MANAGED, 1800, 0x80, 600));
    play.answer(kind::REPLY, "2001:db8:5::7", &[]);
    assert_eq!(play.machine.lease(), None);
    play.answer(kind::REPLY, "2001:db8:5::7", &[0, 14, 0, 0]);
    assert!(play.machine.lease().is_some());
}

#[test]
fn the_router_decides_between_dhcp6_and_slaac() {
    let mut managed = Play::acquire(Source::Router);
    managed.link_local();
    managed.router(&advertisement(MANAGED, 1800, 0xc0, 600));
    assert_eq!(managed.sent(), [133, kind::SOLICIT]);
    let mut plain = Play::acquire(Source::Router);
    plain.router(&advertisement(0, 1800, 0xc0, 600));
    assert_eq!(plain.log.last(), Some(&Action::Bound));
}

#[test]
fn a_refusing_server_is_named_at_the_end() {
    let mut play = Play::acquire(Source::Dhcp);
    play.link_local();
    play.router(&advertisement(MANAGED, 1800, 0x80, 600));
    play.refuse(kind::ADVERTISE, 2);
    play.until(300);
    let why = "no more tries: the DHCPv6 server refused: status 2 x";
    assert_eq!(play.log.last(), Some(&Action::Failed(why.into())));
}

#[test]
fn t1_renews_t2_rebinds_and_the_end_is_the_end() {
    let mut play = Play::bound();
    play.until(101);
    assert_eq!(play.sent(), [133, kind::RENEW]);
    let mut renewed = Play { machine: play.machine.clone(), now: play.now, log: Vec::new() };
    renewed.answer(kind::REPLY, "2001:db8:5::7", &[]);
    assert_eq!(renewed.lease(), ("2001:db8:5::7/64".into(), "fe80::1".into(), [201, 261, 401]));
    play.until(299);
    assert_eq!(play.sent().last(), Some(&kind::REBIND));
    play.until(300);
    assert_eq!((play.log.last(), play.machine.lease()), (Some(&Action::Expired), None));
}

#[test]
fn a_server_that_forgot_us_is_asked_anew() {
    let mut play = Play::bound();
    play.until(101);
    play.refuse(kind::REPLY, 3);
    assert_eq!(play.sent().last(), Some(&kind::SOLICIT));
    assert!(play.machine.lease().is_some(), "kept until another takes its place");
    play.answer(kind::ADVERTISE, "2001:db8:5::8", &[]);
    play.answer(kind::REPLY, "2001:db8:5::8", &[]);
    assert_eq!(play.lease().0, "2001:db8:5::8/64");
}

#[test]
fn a_lease_from_before_the_restart_is_renewed_at_once() {
    let lease = Play::bound().machine.lease().unwrap().clone();
    let client = Client { mac: MAC, duid: b"me".to_vec(), iaid: 7, source: Source::Dhcp };
    let (machine, log) = Machine::adopt(client, Timing::default(), Random::new(1), 20 * SECOND, lease);
    let mut play = Play { machine, now: 20 * SECOND, log };
    play.link_local();
    assert_eq!(play.sent().last(), Some(&kind::RENEW));
    play.answer(kind::REPLY, "2001:db8:5::7", &[]);
    assert_eq!(play.lease(), ("2001:db8:5::7/64".into(), "fe80::1".into(), [120, 180, 320]));
}

#[test]
fn release_names_server_and_address() {
    let mut play = Play::bound();
    play.event(Event::Release);
    assert_eq!(play.sent(), [kind::RELEASE]);
    assert_eq!(play.machine.deadline(), None);
    let mut slaac = Play::acquire(Source::Slaac);
    slaac.router(&advertisement(0, 1800, 0xc0, 600));
    slaac.event(Event::Release);
    assert_eq!(slaac.sent(), [133], "nobody to tell");
}

#[test]
fn any_order_of_events_keeps_the_promises() {
    let mut random = Random::new(0xfeed);
    for source in [Source::Dhcp, Source::Slaac, Source::Router] {
        for _ in 0..200 {
            let mut play = Play::acquire(source);
            for _ in 0..60 {
                match random.below(7) {
                    0 => play.answer(
                        random.below(9) as u8,
                        "2001:db8:5::7",
                        &[0, 14, 0, 0][..random.below(2) as usize * 4],
                    ),
                    1 => play.refuse(kind::REPLY, random.below(6) as u8),
                    2 => play.router(&advertisement((random.below(2) * 0x80) as u8, 9, 0xc0, 600)),
                    3 => play.now += random.below(100) * SECOND,
                    4 => play.link_local(),
                    _ => {
                        if let Some(at) = play.machine.deadline() {
                            play.now = play.now.max(at);
                            play.event(Event::Timer);
                        }
                    }
                }
                if let (Some(lease), Some(deadline)) = (play.machine.lease(), play.machine.deadline()) {
                    assert!(deadline <= lease.expire, "{:?}", play.machine);
                }
                assert!(play.log.len() < 2000);
            }
        }
    }
}
