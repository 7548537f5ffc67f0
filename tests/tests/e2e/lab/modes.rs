//! Modes and racks: the same checks in every mode, what is on the wire, and for each mode a fault that turns it red.
//!
//! ```text
//!  one rack                     two racks
//!      fabric ── outside            fabric ── outside
//!      ├ node1: kubia-1, 2          ├ rack1 ── node1: kubia-1, node2: kubia-2
//!      └ node2: kubia-3, 4          └ rack2 ── node3: kubia-3
//! ```

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podnet_tests::devices;
use podnet_tests::plugins::{self, DEBIAN};
use serde_json::Value;

use super::ipv6::pass_times;
use super::verdicts::{SMALL, all_pass, kinds, rulings, verdicts};
use super::{Lab, podlab, text};

/// Three nodes in two racks.
pub(super) const RACKS: [&str; 6] = ["--nodes", "3", "--racks", "2", "--pods", "1"];
/// How long a router may take to take a route away.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn up(name: &str, mode: &str, options: &[&str]) -> Result<Lab> {
    let mut all = vec!["--mode", mode];
    all.extend(options);
    Lab::up(name, &all)
}

/// A lab's name for a mode.
fn label(what: &str, mode: &str) -> String {
    format!("{what}-{}", mode.replace(':', "-"))
}

/// The verdict with this subject.
pub(super) fn of<'r>(report: &'r Value, check: &str, subject: &str) -> Result<&'r Value> {
    let found = verdicts(report, check)?.iter().find(|verdict| verdict["subject"] == subject);
    found.with_context(|| format!("no verdict for {subject}"))
}

/// What the report says about the wire: words and packets.
pub(super) fn on_wire(report: &Value) -> Vec<(String, u64)> {
    let seen = report["wire"].as_array().into_iter().flatten();
    seen.map(|seen| {
        (seen["looks"].as_str().unwrap_or_default().into(), seen["packets"].as_u64().unwrap_or(0))
    })
    .collect()
}

/// The check fails with this kind of finding, and no other check fails but those that `may` fail too.
pub(super) fn reddens(lab: &Lab, check: &str, kind: &str, may: &[&str]) -> Result<Value> {
    let (code, report) = lab.verify(&[])?;
    assert_eq!(code, 1, "{}", lab.name);
    let failed: Vec<_> = verdicts(&report, check)?.iter().filter(|v| v["ruling"] != "PASS").collect();
    ensure!(!failed.is_empty(), "{check} passes: {:?}", rulings(&report));
    ensure!(failed.iter().any(|verdict| kinds(verdict).contains(&kind)), "no {kind}: {}", failed[0]);
    for (other, ruling, _) in rulings(&report) {
        ensure!(ruling == "PASS" || other == check || may.contains(&other.as_str()), "{other}: {ruling}");
    }
    Ok(report)
}

#[test]
fn every_mode_passes_the_same_checks_and_says_what_is_on_the_wire() -> Result<()> {
    let plain = "the pods' own packets, nothing around them";
    for (mode, looks, ttls) in [
        ("routed", plain, "TTL 64→63→62"),
        ("ptp", plain, "TTL 64→63→62"),
        ("bgp", plain, "TTL 64→63→62"),
        ("macvlan", plain, "TTL 64→64"),
        ("vxlan", "VXLAN, VNI 1", "TTL 64→63→62"),
        ("mesh:process", "ESP in UDP to port 4500 from node to node", "TTL 64→63→62, encrypted on the wire"),
    ] {
        let lab = up(&label("m", mode), mode, &SMALL)?;
        let (code, report) = lab.verify(&[])?;
        assert_eq!(rulings(&report), all_pass(), "{mode}");
        assert_eq!((code, &report["mode"]), (0, &Value::from(mode)));
        let wire = on_wire(&report);
        ensure!(wire.len() == 1 && wire[0].0.starts_with(looks), "{mode}: {wire:?}");
        // A request and a reply for each of 8 pairs; of what cannot be read, the handshake and all else too.
        ensure!(if mode.starts_with("mesh") { wire[0].1 > 16 } else { wire[0].1 == 16 }, "{mode}: {wire:?}");
        for verdict in verdicts(&report, "cross-node")? {
            ensure!(verdict["evidence"].as_str().is_some_and(|words| words.contains(ttls)), "{verdict}");
        }
    }
    Ok(())
}

#[test]
fn debians_plugins_pass_in_every_mode_too() -> Result<()> {
    for mode in ["ptp", "macvlan", "vxlan", "mesh:process"] {
        let mut options = SMALL.to_vec();
        options.extend(["--cni-bin", DEBIAN]);
        let lab = up(&label("deb", mode), mode, &options)?;
        assert_eq!(rulings(&lab.verify(&[])?.1), all_pass(), "{mode}");
    }
    Ok(())
}

