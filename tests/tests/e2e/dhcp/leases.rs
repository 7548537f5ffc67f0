//! Leases from dnsmasq: ADD, CHECK, DEL and GC, what a daemon does that starts again, what it does without a server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::*;

#[test]
fn add_gives_address_and_route_and_del_releases() -> Result<()> {
    let lan = Lan::ready(1, &[])?;
    let result = lan.add(0)?;
    ensure!(address(&result, 0).starts_with("10.9.0.") && address(&result, 0).ends_with("/24"), "{result}");
    ensure!(
        result["ips"][0]["gateway"] == "10.9.0.1" && result["ips"][0].get("interface").is_none(),
        "{result}"
    );
    ensure!(result["routes"] == json!([{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]), "{result}");
    ensure!(result.get("dns").is_none(), "dns without being asked: {result}");
    ensure!(lan.pod_says(0, "-br link show eth0")?.contains("UP"), "the daemon sets the link up");
    let bare = address(&result, 0).replace("/24", "");
    ensure!(lan.given() == [bare.as_str()] && lan.kept() == 1);
    // Option 61 is 0 and the attachment's name.
    let id: String = b"\0c0/testnet/eth0".iter().map(|byte| format!(":{byte:02x}")).collect();
    let leases = std::fs::read_to_string(lan.lease_file())?;
    ensure!(leases.contains(&id[1..]), "{leases}");

    lan.call("DEL", 0).run()?.silent()?;
    lan.dnsmasq().wait_for("DHCPRELEASE")?;
    eventually("dnsmasq has no lease any more", || lan.given().is_empty())?;
    ensure!(lan.kept() == 0);
    lan.call("DEL", 0).run()?.silent().context("a second DEL")
}

#[test]
fn two_pods_get_two_addresses_and_a_repeated_add_the_same() -> Result<()> {
    let lan = Lan::ready(2, &[])?;
    let (first, second) = (lan.add(0)?, lan.add(1)?);
    ensure!(address(&first, 0) != address(&second, 0));
    let discovers = lan.dnsmasq().count("DHCPDISCOVER");
    ensure!(lan.add(0)? == first);
    ensure!(lan.dnsmasq().count("DHCPDISCOVER") == discovers, "a repeated ADD asked the server");
    // Two attachments of one container are two clients.
    lan.world.host_ip(&[
        &format!("link add w0 type veth peer name eth1 netns {}", lan.world.netns(0)),
        "link set w0 master lan0 up",
    ])?;
    let other = lan.call("ADD", 0).env("CNI_IFNAME", "eth1").run()?.result()?;
    ensure!(address(&other, 0) != address(&first, 0));
    lan.call("DEL", 0).run()?.silent()?;
    ensure!(lan.kept() == 2, "the other interface's lease stays");
    lan.call("CHECK", 0).env("CNI_IFNAME", "eth1").prev(&other).run()?.silent()
}

#[test]
fn check_never_asks_a_server() -> Result<()> {
    let lan = Lan::ready(1, &[])?;
    let result = lan.add(0)?;
    lan.call("CHECK", 0).prev(&result).run()?.silent()?;
    let wrong = json!({"cniVersion": VERSION, "ips": [{"address": "10.9.0.9/24"}]});
    let error = lan.call("CHECK", 0).prev(&wrong).run()?.error()?;
    ensure!(error.msg.contains("which is not in prevResult"), "{error:?}");
    lan.call("DEL", 0).run()?.silent()?;
    let discovers = lan.dnsmasq().count("DHCPDISCOVER");
    let error = lan.call("CHECK", 0).prev(&result).run()?.error()?;
    ensure!(error.msg.contains("knows no lease"), "{error:?}");
    ensure!(lan.dnsmasq().count("DHCPDISCOVER") == discovers && lan.kept() == 0, "CHECK acquired a lease");
    Ok(())
}

#[test]
fn options_reach_the_server_and_routes_come_back() -> Result<()> {
    let lan = Lan::ready(
        1,
        &[
            "--dhcp-vendorclass=set:ours,podnet-test",
            "--dhcp-option=tag:ours,121,0.0.0.0/0,10.9.0.1,192.168.7.0/24,10.9.0.2,10.8.0.0/16,0.0.0.0",
            "--dhcp-option=option:dns-server,10.9.0.53",
            "--domain=lan.example",
        ],
    )?;
    let text = r#"{"ipam":{"type":"dhcp","daemonSocketPath":"@DIR@/dhcp.sock","priority":77,"dns":true,
        "request":[{"option":"121"}],
        "provide":[{"option":"vendor-class-identifier","value":"podnet-test"},{"option":"host-name","fromArg":"K8S_POD_NAME"}]}}"#;
    let call = lan.call_with("ADD", 0, text).env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web-0");
    let result = call.run()?.result()?;
    let expected = json!([
        {"dst": "0.0.0.0/0", "gw": "10.9.0.1", "priority": 77},
        {"dst": "192.168.7.0/24", "gw": "10.9.0.2", "priority": 77},
        {"dst": "10.8.0.0/16", "gw": "0.0.0.0", "priority": 77, "scope": 253},
    ]);
    ensure!(result["routes"] == expected, "{result}");
    ensure!(result["dns"] == json!({"nameservers": ["10.9.0.53"], "domain": "lan.example"}), "{result}");
    let leases = std::fs::read_to_string(lan.lease_file())?;
    ensure!(leases.contains("web-0"), "{leases}");
    Ok(())
}

