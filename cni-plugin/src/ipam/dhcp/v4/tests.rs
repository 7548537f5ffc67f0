//! The state machine under a made-up clock, with a server that is a few lines of bytes.

use std::net::Ipv4Addr;

use kernel::Mac;

use super::message::tests::reply;
use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOP: Mac = Mac([2, 0, 0, 0, 0, 0xff]);
const SERVER: [u8; 6] = [54, 4, 10, 0, 0, 1];
/// Mask, router, a lease of 1000 s.
const LEASE: [u8; 18] = [1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 1, 51, 4, 0, 0, 3, 232];

fn client() -> Client {
    let mut options = Options::default();
    options.set(code::CLIENT_ID, *b"\0c0/net/eth0");
    options.set(code::REQUEST_LIST, [3, 1]);
    Client { mac: MAC, options, broadcast: false }
}

/// A machine, the time, and everything it did.
struct Play {
    machine: Machine,
    now: Ms,
    log: Vec<Action>,
}

impl Play {
    fn acquire() -> Play {
        let (machine, log) = Machine::acquire(client(), Timing::default(), Random::new(1), 5000);
        Play { machine, now: 5000, log }
    }

    /// Bound at 5 s for 1000 s: T1 at 505 s, T2 at 855 s, the end at 1005 s.
    fn bound() -> Play {
        let mut play = Play::acquire();
        play.answer(kind::OFFER, [10, 0, 0, 7]);
        play.answer(kind::ACK, [10, 0, 0, 7]);
        assert_eq!(play.log.pop(), Some(Action::Bound));
        play.log.clear();
        play
    }

    fn hear(&mut self, payload: &[u8]) -> Vec<Action> {
        self.machine.on_event(self.now, Event::Packet(&Packet::Dhcp4 { from: HOP, payload }))
    }

    fn answer_with(&mut self, kind: u8, yiaddr: [u8; 4], options: &[u8]) {
        let options = [&[53, 1, kind][..], options].concat();
        let bytes = reply(self.machine.xid, yiaddr, MAC, &options);
        let actions = self.hear(&bytes);
        self.log.extend(actions);
    }

    fn answer(&mut self, kind: u8, yiaddr: [u8; 4]) {
        self.answer_with(kind, yiaddr, &[&SERVER[..], &LEASE].concat());
    }

    /// Lets time pass to the next deadline.
    fn tick(&mut self) -> bool {
        let Some(deadline) = self.machine.deadline() else { return false };
        assert!(deadline != Ms::MAX, "waits for ever in {:?}", self.machine.state);
        self.now = self.now.max(deadline);
        let actions = self.machine.on_event(self.now, Event::Timer);
        self.log.extend(actions);
        true
    }

    /// Lets time pass until `end`.
    fn until(&mut self, seconds: Ms) {
        while self.machine.deadline().is_some_and(|at| at <= seconds * SECOND) {
            self.tick();
        }
        self.now = seconds * SECOND;
    }

    /// The messages sent so far: type, whether by broadcast, source address.
    fn sent(&self) -> Vec<(u8, bool, Ipv4Addr)> {
        let sent = self.log.iter().filter_map(|action| match action {
            Action::Send(frame) => {
                let from = Ipv4Addr::from(*frame[26..].first_chunk::<4>().unwrap());
                Some((frame[42 + 242], frame.starts_with(&[0xff; 6]), from))
            }
            _ => None,
        });
        sent.collect()
    }

    fn options_of_last(&self) -> Options {
        let last = self.log.iter().rev().find_map(|action| match action {
            Action::Send(frame) => Some(frame),
            _ => None,
        });
        Options::parse(&last.unwrap()[42 + 240..]).unwrap()
    }
}

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

