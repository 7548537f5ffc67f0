//! UDP flows do not outlive a change of the mappings.

use anyhow::{Result, ensure};
use podnet_tests::Side;
use serde_json::{Value, json};

use super::network::{Flow, udp, udp_at};
use super::{DUAL, Scene, mapping};

const ENDS: [(&str, &str); 2] =
    [("192.0.2.1:5353", "192.0.2.2"), ("[2001:db8:0:1::1]:5353", "2001:db8:0:1::2")];

/// plugins#1190: the pod is gone, the node serves the port itself, and flows must not go on to the pod.
#[test]
fn del_ends_flows_to_the_pod() -> Result<()> {
    for with_result in [true, false] {
        let scene = Scene::new(Side::Podnet, 1)?;
        let result = scene.attach(0, DUAL)?;
        let mappings = json!([mapping(5353, 53, "udp", "")]);
        let _pod = udp(scene.pod(0), 53, "pod")?;
        scene.portmap("ADD", 0, &result, &mappings, "").run()?.result()?;
        let flows: Vec<Flow> =
            ENDS.iter().map(|(to, _)| Flow::new(&scene.outside, to)).collect::<Result<_>>()?;
        for (flow, (_, client)) in flows.iter().zip(ENDS) {
            ensure!(flow.answer()? == format!("pod {client}"));
        }
        let prev = if with_result { &result } else { &Value::Null };
        scene.portmap("DEL", 0, prev, &mappings, "").run()?.silent()?;
        let _node = udp(scene.host(), 5353, "node")?;
        for (flow, (_, client)) in flows.iter().zip(ENDS) {
            let answer = flow.answer()?;
            ensure!(answer == format!("node {client}"), "the flow still goes to: {answer}");
        }
    }
    Ok(())
}

#[test]
fn add_takes_over_flows_that_the_node_had() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let result = scene.attach(0, DUAL)?;
    // The kernel follows flows of its own only where a rule wants it to.
    scene.nft(
        "table inet follow { chain c { type filter hook prerouting priority 0; ct state new counter; }; }",
    )?;
    let node = udp(scene.host(), 5353, "node")?;
    let flows: Vec<Flow> = ENDS.iter().map(|(to, _)| Flow::new(&scene.outside, to)).collect::<Result<_>>()?;
    for flow in &flows {
        ensure!(flow.answer()?.starts_with("node"));
    }
    drop(node);
    let _pod = udp(scene.pod(0), 53, "pod")?;
    let mappings = json!([mapping(5353, 53, "udp", "192.0.2.1"), mapping(5353, 53, "udp", "::")]);
    scene.portmap("ADD", 0, &result, &mappings, "").run()?.result()?;
    for flow in &flows {
        ensure!(flow.answer()?.starts_with("pod"));
    }
    Ok(())
}

/// A flow of another address, of another port, or through the node to elsewhere is not the mapping's.
#[test]
fn flows_of_others_are_left_alone() -> Result<()> {
    let others = ["10.1.2.1:5353", "192.0.2.1:5354"];
    for (host_ip, to_node) in [("192.0.2.1", &others[..]), ("", &others[1..])] {
        let scene = Scene::new(Side::Podnet, 2)?;
        let results = [scene.attach(0, DUAL)?, scene.attach(1, DUAL)?];
        scene.nft(
            "table inet follow {
                chain first { type filter hook prerouting priority 0; ct state new ct mark set 7; }
                chain second { type filter hook prerouting priority 10; udp dport { 5353, 5354 } ct mark != 7 drop; }
            }",
        )?;
        let _servers = (udp_at(scene.host(), "10.1.2.1:5353", "node")?, udp(scene.host(), 5354, "other")?);
        let _outside = udp(&scene.outside, 5353, "outside")?;
        let mut flows: Vec<Flow> =
            to_node.iter().map(|to| Flow::new(&scene.outside, to)).collect::<Result<_>>()?;
        flows.push(Flow::new(scene.pod(1), "192.0.2.2:5353")?);
        let answers: Vec<String> = flows.iter().map(Flow::answer).collect::<Result<_>>()?;
        // From here on the datagrams of a flow that has been forgotten are dropped.
        scene.nft("flush chain inet follow first")?;
        let mappings = json!([mapping(5353, 53, "udp", host_ip)]);
        scene.portmap("ADD", 0, &results[0], &mappings, "").run()?.result()?;
        scene.portmap("DEL", 0, &results[0], &mappings, "").run()?.silent()?;
        for (flow, before) in flows.iter().zip(&answers) {
            ensure!(flow.answer()? == *before);
        }
    }
    Ok(())
}