#[test]
fn a_killed_daemon_goes_on_with_its_leases() -> Result<()> {
    let mut lan = Lan::ready(3, &[])?;
    let results = [lan.add(0)?, lan.add(1)?, lan.add(2)?];
    lan.daemon.as_mut().context("daemon")?.end(Signal::SIGKILL)?;
    ensure!(lan.socket().exists(), "a killed daemon leaves its socket");
    // While it is away one pod is deleted and another one vanishes without a word.
    let outcome = lan.call("DEL", 1).run()?;
    outcome.silent()?;
    ensure!(outcome.stderr.contains("not released but forgotten"), "{outcome:?}");
    lan.world.pod_ip(2, &["link del eth0"])?;
    let (acks, discovers) = (lan.dnsmasq().count("DHCPACK"), lan.dnsmasq().count("DHCPDISCOVER"));
    lan.start_daemon(&[])?;
    lan.daemon().wait_for("c0/testnet/eth0: taking over")?;
    lan.daemon().wait_for("c2/testnet/eth0: forgetting the lease")?;
    ensure!(
        lan.daemon().count("c1/testnet/eth0") == 0,
        "what was deleted came back:\n{}",
        lan.daemon().log()
    );
    // The server is asked whether the lease still holds, and says so.
    lan.dnsmasq().wait_for_number("DHCPACK", acks + 1)?;
    lan.daemon().wait_for("renewed")?;
    ensure!(lan.dnsmasq().count("DHCPDISCOVER") == discovers);
    lan.call("CHECK", 0).prev(&results[0]).run()?.silent()?;
    ensure!(lan.add(0)? == results[0], "a repeated ADD after the restart");
    for pod in [1, 2] {
        lan.call("CHECK", pod).prev(&results[pod]).run()?.error()?;
    }
    lan.call("DEL", 0).run()?.silent()?;
    let bare = address(&results[0], 0).replace("/24", "");
    eventually("the lease is released", || !lan.given().contains(&bare))
}

#[test]
fn without_a_server_there_are_no_more_tries_after_the_configured_time() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.start_daemon(&["-timeout=300ms", "-resendmax=200ms", "--resendtimeout", "1s"])?;
    let outcome = lan.call("ADD", 0).run()?;
    let error = outcome.error()?;
    ensure!(error.code == 11 && error.msg.contains("no more tries: no server answered"), "{error:?}");
    ensure!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
    ensure!(lan.kept() == 0);
    lan.call("CHECK", 0).prev(&json!({"cniVersion": VERSION})).run()?.error()?;
    // The server comes up, and the next ADD has it.
    lan.serve(&[])?;
    lan.add(0).map(drop)
}

#[test]
fn an_add_whose_plugin_is_killed_leaves_nothing() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.start_daemon(&[])?;
    let mut plugin = podnet_tests::process::spawn(&lan.world.host, &lan.call("ADD", 0).invocation())?;
    lan.daemon().wait_for("acquiring lease")?;
    plugin.kill()?;
    plugin.wait()?;
    lan.daemon().wait_for("the plugin is gone")?;
    ensure!(lan.kept() == 0);
    lan.serve(&[])?;
    lan.add(0).map(drop)
}

#[test]
fn a_result_that_nobody_reads_gives_the_lease_back() -> Result<()> {
    let lan = Lan::ready(1, &[])?;
    let outcome = lan.call("ADD", 0).stdout(podnet_tests::process::Stdout::Closed).run()?;
    ensure!(outcome.exit == Some(1), "{outcome:?}");
    lan.dnsmasq().wait_for("DHCPRELEASE")?;
    ensure!(lan.kept() == 0);
    // Not so when the lease was there before: it is the first ADD's.
    lan.add(0)?;
    lan.call("ADD", 0).stdout(podnet_tests::process::Stdout::Closed).run()?;
    ensure!(lan.kept() == 1 && lan.dnsmasq().count("DHCPRELEASE") == 1);
    Ok(())
}

