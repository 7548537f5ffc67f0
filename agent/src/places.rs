//! Where things are on a node: all paths of the agent in one place, below a prefix, so that several agents can be tried
//! on one machine.

use std::path::{Path, PathBuf};

/// The network's name: in the conflist, in the reservations' directory, in the alias of each pod's link.
pub const NETWORK: &str = "podnet";

/// The file of the network's configuration. It sorts before what other networks call theirs (10-…), as the runtime
/// takes the first.
pub const CONFLIST: &str = "05-podnet.conflist";

/// The executable with the plugins, as the image has it.
pub const PLUGIN: &str = "/podnet";

/// The port of `/healthz`, `/readyz`, `/status` and `/metrics`.
pub const STATUS_PORT: u16 = 10180;

/// Paths of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    root: PathBuf,
}

impl Default for Places {
    /// The node's own.
    fn default() -> Places {
        Places::below(Path::new("/"))
    }
}

impl Places {
    /// All paths below this prefix.
    pub fn below(root: &Path) -> Places {
        Places { root: root.to_owned() }
    }

    /// The prefix.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where plugins ask the agent.
    pub fn socket(&self) -> PathBuf {
        self.run().join("agent.sock")
    }

    /// The runtime's directory of plugins.
    pub fn plugins(&self) -> PathBuf {
        self.root.join("opt/cni/bin")
    }

    /// The runtime's directory of network configurations.
    pub fn configurations(&self) -> PathBuf {
        self.root.join("etc/cni/net.d")
    }

    /// Our network's configuration.
    pub fn conflist(&self) -> PathBuf {
        self.configurations().join(CONFLIST)
    }

    /// host-local's `dataDir`: the reservations of every network. It outlives a reboot.
    pub fn reservations(&self) -> PathBuf {
        self.root.join("var/lib/cni/networks")
    }

    /// proc(5), for sysctls of the node's network: those of a container are read-only, so its manifest has the node's
    /// below /host ([`kernel::sysctl::use_mount`]).
    pub fn proc(&self) -> PathBuf {
        let of_node = self.root.join("host/proc");
        if of_node.join("sys/net").is_dir() { of_node } else { PathBuf::from("/proc") }
    }

    /// What was true since the node started: it does not outlive a reboot, nor a restart of a kind node.
    pub fn run(&self) -> PathBuf {
        self.root.join("run/podnet")
    }

    /// The records of the plugin `podnet-policy`: one file for each attachment, `<container id>-<ifname>.json`.
    pub fn slots(&self) -> PathBuf {
        self.run().join("slots")
    }
}
