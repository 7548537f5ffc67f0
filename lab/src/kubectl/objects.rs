//! Objects in Kubernetes' JSON, so far as a lab has something to say. What kubectl's tables and descriptions need
//! besides stands under `podlab`.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::time;
use crate::cluster::{Cluster, Node, Pod};
use crate::controller::ReplicationController;
use crate::labels::{Labels, chooses};
use crate::services::model::{Backed, Endpoint};

/// The Kubernetes namespace of everything.
pub const NAMESPACE: &str = "default";
/// The containers of a pod where nobody has named them.
pub const CONTAINERS: [&str; 2] = ["kubia", "sidecar"];

fn metadata(name: &str, labels: &Labels, created: SystemTime) -> Value {
    json!({
        "name": name,
        "namespace": NAMESPACE,
        "labels": labels,
        "creationTimestamp": time::rfc3339(created),
    })
}

/// What has no place in Kubernetes' own object: age, and what happened, as seconds ago.
fn besides(cluster: &Cluster, object: &str, created: SystemTime) -> Value {
    let now = time::seconds(SystemTime::now());
    let ago = |at: SystemTime| now.saturating_sub(time::seconds(at));
    let events: Vec<Value> = cluster
        .objects
        .incidents(object)
        .map(|incident| {
            json!({
                "type": if incident.is_warning { "Warning" } else { "Normal" },
                "reason": incident.reason,
                "age": ago(incident.at),
                "from": incident.from,
                "message": incident.message,
            })
        })
        .collect();
    json!({ "age": ago(created), "created": time::seconds(created), "events": events })
}

/// A pod.
pub fn pod(cluster: &Cluster, pod: &Pod) -> Value {
    let (meta, name, node) = (&pod.meta, &pod.space.name, &cluster.nodes[pod.node]);
    let mut metadata = metadata(name, &meta.labels, meta.created);
    if let Some(owner) = &meta.owner {
        metadata["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "ReplicationController", "name": owner, "controller": true }]);
    }
    let [app, sidecar] = &meta.containers;
    let containers = [(app, &meta.image[..]), (sidecar, "podlab")].map(|(container, image)| {
        let ports: Vec<Value> = meta
            .port
            .filter(|_| container == app)
            .map(|port| json!({ "containerPort": port, "protocol": "TCP" }))
            .into_iter()
            .collect();
        json!({ "name": container, "image": image, "ports": ports })
    });
    let pids = [pod.containers.kubia_pid, pod.containers.sidecar_pid];
    let states: Vec<Value> = meta
        .containers
        .iter()
        .zip(pids)
        .map(|(container, pid)| {
            let runs = std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists();
            json!({ "name": container, "ready": runs, "restartCount": 0, "containerID": format!("podlab://{}/{container}", pod.container_id) })
        })
        .collect();
    let runs = states.iter().any(|state| state["ready"] == true);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": { "nodeName": node.space.name, "containers": containers },
        "status": {
            "phase": if runs { "Running" } else { "Failed" },
            "hostIP": node.address.first,
            "podIP": pod.addresses.first(),
            "podIPs": pod.addresses.iter().map(|address| json!({ "ip": address })).collect::<Vec<_>>(),
            "containerStatuses": states,
        },
        "podlab": besides(cluster, &format!("pod/{name}"), meta.created),
    })
}

/// A controller.
pub fn controller(cluster: &Cluster, controller: &ReplicationController) -> Value {
    let (name, template) = (&controller.name, &controller.template);
    let own = cluster.pods.iter().filter(|pod| pod.meta.owner.as_ref() == Some(name));
    let current = own.filter(|pod| chooses(&controller.selector, &pod.meta.labels)).count();
    let ports: Vec<Value> =
        template.port.map(|port| json!({ "containerPort": port, "protocol": "TCP" })).into_iter().collect();
    json!({
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": metadata(name, &controller.labels, controller.created),
        "spec": {
            "replicas": controller.replicas,
            "selector": controller.selector,
            "template": {
                "metadata": { "labels": template.labels },
                "spec": { "containers": [{ "name": template.containers[0], "image": template.image, "ports": ports }] },
            },
        },
        "status": { "replicas": current, "readyReplicas": current },
        "podlab": besides(cluster, &format!("rc/{name}"), controller.created),
    })
}