#[test]
fn pods_have_the_mtu_that_fits_into_the_modes_wire() -> Result<()> {
    // The longest datagram, never cut (IP_MTU_DISCOVER 10, IP_PMTUDISC_DO 2; IPV6_DONTFRAG 62), is answered with its own
    // length; one byte more is refused by the pod's own kernel.
    const SERVER: &str = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.setsockopt(41, 26, 0); \
                          s.bind(('::', 9)); s.settimeout(20); data, peer = s.recvfrom(4096); \
                          s.sendto(str(len(data)).encode(), peer)";
    const CLIENT: &str = "import socket, sys; v6 = ':' in sys.argv[2]; \
                          s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM); \
                          s.setsockopt(*((41, 62, 1) if v6 else (0, 10, 2))); s.settimeout(1)\n\
                          for n in range(10):\n s.sendto(b'x' * int(sys.argv[1]), (sys.argv[2], 9))\n \
                          try: print(s.recv(99).decode()); break\n except OSError: pass";
    const V4: (&str, u32) = ("10.244.2.2", 20);
    const V6: (&str, u32) = ("fd00:10:244:2::2", 40);
    for (mode, family, (target, header), mtu) in [
        ("vxlan", "dual", V4, 1430_u32),
        ("vxlan", "ipv4", V4, 1450),
        ("mesh:process", "ipv4", V4, 1438),
        ("mesh:process", "dual", V6, 1438),
        ("mesh:process", "ipv6", V6, 1418),
        ("routed", "ipv6", V6, 1500),
    ] {
        let options = [&SMALL[..], &["--ip-family", family]].concat();
        let lab = up(&format!("{}-{family}", label("mtu", mode)), mode, &options)?;
        let link = lab.exec("kubia-1", &["ip", "-o", "link", "show", "eth0"])?;
        ensure!(link.contains(&format!("mtu {mtu} ")), "{mode} {family}: {link}");
        let mut server =
            super::command(&["exec", "--name", &lab.name, "kubia-3", "--", "python3", "-c", SERVER])?
                .stdin(Stdio::null())
                .spawn()?;
        let longest = mtu - header - 8;
        let send = |bytes: u32| {
            lab.podlab("exec", &["kubia-1", "--", "python3", "-c", CLIENT, &bytes.to_string(), target])
        };
        let fits = send(longest)?;
        assert_eq!(
            String::from_utf8_lossy(&fits.stdout).trim(),
            longest.to_string(),
            "{mode}: {}",
            text(&fits)
        );
        ensure!(server.wait()?.success(), "{mode}: the server got nothing");
        let too_long = text(&send(longest + 1)?);
        ensure!(too_long.contains("Message too long"), "{mode}: {too_long}");
    }
    Ok(())
}

#[test]
fn across_racks_host_gw_fails_and_what_knows_a_way_does_not() -> Result<()> {
    for mode in ["routed", "ptp", "vxlan", "bgp", "mesh:process"] {
        let lab = up(&label("r", mode), mode, &RACKS)?;
        let (code, report) = lab.verify(&["cross-node", "ingress", "egress"])?;
        assert_eq!(code, 0, "{mode}: {:?}", rulings(&report));
        // Node, rack, fabric, rack, node: each takes one, unless it sees the tunnel only.
        let far = of(&report, "cross-node", "kubia-1 > kubia-3")?;
        let last = far["request"].as_array().and_then(|points| points.last()).context("no points")?;
        assert_eq!(
            last["ttl"],
            if ["vxlan", "mesh:process"].contains(&mode) { 62 } else { 59 },
            "{mode}: {far}"
        );
        let near = of(&report, "cross-node", "kubia-1 > kubia-2")?;
        ensure!(near["evidence"].as_str().is_some_and(|words| words.contains("TTL 64→63→62")), "{near}");
    }
    let lab = up("r-host-gw", "routed:host-gw", &RACKS)?;
    let (code, report) = lab.verify(&["cross-node", "ingress", "egress"])?;
    assert_eq!(code, 1);
    for (subject, ruling) in
        [("kubia-1 > kubia-2", "PASS"), ("kubia-1 > kubia-3", "FAIL"), ("kubia-3 > kubia-1", "FAIL")]
    {
        assert_eq!(of(&report, "cross-node", subject)?["ruling"], ruling, "{subject}");
    }
    let lost = of(&report, "cross-node", "kubia-1 > kubia-3")?;
    ensure!(
        lost["evidence"].as_str().is_some_and(|words| words.contains("last seen at fabric/rack1 in")),
        "{lost}"
    );
    Ok(())
}

