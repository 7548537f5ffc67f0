//! `firewall` by rules: what a drop policy lets through, who reaches whom under an ingress policy, whose rules go.

use anyhow::{Context, Result, ensure};
use podnet_tests::{Side, World};
use serde_json::{Value, json};

use super::bystanders;
use super::network::{Door, ask, refused, tcp};
use super::{DUAL, Scene, V4, address, renamed, run, same};

const RULES: &str = r#""backend":"iptables""#;

fn policy(name: &str) -> String {
    format!(r#"{RULES},"ingressPolicy":"{name}""#)
}

#[test]
fn a_pod_speaks_past_a_forward_policy_of_drop() -> Result<()> {
    for backend in ["iptables", "nftables", ""] {
        let scene = Scene::new(Side::Podnet, 1)?;
        let result = scene.attach(0, DUAL)?;
        bystanders::load(&scene, "DROP")?;
        let before = bystanders::picture(&scene)?;
        let keys = format!(r#""backend":"{backend}""#);
        let call = |verb| {
            // No firewalld is to be found by accident.
            scene.firewall(verb, 0, &result, &keys).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
        };
        let door = Door::new(&scene.outside)?;
        // Neighbours are resolved then.
        refused(scene.pod(0), "10.1.2.1:9")?;
        refused(scene.host(), "192.0.2.2:9")?;
        ensure!(!door.is_reached(scene.pod(0), scene.host(), "192.0.2.2")?, "there is no drop to lift");
        let printed = call("ADD").run()?.result()?;
        ensure!(printed == result, "the result is not passed on: {printed}");
        let _server = tcp(&scene.outside, 80)?;
        for (to, pod) in
            [("192.0.2.2:80", address(&result, false)), ("[2001:db8:0:1::2]:80", address(&result, true))]
        {
            // Both ways: the pod's packets and their answers.
            ensure!(ask(scene.pod(0), to)? == pod);
        }
        call("CHECK").run()?.silent()?;
        let added = bystanders::picture(&scene)?;
        call("ADD").run()?.result()?;
        same(&added, &bystanders::picture(&scene)?)?;
        call("DEL").run()?.silent()?;
        same(&before, &bystanders::picture(&scene)?)?;
        ensure!(!door.is_reached(scene.pod(0), scene.host(), "192.0.2.2")?, "DEL left the pod its way");
        call("DEL").run()?.silent()?;
    }
    Ok(())
}

#[test]
fn iptables_reads_the_rules_as_its_own() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, DUAL)?;
    let before = scene.rules()?;
    let keys = format!(r#"{RULES},"iptablesAdminChainName":"MY-ADMIN""#);
    scene.firewall("ADD", 0, &result, &keys).run()?.result()?;
    let listed = run(scene.host(), "iptables", "-S", "")?;
    let expected = [
        "-A FORWARD -m comment --comment \"CNI firewall plugin rules\" -j CNI-FORWARD",
        "-A CNI-FORWARD -m comment --comment \"CNI firewall plugin admin overrides\" -j MY-ADMIN",
        "-A CNI-FORWARD -d 10.1.2.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A CNI-FORWARD -s 10.1.2.2/32 -j ACCEPT",
    ];
    let rules: Vec<&str> = listed.lines().filter(|line| line.starts_with("-A")).collect();
    ensure!(rules == expected, "{listed}");
    let rule = "-C CNI-FORWARD -d 10.1.2.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
    run(scene.host(), "iptables", rule, "")?;
    run(scene.host(), "ip6tables", "-C CNI-FORWARD -s 2001:db8:1::2/128 -j ACCEPT", "")?;
    // An administrator's rule keeps what leads to it.
    run(scene.host(), "iptables", "-A MY-ADMIN -s 10.9.9.9/32 -j DROP", "")?;
    scene.firewall("DEL", 0, &result, &keys).run()?.silent()?;
    let kept = run(scene.host(), "iptables", "-S", "")?;
    ensure!(
        kept.contains("-j MY-ADMIN") && kept.contains("10.9.9.9") && !kept.contains("10.1.2.2"),
        "{kept}"
    );
    run(scene.host(), "iptables", "-F MY-ADMIN", "")?;
    scene.firewall("ADD", 0, &result, &keys).run()?.result()?;
    scene.firewall("DEL", 0, &result, &keys).run()?.silent()?;
    same(&before, &scene.rules()?)
}

#[test]
fn ipv4_alone_makes_nothing_for_ipv6() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, V4)?;
    // ip6tables may be missing altogether.
    let add = scene.firewall("ADD", 0, &result, RULES).env("PATH", "/nonexistent");
    add.run()?.result()?;
    ensure!(!scene.rules()?.contains("table ip6"), "{}", scene.rules()?);
    Ok(())
}

