//! `tap`. Debian's 1.1.1 has no such plugin: what is expected is read from the current reference by hand.
//!
//! ```text
//!   pod0: eth0 (tap, 10.1.2.2/24) ── a virtual machine, or [br0] ── …
//! ```

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use podnet_tests::process::Stdout;
use podnet_tests::rootless::Rootless;
use podnet_tests::world::{Call, NETWORK};
use podnet_tests::{Side, World};

use crate::rollback::{add_fails_without_a_trace, inject_into, unchanged};
use crate::verbs::crash::Scene;

const DUAL: &str = r#"{"multiQueue":true,"mtu":1400,"mac":"02:00:00:00:00:7a","owner":54321,"group":54322,
    "ipam":{"type":"host-local","dataDir":"@DATA@","ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],
    "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"192.168.0.0/16","mtu":1300}]}}"#;

fn tap<'w>(world: &'w World, verb: &str, text: &str) -> Call<'w> {
    world.call("tap", verb).config("1.1.0", text)
}

/// What `ip` shows of the pod's eth0.
fn shown(world: &World) -> Result<String> {
    let show = || Command::new("ip").args(["-d", "link", "show", "eth0"]).output();
    Ok(String::from_utf8_lossy(&world.pods[0].run(show)??.stdout).into_owned())
}

fn expect(world: &World, lines: &[(&str, &str)]) -> Result<()> {
    let facts = world.snapshot()?.facts;
    for (path, value) in lines {
        let seen = facts.get(path).unwrap_or("absent");
        ensure!(seen == *value, "{path}: expected {value}, seen {seen}");
    }
    Ok(())
}

fn gone(world: &World) -> Result<()> {
    ensure!(world.reservations(NETWORK)?.is_empty(), "reservations left: {:?}", world.reservations(NETWORK)?);
    let links = world.snapshot()?.pods[0].macs.clone();
    ensure!(links.keys().eq(["lo"]), "links left in the pod: {links:?}");
    Ok(())
}

/// With owner and group the reference ignores the MAC.
#[test]
fn a_tap_is_made_with_everything_asked_for() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    world.names.choose(DUAL);
    let result = tap(&world, "ADD", DUAL).run()?.result()?;
    let text = shown(&world)?;
    for words in [
        "tun type tap pi off vnet_hdr on multi_queue",
        "persist on user 54321 group 54322",
        "link/ether 02:00:00:00:00:7a",
    ] {
        ensure!(text.contains(words), "{words:?} is not in {text}");
    }
    expect(
        &world,
        &[
            ("pod0/link/eth0/kind", "tun"),
            ("pod0/link/eth0/mtu", "1400"),
            ("pod0/link/eth0/flag/UP", "yes"),
            ("pod0/addr/eth0/10.1.2.2_24/scope", "global"),
            ("pod0/addr/eth0/2001:db8:1::2_64/nodad", "true"),
            ("pod0/route/main/4/default/0/gateway", "10.1.2.1"),
            ("pod0/route/main/4/192.168.0.0_16/0/gateway", "10.1.2.1"),
            ("pod0/route/main/6/default/0/gateway", "2001:db8:1::1"),
            ("pod0/sysctl/net/ipv4/conf/eth0/arp_notify", "1"),
        ],
    )?;
    let expected = serde_json::json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:7a", "sandbox": world.netns(0)}],
        "ips": [{"address": "10.1.2.2/24", "gateway": "10.1.2.1", "interface": 0},
                {"address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.168.0.0/16", "mtu": 1300}],
    });
    ensure!(result == expected, "{result:#}");
    tap(&world, "CHECK", DUAL).prev(&result).run()?.silent()
}