#[test]
fn twenty_pods_at_once() -> Result<()> {
    let lan = Lan::ready(20, &[])?;
    let results = std::thread::scope(|scope| {
        let pods: Vec<_> = (0..20)
            .map(|pod| {
                scope.spawn({
                    let lan = &lan;
                    move || lan.add(pod)
                })
            })
            .collect();
        let joined = pods.into_iter().map(|pod| pod.join().unwrap_or_else(|_| anyhow::bail!("panic")));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let mut addresses: Vec<String> = results.iter().map(|result| address(result, 0)).collect();
    addresses.sort();
    addresses.dedup();
    ensure!(addresses.len() == 20 && lan.kept() == 20, "{addresses:?}");
    let threads = std::fs::read_dir(format!("/proc/{}/task", lan.daemon().id()))?.count();
    ensure!(threads == 1, "{threads} threads for 20 leases");
    for pod in 0..20 {
        lan.call("DEL", pod).run()?.silent()?;
    }
    eventually("all leases are released", || lan.given().is_empty())?;
    ensure!(lan.kept() == 0);
    Ok(())
}

#[test]
fn gc_releases_what_is_not_valid() -> Result<()> {
    let lan = Lan::ready(3, &[])?;
    let results = [lan.add(0)?, lan.add(1)?, lan.add(2)?];
    let gc = |key: &str, list: &str| lan.call("GC", 0).with(key, list).run()?.silent();
    lan.call("GC", 0).run()?.silent().context("without a list")?;
    ensure!(lan.kept() == 3, "a missing list is no empty list");
    gc(
        "cni.dev/valid-attachments",
        r#"[{"containerID":"c0","ifname":"eth0"},{"containerID":"c1","ifname":"eth1"},
        {"containerID":"c2","ifname":"eth0"}]"#,
    )?;
    lan.dnsmasq().wait_for("DHCPRELEASE")?;
    ensure!(lan.kept() == 2);
    lan.call("CHECK", 0).prev(&results[0]).run()?.silent()?;
    lan.call("CHECK", 1).prev(&results[1]).run()?.error()?;
    // Another network's leases are none of ours.
    let other = lan.world.config("dhcp", VERSION, PLAIN).replace("testnet", "othernet");
    lan.world.call("dhcp", "GC").stdin(other).with("cni.dev/valid-attachments", "[]").run()?.silent()?;
    ensure!(lan.kept() == 2);
    gc("cni.dev/attachments", "[]")?;
    ensure!(lan.kept() == 0);
    eventually("all leases are released", || lan.given().is_empty())
}

#[test]
fn the_daemon_keeps_no_namespace_alive() -> Result<()> {
    let mut lan = Lan::ready(1, &[])?;
    lan.add(0)?;
    drop(lan.world.pods.remove(0));
    // With the namespace its veth goes, and so does the other end.
    let there = || std::process::Command::new("ip").args(["link", "show", "v0"]).output();
    eventually("the pod's link is gone", || {
        lan.world.host.run(there).is_ok_and(|output| output.is_ok_and(|output| !output.status.success()))
    })
}

#[test]
fn another_pod_with_the_same_ids_gets_a_lease_of_its_own() -> Result<()> {
    let lan = Lan::ready(1, &[])?;
    lan.add(0)?;
    // Its link was made anew, as after a lost DEL.
    lan.world.pod_ip(0, &["link del eth0"])?;
    lan.world.host_ip(&[
        &format!("link add v0 type veth peer name eth0 netns {}", lan.world.netns(0)),
        "link set v0 master lan0 up",
    ])?;
    lan.add(0)?;
    ensure!(lan.dnsmasq().count("DHCPDISCOVER") >= 2 && lan.kept() == 1);
    Ok(())
}

#[test]
fn the_broadcast_flag_is_asked_for() -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.serve(&[])?;
    lan.start_daemon(&[])?;
    lan.add(0)?;
    ensure!(lan.dnsmasq().count("broadcast response") == 0);
    lan.daemon.as_mut().context("daemon")?.end(Signal::SIGTERM)?;
    lan.start_daemon(&["-broadcast"])?;
    lan.add(1)?;
    ensure!(lan.dnsmasq().count("broadcast response") >= 2, "{}", lan.dnsmasq().log());
    Ok(())
}