#[test]
fn four_messages_make_a_lease() {
    let mut play = Play::acquire();
    let options = play.options_of_last();
    assert_eq!(options.get(code::CLIENT_ID), Some(&b"\0c0/net/eth0"[..]));
    assert_eq!(options.get(code::REQUEST_LIST), Some(&[3, 1][..]));
    play.answer(kind::OFFER, [10, 0, 0, 7]);
    let options = play.options_of_last();
    assert_eq!(options.address(code::REQUESTED), Some(OURS));
    assert_eq!(options.address(code::SERVER), Some(Ipv4Addr::new(10, 0, 0, 1)));
    play.answer(kind::ACK, [10, 0, 0, 7]);
    assert_eq!(play.sent(), [(kind::DISCOVER, true, NOBODY), (kind::REQUEST, true, NOBODY)]);
    assert_eq!(play.log.last(), Some(&Action::Bound));
    let lease = play.machine.lease().unwrap();
    assert_eq!(lease.address.to_string(), "10.0.0.7/24");
    assert_eq!([lease.renew, lease.rebind, lease.expire].map(|at| at / SECOND), [505, 855, 1005]);
    assert!(!play.machine.listens() && play.machine.deadline() == Some(505 * SECOND));
}

#[test]
fn answers_to_others_are_passed_over() {
    let mut play = Play::acquire();
    let xid = play.machine.xid;
    let options = [&[53, 1, kind::OFFER][..], &SERVER, &LEASE].concat();
    for bytes in [
        reply(xid ^ 1, [10, 0, 0, 7], MAC, &options),
        reply(xid, [10, 0, 0, 7], HOP, &options),
        reply(xid, [0, 0, 0, 0], MAC, &options),
        reply(xid, [10, 0, 0, 7], MAC, &[53, 1, kind::ACK]),
        reply(xid, [10, 0, 0, 7], MAC, &[53, 1, kind::OFFER]),
        vec![],
    ] {
        assert_eq!(play.hear(&bytes), []);
    }
    play.answer(kind::OFFER, [10, 0, 0, 7]);
    let other = [&[54, 4, 10, 0, 0, 2][..], &LEASE].concat();
    play.answer_with(kind::ACK, [10, 0, 0, 7], &other);
    play.answer_with(kind::NAK, [0; 4], &other);
    assert_eq!(play.machine.lease(), None);
    play.answer(kind::ACK, [10, 0, 0, 7]);
    assert!(play.machine.lease().is_some());
}

#[test]
fn silence_is_asked_again_and_ends_with_no_more_tries() {
    let mut play = Play::acquire();
    let mut times = vec![play.now];
    while play.tick() {
        times.push(play.now);
    }
    let began = times[0];
    assert_eq!(play.now, began + 208 * SECOND, "within the configured time");
    assert_eq!(play.log.last(), Some(&Action::Failed("no more tries: no server answered".into())));
    let sent = play.sent();
    assert!(sent.iter().all(|message| *message == (kind::DISCOVER, true, NOBODY)));
    // At about 0, 0.5, 2.5, 4.5, 6.5, 11, 19, 35, 67, 129, 191 s, and a new exchange where 10 s went by.
    assert!((11..=30).contains(&sent.len()), "{} messages", sent.len());
    assert_eq!(play.machine.deadline(), None);
}

#[test]
fn shorter_patience_is_kept() {
    let timing = Timing { timeout: SECOND, resend_max: SECOND, resend_timeout: 3 * SECOND };
    let (machine, log) = Machine::acquire(client(), timing, Random::new(1), 0);
    let mut play = Play { machine, now: 0, log };
    while play.tick() {}
    assert_eq!(play.now, 3 * SECOND);
    assert!(matches!(play.log.last(), Some(Action::Failed(_))));
}

#[test]
fn a_server_that_falls_silent_after_its_offer_is_asked_anew() {
    let mut play = Play::acquire();
    let first = play.machine.xid;
    play.answer(kind::OFFER, [10, 0, 0, 7]);
    play.until(16);
    let kinds: Vec<u8> = play.sent().iter().map(|(kind, ..)| *kind).collect();
    assert!(
        kinds.len() > 3 && kinds[2] == kind::REQUEST && kinds.last() == Some(&kind::DISCOVER),
        "{kinds:?}"
    );
    assert_ne!(play.machine.xid, first);
    play.answer(kind::OFFER, [10, 0, 0, 8]);
    play.answer(kind::ACK, [10, 0, 0, 8]);
    assert_eq!(play.machine.lease().unwrap().address.ip(), Ipv4Addr::new(10, 0, 0, 8));
}

