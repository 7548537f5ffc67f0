//! The modes beyond the reference: DHCPv6, SLAAC, and both families, with dnsmasq as router and server.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::*;

/// dnsmasq as a router that sends its clients to itself for addresses.
pub(super) const MANAGED: [&str; 2] = ["--enable-ra", "--dhcp-range=fd00:9::10,fd00:9::60,64,120"];
const AUTONOMOUS: [&str; 2] = ["--enable-ra", "--dhcp-range=fd00:9::,ra-only,64,300"];

fn with_mode(mode: &str) -> String {
    PLAIN.replace(r#""type":"dhcp","#, &format!(r#""type":"dhcp","mode":"{mode}","dns":true,"#))
}

fn gateway(result: &Value, position: usize) -> String {
    result["ips"][position]["gateway"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn dhcp6_gives_an_address_with_the_routers_prefix_and_gateway() -> Result<()> {
    let mut lan =
        Lan::ready(2, &[&MANAGED[..], &["--dhcp-option=option6:dns-server,[fd00:9::53]"]].concat())?;
    let text = with_mode("dhcp6");
    let result = lan.call_with("ADD", 0, &text).run()?.result()?;
    ensure!(address(&result, 0).starts_with("fd00:9::") && address(&result, 0).ends_with("/64"), "{result}");
    ensure!(gateway(&result, 0).starts_with("fe80::"), "{result}");
    ensure!(result["routes"] == json!([{"dst": "::/0", "gw": gateway(&result, 0)}]), "{result}");
    ensure!(result["dns"]["nameservers"] == json!(["fd00:9::53"]), "{result}");
    let other = lan.call_with("ADD", 1, &text).run()?.result()?;
    ensure!(address(&other, 0) != address(&result, 0));
    ensure!(lan.call_with("ADD", 0, &text).run()?.result()? == result, "a repeated ADD");
    lan.call_with("CHECK", 0, &text).prev(&result).run()?.silent()?;
    // The kernel made up no address beside it.
    let own = lan.pod_says(0, "-o -6 addr show eth0 scope global")?;
    ensure!(own.is_empty(), "{own}");

    lan.daemon.as_mut().context("daemon")?.end(Signal::SIGKILL)?;
    lan.start_daemon(&[])?;
    lan.dnsmasq().wait_for("DHCPRENEW")?;
    lan.daemon().wait_for("renewed")?;
    lan.call_with("CHECK", 0, &text).prev(&result).run()?.silent()?;
    lan.call_with("DEL", 0, &text).run()?.silent()?;
    lan.dnsmasq().wait_for("DHCPRELEASE")?;
    eventually("one lease is left", || lan.given().len() == 1 && lan.kept() == 1)
}

#[test]
fn slaac_gives_an_address_in_the_routers_prefix() -> Result<()> {
    let lan = Lan::ready(1, &AUTONOMOUS)?;
    let text = with_mode("slaac");
    // A link that is up already, on which the kernel may have made up an address of its own.
    lan.world.pod_ip(0, &["link set eth0 up"])?;
    let result = lan.call_with("ADD", 0, &text).run()?.result()?;
    let mac = lan.pod_says(0, "-o link show eth0")?;
    let mac =
        mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("MAC")?.to_owned();
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    let [a, b, c, d, e, f] = bytes[..] else { anyhow::bail!("{mac}") };
    let expected = format!("fd00:9::{:x}{b:02x}:{c:x}ff:fe{d:02x}:{e:x}{f:02x}/64", a ^ 2);
    let expected: cni::Cidr = serde_json::from_value(json!(expected))?;
    ensure!(address(&result, 0) == expected.to_string(), "{result}, not {expected}");
    ensure!(gateway(&result, 0).starts_with("fe80::"), "{result}");
    let own = lan.pod_says(0, "-o -6 addr show eth0 scope global")?;
    ensure!(own.is_empty(), "the kernel's own address is in the way: {own}");
    lan.call_with("CHECK", 0, &text).prev(&result).run()?.silent()?;
    lan.call_with("DEL", 0, &text).run()?.silent()?;
    ensure!(lan.kept() == 0);
    Ok(())
}

#[test]
fn dual_gives_both_families_as_the_router_says() -> Result<()> {
    for options in [MANAGED, AUTONOMOUS] {
        let lan = Lan::bare(Side::Podnet, 1)?;
        let mut lan = lan;
        lan.serve(&options)?;
        lan.start_daemon(&[])?;
        let text = with_mode("dual").replace(r#"{"ipam""#, r#"{"bridge":"lan0","ipam""#);
        let call = |verb: &str| lan.world.call("bridge", verb).config(VERSION, &text).pod(0);
        let result = call("ADD").run()?.result()?;
        ensure!(
            address(&result, 0).starts_with("10.9.0.") && address(&result, 1).starts_with("fd00:9::"),
            "{result}"
        );
        let leased = lan.given().iter().any(|given| given.starts_with("fd00:9::"));
        ensure!(
            leased == (options == MANAGED),
            "DHCPv6 although the router does not say so, or not although it does"
        );
        ensure!(
            lan.pod_says(0, "-6 route")?.contains("default via fe80::"),
            "{}",
            lan.pod_says(0, "-6 route")?
        );
        call("CHECK").prev(&result).run()?.silent()?;
        call("DEL").prev(&result).run()?.silent()?;
        eventually("all leases are released", || lan.given().is_empty())?;
    }
    Ok(())
}

#[test]
fn what_is_missing_on_the_link_is_named() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.serve(&[])?;
    lan.start_daemon(&["-resendtimeout=2s"])?;
    for (mode, gist) in [
        ("slaac", "no router advertised itself"),
        ("dhcp6", "no DHCPv6 server answered"),
        ("dual", "no router"),
    ] {
        let error = lan.call_with("ADD", 0, &with_mode(mode)).run()?.error()?;
        ensure!(error.code == 11 && error.msg.contains(gist), "{mode}: {error:?}");
    }
    // The IPv4 half of the last one was given back.
    lan.dnsmasq().wait_for("DHCPRELEASE")?;
    ensure!(lan.kept() == 0);
    let error = lan.call_with("ADD", 0, &with_mode("dhcp5")).run()?.error()?;
    ensure!(error.code == 7, "{error:?}");
    Ok(())
}
