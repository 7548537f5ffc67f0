//! Addresses that nobody needs any more: pods that were there before the node restarted, and pods whose DEL the runtime
//! never called. host-local's reservations outlive both, until a node has no address left.
//!
//! An attachment is there while the node has its link, which the plugin `ptp` names (`podnet NETWORK CONTAINER IFNAME`),
//! or a route to its address alone. Neither outlives the pod's namespace, nor a restart of the node. A reservation
//! without either may be that of an ADD under way, so a young one is left until it has grown old. (The records of the plugin
//! `podnet-policy` say less: who never gets a DEL leaves one behind.)

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use ipam::{Owner, Reserved, Store};
use ipnetwork::IpNetwork;
use kernel::route::{self, TABLE_MAIN};
use kernel::{Family, Rtnl, link};

use super::files;
use crate::places::{NETWORK, Places};

/// How old a reservation without an attachment must be before it is released: longer than any runtime lets an ADD take
/// (the kubelet gives up after 2 to 4 minutes).
pub const GRACE: Duration = Duration::from_secs(600);

/// The same for the first look after a start of the node, when what is older is of the time before.
pub const GRACE_AT_START: Duration = Duration::from_secs(60);

/// The link of the node's own addresses.
const LOOPBACK: &str = "lo";

/// What a look at the reservations came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Addresses that are free again.
    pub released: Vec<IpAddr>,
    /// Reservations of attachments that are there.
    pub in_use: usize,
    /// Reservations without an attachment that are too young to be judged.
    pub waiting: usize,
    /// What could not be released or read, in words.
    pub problems: Vec<String>,
}

/// The reservations, judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// How many are of attachments that are there.
    pub in_use: usize,
    /// How many have no attachment and are too young to be judged.
    pub waiting: usize,
    /// Those without an attachment.
    pub leaked: Vec<Reserved>,
}

/// Tells the reservations of attachments that are there from those that nobody needs, older than `grace`.
///
/// # Errors
/// Reservations, links or routes cannot be read.
pub fn judge(places: &Places, rtnl: &mut Rtnl, grace: Duration) -> Result<Judged> {
    let store = Store::open(&places.reservations(), NETWORK)?;
    // Reservations first: who gets one after this look is not judged by links from before.
    let reservations = store.list()?;
    let there = Attachments::read(rtnl)?;
    let now = SystemTime::now();
    let is_young = |since: Option<SystemTime>| {
        since.is_some_and(|it| now.duration_since(it).unwrap_or_default() < grace)
    };
    let mut judged = Judged::default();
    for reserved in reservations {
        if there.have(&reserved) {
            judged.in_use += 1;
        } else if is_young(reserved.since) {
            judged.waiting += 1;
        } else {
            judged.leaked.push(reserved);
        }
    }
    Ok(judged)
}

/// Releases reservations of attachments that are not there and that are older than `grace`.
///
/// # Errors
/// As [`judge`]: then nothing is released.
pub fn sweep(places: &Places, rtnl: &mut Rtnl, grace: Duration) -> Result<Swept> {
    let store = Store::open(&places.reservations(), NETWORK)?;
    let judged = judge(places, rtnl, grace)?;
    let mut swept = Swept { in_use: judged.in_use, waiting: judged.waiting, ..Swept::default() };
    for reserved in judged.leaked {
        // By owner and address: what was released and reserved anew meanwhile is another's.
        let owner = Owner { container_id: &reserved.container_id, ifname: &reserved.ifname };
        match store.release_only(&owner, &[reserved.address]) {
            Ok(()) => swept.released.push(reserved.address),
            Err(err) => swept.problems.push(format!("release {}: {err}", reserved.address)),
        }
    }
    Ok(swept)
}

/// The attachments of our network that this node has.
struct Attachments {
    /// Container and interface, by links.
    links: HashSet<(String, String)>,
    /// Addresses that a link of the node leads to.
    addresses: HashSet<IpAddr>,
}

