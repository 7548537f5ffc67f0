//! `podnet install DIR` and `podnet list [DIR]`: the plugin names in a plugin directory.
//!
//! One file holds the executable, every name is a hard link of it; where the directory is on another
//! file system the executable is copied there once. Each name is put in place by rename, so a runtime
//! that starts a plugin at that moment gets the old one or the new one, never half of one. It does not
//! write network configurations.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::applet::{self, APPLETS, Kind};

/// `podnet install DIR [PLUGIN...]`: exit code 0 done, 1 not done, 2 wrong use.
pub(crate) fn install(words: &[&str]) -> u8 {
    let [dir, names @ ..] = words else {
        eprintln!("error: install needs a directory · try: podnet install /opt/cni/bin");
        return 2;
    };
    if let Some(unknown) = names.iter().find(|name| applet::find(name).is_none()) {
        eprintln!("error: no plugin {unknown:?} in this executable · try: podnet list");
        return 2;
    }
    let names: Vec<&str> =
        if names.is_empty() { APPLETS.iter().map(|applet| applet.name).collect() } else { names.to_vec() };
    match install_names(Path::new(dir), &names) {
        Ok(()) => applet::print(&format!("{dir}: {}\n", names.join(" "))),
        Err((path, err)) => {
            eprintln!("error: install {}: {err} · try: a directory that you may write", path.display());
            1
        }
    }
}

type Failure = (PathBuf, io::Error);

fn install_names(dir: &Path, names: &[&str]) -> Result<(), Failure> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |err| (path, err)
    };
    let this = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    fs::create_dir_all(dir).map_err(at(dir))?;
    let temp = |name: &str| dir.join(format!(".podnet-{}-{name}", std::process::id()));
    let master = temp("executable");
    let done = (|| {
        if fs::hard_link(&this, &master).is_err() {
            copy_durably(&this, &master).map_err(at(&master))?;
        }
        for name in names {
            let (link, target) = (temp(name), dir.join(name));
            fs::hard_link(&master, &link).map_err(at(&link))?;
            // rename(2) does nothing when both names are the same file already.
            let moved = fs::rename(&link, &target).map_err(at(&target));
            let _ = fs::remove_file(&link);
            moved?;
        }
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
    })();
    let _ = fs::remove_file(&master);
    done
}

fn copy_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    File::open(to)?.sync_all()
}

/// `podnet list [DIR]`: exit code 0; 1 when DIR cannot be read or lacks a plugin, 2 wrong use.
pub(crate) fn list(words: &[&str]) -> u8 {
    match words {
        [] => {
            let lines: Vec<String> = APPLETS
                .iter()
                .map(|applet| format!("{:<12} {:<10} {}\n", applet.name, kind(applet.kind), applet.about))
                .collect();
            applet::print(&lines.concat())
        }
        [dir] => list_dir(Path::new(dir)),
        _ => {
            eprintln!("error: list takes one directory at most · try: podnet list /opt/cni/bin");
            2
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Interface => "interface",
        Kind::Ipam => "ipam",
        Kind::Meta => "chained",
    }
}

fn list_dir(dir: &Path) -> u8 {
    if let Err(err) = fs::read_dir(dir) {
        eprintln!("error: list {}: {err} · try: podnet install {}", dir.display(), dir.display());
        return 1;
    }
    let this = fs::metadata("/proc/self/exe").ok();
    let mut missing = 0;
    let mut text = String::new();
    for applet in APPLETS {
        let path = dir.join(applet.name);
        let state = match (fs::metadata(&path), &this) {
            (Ok(there), Some(this)) if (there.dev(), there.ino()) == (this.dev(), this.ino()) => {
                "this executable"
            }
            (Ok(_), _) if same_content(&path) => "podnet, the same version",
            (Ok(_), _) => "another program",
            (Err(_), _) => {
                missing += 1;
                "missing"
            }
        };
        text.push_str(&format!("{:<12} {:<10} {state}\n", applet.name, kind(applet.kind)));
    }
    applet::print(&text).max(u8::from(missing > 0))
}

fn same_content(path: &Path) -> bool {
    let Ok(this) = std::env::current_exe() else { return false };
    let size = |path: &Path| fs::metadata(path).map(|meta| meta.len()).ok();
    size(&this) == size(path)
        && matches!((fs::read(&this), fs::read(path)), (Ok(ours), Ok(theirs)) if ours == theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<&str> = APPLETS.iter().map(|applet| applet.name).collect();
        install_names(dir.path(), &names).unwrap();
        install_names(dir.path(), &names).unwrap();
        let inodes: std::collections::HashSet<u64> =
            names.iter().map(|name| fs::metadata(dir.path().join(name)).unwrap().ino()).collect();
        assert_eq!(inodes.len(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), names.len(), "no temporary file is left");
    }

    #[test]
    fn a_name_that_is_a_directory_is_refused_and_nothing_temporary_is_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bridge")).unwrap();
        let (path, _) = install_names(dir.path(), &["bridge"]).unwrap_err();
        assert_eq!(path, dir.path().join("bridge"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
