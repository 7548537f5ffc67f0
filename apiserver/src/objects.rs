//! The objects that who has an API makes by hand, where no controller runs that would make them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::client::{Client, refusal};

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

/// A Node that is ready, with these PodCIDRs and InternalIPs, the first of each being of the cluster's first IP version.
pub fn node(name: &str, pod_cidrs: &[String], addresses: &[String]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|it| json!({"type": "InternalIP", "address": it})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs},
        "status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
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
