//! nf_tables: what is written is listed by `nft` in its own words, and read back.

use std::process::Command;

use kernel::nft::{
    self, Batch, ChainKind, Element, Family, Hook, Op, Point, Rule, Set, Table, Type, Value, Verdict,
    ct_state, priority,
};
use kernel::{Netns, Nfnl};

use crate::{in_netns, net};

/// Runs `f` in a new namespace with an nfnetlink socket.
pub(crate) fn with_nfnl<T: Send>(f: impl FnOnce(&mut Nfnl, &Netns) -> T + Send) -> T {
    in_netns(|_, ns| f(&mut Nfnl::open().expect("nfnetlink"), ns))
}

/// What `nft` prints in the calling thread's namespace.
pub(crate) fn nft(args: &[&str]) -> String {
    let out = Command::new("nft").args(args).output().expect("nft, of Debian's package nftables");
    assert!(out.status.success(), "nft {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

const INET: Table<'_> = Table::new(Family::Inet, "pods");

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

#[test]
fn nft_lists_what_was_written_in_its_own_words() {
    with_nfnl(|nfnl, _| {
        let mut batch = Batch::new();
        let mac = "02:00:00:00:00:09".parse().unwrap();
        batch
            .add_table(INET, Some("for pods"))
            .add_chain(INET, "masq", None)
            .add_chain(INET, "post", Some(&Hook::new(ChainKind::Nat, Point::Postrouting, priority::SRCNAT)))
            .add_chain(INET, "pre", Some(&Hook::new(ChainKind::Nat, Point::Prerouting, priority::DSTNAT)))
            .add_chain(
                INET,
                "fwd",
                Some(&Hook { accept: false, ..Hook::new(ChainKind::Filter, Point::Forward, -5) }),
            );
        let v4 = ip("10.0.0.2");
        let v6 = ip("fd00::2");
        let rules = [
            ("post", Rule::new().nfproto(v4).daddr(Op::Eq, net("224.0.0.0/4")).return_()),
            ("post", Rule::new().nfproto(v6).daddr(Op::Eq, net("ff00::/8")).return_()),
            ("post", Rule::new().goto("masq")),
            (
                "masq",
                Rule::new()
                    .nfproto(v4)
                    .saddr(Op::Eq, net("10.0.0.2/32"))
                    .daddr(Op::Neq, net("10.0.0.0/25"))
                    .masquerade()
                    .comment("a \"b\" c"),
            ),
            ("masq", Rule::new().nfproto(v6).saddr(Op::Eq, net("fd00::2/128")).masquerade()),
            (
                "pre",
                Rule::new().daddr_local(Op::Eq).l4proto(6).dport(Op::Eq, 8080).nfproto(v4).dnat(v4, Some(80)),
            ),
            ("pre", Rule::new().l4proto(17).dport(Op::Eq, 53).nfproto(v6).dnat(v6, Some(5353))),
            ("fwd", Rule::new().ct_state(ct_state::ESTABLISHED | ct_state::RELATED).accept()),
            ("fwd", Rule::new().iifname(Op::Eq, "cni0").oifname(Op::Neq, "cni0").counter().drop()),
            ("fwd", Rule::new().mark(Op::Eq, 0x2000, 0x2000).accept()),
            ("fwd", Rule::new().set_mark_bits(0x2000)),
        ];
        for (chain, rule) in &rules {
            batch.append(INET, chain, rule);
        }
        let frames = Table::new(Family::Bridge, "nat");
        let raw = Hook::new(ChainKind::Filter, Point::Prerouting, priority::BRIDGE_DSTNAT);
        batch.add_table(frames, None).add_chain(frames, "PREROUTING", Some(&raw)).append(
            frames,
            "PREROUTING",
            &Rule::new().ether_saddr(Op::Neq, mac).drop(),
        );
        batch.insert(INET, "masq", &Rule::new().counter().comment("first"));
        nfnl.commit(batch).unwrap();
        let expected = "\
table inet pods {
	comment \"for pods\"
	chain masq {
		counter packets 0 bytes 0 comment \"first\"
		ip saddr 10.0.0.2 ip daddr != 10.0.0.0/25 masquerade comment \"a \"b\" c\"
		ip6 saddr fd00::2 masquerade
	}

	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 224.0.0.0/4 return
		ip6 daddr ff00::/8 return
		goto masq
	}

	chain pre {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local tcp dport 8080 meta nfproto ipv4 dnat ip to 10.0.0.2:80
		udp dport 53 meta nfproto ipv6 dnat ip6 to [fd00::2]:5353
	}

	chain fwd {
		type filter hook forward priority filter - 5; policy drop;
		ct state established,related accept
		iifname \"cni0\" oifname != \"cni0\" counter packets 0 bytes 0 drop
		meta mark & 0x00002000 == 0x00002000 accept
		meta mark set meta mark | 0x00002000
	}
}
table bridge nat {
	chain PREROUTING {
		type filter hook prerouting priority dstnat; policy accept;
		ether saddr != 02:00:00:00:00:09 drop
	}
}
";
        assert_eq!(nft(&["list", "ruleset"]), expected);
    });
}