#[test]
fn mesh_shows_no_packet_of_a_pod_between_nodes() -> Result<()> {
    let lab = up("mesh-points", "mesh:process", &SMALL)?;
    let (_, report) = lab.verify(&["cross-node"])?;
    for verdict in verdicts(&report, "cross-node")? {
        let points = verdict["request"].as_array().into_iter().chain(verdict["reply"].as_array()).flatten();
        for point in points {
            let at = point["at"].as_str().unwrap_or_default();
            ensure!(
                !at.starts_with("fabric/") && !at.ends_with("node1/eth0") && !at.ends_with("node2/eth0"),
                "{point}"
            );
        }
    }
    let verdict = of(&report, "cross-node", "kubia-1 > kubia-3")?;
    let at = |at: &str| verdict["request"].as_array().into_iter().flatten().any(|point| point["at"] == at);
    ensure!(["kubia-1/eth0", "node1/mesh0", "node2/mesh0", "kubia-3/eth0"].into_iter().all(at), "{verdict}");
    let walk = text(&lab.podlab("trace", &["kubia-1", "kubia-3"])?);
    ensure!(
        walk.contains("node2/mesh0") && walk.contains("between nodes: ESP in UDP to port 4500"),
        "{walk}"
    );
    Ok(())
}

#[test]
fn mesh_without_its_process_or_around_it_is_red() -> Result<()> {
    let lab = up("mesh-killed", "mesh:process", &SMALL)?;
    lab.exec("node1", &["sh", "-c", "kill -9 $(cat /run/podlab/mesh/node1.pid)"])?;
    let deadline = Instant::now() + LIMIT;
    while lab.exec("node1", &["ip", "-br", "link"])?.contains("mesh0") {
        ensure!(Instant::now() < deadline, "the device outlives its process");
        std::thread::sleep(Duration::from_millis(20));
    }
    reddens(&lab, "cross-node", "unreachable", &[])?;

    let lab = up("mesh-clear", "mesh:process", &SMALL)?;
    lab.exec("node1", &["ip", "route", "replace", "10.244.2.0/24", "via", "192.0.2.12"])?;
    let report = reddens(&lab, "cross-node", "wire-differs", &[])?;
    let clear = of(&report, "cross-node", "kubia-1 > kubia-3")?;
    assert_eq!((&clear["ruling"], &clear["outcome"]["word"]), (&"FAIL".into(), &"OK".into()), "{clear}");
    ensure!(
        clear["evidence"]
            .as_str()
            .is_some_and(|words| words.contains("plain at node1/eth0 out, not encrypted")),
        "{clear}"
    );
    Ok(())
}

/// By the kernel's own encryption: the same checks, and for a lost association the same red.
fn mesh_of_the_kernel(feature: &str, mode: &str, looks: &str, spoil: &str) -> Result<()> {
    if !devices::require(feature)? {
        let name = format!("e2e-{}-{}", label("lacks", mode), std::process::id());
        let refused = podlab(&["up", "-d", "--name", &name, "--mode", mode])?;
        ensure!(refused.status.code() == Some(5) && text(&refused).contains("CONFIG_"), "{}", text(&refused));
        return Ok(());
    }
    for (family, times) in [("ipv4", 1), ("ipv6", 1), ("dual", 2)] {
        mesh_in((family, times), mode, looks, spoil).with_context(|| format!("{mode} {family}"))?;
    }
    Ok(())
}

fn mesh_in((family, times): (&str, usize), mode: &str, looks: &str, spoil: &str) -> Result<()> {
    let options = [&SMALL[..], &["--ip-family", family]].concat();
    let lab = up(&format!("{}-{family}", label("k", mode)), mode, &options)?;
    // A machine that is emulated may take longer over an answer than a probe waits.
    let deadline = Instant::now() + LIMIT * 3;
    let (mut code, mut report) = lab.verify(&[])?;
    while code != 0 && Instant::now() < deadline {
        (code, report) = lab.verify(&[])?;
    }
    assert_eq!((code, rulings(&report)), (0, pass_times(times)));
    let wire = on_wire(&report);
    ensure!(wire.len() == 1 && wire[0].0.starts_with(looks), "{wire:?}");
    lab.exec("node1", &["sh", "-c", spoil])?;
    let (code, report) = lab.verify(&["cross-node"])?;
    let all = verdicts(&report, "cross-node")?;
    let is_lost = |it: &Value| it["findings"].to_string().contains("unreachable");
    ensure!(code == 1 && all.len() == 8 * times && all.iter().all(is_lost), "{report:#}");
    Ok(())
}

