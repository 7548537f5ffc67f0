//! Mapped ports from everywhere, and what ADD, CHECK, DEL and GC do to the rules.

use anyhow::{Context, Result, ensure};
use podnet_tests::{Side, World};
use serde_json::{Value, json};

use super::network::{Flow, ask, refused, tcp, udp};
use super::{DUAL, NODE, NODE_V6, Scene, V4, address, mapping, renamed, run, same};

/// Two pods, of which the first has port 80 mapped to 8080 of the node.
fn mapped(keys: &str, mappings: &Value) -> Result<(Scene, Value)> {
    let scene = Scene::new(Side::Podnet, 2)?;
    let results = [scene.attach(0, DUAL)?, scene.attach(1, DUAL)?];
    let printed = scene.portmap("ADD", 0, &results[0], mappings, keys).run()?.result()?;
    ensure!(printed == results[0], "the result is not passed on: {printed}");
    let [result, _] = results;
    Ok((scene, result))
}

fn web() -> Value {
    json!([mapping(8080, 80, "tcp", "")])
}

#[test]
fn a_mapping_is_reached_from_outside_from_pods_and_from_the_node() -> Result<()> {
    // With br_netfilter the rewritten packet of the pod to itself is a bridged one, which needs a hairpin port.
    for (filter_bridged, hairpin) in [("0", false), ("1", true)] {
        reached_from_everywhere(filter_bridged, hairpin)
            .with_context(|| format!("bridge-nf-call-iptables={filter_bridged}"))?;
    }
    Ok(())
}

fn reached_from_everywhere(filter_bridged: &str, hairpin: bool) -> Result<()> {
    let scene = Scene::new(Side::Podnet, 2)?;
    for key in ["iptables", "ip6tables"] {
        run(scene.host(), "sysctl", &format!("-qw net.bridge.bridge-nf-call-{key}={filter_bridged}"), "")?;
    }
    let text = DUAL.replacen('{', &format!("{{\"hairpinMode\":{hairpin},"), 1);
    let result = scene.attach(0, &text)?;
    scene.attach(1, &text)?;
    scene.portmap("ADD", 0, &result, &web(), "").run()?.result()?;
    let _server = tcp(scene.pod(0), 80)?;
    for (v6, node, gateway) in [(false, NODE, "10.1.2.1"), (true, NODE_V6, "2001:db8:1::1")] {
        let at = |ip: &str| if v6 { format!("[{ip}]:8080") } else { format!("{ip}:8080") };
        let client = if v6 { "2001:db8:0:1::2" } else { "192.0.2.2" };
        ensure!(ask(&scene.outside, &at(node))? == client, "seen from outside with another source");
        // Another pod of the subnet and the pod itself are masqueraded, or the answer would go past the node.
        for pod in [1, 0] {
            for ip in [node, gateway] {
                let seen = ask(scene.pod(pod), &at(ip)).with_context(|| format!("from pod{pod}"))?;
                ensure!(seen == gateway, "pod{pod} to {ip}: seen as {seen}");
            }
        }
        let loopback = if v6 { &[][..] } else { &["127.0.0.1"] };
        for ip in [node, gateway].iter().chain(loopback) {
            let seen = ask(scene.host(), &at(ip)).context("from the node")?;
            ensure!(seen != "127.0.0.1", "the node to {ip}: seen as {seen}");
        }
        if v6 {
            // IPv6 cannot, and says so at once.
            refused(scene.host(), &at("::1"))?;
        }
        // Pods among themselves are never masqueraded.
        let pod = address(&result, v6);
        let direct = if v6 { format!("[{pod}]:80") } else { format!("{pod}:80") };
        let seen = ask(scene.pod(1), &direct)?;
        ensure!(seen != gateway && seen != node, "pod to pod: seen as {seen}");
    }
    Ok(())
}

#[test]
fn pods_among_themselves_keep_their_addresses_although_bridged_packets_are_filtered() -> Result<()> {
    let (scene, result) = mapped("", &web())?;
    // br_netfilter shows the bridge's packets to the masquerading chain.
    run(scene.host(), "sysctl", "-qw net.bridge.bridge-nf-call-iptables=1", "")?;
    let _server = tcp(scene.pod(0), 80)?;
    let seen = ask(scene.pod(1), &format!("{}:80", address(&result, false)))?;
    ensure!(seen == "10.1.2.3", "seen as {seen}");
    ensure!(ask(scene.pod(1), &format!("{NODE}:8080"))? == "10.1.2.1");
    Ok(())
}

