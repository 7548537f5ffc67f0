//! The table of applets: every name that `podnet` answers to, and what is run for it.
//!
//! The help text is printed from this table, so it cannot name a plugin that is not there.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

use cni::plugin::Plugin;

use crate::{install, interface, ipam, meta};

/// What kind of work a plugin does, as the reference sorts its folders.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Creates or configures an interface of a pod.
    Interface,
    /// Hands out addresses.
    Ipam,
    /// Changes what the plugins before it in the chain made.
    Meta,
}

/// One plugin: the name in `type`, its kind, one line of help, the implementation.
pub(crate) struct Applet {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) about: &'static str,
    pub(crate) plugin: &'static dyn Plugin,
}

/// Every plugin in this executable, in the order that help and `podnet list` print.
pub(crate) static APPLETS: &[Applet] = &[
    Applet {
        name: "bridge",
        kind: Kind::Interface,
        about: "veth pair from the pod to a bridge on the node",
        plugin: &interface::bridge::Bridge,
    },
    Applet {
        name: "dummy",
        kind: Kind::Interface,
        about: "link in the pod that leads nowhere",
        plugin: &interface::dummy::Dummy,
    },
    Applet {
        name: "host-device",
        kind: Kind::Interface,
        about: "moves a network device of the node into the pod",
        plugin: &interface::host_device::HostDevice,
    },
    Applet {
        name: "ipvlan",
        kind: Kind::Interface,
        about: "link in the pod with the MAC of a link of the node",
        plugin: &interface::ipvlan::Ipvlan,
    },
    Applet {
        name: "ptp",
        kind: Kind::Interface,
        about: "veth pair from the pod to its node, routed",
        plugin: &interface::ptp::Ptp,
    },
    Applet {
        name: "tap",
        kind: Kind::Interface,
        about: "TAP device in the pod, for a virtual machine",
        plugin: &interface::tap::Tap,
    },
    Applet {
        name: "loopback",
        kind: Kind::Interface,
        about: "sets the pod's lo up",
        plugin: &interface::loopback::Loopback,
    },
    Applet {
        name: "macvlan",
        kind: Kind::Interface,
        about: "link in the pod with a MAC of its own on a link of the node",
        plugin: &interface::macvlan::Macvlan,
    },
    Applet {
        name: "vlan",
        kind: Kind::Interface,
        about: "link in the pod for one VLAN of a link of the node",
        plugin: &interface::vlan::Vlan,
    },
    Applet {
        name: "host-local",
        kind: Kind::Ipam,
        about: "addresses from ranges, reserved in files on this node",
        plugin: &ipam::host_local::HostLocal,
    },
    Applet {
        name: "static",
        kind: Kind::Ipam,
        about: "addresses written in the configuration or asked for by the runtime",
        plugin: &ipam::static_::Static,
    },
    Applet {
        name: "dhcp",
        kind: Kind::Ipam,
        about: "addresses from the network's own servers, by a daemon (`podnet dhcp daemon`)",
        plugin: &ipam::dhcp::Dhcp,
    },
    Applet {
        name: "bandwidth",
        kind: Kind::Meta,
        about: "chained: limits the rate to the pod and from it",
        plugin: &meta::bandwidth::Bandwidth,
    },
    Applet {
        name: "firewall",
        kind: Kind::Meta,
        about: "chained: lets the pod's packets through the node, and says who may reach it",
        plugin: &meta::firewall::Firewall,
    },
    Applet {
        name: "podnet-policy",
        kind: Kind::Meta,
        about: "chained: closes the pod's addresses until podnetd has armed its network policies",
        plugin: &meta::policy::Policy,
    },
    Applet {
        name: "portmap",
        kind: Kind::Meta,
        about: "chained: ports of the node that lead to the pod",
        plugin: &meta::portmap::Portmap,
    },
    Applet {
        name: "sbr",
        kind: Kind::Meta,
        about: "chained: a routing table for each address of the pod's interface",
        plugin: &meta::sbr::Sbr,
    },
    Applet {
        name: "tuning",
        kind: Kind::Meta,
        about: "chained: sysctls of the pod, MAC, MTU and flags of its interface",
        plugin: &meta::tuning::Tuning,
    },
    Applet {
        name: "vrf",
        kind: Kind::Meta,
        about: "chained: a routing domain of its own for the pod's interface",
        plugin: &meta::vrf::Vrf,
    },
];

/// The plugin of that name, if it is one of ours.
pub(crate) fn find(name: &str) -> Option<&'static Applet> {
    APPLETS.iter().find(|applet| applet.name == name)
}

/// Runs what `program` (the name it was started under) or the first of `args` names; returns the process's exit code.
pub(crate) fn run(program: &OsStr, args: Vec<OsString>) -> u8 {
    let base = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let words: Vec<&str> = args.iter().filter_map(|word| word.to_str()).collect();
    if let Some(applet) = find(base) {
        return match (base, words.as_slice()) {
            ("dhcp", ["daemon", flags @ ..]) => ipam::dhcp::daemon::run(flags),
            _ => run_plugin(applet),
        };
    }
    match words.as_slice() {
        ["dhcp", "daemon", flags @ ..] => ipam::dhcp::daemon::run(flags),
        [name, ..] if find(name).is_some() => find(name).map_or(1, run_plugin),
        ["install", rest @ ..] if rest.len() == args.len() - 1 => install::install(rest),
        ["list", rest @ ..] if rest.len() == args.len() - 1 => install::list(rest),
        ["version" | "--version" | "-V"] => print(&format!("podnet {}\n", env!("CARGO_PKG_VERSION"))),
        ["help" | "--help" | "-h"] => print(&help()),
        [] if std::env::var_os("CNI_COMMAND").is_none() => print(&help()),
        _ => {
            eprintln!(
                "error: podnet: no plugin or command {:?} · try: podnet help",
                words.first().copied().unwrap_or(base)
            );
            2
        }
    }
}

fn run_plugin(applet: &'static Applet) -> u8 {
    cni::plugin::report_panics();
    let env = cni::Env::from_process();
    cni::plugin::run(
        applet.plugin,
        env,
        &mut std::io::stdin().lock(),
        &mut std::io::stdout().lock(),
        &mut std::io::stderr().lock(),
    )
}

/// Writes `text` to stdout; 1 when nobody takes it.
pub(crate) fn print(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    u8::from(out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err())
}

fn help() -> String {
    let mut text = format!(
        "podnet {}: CNI plugins in one executable\n\n\
         usage: podnet COMMAND, or PLUGIN with the CNI_* variables set and a configuration on stdin\n\n\
         commands:\n\
         \x20 install DIR [PLUGIN...]  put the plugin names (all, or those named) in DIR, each replaced atomically\n\
         \x20 dhcp daemon [FLAG...]    keep the leases of the plugin dhcp (-help: the flags)\n\
         \x20 list [DIR]               the plugins in this executable; with DIR, what stands there\n\
         \x20 version                  this version\n\
         \x20 help                     this text\n\n\
         plugins:\n",
        env!("CARGO_PKG_VERSION")
    );
    for applet in APPLETS {
        text.push_str(&format!("  {:<24} {}\n", applet.name, applet.about));
    }
    text
}