#[test]
fn a_refusal_while_acquiring_is_tried_again_after_a_pause() {
    let mut play = Play::acquire();
    play.answer(kind::OFFER, [10, 0, 0, 7]);
    let refusal = [&SERVER[..], &[56, 5, b't', b'a', b'k', b'e', b'n']].concat();
    play.answer_with(kind::NAK, [0; 4], &refusal);
    assert_eq!(play.log.last(), Some(&Action::Note("the server refused the request: taken".into())));
    let (messages, paused) = (play.sent().len(), play.machine.deadline().unwrap() - play.now);
    assert!((250..=3 * SECOND).contains(&paused), "{paused}");
    play.tick();
    assert_eq!(play.sent().len(), messages + 1);
    while play.tick() {}
    let why = "no more tries: the server refused the request: taken";
    assert_eq!(play.log.last(), Some(&Action::Failed(why.into())));
}

#[test]
fn an_acknowledgement_without_mask_fails_and_is_given_back() {
    let mut play = Play::acquire();
    play.answer_with(kind::OFFER, [10, 0, 0, 7], &SERVER);
    play.answer_with(kind::ACK, [10, 0, 0, 7], &SERVER);
    assert_eq!(play.sent().last(), Some(&(kind::RELEASE, false, OURS)));
    let why = "DHCP option Subnet Mask not found in DHCPACK";
    assert_eq!(play.log.last(), Some(&Action::Failed(why.into())));
}

#[test]
fn t1_renews_by_unicast_from_the_address() {
    let mut play = Play::bound();
    play.until(504);
    assert!(play.log.is_empty());
    play.until(505);
    assert_eq!(play.sent(), [(kind::REQUEST, false, OURS)]);
    let to_server = |frame: &[u8]| frame.starts_with(&HOP.0) && frame[30..34] == [10, 0, 0, 1];
    assert!(matches!(&play.log[1], Action::Send(frame) if to_server(frame)));
    let options = play.options_of_last();
    assert_eq!((options.get(code::REQUESTED), options.get(code::SERVER)), (None, None));
    assert_eq!(options.get(code::CLIENT_ID), Some(&b"\0c0/net/eth0"[..]));
    play.now += 100;
    play.answer(kind::ACK, [10, 0, 0, 7]);
    assert_eq!(play.machine.lease().unwrap().expire, play.now + 1000 * SECOND);
    assert!(!play.machine.listens());
}

#[test]
fn t2_asks_every_server_and_the_end_is_the_end() {
    let mut play = Play::bound();
    play.until(1004);
    let sent = play.sent();
    let unicast = sent.iter().filter(|(_, broadcast, _)| !broadcast).count();
    // From 505 s on half of what is left until 855 s, at least a minute: 505, 680, 767, 827 s.
    assert_eq!(
        (unicast, sent.iter().all(|(kind, _, from)| (*kind, *from) == (kind::REQUEST, OURS))),
        (4, true)
    );
    assert!(sent.len() > unicast && sent[unicast..].iter().all(|(_, broadcast, _)| *broadcast));
    assert!(play.machine.lease().is_some());
    play.until(1005);
    assert_eq!(play.log.last(), Some(&Action::Expired));
    assert_eq!((play.machine.lease(), play.machine.deadline()), (None, None));
}

#[test]
fn another_server_may_rebind_to_another_address() {
    let mut play = Play::bound();
    play.until(900);
    play.answer_with(kind::ACK, [10, 0, 0, 99], &[&[54, 4, 10, 0, 0, 2][..], &LEASE].concat());
    let lease = play.machine.lease().unwrap();
    assert_eq!((lease.address.to_string().as_str(), lease.expire), ("10.0.0.99/24", 1900 * SECOND));
}

#[test]
fn a_foreign_server_cannot_refuse_a_renewal() {
    let mut play = Play::bound();
    play.until(505);
    play.answer_with(kind::NAK, [0; 4], &[54, 4, 10, 0, 0, 2]);
    assert_eq!(play.machine.state, State::Renewing);
}

#[test]
fn a_refused_renewal_asks_for_another_lease_and_keeps_the_old_to_its_end() {
    let mut play = Play::bound();
    play.until(505);
    play.answer_with(kind::NAK, [0; 4], &SERVER);
    assert_eq!(play.sent().last(), Some(&(kind::DISCOVER, true, NOBODY)));
    assert_eq!(play.options_of_last().address(code::REQUESTED), Some(OURS));
    let mut refused = Play { machine: play.machine.clone(), now: play.now, log: Vec::new() };
    play.answer(kind::OFFER, [10, 0, 0, 8]);
    play.answer(kind::ACK, [10, 0, 0, 8]);
    assert_eq!(play.machine.lease().unwrap().address.ip(), Ipv4Addr::new(10, 0, 0, 8));
    while refused.tick() {}
    assert_eq!((refused.now, refused.log.last()), (1005 * SECOND, Some(&Action::Expired)));
}

