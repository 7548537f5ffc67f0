//! Evidence bundles: one file with everything that a verification rests on, so that it can be judged again anywhere.
//!
//! A tar archive, compressed by gzip. Its manifest names each part with its length and SHA-256. What the parts say is for
//! others to judge; here they are put together, and taken apart only when all of them are what the manifest says.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bytes::hex;

pub use read::{Limits, read};
pub use write::write;

/// The name of the manifest's form.
pub const SCHEMA: &str = "podlab.bundle/1";

const MANIFEST: &str = "manifest.json";

/// The parts of a bundle, in the order of the archive.
const PARTS: [&str; 8] = [
    "versions.json",
    "topology.json",
    "cni.ndjson",
    "state-before.json",
    "state-after.json",
    "plan.json",
    "verdicts.json",
    "packets.pcapng",
];

/// What is in a bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Programs and kernel, as JSON.
    pub versions: Vec<u8>,
    /// What the lab was made from, as JSON.
    pub topology: Vec<u8>,
    /// All calls of CNI plugins, a document in a line each.
    pub cni: Vec<u8>,
    /// What `podlab inspect` says of each namespace, as JSON; before the first probe.
    pub state_before: Vec<u8>,
    /// The same after the last one.
    pub state_after: Vec<u8>,
    /// What was to be shown: [`crate::verify::Plan`] as JSON.
    pub plan: Vec<u8>,
    /// What was found: [`crate::verdict::Report`] as JSON.
    pub verdicts: Vec<u8>,
    /// The packets, as pcapng.
    pub packets: Vec<u8>,
}

impl Bundle {
    /// The parts in the order of [`PARTS`].
    fn parts(&self) -> [&Vec<u8>; 8] {
        [
            &self.versions,
            &self.topology,
            &self.cni,
            &self.state_before,
            &self.state_after,
            &self.plan,
            &self.verdicts,
            &self.packets,
        ]
    }

    fn of_parts(
        [versions, topology, cni, state_before, state_after, plan, verdicts, packets]: [Vec<u8>; 8],
    ) -> Self {
        Self { versions, topology, cni, state_before, state_after, plan, verdicts, packets }
    }
}

/// What is in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    schema: String,
    parts: BTreeMap<String, Entry>,
}

/// A part, as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    sha256: String,
}

impl Entry {
    fn of(part: &[u8]) -> Entry {
        Entry { bytes: part.len() as u64, sha256: hex(&Sha256::digest(part)) }
    }
}

impl Manifest {
    fn of(bundle: &Bundle) -> Manifest {
        let entries = PARTS.iter().zip(bundle.parts());
        let parts = entries.map(|(name, part)| ((*name).to_owned(), Entry::of(part))).collect();
        Manifest { schema: SCHEMA.into(), parts }
    }
}
