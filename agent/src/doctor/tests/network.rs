//! Links, sysctls and the rules of other programs.

use kernel::link::{self, Bridge, Change};
use kernel::nft::{Batch, Expr, Meta, Op, Point, Reg, Rule};

use super::*;

#[test]
fn forwarding_that_is_off_is_told_for_each_family() {
    let mut patient = Patient::new();
    patient.is_green("forwarding");
    patient.set("net/ipv4/ip_forward", "0");
    patient.is_red("forwarding", State::Failed, &["net.ipv4.ip_forward is 0"]);
    patient.set("net/ipv4/ip_forward", "1");
    patient.set("net/ipv6/conf/all/forwarding", "0");
    patient.is_red("forwarding", State::Failed, &["net.ipv6.conf.all.forwarding is 0"]);
}

#[test]
fn ipv6_that_is_disabled_is_told_where_pods_are_to_have_it() {
    let mut patient = Patient::new();
    patient.is_green("ipv6");
    patient.set("net/ipv6/conf/eth0/disable_ipv6", "1");
    patient.is_red("ipv6", State::Failed, &["net.ipv6.conf.eth0.disable_ipv6 is 1"]);
    // A kernel without IPv6 has no such sysctl.
    patient.proc(&[
        ("sys/net/ipv6/conf/eth0/disable_ipv6", "0\n"),
        ("sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
    ]);
    patient.is_red("ipv6", State::Failed, &["no sysctl net.ipv6.conf.default.disable_ipv6"]);
    patient.host.conflist.as_mut().unwrap().subnets.retain(IpNetwork::is_ipv4);
    patient.is_green("ipv6");
}

#[test]
fn pods_with_a_larger_mtu_than_the_way_out_are_told() {
    let mut patient = Patient::new();
    patient.is_green("mtu");
    patient.change("eth0", &Change { mtu: Some(1400), ..Change::default() });
    patient.is_red("mtu", State::Failed, &["pods have an MTU of 1500, eth0 has 1400"]);
    patient.change("eth0", &Change { mtu: Some(1550), ..Change::default() });
    patient.is_green("mtu");
    patient.tunnel(1450);
    patient.is_red("mtu", State::Failed, &["pods have an MTU of 1500, podnet-vxlan has 1450"]);
    patient.change(tunnel_name(Family::V4), &Change { mtu: Some(1501), ..Change::default() });
    patient.is_red(
        "mtu",
        State::Failed,
        &["podnet-vxlan has an MTU of 1501, with 50 bytes around that are more than the 1550 of eth0"],
    );
    patient.change(tunnel_name(Family::V4), &Change { mtu: Some(1500), ..Change::default() });
    patient.is_green("mtu");
}

#[test]
fn a_strict_reverse_path_filter_is_told_where_there_is_more_than_one_way() {
    let mut patient = Patient::new();
    for (place, value) in [("all", "0"), ("default", "0"), ("eth0", "1")] {
        patient.set(&format!("net/ipv4/conf/{place}/rp_filter"), value);
    }
    // With one link there is no other way.
    patient.is_green("rp-filter");
    patient.tunnel(1450);
    patient.is_red("rp-filter", State::Warning, &["net.ipv4.conf.eth0.rp_filter is 1"]);
    patient.set("net/ipv4/conf/eth0/rp_filter", "2");
    patient.is_green("rp-filter");
    // As kind's nodes have it.
    patient.set("net/ipv4/conf/all/rp_filter", "1");
    patient.is_red("rp-filter", State::Warning, &["podnet-vxlan", "net.ipv4.conf.all.rp_filter is 1"]);
    patient.set("net/ipv4/conf/podnet-vxlan/rp_filter", "2");
    patient.is_green("rp-filter");
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_named_by_table_and_chain() {
    let mut patient = Patient::new();
    let pods = "10.244.0.0/16".parse().unwrap();
    patient.is_green("forward-chain");
    patient.firewall(Point::Forward, false, &[]);
    patient.is_red(
        "forward-chain",
        State::Failed,
        &["IPv4", "table ip filter, chain FORWARD: policy drop", "10.244.1.0/24"],
    );
    patient.no_firewall();
    // What lets pods through makes the policy harmless; what lets something else through does not.
    patient.firewall(Point::Forward, false, &[Rule::new().saddr(Op::Eq, pods).counter().accept()]);
    patient.is_green("forward-chain");
    patient.no_firewall();
    let other = "10.99.0.0/16".parse().unwrap();
    patient.firewall(Point::Forward, false, &[Rule::new().saddr(Op::Eq, other).accept()]);
    patient.is_red("forward-chain", State::Failed, &["policy drop"]);
    patient.no_firewall();
    // As firewalld ends its chain: answers pass, the rest is refused.
    let answers = Rule::new().ct_state(kernel::nft::ct_state::ESTABLISHED).accept();
    patient.firewall(Point::Forward, true, &[answers, Rule::new().counter().reject()]);
    patient.is_red("forward-chain", State::Failed, &["table ip filter, chain FORWARD: rule", "drops them"]);
    patient.no_firewall();
    // A rule about something else drops nothing of pods.
    patient.firewall(Point::Forward, true, &[Rule::new().iifname(Op::Eq, "eth7").drop()]);
    patient.is_green("forward-chain");
    patient.no_firewall();
    // Only at another hook.
    patient.firewall(Point::Output, false, &[]);
    patient.is_green("forward-chain");
}

#[test]
fn a_firewall_is_followed_into_the_chains_that_it_jumps_to() {
    let mut patient = Patient::new();
    patient.firewall(Point::Forward, true, &[]);
    let mut batch = Batch::new();
    batch.add_chain(FIREWALL, "ZONES", None).append(FIREWALL, "ZONES", &Rule::new().drop());
    batch.append(FIREWALL, "FORWARD", &Rule::new().jump("ZONES"));
    patient.host.nfnl.commit(batch).unwrap();
    patient.is_red("forward-chain", State::Failed, &["table ip filter, chain ZONES: rule"]);
    let mut batch = Batch::new();
    batch.insert(FIREWALL, "ZONES", &Rule::new().return_());
    patient.host.nfnl.commit(batch).unwrap();
    patient.is_green("forward-chain");
}

#[test]
fn rules_that_only_iptables_legacy_can_read_are_told() {
    let mut patient = Patient::new();
    patient.proc(&[("thread-self/net/ip_tables_names", "nat\n")]);
    patient.is_green("forward-chain");
    patient.proc(&[("thread-self/net/ip_tables_names", "nat\nfilter\n")]);
    patient.is_red("forward-chain", State::Warning, &["iptables-legacy -S FORWARD"]);
}

#[test]
fn a_firewall_that_drops_tunnels_is_told_where_there_is_a_tunnel() {
    let mut patient = Patient::new();
    patient.firewall(Point::Input, false, &[]);
    patient.is_green("vxlan-port");
    patient.tunnel(1450);
    patient.is_red(
        "vxlan-port",
        State::Failed,
        &["table ip filter, chain FORWARD: policy drop", "UDP to port 4789"],
    );
    patient.no_firewall();
    patient.firewall(Point::Input, false, &[Rule::new().l4proto(17).dport(Op::Eq, 8472).accept()]);
    patient.is_red("vxlan-port", State::Failed, &["policy drop"]);
    patient.no_firewall();
    patient.firewall(Point::Input, false, &[Rule::new().l4proto(17).dport(Op::Eq, 4789).accept()]);
    patient.is_green("vxlan-port");
}

#[test]
fn bridges_that_call_a_firewall_which_drops_are_told() {
    let mut patient = Patient::new();
    patient.firewall(Point::Forward, false, &[]);
    patient.proc(&[("sys/net/bridge/bridge-nf-call-iptables", "0\n")]);
    patient.is_green("bridge-nf");
    patient.proc(&[("sys/net/bridge/bridge-nf-call-iptables", "1\n")]);
    patient.is_red("bridge-nf", State::Failed, &["net.bridge.bridge-nf-call-iptables is 1", "policy drop"]);
    patient.no_firewall();
    patient.is_green("bridge-nf");
}

#[test]
fn containers_that_may_not_talk_to_each_other_are_told_with_their_bridge() {
    let mut patient = Patient::new();
    let (bridge, other) = ("br-kind", "br-other");
    let drop = |from: &str, to: &str| Rule::new().iifname(Op::Eq, from).oifname(Op::Eq, to).counter().drop();
    patient.firewall(Point::Forward, true, &[drop(bridge, other)]);
    patient.is_green("icc");
    patient.no_firewall();
    let of_mark = Rule::new()
        .iifname(Op::Eq, bridge)
        .oifname(Op::Eq, bridge)
        .expr(Expr::Meta { key: Meta::Mark, dreg: Reg::R1 })
        .expr(Expr::Cmp { sreg: Reg::R1, op: Op::Eq, data: vec![1, 0, 0, 0] })
        .drop();
    patient.firewall(Point::Forward, true, &[of_mark]);
    patient.is_green("icc");
    patient.no_firewall();
    patient.firewall(Point::Forward, true, &[drop(bridge, bridge)]);
    patient.is_red("icc", State::Failed, &["br-kind", "enable_icc"]);
}

#[test]
fn a_bridge_with_a_larger_mtu_than_the_way_out_is_told() {
    let mut patient = Patient::new();
    link::add_bridge(&mut patient.host.rtnl, &Bridge { name: "br-kind", up: true, ..Bridge::default() })
        .unwrap();
    patient.is_green("bridge-mtu");
    patient.change("eth0", &Change { mtu: Some(1400), ..Change::default() });
    patient.is_red(
        "bridge-mtu",
        State::Warning,
        &["br-kind has an MTU of 1500, eth0 of 1400", "driver.mtu=1400"],
    );
}
