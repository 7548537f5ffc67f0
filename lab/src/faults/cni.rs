//! CNI: plugins that are missing, crash, hang or talk nonsense, and addresses that have run out. The pods that are there
//! go on; these faults bite when the next pod is made.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Act, Fault, not_in_mode};
use crate::breaking::Work;
use crate::cluster::{Cluster, Node};
use crate::exit::Failure;
use crate::plugins;
use crate::supervisor::Lab;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "cni-missing",
        does: "the network's plugin is not in the plugin directory; bites at the next pod made",
        seen: "the next pod is not made: FailedCreatePodSandBox, the plugin is not found",
        amount: None,
        unless: of_the_lab,
        act: Act::Lab(|work, _| replace(work, None)),
    },
    Fault {
        id: "cni-crash",
        does: "the network's plugin is killed by a signal; bites at the next pod made",
        seen: "the next pod is not made: FailedCreatePodSandBox, the plugin ended by a signal",
        amount: None,
        unless: of_the_lab,
        act: Act::Lab(|work, _| replace(work, Some("kill -SEGV $$"))),
    },
    Fault {
        id: "cni-hang",
        does: "the network's plugin does not come to an end; bites at the next pod made",
        seen: "the next pod stays in the making for a minute, then it is not made",
        amount: None,
        unless: of_the_lab,
        act: Act::Lab(|work, _| replace(work, Some(HANG))),
    },
    Fault {
        id: "cni-garbage",
        does: "the network's plugin prints what is no CNI result; bites at the next pod made",
        seen: "the next pod is not made: FailedCreatePodSandBox, the result cannot be read",
        amount: None,
        unless: of_the_lab,
        act: Act::Lab(|work, _| replace(work, Some("echo 'the network is fine'"))),
    },
    Fault {
        id: "ipam-full",
        does: "all addresses of a node's range are reserved; bites at the next pod made there",
        seen: "the next pod on the node is not made: no address is free",
        amount: None,
        unless: of_the_lab,
        act: Act::Node(ipam_full),
    },
];

/// Notes who hangs, so that healing can end it.
const HANG: &str = "echo $$ >> /run/podlab/hanging; exec sleep 1000000";
const HANGING: &str = "/run/podlab/hanging";

/// What an agent of the node writes is put right by it.
fn of_the_lab(cluster: &Cluster) -> Result<(), Failure> {
    let has_agents = cluster.nodes.iter().any(|node| cluster.mode.root(&node.space.name).is_some());
    if has_agents { Err(not_in_mode(cluster, "agents, which keep plugins and reservations")) } else { Ok(()) }
}

/// The first plugin of the lab's network configuration, for a node.
fn plugin(lab: &Lab, node: usize) -> Result<(Value, Value)> {
    let conf: Value = serde_json::from_str(&lab.topology.network(node)).context("network configuration")?;
    let first = conf["plugins"].get(0).cloned().unwrap_or_else(|| conf.clone());
    Ok((conf, first))
}

/// Puts a script in the place of the network's plugin, or nothing.
fn replace(work: &mut Work<'_>, script: Option<&'static str>) -> Result<()> {
    if !work.lab.topology.cni_bin.is_empty() {
        bail!("the plugins of --cni-bin are the machine's, which a lab leaves alone");
    }
    let (_, first) = plugin(work.lab, 0)?;
    let path = Path::new(plugins::DIR).join(first["type"].as_str().context("a plugin without a type")?);
    let change = || {
        let target = fs::read_link(&path).with_context(|| format!("read {}", path.display()))?;
        fs::remove_file(&path)?;
        script.map_or(Ok(()), |script| write_script(&path, script)).or_else(|err| {
            put_back(&path, &target)?;
            Err(err)
        })?;
        Ok((path, target))
    };
    work.change("plugin", change, |_, (path, target)| {
        put_back(path, target)?;
        for pid in fs::read_to_string(HANGING).unwrap_or_default().lines() {
            // It may have ended by itself.
            let _ = pid.parse().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        remove(Path::new(HANGING))
    })
}

fn write_script(path: &Path, script: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{script}\n"))?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
}

fn put_back(path: &Path, target: &Path) -> Result<()> {
    remove(path)?;
    symlink(target, path).with_context(|| format!("link {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A reservation of nobody's for each address of the node's range that is free.
fn ipam_full(work: &mut Work<'_>, cluster: &Cluster, node: &Node) -> Result<()> {
    let index = cluster.nodes.iter().position(|it| it.address == node.address).context("no such node")?;
    let (conf, first) = plugin(work.lab, index)?;
    let (name, data) = (conf["name"].as_str(), first["ipam"]["dataDir"].as_str());
    let (Some(name), Some(data)) = (name, data.filter(|dir| dir.starts_with("/run/"))) else {
        bail!("the network's reservations are not in the lab's own /run");
    };
    let dir = Path::new(data).join(name);
    work.ipv4_only("range of which the addresses could run out")?;
    let (_, pods) = node.v4().context("no IPv4")?;
    let (start, size) = (u32::from(pods.network()), pods.size());
    let change = || {
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let mut made: Vec<PathBuf> = Vec::new();
        for address in (1..size - 1).map(|number| Ipv4Addr::from(start + number)) {
            match reserve(dir.join(address.to_string())) {
                Ok(Some(path)) => made.push(path),
                Ok(None) => {}
                Err(err) => {
                    made.iter().try_for_each(|path| remove(path))?;
                    return Err(err);
                }
            }
        }
        Ok(made)
    };
    let what = format!("{}: reservations", node.space.name);
    work.change(what, change, |_, made| made.iter().try_for_each(|path| remove(path)))
}

/// None where somebody has it.
fn reserve(path: PathBuf) -> Result<Option<PathBuf>> {
    match File::create_new(&path) {
        Ok(mut file) => {
            file.write_all(b"nobody\r\neth0").with_context(|| format!("write {}", path.display()))?;
            Ok(Some(path))
        }
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
        Err(err) => Err(err).with_context(|| format!("create {}", path.display())),
    }
}
