//! Interface plugins with `dhcp`: the link is there before the lease is asked for, and still there when it is given back.

use anyhow::{Result, ensure};
use podnet_tests::world::Call;

use super::ipv6::MANAGED;
use super::*;

const BRIDGE: &str = r#"{"bridge":"lan0","ipam":{"type":"dhcp","daemonSocketPath":"@DIR@/dhcp.sock","stateDir":"@DIR@/state"}}"#;

fn bridge<'w>(lan: &'w Lan, verb: &str, pod: usize) -> Call<'w> {
    lan.world.call("bridge", verb).config(VERSION, BRIDGE).pod(pod)
}

#[test]
fn bridge_with_dhcp_works_and_del_releases() -> Result<()> {
    let mut lan = Lan::bare(Side::Podnet, 2)?;
    lan.serve(&["--dhcp-option=121,0.0.0.0/0,10.9.0.1,10.8.0.0/16,0.0.0.0"])?;
    lan.start_daemon(&[])?;
    let text = BRIDGE.replace(r#""stateDir""#, r#""request":[{"option":"121"}],"stateDir""#);
    let call = |verb: &str| lan.world.call("bridge", verb).config(VERSION, &text).pod(0);
    let result = call("ADD").run()?.result()?;
    let addresses = lan.pod_says(0, "-o -4 addr show eth0")?;
    ensure!(addresses.contains(&address(&result, 0)), "{addresses}");
    let routes = lan.pod_says(0, "-4 route")?;
    ensure!(
        routes.contains("default via 10.9.0.1 dev eth0")
            && routes.contains("10.8.0.0/16 dev eth0 scope link"),
        "{routes}"
    );
    call("CHECK").prev(&result).run()?.silent()?;
    bridge(&lan, "STATUS", 0).run()?.silent()?;
    let pinged = lan.world.pods[0]
        .run(|| std::process::Command::new("bash").args(["-c", "echo >/dev/udp/10.9.0.1/9"]).status())??;
    ensure!(pinged.success());

    let second = bridge(&lan, "ADD", 1).run()?.result()?;
    ensure!(address(&second, 0) != address(&result, 0));
    call("DEL").prev(&result).run()?.silent()?;
    lan.dnsmasq().wait_for("DHCPRELEASE")?;
    ensure!(lan.pod_says(0, "-br link")?.lines().count() == 1, "the link is gone");
    bridge(&lan, "DEL", 0).run()?.silent()?;
    // Without a namespace to speak in, the one of the ADD is used.
    bridge(&lan, "DEL", 1).env("CNI_NETNS", "").run()?.silent()?;
    lan.dnsmasq().wait_for_number("DHCPRELEASE", 2)?;
    eventually("all leases are released", || lan.given().is_empty())
}

#[test]
fn macvlan_with_dhcp_works_and_del_releases() -> Result<()> {
    let mut lan = Lan::bare(Side::Podnet, 2)?;
    lan.world.host_ip(&[
        "link add up0 type veth peer name up1",
        "link set up1 master lan0 up",
        "link set up0 up",
    ])?;
    lan.serve(&MANAGED)?;
    lan.start_daemon(&[])?;
    let text = BRIDGE.replace(r#""bridge":"lan0""#, r#""master":"up0""#);
    let dual = text.replace(r#""type":"dhcp""#, r#""type":"dhcp","mode":"dual""#);
    for (pod, text) in [(0, &text), (1, &dual)] {
        let call = |verb: &str| lan.world.call("macvlan", verb).config(VERSION, text).pod(pod);
        let result = call("ADD").run()?.result()?;
        let addresses = lan.pod_says(pod, "-o addr show eth0")?;
        ensure!(
            addresses.contains(&address(&result, 0)) && addresses.contains(&address(&result, 1)),
            "{addresses}"
        );
        call("CHECK").prev(&result).run()?.silent()?;
        call("DEL").prev(&result).run()?.silent()?;
        lan.dnsmasq().wait_for_number("DHCPRELEASE", 2 * pod + 1)?;
    }
    eventually("all leases are released", || lan.given().is_empty())
}

/// All links have the MAC of their master, so only a broadcast reaches one that has no address yet (plugins#862).
#[test]
fn device_ipvlan_with_dhcp_asks_for_broadcasts() -> Result<()> {
    if !podnet_tests::devices::require("ipvlan")? {
        return Ok(());
    }
    let mut lan = Lan::bare(Side::Podnet, 2)?;
    lan.world.host_ip(&[
        "link add up0 type veth peer name up1",
        "link set up1 master lan0 up",
        "link set up0 up",
    ])?;
    lan.serve(&[])?;
    lan.start_daemon(&[])?;
    let text = BRIDGE.replace(r#""bridge":"lan0""#, r#""master":"up0""#);
    let call = |verb: &str, pod| lan.world.call("ipvlan", verb).config(VERSION, &text).pod(pod);
    let results = [call("ADD", 0).run()?.result()?, call("ADD", 1).run()?.result()?];
    ensure!(address(&results[0], 0) != address(&results[1], 0), "{results:?}");
    ensure!(lan.dnsmasq().count("broadcast response") >= 4, "{}", lan.dnsmasq().log());
    for (pod, result) in results.iter().enumerate() {
        ensure!(lan.pod_says(pod, "-o -4 addr show eth0")?.contains(&address(result, 0)));
        call("CHECK", pod).prev(result).run()?.silent()?;
        call("DEL", pod).prev(result).run()?.silent()?;
        lan.dnsmasq().wait_for_number("DHCPRELEASE", pod + 1)?;
    }
    eventually("all leases are released", || lan.given().is_empty())
}

#[test]
fn an_add_without_a_server_is_taken_back_whole() -> Result<()> {
    let mut lan = Lan::bare(Side::Podnet, 1)?;
    lan.start_daemon(&["-resendtimeout", "300ms"])?;
    let before = lan.world.snapshot()?.facts;
    let error = bridge(&lan, "ADD", 0).run()?.error()?;
    ensure!(error.code == 11 && error.msg.contains("no more tries"), "{error:?}");
    let left = before.changes(&lan.world.snapshot()?.facts);
    ensure!(left.is_empty() && lan.kept() == 0, "left behind: {left:#?}");
    Ok(())
}

#[test]
fn a_result_that_nobody_reads_is_undone_lease_included() -> Result<()> {
    let mut lan = Lan::bare(Side::Podnet, 1)?;
    lan.serve(&[])?;
    lan.start_daemon(&[])?;
    let outcome = bridge(&lan, "ADD", 0).stdout(podnet_tests::process::Stdout::Closed).run()?;
    ensure!(outcome.exit == Some(1), "{outcome:?}");
    lan.dnsmasq().wait_for("DHCPRELEASE")?;
    ensure!(lan.pod_says(0, "-br link")?.lines().count() == 1 && lan.kept() == 0);
    Ok(())
}

#[test]
fn a_lease_is_released_from_the_node_when_the_link_is_gone() -> Result<()> {
    // The server is elsewhere, one hop behind the node's gateway address on the LAN: its messages go through a relay.
    let mut lan = Lan::new(2)?;
    // pod1 is no pod here but the server's machine, reached by a wire of its own.
    lan.world.host_ip(&["link set v1 nomaster", "addr add 10.10.0.1/24 dev v1", "link set v1 up"])?;
    lan.world.pod_ip(
        1,
        &["addr add 10.10.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.10.0.1"],
    )?;
    let dnsmasq = |netns, options: &[&str]| {
        Program::start(netns, "/usr/sbin/dnsmasq".as_ref(), &[&DNSMASQ[..], options].concat(), &[])
    };
    let relay = ["--interface=lan0", "--interface=v1", "--dhcp-relay=10.9.0.1,10.10.0.2"];
    let relay = dnsmasq(&lan.world.host, &relay)?;
    relay.wait_for("DHCP relay from 10.9.0.1 to 10.10.0.2")?;
    let leases = format!("--dhcp-leasefile={}", lan.lease_file().display());
    let range = "--dhcp-range=10.9.0.10,10.9.0.60,255.255.255.0,120";
    let server = dnsmasq(&lan.world.pods[1], &["--interface=eth0", range, &leases])?;
    server.wait_for("DHCP, IP range")?;
    lan.start_daemon(&[])?;
    let result = lan.add(0)?;
    ensure!(result["ips"][0]["gateway"] == "10.9.0.1", "a relay is the router: {result}");
    // An interface plugin that deletes the link before it calls DEL, as the reference's bridge does.
    lan.world.pod_ip(0, &["link del eth0"])?;
    lan.call("DEL", 0).run()?.silent()?;
    server.wait_for("DHCPRELEASE")?;
    eventually("the lease is released", || lan.given().is_empty())
}