#[test]
fn device_mesh_by_wireguard() -> Result<()> {
    mesh_of_the_kernel(
        "wireguard",
        "mesh:wireguard",
        "WireGuard in UDP to port 51820",
        "ip link set wg0 down",
    )
}

#[test]
fn device_mesh_by_the_kernels_esp() -> Result<()> {
    mesh_of_the_kernel("esp", "mesh:esp", "ESP from node to node", "ip xfrm state flush")
}

#[test]
fn ptp_without_forwarding_is_red_on_one_node_already() -> Result<()> {
    let lab = up("ptp-off", "ptp", &SMALL)?;
    lab.exec("node1", &["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])?;
    reddens(&lab, "same-node", "unreachable", &["cross-node", "ingress", "egress"]).map(drop)
}

#[test]
fn macvlan_in_private_mode_is_red_on_one_node_and_not_across() -> Result<()> {
    let lab = up("mv-private", "macvlan", &SMALL)?;
    for pod in ["kubia-1", "kubia-2"] {
        lab.exec(pod, &["ip", "link", "set", "eth0", "type", "macvlan", "mode", "private"])?;
    }
    // Without an answer to ARP nothing of a probe is sent at all.
    let report = reddens(&lab, "same-node", "no-packet", &[])?;
    assert_eq!(of(&report, "same-node", "kubia-3 > kubia-4")?["ruling"], "PASS");
    Ok(())
}

#[test]
fn macvlan_has_no_way_between_a_node_and_its_own_pods_and_says_so() -> Result<()> {
    let lab = up("mv-own", "macvlan", &SMALL)?;
    let reaches = |from: &str, address: &str| -> Result<bool> {
        let script = format!("exec 3<>/dev/tcp/{address}/8080");
        Ok(lab.podlab("exec", &[from, "--", "timeout", "10", "bash", "-c", &script])?.status.success())
    };
    ensure!(!reaches("node1", "10.244.1.2")?, "node1 reaches its own pod");
    ensure!(reaches("node1", "10.244.2.2")?, "node1 does not reach node2's pod");
    let (_, report) = lab.verify(&["same-node"])?;
    ensure!(
        report["notes"].to_string().contains("a node and its own pods do not reach one another"),
        "{report}"
    );
    let links = lab.exec("node1", &["ip", "-br", "link"])?;
    ensure!(!links.contains("cni0") && !links.contains("veth"), "{links}");
    let racks = podlab(&["up", "--mode", "macvlan", "--racks", "2"])?;
    ensure!(racks.status.code() == Some(2) && text(&racks).contains("must share a link"), "{}", text(&racks));
    Ok(())
}

#[test]
fn a_bgp_session_that_ends_takes_its_routes_with_it() -> Result<()> {
    let lab = up("bgp-down", "bgp", &SMALL)?;
    lab.exec("node1", &["birdc", "-s", "/run/podlab/bgp/node1.ctl", "disable", "fabric"])?;
    let deadline = Instant::now() + LIMIT;
    while lab.exec("node2", &["ip", "route"])?.contains("10.244.1.0/24") {
        ensure!(Instant::now() < deadline, "{}", lab.exec("node2", &["ip", "route"])?);
        std::thread::sleep(Duration::from_millis(20));
    }
    reddens(&lab, "cross-node", "unreachable", &["ingress", "egress"]).map(drop)
}

#[test]
fn a_mode_whose_program_is_missing_is_refused_before_anything_is_made() -> Result<()> {
    let name = format!("e2e-no-bird-{}", std::process::id());
    // In a mount namespace of its own the speaker is no file.
    let script =
        format!("mount --bind /dev/null /usr/sbin/bird && exec \"$0\" up -d --mode bgp --name {name}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(plugins::podlab()?).stdin(Stdio::null());
    let output = command.output()?;
    ensure!(output.status.code() == Some(5), "{}", text(&output));
    ensure!(
        text(&output).contains("mode bgp: no bird") && text(&output).contains("apt-get install bird2"),
        "{}",
        text(&output)
    );
    ensure!(!text(&podlab(&["ls", "-q"])?).contains(&name));
    Ok(())
}

/// Frames that each link of a namespace has received and sent.
fn counted(lab: &Lab, space: &str) -> Result<String> {
    let table = lab.exec(space, &["cat", "/proc/net/dev"])?;
    let counts = table.lines().skip(2).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some(format!("{} {} {}", fields.first()?, fields.get(2)?, fields.get(10)?))
    });
    Ok(counts.collect::<Vec<_>>().join("\n"))
}

#[test]
fn idle_wires_are_quiet_in_every_mode_without_a_speaker() -> Result<()> {
    let labs: Vec<Lab> = ["routed", "ptp", "vxlan", "macvlan", "mesh:process"]
        .into_iter()
        .map(|mode| up(&label("idle", mode), mode, &SMALL))
        .collect::<Result<_>>()?;
    stay_quiet(&labs)
}

/// No link of these labs carries a frame for ten seconds.
pub(super) fn stay_quiet(labs: &[Lab]) -> Result<()> {
    // What links send when they come up, reports of listeners among it, is over by then.
    std::thread::sleep(Duration::from_secs(4));
    let all = || -> Result<Vec<String>> {
        let spaces = ["fabric", "outside", "node1", "node2", "kubia-1", "kubia-3"];
        let pairs = labs.iter().flat_map(|lab| spaces.iter().map(move |space| (lab, space)));
        pairs.map(|(lab, space)| Ok(format!("{} {space}\n{}", lab.name, counted(lab, space)?))).collect()
    };
    let before = all()?;
    std::thread::sleep(Duration::from_secs(10));
    for (before, after) in before.iter().zip(all()?) {
        assert_eq!(*before, after);
    }
    Ok(())
}

#[test]
fn what_a_mode_has_started_ends_with_the_lab() -> Result<()> {
    for (mode, least) in [("bgp", 3), ("mesh:process", 2)] {
        let bare = up(&label("bare", mode), "routed", &SMALL)?;
        let lab = up(&label("end", mode), mode, &SMALL)?;
        let (usual, all) = (processes(&bare)?.1, processes(&lab)?);
        ensure!(
            all.1.len() >= usual.len() + least,
            "{mode}: {} processes, {} without it",
            all.1.len(),
            usual.len()
        );
        let down = lab.podlab("down", &[])?;
        ensure!(down.status.success(), "{}", text(&down));
        let deadline = Instant::now() + LIMIT;
        while !in_namespace(&all.0).is_empty() {
            ensure!(Instant::now() < deadline, "{mode}: processes of the lab are left");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// The PID namespace of a lab, and the processes in it.
fn processes(lab: &Lab) -> Result<(String, Vec<String>)> {
    let namespace = lab.exec("node1", &["readlink", "/proc/self/ns/pid"])?.trim().to_owned();
    let found = in_namespace(&namespace);
    Ok((namespace, found))
}

fn in_namespace(namespace: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_in = |path: &std::path::Path| {
        std::fs::read_link(path.join("ns/pid")).is_ok_and(|link| link.as_os_str() == namespace)
    };
    entries
        .map(|entry| entry.path())
        .filter(|path| is_in(path))
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn masquerade_fails_the_no_nat_verdict_in_other_modes_too() -> Result<()> {
    for mode in ["vxlan", "bgp", "ptp"] {
        let mut options = SMALL.to_vec();
        options.push("--ip-masq");
        let lab = up(&format!("masq-{mode}"), mode, &options)?;
        let (code, report) = lab.verify(&["cross-node"])?;
        assert_eq!(code, 1, "{mode}");
        for verdict in verdicts(&report, "cross-node")? {
            assert_eq!(
                (&verdict["ruling"], &verdict["outcome"]["word"]),
                (&"FAIL".into(), &"OK".into()),
                "{mode}"
            );
            ensure!(kinds(verdict).contains(&"source-rewritten"), "{mode}: {verdict}");
        }
    }
    let refused = podlab(&["up", "--mode", "macvlan", "--ip-masq"])?;
    ensure!(
        refused.status.code() == Some(2) && text(&refused).contains("has no ipMasq"),
        "{}",
        text(&refused)
    );
    Ok(())
}

#[test]
fn the_help_lists_every_mode_and_an_unknown_one_is_refused_by_them() -> Result<()> {
    let help = text(&podlab(&["up", "--help"])?);
    let refused = text(&podlab(&["up", "--mode", "teleport"])?);
    let listed = refused.split_once("there are: ").context("no list")?.1;
    let names: Vec<&str> = listed.lines().next().unwrap_or_default().split(", ").map(str::trim).collect();
    ensure!(names.len() >= 5, "{names:?}");
    let doctor = text(&podlab(&["doctor"])?);
    for name in names {
        ensure!(help.contains(&format!("{name}: ")), "{name} is not in {help}");
        ensure!(doctor.contains(&format!("mode {name}")), "{name} is not in {doctor}");
    }
    Ok(())
}