#[test]
fn only_packets_for_the_node_are_mapped() -> Result<()> {
    let (scene, _) = mapped("", &json!([mapping(8080, 80, "tcp", "")]))?;
    let _pod = tcp(scene.pod(0), 80)?;
    // A server outside on the same port, which pods reach through the node.
    let _outside = tcp(&scene.outside, 8080)?;
    let seen = ask(scene.pod(1), "192.0.2.2:8080")?;
    ensure!(seen == "10.1.2.3", "the pod's connection to the outside was led away: {seen}");
    Ok(())
}

#[test]
fn a_host_address_is_the_only_one_mapped() -> Result<()> {
    let mappings = json!([
        mapping(8080, 80, "tcp", NODE),
        mapping(8081, 80, "tcp", NODE_V6),
        mapping(8082, 80, "tcp", "127.0.0.1"),
        mapping(8083, 80, "tcp", "0.0.0.0"),
        mapping(8084, 80, "tcp", "::"),
    ]);
    let (scene, _) = mapped("", &mappings)?;
    let _server = tcp(scene.pod(0), 80)?;
    ask(&scene.outside, "192.0.2.1:8080")?;
    refused(&scene.outside, "10.1.2.1:8080")?;
    refused(&scene.outside, "[2001:db8:0:1::1]:8080")?;
    ask(&scene.outside, "[2001:db8:0:1::1]:8081")?;
    refused(&scene.outside, "192.0.2.1:8081")?;
    ask(scene.host(), "127.0.0.1:8082")?;
    refused(scene.host(), "192.0.2.1:8082")?;
    ask(&scene.outside, "10.1.2.1:8083")?;
    refused(&scene.outside, "[2001:db8:0:1::1]:8083")?;
    ask(&scene.outside, "[2001:db8:1::1]:8084")?;
    refused(&scene.outside, "192.0.2.1:8084")
}

#[test]
fn one_address_of_the_node_wins_over_all_of_them_whoever_came_first() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 2)?;
    for (pod, host_ip) in [(0, ""), (1, NODE)] {
        let result = scene.attach(pod, V4)?;
        let mappings = json!([mapping(5353, 53, "udp", host_ip)]);
        scene.portmap("ADD", pod, &result, &mappings, "").run()?.result()?;
    }
    let _servers = (udp(scene.pod(0), 53, "all")?, udp(scene.pod(1), 53, "one")?);
    ensure!(Flow::new(&scene.outside, "192.0.2.1:5353")?.answer()? == "one 192.0.2.2");
    ensure!(Flow::new(&scene.outside, "10.1.2.1:5353")?.answer()? == "all 192.0.2.2");
    Ok(())
}

#[test]
fn without_snat_the_source_is_kept_and_with_masqall_it_never_is() -> Result<()> {
    let (scene, _) = mapped(r#""snat":false"#, &web())?;
    let _server = tcp(scene.pod(0), 80)?;
    ensure!(ask(&scene.outside, "192.0.2.1:8080")? == "192.0.2.2");
    ensure!(!scene.rules()?.contains("masquerade"));
    let localnet = run(scene.host(), "sysctl", "-n net.ipv4.conf.cni0.route_localnet", "")?;
    ensure!(localnet == "0\n", "route_localnet is {localnet}");

    let (scene, _) = mapped(r#""masqAll":true,"markMasqBit":5"#, &web())?;
    let _server = tcp(scene.pod(0), 80)?;
    ensure!(ask(&scene.outside, "192.0.2.1:8080")? == "10.1.2.1");
    ensure!(scene.rules()?.contains("0x00000020"), "the mark's bit is not the one asked for");
    Ok(())
}

#[test]
fn sctp_is_mapped_with_its_own_protocol() -> Result<()> {
    let (scene, result) = mapped("", &json!([mapping(3868, 3869, "SCTP", "")]))?;
    let expected = format!("sctp dport 3868 dnat to {}:3869", address(&result, false));
    ensure!(scene.rules()?.contains(&expected), "{}", scene.rules()?);
    Ok(())
}

#[test]
fn a_repeated_add_changes_nothing_and_del_removes_all() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, DUAL)?;
    let before = scene.rules()?;
    let mappings = json!([mapping(8080, 80, "tcp", ""), mapping(53, 5353, "udp", NODE)]);
    let call = |verb| scene.portmap(verb, 0, &result, &mappings, "");
    call("ADD").run()?.result()?;
    let added = scene.rules()?;
    call("ADD").run()?.result()?;
    same(&added, &scene.rules()?)?;
    call("CHECK").run()?.silent()?;
    call("DEL").run()?.silent()?;
    same(&before, &scene.rules()?)?;
    call("DEL").run()?.silent()
}

