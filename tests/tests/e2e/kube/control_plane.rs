//! What the API keeps, tells and refuses.

use anyhow::{Context, Result, ensure};
use podnet_tests::kube::{ADMIN, Event, refusal};
use podnet_tests::nodes::wait_until;
use serde_json::json;

use super::{start, start_at};

/// A service account that may read nodes, as an agent's manifest has it.
const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [''], resources: [nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects:
- {kind: ServiceAccount, name: reader, namespace: kube-system}
";

#[test]
fn objects_are_kept_and_changes_are_told() -> Result<()> {
    let (_netns, control) = start()?;
    let client = control.client()?;
    client.create_namespace("shop", &[("team", "blue")])?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "front", "namespace": "shop"},
        "spec": {"containers": [{"name": "it", "image": "it"}]},
    });
    let pods = "/api/v1/namespaces/shop/pods";
    let told = client.watch(
        pods,
        || client.create(&pod).map(drop),
        |event| matches!(event, Event::Added(pod) if pod["metadata"]["name"] == "front"),
    )?;
    let Event::Added(told) = told else { anyhow::bail!("told {told:?}") };
    // As in a real cluster a pod has its account and a way to its token, though nobody asked for them.
    ensure!(told["spec"]["serviceAccountName"] == "default", "{told}");
    ensure!(told["spec"]["volumes"][0].get("projected").is_some(), "{told}");

    let front = "/api/v1/namespaces/shop/pods/front";
    let both = json!([{"ip": "10.244.0.2"}, {"ip": "fd00:10:244::2"}]);
    client.set_status(front, &json!({"phase": "Running", "podIP": "10.244.0.2", "podIPs": both}))?;
    ensure!(client.get(front)?["status"]["podIPs"] == both, "{}", client.get(front)?);
    client.patch(front, &json!({"metadata": {"labels": {"app": "front"}}}))?;
    ensure!(
        client.get(&format!("{pods}?labelSelector=app%3Dfront"))?["items"].as_array().map(Vec::len)
            == Some(1)
    );

    client.watch(pods, || client.delete(front).map(drop), |event| matches!(event, Event::Deleted(_)))?;
    let gone = client.get(front).err().context("the pod is still there")?;
    ensure!(refusal(&gone) == Some(404), "{gone:#}");
    Ok(())
}

#[test]
fn a_node_has_ranges_of_both_versions() -> Result<()> {
    let (_netns, control) = start()?;
    let client = control.client()?;
    let ranges = json!(["10.244.3.0/24", "fd00:10:244:3::/64"]);
    let made = client.create(&json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n3"},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
    }))?;
    ensure!(made["spec"]["podCIDRs"] == ranges, "{made}");
    Ok(())
}

#[test]
fn an_api_of_ipv6_has_services_of_ipv6_first() -> Result<()> {
    let (_netns, control) = start_at("[fd00:7::1]:6443".parse()?)?;
    let client = control.client()?;
    let kubernetes =
        wait_until("the API's own service", || client.get("/api/v1/namespaces/default/services/kubernetes"))?;
    ensure!(kubernetes["spec"]["clusterIP"] == "fd00:10:96::1", "{kubernetes}");
    Ok(())
}

#[test]
fn what_is_not_granted_is_refused() -> Result<()> {
    let (netns, control) = start()?;
    let admin = control.client()?;
    ensure!(admin.apply_all(READER)?.len() == 3);
    // Once more changes nothing and is no error.
    admin.apply_all(READER)?;
    admin.create(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n0"}}))?;

    let reader = control.client_of(&netns, &control.kubeconfig_of_account("kube-system", "reader")?)?;
    ensure!(reader.get("/api/v1/nodes/n0")?["metadata"]["name"] == "n0");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let nobody = control.client_of(&netns, &control.kubeconfig("nobody", None)?)?;
    let kubelet = control.client_of(&netns, &control.kubeconfig("system:node:n9", Some("system:nodes"))?)?;
    let refused = [
        ("the reader makes a node", reader.create(&node)),
        ("the reader deletes a node", reader.delete("/api/v1/nodes/n0")),
        ("the reader reads pods", reader.get("/api/v1/pods")),
        ("a user without a role reads nodes", nobody.get("/api/v1/nodes")),
        ("a node makes another one", kubelet.create(&node)),
    ];
    for (what, answer) in refused {
        let error = answer.err().with_context(|| format!("{what}, and may"))?;
        ensure!(refusal(&error) == Some(403), "{what}: {error:#}");
    }
    control.client_of(&netns, &control.kubeconfig("somebody", Some(ADMIN))?)?.create(&node)?;
    Ok(())
}