impl Attachments {
    fn read(rtnl: &mut Rtnl) -> Result<Attachments> {
        let mut links = HashSet::new();
        let mut loopback = None;
        for link in link::list(rtnl)? {
            let words: Vec<&str> = link.alias.as_deref().unwrap_or_default().split(' ').collect();
            if let ["podnet", NETWORK, container, ifname] = words[..] {
                links.insert((container.to_owned(), ifname.to_owned()));
            }
            loopback = loopback.or((link.name == LOOPBACK).then_some(link.index));
        }
        let mut addresses = HashSet::new();
        for family in [Family::V4, Family::V6] {
            let routes = route::list(rtnl, family)?.into_iter();
            let to_one = routes.filter(|it| it.table_id() == TABLE_MAIN && it.oif != loopback);
            let to_one = to_one.filter(|it| it.destination() == IpNetwork::from(it.destination().ip()));
            addresses.extend(to_one.map(|it| it.destination().ip()));
        }
        Ok(Attachments { links, addresses })
    }

    fn have(&self, reserved: &Reserved) -> bool {
        let owner = (&reserved.container_id, &reserved.ifname);
        // Reservations of old versions name no interface.
        let is_owner = |(container, ifname): &(String, String)| {
            container == owner.0 && (owner.1.is_empty() || ifname == owner.1)
        };
        self.addresses.contains(&reserved.address) || self.links.iter().any(is_owner)
    }
}

/// Whether the node has started since this was last asked and [`mark_start`] called: the machine has booted, or, as a kind
/// node's container can be restarted on a machine that goes on, its /run is a new one.
///
/// # Errors
/// The kernel's boot id cannot be read.
pub fn has_restarted(places: &Places) -> Result<bool> {
    let known = fs::read_to_string(mark(places)).unwrap_or_default();
    let mut lines = known.lines();
    let is_same_boot = lines.next() == Some(boot_id()?.as_str());
    let of_run = fs::read_to_string(token(places)).unwrap_or_default();
    Ok(!(is_same_boot && lines.next() == Some(of_run.trim()) && !of_run.trim().is_empty()))
}

/// Notes that this start of the node has been dealt with.
///
/// # Errors
/// The notes cannot be written.
pub fn mark_start(places: &Places) -> Result<()> {
    let run = places.run();
    fs::create_dir_all(&run).with_context(|| format!("create {}", run.display()))?;
    let mut of_run = fs::read_to_string(token(places)).unwrap_or_default().trim().to_owned();
    if of_run.is_empty() {
        of_run = uuid()?;
        files::put(&token(places), format!("{of_run}\n").as_bytes(), 0o644)?;
    }
    let mark = mark(places);
    let dir = mark.parent().unwrap_or(&mark);
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    files::put(&mark, format!("{}\n{of_run}\n", boot_id()?).as_bytes(), 0o644)
}

/// Forgets the note beside the reservations.
pub(super) fn unmark(places: &Places) -> io::Result<bool> {
    files::unless_absent(fs::remove_file(mark(places)))
}

/// Beside the reservations, where it outlives the boot that it is about. No network's name begins with a dot.
fn mark(places: &Places) -> PathBuf {
    places.reservations().join(".podnet").join(format!(".{NETWORK}.boot"))
}

/// In /run, where it does not outlive the node.
fn token(places: &Places) -> PathBuf {
    places.run().join("start")
}

/// proc_sys_kernel(5): made anew at each boot of the machine.
fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