#[test]
fn without_owner_group_and_addresses_it_is_for_root_and_up() -> Result<()> {
    for (text, words) in [
        ("{}", "persist on"),
        (r#"{"owner":54321}"#, "persist on user 54321"),
        (r#"{"group":54322}"#, "persist on group 54322"),
        (r#"{"owner":0,"group":0}"#, "persist on user root group root"),
    ] {
        let world = World::new(Side::Podnet, 1)?;
        let result = tap(&world, "ADD", text).run()?.result()?;
        let seen = shown(&world)?;
        ensure!(seen.contains(&format!("vnet_hdr on {words} ")), "{text}: {words:?} is not in {seen}");
        expect(&world, &[("pod0/link/eth0/flag/UP", "yes"), ("pod0/link/eth0/mtu", "1500")])?;
        ensure!(result.get("ips").is_none() && result["interfaces"][0]["mac"].is_string(), "{result}");
        tap(&world, "CHECK", text).prev(&result).run()?.silent()?;
        for _ in 0..2 {
            tap(&world, "DEL", text).run()?.silent()?;
            gone(&world)?;
        }
    }
    Ok(())
}

#[test]
fn the_runtimes_mac_wins() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let text = r#"{"mac":"02:00:00:00:00:01","runtimeConfig":{"mac":"02:00:00:00:00:03"}}"#;
    let call = tap(&world, "ADD", text).env("CNI_ARGS", "MAC=02:00:00:00:00:02;IgnoreUnknown=1");
    let result = call.run()?.result()?;
    ensure!(result["interfaces"][0]["mac"] == "02:00:00:00:00:03", "{result}");
    ensure!(shown(&world)?.contains("02:00:00:00:00:03"));
    Ok(())
}

#[test]
fn it_becomes_a_port_of_a_bridge_in_the_pod() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    world.pod_ip(0, &["link add br0 type bridge", "link add v0 type veth peer name v1"])?;
    let text = r#"{"bridge":"br0"}"#;
    let result = tap(&world, "ADD", text).run()?.result()?;
    expect(&world, &[("pod0/link/eth0/master", "br0")])?;
    let check = tap(&world, "CHECK", text).prev(&result);
    check.run()?.silent()?;
    world.pod_ip(0, &["link set eth0 nomaster"])?;
    ensure!(check.run()?.error()?.msg.contains("not on bridge \"br0\""));
    tap(&world, "DEL", text).run()?.silent()?;
    for (bridge, words) in
        [("nosuch0", "find bridge \"nosuch0\" in the pod"), ("v0", "\"v0\" in the pod is not a bridge")]
    {
        let text = format!(r#"{{"bridge":"{bridge}"}}"#);
        let error = add_fails_without_a_trace(&world, "tap", &text, "1.0.0", Stdout::Read)?.error()?;
        ensure!(error.msg.contains(words), "{error:?}");
    }
    Ok(())
}

/// A label is honoured or refused by name, never passed over. (What SELinux does with one cannot be seen on a machine
/// that does not run it.)
#[test]
fn a_label_without_selinux_is_refused() -> Result<()> {
    let running = fs::read_to_string("/proc/filesystems")?.contains("selinuxfs");
    let world = World::new(Side::Podnet, 1)?;
    let text = r#"{"selinuxContext":"system_u:system_r:no_such_t:s0"}"#;
    let error = add_fails_without_a_trace(&world, "tap", text, "1.0.0", Stdout::Read)?.error()?;
    ensure!(error.msg.contains("no_such_t"), "{error:?}");
    ensure!((error.code == 2) != running, "{error:?}");
    Ok(())
}

#[test]
fn del_succeeds_whatever_is_missing_and_releases_the_address() -> Result<()> {
    for how in ["nothing", "interface", "empty", "unset", "missing", "plain file", "broken configuration"] {
        let world = World::new(Side::Podnet, 1)?;
        tap(&world, "ADD", DUAL).run()?.result()?;
        let file = world.dir().join("file");
        fs::write(&file, "")?;
        let del = tap(&world, "DEL", DUAL);
        let del = match how {
            "interface" => {
                world.pod_ip(0, &["link del eth0"])?;
                del
            }
            "empty" => del.env("CNI_NETNS", ""),
            "unset" => del.unset("CNI_NETNS"),
            "missing" => del.env("CNI_NETNS", "/nonexistent"),
            "plain file" => del.env("CNI_NETNS", &file),
            "broken configuration" => tap(&world, "DEL", &DUAL.replace("1400", "-1")),
            _ => del,
        };
        for _ in 0..2 {
            del.run()?.silent().context(how)?;
            ensure!(world.reservations(NETWORK)?.is_empty(), "{how}");
        }
    }
    Ok(())
}

/// Does something to a checked pod; CHECK must fail then, with these words.
fn finds(spoil: &[&str], words: &str) -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let result = tap(&world, "ADD", DUAL).run()?.result()?;
    let check = tap(&world, "CHECK", DUAL).prev(&result);
    check.run()?.silent()?;
    world.pod_ip(0, spoil)?;
    let error = check.run()?.error().with_context(|| format!("{spoil:?}"))?;
    ensure!(error.msg.contains(words), "{spoil:?}: expected {words:?}, seen {error:?}");
    Ok(())
}

#[test]
fn check_finds_each_thing_that_goes_missing() -> Result<()> {
    let again = |kind: &str| {
        let mut steps = vec!["link del eth0".to_owned(), kind.to_owned()];
        steps.extend(["link set eth0 mtu 1400 address 02:00:00:00:00:7a".into(), "link set eth0 up".into()]);
        steps
    };
    let (veth, tun) = ("link add eth0 type veth peer name far", "tuntap add dev eth0 mode tap");
    let (other, plain) = (again(veth), again(tun));
    let stranger: Vec<&str> = other.iter().map(String::as_str).collect();
    let nobodys: Vec<&str> = plain.iter().map(String::as_str).collect();
    let users = again("tuntap add dev eth0 mode tap multi_queue");
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    for (spoil, words) in [
        (&["link del eth0"][..], "eth0"),
        (&["link set eth0 down"], "is down"),
        (&["link set eth0 address 02:00:00:00:00:99"], "02:00:00:00:00:99"),
        (&["link set eth0 mtu 1300"], "MTU 1300"),
        (&["addr del 10.1.2.2/24 dev eth0"], "10.1.2.2/24"),
        (&["addr del 2001:db8:1::2/64 dev eth0"], "2001:db8:1::2/64"),
        (&["route del 192.168.0.0/16"], "192.168.0.0/16"),
        (&stranger, "is not a tap"),
        (&nobodys, "multiQueue is false"),
        (&users, "owner is nobody"),
    ] {
        finds(spoil, words)?;
    }
    Ok(())
}

#[test]
fn gc_and_status_are_the_ipam_plugins_and_the_kernels() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let status = tap(&world, "STATUS", DUAL).unset("CNI_NETNS");
    status.run()?.silent()?;
    tap(&world, "ADD", DUAL).run()?.result()?;
    let before = world.snapshot()?.facts;
    let gc = tap(&world, "GC", DUAL).unset("CNI_NETNS").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
    gc.run()?.silent()?;
    gc.clone()
        .with("cni.dev/valid-attachments", r#"[{"containerID":"c0","ifname":"eth0"}]"#)
        .run()?
        .silent()?;
    unchanged(&world, &before)?;
    gc.with("cni.dev/valid-attachments", "[]").run()?.silent()?;
    ensure!(world.reservations(NETWORK)?.is_empty());
    // A machine without /dev/net/tun.
    podnet_tests::sealed::sealed(|| {
        podnet_tests::sealed::tmpfs(std::path::Path::new("/dev/net"), "size=64k")?;
        for (verb, code) in [("STATUS", 50), ("ADD", 999)] {
            let error = tap(&world, verb, "{}").env("CNI_IFNAME", "net1").run()?.error()?;
            ensure!(error.code == code && error.msg.contains("kernel lacks tun (CONFIG_TUN)"), "{error:?}");
        }
        Ok(())
    })
}

#[test]
fn two_taps_of_one_container_do_not_meet() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
    let net1 = |verb: &str| tap(&world, verb, text).env("CNI_IFNAME", "net1");
    tap(&world, "ADD", text).run()?.result()?;
    let second = net1("ADD").run()?.result()?;
    tap(&world, "DEL", text).run()?.silent()?;
    net1("CHECK").prev(&second).run()?.silent()?;
    net1("DEL").run()?.silent()?;
    gone(&world)
}

