//! What the agent tells the Kubernetes API: that the node's network is there, and that policies cannot be enforced.
//!
//! It writes nothing else there. Each call here and each watch of [`crate::api`] stands in [`RIGHTS`], of which the
//! manifest's ClusterRole is a copy that a test compares.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

/// What the service account may do: group, resource, verbs (RBAC's words).
pub const RIGHTS: [(&str, &str, &[&str]); 6] = [
    ("", "nodes", &["list", "watch"]),
    ("", "nodes/status", &["patch"]),
    ("", "pods", &["list", "watch"]),
    ("", "namespaces", &["list", "watch"]),
    ("networking.k8s.io", "networkpolicies", &["list", "watch"]),
    ("", "events", &["create"]),
];

/// As whom events are told.
const COMPONENT: &str = "podnetd";
/// Events about objects without a namespace are kept in this one.
const EVENTS: &str = "default";
/// What the API server takes as an event's message, in bytes.
const MOST_MESSAGE: usize = 1024;

/// [`RIGHTS`] as a set of single ones, to compare with.
pub fn rights() -> BTreeSet<(String, String, String)> {
    let each = RIGHTS.iter().flat_map(|(group, resource, verbs)| {
        verbs.iter().map(|verb| ((*group).to_owned(), (*resource).to_owned(), (*verb).to_owned()))
    });
    each.collect()
}

/// Sets the condition NetworkUnavailable of a Node to False, reason PodnetIsUp: a cloud's Node has a taint until then,
/// and other networks that looked after it before may have left it True.
///
/// # Errors
/// The API refuses, or does not answer.
pub async fn network_is_up(client: &Client, node: &str) -> Result<()> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "PodnetIsUp",
        "message": "podnet has routes to every node's pods",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
    let nodes: Api<Node> = Api::all(client.clone());
    let patched = nodes.patch_status(node, &PatchParams::default(), &patch).await;
    patched.map(drop).with_context(|| format!("patch the status of Node {node}"))
}

/// Warns, by an event on the Node that `kubectl describe node` shows, that policies are accepted and not enforced.
///
/// # Errors
/// The API refuses, or does not answer.
pub async fn policies_are_not_enforced(client: &Client, node: &str, why: &str) -> Result<()> {
    let message = format!("NetworkPolicies are not enforced on this node: {why}");
    warn(client, node, "NetworkPolicyNotEnforced", &message).await
}

/// Tells an event of type Warning about a Node.
async fn warn(client: &Client, node: &str, reason: &str, message: &str) -> Result<()> {
    let now = Timestamp::now();
    let event = Event {
        metadata: ObjectMeta {
            // The kubelet's own way to name events: the object and a number that is not twice.
            name: Some(format!("{node}.{:x}", now.as_nanosecond())),
            namespace: Some(EVENTS.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            // `kubectl describe node` looks for events whose UID is the Node's name, as the kubelet writes them.
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(shortened(message)),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(node.to_owned()) }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    };
    let events: Api<Event> = Api::namespaced(client.clone(), EVENTS);
    let created = events.create(&PostParams::default(), &event).await;
    created.map(drop).with_context(|| format!("create event {reason} about Node {node}"))
}

fn shortened(message: &str) -> String {
    let fits = message.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= MOST_MESSAGE);
    fits.map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests;
