//! What the modules share: short ways to write ranges and owners, and a reader of the directory that trusts nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipam::{Owner, RangeConf, RangeSet, Store};
use tempfile::TempDir;

/// The network that all tests use.
pub(crate) const NETWORK: &str = "net";

/// An address.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A range from `subnet[ start[ end[ gateway]]]`, `-` for what is not given.
pub(crate) fn conf(text: &str) -> RangeConf {
    let mut words = text.split(' ');
    let subnet = words.next().expect("a subnet").parse().expect("a subnet");
    let mut next = || words.next().filter(|word| *word != "-").map(ip);
    RangeConf { subnet, range_start: next(), range_end: next(), gateway: next() }
}

/// A set from ranges parted by commas.
pub(crate) fn set(text: &str) -> RangeSet {
    RangeSet::resolve(&text.split(',').map(conf).collect::<Vec<_>>()).expect("a right range set")
}

/// The owner `eth0` of a container.
pub(crate) fn owner(container_id: &str) -> Owner<'_> {
    Owner { container_id, ifname: "eth0" }
}

/// A data directory that goes away with the test.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { dir: tempfile::tempdir().expect("temporary directory") }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn network(&self) -> PathBuf {
        self.data_dir().join(NETWORK)
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.data_dir().join(".podnet").join(NETWORK)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.data_dir(), NETWORK).expect("a store")
    }

    /// A reservation as another program writes it.
    pub(crate) fn write(&self, ip: &str, content: &str) {
        fs::create_dir_all(self.network()).expect("create the network's directory");
        fs::write(self.network().join(ip), content).expect("write a reservation");
    }

    /// The reservations: file name and content.
    pub(crate) fn reservations(&self) -> BTreeMap<String, String> {
        read_reservations(self.data_dir())
    }
}

/// Reads every file that is named as an address; a directory that is not there has none.
pub(crate) fn read_reservations(data_dir: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(data_dir.join(NETWORK)) else { return BTreeMap::new() };
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    names
        .filter(|name| name.parse::<IpAddr>().is_ok())
        .map(|name| {
            let content = fs::read_to_string(data_dir.join(NETWORK).join(&name)).expect("a file");
            (name, content)
        })
        .collect()
}

/// What must hold at every moment, also right after a kill: every reservation is whole, the network's directory holds
/// nothing but what the reference knows, and if the index says that it is complete, it is.
pub(crate) fn assert_never_half_done(data_dir: &Path) {
    for (name, content) in read_reservations(data_dir) {
        assert!(content.contains("\r\n"), "reservation {name} is half-written: {content:?}");
    }
    let Ok(entries) = fs::read_dir(data_dir.join(NETWORK)) else { return };
    for entry in entries {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        let known = name == "lock" || name.starts_with("last_reserved_ip.") || name.parse::<IpAddr>().is_ok();
        assert!(known && entry.file_type().expect("a type").is_file(), "{name} stands in the way");
        if name.starts_with("last_reserved_ip.") {
            let text = fs::read_to_string(entry.path()).expect("a file");
            assert!(text.parse::<IpAddr>().is_ok(), "{name} holds {text:?}");
        }
    }
    if index_claims_to_be_complete(data_dir) {
        assert_index_agrees(data_dir);
    }
}

/// Whether the two directories bear the same, fabricated time.
pub(crate) fn index_claims_to_be_complete(data_dir: &Path) -> bool {
    let time = |path: PathBuf| fs::metadata(path).ok().map(|meta| (meta.mtime(), meta.mtime_nsec()));
    let network = time(data_dir.join(NETWORK));
    network.is_some_and(|(seconds, _)| seconds < 1 << 30)
        && network == time(data_dir.join(".podnet").join(NETWORK))
}

/// The index holds a link for each reservation and nothing else.
pub(crate) fn assert_index_agrees(data_dir: &Path) {
    let mut expected: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (name, content) in read_reservations(data_dir) {
        expected.entry(fnv(content.trim())).or_default().push(name);
    }
    let mut actual: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut numbers: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for entry in fs::read_dir(data_dir.join(".podnet").join(NETWORK)).expect("the index") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        let target = fs::read_link(entry.path()).unwrap_or_else(|err| panic!("{name} in the index: {err}"));
        let (hash, number) = name.split_once('.').expect("hash and number");
        let hash = u64::from_str_radix(hash, 16).expect("a hash");
        actual.entry(hash).or_default().push(target.to_str().expect("UTF-8").to_owned());
        numbers.entry(hash).or_default().push(number.parse().expect("a number"));
    }
    for files in actual.values_mut() {
        files.sort();
    }
    assert_eq!(actual, expected, "index and reservations");
    for list in numbers.values_mut() {
        list.sort_unstable();
        assert!(list.iter().copied().eq(0..list.len()), "a gap: {list:?}");
    }
}

/// FNV-1a, written again so that the crate's own is checked.
pub(crate) fn fnv(text: &str) -> u64 {
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in text.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    hash
}

/// Marsaglia's xorshift: the same sequence for the same seed.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