#[test]
fn del_needs_neither_prevresult_nor_netns_nor_a_valid_configuration() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, DUAL)?;
    let before = scene.rules()?;
    let broken = [
        scene.portmap("DEL", 0, &Value::Null, &web(), ""),
        scene.portmap("DEL", 0, &result, &web(), "").env("CNI_NETNS", ""),
        scene.portmap("DEL", 0, &result, &web(), "").env("CNI_NETNS", "/nonexistent"),
        scene.portmap("DEL", 0, &result, &json!([mapping(0, 80, "tcp", "")]), ""),
        scene.portmap("DEL", 0, &result, &json!([mapping(8080, 80, "icmp", "nowhere")]), ""),
        scene.portmap("DEL", 0, &result, &web(), r#""backend":"nosuch","conditionsV4":["-m","nosuch"]"#),
        scene.portmap("DEL", 0, &Value::Null, &json!(5), ""),
        scene.portmap("DEL", 0, &Value::Null, &web(), r#""snat":"perhaps""#),
        scene.portmap("DEL", 0, &json!({"cniVersion": "0.4.0"}), &web(), ""),
    ];
    for del in broken {
        scene.portmap("ADD", 0, &result, &web(), "").run()?.result()?;
        del.run()?.silent()?;
        same(&before, &scene.rules()?)?;
    }
    Ok(())
}

#[test]
fn two_attachments_of_one_container_do_not_disturb_each_other() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let first = scene.attach(0, V4)?;
    let second =
        scene.world.call("bridge", "ADD").config("1.0.0", V4).env("CNI_IFNAME", "net1").run()?.result()?;
    let before = scene.rules()?;
    let eth0 = |verb| scene.portmap(verb, 0, &first, &web(), "");
    let others = json!([mapping(9090, 90, "tcp", "")]);
    let net1 = |verb| scene.portmap(verb, 0, &second, &others, "").env("CNI_IFNAME", "net1");
    // The same container, the same interface, another network.
    let third = json!([mapping(7070, 70, "tcp", "")]);
    let other = |verb| renamed(scene.portmap(verb, 0, &first, &third, ""), "other");
    for call in [eth0("ADD"), net1("ADD"), other("ADD")] {
        call.run()?.result()?;
    }
    eth0("DEL").run()?.silent()?;
    net1("CHECK").run()?.silent()?;
    other("CHECK").run()?.silent()?;
    let failed = eth0("CHECK").run()?.error()?;
    ensure!(failed.msg.contains("hostport rules"), "{failed:?}");
    let _servers = (tcp(scene.pod(0), 90)?, tcp(scene.pod(0), 70)?);
    refused(&scene.outside, "192.0.2.1:8080")?;
    ask(&scene.outside, "192.0.2.1:9090")?;
    ask(&scene.outside, "192.0.2.1:7070")?;
    other("DEL").run()?.silent()?;
    net1("DEL").run()?.silent()?;
    same(&before, &scene.rules()?)
}

