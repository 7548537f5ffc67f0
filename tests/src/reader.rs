//! Reads one network namespace into [`Facts`]: links, addresses, routes, rules and sysctls, through `ip`, `bridge` and
//! /proc/sys, never through our own decoder.
//!
//! Left out because they depend on the moment and not on the plugin: carrier flags, bridge timers and port states and learned state,
//! ifindexes, `tentative`, the kernel's own IPv6 link-local addresses with their routes, IPv6 routes of the local table
//! (the kernel adds them when duplicate address detection ends). Random names and MACs become symbols.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::facts::{Facts, segment};
use kernel::netns::Netns;

/// Gives random names (`veth` and 8 hexadecimal digits) stable ones: `veth0`, `veth1` … by first appearance, and knows
/// the MACs that the test itself chose.
#[derive(Debug, Default)]
pub struct Names {
    veths: Mutex<Vec<String>>,
    chosen: Mutex<String>,
}

impl Names {
    /// The name to show for a link.
    pub fn link(&self, name: &str) -> String {
        let random =
            name.len() == 12 && name.starts_with("veth") && name[4..].bytes().all(|b| b.is_ascii_hexdigit());
        if !random {
            return name.to_owned();
        }
        let mut veths = self.veths.lock().unwrap_or_else(|e| e.into_inner());
        let at = veths.iter().position(|v| v == name).unwrap_or_else(|| {
            veths.push(name.to_owned());
            veths.len() - 1
        });
        format!("veth{at}")
    }

    /// Replaces every random link name in a sentence.
    pub fn sentence(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("veth") {
            let end = at + 12;
            let Some(name) = rest.get(at..end) else { break };
            out.push_str(&rest[..at]);
            out.push_str(&self.link(name));
            rest = &rest[end..];
        }
        out + rest
    }

    /// Remembers a text (a configuration, CNI_ARGS) whose MACs are shown as they are.
    pub fn choose(&self, text: &str) {
        let mut chosen = self.chosen.lock().unwrap_or_else(|e| e.into_inner());
        chosen.push_str(&text.to_ascii_lowercase());
        chosen.push('\n');
    }

    /// Whether the test chose this MAC.
    pub fn is_chosen(&self, mac: &str) -> bool {
        self.chosen.lock().unwrap_or_else(|e| e.into_inner()).contains(&mac.to_ascii_lowercase())
    }
}

/// One namespace as read: its lines, and each link's real MAC for the comparison with results.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The lines.
    pub facts: Facts,
    /// Shown link name → MAC as it is.
    pub macs: BTreeMap<String, String>,
}

/// Reads a namespace.
///
/// # Errors
/// `ip` or `bridge` cannot be run or prints something unexpected.
pub fn read(netns: &Netns, names: &Names) -> Result<Reading> {
    netns.run(|| read_here(names)).context("enter a namespace")?
}

fn read_here(names: &Names) -> Result<Reading> {
    let mut reading = Reading::default();
    let tables = ip(&["-d", "-j", "-b", "-"], "addr show\nroute show table all\nrule show\n")?;
    ensure!(tables.len() == 3, "ip printed {} documents for three commands", tables.len());
    let links = tables[0].as_array().context("ip addr: not a list")?;
    for link in links {
        read_link(link, links, names, &mut reading)?;
    }
    read_routes(tables[1].as_array().context("ip route: not a list")?, names, &mut reading.facts);
    let rules6 = ip(&["-d", "-j", "-6", "rule", "show"], "")?;
    for (family, rules) in [("4", &tables[2]), ("6", rules6.first().context("ip -6 rule: nothing printed")?)]
    {
        for (i, rule) in rules.as_array().context("ip rule: not a list")?.iter().enumerate() {
            reading.facts.put(format!("rule/{family}/{i}"), rule.to_string());
        }
    }
    if reading.facts.iter().any(|(k, v)| k.ends_with("/bridge/vlan_filtering") && v == "1") {
        let vlans = run("bridge", &["-j", "vlan", "show"], "")?;
        for port in vlans.first().and_then(Value::as_array).into_iter().flatten() {
            let name = segment(&names.link(text(port, "ifname")));
            reading.facts.put(format!("vlan/{name}"), port["vlans"].to_string());
        }
    }
    read_shaping(links, names, &mut reading.facts)?;
    read_sysctls(links, names, &mut reading.facts);
    Ok(reading)
}

/// Qdiscs that links have by themselves. An ingress qdisc shows nowhere but in `tc`, and its filters in one of these
/// namespaces alone: those that have an ifb.
const OWN_QDISCS: [&str; 4] = ["noqueue", "noop", "pfifo_fast", "fq_codel"];

