//! Which ordered pairs of pods are probed when not all of them are.
//!
//! A pure function of the pods' nodes, the size and the seed: the same lab and the same seed give the same pairs. Half
//! of the pairs are on one node and half across nodes, as far as there are any; every pod occurs before a second pair
//! of it is taken, and no client has two pairs of a kind more than another.

use std::collections::BTreeSet;

/// How many pairs to probe, and which of the many ways to choose them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many ordered pairs; all of them where there are no more.
    pub pairs: usize,
    /// Another seed, other pairs.
    pub seed: u64,
}

/// The pods that pairs are made of.
pub(super) struct Field<'a> {
    /// The node of each pod.
    pub(super) nodes: &'a [usize],
    /// Which pods may be the first of a pair.
    pub(super) clients: &'a [bool],
    /// Pairs on one node are wanted.
    pub(super) same: bool,
    /// Pairs across nodes are wanted.
    pub(super) cross: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Same,
    Cross,
}

impl Field<'_> {
    /// How many pairs there are: on one node, across nodes.
    pub(super) fn possible(&self) -> (usize, usize) {
        let nodes = self.nodes.iter().max().map_or(0, |last| last + 1);
        let mut on = vec![0; nodes];
        self.nodes.iter().for_each(|&node| on[node] += 1);
        let clients = || self.nodes.iter().zip(self.clients).filter(|(_, is_client)| **is_client);
        let same = clients().map(|(&node, _)| on[node] - 1).sum();
        let cross = clients().map(|(&node, _)| self.nodes.len() - on[node]).sum();
        (if self.same { same } else { 0 }, if self.cross { cross } else { 0 })
    }

    fn is(&self, kind: Kind, a: usize, b: usize) -> bool {
        a != b && (self.nodes[a] == self.nodes[b]) == (kind == Kind::Same)
    }
}

/// Chooses the pairs, by the numbers of their pods.
pub(super) fn choose(field: &Field<'_>, sample: Sample) -> BTreeSet<(usize, usize)> {
    let (same, cross) = field.possible();
    let half_cross = sample.pairs.div_ceil(2).min(cross);
    let same = (sample.pairs - half_cross).min(same);
    let cross = (sample.pairs - same).min(cross);
    let mut random = Random(sample.seed);
    let mut order: Vec<usize> = (0..field.nodes.len()).collect();
    random.shuffle(&mut order);
    let mut choice = Choice { field, left: [same, cross], pairs: BTreeSet::new(), random };
    choice.cover(&order);
    choice.fill(Kind::Cross, &order);
    choice.fill(Kind::Same, &order);
    choice.pairs
}

struct Choice<'a> {
    field: &'a Field<'a>,
    /// Pairs still to choose: on one node, across nodes.
    left: [usize; 2],
    pairs: BTreeSet<(usize, usize)>,
    random: Random,
}

impl Choice<'_> {
    fn left(&mut self, kind: Kind) -> &mut usize {
        &mut self.left[kind as usize]
    }

    fn take(&mut self, kind: Kind, pair: (usize, usize)) -> bool {
        let is_new = self.field.clients[pair.0] && *self.left(kind) > 0 && self.pairs.insert(pair);
        *self.left(kind) -= usize::from(is_new);
        is_new
    }

    /// Pairs of pods that have none yet, as long as there are such pods; the last ones with whom there is.
    fn cover(&mut self, order: &[usize]) {
        let mut bare = Bare::new(self.field, order);
        while let Some(a) = bare.next() {
            let kinds = match self.left[0] > self.left[1] {
                true => [Kind::Same, Kind::Cross],
                false => [Kind::Cross, Kind::Same],
            };
            let with_bare = kinds.into_iter().any(|kind| {
                let Some(b) = bare.partner(a, kind) else { return false };
                let pair = if self.random.below(2) == 0 { (a, b) } else { (b, a) };
                let is_taken = self.take(kind, pair) || self.take(kind, (pair.1, pair.0));
                if is_taken {
                    bare.remove(b);
                }
                is_taken
            });
            if !with_bare {
                let start = self.random.below(order.len());
                let mut others = order.iter().cycle().skip(start).take(order.len());
                let field = self.field;
                others.any(|&b| {
                    kinds.into_iter().any(|kind| {
                        field.is(kind, a, b) && (self.take(kind, (a, b)) || self.take(kind, (b, a)))
                    })
                });
            }
        }
    }

    /// The rest of a kind: one pair for each client in turn, with a server from a random place on.
    fn fill(&mut self, kind: Kind, order: &[usize]) {
        while *self.left(kind) > 0 {
            for &a in order {
                let start = self.random.below(order.len());
                let mut servers = order.iter().cycle().skip(start).take(order.len());
                let field = self.field;
                servers.any(|&b| field.is(kind, a, b) && self.take(kind, (a, b)));
            }
        }
    }
}

/// Pods without a pair, by node.
struct Bare {
    nodes: Vec<Vec<usize>>,
    node_of: Vec<usize>,
}

impl Bare {
    fn new(field: &Field<'_>, order: &[usize]) -> Bare {
        let count = field.nodes.iter().max().map_or(0, |last| last + 1);
        let mut nodes = vec![Vec::new(); count];
        order.iter().for_each(|&pod| nodes[field.nodes[pod]].push(pod));
        Bare { nodes, node_of: field.nodes.to_vec() }
    }

