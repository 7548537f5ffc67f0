//! The index by owner: symbolic links in a directory of our own that say which reservations hold which content.
//!
//! A reservation with content C stands as `<hash of C>.<n>` with the reservation's file name as target; links of one
//! hash are numbered from 0 without a gap, so all are found by reading until one is missing. A link is a hint: what it
//! leads to is read before it is believed, so two contents of one hash do no harm. Whether the index as a whole may be
//! believed is not decided here but in [`crate::session`].

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;

use crate::directory::{Content, Directory};
use crate::{Error, Result};

/// One reservation as it stands on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// The file's name, which is the address as someone wrote it.
    pub(crate) file: OsString,
    /// The address.
    pub(crate) address: IpAddr,
    /// What the file holds, white space at both ends removed: `<container id>\r\n<ifname>` or `<container id>`.
    pub(crate) content: Vec<u8>,
}

/// The open index directory of one network.
#[derive(Debug)]
pub(crate) struct Index {
    directory: Directory,
}

impl Index {
    /// Opens the index; `None` if there is none yet.
    pub(crate) fn open(path: &Path) -> Result<Option<Index>> {
        Ok(Directory::open(path)?.map(|directory| Index { directory }))
    }

    /// Makes the index directory, for the owner's eyes only, and opens it.
    pub(crate) fn create(path: &Path) -> Result<Index> {
        make_directory(path, 0o700)?;
        let gone = || Error::Io { action: "open directory", path: path.to_owned(), errno: Errno::ENOENT };
        Index::open(path)?.ok_or_else(gone)
    }

    /// The directory, which also holds what is being written.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The reservations with this content. `None` if what is found contradicts the index.
    pub(crate) fn lookup(&self, network: &Directory, content: &[u8]) -> Result<Option<Vec<Reservation>>> {
        let hash = hash(content);
        let mut found = Vec::new();
        for file in self.targets(hash)? {
            let Some(address) = parse(&file) else { return Ok(None) };
            let Content::Bytes(bytes) = network.read(&file)? else { return Ok(None) };
            let actual = trim(&bytes);
            if actual == content {
                found.push(Reservation { file, address, content: actual.to_vec() });
            } else if self::hash(actual) != hash {
                return Ok(None);
            }
        }
        found.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(Some(found))
    }

    /// Adds a reservation.
    pub(crate) fn add(&self, content: &[u8], file: &OsStr) -> Result<()> {
        let hash = hash(content);
        self.directory.symlink(&link_name(hash, self.targets(hash)?.len()), file)
    }

    /// Takes a reservation out, moving the last link of its hash into the gap.
    pub(crate) fn remove(&self, content: &[u8], file: &OsStr) -> Result<()> {
        let hash = hash(content);
        let targets = self.targets(hash)?;
        let Some(gap) = targets.iter().position(|target| target == file) else { return Ok(()) };
        let (gap_name, last_name) = (link_name(hash, gap), link_name(hash, targets.len() - 1));
        if gap_name == last_name {
            self.directory.unlink(&gap_name)?;
            return Ok(());
        }
        self.directory
            .rename(&self.directory, &last_name, &gap_name)
            .map_err(|errno| self.directory.error("replace", &gap_name, errno))
    }

    /// Makes the index say exactly this, whatever it said before; right links stay untouched. Other names, among them
    /// what a crash left half-written, are removed.
    pub(crate) fn rewrite(&self, reservations: &[Reservation]) -> Result<()> {
        let mut sorted: Vec<(u64, &OsStr)> =
            reservations.iter().map(|one| (hash(&one.content), one.file.as_os_str())).collect();
        sorted.sort_unstable();
        let mut wanted: HashMap<OsString, &OsStr> = HashMap::with_capacity(sorted.len());
        let (mut number, mut previous) = (0, None);
        for (hash, file) in sorted {
            number = if previous == Some(hash) { number + 1 } else { 0 };
            previous = Some(hash);
            wanted.insert(link_name(hash, number), file);
        }
        for name in self.directory.names()? {
            if let Some(target) = wanted.get(&name)
                && self.directory.read_link(&name)?.as_deref() == Some(*target)
            {
                wanted.remove(&name);
            } else {
                self.directory.unlink(&name)?;
            }
        }
        for (name, file) in wanted {
            self.directory.symlink(&name, file)?;
        }
        Ok(())
    }

    fn targets(&self, hash: u64) -> Result<Vec<OsString>> {
        let mut targets = Vec::new();
        while let Some(target) = self.directory.read_link(&link_name(hash, targets.len()))? {
            targets.push(target);
        }
        Ok(targets)
    }
}

fn link_name(hash: u64, number: usize) -> OsString {
    format!("{hash:016x}.{number}").into()
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): stable for ever, as it stands on disk.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The address that a file name says, if it is one.
pub(crate) fn parse(file: &OsStr) -> Option<IpAddr> {
    file.to_str()?.parse().ok().map(crate::range::canonical)
}

/// White space at both ends does not count, as in the reference.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.trim_ascii(), |text| text.trim().as_bytes())
}

/// Makes a directory and its parents; one that is there is fine.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|err| Error::Io {
        action: "create directory",
        path: path.to_owned(),
        errno: Errno::from_raw(err.raw_os_error().unwrap_or(Errno::EIO as i32)),
    })
}