/// Qdiscs with their numbers, and where filters send what comes in; asked for only where a link shows that there are any.
fn read_shaping(links: &[Value], names: &Names, facts: &mut Facts) -> Result<()> {
    if links.iter().all(|link| OWN_QDISCS.contains(&text(link, "qdisc"))) {
        return Ok(());
    }
    let qdiscs = run("tc", &["-j", "qdisc", "show"], "")?;
    for qdisc in qdiscs.first().and_then(Value::as_array).into_iter().flatten() {
        let (dev, kind) = (text(qdisc, "dev"), text(qdisc, "kind"));
        if OWN_QDISCS.contains(&kind) {
            continue;
        }
        let at = format!("qdisc/{}/{}", segment(&names.link(dev)), text(qdisc, "handle"));
        facts.put(format!("{at}/kind"), kind);
        facts.put_json(&at, &qdisc["options"]);
        if kind != "ingress" {
            continue;
        }
        let filters = run("tc", &["-j", "filter", "show", "dev", dev, "parent", "ffff:"], "")?;
        let all = filters.first().and_then(Value::as_array).into_iter().flatten();
        for filter in all.filter(|filter| filter["options"]["actions"].is_array()) {
            facts.put_json(&format!("{at}/filter/match"), &filter["options"]["match"]);
            for (i, action) in filter["options"]["actions"].as_array().into_iter().flatten().enumerate() {
                for key in ["kind", "mirred_action", "direction", "to_dev", "control_action"] {
                    facts.put_json(&format!("{at}/filter/{i}/{key}"), &action[key]);
                }
            }
        }
    }
    Ok(())
}

fn ip(args: &[&str], stdin: &str) -> Result<Vec<Value>> {
    run("ip", args, stdin)
}

fn run(program: &str, args: &[&str], stdin: &str) -> Result<Vec<Value>> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    child.stdin.take().context("stdin")?.write_all(stdin.as_bytes()).context("write to ip")?;
    let output = child.wait_with_output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<std::result::Result<_, _>>()
        .with_context(|| format!("{program} {args:?}: not JSON"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A leaf as text without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Link flags that follow the carrier.
const CARRIER: [&str; 4] = ["LOWER_UP", "NO-CARRIER", "M-DOWN", "RUNNING"];
/// Bridge attributes that a person sets (the others are timers and learned state).
const BRIDGE: [&str; 14] = [
    "forward_delay",
    "hello_time",
    "max_age",
    "ageing_time",
    "stp_state",
    "priority",
    "vlan_filtering",
    "vlan_protocol",
    "vlan_default_pvid",
    "group_fwd_mask",
    "mcast_snooping",
    "nf_call_iptables",
    "nf_call_ip6tables",
    "nf_call_arptables",
];

fn read_link(link: &Value, all: &[Value], names: &Names, reading: &mut Reading) -> Result<()> {
    let raw = text(link, "ifname");
    let name = names.link(raw);
    let at = format!("link/{}", segment(&name));
    let facts = &mut reading.facts;
    facts.put(format!("{at}/kind"), plain(&link["linkinfo"]["info_kind"]));
    for key in ["mtu", "txqlen", "group", "qdisc", "promiscuity", "num_tx_queues", "num_rx_queues"] {
        facts.put(format!("{at}/{key}"), plain(&link[key]));
    }
    for flag in link["flags"].as_array().context("link without flags")?.iter().filter_map(Value::as_str) {
        if !CARRIER.contains(&flag) {
            facts.put(format!("{at}/flag/{flag}"), "yes");
        }
    }
    if let Some(alias) = link["ifalias"].as_str() {
        facts.put(format!("{at}/alias"), alias);
    }
    for key in ["master", "link"] {
        if let Some(other) = link[key].as_str() {
            facts.put(format!("{at}/{key}"), names.link(other));
        }
    }
    let mac = text(link, "address");
    reading.macs.insert(name.clone(), mac.to_owned());
    let port_has_it = || all.iter().any(|port| text(port, "master") == raw && text(port, "address") == mac);
    facts.put(
        format!("{at}/mac"),
        match mac {
            "00:00:00:00:00:00" => "zero".to_owned(),
            mac if names.is_chosen(mac) => mac.to_owned(),
            _ if port_has_it() => "that of a port".to_owned(),
            _ => "random".to_owned(),
        },
    );
    if text(&link["linkinfo"], "info_kind") == "bridge" {
        for key in BRIDGE {
            facts.put(format!("{at}/bridge/{key}"), plain(&link["linkinfo"]["info_data"][key]));
        }
    }
    if text(&link["linkinfo"], "info_slave_kind") == "bridge" {
        let port = &link["linkinfo"]["info_slave_data"];
        for (key, value) in port.as_object().into_iter().flatten() {
            if value.is_boolean() {
                facts.put(format!("{at}/port/{key}"), value.to_string());
            }
        }
    }
    for address in link["addr_info"].as_array().into_iter().flatten() {
        read_address(&name, address, names, facts);
    }
    Ok(())
}

/// Whether the kernel made this address by itself.
fn is_link_local(address: &Value) -> bool {
    text(address, "scope") == "link" && text(address, "local").starts_with("fe80:")
}

fn read_address(link: &str, address: &Value, names: &Names, facts: &mut Facts) {
    if is_link_local(address) {
        return;
    }
    let at = format!("addr/{}/{}_{}", segment(link), text(address, "local"), address["prefixlen"]);
    for (key, value) in address.as_object().into_iter().flatten() {
        match key.as_str() {
            "local" | "prefixlen" | "tentative" => {}
            "label" => facts.put(format!("{at}/label"), names.link(&plain(value))),
            _ => facts.put(format!("{at}/{key}"), plain(value)),
        }
    }
}

fn read_routes(routes: &[Value], names: &Names, facts: &mut Facts) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for route in routes {
        let (kind, dst, table) = (text(route, "type"), text(route, "dst"), text(route, "table"));
        let v6 = route.get("pref").is_some() || dst.contains(':');
        let kernels_own = dst.starts_with("fe80::") || dst.starts_with("ff00::");
        if v6 && (table == "local" || kernels_own || kind == "anycast") {
            continue;
        }
        let family = if v6 { "6" } else { "4" };
        let at = format!("route/{table}/{family}/{}", segment(dst));
        let nth = seen.entry(at.clone()).or_default();
        let at = format!("{at}/{nth}");
        *nth += 1;
        for (key, value) in route.as_object().into_iter().flatten() {
            match key.as_str() {
                "dst" | "table" | "flags" | "pref" => {}
                "dev" => facts.put(format!("{at}/dev"), names.link(&plain(value))),
                "nexthops" => facts.put(format!("{at}/nexthops"), names.sentence(&value.to_string())),
                _ => facts.put(format!("{at}/{key}"), plain(value)),
            }
        }
    }
}

/// Sysctls outside `conf/` that a plugin could touch.
const GLOBAL_SYSCTLS: [&str; 3] = ["net/ipv4/ip_forward", "net/ipv6/bindv6only", "net/ipv4/ip_nonlocal_bind"];

fn read_sysctls(links: &[Value], names: &Names, facts: &mut Facts) {
    for path in GLOBAL_SYSCTLS {
        read_sysctl(&format!("/proc/sys/{path}"), &format!("sysctl/{path}"), facts);
    }
    let own = links.iter().map(|link| text(link, "ifname"));
    for raw in ["all", "default"].into_iter().chain(own) {
        for family in ["ipv4", "ipv6"] {
            let dir = format!("/proc/sys/net/{family}/conf/{raw}");
            for file in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let key = file.file_name().to_string_lossy().into_owned();
                let at = format!("sysctl/net/{family}/conf/{}/{key}", segment(&names.link(raw)));
                read_sysctl(&format!("{dir}/{key}"), &at, facts);
            }
        }
    }
}

