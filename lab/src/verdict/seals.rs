//! Encrypted packets between nodes: which were seen when. What is in them cannot be read, so a probe's packet is matched
//! by time: between its last sighting on one node and its first on the other there must be one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::encap::Seal;
use crate::fabric::UPLINK;
use crate::sighting::{Direction, Sighting};

use super::finding::{Finding, Way};
use super::report::OnWire;

/// Namespace and direction at its uplink, outer source and destination.
type Place = (String, Direction, IpAddr, IpAddr);

/// When encrypted packets passed the uplinks of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seals(HashMap<Place, Vec<(u64, Seal)>>);

impl Seals {
    /// Of all sightings, which must be in order of time.
    pub fn of(sightings: &[Sighting]) -> Seals {
        let mut seals = Seals::default();
        for s in sightings.iter().filter(|s| s.at.interface == UPLINK) {
            let Some(ip) = s.ip() else { continue };
            let Some(seal) = Seal::of(ip) else { continue };
            let place = (s.at.space.clone(), s.direction, ip.source, ip.target);
            seals.0.entry(place).or_default().push((s.stamp_ns, seal));
        }
        seals
    }

    /// How many left a node, by form.
    pub fn sent(&self) -> Vec<OnWire> {
        let left = self.0.iter().filter(|(place, _)| place.1 == Direction::Out).flat_map(|(_, all)| all);
        let mut counts: BTreeMap<Seal, usize> = BTreeMap::new();
        left.for_each(|(_, seal)| *counts.entry(*seal).or_insert(0) += 1);
        let words = |seal| format!("{seal} from node to node: nothing of the pods' packets can be read");
        counts.into_iter().map(|(seal, packets)| OnWire { looks: words(seal), packets }).collect()
    }

    /// One passed there from the first moment to the second, in nanoseconds.
    fn is_between(&self, place: &Place, from: u64, until: u64) -> bool {
        let all = self.0.get(place).map(Vec::as_slice).unwrap_or_default();
        let first = all.partition_point(|(stamp, _)| *stamp < from);
        all.get(first).is_some_and(|(stamp, _)| *stamp <= until)
    }
}

/// The finding when no encrypted packet was seen to carry the probe's from node to node.
pub(super) fn judge(
    way: Way,
    (near, far): (&(String, IpAddr), &(String, IpAddr)),
    sightings: &[&Sighting],
    seals: &Seals,
) -> Option<Finding> {
    let stamps = |space: &str| -> Vec<u64> {
        sightings.iter().filter(|s| s.at.space == space).map(|s| s.stamp_ns).collect()
    };
    let (left, came) = (stamps(&near.0).into_iter().max()?, stamps(&far.0).into_iter().min()?);
    let places = [(&near.0, Direction::Out), (&far.0, Direction::In)];
    let missing: Vec<String> = places
        .into_iter()
        .filter(|(space, direction)| {
            !seals.is_between(&((*space).clone(), *direction, near.1, far.1), left, came)
        })
        .map(|(space, direction)| format!("{space}/{UPLINK} {direction}"))
        .collect();
    (!missing.is_empty()).then_some(Finding::NotSealed { way, missing })
}