/// A network's name as a directory's: not empty, no path, not hidden, so that it meets nothing of ours.
pub(crate) fn is_network_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.as_bytes().iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn reservation(ip: &str, content: &str) -> Reservation {
        Reservation {
            file: ip.into(),
            address: ip.parse().expect("an address"),
            content: content.as_bytes().to_vec(),
        }
    }

    #[test]
    fn hash_is_the_published_one() {
        // Test vectors of draft-eastlake-fnv.
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn links_of_one_hash_stay_without_gap_whichever_is_removed() {
        for removed in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
            let dir = tempfile::tempdir().expect("temporary directory");
            let network = Directory::open(dir.path()).expect("open").expect("there");
            let index = Index::create(&dir.path().join("index")).expect("create");
            for ip in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
                assert!(network.create(OsStr::new(ip), b"c\r\neth0").expect("create"));
                index.add(b"c\r\neth0", OsStr::new(ip)).expect("add");
            }
            assert!(network.unlink(OsStr::new(removed)).expect("unlink"));
            index.remove(b"c\r\neth0", OsStr::new(removed)).expect("remove");
            let found = index.lookup(&network, b"c\r\neth0").expect("lookup").expect("sound");
            assert_eq!(found.len(), 2);
            assert!(found.iter().all(|one| one.file != OsStr::new(removed)));
            index.remove(b"c\r\neth0", OsStr::new("10.9.9.9")).expect("what is not there is no error");
        }
    }

    #[test]
    fn contents_of_one_hash_are_told_apart_by_reading() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let network = Directory::open(dir.path()).expect("open").expect("there");
        let index = Index::create(&dir.path().join("index")).expect("create");
        // A known collision; what follows two equal hashes keeps them equal.
        let (one, two): (&[u8], &[u8]) = (b"7mohtcOFVz\r\neth0", b"c1E51sSEyx\r\neth0");
        assert_eq!(hash(one), hash(two));
        for (ip, content) in [("10.0.0.2", one), ("10.0.0.3", two), ("10.0.0.4", one)] {
            network.create(OsStr::new(ip), content).expect("create");
            index.add(content, OsStr::new(ip)).expect("add");
        }
        let files = |content| {
            let found = index.lookup(&network, content).expect("lookup").expect("sound");
            found.into_iter().map(|one| one.file).collect::<Vec<_>>()
        };
        assert_eq!(files(one), ["10.0.0.2", "10.0.0.4"]);
        assert_eq!(files(two), ["10.0.0.3"]);
        network.unlink(OsStr::new("10.0.0.2")).expect("unlink");
        index.remove(one, OsStr::new("10.0.0.2")).expect("remove");
        assert_eq!(files(one), ["10.0.0.4"]);
        assert_eq!(files(two), ["10.0.0.3"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_or_elsewhere_is_a_contradiction() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let network = Directory::open(dir.path()).expect("open").expect("there");
        let index = Index::create(&dir.path().join("index")).expect("create");
        index.add(b"a", OsStr::new("10.0.0.2")).expect("add");
        assert_eq!(index.lookup(&network, b"a").expect("lookup"), None);
        network.create(OsStr::new("10.0.0.2"), b"b").expect("create");
        assert_eq!(index.lookup(&network, b"a").expect("lookup"), None);
        index.add(b"c", OsStr::new("../10.0.0.2")).expect("add");
        assert_eq!(index.lookup(&network, b"c").expect("lookup"), None);
        assert_eq!(index.lookup(&network, b"d").expect("lookup"), Some(vec![]));
    }

    #[test]
    fn rewrite_leaves_what_is_right_and_removes_the_rest() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let index = Index::create(dir.path()).expect("create");
        let all = [reservation("10.0.0.2", "a"), reservation("10.0.0.3", "a"), reservation("fd00::2", "b")];
        index.rewrite(&all).expect("rewrite");
        let right = link_name(hash(b"a"), 0);
        let inode = || std::fs::symlink_metadata(dir.path().join(&right)).expect("there").ino();
        let kept = inode();
        index.directory.create(OsStr::new("reservation"), b"half").expect("create");
        index.directory.unlink(&link_name(hash(b"b"), 0)).expect("unlink");
        index.directory.symlink(&link_name(7, 0), OsStr::new("10.0.0.9")).expect("symlink");
        index.rewrite(&all).expect("rewrite");
        assert_eq!(inode(), kept);
        let mut names = index.directory.names().expect("names");
        names.sort();
        let mut expected = vec![right, link_name(hash(b"a"), 1), link_name(hash(b"b"), 0)];
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_network_name_is_one_visible_name() {
        for good in ["net", "a.b", "A_b-c.1", "ü"] {
            assert!(is_network_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".podnet", "a/b", "/", "a\0b"] {
            assert!(!is_network_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn white_space_around_the_content_does_not_count() {
        for bytes in [b"c\r\neth0".as_slice(), b" c\r\neth0\n", b"\tc\r\neth0\r\n"] {
            assert_eq!(trim(bytes), b"c\r\neth0");
        }
        assert_eq!(trim(b"\xff \n"), b"\xff");
        assert_eq!(trim(" \u{a0}c\u{85}".as_bytes()), b"c");
    }
}
