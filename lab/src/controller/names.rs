//! Names of pods that a controller makes: its own name and five characters, which follow from the lab's seed alone.
//!
//! Suffixes are a walk through all there are with one step size, so none comes twice before every third of all 14
//! million has been. Without a seed the walk begins as the pods of the seed document are called.

/// The characters of Kubernetes' own suffixes: no vowels, so that no words come about.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Characters of a suffix.
const LENGTH: usize = 5;
/// How many suffixes there are.
const ALL: u64 = 27 * 27 * 27 * 27 * 27;
/// Where the walk without a seed begins: `dbfj2`.
const START: u64 = 1_065_251;
/// From `dbfj2` to `j7cct`.
const STEP: u64 = 2_596_558;

/// The names still to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    next: u64,
    step: u64,
}

impl Names {
    /// The names of a lab with this seed.
    pub fn of(seed: Option<u64>) -> Self {
        match seed {
            None => Self { next: START, step: STEP },
            Some(seed) => Self { next: mixed(seed) % ALL, step: mixed(!seed) % (ALL - 1) + 1 },
        }
    }

    /// The next pod's name of `controller`.
    pub fn next(&mut self, controller: &str) -> String {
        let name = format!("{controller}-{}", suffix(self.next));
        self.next = (self.next + self.step) % ALL;
        name
    }
}

fn suffix(number: u64) -> String {
    let mut rest = number;
    let mut text = [0; LENGTH];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(rest % 27) as usize];
        rest /= 27;
    }
    text.iter().map(|&byte| char::from(byte)).collect()
}

/// SplitMix64's mixing of a number.
fn mixed(number: u64) -> u64 {
    let a = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ a >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ b >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ c >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn first(seed: Option<u64>, count: usize) -> Vec<String> {
        let mut names = Names::of(seed);
        (0..count).map(|_| names.next("kubia")).collect()
    }

    #[test]
    fn without_a_seed_pods_are_called_as_in_the_document() {
        assert_eq!(first(None, 3), ["kubia-dbfj2", "kubia-j7cct", "kubia-p286n"]);
    }

    #[test]
    fn a_seed_gives_the_same_names_every_time_and_another_seed_others() {
        assert_eq!(first(Some(7), 10), first(Some(7), 10));
        assert_ne!(first(Some(7), 10), first(Some(8), 10));
        for seed in [None, Some(0), Some(7), Some(u64::MAX)] {
            assert_eq!(first(seed, 1000).into_iter().collect::<BTreeSet<_>>().len(), 1000, "{seed:?}");
        }
    }
}
