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

/// The errno of what is still in use.
const EBUSY: i32 = 16;
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
        // No kernel masquerades frames of a bridge, which is the same to it as lacking the expression.
        let table = Table::new(Family::Bridge, "t");
        batch.add_table(table, None).add_chain(table, "c", None).append(
            table,
            "c",
            &Rule::new().counter().masquerade().accept(),
        );
        let e = nfnl.commit(batch).unwrap_err();
        assert_eq!(e.lacks(), Some("nft_masq (CONFIG_NFT_MASQ)"));
        assert_eq!(e.to_string(), "add rule to chain bridge t c: kernel lacks nft_masq (CONFIG_NFT_MASQ)");
        assert_eq!(nft(&["list", "ruleset"]), "");
        // A chain to jump to is no feature.
        let mut batch = Batch::new();
        batch.add_table(INET, None).add_chain(INET, "c", None).append(INET, "c", &Rule::new().jump("absent"));
        let e = nfnl.commit(batch).unwrap_err();
        assert!(e.is_not_found() && e.lacks().is_none(), "{e}");
    });
}

#[test]
fn batch_that_is_only_tried_out_changes_nothing_and_tells_what_is_wrong() {
    with_nfnl(|nfnl, _| {
        let batch = |to: &str| {
            let mut batch = Batch::new();
            batch.add_table(INET, None).add_chain(INET, "c", None).add_chain(INET, "d", None).append(
                INET,
                "c",
                &Rule::new().jump(to),
            );
            batch
        };
        assert!(nfnl.try_out(batch("absent")).unwrap_err().is_not_found());
        nfnl.try_out(batch("d")).unwrap();
        assert!(nft::tables(nfnl, None).unwrap().is_empty());
        nfnl.commit(batch("d")).unwrap();
        assert_eq!(nft::chains(nfnl, INET).unwrap().len(), 2);
    });
}

#[test]
fn change_that_another_overtook_is_prepared_again() {
    with_nfnl(|nfnl, _| {
        let mut other = Nfnl::open().unwrap();
        let mut rounds = 0;
        let seen = nfnl
            .transact(|nfnl, batch| {
                let seen = nft::tables(nfnl, None)?.len();
                if rounds < 3 {
                    let mut theirs = Batch::new();
                    theirs.add_table(Table::new(Family::Ip, &format!("t{rounds}")), None);
                    other.commit(theirs)?;
                }
                rounds += 1;
                batch.add_table(INET, None);
                Ok(seen)
            })
            .unwrap();
        assert_eq!((rounds, seen), (4, 3), "what counts is what was there last");
        assert_eq!(nft::tables(nfnl, None).unwrap().len(), 4);
        // Nothing to change: done, whatever others do.
        assert_eq!(nfnl.transact(|_, _| Ok(7)).unwrap(), 7);
    });
}