    /// The node with the most of them, other than `not`.
    fn fullest(&self, not: Option<usize>) -> Option<usize> {
        let some = self.nodes.iter().enumerate().filter(|(n, pods)| Some(*n) != not && !pods.is_empty());
        some.max_by_key(|(_, pods)| pods.len()).map(|(n, _)| n)
    }

    /// Takes one out, from the node with the most.
    fn next(&mut self) -> Option<usize> {
        let node = self.fullest(None)?;
        self.nodes[node].pop()
    }

    fn partner(&self, a: usize, kind: Kind) -> Option<usize> {
        let node = match kind {
            Kind::Same => Some(self.node_of[a]),
            Kind::Cross => self.fullest(Some(self.node_of[a])),
        };
        self.nodes[node?].last().copied()
    }

    fn remove(&mut self, pod: usize) {
        self.nodes[self.node_of[pod]].pop();
    }
}

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn shuffle(&mut self, items: &mut [usize]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nodes of pods: so many on each.
    fn nodes(on_each: &[usize]) -> Vec<usize> {
        on_each.iter().enumerate().flat_map(|(node, &pods)| vec![node; pods]).collect()
    }

    fn all_clients(on_each: &[usize], pairs: usize, seed: u64) -> (Vec<usize>, BTreeSet<(usize, usize)>) {
        let nodes = nodes(on_each);
        let clients = vec![true; nodes.len()];
        let field = Field { nodes: &nodes, clients: &clients, same: true, cross: true };
        let chosen = choose(&field, Sample { pairs, seed });
        (nodes, chosen)
    }

    fn same(nodes: &[usize], chosen: &BTreeSet<(usize, usize)>) -> usize {
        chosen.iter().filter(|(a, b)| nodes[*a] == nodes[*b]).count()
    }

    #[test]
    fn sample_is_even_and_every_pod_occurs() {
        for (on_each, pairs, wanted_same) in [
            (&[250, 250, 250, 250][..], 1000, 500),
            // Half as many pairs as pods would have to fit without a gap, so a few more.
            (&[250, 250, 250, 250], 520, 260),
            (&[40, 40], 60, 30),
            (&[5, 5, 5], 9, 4),
            // One node: nothing crosses. Pods alone on theirs: everything does.
            (&[9], 20, 20),
            (&[1, 1, 1, 1], 5, 0),
            // No more than 2 on one node.
            (&[2, 1, 1], 8, 2),
        ] {
            // A thousand pods take a while.
            for seed in 0..if pairs < 100 { 20 } else { 2 } {
                let (nodes, chosen) = all_clients(on_each, pairs, seed);
                assert_eq!((chosen.len(), same(&nodes, &chosen)), (pairs, wanted_same), "{on_each:?} {seed}");
                assert!(chosen.iter().all(|(a, b)| a != b));
                let seen: BTreeSet<usize> = chosen.iter().flat_map(|(a, b)| [*a, *b]).collect();
                assert_eq!(seen.len(), nodes.len(), "{on_each:?}, {pairs} pairs, seed {seed}");
            }
        }
    }

    #[test]
    fn small_sample_repeats_no_pod() {
        let (_, chosen) = all_clients(&[50, 50, 50], 40, 3);
        let seen: BTreeSet<usize> = chosen.iter().flat_map(|(a, b)| [*a, *b]).collect();
        assert_eq!(seen.len(), 80);
    }

    #[test]
    fn clients_have_their_turns() {
        let (nodes, chosen) = all_clients(&[20, 20, 20], 1200, 1);
        for pod in 0..nodes.len() {
            let pairs = chosen.iter().filter(|(a, _)| *a == pod).count();
            assert!((18..=24).contains(&pairs), "pod {pod} is the client of {pairs} pairs of 1200");
        }
    }

    #[test]
    fn seed_decides_and_nothing_else() {
        assert_eq!(all_clients(&[30, 30], 50, 7), all_clients(&[30, 30], 50, 7));
        assert_ne!(all_clients(&[30, 30], 50, 7).1, all_clients(&[30, 30], 50, 8).1);
    }

    #[test]
    fn sample_larger_than_the_lab_is_every_pair() {
        let (_, chosen) = all_clients(&[3, 4], 1_000, 1);
        assert_eq!(chosen.len(), 7 * 6);
        assert!(all_clients(&[], 10, 1).1.is_empty());
        assert!(all_clients(&[1], 10, 1).1.is_empty());
        assert!(all_clients(&[3, 4], 0, 1).1.is_empty());
    }

    #[test]
    fn only_clients_begin_and_only_wanted_kinds_are_chosen() {
        let nodes = nodes(&[10, 10]);
        let clients: Vec<bool> = nodes.iter().map(|node| *node == 1).collect();
        let field = Field { nodes: &nodes, clients: &clients, same: false, cross: true };
        assert_eq!(field.possible(), (0, 100));
        let chosen = choose(&field, Sample { pairs: 10, seed: 1 });
        assert_eq!(chosen.len(), 10);
        assert!(chosen.iter().all(|(a, b)| nodes[*a] == 1 && nodes[*b] == 0), "{chosen:?}");
        let seen: BTreeSet<usize> = chosen.iter().flat_map(|(a, b)| [*a, *b]).collect();
        assert_eq!(seen.len(), 20);
    }
}
