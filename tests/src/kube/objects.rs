//! The objects that tests have in the API.

use serde_json::{Value, json};

use super::image::IMAGE;

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