/// A service, and under `podlab` the addresses of the pods behind it.
pub fn service(cluster: &Cluster, backed: &Backed) -> Value {
    let service = &backed.service;
    let port = service.port.map(|port| {
        let mut value =
            json!({ "port": port.port, "protocol": port.protocol, "targetPort": port.target_port });
        if let Some(node_port) = port.node_port {
            value["nodePort"] = node_port.into();
        }
        value
    });
    let mut spec = json!({
        "type": service.kind,
        "selector": service.selector,
        "ports": port.iter().collect::<Vec<_>>(),
        "sessionAffinity": if service.has_affinity { "ClientIP" } else { "None" },
    });
    if let Some(address) = service.cluster_ip {
        spec["clusterIP"] = address.to_string().into();
        spec["clusterIPs"] = json!([address]);
        spec["ipFamilies"] = json!(["IPv4"]);
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    if let Some(name) = &service.external_name {
        spec["externalName"] = name.as_str().into();
    }
    if service.kind.has_node_port() {
        spec["externalTrafficPolicy"] = json!(service.policy);
    }
    let ingress: Vec<Value> = service.balancer.iter().map(|address| json!({ "ip": address })).collect();
    let mut besides = besides(cluster, &format!("svc/{}", service.name), service.created);
    besides["endpoints"] = addresses(backed).into();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(&service.name, &service.labels, service.created),
        "spec": spec,
        "status": { "loadBalancer": { "ingress": ingress } },
        "podlab": besides,
    })
}

/// `10.244.1.2:8080`, for each pod behind a service.
fn addresses(backed: &Backed) -> Vec<String> {
    let port = backed.service.port.map_or(0, |port| port.target_port);
    backed.endpoints.iter().map(|endpoint| format!("{}:{port}", endpoint.address)).collect()
}

/// The endpoints of a service.
pub fn endpoints(cluster: &Cluster, backed: &Backed) -> Value {
    let service = &backed.service;
    let address = |endpoint: &Endpoint| {
        json!({
            "ip": endpoint.address,
            "nodeName": cluster.nodes[endpoint.node].space.name,
            "targetRef": { "kind": "Pod", "name": endpoint.pod },
        })
    };
    let ports: Vec<Value> = service
        .port
        .iter()
        .map(|port| json!({ "port": port.target_port, "protocol": port.protocol }))
        .collect();
    let subsets: Vec<Value> = match backed.endpoints.as_slice() {
        [] => Vec::new(),
        some => vec![json!({ "addresses": some.iter().map(address).collect::<Vec<_>>(), "ports": ports })],
    };
    let mut besides = besides(cluster, &format!("ep/{}", service.name), service.created);
    besides["endpoints"] = addresses(backed).into();
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata(&service.name, &service.labels, service.created),
        "subsets": subsets,
        "podlab": besides,
    })
}

/// A node.
pub fn node(cluster: &Cluster, node: &Node, since: SystemTime) -> Value {
    let name = &node.space.name;
    let labels: Labels = [("kubernetes.io/hostname".to_owned(), name.clone())].into();
    let internal = node.address.iter().map(|address| json!({ "type": "InternalIP", "address": address }));
    let addresses: Vec<Value> = internal.chain([json!({ "type": "Hostname", "address": name })]).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata(name, &labels, since),
        "spec": { "podCIDR": node.pod_cidr.first.to_string(), "podCIDRs": node.pod_cidr.iter().collect::<Vec<_>>() },
        "status": {
            "addresses": addresses,
            "nodeInfo": { "kubeletVersion": concat!("podlab ", env!("CARGO_PKG_VERSION")) },
        },
        "podlab": besides(cluster, &format!("node/{name}"), since),
    })
}

/// A Kubernetes namespace. A lab has one.
pub fn namespace(cluster: &Cluster, since: SystemTime) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": NAMESPACE, "creationTimestamp": time::rfc3339(since) },
        "status": { "phase": "Active" },
        "podlab": besides(cluster, "namespace/default", since),
    })
}