/// One that cannot be read (`stable_secret` before it is set) is no fact.
fn read_sysctl(path: &str, at: &str, facts: &mut Facts) {
    if let Ok(value) = fs::read_to_string(path) {
        facts.put(at, value.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_numbered_by_first_appearance() {
        let names = Names::default();
        assert_eq!(names.link("veth0badcafe"), "veth0");
        assert_eq!(names.link("eth0"), "eth0");
        assert_eq!(names.sentence("a vethdeadbeef and veth0badcafe, veth"), "a veth1 and veth0, veth");
    }

    #[test]
    fn an_empty_namespace_reads_the_same_twice() -> Result<()> {
        let netns = Netns::create()?;
        let names = Names::default();
        let first = read(&netns, &names)?;
        assert_eq!(first.facts.changes(&read(&netns, &names)?.facts), []);
        assert_eq!(first.facts.get("link/lo/mtu"), Some("65536"));
        assert_eq!(first.facts.get("sysctl/net/ipv4/ip_forward"), Some("0"));
        Ok(())
    }

    #[test]
    fn a_reading_sees_every_kind_of_change() -> Result<()> {
        let netns = Netns::create()?;
        let names = Names::default();
        let before = read(&netns, &names)?.facts;
        let steps = "link add br0 type bridge\nlink add va type veth peer name vb\nlink set va master br0 up\n\
                     link set br0 up promisc on\naddr add 10.9.0.1/24 dev br0\naddr add fd00:9::1/64 dev br0 nodad\n\
                     route add 10.10.0.0/16 via 10.9.0.2 table 7\nrule add from 10.9.0.0/24 table 7\n";
        netns.run(|| ip(&["-b", "-"], steps))??;
        netns.run(|| fs::write("/proc/sys/net/ipv4/conf/br0/arp_notify", "1"))??;
        let after = read(&netns, &names)?.facts;
        let seen = before.changes(&after);
        for path in [
            "link/br0/flag/PROMISC",
            "link/va/master",
            "link/va/port/hairpin",
            "addr/br0/10.9.0.1_24/scope",
            "addr/br0/fd00:9::1_64/nodad",
            "route/7/4/10.10.0.0_16/0/gateway",
            "route/main/6/fd00:9::_64/0/dev",
            "rule/4/1",
            "sysctl/net/ipv4/conf/br0/arp_notify",
        ] {
            assert!(seen.iter().any(|change| change.path == path), "{path} is not among {seen:#?}");
        }
        Ok(())
    }
}
