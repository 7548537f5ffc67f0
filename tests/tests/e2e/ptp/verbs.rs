//! DEL, CHECK, GC, STATUS and failed ADDs of `ptp`.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use podnet_tests::process::Stdout;
use podnet_tests::rootless::Rootless;
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{DUAL, address, gone, ptp, ruleset, source_seen, two_pods};
use crate::rollback::{add_fails_without_a_trace, inject_into, unchanged};
use crate::verbs::crash::Scene;

#[test]
fn del_leaves_nothing_and_twice_is_as_good_as_once() -> Result<()> {
    for with_previous in [true, false] {
        let (world, results) = two_pods(DUAL)?;
        for _ in 0..2 {
            let del = ptp(&world, "DEL", DUAL).pod(0);
            let del = if with_previous { del.prev(&results[0]) } else { del };
            del.run()?.silent()?;
            ptp(&world, "CHECK", DUAL).pod(1).prev(&results[1]).run()?.silent()?;
        }
        ptp(&world, "DEL", DUAL).pod(1).run()?.silent()?;
        gone(&world)?;
    }
    Ok(())
}

/// The reference leaves its masquerade rules then. The namespace lives on here, held by this test: the link has to be
/// found from the node.
#[test]
fn del_without_the_namespace_removes_link_rules_and_reservation() -> Result<()> {
    for how in ["empty", "unset", "missing", "plain file"] {
        let world = World::new(Side::Podnet, 1)?;
        ptp(&world, "ADD", DUAL).run()?.result()?;
        let file = world.dir().join("file");
        fs::write(&file, "")?;
        let del = ptp(&world, "DEL", DUAL);
        let del = match how {
            "empty" => del.env("CNI_NETNS", ""),
            "unset" => del.unset("CNI_NETNS"),
            "missing" => del.env("CNI_NETNS", "/nonexistent"),
            _ => del.env("CNI_NETNS", &file),
        };
        for _ in 0..2 {
            del.run()?.silent().context(how)?;
        }
        gone(&world).context(how)?;
    }
    Ok(())
}

#[test]
fn del_finds_a_link_that_has_another_name_by_now() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    ptp(&world, "ADD", DUAL).run()?.result()?;
    world.pod_ip(0, &["link set eth0 down", "link set eth0 name net7"])?;
    ptp(&world, "DEL", DUAL).run()?.silent()?;
    gone(&world)
}

