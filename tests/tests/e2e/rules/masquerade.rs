//! `ipMasq`: what packets show, and that no rule outlives its attachment.
//!
//! ```text
//!   pod0 10.1.2.2 ──┐
//!   pod1 10.1.2.3 ──┴ cni0 10.1.2.1 │ node │ uplink 198.51.100.1 ── 198.51.100.2 outside (pod2 of the world)
//! ```

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use podnet_tests::{Side, World};

use super::{BOTH, MASQ, PLAIN, address, bridge, gc, lines_with, ruleset, socket, source_seen, table};

/// Lists the masquerade table and nothing else.
const TABLE: [&str; 2] = ["inet", "cni_plugins_masquerade"];

/// A node with a link to the outside, which knows the way back to the pods.
fn node() -> Result<World> {
    let world = World::new(Side::Podnet, 3)?;
    world.host_ip(&["link add uplink type veth peer name out"])?;
    move_to(&world, "out", 2)?;
    world.host_ip(&[
        "addr add 198.51.100.1/24 dev uplink",
        "addr add 2001:db8:99::1/64 dev uplink nodad",
        "link set uplink up",
        "link set lo up",
    ])?;
    world.pod_ip(
        2,
        &[
            "addr add 198.51.100.2/24 dev out",
            "addr add 2001:db8:99::2/64 dev out nodad",
            "link set out up",
            "route add 10.1.0.0/16 via 198.51.100.1",
            "-6 route add 2001:db8:1::/64 via 2001:db8:99::1",
        ],
    )?;
    Ok(world)
}

/// Moves a link of the node into a pod.
fn move_to(world: &World, link: &str, pod: usize) -> Result<()> {
    use std::os::fd::AsFd;
    let mut rtnl = kernel::Rtnl::open_in(&world.host)?;
    let index = kernel::link::by_name(&mut rtnl, link)?.index;
    let change =
        kernel::link::Change { netns: Some(world.pods[pod].as_fd()), ..kernel::link::Change::default() };
    Ok(kernel::link::set(&mut rtnl, index, &change)?)
}

/// The source of pod 0 that is seen outside, by pod 1, and by the node, in one family.
fn sources(text: &str, v6: bool) -> Result<[String; 4]> {
    let world = node()?;
    let mut own = Vec::new();
    for pod in 0..2 {
        own.push(address(&bridge(&world, "ADD", text).pod(pod).run()?.result()?, v6)?);
    }
    let any = if v6 { "[::]:7000" } else { "0.0.0.0:7000" };
    let (outside, gateway) =
        if v6 { ("2001:db8:99::2", "2001:db8:1::1") } else { ("198.51.100.2", "10.1.2.1") };
    let from = socket(&world.pods[0], &any.replace("7000", "0"))?;
    let mut seen = vec![own[0].clone()];
    for (netns, ip) in [(&world.pods[2], outside), (&world.pods[1], own[1].as_str()), (&world.host, gateway)]
    {
        let to = socket(netns, any)?;
        seen.push(source_seen(&from, &to, SocketAddr::new(ip.parse()?, 7000))?);
    }
    seen.try_into().map_err(|_| anyhow::anyhow!("four sources"))
}

#[test]
fn source_is_rewritten_outside_and_not_inside_the_subnet() -> Result<()> {
    for (v6, node) in [(false, "198.51.100.1"), (true, "2001:db8:99::1")] {
        let [own, outside, other_pod, gateway] = sources(MASQ, v6)?;
        assert_eq!(outside, node);
        assert_eq!((&other_pod, &gateway), (&own, &own), "inside the subnet nothing is rewritten");
    }
    Ok(())
}

/// The negative control: what the test above looks at changes with the key.
#[test]
fn source_is_not_rewritten_without_the_key() -> Result<()> {
    for v6 in [false, true] {
        let [own, outside, ..] = sources(PLAIN, v6)?;
        assert_eq!(outside, own);
    }
    Ok(())
}

