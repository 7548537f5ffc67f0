//! The reference's daemon and plugin (Debian's 1.1.1) beside ours, with the same dnsmasq and the same pod.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::*;

/// One ADD and DEL with one side's pair; the result of ADD without the empty `dns` that 1.1.1 prints always.
fn play(lan: &mut Lan, side: Side, version: &str, text: &str) -> Result<Value> {
    lan.world.switch(side)?;
    let socket = lan.socket();
    let daemon = match side {
        Side::Podnet => {
            lan.start_daemon(&[])?;
            lan.daemon.take()
        }
        Side::Debian => {
            let args = ["daemon", "-socketpath", &socket.to_string_lossy()];
            let program = lan.world.plugins().join("dhcp");
            let daemon = Program::start(&lan.world.host, &program, &args, &[])?;
            eventually("the reference listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok())?;
            Some(daemon)
        }
    };
    let call = |verb: &str| {
        lan.world.call("dhcp", verb).config(version, text).env("CNI_ARGS", "IgnoreUnknown=1;N=web")
    };
    let mut result = call("ADD").run()?.result().with_context(|| format!("{side:?}"))?;
    if version >= "0.4.0" {
        call("CHECK").prev(&result).run()?.silent()?;
    }
    let releases = lan.dnsmasq().count("DHCPRELEASE");
    call("DEL").run()?.silent()?;
    lan.dnsmasq().wait_for_number("DHCPRELEASE", releases + 1)?;
    eventually("the lease is released", || lan.given().is_empty())?;
    daemon.context("a daemon")?.end(Signal::SIGTERM)?;
    if let Some(object) =
        result.as_object_mut().filter(|object| object.get("dns") == Some(&serde_json::json!({})))
    {
        object.remove("dns");
    }
    Ok(result)
}

#[test]
fn results_are_those_of_the_reference() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.serve(&[
        "--dhcp-vendorclass=set:classless,classless",
        "--dhcp-vendorclass=set:static,static",
        "--dhcp-vendorclass=set:none,none",
        "--dhcp-option=tag:classless,121,0.0.0.0/0,10.9.0.2,192.168.7.0/24,10.9.0.3",
        "--dhcp-option=tag:static,33,172.20.0.0,10.9.0.4,192.168.9.0,10.9.0.5",
        "--dhcp-option=tag:none,3",
    ])?;
    let text = |request: &str, class: &str, more: &str| {
        format!(
            r#"{{"ipam":{{"type":"dhcp","daemonSocketPath":"@DIR@/dhcp.sock","stateDir":"@DIR@/state"{more},
            "request":[{request}],"provide":[{{"option":"60","value":"{class}"}},{{"option":"12","fromArg":"N"}}]}}}}"#
        )
    };
    let mut compared = 0;
    for (name, config, versions) in [
        ("router", text("", "", ""), &["0.2.0", "0.3.1", "0.4.0", "1.0.0"][..]),
        ("priority", text("", "", r#","priority":50"#), &["1.0.0"]),
        ("option 121", text(r#"{"option":"121"}"#, "classless", ""), &["0.2.0", "1.0.0"]),
        ("option 33", text(r#"{"option":"33"}"#, "static", ""), &["0.4.0", "1.0.0"]),
        ("no router", text("", "none", ""), &["1.0.0"]),
        ("only the mask", text(r#"{"skipDefault":true,"option":"subnet-mask"}"#, "", ""), &["1.0.0"]),
    ] {
        for version in versions {
            let theirs = play(&mut lan, Side::Debian, version, &config)?;
            let ours = play(&mut lan, Side::Podnet, version, &config)?;
            // 1.1.1 prints no priority: its type of a route has none.
            let differs = name == "priority";
            ensure!((ours == theirs) != differs, "{name} {version}:\n{theirs}\n{ours}");
            compared += 1;
        }
    }
    ensure!(compared == 11);
    Ok(())
}