#[test]
fn a_late_del_does_not_take_the_rules_of_the_addresss_new_owner() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 2)?;
    let result = scene.attach(0, V4)?;
    let before = scene.rules()?;
    let call = |verb, id: &str| scene.firewall(verb, 0, &result, &policy("same-bridge")).container(id);
    call("ADD", "old").run()?.result()?;
    call("ADD", "new").run()?.result()?;
    call("DEL", "old").run()?.silent()?;
    call("CHECK", "new").run()?.silent()?;
    call("CHECK", "old").run()?.error()?;
    // Another interface, another network of the container.
    let eth1 = scene.firewall("ADD", 0, &result, RULES).container("new").env("CNI_IFNAME", "eth1");
    eth1.run()?.result()?;
    renamed(call("ADD", "new"), "other").run()?.result()?;
    call("DEL", "new").run()?.silent()?;
    scene.firewall("CHECK", 0, &result, RULES).container("new").env("CNI_IFNAME", "eth1").run()?.silent()?;
    renamed(call("CHECK", "new"), "other").run()?.silent()?;
    scene
        .firewall("DEL", 0, &Value::Null, RULES)
        .container("new")
        .env("CNI_IFNAME", "eth1")
        .run()?
        .silent()?;
    renamed(call("DEL", "new"), "other").run()?.silent()?;
    same(&before, &scene.rules()?)
}

#[test]
fn check_changes_nothing_and_sees_what_is_missing() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, V4)?;
    let before = scene.rules()?;
    let check = || scene.firewall("CHECK", 0, &result, &policy("isolated")).run();
    check()?.error()?;
    same(&before, &scene.rules()?)?;
    let damages = [
        ("iptables", "-F CNI-FORWARD"),
        ("iptables", "-D CNI-FORWARD -s 10.1.2.2/32 -j ACCEPT"),
        ("iptables", "-D FORWARD 1"),
        ("nft", "flush chain inet podnet_firewall attachments"),
        ("nft", "flush chain inet podnet_firewall leaving"),
        ("nft", "flush chain inet podnet_firewall forward"),
        ("nft", "flush chain bridge podnet_firewall forward"),
        ("nft", "flush set bridge podnet_firewall isolated"),
    ];
    for (program, damage) in damages {
        scene.firewall("ADD", 0, &result, &policy("isolated")).run()?.result()?;
        check()?.silent()?;
        run(scene.host(), program, damage, "")?;
        let damaged = scene.rules()?;
        check()?.error().with_context(|| damage.to_owned())?;
        same(&damaged, &scene.rules()?)?;
    }
    scene.firewall("ADD", 0, &result, &policy("isolated")).run()?.result()?;
    scene.firewall("DEL", 0, &result, &policy("isolated")).run()?.silent()?;
    same(&before, &scene.rules()?)
}

