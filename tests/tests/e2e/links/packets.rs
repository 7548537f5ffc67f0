//! Who reaches whom, told by packets.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::packet::PacketSocket;
use podnet_tests::World;
use serde_json::Value;

use super::{macvlan, world};

const PROBE: &[u8] = b"a probe of one pod to the other";

/// Two pods, and the addresses and MACs that their results tell.
fn two_pods(world: &World, text: &str) -> Result<[(SocketAddr, String); 2]> {
    let add = |pod: usize| -> Result<(SocketAddr, String)> {
        let result = macvlan(world, "ADD", text).pod(pod).run()?.result()?;
        let field = |value: &Value| value.as_str().map(str::to_owned).context("a text");
        let address = field(&result["ips"][0]["address"])?;
        let ip = address.split('/').next().context("an address")?;
        Ok((SocketAddr::new(ip.parse()?, 7000), field(&result["interfaces"][0]["mac"])?))
    };
    Ok([add(0)?, add(1)?])
}

/// Pod 0 sends one datagram to pod 1's MAC. Whether pod 1 got it, and whether the rest of the LAN saw it leave: one of
/// both must come to pass, and the other is then decided, as a frame takes its way in one go.
fn probe(world: &World, text: &str) -> Result<(bool, bool)> {
    let [(_, _), (to, mac)] = two_pods(world, text)?;
    world.pod_ip(0, &[&format!("neigh add {} lladdr {mac} dev eth0 nud permanent", to.ip())])?;
    let receiver = world.pods[1].run(|| UdpSocket::bind(to))?.context("bind in pod 1")?;
    receiver.set_nonblocking(true)?;
    let far = PacketSocket::open_in(&world.host)?;
    let far0 = world.host.run(|| nix::net::if_::if_nametoindex("far0"))??;
    let sender = world.pods[0].run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
    sender.send_to(PROBE, to).context("send from pod 0")?;

    let (mut received, mut left, mut buffer) = (false, false, [0; 2048]);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !received && !left && Instant::now() < deadline {
        match receiver.recv(&mut buffer) {
            Ok(n) => received = &buffer[..n] == PROBE,
            Err(error) => ensure!(error.kind() == ErrorKind::WouldBlock, "receive: {error}"),
        }
        while let Some(frame) = far.recv(&mut buffer)? {
            // What far0 takes in has left the node by up0.
            left |= frame.ifindex == far0 && !frame.outgoing && buffer[..frame.len].ends_with(PROBE);
        }
        std::thread::yield_now();
    }
    ensure!(received || left, "the probe was seen nowhere");
    received |= receiver.recv(&mut buffer).is_ok();
    Ok((received, left))
}

#[test]
fn pods_in_bridge_mode_reach_one_another_without_leaving_the_node() -> Result<()> {
    let text = r#"{"mode":"bridge","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
    ensure!(probe(&world(2)?, text)? == (true, false));
    Ok(())
}

#[test]
fn pods_in_private_or_vepa_mode_do_not_reach_one_another_on_the_node() -> Result<()> {
    for mode in ["private", "vepa"] {
        let text = format!(
            r#"{{"mode":"{mode}","ipam":{{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}}}"#
        );
        ensure!(probe(&world(2)?, &text)? == (false, true), "{mode}");
    }
    Ok(())
}

/// Ten probes of duplicate address detection would take ten seconds; ADD waits for five at most and fails then.
#[test]
fn ipv6_address_is_usable_at_once_although_duplicates_are_looked_for() -> Result<()> {
    let world = world(1)?;
    let slow = || std::fs::write("/proc/sys/net/ipv6/conf/default/dad_transmits", "10");
    world.pods[0].run(slow)??;
    let text = r#"{"ipam":{"type":"static","addresses":[{"address":"2001:db8:1::5/64","gateway":"2001:db8:1::1"}],
        "routes":[{"dst":"::/0"}]}}"#;
    let result = macvlan(&world, "ADD", text).run()?.result()?;
    let shown = world.snapshot()?.facts;
    ensure!(shown.get("pod0/addr/eth0/2001:db8:1::5_64/optimistic") == Some("true"), "{shown:?}");
    ensure!(shown.get("pod0/addr/eth0/2001:db8:1::5_64/nodad").is_none());
    world.pods[0].run(|| UdpSocket::bind("[2001:db8:1::5]:0"))?.context("bind to the address")?;
    macvlan(&world, "CHECK", text).prev(&result).run()?.silent()
}

#[test]
fn check_tells_an_ipv6_address_that_another_host_has_too() -> Result<()> {
    let world = world(2)?;
    let text = r#"{"ipam":{"type":"static","addresses":[{"address":"2001:db8:1::5/64"}]}}"#;
    // One probe, and no random wait before it.
    for pod in &world.pods {
        pod.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/router_solicitation_delay", "0"))??;
    }
    world.host_ip(&["addr add 2001:db8:1::5/64 dev far0 nodad"])?;
    let result = macvlan(&world, "ADD", text).run()?.result()?;
    let check = macvlan(&world, "CHECK", text).prev(&result);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let outcome = check.run()?;
        if outcome.exit == Some(1) {
            let error = outcome.error()?;
            ensure!(
                error.msg.contains("2001:db8:1::5/64 of \"eth0\" is in use by another host"),
                "{error:?}"
            );
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the duplicate was not found");
    }
}
