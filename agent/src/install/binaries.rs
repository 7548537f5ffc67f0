//! The plugins in the runtime's directory.
//!
//! `podnet install` does the linking; here is what a node needs beside that. The executable itself is kept in
//! `.podnet/` of the directory, under a name that has its digest, so that what is ours is known by its inode, whatever
//! its version. A program of another kind that stands under a name which our network needs is kept in
//! `.podnet/replaced/` and put back by [`remove`]; under a name which our network does not need it is left where it is.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cni::runtime::Runtime;
use sha2::{Digest, Sha256};

use super::{conflist, files};

/// Ours alone, in the runtime's directory of plugins.
const KEPT: &str = ".podnet";
/// Below that: what stood under our names before.
const REPLACED: &str = "replaced";
/// How the kept executable's name begins; the rest is of its digest.
const EXECUTABLE: &str = "podnet-";
/// How long a plugin may take to say its versions.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an installation found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// The plugins that are ours now.
    pub names: Vec<String>,
    /// Those of them whose place another program had, which is kept.
    pub replaced: Vec<String>,
    /// Plugins of podnet's that the network does not need and whose place another program has. They are not ours.
    pub left: Vec<String>,
    /// Whether anything was changed.
    pub changed: bool,
}

/// Puts the plugins of the executable `from` into `dir` and runs each once, so that a conflist is not written for
/// plugins that do not run.
///
/// # Errors
/// What could not be read, written or run, with the words of the kernel or the plugin.
pub fn install(from: &Path, dir: &Path) -> Result<Installed> {
    let content = fs::read(from).with_context(|| format!("read the plugins {}", from.display()))?;
    fs::create_dir_all(dir.join(KEPT)).with_context(|| format!("create {}", dir.join(KEPT).display()))?;
    let executable = dir.join(KEPT).join(format!("{EXECUTABLE}{}", digest(&content)));
    let mut done = Installed::default();
    if fs::read(&executable).ok().as_ref() != Some(&content) {
        files::put(&executable, &content, 0o755)?;
        done.changed = true;
    }
    let own = inode(&executable);
    let ours = kept_inodes(dir)?;
    for name in listed(&executable)? {
        let path = dir.join(&name);
        let there = inode(&path);
        let is_ours =
            there.is_some_and(|it| ours.contains(&it)) || fs::read(&path).is_ok_and(|it| it == content);
        let is_needed = conflist::PLUGINS.contains(&name.as_str());
        if there.is_some() && !is_ours {
            if !is_needed {
                done.left.push(name);
                continue;
            }
            keep_aside(dir, &name)?;
            done.replaced.push(name.clone());
        }
        done.changed |= there != own;
        done.names.push(name);
    }
    if let Some(missing) = conflist::PLUGINS.iter().find(|it| !done.names.iter().any(|name| name == *it)) {
        bail!(
            "{} has no plugin {missing:?} · try: an image whose podnet and podnetd are of one version",
            from.display()
        );
    }
    if done.changed {
        link(&executable, dir, &done.names)?;
    }
    check(dir, done.names.iter().map(String::as_str))?;
    // Older versions are of use to nobody, once no name leads to them.
    for name in files::names(&dir.join(KEPT))? {
        let path = dir.join(KEPT).join(&name);
        if name.starts_with(EXECUTABLE) && path != executable {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(done)
}

/// Runs each plugin once (CNI's VERSION): whether it is there, may be run, and knows the conflist's version.
///
/// # Errors
/// The first that fails, with its words.
pub fn check<'a>(dir: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let runtime = Runtime { path: vec![dir.to_owned()], cache: None, timeout: Some(PATIENCE) };
    for name in names {
        let versions = runtime.versions(name).outcome.map_err(|err| {
            let details = err.details.trim();
            let more = if details.is_empty() { String::new() } else { format!(": {details}") };
            anyhow::anyhow!("run plugin {}: {}{more}", dir.join(name).display(), err.msg)
        })?;
        ensure!(
            versions.iter().any(|version| version == conflist::VERSION),
            "plugin {} knows CNI versions {}, not {}",
            dir.join(name).display(),
            versions.join(", "),
            conflist::VERSION
        );
    }
    Ok(())
}

/// What [`remove`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Plugins that are gone.
    pub removed: Vec<String>,
    /// Plugins in whose place stands again what stood there before.
    pub restored: Vec<String>,
}

