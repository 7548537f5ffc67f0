//! Rules of other programs stay as they are, byte for byte, handles included.

use anyhow::{Result, ensure};
use podnet_tests::{Side, World};

use super::{BOTH, MASQ, bridge, gc, print_of, ruleset};

/// As Docker and kube-proxy (mode iptables) write them.
const IPTABLES: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:CNI-0123456789abcdef01234567 - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.9.9.9/32 -m comment --comment \"name: \\\"other\\\" id: \\\"c0\\\"\" -j CNI-0123456789abcdef01234567
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA ! -s 10.1.0.0/16 -j KUBE-MARK-MASQ
-A DOCKER -i docker0 -j RETURN
-A CNI-0123456789abcdef01234567 -d 10.9.9.0/24 -m comment --comment \"name: \\\"other\\\" id: \\\"c0\\\"\" -j ACCEPT
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
COMMIT
";

/// As kube-proxy in mode nftables, and a firewall of the machine's owner.
const NFTABLES: &str = "
table ip kube-proxy {
    comment \"rules for kube-proxy\"
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; comment \"ClusterIP\"; }
    chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
    chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }
    chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
    chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
}
table inet filter {
    chain input { type filter hook input priority filter; policy accept; tcp dport 22 accept; }
}
";

fn with_others() -> Result<World> {
    let world = World::new(Side::Podnet, 2)?;
    print_of(&world.host, "iptables-nft-restore", &[], IPTABLES)?;
    print_of(
        &world.host,
        "ip6tables-nft-restore",
        &[],
        &IPTABLES
            .replace("10.1.0.0/16", "fd00::/8")
            .replace("10.96.0.1/32", "fd96::1/128")
            .replace("172.17.0.0/16", "fd17::/64")
            .replace("10.9.9.9/32", "fd09::9/128")
            .replace("10.9.9.0/24", "fd09::/64"),
    )?;
    print_of(&world.host, "nft", &["-f", "-"], NFTABLES)?;
    Ok(world)
}

fn saved(world: &World) -> Result<String> {
    let dump = |program: &str| -> Result<String> {
        let all = print_of(&world.host, program, &[], "")?;
        let lines = all.lines().filter(|line| !line.starts_with('#'));
        // The policies' counters go on counting.
        Ok(lines.map(|line| format!("{}\n", line.split(" [").next().unwrap_or_default())).collect())
    };
    Ok(dump("iptables-nft-save")? + &dump("ip6tables-nft-save")? + &ruleset(world)?)
}

#[test]
fn rules_of_docker_and_kube_proxy_stay_byte_for_byte() -> Result<()> {
    let world = with_others()?;
    let before = saved(&world)?;
    let (nat, kube) = (before.contains("DOCKER"), before.contains("table ip kube-proxy"));
    ensure!(nat && kube, "{before}");
    for text in [MASQ, BOTH] {
        let mut results = Vec::new();
        for pod in 0..2 {
            results.push(bridge(&world, "ADD", text).pod(pod).run()?.result()?);
        }
        // The others' part is the same while ours is there, too.
        let during = saved(&world)?;
        for line in before.lines() {
            ensure!(during.contains(line), "missing during: {line}");
        }
        bridge(&world, "CHECK", text).prev(&results[0]).run()?.silent()?;
        bridge(&world, "DEL", text).prev(&results[0]).run()?.silent()?;
        gc(&world, text, "[]")?;
        assert_eq!(saved(&world)?, before);
        std::fs::remove_dir_all(world.data())?;
        world.host_ip(&["link del cni0"])?;
    }
    Ok(())
}

/// A table of that name in which somebody keeps other things.
#[test]
fn masquerade_table_with_foreign_content_stays() -> Result<()> {
    for script in [
        "table inet cni_plugins_masquerade { chain mine { counter accept\n }\n }",
        "table inet cni_plugins_masquerade { comment \"mine\"\n }",
        "table inet cni_plugins_masquerade {
            set mine { type ipv4_addr; }
            chain masq_checks { }
            chain postrouting {
                type nat hook postrouting priority srcnat
                ip daddr 10.0.0.1 accept
            }
        }",
    ] {
        let world = World::new(Side::Podnet, 2)?;
        print_of(&world.host, "nft", &[script], "")?;
        for pod in 0..2 {
            bridge(&world, "ADD", MASQ).pod(pod).run()?.result()?;
        }
        let during = ruleset(&world)?;
        assert_eq!(during.matches("masquerade comment").count(), 4, "{during}");
        assert_eq!(during.matches("goto masq_checks").count(), 1, "{during}");
        for pod in 0..2 {
            bridge(&world, "DEL", MASQ).pod(pod).run()?.silent()?;
        }
        let left = ruleset(&world)?;
        ensure!(left.contains("mine") && !left.contains("testnet"), "{script}: {left}");
        if script.contains("chain mine") || script.contains("comment") {
            ensure!(!left.contains("masq_checks"), "{left}");
        } else {
            ensure!(left.contains("10.0.0.1 accept"), "{left}");
        }
    }
    Ok(())
}