/// Pods 0 and 1 on cni0, pod 2 on another bridge.
fn two_bridges() -> Result<(Scene, Vec<Value>)> {
    let scene = Scene::new(Side::Podnet, 3)?;
    let mut results = vec![scene.attach(0, V4)?, scene.attach(1, V4)?];
    let other = V4.replace("10.1.2.0", "10.1.3.0").replacen('{', r#"{"bridge":"cni1","#, 1);
    results.push(
        renamed(scene.world.call("bridge", "ADD").config("1.0.0", &other).pod(2), "other").run()?.result()?,
    );
    Ok((scene, results))
}

#[test]
fn an_ingress_policy_says_who_reaches_a_pod_and_goes_with_the_last_one() -> Result<()> {
    let (scene, results) = two_bridges()?;
    let before = scene.rules()?;
    let (door, at) = (Door::new(scene.pod(0))?, "10.1.2.2");
    let guests = [("outside", &scene.outside), ("same bridge", scene.pod(1)), ("other bridge", scene.pod(2))];
    for (_, from) in guests {
        door.warm_up(from, at)?;
    }
    let reached = || -> Result<Vec<&str>> {
        let mut all = Vec::new();
        for (name, from) in guests {
            if door.is_reached(from, scene.host(), at)? {
                all.push(name);
            }
        }
        Ok(all)
    };
    let call = |verb, pod: usize, policy: &str| {
        let keys = format!(r#"{RULES},"ingressPolicy":"{policy}""#);
        let network = if pod == 2 { "other" } else { podnet_tests::world::NETWORK };
        renamed(scene.firewall(verb, pod, &results[pod], &keys), network)
    };
    let everyone = ["outside", "same bridge", "other bridge"];
    for (policies, expected) in [
        (["open", "open", "open"], &everyone[..]),
        // One bridge with a policy has none to be kept from.
        (["same-bridge", "same-bridge", "open"], &everyone[..]),
        (["same-bridge", "same-bridge", "same-bridge"], &everyone[..2]),
        (["same-bridge", "open", "isolated"], &everyone[..2]),
        (["isolated", "isolated", "same-bridge"], &everyone[..1]),
        (["isolated", "open", "open"], &["outside", "other bridge"]),
    ] {
        for (pod, policy) in policies.iter().enumerate() {
            call("ADD", pod, policy).run()?.result()?;
        }
        ensure!(reached()? == expected, "{policies:?}: reached from {:?}\n{}", reached()?, scene.rules()?);
        for (pod, policy) in policies.iter().enumerate() {
            call("CHECK", pod, policy).run()?.silent()?;
        }
        // The first pod of a bridge goes: the second keeps the rules.
        call("DEL", 1, policies[1]).run()?.silent()?;
        call("CHECK", 0, policies[0]).run()?.silent()?;
        let kept = &expected[usize::from(!expected.contains(&"outside"))..];
        ensure!(reached()? == kept, "{policies:?} without pod1: {:?}", reached()?);
        for pod in [0, 2] {
            call("DEL", pod, policies[pod]).run()?.silent()?;
        }
        same(&before, &scene.rules()?)?;
        ensure!(reached()? == everyone);
    }
    Ok(())
}

#[test]
fn isolation_needs_no_br_netfilter_and_leaves_arp_and_the_gateway() -> Result<()> {
    let (scene, results) = two_bridges()?;
    run(scene.host(), "sysctl", "-qw net.bridge.bridge-nf-call-iptables=0", "")?;
    scene.firewall("ADD", 0, &results[0], &policy("isolated")).run()?.result()?;
    // The gateway answers, the neighbour is resolved, and nothing but that.
    let server = tcp(scene.host(), 80)?;
    ensure!(ask(scene.pod(0), "10.1.2.1:80")? == "10.1.2.2");
    drop(server);
    let door = Door::new(scene.pod(0))?;
    ensure!(!door.is_reached(scene.pod(1), scene.host(), "10.1.2.2")?);
    let neighbours = run(scene.pod(1), "ip", "neigh show 10.1.2.2", "")?;
    ensure!(neighbours.contains("lladdr"), "ARP was not answered: {neighbours}");
    Ok(())
}

#[test]
fn gc_removes_rules_and_policies_of_stale_attachments() -> Result<()> {
    let (scene, results) = two_bridges()?;
    let before = scene.rules()?;
    for (pod, result) in results[..2].iter().enumerate() {
        scene.firewall("ADD", pod, result, &policy("isolated")).run()?.result()?;
    }
    renamed(scene.firewall("ADD", 2, &results[2], &policy("same-bridge")), "other").run()?.result()?;
    let gc = |network: &str, valid: Value| -> Result<()> {
        let call = scene.world.call("firewall", "GC").config("1.1.0", &format!("{{{RULES}}}"));
        let call =
            renamed(call, network).env("CNI_CONTAINERID", "").env("CNI_IFNAME", "").env("CNI_NETNS", "");
        call.with("cni.dev/valid-attachments", &valid.to_string()).run()?.silent()
    };
    gc(podnet_tests::world::NETWORK, json!([{"containerID": "c1", "ifname": "eth0"}]))?;
    scene.firewall("CHECK", 1, &results[1], &policy("isolated")).run()?.silent()?;
    scene.firewall("CHECK", 0, &results[0], &policy("isolated")).run()?.error()?;
    renamed(scene.firewall("CHECK", 2, &results[2], &policy("same-bridge")), "other").run()?.silent()?;
    gc(podnet_tests::world::NETWORK, json!([]))?;
    gc("other", json!([]))?;
    same(&before, &scene.rules()?)
}

#[test]
fn status_answers_and_leaves_nothing() -> Result<()> {
    let world = World::new(Side::Podnet, 0)?;
    for policy in ["open", "same-bridge", "isolated"] {
        let keys = format!(r#"{{{RULES},"ingressPolicy":"{policy}"}}"#);
        world.call("firewall", "STATUS").config("1.1.0", &keys).run()?.silent()?;
        ensure!(run(&world.host, "nft", "list ruleset", "")?.is_empty());
    }
    let keys = r#"{"backend":"firewalld"}"#;
    let call = world.call("firewall", "STATUS").config("1.1.0", keys);
    let error = call.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent").run()?.error()?;
    ensure!(error.code == 50 && error.msg.contains("firewalld"), "{error:?}");
    Ok(())
}

#[test]
fn a_result_that_is_missing_or_has_no_bridge_is_refused() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, DUAL)?;
    let before = scene.rules()?;
    let mut without = result.clone();
    without["interfaces"] = json!([]);
    let error = scene.firewall("ADD", 0, &without, &policy("isolated")).run()?.error()?;
    ensure!(error.msg.contains("interface needs to be set"), "{error:?}");
    let error = scene.firewall("ADD", 0, &Value::Null, RULES).run()?.error()?;
    ensure!(error.msg == "missing prevResult from earlier plugin", "{error:?}");
    same(&before, &scene.rules()?)
}

#[test]
fn no_other_program_is_run() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, DUAL)?;
    let log = scene.world.dir().join("strace");
    let path = log.to_string_lossy().into_owned();
    for verb in ["ADD", "CHECK", "DEL"] {
        let words = ["strace", "-f", "-qq", "-o", &path, "-e", "trace=execve"];
        let outcome = scene.firewall(verb, 0, &result, &policy("isolated")).through(&words).run()?;
        ensure!(outcome.exit == Some(0), "{outcome:?}");
        let seen = std::fs::read_to_string(&log)?;
        ensure!(seen.matches("execve(").count() == 1, "{verb}: {seen}");
    }
    Ok(())
}
