//! `dhcp` with a real server, Debian's dnsmasq, and for what that cannot be made to do a server of a few lines.
//!
//! ```text
//!   host (node): dhcp daemon, dnsmasq on lan0 10.9.0.1/24
//!     lan0 ── v0 ── eth0 pod0
//!          └─ v1 ── eth0 pod1 …
//! ```
//! The plugin is called alone as an interface plugin would, or by `bridge` on lan0.

mod daemon;
mod ipv6;
mod leases;
mod program;
mod reference;
mod scripted;
mod with_bridge;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podnet_tests::world::Call;
use podnet_tests::{Side, World, plugins};
use program::Program;
use serde_json::Value;

/// The configuration of every test that needs no other.
const PLAIN: &str =
    r#"{"ipam":{"type":"dhcp","daemonSocketPath":"@DIR@/dhcp.sock","stateDir":"@DIR@/state"}}"#;
/// What every dnsmasq of these tests is told: nothing from files, no DNS, all into the log, no waiting for pings.
const DNSMASQ: [&str; 8] = [
    "--conf-file=/dev/null",
    "--keep-in-foreground",
    "--log-facility=-",
    "--log-dhcp",
    "--port=0",
    "--user=root",
    "--pid-file=",
    "--no-ping",
];
const VERSION: &str = "1.1.0";

/// A LAN with pods on it.
struct Lan {
    world: World,
    daemon: Option<Program>,
    dnsmasq: Option<Program>,
}

impl Lan {
    /// A LAN whose pods have a link each, down as an interface plugin leaves it; no server and no daemon.
    fn new(pods: usize) -> Result<Lan> {
        let lan = Lan::bare(Side::Podnet, pods)?;
        for pod in 0..pods {
            let netns = lan.world.netns(pod);
            lan.world.host_ip(&[
                &format!("link add v{pod} type veth peer name eth0 netns {netns}"),
                &format!("link set v{pod} master lan0 up"),
            ])?;
        }
        Ok(lan)
    }

    /// A LAN without links of pods.
    fn bare(side: Side, pods: usize) -> Result<Lan> {
        let world = World::new(side, pods)?;
        world.host_ip(&[
            "link add lan0 address 02:00:00:00:00:b0 type bridge",
            "addr add 10.9.0.1/24 dev lan0",
            "addr add fd00:9::1/64 dev lan0 nodad",
            // A link-local address at once, so that the router can advertise itself from the start.
            "link set lan0 addrgenmode none",
            "addr add fe80::b0/64 dev lan0 nodad",
            "link set lan0 up",
            "link set lo up",
        ])?;
        Ok(Lan { world, daemon: None, dnsmasq: None })
    }

    /// With dnsmasq and the daemon, both ready.
    fn ready(pods: usize, options: &[&str]) -> Result<Lan> {
        let mut lan = Lan::new(pods)?;
        lan.serve(options)?;
        lan.start_daemon(&[])?;
        Ok(lan)
    }

    /// Starts dnsmasq as a DHCPv4 server, with these options besides.
    fn serve(&mut self, options: &[&str]) -> Result<()> {
        let range = "--dhcp-range=10.9.0.10,10.9.0.60,255.255.255.0,120";
        self.start_dnsmasq(&[&["--dhcp-authoritative", "--bind-interfaces", range], options].concat())?;
        self.dnsmasq().wait_for("DHCP, sockets bound exclusively").map(drop)
    }

    /// Starts dnsmasq on lan0 with these options besides the usual.
    fn start_dnsmasq(&mut self, options: &[&str]) -> Result<()> {
        let leases = format!("--dhcp-leasefile={}", self.lease_file().display());
        let args = [&DNSMASQ[..], &["--interface=lan0", &leases], options].concat();
        let program = Program::start(&self.world.host, "/usr/sbin/dnsmasq".as_ref(), &args, &[]);
        self.dnsmasq = Some(program.context("start dnsmasq: is dnsmasq-base installed?")?);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.world.dir().join("dhcp.sock")
    }

    fn lease_file(&self) -> PathBuf {
        self.world.dir().join("dnsmasq.leases")
    }

    /// Starts podnet's daemon, with short patience, and waits until it listens.
    fn start_daemon(&mut self, flags: &[&str]) -> Result<()> {
        let (socket, state) = (self.socket(), self.world.dir().join("state"));
        let (socket, state) = (socket.to_string_lossy(), state.to_string_lossy());
        let mut args = vec!["dhcp", "daemon", "-socketpath", &socket, "--statedir", &state];
        args.extend(flags);
        let program = Program::start(&self.world.host, &plugins::podnet()?, &args, &[])?;
        program.wait_for("dhcp daemon: ready")?;
        self.daemon = Some(program);
        Ok(())
    }

    fn daemon(&self) -> &Program {
        self.daemon.as_ref().expect("a daemon")
    }

    fn dnsmasq(&self) -> &Program {
        self.dnsmasq.as_ref().expect("dnsmasq")
    }

    /// A call of the plugin with the plain configuration.
    fn call(&self, verb: &str, pod: usize) -> Call<'_> {
        self.call_with(verb, pod, PLAIN)
    }

    fn call_with(&self, verb: &str, pod: usize, text: &str) -> Call<'_> {
        self.world.call("dhcp", verb).config(VERSION, text).pod(pod)
    }

    fn add(&self, pod: usize) -> Result<Value> {
        self.call("ADD", pod).run()?.result()
    }

    /// The addresses that dnsmasq counts as given.
    fn given(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.lease_file()).unwrap_or_default();
        let third = text.lines().filter_map(|line| line.split_whitespace().nth(2));
        third.filter(|word| word.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned).collect()
    }

    /// The files that the daemon keeps leases in.
    fn kept(&self) -> usize {
        let entries = std::fs::read_dir(self.world.dir().join("state")).into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok())
            .filter(|e| e.path().extension().is_some_and(|x| x == "lease"))
            .count()
    }

    /// What `ip` says in a pod.
    fn pod_says(&self, pod: usize, args: &str) -> Result<String> {
        let run = || std::process::Command::new("ip").args(args.split_whitespace()).output();
        let output = self.world.pods[pod].run(run)??;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Looks again until it is so; time is only a limit.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is_so() {
        ensure!(began.elapsed() < Duration::from_secs(20), "not so after 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The address of a result's position, with its prefix length.
fn address(result: &Value, position: usize) -> String {
    result["ips"][position]["address"].as_str().unwrap_or_default().to_owned()
}
