//! Leases on disk, so that a daemon that starts again goes on with them: one JSON file for each attachment, replaced
//! whole.
//!
//! Times are in seconds since 1970 there; a clock that was set meanwhile does no harm for long, because each lease is
//! confirmed with its server at the start.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cni::{Json, json};
use kernel::Mac;
use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use super::hash::{fnv128, from_hex, to_hex};
use super::rpc::{Key, Wish, number, object, text};
use super::timing::{Ms, SECOND};
use super::{v4, v6};

/// The clock of the state machines, and the calendar that outlives them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Milliseconds since the machine started, sleep included.
    pub(super) now: Ms,
    /// Milliseconds since 1970 at the same moment.
    calendar: Ms,
}

impl Clock {
    /// Both clocks as they are.
    pub(super) fn read() -> Clock {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from).unwrap_or_default();
        let calendar = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { now: boot.as_millis() as Ms, calendar: calendar.as_millis() as Ms }
    }

    fn to_calendar(self, at: Ms) -> Json {
        number((self.calendar + at).saturating_sub(self.now) / SECOND)
    }

    fn at_calendar(self, seconds: u64) -> Ms {
        (seconds.saturating_mul(SECOND)).saturating_add(self.now).saturating_sub(self.calendar)
    }
}

/// Everything that is known of an attachment with a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) wish: Wish,
    /// The path of the pod's network namespace, as the runtime gave it.
    pub(super) netns: String,
    /// What tells that namespace from a later one at the same path.
    pub(super) netns_id: (u64, u64),
    /// The index of the pod's link.
    pub(super) index: u32,
    /// The hardware address that the link had when the lease was asked for, which is part of the client's name.
    pub(super) mac: Mac,
    pub(super) v4: Option<v4::Lease>,
    pub(super) v6: Option<v6::Lease>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    network: String,
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
    mode: String,
    options: String,
    priority: u32,
    netns: String,
    netns_device: u64,
    netns_inode: u64,
    ifindex: u32,
    mac: String,
    v4: Option<WrittenLease>,
    v6: Option<WrittenLease>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenLease {
    address: String,
    server: String,
    hop: String,
    options: String,
    gateway: String,
    dns: Vec<String>,
    search: Vec<String>,
    renew: u64,
    rebind: u64,
    expire: u64,
}

impl Entry {
    fn to_json(&self, clock: Clock) -> Json {
        let mut entries = self.key.entries();
        entries.extend(self.wish.entries());
        entries.extend([
            ("netns", text(&self.netns)),
            ("netnsDevice", number(self.netns_id.0)),
            ("netnsInode", number(self.netns_id.1)),
            ("ifindex", number(self.index)),
            ("mac", text(self.mac.to_string())),
        ]);
        let times = |renew, rebind, expire| {
            [("renew", renew), ("rebind", rebind), ("expire", expire)]
                .map(|(key, at)| (key, clock.to_calendar(at)))
        };
        if let Some(lease) = &self.v4 {
            let mut v4 = vec![
                ("address", text(lease.address.to_string())),
                ("server", text(lease.server.map(|server| server.to_string()).unwrap_or_default())),
                ("hop", text(lease.hop.to_string())),
                ("options", text(to_hex(&lease.options.to_bytes()))),
            ];
            v4.extend(times(lease.renew, lease.rebind, lease.expire));
            entries.push(("v4", object(v4)));
        }
        if let Some(lease) = &self.v6 {
            let texts = |list: Vec<String>| Json::Array(list.into_iter().map(Json::String).collect());
            let mut v6 = vec![
                ("address", text(lease.address.to_string())),
                ("server", text(to_hex(&lease.server))),
                ("gateway", text(lease.gateway.map(|gateway| gateway.to_string()).unwrap_or_default())),
                ("dns", texts(lease.dns.iter().map(Ipv6Addr::to_string).collect())),
                ("search", texts(lease.search.clone())),
            ];
            v6.extend(times(lease.renew, lease.rebind, lease.expire));
            entries.push(("v6", object(v6)));
        }
        object(entries)
    }

