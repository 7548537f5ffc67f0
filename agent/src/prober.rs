//! Asks the peers, a few each second, and tells the status what came of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::{self, Counters};
use crate::peers::{Answer, Ask, Limits, Outcome, Schedule, probe};
use crate::status::{Board, Probe};

/// How often due questions are looked for.
const TICK: Duration = Duration::from_secs(1);
/// How long after a good answer, and after any other, it is asked again.
const AGAIN: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);
/// How many questions are asked at a tick, at most.
const AT_MOST: usize = 64;

/// The task that asks. It ends with this value.
#[derive(Debug)]
pub struct Prober(watch::Sender<Vec<Ask>>);

impl Prober {
    /// Starts it, with nothing to ask. To be called within a tokio runtime.
    pub fn start(board: Board, counters: Counters) -> Prober {
        let (to, asks) = watch::channel(Vec::new());
        tokio::spawn(work(asks, board, counters));
        Prober(to)
    }

    /// These are to be asked from now on.
    pub fn aim(&self, asks: Vec<Ask>) {
        self.0.send_if_modified(|before| {
            let is_other = *before != asks;
            if is_other {
                *before = asks;
            }
            is_other
        });
    }
}

async fn work(mut asks: watch::Receiver<Vec<Ask>>, board: Board, counters: Counters) {
    let mut schedule = Schedule::new(AGAIN, RETRY);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = asks.changed() => if changed.is_err() {
                return;
            }
        }
        let due = schedule.due(Instant::now(), &asks.borrow_and_update(), AT_MOST);
        if due.is_empty() {
            continue;
        }
        let answers = probe(due, Limits::default()).await;
        for answer in &answers {
            let outcome = if answer.outcome == Outcome::Good { "good" } else { "bad" };
            counters.add(metrics::PROBES, &[outcome], 1);
        }
        schedule.told(Instant::now(), answers);
        tell(&board, &schedule);
    }
}

fn tell(board: &Board, schedule: &Schedule) {
    let mut probes: BTreeMap<&str, Vec<Probe>> = BTreeMap::new();
    for (ask, standing) in schedule.standing() {
        let is_good = standing.outcome == Outcome::Good;
        let problem = || Answer { ask: ask.clone(), outcome: standing.outcome.clone() }.to_string();
        probes.entry(&ask.node).or_default().push(Probe {
            from: ask.from,
            to: ask.to,
            problem: (!is_good).then(problem),
        });
    }
    board.peers(|peers| {
        for (name, peer) in peers {
            peer.probes = probes.remove(name.as_str()).unwrap_or_default();
        }
    });
}