fn adopted(now: Ms) -> Play {
    let lease = Play::bound().machine.lease().unwrap().clone();
    let (machine, log) = Machine::adopt(client(), Timing::default(), Random::new(9), now, lease);
    Play { machine, now, log }
}

#[test]
fn a_lease_from_before_the_restart_is_confirmed() {
    let mut play = adopted(100 * SECOND);
    assert_eq!(play.sent(), [(kind::REQUEST, true, NOBODY)]);
    let options = play.options_of_last();
    assert_eq!((options.address(code::REQUESTED), options.get(code::SERVER)), (Some(OURS), None));
    assert!(play.machine.lease().is_some(), "usable meanwhile");
    play.answer(kind::ACK, [10, 0, 0, 7]);
    assert_eq!(play.machine.lease().unwrap().expire, 1100 * SECOND);
}

#[test]
fn an_unconfirmed_lease_is_used_and_renewed_in_time() {
    let mut play = adopted(100 * SECOND);
    play.until(200);
    assert!((2..=8).contains(&play.sent().len()) && !play.machine.listens(), "{:?}", play.sent());
    play.until(505);
    assert_eq!(play.sent().last(), Some(&(kind::REQUEST, false, OURS)));
    // Restarted after T2: any server will do.
    let mut late = adopted(900 * SECOND);
    late.until(950);
    assert_eq!(late.sent().last(), Some(&(kind::REQUEST, true, OURS)));
    let mut over = adopted(2000 * SECOND);
    over.tick();
    assert_eq!(over.log.last(), Some(&Action::Expired));
}

#[test]
fn release_goes_to_the_server_that_gave_it() {
    let mut play = Play::bound();
    let actions = play.machine.on_event(play.now, Event::Release);
    play.log.extend(actions);
    assert_eq!(play.sent(), [(kind::RELEASE, false, OURS)]);
    let options = play.options_of_last();
    assert_eq!(options.address(code::SERVER), Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(options.get(code::CLIENT_ID), Some(&b"\0c0/net/eth0"[..]));
    assert_eq!(options.get(code::REQUEST_LIST), None);
    assert_eq!(play.machine.deadline(), None);
    // Before there is a lease there is nothing to give back.
    let mut early = Play::acquire();
    assert_eq!(early.machine.on_event(early.now, Event::Release), []);
}

#[test]
fn the_broadcast_flag_is_set_while_the_link_has_no_address() {
    let flag = |action: &Action| match action {
        Action::Send(frame) => frame[42 + 10] == 0x80,
        _ => panic!("{action:?}"),
    };
    for broadcast in [false, true] {
        let asks = Client { broadcast, ..client() };
        let (machine, log) = Machine::acquire(asks, Timing::default(), Random::new(1), 5000);
        let mut play = Play { machine, now: 5000, log };
        play.answer(kind::OFFER, [10, 0, 0, 7]);
        assert_eq!([flag(&play.log[0]), flag(&play.log[1])], [broadcast; 2]);
        play.answer(kind::ACK, [10, 0, 0, 7]);
        play.until(505);
        assert!(!flag(play.log.last().unwrap()));
    }
}

/// Random events at random times: the machine never panics, never waits in the past for long, and holds no lease that
/// is over.
#[test]
fn any_order_of_events_keeps_the_promises() {
    let mut random = Random::new(0xfeed);
    for _ in 0..300 {
        let mut play = Play::acquire();
        for _ in 0..60 {
            match random.below(5) {
                0 => play.answer(random.below(9) as u8, [10, 0, 0, random.below(5) as u8]),
                1 => play.answer_with(random.below(9) as u8, [10, 0, 0, 7], &SERVER),
                2 => play.now += random.below(100) * SECOND,
                _ => {
                    play.tick();
                }
            }
            let lease = play.machine.lease().cloned();
            if let (Some(lease), Some(deadline)) = (lease, play.machine.deadline()) {
                assert!(deadline <= lease.expire, "{:?}", play.machine);
            }
            assert!(play.log.len() < 2000);
        }
    }
}
