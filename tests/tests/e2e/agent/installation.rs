//! What is put on a node, with the real plugins: pods get their network by it, a doctor finds nothing wrong with such a
//! node, addresses of pods that are gone without a word are free again, and all of it can be taken off.

use std::fs;
use std::time::Duration;

use agent::doctor::{Host, Scope, State, examine};
use agent::install::uninstall::{Hook, uninstall};
use agent::install::{binaries, conflist, reservations};
use agent::model::{Change, Cluster};
use agent::places::Places;
use agent::policy::Enforcer;
use anyhow::{Context, Result, ensure};
use kernel::Rtnl;
use podnet_tests::nodes::{Nodes, wait_until};
use podnet_tests::plugins;
use serde_json::json;

use super::model;

#[test]
fn pods_get_their_network_by_what_is_installed_and_it_can_be_taken_off_again() -> Result<()> {
    let nodes = Nodes::new(&[0])?;
    let node = &nodes.nodes[0];
    let places = Places::below(&node.root);
    // As kind's image has its own.
    let own_ptp = places.plugins().join("ptp");
    fs::write(&own_ptp, "another program").context("put another ptp in place")?;

    let installed = binaries::install(&plugins::podnet()?, &places.plugins())?;
    ensure!(installed.changed && installed.replaced == ["ptp"] && installed.left.is_empty(), "{installed:?}");
    ensure!(!binaries::install(&plugins::podnet()?, &places.plugins())?.changed, "twice");
    ensure!(conflist::write(&conflist::render(&model(node), 1500, &places)?, &places)?);
    let mut cluster = Cluster::default();
    cluster.take(Change::Nodes(vec![model(node)]));
    let mut enforcer = node.run(|| Enforcer::open(&node.name, &node.root))??;
    enforcer.sync(&cluster)?;

    let stays = node.add_pod("x", "stays")?;
    let goes = node.add_pod("x", "goes")?;
    ensure!(stays.ips.len() == 2, "an address of each PodCIDR: {:?}", stays.ips);

    let agent = json!({ "schema": "podnetd.status/1", "conditions": [], "peers": {} });
    let findings =
        node.run(|| Host::new(places.clone(), Ok(agent)).map(|mut host| examine(&mut host, Scope::Node)))??;
    let bad: Vec<_> = findings.iter().filter(|it| it.state != State::Ok).collect();
    ensure!(bad.is_empty(), "a healthy node: {bad:#?}");

    // A pod whose namespace goes without DEL, as after a restart of the node.
    let mut rtnl = Rtnl::open_in(&node.netns)?;
    ensure!(reservations::sweep(&places, &mut rtnl, Duration::ZERO)?.in_use == 4);
    let mut gone = goes.ips.clone();
    drop(goes);
    let mut released = Vec::new();
    wait_until("the addresses of the pod that is gone are free", || {
        released.extend(reservations::sweep(&places, &mut rtnl, Duration::ZERO)?.released);
        ensure!(released.len() >= 2, "released: {released:?}");
        Ok(())
    })?;
    gone.sort();
    released.sort();
    ensure!(gone == released, "{gone:?}, {released:?}");

    let mut order = Vec::new();
    let hook: Hook<'_> = (
        "routes",
        Box::new(|| {
            order.push(places.conflist().exists());
            Ok(None)
        }),
    );
    let report = uninstall(&places, &mut rtnl, vec![hook]);
    ensure!(report.failed.is_empty(), "{report:?}");
    ensure!(order == [false], "the configuration goes first");
    let left = report.done.iter().any(|line| line.contains("2 left, of pods that still run"));
    ensure!(left, "{:?}", report.done);
    ensure!(fs::read(&own_ptp)? == b"another program", "what was replaced is put back");
    let names: Vec<_> = fs::read_dir(places.plugins())?.filter_map(|it| Some(it.ok()?.file_name())).collect();
    ensure!(names == ["ptp"], "{names:?}");
    ensure!(!places.run().exists());
    Ok(())
}