#[test]
fn rules_have_the_references_layout() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    for backend in ["", r#""ipMasqBackend":"iptables","#, r#""ipMasqBackend":"nftables","#] {
        let text = MASQ.replace(r#""ipMasq":true,"#, &format!(r#""ipMasq":true,{backend}"#));
        bridge(&world, "ADD", &text).run()?.result()?;
        let shown = table(&world, &TABLE)?;
        // The hashes of network and of interface and container; how they are made is tested beside the code.
        let marks = shown.lines().find_map(|line| line.split_once("comment \"")?.1.split_once(", net:"));
        let mark = marks.context("no mark")?.0;
        let comment = format!("{mark}, net: testnet, if: eth0, id: c0");
        let v4: u8 = shown
            .split("ip saddr 10.1.2.")
            .nth(1)
            .context("no rule")?
            .split(' ')
            .next()
            .context("?")?
            .parse()?;
        let v6 = shown
            .split("ip6 saddr 2001:db8:1::")
            .nth(1)
            .context("no rule")?
            .split(' ')
            .next()
            .context("?")?;
        let expected = format!(
            "table inet cni_plugins_masquerade {{
	comment \"Masquerading for plugins from github.com/containernetworking/plugins\"
	chain masq_checks {{
		ip saddr 10.1.2.{v4} ip daddr != 10.1.2.0/24 masquerade comment \"{comment}\"
		ip6 saddr 2001:db8:1::{v6} ip6 daddr != 2001:db8:1::/64 masquerade comment \"{comment}\"
	}}

	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 224.0.0.0/4 return
		ip6 daddr ff00::/8 return
		goto masq_checks
	}}
}}
"
        );
        assert_eq!(shown, expected);
        bridge(&world, "DEL", &text).run()?.silent()?;
        assert_eq!(ruleset(&world)?, "");
    }
    Ok(())
}

/// The pod is gone, the interface is gone, the runtime does not know the namespace: no rule stays.
#[test]
fn del_leaves_no_rule_whatever_is_missing() -> Result<()> {
    type Lose = fn(&World) -> Result<&'static str>;
    let cases: [(&str, Lose); 4] = [
        ("empty CNI_NETNS", |_| Ok("")),
        ("vanished namespace", |_| Ok("/run/netns/gone")),
        ("no interface", |world| world.pod_ip(0, &["link del eth0"]).map(|()| "@POD@")),
        ("a bind mount's leftover", |world| {
            std::fs::write(world.dir().join("leftover"), "")?;
            Ok("@DIR@/leftover")
        }),
    ];
    for (name, lose) in cases {
        for with_previous in [true, false] {
            let world = World::new(Side::Podnet, 1)?;
            let text = BOTH.replace("testnet", "n");
            let result = bridge(&world, "ADD", &text).run()?.result()?;
            ensure!(lines_with(&world, "masquerade")? > 0 && lines_with(&world, "macspoofchk")? > 0);
            let netns = world.fill(lose(&world)?);
            let del = bridge(&world, "DEL", &text).env("CNI_NETNS", netns);
            let del = if with_previous { del.prev(&result) } else { del };
            for _ in 0..2 {
                del.run()?.silent()?;
                assert_eq!(ruleset(&world)?, "", "{name}, prevResult {with_previous}");
            }
        }
    }
    Ok(())
}

/// A configuration that no longer asks for masquerade, or not for anything that ADD would take.
#[test]
fn del_removes_rules_that_the_configuration_forgot() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    for text in [PLAIN.to_owned(), BOTH.replace("true", "5"), "{}".to_owned()] {
        bridge(&world, "ADD", BOTH).run()?.result()?;
        // host-local would keep the address reserved where the configuration does not name it.
        bridge(&world, "DEL", &text).run()?;
        assert_eq!(ruleset(&world)?, "", "{text}");
        bridge(&world, "DEL", BOTH).run()?.silent()?;
    }
    Ok(())
}

#[test]
fn attachments_of_one_container_to_one_network_do_not_collide() -> Result<()> {
    let world = node()?;
    let add = |ifname: &str| bridge(&world, "ADD", BOTH).env("CNI_IFNAME", ifname).run()?.result();
    let (first, second) = (add("eth0")?, add("net1")?);
    assert_eq!((lines_with(&world, "masquerade comment")?, lines_with(&world, "ether saddr")?), (2, 2));
    bridge(&world, "DEL", BOTH).env("CNI_IFNAME", "eth0").prev(&first).run()?.silent()?;
    let rules = ruleset(&world)?;
    ensure!(rules.contains(&format!("ip saddr {} ", address(&second, false)?)), "{rules}");
    ensure!(!rules.contains(&format!("ip saddr {} ", address(&first, false)?)), "{rules}");
    bridge(&world, "CHECK", BOTH).env("CNI_IFNAME", "net1").prev(&second).run()?.silent()?;
    bridge(&world, "DEL", BOTH).env("CNI_IFNAME", "net1").env("CNI_NETNS", "").run()?.silent()?;
    assert_eq!(ruleset(&world)?, "");
    Ok(())
}

