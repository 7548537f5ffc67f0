//! Kernels that lack something of what policies need, each thing one after the other: the agent says which, the node is
//! not ready, and its Node has an event. What is missing is made so by `strace`, which has the kernel refuse one request.

use agent::policy::probe;
use anyhow::{Context, Result, ensure};
use podnet_tests::kube::Client;
use podnet_tests::nodes::{Running, wait_until};
use serde_json::Value;

use super::bed::Cluster;

/// The condition `kernel` as the agent of n0 tells it, once it is not met.
fn complaint(cluster: &Cluster, agent: &Running) -> Result<String> {
    wait_until("the agent's condition", || {
        let kernel = kernel(cluster, agent)?;
        let reason = kernel["reason"].as_str().filter(|it| *it != "not looked at yet");
        ensure!(kernel["met"] == false, "{kernel}");
        reason.map(str::to_owned).with_context(|| kernel.to_string())
    })
}

/// The condition `kernel` of n0.
fn kernel(cluster: &Cluster, agent: &Running) -> Result<Value> {
    let status = cluster.status(0).with_context(|| agent.log())?;
    let found = status["conditions"].as_array().into_iter().flatten().find(|it| it["condition"] == "kernel");
    found.cloned().with_context(|| status.to_string())
}

/// The Node's events that policies are not enforced.
fn events(client: &Client) -> Result<Vec<String>> {
    let all = client.get("/api/v1/namespaces/default/events")?;
    let ours = all["items"].as_array().into_iter().flatten().filter(|it| {
        let about = &it["involvedObject"];
        it["reason"] == "NetworkPolicyNotEnforced" && about["kind"] == "Node" && about["name"] == "n0"
    });
    Ok(ours.filter_map(|it| it["message"].as_str().map(str::to_owned)).collect())
}

/// Which of the agent's sends, from 1 on, ask for what, as `strace` shows them to it: those of the probe are the first.
fn places(cluster: &Cluster) -> Result<Vec<usize>> {
    let log = cluster.nodes.nodes[0].root.join("strace.log");
    let name = log.to_string_lossy().into_owned();
    let asked = probe::asked().len();
    let mut agent = cluster.agent_through(0, &["strace", "-D", "-o", &name, "-e", "trace=sendto"])?;
    wait_until("the agent has asked for everything", || {
        ensure!(kernel(cluster, &agent)?["met"] == true);
        Ok(())
    })?;
    agent.kill()?;
    let text = std::fs::read_to_string(&log)?;
    let is_ours = |line: &str| line.contains("NFNL_MSG_BATCH_BEGIN") || line.contains("IPCTNL_MSG_CT_GET");
    let lines = text.lines().filter(|it| it.starts_with("sendto(")).enumerate();
    let found: Vec<usize> = lines.filter(|(_, line)| is_ours(line)).map(|(n, _)| n + 1).take(asked).collect();
    ensure!(found.len() == asked, "{found:?} of {asked}:\n{text}");
    Ok(found)
}

#[test]
fn what_a_kernel_lacks_is_named_the_node_is_not_ready_and_has_an_event() -> Result<()> {
    let cluster = Cluster::without_agents(&[0], (true, true))?;
    let asked = probe::asked();
    for (place, what) in places(&cluster)?.into_iter().zip(&asked) {
        let fault = format!("inject=sendto:error=EOPNOTSUPP:when={place}");
        let mut agent = cluster
            .agent_through(0, &["strace", "-D", "-o", "/dev/null", "-e", "trace=sendto", "-e", &fault])?;
        let reason = complaint(&cluster, &agent)?;
        ensure!(reason.starts_with(&format!("{what}: ")), "{what}: {reason}");
        let others: Vec<_> = asked.iter().filter(|it| *it != what && reason.contains(it.as_str())).collect();
        ensure!(others.is_empty(), "{what}: {others:?} are said to be missing, too: {reason}");
        let (code, text) = cluster.nodes.nodes[0].ask_agent("/readyz")?;
        ensure!(code == 503 && text.contains(what.as_str()), "{what}: {code} {text}");
        wait_until(&format!("an event: {what}"), || {
            let all = events(&cluster.client)?;
            let told = format!("NetworkPolicies are not enforced on this node: {reason}");
            ensure!(all.contains(&told), "{all:#?}\n{}", agent.log());
            Ok(())
        })?;
        agent.kill()?;
    }
    Ok(())
}

/// Without the capability everything is refused: each is named.
#[test]
fn an_agent_that_may_not_ask_the_kernel_says_so_of_everything() -> Result<()> {
    let cluster = Cluster::without_agents(&[0], (true, false))?;
    let agent = cluster.agent_through(0, &["setpriv", "--bounding-set", "-net_admin"])?;
    let reason = complaint(&cluster, &agent)?;
    for what in probe::asked() {
        ensure!(reason.contains(&format!("{what}: ")), "{what}: {reason}");
    }
    ensure!(reason.contains("not permitted"), "{reason}");
    let status: Value = cluster.status(0)?;
    ensure!(status["ready"] == false, "{status}");
    wait_until("an event", || {
        let all = events(&cluster.client)?;
        ensure!(all.iter().any(|it| it.contains("not permitted")), "{all:?}\n{}", agent.log());
        Ok(())
    })
}
