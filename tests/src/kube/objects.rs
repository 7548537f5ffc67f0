//! The objects that tests have in the API: made by hand where no controller runs that would make them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::{Client, refusal};
use super::image::IMAGE;
use crate::nodes::{Node, Pod};

impl Client {
    /// A Namespace with these labels, and its service account `default`, without which no pod can be in it.
    ///
    /// # Errors
    /// The API refuses.
    pub fn create_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.ensure(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": map(labels)},
        }))?;
        // A controller of service accounts may have been quicker.
        self.ensure(&json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name},
        }))
    }

    /// A Node with its PodCIDRs and InternalIPs of these versions of IP; ready as `Node::object` has it.
    ///
    /// # Errors
    /// The API refuses.
    pub fn create_node(&self, node: &Node, ipv4: bool, ipv6: bool) -> Result<Value> {
        self.create(&node.object(ipv4, ipv6))
    }

    /// A Pod that runs on a node with the addresses that a runtime has made it with.
    ///
    /// # Errors
    /// The API refuses.
    pub fn create_pod(&self, node: &Node, pod: &Pod, labels: &[(&str, &str)]) -> Result<Value> {
        self.create(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": map(labels)},
            "spec": {"nodeName": node.name, "containers": [{"name": "it", "image": "it"}]},
        }))?;
        let ips: Vec<Value> = pod.ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        let host = node.addresses()[0].to_string();
        let ready = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .map(|condition| json!({"type": condition, "status": "True"}));
        let status = json!({
            "phase": "Running", "hostIP": host, "podIP": ips.first().map(|it| it["ip"].clone()), "podIPs": ips,
            "conditions": ready,
        });
        self.set_status(&format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name), &status)
    }

    /// All documents of a manifest, in its order, by server-side apply.
    ///
    /// # Errors
    /// The text is no YAML, or the API refuses one; which one is told.
    pub fn apply_all(&self, manifest: &str) -> Result<Vec<Value>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(manifest).context("read a manifest")?;
        documents.iter().filter(|it| !it.is_null()).map(|it| self.apply(it)).collect()
    }

    /// [`Client::apply_all`] of a file.
    ///
    /// # Errors
    /// Likewise, or it cannot be read.
    pub fn apply_file(&self, path: &Path) -> Result<Vec<Value>> {
        let at = || path.display().to_string();
        self.apply_all(&fs::read_to_string(path).with_context(at)?).with_context(at)
    }

    /// A token of a service account, good for an hour.
    ///
    /// # Errors
    /// There is no such account.
    pub fn token_of(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600},
        });
        let answer = self.post(&path, &request)?;
        Ok(answer["status"]["token"]
            .as_str()
            .with_context(|| format!("{path}: no token: {answer}"))?
            .to_owned())
    }

    /// Creates an object that may be there already.
    fn ensure(&self, object: &Value) -> Result<()> {
        match self.create(object) {
            Err(error) if refusal(&error) != Some(409) => Err(error),
            _ => Ok(()),
        }
    }
}

/// A Deployment `web` of two servers on port 80, which kubelet asks over the network whether they are ready, and by
/// `liveness` whether they are alive.
pub fn web(liveness: Value) -> Value {
    let mut alive = liveness;
    alive["periodSeconds"] = json!(1);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "web", "image": IMAGE, "command": ["httpd", "-f", "-p", "80", "-h", "/bin"],
                    "readinessProbe": {"httpGet": {"path": "/busybox", "port": 80}, "periodSeconds": 1},
                    "livenessProbe": alive,
                }],
            }},
        },
    })
}

/// A condition of an object's status; null where it has none of that type.
pub fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().find(|it| it["type"] == kind).cloned().unwrap_or_default()
}

fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