    /// Reads a file; `None` when it is none of ours.
    fn parse(bytes: &[u8], clock: Clock) -> Option<Entry> {
        let written: Written = json::from_slice(bytes).ok()?;
        let v4 = |lease: &WrittenLease| {
            Some(v4::Lease {
                address: lease.address.parse().ok()?,
                server: lease.server.parse().ok(),
                hop: lease.hop.parse().ok()?,
                options: v4::Options::parse(&from_hex(&lease.options)?)?,
                renew: clock.at_calendar(lease.renew),
                rebind: clock.at_calendar(lease.rebind),
                expire: clock.at_calendar(lease.expire),
            })
        };
        let v6 = |lease: &WrittenLease| {
            Some(v6::Lease {
                address: lease.address.parse().ok()?,
                gateway: lease.gateway.parse().ok(),
                server: from_hex(&lease.server)?,
                dns: lease.dns.iter().map(|server| server.parse().ok()).collect::<Option<_>>()?,
                search: lease.search.clone(),
                renew: clock.at_calendar(lease.renew),
                rebind: clock.at_calendar(lease.rebind),
                expire: clock.at_calendar(lease.expire),
            })
        };
        Some(Entry {
            wish: Wish::read(&written.mode, &written.options, written.priority)?,
            netns_id: (written.netns_device, written.netns_inode),
            index: written.ifindex,
            mac: written.mac.parse().ok()?,
            v4: written.v4.as_ref().map(v4).map_or(Some(None), |lease| lease.map(Some))?,
            v6: written.v6.as_ref().map(v6).map_or(Some(None), |lease| lease.map(Some))?,
            netns: written.netns,
            key: Key { network: written.network, container_id: written.container_id, ifname: written.ifname },
        })
    }
}

/// The file of an attachment. Its name is a hash: container ids may be longer than file names.
fn path(dir: &Path, key: &Key) -> PathBuf {
    dir.join(format!("{:032x}.lease", fnv128(&[&key.network, &key.container_id, &key.ifname])))
}

/// Why the directory could not be opened.
#[derive(Debug)]
pub(super) enum Unopened {
    /// Another daemon has it.
    Taken(String),
    /// It cannot be written.
    Unusable(String),
}

/// The directory, held by one daemon.
#[derive(Debug)]
pub(super) struct State {
    dir: PathBuf,
    #[allow(dead_code, reason = "held, not read")]
    lock: Flock<File>,
}

impl State {
    /// Opens the directory, which is made if it is missing, for this daemon alone.
    ///
    /// # Errors
    /// It cannot be written, or another daemon has it.
    pub(super) fn open(dir: &Path) -> Result<State, Unopened> {
        let fail = |what: &dyn std::fmt::Display| format!("state directory {}: {what}", dir.display());
        let unusable = |error: std::io::Error| Unopened::Unusable(fail(&error));
        fs::create_dir_all(dir).map_err(unusable)?;
        let lock = File::create(dir.join("lock")).map_err(unusable)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Unopened::Taken(fail(&"another daemon uses it (try: -statedir DIR)")))?;
        Ok(State { dir: dir.to_path_buf(), lock })
    }

    /// Every attachment on disk. Files that cannot be read are told of and left alone.
    pub(super) fn load(&self, clock: Clock, log: impl Fn(String)) -> Vec<Entry> {
        let mut entries = Vec::new();
        for path in files(&self.dir) {
            match fs::read(&path).ok().and_then(|bytes| Entry::parse(&bytes, clock)) {
                Some(entry) => entries.push(entry),
                None => log(format!("{}: cannot be read as a lease, passed over", path.display())),
            }
        }
        entries
    }

    /// Writes an attachment's file: whole or not at all, whatever happens.
    ///
    /// # Errors
    /// It could not be written; the file before is untouched.
    pub(super) fn save(&self, entry: &Entry, clock: Clock) -> Result<(), String> {
        let to = path(&self.dir, &entry.key);
        let write = || {
            let fresh = to.with_extension("new");
            let mut file = File::create(&fresh)?;
            file.write_all(entry.to_json(clock).to_compact().as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &to)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error: std::io::Error| format!("write {}: {error}", to.display()))
    }

    /// Removes an attachment's file.
    ///
    /// # Errors
    /// It is there and stays.
    pub(super) fn remove(&self, key: &Key) -> Result<(), String> {
        forget(&self.dir, key)
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "lease")).collect();
    paths.sort();
    paths
}

