//! Who is compared.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use podnet_tests::bench::goals::{ANNOUNCED, FLOOR, OURS};
use podnet_tests::plugins;

/// Podman's network program in Debian's package `netavark`.
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// How a peer is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory of CNI plugins.
    Plugins,
    /// Podman's: `setup` and `teardown`, with a configuration of its own.
    Netavark,
    /// The `floor` program.
    Floor,
}

/// Someone who attaches pods.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The directory of the plugins, or the program.
    pub(crate) path: PathBuf,
    /// The key `delete` of our own plugins: whether DEL waits for the kernel, or for its announcement only.
    pub(crate) delete: Option<&'static str>,
}

impl Peer {
    fn plugins(name: &str, path: PathBuf, delete: Option<&'static str>) -> Self {
        Peer { name: name.to_owned(), kind: Kind::Plugins, path, delete }
    }

    /// Whether it has these plugins.
    pub(crate) fn has(&self, plugins: &[&str]) -> bool {
        plugins.iter().all(|plugin| self.path.join(plugin).is_file())
    }

    /// It is one of ours with the quick DEL, which differs in nothing else.
    pub(crate) fn announces(&self) -> bool {
        self.name == ANNOUNCED || self.name == ANNOUNCED_FLOOR
    }
}

/// The floor with the quick DEL.
pub(crate) const ANNOUNCED_FLOOR: &str = "floor-announced";

/// Ours, Debian's, those that were named, Podman's, and the floor, twice each where there are two ways of DEL.
pub(crate) fn all(ours: &Path, floor: &Path, more: &[(String, PathBuf)]) -> Result<Vec<Peer>> {
    let mut peers = vec![
        Peer::plugins(OURS, ours.to_path_buf(), Some("complete")),
        Peer::plugins(ANNOUNCED, ours.to_path_buf(), Some("announced")),
        Peer::plugins("debian", plugins::debian_dir()?, None),
    ];
    for (name, directory) in more {
        ensure!(peers.iter().all(|peer| peer.name != *name), "two peers are named {name}");
        let directory = directory.canonicalize().with_context(|| format!("peer {name}"))?;
        peers.push(Peer::plugins(name, directory, None));
    }
    let netavark = Path::new(NETAVARK);
    ensure!(netavark.is_file(), "{NETAVARK} is missing: install the package netavark");
    peers.push(Peer {
        name: "netavark".into(),
        kind: Kind::Netavark,
        path: netavark.to_path_buf(),
        delete: None,
    });
    for name in [FLOOR, ANNOUNCED_FLOOR] {
        peers.push(Peer { name: name.into(), kind: Kind::Floor, path: floor.to_path_buf(), delete: None });
    }
    Ok(peers)
}

/// The size of a directory's plugins as they are installed: files that are there under several names count once.
pub(crate) fn installed_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = Vec::new();
    let mut bytes = 0;
    for name in plugins::NAMES {
        let Ok(file) = fs::metadata(directory.join(name)) else { continue };
        if !seen.contains(&file.ino()) {
            seen.push(file.ino());
            bytes += file.len();
        }
    }
    Ok(bytes)
}