#[test]
fn del_does_not_mind_what_add_would_refuse() -> Result<()> {
    for key in [r#""mtu":-1"#, r#""ipMasq":true,"ipMasqBackend":"pf""#] {
        let world = World::new(Side::Podnet, 1)?;
        ptp(&world, "ADD", DUAL).run()?.result()?;
        let text = DUAL.replacen(r#""ipMasq":true,"mtu":1400"#, key, 1);
        ptp(&world, "DEL", &text).run()?.silent().context(key)?;
        gone(&world)?;
    }
    Ok(())
}

#[test]
fn two_attachments_of_one_container_do_not_meet() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    // Without the routes, of which a second attachment cannot have the same.
    let text = DUAL.replace(r#"{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"192.168.0.0/16"}"#, "");
    let first = ptp(&world, "ADD", &text).run()?.result()?;
    let net1 = |verb: &str| ptp(&world, verb, &text).env("CNI_IFNAME", "net1");
    let other = text.replace("10.1.2.0", "10.1.3.0").replace("2001:db8:1:", "2001:db8:3:");
    let second = ptp(&world, "ADD", &other).env("CNI_IFNAME", "net1").run()?.result()?;
    ptp(&world, "CHECK", &text).prev(&first).run()?.silent()?;
    ptp(&world, "DEL", &text).run()?.silent()?;
    ptp(&world, "CHECK", &other).env("CNI_IFNAME", "net1").prev(&second).run()?.silent()?;
    source_seen(&world.host, &world.pods[0], address(&second, 0))?;
    net1("DEL").run()?.silent()?;
    gone(&world)
}

#[test]
fn gc_removes_what_is_not_valid_and_nothing_without_the_list() -> Result<()> {
    let (world, results) = two_pods(DUAL)?;
    let gc = |valid: Option<&str>| -> Result<()> {
        let call =
            ptp(&world, "GC", DUAL).env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "");
        let call = match valid {
            Some(valid) => call.with("cni.dev/valid-attachments", valid),
            None => call,
        };
        call.run()?.silent()
    };
    let before = (world.snapshot()?.facts, ruleset(&world)?);
    gc(None)?;
    unchanged(&world, &before.0)?;
    ensure!(ruleset(&world)? == before.1);
    gc(Some(r#"[{"containerID":"c1","ifname":"eth0"}]"#))?;
    ensure!(world.reservations(NETWORK)?.len() == 2, "{:?}", world.reservations(NETWORK)?);
    ensure!(!ruleset(&world)?.contains("id: c0") && ruleset(&world)?.contains("id: c1"));
    ptp(&world, "CHECK", DUAL).pod(1).prev(&results[1]).run()?.silent()?;
    for _ in 0..2 {
        gc(Some("[]"))?;
        gone(&world)?;
    }
    Ok(())
}

#[test]
fn status_tells_of_the_ipam_plugin() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let small = r#"{"ipMasq":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.4/30"}}"#;
    let status = ptp(&world, "STATUS", small);
    status.run()?.silent()?;
    ptp(&world, "ADD", small).run()?.result()?;
    ensure!(status.run()?.error()?.code == 50, "the range is exhausted");
    ensure!(ptp(&world, "STATUS", r#"{"ipam":{"type":"no-such"}}"#).run()?.error()?.code == 50);
    Ok(())
}

/// Does something to a checked pod; CHECK must fail then, with these words.
fn finds(spoil: &str, words: &str) -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let result = ptp(&world, "ADD", DUAL).run()?.result()?;
    let check = ptp(&world, "CHECK", DUAL).prev(&result);
    check.run()?.silent()?;
    let end = result["interfaces"][0]["name"].as_str().context("the node's end")?;
    let (whose, command) = spoil.split_once(": ").context("whose command")?;
    let command = command.replace("END", end);
    match whose {
        "pod" => world.pod_ip(0, &[&command])?,
        "node" => world.host_ip(&[&command])?,
        "file" => fs::remove_file(world.data().join(NETWORK).join(command))?,
        _ => {
            let words: Vec<&str> = command.split_whitespace().collect();
            let run = || Command::new(words[0]).args(&words[1..]).status();
            ensure!(world.host.run(run)??.success(), "{command}");
        }
    }
    let error = check.run()?.error().with_context(|| spoil.to_owned())?;
    ensure!(error.msg.contains(words), "{spoil}: expected {words:?}, seen {error:?}");
    Ok(())
}

#[test]
fn check_finds_each_thing_that_goes_missing_in_the_pod() -> Result<()> {
    for (spoil, words) in [
        ("pod: link del eth0", "eth0"),
        ("pod: link set eth0 down", "eth0"),
        ("pod: link set eth0 address 02:00:00:00:00:99", "02:00:00:00:00:99"),
        ("pod: addr del 10.1.2.2/24 dev eth0", "10.1.2.2/24"),
        ("pod: addr del 2001:db8:1::2/64 dev eth0", "2001:db8:1::2/64"),
        ("pod: route del 192.168.0.0/16", "192.168.0.0/16"),
        ("pod: route del 10.1.2.0/24", "10.1.2.0/24"),
        ("pod: route del 10.1.2.1/32", "10.1.2.1/32"),
        ("pod: -6 route del 2001:db8:1::1/128", "2001:db8:1::1/128"),
        ("pod: -6 route del default", "::/0"),
        ("file: 10.1.2.2", "10.1.2.2"),
    ] {
        finds(spoil, words)?;
    }
    Ok(())
}

/// The reference's CHECK does not look at the node.
#[test]
fn check_finds_each_thing_that_goes_missing_on_the_node() -> Result<()> {
    for (spoil, words) in [
        ("node: link set END down", "is down"),
        ("node: addr del 10.1.2.1/32 dev END", "gateway 10.1.2.1/32 is not on"),
        ("node: addr del 2001:db8:1::1/128 dev END", "gateway 2001:db8:1::1/128 is not on"),
        ("node: route del 10.1.2.2/32", "route 10.1.2.2/32 is missing on the node"),
        ("node: -6 route del 2001:db8:1::2/128", "route 2001:db8:1::2/128 is missing on the node"),
        ("run: nft flush ruleset", "masquerade"),
        ("run: sh -c echo${IFS}0>/proc/sys/net/ipv4/ip_forward", "does not forward"),
    ] {
        finds(spoil, words)?;
    }
    Ok(())
}

#[test]
fn a_failed_add_leaves_no_trace() -> Result<()> {
    for stdout in [Stdout::Closed, Stdout::Full] {
        let world = World::new(Side::Podnet, 1)?;
        add_fails_without_a_trace(&world, "ptp", DUAL, "1.0.0", stdout)?;
        ensure!(ruleset(&world)?.is_empty(), "rules left: {}", ruleset(&world)?);
    }
    let world = World::new(Side::Podnet, 1)?;
    // A result of 0.2.0 needs an address.
    add_fails_without_a_trace(&world, "ptp", "{}", "0.2.0", Stdout::Read)?;
    // The last route cannot be reached.
    let broken = DUAL.replace(r#""192.168.0.0/16"}"#, r#""192.168.0.0/16","gw":"172.16.0.1"}"#);
    add_fails_without_a_trace(&world, "ptp", &broken, "1.0.0", Stdout::Read)?;
    let first = ptp(&world, "ADD", DUAL).run()?.result()?;
    let before = world.snapshot()?.facts;
    let outcome = ptp(&world, "ADD", DUAL).container("other").run()?;
    ensure!(outcome.error()?.msg.contains("container veth name (\"eth0\")"), "{outcome:?}");
    unchanged(&world, &before)?;
    ptp(&world, "CHECK", DUAL).prev(&first).run()?.silent()
}

/// An ADD has switched forwarding on and hangs, as nobody reads its result; another one finds it on and succeeds; then
/// the first one fails.
#[test]
fn forwarding_that_another_pod_relies_on_stays_when_an_add_fails() -> Result<()> {
    let world = World::new(Side::Podnet, 2)?;
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    while nix::unistd::write(&writer, &[b' '; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty()))?;

    let call = ptp(&world, "ADD", DUAL).pod(0).invocation();
    let mut command = Command::new(&call.program);
    command.env_clear().envs(call.env.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::null());
    let mut hanging = world.host.run(|| command.spawn())??;
    drop(command);
    hanging.stdin.take().context("stdin")?.write_all(&call.stdin)?;
    let forwarding = || -> Result<bool> {
        let read = || fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding");
        Ok(world.host.run(read)??.trim() == "1")
    };
    let started = Instant::now();
    while !forwarding()? {
        ensure!(started.elapsed() < Duration::from_secs(20), "the first ADD does not come that far");
        std::thread::yield_now();
    }
    let second = ptp(&world, "ADD", DUAL).pod(1).run()?.result()?;
    drop(reader);
    ensure!(hanging.wait()?.code() == Some(1), "the first ADD fails");
    ensure!(forwarding()?, "forwarding was taken from the second pod");
    ptp(&world, "CHECK", DUAL).pod(1).prev(&second).run()?.silent()
}

#[test]
fn each_request_that_fails_is_undone() -> Result<()> {
    let text = DUAL.replace(r#""ipMasq":true,"#, "");
    let failed = inject_into("ptp", "sendto,sendmsg,sendmmsg", "ENOBUFS", &text, |_| Ok(()))?;
    ensure!(failed >= 4, "only {failed} requests of ADD could be made to fail");
    let mut failed = 0;
    for call in ["socket", "bind"] {
        failed += inject_into("ptp", call, "EMFILE", &text, |_| Ok(()))?;
    }
    ensure!(failed >= 3, "only {failed} calls of ADD could be made to fail");
    Ok(())
}

#[test]
fn an_add_killed_at_any_system_call_is_cleaned_up_by_del() -> Result<()> {
    Scene::new("ptp", DUAL).killed_at_any_system_call("ADD")
}

#[test]
fn a_del_killed_at_any_system_call_is_finished_by_the_next() -> Result<()> {
    Scene::new("ptp", DUAL).killed_at_any_system_call("DEL")
}

#[test]
fn pods_of_the_reference_are_checked_and_deleted_by_ours_and_the_other_way_round() -> Result<()> {
    let text = r#"{"mtu":1400,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
        "routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.1"}]}}"#;
    for (from, to) in [(Side::Debian, Side::Podnet), (Side::Podnet, Side::Debian)] {
        let mut world = World::new(from, 2)?;
        let call =
            |world: &World, verb: &str, pod| world.call("ptp", verb).config("1.0.0", text).pod(pod).run();
        let first = call(&world, "ADD", 0)?.result()?;
        world.switch(to)?;
        world.call("ptp", "CHECK").config("1.0.0", text).prev(&first).run()?.silent()?;
        let second = call(&world, "ADD", 1)?.result()?;
        source_seen(&world.pods[0], &world.pods[1], address(&second, 0))?;
        for pod in [0, 1] {
            call(&world, "DEL", pod)?.silent()?;
            call(&world, "DEL", pod)?.silent()?;
        }
        gone(&world)?;
    }
    Ok(())
}

#[test]
fn rootless_namespaces_are_as_good() -> Result<()> {
    let rootless = Rootless::new(Side::Podnet, 2)?;
    let world = &rootless.world;
    let call = |verb: &str, pod| rootless.call("ptp", verb, pod).config("1.1.0", DUAL);
    let results = [call("ADD", 0).run()?.result()?, call("ADD", 1).run()?.result()?];
    for family in 0..2 {
        let (a, b) = (address(&results[0], family), address(&results[1], family));
        ensure!(source_seen(&world.pods[0], &world.pods[1], b)? == a);
    }
    for (pod, result) in results.iter().enumerate() {
        call("CHECK", pod).prev(result).run()?.silent()?;
        call("DEL", pod).prev(result).run()?.silent()?;
        call("DEL", pod).prev(result).run()?.silent()?;
    }
    gone(world)
}