/// An ADD whose DEL never came, and the address went to another pod meanwhile. Masquerade is put beside what is left, for
/// which ADD does not look; DEL finds both.
#[test]
fn what_the_same_attachment_left_is_no_hindrance_and_goes_with_it() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    bridge(&world, "ADD", BOTH).run()?.result()?;
    world.pod_ip(0, &["link del eth0"])?;
    std::fs::remove_dir_all(world.data())?;
    let text = BOTH.replace("10.1.0.0/16", "10.1.0.0/16\",\"rangeStart\":\"10.1.9.9");
    bridge(&world, "ADD", &text).run()?.result()?;
    let rules = ruleset(&world)?;
    assert_eq!(rules.matches("masquerade comment").count(), 2, "{rules}");
    ensure!(rules.contains("ip saddr 10.1.9.9 "), "{rules}");
    assert_eq!(rules.matches("iifname").count(), 1, "{rules}");
    bridge(&world, "DEL", BOTH).run()?.silent()?;
    assert_eq!(ruleset(&world)?, "");
    Ok(())
}

#[test]
fn failed_add_leaves_no_rule() -> Result<()> {
    use podnet_tests::process::Stdout;
    let world = World::new(Side::Podnet, 2)?;
    bridge(&world, "ADD", BOTH).pod(1).run()?.result()?;
    let before = ruleset(&world)?;
    let failed = bridge(&world, "ADD", BOTH).stdout(Stdout::Closed).run()?;
    ensure!(failed.exit == Some(1), "{failed:?}");
    assert_eq!(ruleset(&world)?, before);
    Ok(())
}

/// By `strace`, which makes the n-th request to the kernel fail.
#[test]
fn rules_are_undone_whichever_request_fails() -> Result<()> {
    let world = World::new(Side::Podnet, 2)?;
    bridge(&world, "ADD", BOTH).pod(1).run()?.result()?;
    let before = ruleset(&world)?;
    let mut failed = 0;
    for n in 1.. {
        let log = world.dir().join("strace").to_string_lossy().into_owned();
        let fault = format!("inject=sendto,sendmsg:error=EPERM:when={n}");
        let strace = ["strace", "-f", "-o", &log, "-e", "trace=sendto,sendmsg", "-e", &fault];
        let outcome = bridge(&world, "ADD", BOTH).through(&strace).run()?;
        ensure!(!outcome.panicked(), "{outcome:?}");
        if outcome.exit == Some(0) {
            bridge(&world, "DEL", BOTH).run()?.silent()?;
        } else {
            failed += 1;
        }
        assert_eq!(ruleset(&world)?, before, "the {n}th request fails: {outcome:?}");
        if !std::fs::read_to_string(&log).context("strace's log")?.contains("(INJECTED)") {
            break;
        }
    }
    ensure!(failed >= 14, "only {failed} requests of ADD could be made to fail");
    Ok(())
}

/// How often the ADDs of two pods, one after the other, send each of these messages of nf_tables.
fn asked_by_two_pods<const N: usize>(text: &str, messages: [&str; N]) -> Result<Vec<[usize; N]>> {
    let world = World::new(Side::Podnet, 2)?;
    let mut asked = Vec::new();
    for pod in 0..2 {
        let log = world.dir().join("strace").to_string_lossy().into_owned();
        let strace = ["strace", "-v", "-o", &log, "-e", "trace=sendto"];
        bridge(&world, "ADD", text).pod(pod).through(&strace).run()?.result()?;
        let log = std::fs::read_to_string(&log).context("strace's log")?;
        asked.push(messages.map(|message| log.matches(&format!("NFT_MSG_{message},")).count()));
    }
    Ok(asked)
}

/// What is there already is not added again: the kernel takes that for a change, and lets the process wait for 10 ms
/// and more at its end.
#[test]
fn second_pods_add_asks_for_rules_only() -> Result<()> {
    let asked = asked_by_two_pods(BOTH, ["NEWTABLE", "NEWCHAIN", "NEWRULE", "DELRULE"])?;
    // Two tables, two base chains and one for all; for each pod two chains and five rules.
    assert_eq!(asked, [[2, 5, 3 + 5, 0], [0, 2, 5, 0]]);
    Ok(())
}

/// The rules of the pods that are there are not read: their number costs nothing.
#[test]
fn second_pods_add_reads_the_base_chain_only() -> Result<()> {
    let asked = asked_by_two_pods(MASQ, ["GETGEN", "GETRULE", "NEWRULE"])?;
    // The first looks, takes its turn and looks again; each pod has a rule for each family.
    assert_eq!(asked, [[1, 2, 3 + 2], [0, 1, 2]]);
    Ok(())
}