#[test]
fn check_sees_every_rule_that_is_missing_or_changed() -> Result<()> {
    let (scene, result) = mapped("", &web())?;
    let check = || scene.portmap("CHECK", 0, &result, &web(), "").run();
    check()?.silent()?;
    let listed = run(scene.host(), "nft", "-a list table ip cni_hostport", "")?;
    let mut chain = "";
    let mut rules = Vec::new();
    for line in listed.lines() {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["chain", name, ..] => chain = name,
            [.., "#", "handle", handle] if line.starts_with("\t\t") => rules.push((chain, *handle)),
            _ => {}
        }
    }
    ensure!(rules.len() >= 9, "only {} rules in {listed}", rules.len());
    let whole = format!("delete table ip cni_hostport\n{}", run(scene.host(), "nft", "list ruleset ip", "")?);
    for (chain, handle) in rules {
        if ["localnet_guard", "hostports_all"].contains(&chain) {
            continue;
        }
        scene.nft(&format!("delete rule ip cni_hostport {chain} handle {handle}"))?;
        let failed = check()?.error()?;
        ensure!(failed.msg.contains("cni_hostport"), "{chain} {handle}: {failed:?}");
        // ADD puts it back.
        scene.portmap("ADD", 0, &result, &web(), "").run()?.result()?;
        check()?.silent()?;
        if chain != "prerouting" && chain != "output" {
            // Handles are new now; one rule of each such chain is enough.
            break;
        }
    }
    // What `nft` loads again has lost the record: the rules are nobody's.
    scene.nft(&whole)?;
    check()?.silent()?;
    let other = json!([mapping(8080, 81, "tcp", "")]);
    scene.portmap("CHECK", 0, &result, &other, "").run()?.error()?;
    Ok(())
}

#[test]
fn gc_removes_what_is_not_valid_and_nothing_of_other_networks() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 3)?;
    let before = scene.rules()?;
    let mut results = Vec::new();
    for pod in 0..3 {
        results.push(scene.attach(pod, V4)?);
        let mappings = json!([mapping(8080 + pod as u16, 80, "tcp", "")]);
        let add = scene.portmap("ADD", pod, &results[pod], &mappings, "");
        let add = if pod == 2 { renamed(add, "other") } else { add };
        add.run()?.result()?;
    }
    let gc = |network: &str, valid: Option<Value>| -> Result<()> {
        let call = scene.world.call("portmap", "GC").config("1.1.0", "{}");
        let call =
            renamed(call, network).env("CNI_CONTAINERID", "").env("CNI_IFNAME", "").env("CNI_NETNS", "");
        let call = match valid {
            Some(valid) => call.with("cni.dev/valid-attachments", &valid.to_string()),
            None => call,
        };
        call.run()?.silent()
    };
    let all = scene.rules()?;
    gc(podnet_tests::world::NETWORK, None)?;
    same(&all, &scene.rules()?)?;
    gc(podnet_tests::world::NETWORK, Some(json!([{"containerID": "c1", "ifname": "eth0"}])))?;
    let left = scene.rules()?;
    ensure!(!left.contains("8080") && left.contains("8081") && left.contains("8082"), "{left}");
    gc(podnet_tests::world::NETWORK, Some(json!([])))?;
    gc("other", Some(json!([])))?;
    same(&before, &scene.rules()?)
}

