//! `portmap` and `firewall`: rules, proved by packets.
//!
//! ```text
//!   outside 192.0.2.2 ───── 192.0.2.1 node 10.1.2.1 ── cni0 ── pod0, pod1 … 10.1.2.2 …
//!           2001:db8:0:1::2 ─ ::1          2001:db8:1::1       2001:db8:1::2 …
//! ```
//! Servers answer with the address that they see; nothing waits for a fixed time. Rulesets are compared as `nft` and iptables
//! print them, never through our own decoder.

mod bystanders;
mod conditions;
mod crowd;
mod firewall;
mod firewalld;
mod mappings;
mod migration;
mod network;
mod rootless;
mod udp;
mod undo;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use kernel::netns::Netns;
use podnet_tests::world::{Call, NETWORK};
use podnet_tests::{Side, World};
use serde_json::{Value, json};

/// Where the reference's and our DEL find a bridge with addresses of both families.
const DUAL: &str = r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#;
const V4: &str =
    r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

const NODE: &str = "192.0.2.1";
const NODE_V6: &str = "2001:db8:0:1::1";

/// A node with pods and a host outside of it.
struct Scene {
    world: World,
    outside: Netns,
}

impl Scene {
    fn new(side: Side, pods: usize) -> Result<Self> {
        let world = World::new(side, pods)?;
        let outside = Netns::create().context("make the outside")?;
        let path = world.path_of(&outside);
        world.host_ip(&[
            "link set lo up",
            &format!("link add up0 type veth peer name up0 netns {path}"),
            "link set up0 up",
            "addr add 192.0.2.1/24 dev up0",
            "addr add 2001:db8:0:1::1/64 dev up0 nodad",
        ])?;
        let scene = Scene { world, outside };
        for line in [
            "link set lo up",
            "link set up0 up",
            "addr add 192.0.2.2/24 dev up0",
            "addr add 2001:db8:0:1::2/64 dev up0 nodad",
            "route add default via 192.0.2.1",
            "-6 route add default via 2001:db8:0:1::1",
        ] {
            run(&scene.outside, "ip", line, "")?;
        }
        Ok(scene)
    }

    /// A pod on the bridge: what `bridge` printed.
    fn attach(&self, pod: usize, text: &str) -> Result<Value> {
        self.world.call("bridge", "ADD").config("1.0.0", text).pod(pod).run()?.result()
    }

    /// A call of `portmap` for a pod with mappings and further keys.
    fn portmap(&self, verb: &str, pod: usize, prev: &Value, mappings: &Value, keys: &str) -> Call<'_> {
        let call = self.world.call("portmap", verb).config("1.0.0", &format!("{{{keys}}}")).pod(pod);
        let call = call.with("runtimeConfig", &json!({ "portMappings": mappings }).to_string());
        if prev.is_null() { call } else { call.prev(prev) }
    }

    /// A call of `firewall` for a pod.
    fn firewall(&self, verb: &str, pod: usize, prev: &Value, keys: &str) -> Call<'_> {
        let call = self.world.call("firewall", verb).config("1.0.0", &format!("{{{keys}}}")).pod(pod);
        if prev.is_null() { call } else { call.prev(prev) }
    }

    fn pod(&self, n: usize) -> &Netns {
        &self.world.pods[n]
    }

    fn host(&self) -> &Netns {
        &self.world.host
    }

    /// The node's rules, all tables, without counters.
    fn rules(&self) -> Result<String> {
        run(self.host(), "nft", "-s list ruleset", "")
    }

    fn nft(&self, script: &str) -> Result<()> {
        run(self.host(), "nft", "-f -", script).map(drop)
    }
}

/// The same configuration under another network name.
fn renamed<'w>(call: Call<'w>, network: &str) -> Call<'w> {
    let text = String::from_utf8_lossy(&call.invocation().stdin).into_owned();
    call.stdin(text.replacen(&format!("\"name\":\"{NETWORK}\""), &format!("\"name\":\"{network}\""), 1))
}

fn mapping(host_port: u16, port: u16, protocol: &str, host_ip: &str) -> Value {
    json!({ "hostPort": host_port, "containerPort": port, "protocol": protocol, "hostIP": host_ip })
}

/// The pod's address of a family in a result.
fn address(result: &Value, v6: bool) -> String {
    let of = |ip: &Value| ip["address"].as_str()?.split('/').next().map(str::to_owned);
    let mut all = result["ips"].as_array().into_iter().flatten().filter_map(of);
    all.find(|ip| ip.contains(':') == v6).unwrap_or_default()
}

/// Runs a program in a namespace with its arguments split at white space.
fn run(netns: &Netns, program: &str, args: &str, stdin: &str) -> Result<String> {
    use std::io::Write;
    use std::process::Stdio;
    let mut command = Command::new(program);
    command.args(args.split_whitespace()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = netns.run(|| command.spawn())?.with_context(|| format!("start {program}"))?;
    child.stdin.take().context("stdin")?.write_all(stdin.as_bytes())?;
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {args}: {stderr}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails with the lines that only one text has unless they are the same.
fn same(before: &str, after: &str) -> Result<()> {
    let only = |of: &str, other: &str| -> String {
        let others: Vec<&str> = other.lines().collect();
        of.lines().filter(|line| !others.contains(line)).map(|line| format!("{line}\n")).collect()
    };
    let (gone, new) = (only(before, after), only(after, before));
    ensure!(before == after, "the rules differ:\n--- gone\n{gone}--- new\n{new}--- now\n{after}");
    Ok(())
}
