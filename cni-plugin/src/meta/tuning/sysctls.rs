//! One sysctl of the pod: which file a key means, writing it, comparing it.

use std::path::Path;
use std::rc::Rc;

use cni::{Error, Undo};
use kernel::{Netns, sysctl};

use crate::interface::attach::failed;

/// A sysctl to set.
#[derive(Debug)]
pub(super) struct Sysctl {
    /// The key as written.
    pub(super) key: String,
    /// The value as written.
    pub(super) value: String,
    /// The files below /proc/sys that the key may mean; the first that exists is meant.
    paths: Vec<String>,
}

impl Sysctl {
    /// Finds what the key may mean.
    ///
    /// A key is read as the reference reads it, both `.` and `/` separate and the first IFNAME stands for
    /// the interface; then as sysctl(8) does, where only the first kind of separator separates and the other
    /// stands for a dot (`net/ipv4/conf/eth0.5/rp_filter`, `net.ipv4.conf.eth0/5.rp_filter`); then with the
    /// interface's own name, dots and all, written out.
    ///
    /// # Errors
    /// Code 7: it lies outside of `net`.
    pub(super) fn resolve(key: String, value: String, ifname: &str) -> Result<Self, Error> {
        let interface = |text: &str| text.replacen("IFNAME", ifname, 1);
        let first = interface(&key.replace('.', "/"));
        let swapped = match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
            Some(b'.') => key
                .chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect(),
            _ => key.clone(),
        };
        let mut readings = vec![first.clone(), interface(&swapped)];
        if ifname.contains('.') {
            readings.push(interface(&key.replacen(ifname, "IFNAME", 1).replace('.', "/")));
        }
        let mut paths = Vec::new();
        for path in readings.iter().filter_map(|reading| below_net(reading)) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(Error::invalid(format!("invalid net sysctl key: {first:?}")));
        }
        Ok(Self { key, value, paths })
    }

    /// Whether two keys mean one file.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.paths == other.paths
    }

    /// The file that is meant, in the calling thread's netns; what exists nowhere is the first reading's.
    fn path(&self) -> &str {
        let exists = |path: &&String| Path::new("/proc/sys").join(path).exists();
        self.paths.iter().find(exists).or(self.paths.first()).map_or("", String::as_str)
    }
}

/// A path without empty parts, if it lies below `net`.
fn below_net(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let inside = parts.first() == Some(&"net") && parts.len() > 1 && !parts.contains(&"..");
    inside.then(|| parts.join("/"))
}

/// Whether two values are the same number or words, whatever stands between them.
fn is_equal(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

/// Writes the value in the pod. One that is right already is not written, so that a read-only /proc/sys does
/// no harm then; one that cannot be read (route/flush) is.
pub(super) fn set(netns: &Rc<Netns>, wanted: &Sysctl, undo: &mut Undo) -> Result<(), Error> {
    let write = || -> kernel::Result<Option<(String, String)>> {
        let path = wanted.path();
        let before = sysctl::read(path).ok();
        if before.as_deref().is_some_and(|before| is_equal(before, &wanted.value)) {
            return Ok(None);
        }
        sysctl::write(path, &wanted.value)?;
        Ok(before.map(|before| (path.to_owned(), before)))
    };
    let before = run(netns, write)?.map_err(failed(format!("sysctl {}", wanted.key)))?;
    if let Some((path, before)) = before {
        let netns = Rc::clone(netns);
        undo.push("write the sysctl back", move || {
            netns.run(|| sysctl::write(&path, &before)).and_then(|done| done).map_err(|err| err.to_string())
        });
    }
    Ok(())
}

/// CHECK of one value.
///
/// # Errors
/// It is another, or the sysctl is not there.
pub(super) fn check(netns: &Netns, wanted: &Sysctl) -> Result<(), Error> {
    const EACCES: i32 = nix::errno::Errno::EACCES as i32;
    match run(netns, || sysctl::read(wanted.path()))? {
        Ok(is) if is_equal(&is, &wanted.value) => Ok(()),
        Ok(is) => Err(Error::internal(format!(
            "tuning configured value of {} is {}, current value is {is}",
            wanted.key, wanted.value
        ))),
        // One that can only be written, such as route/flush, holds nothing to compare.
        Err(err) if err.errno() == Some(EACCES) => Ok(()),
        Err(err) => Err(failed(format!("sysctl {}", wanted.key))(err)),
    }
}

fn run<T>(netns: &Netns, f: impl FnOnce() -> T) -> Result<T, Error> {
    netns.run(f).map_err(failed("enter the pod's netns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(key: &str, ifname: &str) -> Vec<String> {
        Sysctl::resolve(key.into(), "1".into(), ifname).map(|sysctl| sysctl.paths).unwrap_or_default()
    }

    #[test]
    fn both_separators_separate_and_the_first_ifname_is_the_interface() {
        let expected = ["net/ipv4/conf/eth0/rp_filter"];
        for key in [
            "net.ipv4.conf.IFNAME.rp_filter",
            "net/ipv4/conf/IFNAME/rp_filter",
            "/net/ipv4/conf/eth0/rp_filter",
            "net..ipv4.conf.eth0.rp_filter",
        ] {
            assert_eq!(paths(key, "eth0")[0], expected[0], "{key}");
        }
        assert_eq!(paths("net.IFNAME.IFNAME", "eth0"), ["net/eth0/IFNAME"]);
    }

    #[test]
    fn interfaces_with_dots_in_their_names_are_found() {
        let wanted = "net/ipv4/conf/eth0.5/rp_filter".to_owned();
        for key in [
            "net.ipv4.conf.IFNAME.rp_filter",
            "net/ipv4/conf/IFNAME/rp_filter",
            "net.ipv4.conf.eth0.5.rp_filter",
            "net/ipv4/conf/eth0.5/rp_filter",
            "net.ipv4.conf.eth0/5.rp_filter",
        ] {
            assert!(paths(key, "eth0.5").contains(&wanted), "{key}: {:?}", paths(key, "eth0.5"));
        }
        assert!(paths("net/ipv4/conf/eth0.5/rp_filter", "eth1").contains(&wanted));
    }

    #[test]
    fn keys_outside_of_net_are_refused() {
        for key in ["kernel.hostname", "net", "netx.y", "", "/proc/sys/net/x", "./../kernel/x"] {
            assert!(paths(key, "eth0").is_empty(), "{key}");
        }
        // To the reference two dots are two separators.
        assert_eq!(paths("net/../kernel/hostname", "eth0"), ["net/kernel/hostname"]);
    }

    #[test]
    fn values_are_compared_without_their_white_space() {
        assert!(is_equal("4096\t131072\t6291456", "4096 131072  6291456\n") && is_equal(" 1", "1"));
        assert!(!is_equal("1 2", "12") && !is_equal("1", "01") && !is_equal("", "0"));
    }
}