#[test]
fn status_answers_and_leaves_nothing() -> Result<()> {
    let world = World::new(Side::Podnet, 0)?;
    world.call("portmap", "STATUS").config("1.1.0", "{}").run()?.silent()?;
    ensure!(run(&world.host, "nft", "list ruleset", "")?.is_empty());
    let error = world.call("portmap", "STATUS").config("1.1.0", r#"{"backend":"nosuch"}"#).run()?.error()?;
    ensure!((error.code, error.msg.as_str()) == (7, "unrecognized backend \"nosuch\""), "{error:?}");
    // Without the privilege the kernel refuses, and STATUS says so.
    let call = world.call("portmap", "STATUS").config("1.1.0", "{}");
    let error =
        call.through(&["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]).run()?.error()?;
    ensure!(error.code == 50, "{error:?}");
    Ok(())
}

#[test]
fn without_mappings_there_is_no_netlink_and_no_other_program() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, V4)?;
    let log = scene.world.dir().join("strace");
    let strace = |calls: &str| {
        let path = log.to_string_lossy().into_owned();
        ["strace", "-f", "-qq", "-o", &path, "-e", calls].map(str::to_owned)
    };
    for verb in ["ADD", "CHECK", "DEL"] {
        let words = strace("trace=socket,execve,fork,vfork,clone,clone3");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let outcome = scene.portmap(verb, 0, &result, &json!([]), "").through(&words).run()?;
        ensure!(outcome.exit == Some(0), "{outcome:?}");
        let seen = std::fs::read_to_string(&log)?;
        ensure!(seen.lines().filter(|line| !line.contains("execve(")).count() == 0, "{verb}: {seen}");
        ensure!(seen.matches("execve(").count() == 1, "{verb}: {seen}");
    }
    // With mappings the kernel is asked, and still no other program runs.
    for verb in ["ADD", "CHECK", "DEL"] {
        let words = strace("trace=execve,socket");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let outcome = scene.portmap(verb, 0, &result, &web(), "").through(&words).run()?;
        ensure!(outcome.exit == Some(0), "{outcome:?}");
        let seen = std::fs::read_to_string(&log)?;
        ensure!(seen.contains("NETLINK_NETFILTER") && seen.matches("execve(").count() == 1, "{verb}: {seen}");
    }
    Ok(())
}

/// As in a container whose /proc/sys is read-only (netavark#362).
#[test]
fn a_read_only_proc_sys_costs_the_loopback_address_and_nothing_else() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, V4)?;
    let before = scene.rules()?;
    let sealed = ["unshare", "-m", "sh", "-c", "mount -o bind,ro /proc/sys /proc/sys && exec \"$0\""];
    let added = scene.portmap("ADD", 0, &result, &web(), "").through(&sealed).run()?;
    added.result()?;
    ensure!(added.stderr.contains("127.0.0.1") && added.stderr.contains("read-only"), "{}", added.stderr);
    let _server = tcp(scene.pod(0), 80)?;
    ask(&scene.outside, "192.0.2.1:8080")?;
    scene.portmap("DEL", 0, &result, &web(), "").through(&sealed).run()?.silent()?;
    same(&before, &scene.rules()?)
}

#[test]
fn add_without_prevresult_says_that_it_is_chained() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    for mappings in [web(), json!([])] {
        let error = scene.portmap("ADD", 0, &Value::Null, &mappings, "").run()?.error()?;
        ensure!(error.msg == "must be called as chained plugin", "{error:?}");
    }
    Ok(())
}

#[test]
fn what_listens_on_the_nodes_loopback_stays_out_of_the_pods_reach() -> Result<()> {
    let (scene, result) = mapped("", &web())?;
    let _server = udp(scene.host(), 5000, "node")?;
    // A pod that sends to 127.0.0.1 by way of the node, which route_localnet would allow.
    let gateway = "10.1.2.1";
    run(scene.pod(0), "sysctl", "-qw net.ipv4.conf.all.route_localnet=1", "")?;
    for line in [
        "route del local 127.0.0.0/8 dev lo table local",
        "route del local 127.0.0.1 dev lo table local",
        "route add 127.0.0.1 via 10.1.2.1 dev eth0 src 10.1.2.2",
    ] {
        // The addresses' routes differ with lo being up or down.
        let _ = run(scene.pod(0), "ip", line, "");
    }
    let flow = Flow::new(scene.pod(0), "127.0.0.1:5000")?;
    let control = Flow::new(scene.pod(0), &format!("{gateway}:5000"))?;
    ensure!(control.answer()? == format!("node {}", address(&result, false)));
    let counted = "insert rule ip cni_hostport localnet_guard iifname \"cni0\" ip daddr 127.0.0.1 counter";
    scene.nft(counted)?;
    flow.send("?");
    ensure!(control.answer()?.starts_with("node"));
    let guard = run(scene.host(), "nft", "list chain ip cni_hostport localnet_guard", "")?;
    ensure!(guard.contains("counter packets 1 "), "the packet never came to the guard: {guard}");
    let flows = std::fs::read_to_string("/proc/self/net/nf_conntrack").unwrap_or_default();
    ensure!(!flows.contains("dst=127.0.0.1"), "{flows}");
    ensure!(guard.contains("iifname \"cni0\" ip daddr 127.0.0.0/8 drop"), "{guard}");
    Ok(())
}