/// Removes the file of an attachment for which no daemon is there to do it.
///
/// # Errors
/// It is there and stays.
pub(super) fn forget(dir: &Path, key: &Key) -> Result<(), String> {
    let path = path(dir, key);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the files of a network's attachments that `keep` does not want, when no daemon is there to do it.
///
/// # Errors
/// All that stay although they should go.
pub(super) fn forget_others(dir: &Path, network: &str, keep: impl Fn(&Key) -> bool) -> Result<(), String> {
    let clock = Clock::read();
    let read = |path: PathBuf| Entry::parse(&fs::read(path).ok()?, clock);
    let stale = files(dir).into_iter().filter_map(read).map(|entry| entry.key);
    let stale = stale.filter(|key| key.network == network && !keep(key));
    let errors: Vec<String> = stale.filter_map(|key| forget(dir, &key).err()).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::dhcp::config::Mode;

    fn entry(id: &str) -> Entry {
        let mut options = v4::Options::default();
        options.set(1, [255, 255, 255, 0]);
        let now = 1_000_000_000;
        Entry {
            key: Key { network: "net".into(), container_id: id.into(), ifname: "eth0".into() },
            wish: Wish { mode: Mode::Dual, options: options.clone(), priority: 7 },
            netns: "/run/netns/a".into(),
            netns_id: (4, 4_026_531_840),
            index: 9,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            v4: Some(v4::Lease {
                address: "10.0.0.7/24".parse().unwrap(),
                server: Some("10.0.0.1".parse().unwrap()),
                hop: Mac([2, 0, 0, 0, 0, 2]),
                options,
                renew: now + 60_000,
                rebind: now + 105_000,
                expire: now + 120_000,
            }),
            v6: Some(v6::Lease {
                address: "2001:db8::7/64".parse().unwrap(),
                gateway: None,
                server: vec![0, 4, 1],
                dns: vec!["2001:db8::53".parse().unwrap()],
                search: vec!["lan".into()],
                renew: now,
                rebind: now,
                expire: now + 1_000,
            }),
        }
    }

    /// 1 000 000 s after the start of the machine.
    const CLOCK: Clock = Clock { now: 1_000_000_000, calendar: 1_700_000_000_000 };

    #[test]
    fn leases_survive_a_restart_of_daemon_and_machine() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("deep/er")).unwrap();
        let wanted = entry(&"c".repeat(400));
        state.save(&wanted, CLOCK).unwrap();
        state.save(&wanted, CLOCK).unwrap();
        let none = |text: String| panic!("{text}");
        assert_eq!(state.load(CLOCK, none), std::slice::from_ref(&wanted));
        // Ten seconds later, on a clock that began anew.
        let later = Clock { now: 5_000_000, calendar: 1_700_000_010_000 };
        let read = state.load(later, none).remove(0);
        assert_eq!(read.v4.as_ref().unwrap().expire, 5_000_000 + 110_000);
        state.remove(&wanted.key).unwrap();
        state.remove(&wanted.key).unwrap();
        assert!(state.load(CLOCK, none).is_empty());
    }

    #[test]
    fn the_directory_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let first = State::open(dir.path()).unwrap();
        assert!(matches!(State::open(dir.path()), Err(Unopened::Taken(_))));
        drop(first);
        State::open(dir.path()).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(State::open(&file), Err(Unopened::Unusable(_))));
    }

    #[test]
    fn what_is_no_lease_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        state.save(&entry("c0"), CLOCK).unwrap();
        fs::write(dir.path().join("0.lease"), "{\"network\":\"net\"").unwrap();
        fs::write(dir.path().join("1.lease"), "{\"network\":\"net\",\"mode\":\"dhcp4\",\"v4\":{}}").unwrap();
        fs::write(dir.path().join("2.lease.new"), "").unwrap();
        let told = std::cell::Cell::new(0);
        assert_eq!(state.load(CLOCK, |_| told.set(told.get() + 1)).len(), 1);
        assert_eq!(told.get(), 2);
    }

    #[test]
    fn without_a_daemon_stale_files_of_one_network_go() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let mut other = entry("c0");
        other.key.network = "other".into();
        for entry in [entry("c0"), entry("c1"), other] {
            state.save(&entry, CLOCK).unwrap();
        }
        forget_others(dir.path(), "net", |key| key.container_id == "c1").unwrap();
        let left: Vec<String> = state.load(CLOCK, |_| ()).iter().map(|entry| entry.key.to_string()).collect();
        assert_eq!(left.len(), 2);
        assert!(left.contains(&"c1/net/eth0".into()) && left.contains(&"c0/other/eth0".into()), "{left:?}");
    }
}
