//! Time as the state machines count it, how often they repeat themselves, and the small random numbers they need.
//!
//! Nothing here reads a clock: the daemon does, and the tests make one up.

/// Milliseconds of a clock that only goes forward.
pub(super) type Ms = u64;

/// One second.
pub(super) const SECOND: Ms = 1000;

/// How patient the client is; the daemon's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    /// How long one exchange may take before a new one begins.
    pub(super) timeout: Ms,
    /// The longest pause between two sendings.
    pub(super) resend_max: Ms,
    /// After this long there are no more tries.
    pub(super) resend_timeout: Ms,
}

impl Default for Timing {
    /// The reference's.
    fn default() -> Self {
        Timing { timeout: 10 * SECOND, resend_max: 62 * SECOND, resend_timeout: 208 * SECOND }
    }
}

/// The pauses between sendings: the first of half a second, because a port that has just been plugged may have thrown the
/// first frame away; three of 2 s; then 4 s and twice as long each time. All but the first give or take 1 s.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    sent: u32,
}

/// The first pause, give or take half of it.
const FIRST: Ms = 500;
/// How many pauses are short.
const FAST: u32 = 4;

impl Backoff {
    /// The pause after the next sending.
    pub(super) fn pause(&mut self, timing: &Timing, random: &mut Random) -> Ms {
        let (base, jitter) = match self.sent.checked_sub(FAST) {
            None if self.sent == 0 => (FIRST, FIRST / 2),
            None => (2 * SECOND, SECOND),
            Some(slow) => ((4 * SECOND).saturating_mul(1 << slow.min(20)), SECOND),
        };
        self.sent += 1;
        (base.min(timing.resend_max) + random.below(2 * jitter)).saturating_sub(jitter).max(100)
    }
}

/// Random numbers for transaction ids and jitter (xorshift64*), not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence that this seed begins.
    pub(super) fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// A number from 0 up to, not including, `limit`; 0 when that is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (u64::from(self.next()) * limit) >> 32
    }

    /// A sequence of its own, for another state machine.
    pub(super) fn fork(&mut self) -> Random {
        Random::new(u64::from(self.next()) << 32 | u64::from(self.next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_jitter_by_a_second() {
        let (timing, mut random) = (Timing::default(), Random::new(7));
        let mut backoff = Backoff::default();
        let pauses: Vec<Ms> = (0..12).map(|_| backoff.pause(&timing, &mut random)).collect();
        let bases = [2, 2, 2, 4, 8, 16, 32, 62, 62, 62, 62].map(|s| s * SECOND);
        for (pause, base) in pauses[1..].iter().zip(bases) {
            assert!(pause.abs_diff(base) <= SECOND, "{pauses:?}");
        }
        assert!((250..750).contains(&pauses[0]), "{pauses:?}");
        assert!(pauses.windows(2).any(|pair| pair[0] % SECOND != pair[1] % SECOND), "no jitter: {pauses:?}");
    }

    #[test]
    fn numbers_stay_below_the_limit_and_differ() {
        let mut random = Random::new(0);
        let numbers: Vec<u64> = (0..100).map(|_| random.below(10)).collect();
        assert!(numbers.iter().all(|n| *n < 10) && (0..10).all(|n| numbers.contains(&n)), "{numbers:?}");
        assert_eq!(random.below(0), 0);
        assert_ne!(random.fork().next(), random.fork().next());
    }
}
