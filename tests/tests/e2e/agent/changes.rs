//! The cluster changes: nodes come, go, and have other addresses; others have routes of their own; the agent is
//! uninstalled.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use agent::masquerade::{self, Masquerade};
use agent::model::Node as Model;
use agent::routing::{self, How};
use anyhow::{Context, Result, ensure};
use kernel::{IpNetwork, Nfnl, Rtnl};
use podnet_tests::nodes::{Echo, Node, Nodes, seen_as};

use super::{
    as_in_kind, configure, differences, model, models, nodes, picture, route, run, settle, settle_all,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A pod on a node is reached from another node and sees that one's address.
fn reached(from: &Node, pods: &[IpAddr], seen: [IpAddr; 2]) -> Result<()> {
    for (pod, seen) in pods.iter().zip(seen) {
        let found =
            seen_as(&from.netns, *pod, PATIENCE).with_context(|| format!("{} to {pod}", from.name))?;
        ensure!(found == seen, "{} is seen as {found} at {pod}", from.name);
    }
    Ok(())
}

#[test]
fn nodes_that_join_are_reached_and_nothing_is_left_of_those_that_leave() -> Result<()> {
    let mut nodes = nodes(&[0])?;
    let alone = models(&nodes);
    settle(&nodes.nodes[0], &alone)?;
    let before = picture(&nodes.nodes[0])?;
    for rack in [0, 1] {
        nodes.join(rack)?;
        as_in_kind(&nodes.nodes[rack + 1])?;
    }
    let plans = settle_all(&nodes)?;
    let n0 = &nodes.nodes[0];
    for (node, plan) in nodes.nodes.iter().zip(&plans).skip(1) {
        configure(node, plan)?;
        let pod = node.add_pod("default", "p")?;
        let _answers = Echo::start(&pod.netns)?;
        reached(n0, &pod.ips, n0.addresses())?;
    }
    let hows: Vec<String> = plans[0].peers.iter().map(|it| it.how.to_string()).collect();
    ensure!(
        hows == [
            "same link eth0",
            "same link eth0",
            "behind router 172.18.0.1 on eth0, by VXLAN",
            "behind router fc00:18::1 on eth0, by VXLAN",
        ],
        "{hows:?}"
    );
    let (again, applied) = route(n0, &model(n0), &models(&nodes))?;
    ensure!(applied.is_quiet() && again == plans[0], "a second look changes nothing: {applied:?}");
    settle(n0, &alone)?;
    let left = differences(&before, &picture(n0)?);
    ensure!(left.is_empty(), "{}", left.join("\n"));
    Ok(())
}

#[test]
fn a_node_that_comes_back_at_another_address_is_reached_there() -> Result<()> {
    for rack in [0, 1] {
        let nodes = nodes(&[0, rack])?;
        let plans = settle_all(&nodes)?;
        let [n0, n1] = &nodes.nodes[..] else { anyhow::bail!("two nodes") };
        configure(n1, &plans[1])?;
        let pod = n1.add_pod("default", "p")?;
        let _answers = Echo::start(&pod.netns)?;
        reached(n0, &pod.ips, n0.addresses())?;
        // As a container that is started again gets what address is free.
        let [old4, old6] = n1.addresses();
        let new: [IpAddr; 2] = [old4, old6].map(|it| match it {
            IpAddr::V4(v4) => IpAddr::from([v4.octets()[0], v4.octets()[1], 0, 99]),
            IpAddr::V6(v6) => IpAddr::from([v6.segments()[0], v6.segments()[1], 0, 0, 0, 0, 0, 0x99]),
        });
        n1.ip(&[
            &format!("addr del {old4}/24 dev eth0"),
            &format!("addr del {old6}/64 dev eth0"),
            &format!("addr add {}/24 dev eth0", new[0]),
            &format!("addr add {}/64 dev eth0 nodad", new[1]),
        ])?;
        let gateway = [false, true].map(|ipv6| Nodes::outside_address(rack, ipv6));
        n1.ip(&[
            &format!("route replace default via {}", gateway[0]),
            &format!("-6 route replace default via {}", gateway[1]),
        ])?;
        let mut all = models(&nodes);
        all[1].addresses = new.to_vec();
        for (node, own) in nodes.nodes.iter().zip(&all) {
            let (_, applied) = route(node, own, &all)?;
            ensure!(applied.trouble.is_empty(), "{applied:?}");
        }
        reached(n0, &pod.ips, n0.addresses())?;
        let text = format!("{:?}", picture(n0)?);
        ensure!(!text.contains(&format!("{old4} ")) && !text.contains(&format!("{old6} ")), "{text}");
    }
    Ok(())
}

#[test]
fn two_nodes_that_claim_one_range_are_refused_and_nothing_half_done_for_the_others() -> Result<()> {
    let nodes = nodes(&[0, 0, 1, 0])?;
    let mut all = models(&nodes);
    all[1].pod_cidrs = all[2].pod_cidrs.clone();
    let n0 = &nodes.nodes[0];
    let (plan, applied) = route(n0, &all[0], &all)?;
    let refused: Vec<&str> =
        plan.peers.iter().filter(|it| matches!(it.how, How::Refused(_))).map(|it| it.node.as_str()).collect();
    ensure!(refused == ["n1", "n1", "n2", "n2"] && applied.trouble.is_empty(), "{plan}");
    let text = format!("{:?}", picture(n0)?);
    ensure!(!text.contains("10.244.2.0") && !text.contains("fd00:10:244:2:"), "{text}");
    ensure!(text.contains("10.244.3.0/24 via 172.18.0.13"), "{text}");
    Ok(())
}

#[test]
fn routes_of_other_programs_stay_and_are_told() -> Result<()> {
    let nodes = nodes(&[0, 0])?;
    let [n0, n1] = &nodes.nodes[..] else { anyhow::bail!("two nodes") };
    // As another network plugin has left them, to where the node was once.
    n0.ip(&["route add 10.244.1.0/24 via 172.18.0.77", "-6 route add fd00:10:244:1::/64 via fc00:18::77"])?;
    let all = models(&nodes);
    let (plan, applied) = route(n0, &all[0], &all)?;
    ensure!(applied.foreign.len() == 2 && applied.trouble.is_empty(), "{applied:?}");
    settle(n1, &all)?;
    configure(n1, &plan)?;
    let pod = n1.add_pod("default", "p")?;
    let _answers = Echo::start(&pod.netns)?;
    reached(n0, &pod.ips, n0.addresses())?;
    // The other one's were never touched, also when ours go.
    n0.run(|| routing::remove_all(&mut Rtnl::open()?, Some(&all[0])))??;
    let left = run(&n0.netns, &["ip", "route", "show", "10.244.1.0/24"])?;
    ensure!(left.trim() == "via 172.18.0.77 dev eth0" || left.contains("via 172.18.0.77 dev eth0"), "{left}");
    ensure!(!left.contains("proto 80"), "{left}");
    Ok(())
}

#[test]
fn nothing_is_left_when_all_is_removed() -> Result<()> {
    let nodes = nodes(&[0, 0, 1])?;
    let all = models(&nodes);
    let n0 = &nodes.nodes[0];
    let before = picture(n0)?;
    settle(n0, &all)?;
    ensure!(!differences(&before, &picture(n0)?).is_empty());
    n0.run(|| -> Result<()> {
        let removed = routing::remove_all(&mut Rtnl::open()?, None)?;
        ensure!(removed.trouble.is_empty(), "{removed:?}");
        ensure!(kernel::nft::remove(&mut Nfnl::open()?, masquerade::TABLE)?, "there was a table");
        ensure!(!kernel::nft::remove(&mut Nfnl::open()?, masquerade::TABLE)?, "and now there is none");
        let again = routing::remove_all(&mut Rtnl::open()?, Some(&all[0]))?;
        ensure!(again.is_quiet(), "{again:?}");
        Ok(())
    })??;
    let left = differences(&before, &picture(n0)?);
    ensure!(left.is_empty(), "{}", left.join("\n"));
    Ok(())
}

#[test]
fn a_link_that_has_the_tunnels_name_is_named_and_left_alone() -> Result<()> {
    let nodes = nodes(&[0, 0, 1])?;
    let all = models(&nodes);
    let n0 = &nodes.nodes[0];
    n0.ip(&["link add podnet-vxlan type bridge"])?;
    let (_, applied) = route(n0, &all[0], &all)?;
    let expected =
        "tunnel podnet-vxlan: there is a bridge link of that name (delete it: ip link delete podnet-vxlan)";
    ensure!(applied.trouble == [expected], "{applied:?}");
    let text = run(&n0.netns, &["ip", "route"])?;
    ensure!(text.contains("10.244.1.0/24") && !text.contains("10.244.2.0/24"), "{text}");
    n0.run(|| routing::remove_all(&mut Rtnl::open()?, None))??;
    run(&n0.netns, &["ip", "link", "show", "podnet-vxlan"])?;
    Ok(())
}

#[test]
fn sysctls_are_set_and_told_and_the_masquerade_changes_once() -> Result<()> {
    let nodes = nodes(&[0, 0, 1])?;
    let all = models(&nodes);
    let n0 = &nodes.nodes[0];
    n0.run(|| kernel::sysctl::write("net/ipv4/ip_forward", "0"))??;
    let (_, applied) = route(n0, &all[0], &all)?;
    let told: Vec<String> =
        applied.sysctls.iter().map(|it| format!("{} {} {}", it.path, it.from, it.to)).collect();
    for wanted in ["net/ipv4/ip_forward 0 1", "net/ipv4/conf/podnet-vxlan/rp_filter 1 2"] {
        ensure!(told.iter().any(|it| it == wanted), "{told:?}");
    }
    let apply = |all: &[Model]| -> Result<bool> {
        let wanted = Masquerade::of(&all[0], all);
        Ok(n0.run(|| masquerade::apply(&mut Nfnl::open()?, &wanted))??)
    };
    ensure!(apply(&all)? && !apply(&all)?, "only the first time");
    ensure!(apply(&all[..2])? && !apply(&all[..2])?, "with fewer nodes it is another one");
    Ok(())
}

/// Thousands of peers, half of them behind a router: the times are told and not judged, as a machine may be busy.
#[test]
fn thousands_of_peers_are_planned_and_applied() -> Result<()> {
    const PEERS: u32 = 5000;
    let nodes = Nodes::new(&[0])?;
    let n0 = &nodes.nodes[0];
    n0.ip(&["addr add 172.31.0.1/17 dev eth0"])?;
    let mut all = vec![model(n0)];
    all[0].pod_cidrs.truncate(1);
    for i in 1..=PEERS {
        let address: IpAddr = match i % 2 {
            0 => [172, 31, (i / 250) as u8, (2 + i % 250) as u8].into(),
            _ => [172, 30, (i / 250) as u8, (2 + i % 250) as u8].into(),
        };
        let cidr: IpNetwork = format!("10.{}.{}.0/24", i / 256, i % 256).parse()?;
        all.push(Model {
            name: format!("node-{i}"),
            pod_cidrs: vec![cidr],
            addresses: vec![address],
            ready: true,
        });
    }
    n0.run(|| -> Result<()> {
        let mut rtnl = Rtnl::open()?;
        let mut clock = Instant::now();
        let mut lap = |what: &str| {
            eprintln!("{PEERS} peers: {what} {:?}", clock.elapsed());
            clock = Instant::now();
        };
        let facts = routing::Facts::gather(&mut rtnl, &all[0], &all)?;
        lap("facts");
        let plan = routing::plan(&all[0], &all, &facts);
        lap("plan");
        let first = routing::apply(&mut rtnl, &plan)?;
        lap("apply, all new");
        // A route for each, for those behind the router another one, a neighbour and a forwarding entry; besides that the
        // tunnel and its settings, a rule and a gateway.
        ensure!(first.trouble.is_empty(), "{:?}", first.trouble.first());
        let entries = PEERS as usize + 3 * PEERS as usize / 2;
        ensure!((entries..entries + 10).contains(&first.changes), "{} changes", first.changes);
        ensure!(routing::apply(&mut rtnl, &plan)?.is_quiet());
        lap("apply, nothing new");
        let mut nfnl = Nfnl::open()?;
        let wanted = Masquerade::of(&all[0], &all);
        ensure!(masquerade::apply(&mut nfnl, &wanted)?);
        lap("masquerade, all new");
        ensure!(!masquerade::apply(&mut nfnl, &wanted)?);
        lap("masquerade, nothing new");
        routing::remove_all(&mut rtnl, None)?;
        lap("remove");
        Ok(())
    })?
}
