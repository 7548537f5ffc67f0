//! Routes for machines outside of the cluster: there after `--apply`, the same from printed commands, and no more than
//! the cluster has.

use std::time::Duration;

use agent::export::{self, Changed, Export};
use anyhow::{Context, Result, ensure};
use kernel::Rtnl;
use podnet_tests::nodes::{Echo, Nodes, seen_as};

use super::{configure, models, run, settle_all};

fn routes(nodes: &Nodes) -> Result<String> {
    let [v4, v6] = [&["ip", "route"][..], &["ip", "-6", "route"]].map(|it| run(&nodes.outside, it));
    Ok(format!("{}{}", v4?, v6?))
}

fn apply(nodes: &Nodes, export: &Export, remove: bool) -> Result<Changed> {
    nodes.outside.run(|| export::apply(&mut Rtnl::open()?, export, remove))?
}

#[test]
fn the_host_reaches_pods_by_exported_routes_and_keeps_no_others() -> Result<()> {
    let nodes = Nodes::new(&[0, 0, 1])?;
    let plans = settle_all(&nodes)?;
    let before = routes(&nodes)?;
    let (all, identity) = (models(&nodes), "a cluster");
    let export = Export::of(&all, identity);
    ensure!(export.routes.len() == 6 && export.skipped.is_empty(), "{export:?}");
    ensure!(apply(&nodes, &export, false)? == Changed { made: 6, deleted: 0 });
    ensure!(apply(&nodes, &export, false)? == Changed::default(), "nothing new");
    for (node, plan) in nodes.nodes.iter().zip(&plans) {
        configure(node, plan)?;
        let pod = node.add_pod("default", "p")?;
        let _answers = Echo::start(&pod.netns)?;
        for (ip, ipv6) in pod.ips.iter().zip([false, true]) {
            let seen = seen_as(&nodes.outside, *ip, Duration::from_secs(20))
                .with_context(|| format!("outside to {ip}"))?;
            ensure!(seen == Nodes::outside_address(node.rack, ipv6), "{ip} sees {seen}");
        }
    }
    // Commands make what is made directly, and may be run twice.
    let made = routes(&nodes)?;
    apply(&nodes, &export, true)?;
    ensure!(routes(&nodes)? == before);
    for _ in 0..2 {
        run(&nodes.outside, &["sh", "-ec", &export.commands(false)])?;
        ensure!(routes(&nodes)? == made, "{}", routes(&nodes)?);
    }
    // Another cluster's routes are nobody's business here, and those of a node that has left go.
    let mut other = models(&nodes);
    other.truncate(1);
    other[0].pod_cidrs = vec!["10.99.0.0/24".parse()?];
    apply(&nodes, &Export::of(&other, "another cluster"), false)?;
    ensure!(apply(&nodes, &Export::of(&all[..2], identity), false)? == Changed { made: 0, deleted: 2 });
    let text = routes(&nodes)?;
    ensure!(text.contains("10.99.0.0/24") && !text.contains("10.244.2.0/24"), "{text}");
    run(&nodes.outside, &["sh", "-ec", &export.commands(true)])?;
    ensure!(apply(&nodes, &export, true)? == Changed::default(), "{}", routes(&nodes)?);
    ensure!(apply(&nodes, &Export::of(&other, "another cluster"), true)? == Changed { made: 0, deleted: 1 });
    ensure!(routes(&nodes)? == before);
    Ok(())
}

#[test]
fn a_node_that_this_machine_is_not_beside_is_named_and_the_others_are_made() -> Result<()> {
    let nodes = Nodes::new(&[0, 0])?;
    let mut all = models(&nodes);
    all[1].addresses = vec!["192.0.2.7".parse()?];
    all[1].pod_cidrs.truncate(1);
    let error = format!("{:#}", apply(&nodes, &Export::of(&all, "it"), false).err().context("refused")?);
    ensure!(error.contains("node n1") && error.contains("192.0.2.7"), "{error}");
    ensure!(routes(&nodes)?.contains("10.244.0.0/24"));
    Ok(())
}
