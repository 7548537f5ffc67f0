//! Which questions are due: those never asked, then those that went wrong, then the others in turn, so that hundreds of
//! peers are asked over a while and not at once. It has no clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Answer, Ask, Outcome};

/// How it stands with a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What came of it last.
    pub outcome: Outcome,
    /// When that was.
    pub at: Instant,
}

/// What was asked, when, and what came of it.
#[derive(Debug)]
pub struct Schedule {
    again: Duration,
    retry: Duration,
    standing: BTreeMap<Ask, Standing>,
}

impl Schedule {
    /// Asks what was good `again` after the last time, what was not after `retry`.
    pub fn new(again: Duration, retry: Duration) -> Schedule {
        Schedule { again, retry, standing: BTreeMap::new() }
    }

    /// The questions among `asks` that are due, at most so many; what was asked before and is not among them is
    /// forgotten.
    pub fn due(&mut self, now: Instant, asks: &[Ask], at_most: usize) -> Vec<Ask> {
        let wanted: BTreeSet<&Ask> = asks.iter().collect();
        self.standing.retain(|ask, _| wanted.contains(ask));
        let mut due: Vec<(u8, Option<Instant>, &Ask)> = wanted
            .into_iter()
            .filter_map(|ask| match self.standing.get(ask) {
                None => Some((0, None, ask)),
                Some(it) => {
                    let good = it.outcome == Outcome::Good;
                    let pause = if good { self.again } else { self.retry };
                    (now.duration_since(it.at) >= pause).then_some((1 + u8::from(good), Some(it.at), ask))
                }
            })
            .collect();
        due.sort();
        due.into_iter().take(at_most).map(|(_, _, ask)| ask.clone()).collect()
    }

    /// Takes over answers that came at `now`.
    pub fn told(&mut self, now: Instant, answers: Vec<Answer>) {
        for Answer { ask, outcome } in answers {
            self.standing.insert(ask, Standing { outcome, at: now });
        }
    }

    /// How it stands with each question that was asked.
    pub fn standing(&self) -> impl Iterator<Item = (&Ask, &Standing)> {
        self.standing.iter()
    }

    /// Those of `asks` that are not known to be good, with what came of them last; None: not asked yet.
    pub fn open<'a>(&'a self, asks: &'a [Ask]) -> impl Iterator<Item = (&'a Ask, Option<&'a Outcome>)> {
        let outcome = |ask: &'a Ask| (ask, self.standing.get(ask).map(|it| &it.outcome));
        asks.iter().map(outcome).filter(|it| it.1 != Some(&Outcome::Good))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Path;
    use super::*;

    fn asks(count: u8) -> Vec<Ask> {
        let ask = |i| Ask {
            node: format!("n{i:03}"),
            path: Path::Pods,
            from: [10, 0, 0, 1].into(),
            to: [10, 0, 1, i].into(),
            mtu: 1500,
        };
        (0..count).map(ask).collect()
    }

    fn answers(asks: Vec<Ask>, outcome: &Outcome) -> Vec<Answer> {
        asks.into_iter().map(|ask| Answer { ask, outcome: outcome.clone() }).collect()
    }

    const AGAIN: Duration = Duration::from_secs(60);
    const RETRY: Duration = Duration::from_secs(5);

    #[test]
    fn all_are_asked_in_slices_and_then_again_in_turn() {
        let (mut schedule, start, all) = (Schedule::new(AGAIN, RETRY), Instant::now(), asks(10));
        let mut asked = Vec::new();
        for second in 0..4 {
            let now = start + Duration::from_secs(second);
            let due = schedule.due(now, &all, 4);
            asked.push(due.len());
            schedule.told(now, answers(due, &Outcome::Good));
        }
        assert_eq!(asked, [4, 4, 2, 0]);
        assert_eq!(schedule.open(&all).count(), 0);
        let due = schedule.due(start + AGAIN, &all, 9);
        assert_eq!(due, all[..4], "only the first four are as old as that");
    }

    #[test]
    fn what_went_wrong_is_asked_sooner_and_first_and_what_is_new_before_it() {
        let (mut schedule, start, all) = (Schedule::new(AGAIN, RETRY), Instant::now(), asks(4));
        schedule.told(start, answers(all[..2].to_vec(), &Outcome::Good));
        let failed = Outcome::NoAnswer("?".into());
        schedule.told(start, answers(all[2..3].to_vec(), &failed));
        assert_eq!(schedule.due(start, &all, 9), all[3..]);
        assert_eq!(schedule.due(start + RETRY, &all, 9), [all[3].clone(), all[2].clone()]);
        let everything = schedule.due(start + AGAIN, &all, 9);
        assert_eq!(everything, [3, 2, 0, 1].map(|i: usize| all[i].clone()));
        let open: Vec<_> = schedule.open(&all).collect();
        assert_eq!(open, [(&all[2], Some(&failed)), (&all[3], None)]);
    }

    #[test]
    fn a_peer_that_is_gone_or_elsewhere_is_forgotten() {
        let (mut schedule, start, mut all) = (Schedule::new(AGAIN, RETRY), Instant::now(), asks(2));
        schedule.told(start, answers(all.clone(), &Outcome::Good));
        all[1].to = [10, 0, 9, 9].into();
        assert_eq!(schedule.due(start, &all, 9), all[1..]);
        assert_eq!(schedule.standing().count(), 1);
    }
}
