//! What a lab needs of the machine, tried out one by one in namespaces that are gone afterwards.
//!
//! Nothing of the machine is read that the answer does not need, and nothing of it is changed.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kernel::link::{self, Bridge, Veth};
use kernel::packet::PacketSocket;
use kernel::{Netns, Rtnl, packet, sysctl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{getsockopt, sockopt};
use serde::Serialize;

use crate::construct::in_thread;
use crate::{capsule, modes, services};

/// One feature: whether it is there, and what it is for.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Its name.
    pub feature: String,
    /// What needs it.
    pub purpose: &'static str,
    /// Without it there is no lab.
    pub needed: bool,
    /// Why it is not there, in the kernel's words; none when it is.
    pub problem: Option<String>,
}

type Probe = fn() -> Result<()>;

/// Feature, what needs it, whether a lab is impossible without, how it is tried.
const FEATURES: [(&str, &str, bool, Probe); 14] = [
    ("root or a user namespace", "namespaces of a lab", true, rights),
    ("network namespace", "nodes, pods, the wires between them", true, network),
    ("mount namespace", "nothing of a lab is seen by the machine", true, mounts),
    ("PID namespace", "a lab ends with its supervisor, whatever happens", true, || {
        unshare_kind(CloneFlags::CLONE_NEWPID)
    }),
    ("UTS namespace", "every pod has a host name", true, || unshare_kind(CloneFlags::CLONE_NEWUTS)),
    ("veth and bridge", "wires and switches", true, wires),
    ("packet socket", "captures, on which every verdict rests", true, capture),
    ("writable sysctls", "nodes that forward packets", true, sysctls),
    ("nf_tables for services", "services of a lab: maps, numgen, dynamic sets, nat, reject", false, rules),
    ("bridges call netfilter", "pods of one node keep their address towards a service", false, bridged),
    ("large packet buffers", "captures of large labs; without them frames may be lost", false, buffers),
    ("TAP devices", "mode mesh, pods of the plugin tap; root only where /dev/net/tun is root's", false, tun),
    (
        "kernel's drop reasons",
        "tools beside a lab that ask tracefs why a packet is gone; root only",
        false,
        tracing,
    ),
    (
        "overlay file system",
        "plugins may write to /var/lib; without it only to their own directory",
        false,
        overlay,
    ),
];

/// Tries every feature. The calling process must have one thread; an ordinary user's is in a user namespace afterwards.
pub fn examine() -> Vec<Finding> {
    // What this fails for is told by the first feature.
    let kinds = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    let _ = capsule::unshare_as_anyone(kinds);
    let features = FEATURES.iter().map(|(feature, purpose, needed, probe)| Finding {
        feature: (*feature).to_owned(),
        purpose,
        needed: *needed,
        // On a thread of its own, which may change its namespaces and is then gone.
        problem: in_thread(probe).err().map(|err| format!("{err:#}")),
    });
    let modes = modes::examine().map(|(name, purpose, problem)| Finding {
        feature: format!("mode {name}"),
        purpose,
        needed: false,
        problem,
    });
    features.chain(modes).collect()
}

fn rights() -> Result<()> {
    // As an ordinary user this process is root of a user namespace by now, if the kernel lets it.
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(anyhow!("no user namespace to be had · try: sudo podlab, or allow user namespaces")),
    }
}

fn buffers() -> Result<()> {
    let socket = PacketSocket::open_in(&Netns::create()?)?;
    let (wanted, got) = (packet::BUFFER as usize, getsockopt(&socket, sockopt::RcvBuf)?);
    // The kernel counts its own overhead too, and tells twice as much as was asked for (socket(7)).
    if got >= wanted {
        Ok(())
    } else {
        Err(anyhow!("{got} bytes of {wanted} · try: sysctl net.core.rmem_max"))
    }
}

fn tun() -> Result<()> {
    let path = "/dev/net/tun";
    std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .map(drop)
        .with_context(|| format!("open {path}"))
}

fn tracing() -> Result<()> {
    let path = "/sys/kernel/tracing/events/skb/kfree_skb/enable";
    private_mounts()?;
    mount(Some("tracefs"), "/sys/kernel/tracing", Some("tracefs"), MsFlags::empty(), None::<&str>)
        .context("mount tracefs")?;
    std::fs::File::options().write(true).open(path).map(drop).with_context(|| format!("open {path}"))
}

fn unshare_kind(kind: CloneFlags) -> Result<()> {
    unshare(kind).context("unshare")
}

fn network() -> Result<()> {
    Ok(Netns::create().map(drop)?)
}

fn mounts() -> Result<()> {
    private_mounts()
}

fn private_mounts() -> Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).context("unshare")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("mount tmpfs")
}

fn overlay() -> Result<()> {
    private_mounts()?;
    for dir in ["/run/upper", "/run/work"] {
        std::fs::create_dir(dir)?;
    }
    let layers = Some("lowerdir=/var/lib,upperdir=/run/upper,workdir=/run/work");
    mount(Some("overlay"), "/var/lib", Some("overlay"), MsFlags::empty(), layers).context("mount overlay")
}

fn wires() -> Result<()> {
    let netns = Netns::create()?;
    let mut rtnl = Rtnl::open_in(&netns)?;
    link::add_bridge(&mut rtnl, &Bridge { name: "br0", up: true, ..Bridge::default() })?;
    let bridge = link::by_name(&mut rtnl, "br0")?.index;
    let wire = Veth { name: "a", peer: "b", master: Some(bridge), up: true, ..Veth::default() };
    link::add_veth(&mut rtnl, &wire)?;
    let (a, b) = (link::by_name(&mut rtnl, "a")?.index, link::by_name(&mut rtnl, "b")?.index);
    link::set(&mut rtnl, b, &link::Change { up: Some(true), ..link::Change::default() })?;
    match link::wait_oper_up(&mut rtnl, a, Duration::from_secs(2))? {
        true => Ok(()),
        false => Err(anyhow!("a veth on a bridge carries no frames after 2 s")),
    }
}

fn rules() -> Result<()> {
    Ok(Netns::create()?.run(services::try_out)??)
}

fn bridged() -> Result<()> {
    Netns::create()?.run(services::calls_netfilter)?
}

fn capture() -> Result<()> {
    Ok(PacketSocket::open_in(&Netns::create()?).map(drop)?)
}

fn sysctls() -> Result<()> {
    let netns = Netns::create()?;
    Ok(netns.run(|| sysctl::write("net/ipv4/ip_forward", "1"))??)
}
