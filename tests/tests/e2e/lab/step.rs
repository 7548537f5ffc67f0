//! A wire that is held: real connections over frames that wait, are lost, doubled, changed and overtaken, and the wire as
//! it was afterwards, however the one who steps has ended.
//!
//! ```text
//!   kubia-1 ── node1/eth0 ══ step-node ⇄ step-switch ── lan0 ══ node2/eth0 ── kubia-3
//!                            frames wait here
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podnet_tests::plugins;
use serde_json::Value;

use super::{Lab, command, eventually, podlab, text};

const NODES: [&str; 4] = ["--nodes", "2", "--pods", "2"];

fn start(lab: &Lab, rest: &[&str]) -> Result<Child> {
    let mut args = vec!["trace", "--name", &lab.name, "--step", "-o", "json"];
    args.extend(rest);
    let mut child = command(&args)?;
    Ok(child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Whether a line tells of a frame that waits, and what it is.
fn frame(line: &str) -> Option<&str> {
    ["  from the node  ", "  to the node    "].iter().find_map(|way| Some(line.split_once(way)?.1))
}

/// Steps through a trace. ARP goes by; of each other frame, counted from 0, `orders` says what is to be done with it.
/// Returns the trace and what was told.
fn stepped(
    lab: &Lab,
    rest: &[&str],
    mut orders: impl FnMut(usize, &str) -> &'static str,
) -> Result<(Value, String)> {
    let mut child = start(lab, rest)?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let (mut told, mut count) = (String::new(), 0);
    for line in BufReader::new(child.stderr.take().context("no stderr")?).lines() {
        let line = line?;
        told += &format!("{line}\n");
        let order = match frame(&line) {
            Some(arp) if arp.starts_with("ARP ") => "next\n",
            Some(other) => {
                count += 1;
                orders(count - 1, other)
            }
            None => continue,
        };
        // A probe that has ended takes no more orders.
        let _ = stdin.write_all(order.as_bytes());
    }
    drop(stdin);
    let mut document = String::new();
    child.stdout.take().context("no stdout")?.read_to_string(&mut document)?;
    let status = child.wait()?;
    ensure!(status.success(), "{status}: {told}");
    Ok((serde_json::from_str(&document).with_context(|| told.clone())?, told))
}

/// What a held wire could leave behind: links and their properties, queues, sysctls, the patience of the nodes.
fn state(lab: &Lab) -> Result<Vec<Value>> {
    let inspect = |what: &[&str]| -> Result<Value> {
        let output = lab.podlab("inspect", &[what, &["-o", "json"]].concat())?;
        serde_json::from_slice(&output.stdout).with_context(|| text(&output))
    };
    let mut all = vec![inspect(&[])?];
    for place in ["fabric", "node1", "node2"] {
        let document = inspect(&[place])?;
        all.extend(
            ["interfaces", "routes", "rules", "qdiscs", "chains", "sysctls"].map(|key| document[key].clone()),
        );
    }
    for (place, link) in [("node1", "eth0"), ("node2", "eth0"), ("fabric", "lan0")] {
        for question in ["mcast_solicit", "ucast_solicit"] {
            let path = format!("/proc/sys/net/ipv4/neigh/{link}/{question}");
            all.push(lab.exec(place, &["cat", &path])?.trim().into());
        }
    }
    all.push(lab.exec("fabric", &["bridge", "-d", "link", "show"])?.into());
    Ok(all)
}

/// The state once the kernel has told that every wire carries frames, which it does some time after they are plugged in.
fn settled(lab: &Lab) -> Result<Vec<Value>> {
    let is_down = |state: &Vec<Value>| {
        let mut links = state[0]["links"].as_array().into_iter().flatten();
        links.any(|link| link["kind"] == "veth" && link["state"] != "up")
    };
    eventually("every wire carries frames", || Ok(!is_down(&state(lab)?)))?;
    state(lab)
}

/// The TTL with which the last sighting of a packet was made.
fn last_ttl(trace: &Value, packet: &str) -> Option<u64> {
    let walk = trace["walks"].as_array()?.iter().find(|walk| walk["packet"] == packet)?;
    walk["hops"].as_array()?.last()?["ttl"].as_u64()
}

#[test]
fn a_ping_completes_by_hand_and_the_wire_is_as_it_was() -> Result<()> {
    let lab = Lab::up("step-ping", &NODES)?;
    let before = settled(&lab)?;
    let (trace, told) = stepped(&lab, &["kubia-1", "kubia-3", "--proto", "icmp"], |_, _| "next\n")?;
    let waited: Vec<&str> = told.lines().filter_map(frame).collect();
    let words = [
        "ARP who has 192.0.2.12, asks",
        "ARP 192.0.2.12 is at",
        "10.244.1.2 > 10.244.2.2 ICMP echo type 8",
        "10.244.2.2 > 10.244.1.2 ICMP echo type 0",
    ];
    ensure!(
        waited.len() == 4 && waited.iter().zip(words).all(|(line, words)| line.starts_with(words)),
        "{told}"
    );
    ensure!(trace["outcome"]["word"] == "OK" && trace["ruling"] == "PASS", "{trace:#}");
    let hops = trace["walks"][0]["hops"].as_array().context("no hops")?;
    let reasons: Vec<&Value> =
        hops.iter().filter(|hop| hop["interface"] == "step-node").map(|hop| &hop["why"]).collect();
    assert_eq!(reasons, ["waits until it is let go by"], "{hops:#?}");
    assert_eq!(state(&lab)?, before);
    let (code, report) = lab.verify(&[])?;
    ensure!(code == 0, "{report:#}");
    Ok(())
}

#[test]
fn a_connection_outlives_frames_that_are_lost_changed_and_overtaken() -> Result<()> {
    let lab = Lab::up("step-tcp", &NODES)?;
    let before = settled(&lab)?;
    // SYN (lost), SYN again, SYN-ACK; then the client's ACK and its request, of which the second goes first.
    let (trace, told) = stepped(&lab, &["kubia-1", "kubia-3"], |number, line| match number {
        0 => "drop\n",
        3 if !line.contains(" 0 bytes") => "next\n",
        3 => "",
        4 => "swap\nnext\nnext\n",
        _ => "next\n",
    })?;
    ensure!(trace["outcome"]["word"] == "OK", "{told}{trace:#}");
    for words in ["is dropped", "waits behind", "the probe has ended: OK"] {
        ensure!(told.contains(words), "no {words:?}: {told}");
    }
    let syns = told.lines().filter(|line| line.contains("TCP SYN ttl")).count();
    ensure!(syns >= 2, "{told}");

    // A byte of the request is another one: nobody answers that, and it is sent again.
    let mut changed = 0;
    let (trace, told) = stepped(&lab, &["kubia-1", "kubia-3"], |_, line| {
        let is_request = line.contains(", 119 bytes");
        changed += usize::from(is_request);
        if is_request && changed == 1 { "edit byte 100 0x21\nnext\n" } else { "next\n" }
    })?;
    ensure!(trace["outcome"]["word"] == "OK" && told.contains("> 0x21") && changed >= 2, "{told}{trace:#}");

    // Two answers come to a request that goes on twice, and it arrives with the TTL that it was given.
    let (trace, told) =
        stepped(&lab, &["kubia-1", "kubia-3", "--proto", "icmp"], |number, _| match number {
            0 => "edit ttl 300\nedit ttl 9\nedit byte 5000 1\ndup\n",
            _ => "next\n",
        })?;
    ensure!(
        last_ttl(&trace, "echo request") == Some(8) && trace["outcome"]["word"] == "OK",
        "{told}{trace:#}"
    );
    for words in
        ["\"300\" is no number that fits", "has TTL 9 now", "it has 81 bytes, from 0 on", "goes on twice"]
    {
        ensure!(told.contains(words), "no {words:?}: {told}");
    }
    let answers = told.lines().filter(|line| line.contains("ICMP echo type 0")).count();
    assert_eq!(answers, 2, "{told}");
    assert_eq!(state(&lab)?, before);
    Ok(())
}

#[test]
fn a_wire_is_put_back_when_the_one_who_steps_has_gone() -> Result<()> {
    let lab = Lab::up("step-gone", &[&NODES[..], &["--mode", "vxlan"]].concat())?;
    let before = settled(&lab)?;
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let mut child = start(&lab, &["kubia-1", "kubia-3"])?;
        let mut told = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut line = String::new();
        while frame(&line).is_none() {
            line.clear();
            ensure!(told.read_line(&mut line)? > 0, "it ended before a frame waited");
        }
        ensure!(state(&lab)? != before, "nothing is held");
        kill(Pid::from_raw(child.id().cast_signed()), signal)?;
        child.wait()?;
        eventually("the wire is as it was", || Ok(state(&lab)? == before))?;
        let (code, report) = lab.verify(&["cross-node"])?;
        ensure!(code == 0, "{signal}: {report:#}");
    }
    // An order to give up is another way out; what was seen until then is told.
    let mut child = start(&lab, &["kubia-1", "kubia-3"])?;
    child.stdin.take().context("no stdin")?.write_all(b"next\nquit\n")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    let trace: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(trace["outcome"]["detail"], "given up while its frames waited");
    assert_eq!(state(&lab)?, before);
    Ok(())
}

/// A terminal on which somebody presses Enter for every frame; the second time Ctrl-C at the first one.
const PRESSER: &str = r#"
import os, pty, re, select, signal, sys, time
program, name, mode = sys.argv[1:4]
pid, fd = pty.fork()
if pid == 0:
    # Whoever was started in the background by a shell ignores it, and so do all that it starts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(program, [program, "trace", "--name", name, "kubia-1", "kubia-3", "--proto", "icmp", "--step"])
seen, pressed, deadline = "", 0, time.time() + 120
while True:
    if time.time() > deadline:
        sys.exit("not within two minutes: %r" % seen)
    if select.select([fd], [], [], 0.2)[0]:
        try:
            part = os.read(fd, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part.decode(errors="replace")
    waiting = len(re.findall(r"  (?:from|to) the node  ", seen))
    while pressed < waiting:
        pressed += 1
        os.write(fd, b"\x03" if mode == "interrupt" else b"\r")
status = os.waitpid(pid, 0)[1]
if mode == "interrupt":
    sys.exit(0 if os.WIFSIGNALED(status) and os.WTERMSIG(status) == 2 else "%r %r" % (status, seen))
sys.exit(0 if status == 0 and pressed >= 2 and "no NAT (5-tuple identical" in seen else "%r %r" % (status, seen))
"#;

#[test]
fn a_key_lets_a_frame_go_by_on_a_terminal() -> Result<()> {
    let lab = Lab::up("step-key", &NODES)?;
    let before = settled(&lab)?;
    for mode in ["press", "interrupt"] {
        let mut presser = Command::new("/usr/bin/python3");
        presser.args(["-c", PRESSER]).arg(plugins::podlab()?).args([&lab.name, mode]).stdin(Stdio::null());
        let output = presser.output().context("start python3")?;
        ensure!(output.status.success(), "{mode}: {}", text(&output));
        eventually("the wire is as it was", || Ok(state(&lab)? == before))?;
    }
    Ok(())
}

#[test]
fn a_wire_that_is_not_on_the_way_is_not_held() -> Result<()> {
    let lab = Lab::up("step-wrong", &NODES)?;
    let name = lab.name.as_str();
    for (args, words) in [
        (vec!["kubia-1", "kubia-2"], "kubia-1 and kubia-2 are on one node, and no wire between nodes"),
        (vec!["outside", "198.51.100.1"], "no wire of a node is on the way from outside"),
        (vec!["node1", "kubia-3"], "\"node1\" sends no probes"),
        (vec!["kubia-1", "kubia-3", "--hooks"], "cannot be used with"),
    ] {
        let output = podlab(&[vec!["trace", "--name", name, "--step"], args].concat())?;
        ensure!(
            output.status.code() == Some(2) && text(&output).contains(words),
            "{words}: {}",
            text(&output)
        );
    }
    // From outside it is the wire of the pod's node; without orders everything goes by.
    let output = podlab(&["trace", "--name", name, "--step", "outside", "kubia-3", "-o", "json"])?;
    ensure!(
        output.status.success() && text(&output).contains("the wire of node2 is held"),
        "{}",
        text(&output)
    );
    Ok(())
}