#[test]
fn hundred_pods_at_a_time_leave_the_ruleset_as_it_was() -> Result<()> {
    const PODS: usize = 100;
    let world = World::new(Side::Podnet, PODS)?;
    let all = |verb: &str| -> Result<()> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let worker = || -> Result<()> {
            loop {
                let pod = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if pod >= PODS {
                    return Ok(());
                }
                let outcome = bridge(&world, verb, BOTH).pod(pod).run()?;
                ensure!(outcome.exit == Some(0), "pod {pod}: {outcome:?}");
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|w| w.join().expect("a worker"))
        })
    };
    let before = ruleset(&world)?;
    all("ADD")?;
    assert_eq!(lines_with(&world, "masquerade comment")?, PODS);
    assert_eq!(lines_with(&world, "iifname")?, PODS);
    assert_eq!(lines_with(&world, "goto masq_checks")?, 1);
    all("DEL")?;
    assert_eq!(ruleset(&world)?, before);
    Ok(())
}

#[test]
fn gc_removes_stale_rules_only() -> Result<()> {
    let world = World::new(Side::Podnet, 3)?;
    for pod in 0..3 {
        bridge(&world, "ADD", BOTH).pod(pod).run()?.result()?;
    }
    let other =
        world.config("bridge", "1.1.0", BOTH).replace("testnet", "othernet").replace("10.1.", "10.7.");
    let other = other.replace("\"isGateway\":true", "\"bridge\":\"cni7\"");
    world.call("bridge", "ADD").stdin(other).pod(1).env("CNI_IFNAME", "net7").run()?.result()?;
    let full = ruleset(&world)?;
    let call =
        bridge(&world, "GC", BOTH).env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "");
    call.run()?.silent()?;
    assert_eq!(ruleset(&world)?, full, "without the list nothing goes");

    gc(&world, BOTH, r#"[{"containerID":"c0","ifname":"eth0"},{"containerID":"c2","ifname":"net1"}]"#)?;
    let rules = ruleset(&world)?;
    for (id, stays) in [
        ("id: c0\"", true),
        ("id: c1\"", true),
        ("id: c2\"", false),
        ("macspoofchk-c0-eth0", true),
        ("macspoofchk-c1-eth0", false),
        ("macspoofchk-c1-net7", true),
        ("macspoofchk-c2-eth0", false),
        ("cni-br-iface-c2-eth0", false),
    ] {
        assert_eq!(rules.contains(id), stays, "{id}\n{rules}");
    }
    assert_eq!(rules.matches("masquerade comment").count(), 2);
    gc(&world, BOTH, "[]")?;
    assert_eq!(lines_with(&world, "testnet")?, 0);
    let other = BOTH.replace("{\"isGateway\":true", "{\"bridge\":\"cni7\"");
    let call =
        bridge(&world, "GC", &other).env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "");
    let call = call.stdin(world.config("bridge", "1.1.0", &other).replace("testnet", "othernet"));
    call.with("cni.dev/valid-attachments", "[]").run()?.silent()?;
    assert_eq!(ruleset(&world)?, "");
    Ok(())
}

#[test]
fn check_tells_what_is_missing() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let cases = [
        ("flush chain inet cni_plugins_masquerade masq_checks", "masquerade rule for 10.1.0.2 is missing"),
        ("flush chain inet cni_plugins_masquerade postrouting", "masquerade rule for 10.1.0.2 is missing"),
        ("flush ruleset", "is missing"),
        ("flush chain bridge nat cni-br-iface-c0-eth0-mac", "MAC spoof check of port"),
        ("flush chain bridge nat PREROUTING", "MAC spoof check of port"),
    ];
    for (command, sentence) in cases {
        let result = bridge(&world, "ADD", BOTH).run()?.result()?;
        let check = bridge(&world, "CHECK", BOTH).prev(&result);
        check.run()?.silent()?;
        super::print_of(&world.host, "nft", &[command], "")?;
        let error = check.run()?.error()?;
        ensure!(error.code == 999 && error.msg.contains(sentence), "{command}: {error:?}");
        bridge(&world, "DEL", BOTH).run()?.silent()?;
        super::print_of(&world.host, "nft", &["flush ruleset"], "")?;
        std::fs::remove_dir_all(world.data())?;
    }
    Ok(())
}

#[test]
fn status_asks_the_kernel_and_changes_nothing() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    bridge(&world, "STATUS", BOTH).run()?.silent()?;
    assert_eq!(ruleset(&world)?, "");
    // A base chain of that name elsewhere: ADD could not be served.
    let script = "table inet cni_plugins_masquerade {
        chain postrouting { type filter hook input priority 0; policy accept; }
    }";
    super::print_of(&world.host, "nft", &[script], "")?;
    let error = bridge(&world, "STATUS", BOTH).run()?.error()?;
    ensure!(error.code == 50 && error.msg.contains("cni_plugins_masquerade postrouting"), "{error:?}");
    Ok(())
}