#[test]
fn rules_of_nft_are_read_back_and_written_again_the_same() {
    with_nfnl(|nfnl, _| {
        let rules = "
            ip saddr 10.0.0.2 ip daddr != 10.0.0.0/25 counter masquerade comment \"x\"
            iifname \"veth0\" oifname != \"eth0\" drop
            ct state established,related accept
            ct direction reply ct mark 0x17 return
            ct mark set 0x17
            meta mark & 0xff == 0x12 meta mark set mark | 0x2000
            tcp dport 8000-8100 limit rate 10/second accept
            fib daddr type local tcp dport 80 dnat ip to 10.0.0.2:8080
            ip6 daddr fd00::/64 udp sport 53 snat ip6 to fd00::9
            meta l4proto tcp redirect to :3128
            tcp dport @ports reject
            meta iifname vmap @links
            ip daddr . tcp dport @pairs return
        ";
        let script = format!(
            "table inet t {{
                set ports {{ type inet_service; flags interval; elements = {{ 1-5 }}; }}
                set pairs {{ type ipv4_addr . inet_service; elements = {{ 10.0.0.1 . 80 }}; }}
                map links {{ type ifname : verdict; elements = {{ \"a\" : drop, \"b\" : jump d }}; }}
                chain d {{ }}
                chain c {{ type nat hook prerouting priority dstnat; {rules} }}
            }}"
        );
        // Masquerade, snat and the like are good in one hook only, which a chain without a hook does not mind.
        nft(&[&script.replace("type nat hook prerouting priority dstnat;", "")]);
        let table = Table::new(Family::Inet, "t");
        let found = nft::rules(nfnl, table, "c").unwrap();
        assert_eq!(found.len(), rules.lines().filter(|line| !line.trim().is_empty()).count());
        assert_eq!(found[0].comment(), Some("x"));
        let unread: Vec<_> = found
            .iter()
            .flat_map(|rule| &rule.expressions)
            .filter(|e| matches!(e, nft::Expr::Other { .. }))
            .collect();
        assert!(unread.is_empty(), "{unread:?}");

        let before = nft(&["list", "chain", "inet", "t", "c"]);
        let mut batch = Batch::new();
        for rule in &found {
            let again = rule.expressions.iter().cloned().fold(Rule::new(), Rule::expr);
            batch.append(table, "c", &again.userdata(rule.userdata.clone()));
            batch.delete_rule(table, "c", rule.handle);
        }
        nfnl.commit(batch).unwrap();
        assert_eq!(nft(&["list", "chain", "inet", "t", "c"]), before);
        let handles = nft::handles(nfnl, table, "c").unwrap();
        assert!(handles.iter().all(|(handle, _)| found.iter().all(|old| old.handle != *handle)));
        assert_eq!(handles.len(), found.len());
    });
}

#[test]
fn sets_of_nft_and_ours_are_the_same_to_the_kernel() {
    with_nfnl(|nfnl, _| {
        let table = Table::new(Family::Inet, "t");
        nft(&["table inet t {
            set addresses { type ipv4_addr; flags interval; elements = { 10.1.0.0/16 }; }
            map ports { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 80 comment \"c\" : 10.0.0.1 . 8080 }; }
            map links { type ifname : verdict; elements = { \"a\" : drop }; }
            set marks { type mark; comment \"of packets\"; }
        }"]);
        let key = [Type::InetProto, Type::InetService];
        let to = [Type::Ipv4Addr, Type::InetService];
        let ours = [
            Set { name: "addresses", key: &[Type::Ipv4Addr], interval: true, ..Set::default() },
            Set { name: "ports", key: &key, value: Some(Value::Data(&to)), ..Set::default() },
            Set { name: "links", key: &[Type::IfName], value: Some(Value::Verdict), ..Set::default() },
            Set { name: "marks", key: &[Type::Mark], comment: Some("of packets"), ..Set::default() },
        ];
        let theirs = nft::sets(nfnl, table).unwrap();
        let elements = |nfnl: &mut Nfnl, table| {
            let all = ours.iter().map(|set| nft::elements(nfnl, table, set.name).unwrap());
            all.collect::<Vec<_>>()
        };
        let their_elements = elements(nfnl, table);
        let other = Table::new(Family::Inet, "o");
        let mut batch = Batch::new();
        batch.add_table(other, None);
        for (set, elements) in ours.iter().zip(&their_elements) {
            batch.add_set(other, set).add_elements(other, set.name, elements);
        }
        nfnl.commit(batch).unwrap();
        for (theirs, ours) in theirs.iter().zip(&nft::sets(nfnl, other).unwrap()) {
            assert_eq!((&theirs.name, theirs.flags), (&ours.name, ours.flags));
            assert_eq!((theirs.key_type, theirs.key_len), (ours.key_type, ours.key_len), "{}", ours.name);
            // Besides, nft writes what names the fields of a concatenation (`typeof`).
            for record in [0, 1, 7] {
                assert_eq!(theirs.userdata.get(record), ours.userdata.get(record), "{}", ours.name);
            }
        }
        assert_eq!(elements(nfnl, other), their_elements);
        // nft puts an end before the first range, too.
        assert_eq!(their_elements[0].len(), 3);
        let mapped = nft::Data::Value(vec![10, 0, 0, 1, 31, 144, 0, 0]);
        assert_eq!(their_elements[1][0].data, Some(mapped));
        assert_eq!(their_elements[1][0].userdata.text(), Some("c"));

        let mut batch = Batch::new();
        batch.delete_elements(other, "ports", &[Element::key_of(&[&[6], &[0, 80]])]);
        nfnl.commit(batch).unwrap();
        assert!(nft::elements(nfnl, other, "ports").unwrap().is_empty());
        assert!(nft::elements(nfnl, other, "absent").unwrap().is_empty());
        let mut batch = Batch::new();
        batch.delete_set(other, "links").delete_table(table);
        nfnl.commit(batch).unwrap();
        assert_eq!(nft::sets(nfnl, other).unwrap().len(), 3);
        assert_eq!(nft::table(nfnl, table).unwrap(), None);
    });
}

#[test]
fn thousands_of_elements_go_in_one_batch() {
    with_nfnl(|nfnl, _| {
        let table = Table::new(Family::Ip, "t");
        let elements: Vec<Element> = (0..20_000u32)
            .map(|i| Element::key_of(&[&i.to_be_bytes()]).comment("an element with a comment"))
            .collect();
        let mut batch = Batch::new();
        batch
            .add_table(table, None)
            .add_set(table, &Set { name: "s", key: &[Type::Ipv4Addr], ..Set::default() })
            .add_elements(table, "s", &elements);
        assert!(batch.len() > 20, "attributes end at 64 KiB");
        nfnl.commit(batch).unwrap();
        assert_eq!(nft::elements(nfnl, table, "s").unwrap().len(), 20_000);
        let mut batch = Batch::new();
        batch.create_elements(table, "s", &elements[..1]);
        assert!(nfnl.commit(batch).unwrap_err().is_exists());
    });
}

#[test]
fn rules_stand_where_they_were_put() {
    with_nfnl(|nfnl, _| {
        let mut batch = Batch::new();
        let named = |text: &str| Rule::new().counter().comment(text);
        batch.add_table(INET, None).add_chain_with_comment(INET, "c", None, "of ours");
        batch.append(INET, "c", &named("b")).append(INET, "c", &named("d")).insert(INET, "c", &named("a"));
        nfnl.commit(batch).unwrap();
        let order = |nfnl: &mut Nfnl| {
            let rules = nft::rules(nfnl, INET, "c").unwrap();
            rules.iter().map(|rule| rule.comment().unwrap().to_owned()).collect::<String>()
        };
        let b = nft::rules(nfnl, INET, "c").unwrap()[1].handle;
        let mut batch = Batch::new();
        batch.insert_after(INET, "c", b, &named("c")).insert_before(INET, "c", b, &named("0"));
        nfnl.commit(batch).unwrap();
        assert_eq!(order(nfnl), "a0bcd");
        let chains = nft::chains(nfnl, INET).unwrap();
        assert_eq!((chains[0].userdata.text(), chains[0].used), (Some("of ours"), 5));
        assert!(chains[0].hook.is_none() && chains[0].kind.is_none() && chains[0].accept.is_none());

        // A chain that is full is not deleted, and neither is what stands in the same batch.
        let mut batch = Batch::new();
        batch.delete_rule(INET, "c", b).delete_chain(INET, "c");
        let e = nfnl.commit(batch).unwrap_err();
        assert_eq!(e.errno(), Some(EBUSY), "{e}");
        assert_eq!(order(nfnl), "a0bcd");
        let mut batch = Batch::new();
        batch.flush_chain(INET, "c").delete_chain(INET, "c");
        nfnl.commit(batch).unwrap();
        assert!(nft::chains(nfnl, INET).unwrap().is_empty());
        let mut batch = Batch::new();
        batch.create_chain(INET, "c", None).create_chain(INET, "c", None);
        assert!(nfnl.commit(batch).unwrap_err().is_exists());
        let mut batch = Batch::new();
        batch.add_chain(INET, "c", None).delete_empty_table(INET);
        assert_eq!(nfnl.commit(batch).unwrap_err().errno(), Some(EBUSY));
        let mut batch = Batch::new();
        batch.delete_empty_table(INET);
        nfnl.commit(batch).unwrap();
        assert!(nft::tables(nfnl, None).unwrap().is_empty());
    });
}