#[test]
fn nft_lists_sets_and_maps_with_their_elements() {
    with_nfnl(|nfnl, _| {
        let table = Table::new(Family::Ip, "maps");
        let key = [Type::InetProto, Type::InetService];
        let to = [Type::Ipv4Addr, Type::InetService];
        let mut batch = Batch::new();
        batch
            .add_table(table, None)
            .add_chain(table, "pod", None)
            .add_set(
                table,
                &Set { name: "plain", key: &[Type::Ipv4Addr], comment: Some("c"), ..Set::default() },
            )
            .add_set(table, &Set { name: "nets", key: &[Type::Ipv4Addr], interval: true, ..Set::default() })
            .add_set(
                table,
                &Set { name: "ports", key: &key, value: Some(Value::Data(&to)), ..Set::default() },
            )
            .add_set(
                table,
                &Set { name: "links", key: &[Type::IfName], value: Some(Value::Verdict), ..Set::default() },
            )
            .add_set(
                table,
                &Set {
                    name: "pairs",
                    key: &[Type::Ipv4Addr, Type::InetService],
                    interval: true,
                    ..Set::default()
                },
            )
            .add_elements(table, "plain", &[Element::key_of(&[&[10, 0, 0, 1]]).comment("one")])
            .add_elements(table, "nets", &Element::prefix(net("10.1.0.0/16")))
            .add_elements(
                table,
                "ports",
                &[Element::key_of(&[&[6], &[0, 80]]).to_value(&[&[10, 0, 0, 2], &[31, 144]]).comment("x")],
            )
            .add_elements(
                table,
                "links",
                &[Element::key_of(&[&nft::name_bytes("veth0")]).to_verdict(Verdict::Jump("pod".into()))],
            )
            .add_elements(
                table,
                "pairs",
                &[Element {
                    key_end: Some(vec![10, 0, 0, 255, 0, 90, 0, 0]),
                    ..Element::key_of(&[&[10, 0, 0, 0], &[0, 80]])
                }],
            );
        nfnl.commit(batch).unwrap();
        let expected = "\
table ip maps {
	set plain {
		type ipv4_addr
		comment \"c\"
		elements = { 10.0.0.1 comment \"one\" }
	}

	set nets {
		type ipv4_addr
		flags interval
		elements = { 10.1.0.0/16 }
	}

	map ports {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 80 comment \"x\" : 10.0.0.2 . 8080 }
	}

	map links {
		type ifname : verdict
		elements = { \"veth0\" : jump pod }
	}

	set pairs {
		type ipv4_addr . inet_service
		flags interval
		elements = { 10.0.0.0/24 . 80-90 }
	}

	chain pod {
	}
}
";
        assert_eq!(nft(&["list", "ruleset"]), expected);
    });
}

#[test]
fn missing_expression_is_named_and_nothing_of_its_batch_is_made() {
    with_nfnl(|nfnl, _| {
        let mut batch = Batch::new();
        let unknown = nft::Expr::Other { name: "podnetx".into(), data: Vec::new() };
        batch.add_table(INET, None).add_chain(INET, "c", None).append(
            INET,
            "c",
            &Rule::new().counter().expr(unknown).accept(),
        );
        let e = nfnl.commit(batch).unwrap_err();
        assert_eq!(e.lacks(), Some("nft_podnetx (CONFIG_NFT_PODNETX)"));
        assert_eq!(
            e.to_string(),
            "add rule to chain inet pods c: kernel lacks nft_podnetx (CONFIG_NFT_PODNETX)"
        );
        assert_eq!(nft(&["list", "ruleset"]), "");
        // A chain to jump to is no feature.
        let mut batch = Batch::new();
        batch.add_table(INET, None).add_chain(INET, "c", None).append(INET, "c", &Rule::new().jump("absent"));
        let e = nfnl.commit(batch).unwrap_err();
        assert!(e.is_not_found() && e.lacks().is_none(), "{e}");
    });
}