#[test]
fn a_failed_add_leaves_no_trace() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    for stdout in [Stdout::Closed, Stdout::Full] {
        add_fails_without_a_trace(&world, "tap", DUAL, "1.0.0", stdout)?;
        add_fails_without_a_trace(&world, "tap", "{}", "1.0.0", stdout)?;
    }
    // A result of 0.2.0 needs an address; a tap has an MTU of 65521 at most.
    add_fails_without_a_trace(&world, "tap", "{}", "0.2.0", Stdout::Read)?;
    let error =
        add_fails_without_a_trace(&world, "tap", r#"{"mtu":65535}"#, "1.0.0", Stdout::Read)?.error()?;
    ensure!(error.msg.contains("MTU"), "{error:?}");
    let full =
        DUAL.replace("10.1.2.0/24\"", "10.1.2.0/24\",\"rangeStart\":\"10.1.2.1\",\"rangeEnd\":\"10.1.2.1\"");
    add_fails_without_a_trace(&world, "tap", &full, "1.0.0", Stdout::Read)?;
    let first = tap(&world, "ADD", DUAL).run()?.result()?;
    let before = world.snapshot()?.facts;
    let error = tap(&world, "ADD", DUAL).container("other").run()?.error()?;
    ensure!(error.msg.contains("interface name \"eth0\" already exists in the pod"), "{error:?}");
    unchanged(&world, &before)?;
    tap(&world, "CHECK", DUAL).prev(&first).run()?.silent()
}

#[test]
fn each_request_that_fails_is_undone() -> Result<()> {
    let failed = inject_into("tap", "sendto,sendmsg,sendmmsg", "ENOBUFS", DUAL, |_| Ok(()))?;
    ensure!(failed >= 3, "only {failed} requests of ADD could be made to fail");
    let failed = inject_into("tap", "ioctl", "EPERM", DUAL, |_| Ok(()))?;
    ensure!(failed == 4, "{failed} of the ioctls that make a tap could be made to fail");
    Ok(())
}

#[test]
fn an_add_killed_at_any_system_call_is_cleaned_up_by_del() -> Result<()> {
    Scene::new("tap", DUAL).killed_at_any_system_call("ADD")
}

#[test]
fn a_del_killed_at_any_system_call_is_finished_by_the_next() -> Result<()> {
    Scene::new("tap", DUAL).killed_at_any_system_call("DEL")
}

#[test]
fn rootless_namespaces_are_as_good() -> Result<()> {
    let rootless = Rootless::new(Side::Podnet, 1)?;
    let text = r#"{"owner":0,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
    let call = |verb: &str| rootless.call("tap", verb, 0).config("1.1.0", text);
    let result = call("ADD").run()?.result()?;
    call("CHECK").prev(&result).run()?.silent()?;
    call("DEL").prev(&result).run()?.silent()?;
    gone(&rootless.world)
}
