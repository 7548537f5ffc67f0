//! `dataDir` that cannot be used: a file, unreadable, read-only, full.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use podnet_tests::World;
use podnet_tests::sealed;
use podnet_tests::world::NETWORK;

use super::{Bad, conf};

const IPAM: &str = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
/// Root may read everything, unless it gives these two up.
const WITHOUT_OVERRIDE: &[&str] = &["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"];

pub(super) fn cases() -> Vec<Bad> {
    let mut cases = Vec::new();
    for plugin in ["host-local", "bridge"] {
        cases.extend([
            conf(plugin, "dataDir is a file", IPAM)
                .prepare(|world| Ok(fs::write(world.data(), "x")?))
                .says(5, "ot a directory")
                .other_words(),
            conf(plugin, "the network's directory is a file", IPAM)
                .prepare(|world| {
                    fs::create_dir(world.data())?;
                    Ok(fs::write(world.data().join(NETWORK), "x")?)
                })
                .says(5, "ot a directory")
                .other_words(),
            conf(
                plugin,
                "dataDir cannot be made",
                r#"{"ipam":{"type":"host-local","dataDir":"/proc/none","subnet":"10.1.2.0/24"}}"#,
            )
            .says(5, "/proc/none")
            .other_words(),
            conf(plugin, "dataDir is a loop of links", IPAM)
                .prepare(|world| Ok(std::os::unix::fs::symlink(world.data(), world.data())?))
                .says(5, "ymbolic links")
                .other_words(),
            Bad {
                through: WITHOUT_OVERRIDE,
                ..conf(plugin, "the directory is unreadable", IPAM)
                    .prepare(unreadable)
                    .says(5, "ermission denied")
                    .other_words()
            },
            conf(plugin, "the file system is read-only", IPAM)
                .sealed(|world| {
                    fs::create_dir(world.data())?;
                    sealed::read_only(&world.data())
                })
                .says(5, "ead-only file system")
                .other_words(),
            conf(plugin, "the disk is full", IPAM)
                .sealed(full_of_blocks)
                .says(5, "o space left on device")
                .other_words(),
            conf(plugin, "the disk has no inode left", IPAM)
                .sealed(full_of_files)
                .says(5, "o space left on device")
                .other_words(),
            conf(plugin, "the lock is a directory", IPAM)
                .prepare(|world| Ok(fs::create_dir_all(world.data().join(NETWORK).join("lock"))?))
                .says(5, "s a directory")
                .other_words(),
        ]);
    }
    cases.push(
        conf("host-local", "dataDir is a file", IPAM)
            .verb("CHECK")
            .prepare(|world| Ok(fs::write(world.data(), "x")?))
            .says(5, "ot a directory")
            .other_words(),
    );
    cases
}

fn unreadable(world: &World) -> Result<()> {
    let dir = world.data().join(NETWORK);
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o0)).context("take the permissions away")
}

/// A tmpfs of two pages, both taken; files can be made but hold nothing.
fn full_of_blocks(world: &World) -> Result<()> {
    sealed::tmpfs(&world.data(), "size=8k")?;
    let ballast = world.data().join("ballast");
    let mut chunk = vec![b'x'; 64 << 10];
    while !chunk.is_empty() {
        use std::io::Write;
        let mut file = fs::File::options().append(true).create(true).open(&ballast)?;
        if file.write_all(&chunk).is_err() {
            chunk.truncate(chunk.len() / 2);
        }
    }
    Ok(())
}

/// A tmpfs whose last inode is the network's directory.
fn full_of_files(world: &World) -> Result<()> {
    sealed::tmpfs(&world.data(), "nr_inodes=2")?;
    Ok(fs::create_dir(world.data().join(NETWORK))?)
}
