//! A policy that lets in one pod alone, wherever that is.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use kernel::Netns;
use podnet_tests::kube;
use serde_json::{Value, json};

use super::super::NEVER;
use super::super::kind::Kind;
use super::scene::Server;

const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/one-friend";

/// A server of n0 is isolated but for a friend: on n2, through VXLAN; then on n1, directly.
pub(super) fn hold_across_nodes(kind: &Kind, web: &[Server]) -> Result<()> {
    let [guarded, near, far] = [&web[0], &web[2], &web[4]];
    ensure!([guarded.node, near.node, far.node] == [0, 1, 2]);
    let everyone = || web[1..].iter().map(|it| it.name.clone()).chain(["n0", "n1", "n2"].map(str::to_owned));
    expect(kind, web, "open without a policy", &everyone().collect())?;
    label(kind, guarded, &json!("guarded"))?;
    label(kind, far, &json!("friend"))?;
    kind.client.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "one-friend", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"role": "guarded"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}],
        },
    }))?;
    // The kubelet of its own node asks whether it is ready.
    let friend = |pod: &Server| BTreeSet::from([pod.name.clone(), "n0".to_owned()]);
    expect(kind, web, "a friend behind the router", &friend(far))?;
    label(kind, far, &Value::Null)?;
    label(kind, near, &json!("friend"))?;
    expect(kind, web, "a friend on the same link", &friend(near))?;
    kind.client.delete(POLICY)?;
    expect(kind, web, "open again", &everyone().collect())
}

/// Waits until these, and nobody else, reach the first server, in both versions of IP.
fn expect(kind: &Kind, web: &[Server], what: &str, expected: &BTreeSet<String>) -> Result<()> {
    let pods = web[1..].iter().map(|it| (&it.name, &it.netns));
    let clients: Vec<(&String, &Netns)> =
        pods.chain(kind.nodes.nodes.iter().map(|it| (&it.name, &it.netns))).collect();
    for family in [0, 1] {
        kind.wait(what, || {
            let let_in = reach(&clients, web[0].at(family));
            ensure!(let_in == *expected, "{let_in:?} get in, and not {expected:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Who of them gets an answer; all ask at once, as those who get none wait.
fn reach(clients: &[(&String, &Netns)], to: SocketAddr) -> BTreeSet<String> {
    std::thread::scope(|scope| {
        let asks: Vec<_> = clients
            .iter()
            .map(|(name, netns)| (name, scope.spawn(move || kube::who(netns, to, NEVER))))
            .collect();
        asks.into_iter().filter_map(|(name, ask)| ask.join().ok()?.ok().map(|_| (*name).clone())).collect()
    })
}

/// Gives a pod a role, or takes it.
fn label(kind: &Kind, pod: &Server, role: &Value) -> Result<()> {
    let path = format!("/api/v1/namespaces/default/pods/{}", pod.name);
    kind.client.patch(&path, &json!({"metadata": {"labels": {"role": role}}})).map(drop)
}