/// Takes our plugins out of the directory, and nothing else: each name that is one file with an executable we keep.
/// What they had replaced is put back.
///
/// # Errors
/// What could not be read, moved or removed; another call goes on from there.
pub fn remove(dir: &Path) -> Result<Removed> {
    let mut done = Removed::default();
    let ours = kept_inodes(dir)?;
    for name in files::names(dir)? {
        let path = dir.join(&name);
        if !inode(&path).is_some_and(|it| ours.contains(&it)) {
            continue;
        }
        let before = dir.join(KEPT).join(REPLACED).join(&name);
        if files::unless_absent(fs::rename(&before, &path))
            .with_context(|| format!("put {} back", path.display()))?
        {
            done.restored.push(name);
        } else {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            done.removed.push(name);
        }
    }
    // By now no name leads to what is kept, and nothing of it is of use.
    let kept = dir.join(KEPT);
    files::unless_absent(fs::remove_dir_all(&kept)).with_context(|| format!("remove {}", kept.display()))?;
    if dir.exists() {
        files::flush_parent(&kept)?;
    }
    Ok(done)
}

/// The plugins that an executable of podnet's has.
fn listed(executable: &Path) -> Result<Vec<String>> {
    let output = run(executable, &["list"])?;
    Ok(output.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Gives the executable the names of plugins, each replaced atomically.
fn link(executable: &Path, dir: &Path, names: &[String]) -> Result<()> {
    let dir = dir.to_str().with_context(|| format!("{} is no text", dir.display()))?;
    let mut words = vec!["install", dir];
    words.extend(names.iter().map(String::as_str));
    run(executable, &words).map(drop)
}

fn run(executable: &Path, words: &[&str]) -> Result<String> {
    let about = || format!("run {} {}", executable.display(), words[0]);
    let output = start(executable, words).with_context(about)?;
    ensure!(
        output.status.success(),
        "{}: {}: {}",
        about(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).with_context(about)
}

/// A child that another thread is starting may hold, until it has become another program, the descriptor by which the
/// executable was just written; so long the kernel refuses to run it.
fn start(executable: &Path, words: &[&str]) -> io::Result<Output> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Command::new(executable).args(words).env_clear().stdin(Stdio::null()).output() {
            Err(err) if err.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Gives what stands under a name a second one, where [`remove`] finds it.
fn keep_aside(dir: &Path, name: &str) -> Result<()> {
    let (path, kept) = (dir.join(name), dir.join(KEPT).join(REPLACED).join(name));
    let parent = dir.join(KEPT).join(REPLACED);
    fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
    let draft = files::beside(&kept);
    let moved = (|| {
        files::unless_absent(fs::remove_file(&draft))?;
        // A second name needs no room, but not everybody may give one to another user's file.
        fs::hard_link(&path, &draft).or_else(|_| fs::copy(&path, &draft).map(drop))?;
        fs::rename(&draft, &kept)?;
        // rename(2) does nothing when both names are the same file already.
        files::unless_absent(fs::remove_file(&draft))
    })();
    moved.with_context(|| format!("keep {} as {}", path.display(), kept.display()))?;
    files::flush_parent(&kept)
}

/// What tells the executables that we keep from all other files.
fn kept_inodes(dir: &Path) -> Result<HashSet<(u64, u64)>> {
    let kept = dir.join(KEPT);
    let names = files::names(&kept)?;
    let executables = names.iter().filter(|name| name.starts_with(EXECUTABLE));
    Ok(executables.filter_map(|name| inode(&kept.join(name))).collect())
}

fn inode(path: &PathBuf) -> Option<(u64, u64)> {
    // A link's own, so that a link to one of ours is not taken for it.
    fs::symlink_metadata(path).ok().filter(|it| it.is_file()).map(|it| (it.dev(), it.ino()))
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
