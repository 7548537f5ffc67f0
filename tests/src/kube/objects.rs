//! The objects that tests have in the API.

use serde_json::{Value, json};

use super::image::{IMAGE, WHO};

/// A container that serves [`WHO`] on a port, which kubelet asks over the network whether it is ready; it may be slow.
pub fn server(port: u16) -> Value {
    json!({
        "name": "web", "image": IMAGE, "command": ["httpd", "-f", "-p", port.to_string(), "-h", "/www"],
        "readinessProbe": patient(json!({"httpGet": {"path": WHO, "port": port}})),
    })
}

/// A Deployment `web` of two servers on port 80, which kubelet asks by `liveness` whether they are alive.
pub fn web(liveness: Value) -> Value {
    let mut container = server(80);
    container["livenessProbe"] = patient(liveness);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "terminationGracePeriodSeconds": 0, "containers": [container],
            }},
        },
    })
}

/// A probe that is made each second, and fails on no machine that is slow only.
pub fn patient(mut probe: Value) -> Value {
    probe["periodSeconds"] = json!(1);
    probe["timeoutSeconds"] = json!(20);
    probe["failureThreshold"] = json!(10);
    probe
}