/// proc_sys_kernel(5): another one at each reading.
fn uuid() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use ipam::range::RangeConf;
    use kernel::Netns;
    use kernel::link::Veth;

    use super::*;

    /// A node's files, with a reservation for each of these containers.
    fn node(containers: &[&str]) -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(dir.path());
        let subnet = "10.244.1.0/24".parse().unwrap();
        let conf = RangeConf { subnet, range_start: None, range_end: None, gateway: None };
        let set = ipam::RangeSet::resolve(&[conf]).unwrap();
        let store = Store::open(&places.reservations(), NETWORK).unwrap();
        for container in containers {
            store.allocate(0, &set, &Owner { container_id: container, ifname: "eth0" }, None).unwrap();
        }
        (dir, places)
    }

    fn left(places: &Places) -> Vec<String> {
        let store = Store::open(&places.reservations(), NETWORK).unwrap();
        let mut left: Vec<String> = store.list().unwrap().into_iter().map(|it| it.container_id).collect();
        left.sort();
        left
    }

    #[test]
    fn what_has_a_link_or_a_route_stays_and_what_has_neither_is_free_again() {
        let (_dir, places) =
            node(&["linked", "routed", "gone", "of-another-network", "of-another-interface"]);
        let netns = Netns::create().unwrap();
        let mut rtnl = Rtnl::open_in(&netns).unwrap();
        for (name, alias) in [
            ("a", "podnet podnet linked eth0"),
            ("b", "podnet other of-another-network eth0"),
            ("c", "podnet podnet of-another-interface eth1"),
            ("d", "gone eth0"),
        ] {
            let peer = format!("{name}1");
            link::add_veth(&mut rtnl, &Veth { name, peer: &peer, up: true, ..Veth::default() }).unwrap();
            let index = link::by_name(&mut rtnl, name).unwrap().index;
            link::set(&mut rtnl, index, &link::Change { alias: Some(alias), ..link::Change::default() })
                .unwrap();
        }
        let oif = Some(link::by_name(&mut rtnl, "d").unwrap().index);
        // To the second pod alone, and to all of them, which tells of none.
        for dst in ["10.244.1.3/32", "10.244.1.0/24"] {
            let route = route::Route { dst: Some(dst.parse().unwrap()), oif, ..route::Route::default() };
            route::add(&mut rtnl, &route).unwrap();
        }

        let young = sweep(&places, &mut rtnl, GRACE).unwrap();
        assert_eq!((young.in_use, young.waiting, young.released.len()), (2, 3, 0));
        assert_eq!(left(&places).len(), 5, "an ADD under way keeps its address");

        let swept = sweep(&places, &mut rtnl, Duration::ZERO).unwrap();
        assert_eq!((swept.in_use, swept.waiting, swept.problems.len()), (2, 0, 0));
        let free = ["10.244.1.4", "10.244.1.5", "10.244.1.6"].map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(swept.released, free);
        assert_eq!(left(&places), ["linked", "routed"]);
    }

    #[test]
    fn without_reservations_there_is_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let netns = Netns::create().unwrap();
        let mut rtnl = Rtnl::open_in(&netns).unwrap();
        let swept = sweep(&Places::below(dir.path()), &mut rtnl, Duration::ZERO).unwrap();
        assert_eq!(swept, Swept::default());
    }

    #[test]
    fn a_restart_is_known_by_the_boot_and_by_run() {
        let (_dir, places) = node(&[]);
        assert!(has_restarted(&places).unwrap());
        mark_start(&places).unwrap();
        assert!(!has_restarted(&places).unwrap());
        mark_start(&places).unwrap();
        assert!(!has_restarted(&places).unwrap());
        // A kind node's container: /run is new, the machine's boot is not.
        fs::remove_dir_all(places.run()).unwrap();
        assert!(has_restarted(&places).unwrap());
        mark_start(&places).unwrap();
        assert!(!has_restarted(&places).unwrap());
        // A machine: its boot is another.
        let text = fs::read_to_string(mark(&places)).unwrap();
        let run = text.lines().nth(1).unwrap();
        fs::write(mark(&places), format!("00000000-0000-0000-0000-000000000000\n{run}\n")).unwrap();
        assert!(has_restarted(&places).unwrap());
    }
}
