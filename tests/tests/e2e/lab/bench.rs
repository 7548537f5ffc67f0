//! Rates between pods: what is counted, which way it goes, and the labs that are made for it.
//!
//! ```text
//!   one node:    kubia-1 ── cni0 ── kubia-2              eth0 of the node stays quiet
//!   two nodes:   kubia-1 ── node1/eth0 ══ node2/eth0 ── kubia-2     everything is on the wire
//! ```

use std::io::Read;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Lab, command, eventually, podlab, text};

/// Packets that a node's uplink has had, both ways, by the kernel's own table.
fn uplink(lab: &Lab, node: &str) -> Result<u64> {
    let table = lab.exec(node, &["cat", "/proc/net/dev"])?;
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("eth0:")).context("no eth0")?;
    let numbers: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    Ok(numbers[1] + numbers[9])
}

/// Measures a lab; the results, and the packets that went through node1's uplink meanwhile.
fn measured(lab: &Lab, options: &[&str]) -> Result<(Vec<Value>, u64)> {
    let before = uplink(lab, "node1")?;
    let output = lab.podlab("bench", &[options, &["--seconds", "0.2", "-o", "json"]].concat())?;
    ensure!(output.status.success(), "{}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let results = document["labs"][0]["results"].as_array().context("no results")?.clone();
    for result in &results {
        let (sent, received) = (&result["sent"], &result["received"]);
        ensure!(
            result["rate"].as_f64() > Some(0.0) && result["ratio"]["median"].as_f64() > Some(0.0),
            "{result}"
        );
        // Datagrams may be lost; what they carry arrives whole.
        match result["kind"] == "udp" {
            true => ensure!(received["items"].as_u64() <= sent["items"].as_u64(), "{result}"),
            false => {
                ensure!(received["items"] == sent["items"] && received["bytes"] == sent["bytes"], "{result}")
            }
        }
        ensure!(received["bytes"].as_u64() > Some(0), "{result}");
    }
    Ok((results, uplink(lab, "node1")? - before))
}

fn paths(results: &[Value]) -> Vec<&str> {
    results.iter().filter_map(|result| result["path"].as_str()).collect()
}

/// What was received on a path, in messages.
fn received(results: &[Value], path: &str) -> u64 {
    let own = results.iter().filter(|result| result["path"] == path && result["kind"] != "tcp-stream");
    own.filter_map(|result| result["received"]["items"].as_u64()).sum()
}

#[test]
fn what_stays_on_a_node_is_not_on_its_wire() -> Result<()> {
    let lab = Lab::up("bench-near", &["--nodes", "1", "--pods", "2"])?;
    let (results, crossed) = measured(&lab, &[])?;
    assert_eq!(paths(&results), ["loopback", "same-node"].repeat(4));
    let messages = received(&results, "same-node");
    ensure!(messages > 100 && crossed < messages / 10, "{crossed} packets on the wire, {messages} messages");
    Ok(())
}

#[test]
fn what_crosses_nodes_is_on_the_wire() -> Result<()> {
    let lab = Lab::up("bench-far", &["--nodes", "2", "--pods", "1", "--mode", "vxlan"])?;
    let dir = tempfile::tempdir()?;
    let plot = dir.path().join("bench.svg");
    let (results, crossed) = measured(&lab, &["--plot", plot.to_str().context("path")?])?;
    assert_eq!(paths(&results), ["loopback", "cross-node"].repeat(4));
    let messages = received(&results, "cross-node");
    ensure!(messages > 100 && crossed >= messages, "{crossed} packets on the wire, {messages} messages");
    let told: u64 = results
        .iter()
        .filter(|result| result["path"] == "cross-node")
        .filter_map(|it| it["uplink_packets"].as_u64())
        .sum();
    ensure!(told >= messages && told <= crossed, "{told} packets told, {crossed} on the wire");
    // A bar each, and each bar's numbers.
    let drawn = std::fs::read_to_string(&plot)?;
    assert_eq!(drawn.matches("<g><title>vxlan ").count(), 4, "{drawn}");
    let table = lab.podlab("bench", &["--seconds", "0.1", "-q"])?;
    let lines = String::from_utf8_lossy(&table.stdout).lines().count();
    ensure!(table.status.success() && lines == 9, "{}", text(&table));
    Ok(())
}

#[test]
fn modes_are_measured_in_labs_that_end_with_the_bench() -> Result<()> {
    let output = podlab(&["bench", "--modes", "routed,ptp", "--seconds", "0.1", "-q", "-o", "json"])?;
    ensure!(output.status.success(), "{}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let labs: Vec<(&str, usize)> = document["labs"]
        .as_array()
        .context("no labs")?
        .iter()
        .filter_map(|lab| Some((lab["mode"].as_str()?, lab["results"].as_array()?.len())))
        .collect();
    assert_eq!(labs, [("routed", 12), ("ptp", 12)]);

    let mut bench = command(&["bench", "--modes", "all", "--seconds", "5"])?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let own = format!("bench-{}-", bench.id());
    let left = || -> Result<bool> { Ok(text(&podlab(&["ls", "-q"])?).contains(&own)) };
    eventually("its first lab is up", left)?;
    kill(Pid::from_raw(bench.id().cast_signed()), Signal::SIGKILL)?;
    bench.wait()?;
    eventually("its lab is gone", || Ok(!left()?))?;
    let mut rest = String::new();
    bench.stderr.take().context("no stderr")?.read_to_string(&mut rest)?;
    ensure!(rest.lines().all(|line| !line.contains("error")), "{rest}");
    Ok(())
}

#[test]
fn a_bench_of_nothing_is_wrong_use() -> Result<()> {
    let lab = Lab::up("bench-alone", &["--nodes", "1", "--pods", "1"])?;
    let name = lab.name.as_str();
    for (args, words) in [
        (vec!["--name", name], "has no two pods · try: podlab up --pods 2"),
        (vec!["--name", name, "--modes", "all"], "cannot be used with"),
        (vec!["--modes", "pigeons"], "no mode \"pigeons\" · there are: bgp"),
        (vec!["--name", name, "--seconds", "0"], "\"0\" is not from 0.1 to 60"),
        (vec!["--name", name, "--plot", "/nowhere/bench.svg"], "/nowhere/bench.svg: No such file"),
        (vec!["--name", "e2e-nobody"], "no lab \"e2e-nobody\" is up"),
    ] {
        let output = podlab(&[vec!["bench"], args].concat())?;
        ensure!(
            output.status.code() == Some(2) && text(&output).contains(words),
            "{words}: {}",
            text(&output)
        );
    }
    Ok(())
}
