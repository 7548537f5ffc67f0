//! The manifests: each is what Kubernetes takes, and says what the code does.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, HTTPGetAction, PodSpec, ServiceAccount, Volume,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{image_name, text};
use crate::places::{Places, STATUS_PORT};

/// The documents of a file.
fn documents(path: &str) -> Vec<Value> {
    let text = text(path);
    let documents = text.split("\n---\n").map(|it| serde_saphyr::from_str(it).unwrap());
    documents.collect()
}

/// The document of a kind; every key of it must be one that Kubernetes knows.
fn document<T: DeserializeOwned + Serialize>(path: &str, kind: &str) -> T {
    let found: Vec<Value> = documents(path).into_iter().filter(|it| it["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind} in {path}");
    let typed: T = serde_json::from_value(found[0].clone()).unwrap();
    let known = serde_json::to_value(&typed).unwrap();
    if let Err(unknown) = all_known(&found[0], &known) {
        panic!("{path}: {kind} has no {unknown}");
    }
    typed
}

/// Whether all that is written is in what was understood; else what is not.
fn all_known(written: &Value, known: &Value) -> Result<(), String> {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => written.iter().try_for_each(|(key, value)| {
            let known = known.get(key).ok_or_else(|| key.clone())?;
            all_known(value, known).map_err(|inner| format!("{key}.{inner}"))
        }),
        (Value::Array(written), Value::Array(known)) if written.len() == known.len() => {
            let mut pairs = written.iter().zip(known).enumerate();
            pairs.try_for_each(|(i, (a, b))| all_known(a, b).map_err(|inner| format!("{i}.{inner}")))
        }
        (written, known) if written == known => Ok(()),
        (written, known) => Err(format!("{written} (but {known})")),
    }
}

fn pod(path: &str) -> PodSpec {
    document::<DaemonSet>(path, "DaemonSet").spec.template.spec.unwrap()
}

const FILES: [&str; 2] = ["deploy/podnet.yaml", "deploy/uninstall.yaml"];

fn containers(spec: &PodSpec) -> Vec<&Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers).collect()
}

#[test]
fn a_key_that_kubernetes_does_not_know_is_seen() {
    let written = serde_json::json!({ "spec": { "containers": [{ "imagePullPolice": "Never" }] } });
    let known = serde_json::json!({ "spec": { "containers": [{ "name": "" }], "more": 1 } });
    assert_eq!(all_known(&written, &known).unwrap_err(), "spec.containers.0.imagePullPolice");
}

#[test]
fn the_role_has_the_rights_that_the_code_uses_and_the_account_has_the_role() {
    let role: ClusterRole = document("deploy/podnet.yaml", "ClusterRole");
    let mut given = BTreeSet::new();
    for rule in role.rules.unwrap() {
        assert_eq!((rule.resource_names, rule.non_resource_urls), (None, None));
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.iter().flatten() {
                given.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
            }
        }
    }
    assert_eq!(given, crate::tell::rights());
    let account: ServiceAccount = document("deploy/podnet.yaml", "ServiceAccount");
    let binding: ClusterRoleBinding = document("deploy/podnet.yaml", "ClusterRoleBinding");
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
    let subjects = binding.subjects.unwrap();
    assert_eq!(subjects.len(), 1);
    assert_eq!(Some(&subjects[0].name), account.metadata.name.as_ref());
    assert_eq!(subjects[0].namespace, account.metadata.namespace);
    assert_eq!(pod("deploy/podnet.yaml").service_account_name, account.metadata.name);
    assert_eq!(documents("deploy/podnet.yaml").len(), 4, "and nothing else is made");
    assert_eq!(pod("deploy/uninstall.yaml").automount_service_account_token, Some(false));
}

#[test]
fn containers_may_do_what_they_need_and_no_more() {
    for path in FILES {
        let spec = pod(path);
        assert_eq!((spec.host_network, spec.host_pid, spec.host_ipc), (Some(true), None, None));
        for container in containers(&spec) {
            let security = container.security_context.clone().unwrap();
            assert_eq!(security.privileged, Some(false));
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.read_only_root_filesystem, Some(true));
            let capabilities = security.capabilities.unwrap();
            assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
            assert_eq!(capabilities.add, Some(vec!["NET_ADMIN".to_owned(), "DAC_OVERRIDE".to_owned()]));
            assert_eq!(container.image, Some(image_name()));
            let requests = container.resources.clone().unwrap().requests.unwrap();
            assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("10m", "16Mi"));
        }
        let volumes = spec.volumes.unwrap();
        let of_api: Vec<&Volume> = volumes.iter().filter(|it| it.host_path.is_none()).collect();
        // No secret; and what is not there on every cluster stops no pod.
        let maps: Vec<_> = of_api.iter().filter_map(|it| it.config_map.as_ref()).collect();
        assert_eq!((of_api.len(), maps.len()), if path == FILES[0] { (2, 2) } else { (0, 0) }, "{volumes:?}");
        assert!(maps.iter().all(|it| it.optional == Some(true)), "{maps:?}");
        let files = volumes.iter().filter_map(|it| it.host_path.as_ref()?.type_.as_deref());
        assert!(files.into_iter().all(|it| it.starts_with("Directory")), "a file that a node may not have");
    }
}

#[test]
fn paths_are_the_nodes_own_and_those_of_the_code() {
    let places = Places::default();
    let mut expected: Vec<(String, String, bool)> = [
        places.plugins(),
        places.configurations(),
        places.reservations().parent().unwrap().to_owned(),
        places.run(),
    ]
    .map(|it| (it.display().to_string(), it.display().to_string(), false))
    .to_vec();
    expected.push(("/proc/sys/net".to_owned(), "/host/proc/sys/net".to_owned(), false));
    // kubeadm's ConfigMaps and their keys (cmd/kubeadm/app/constants: `KubeProxyConfigMap`, `KubeProxyKubeConfigFileName`,
    // `KubeadmConfigConfigMap`, `ClusterConfigurationConfigMapKey`).
    for (map, file) in
        [("kube-proxy", crate::api::PROXY_CONFIG), ("kubeadm-config", crate::api::KUBEADM_CONFIG)]
    {
        let (dir, key) = file.rsplit_once('/').unwrap();
        expected.push((format!("{map} {key} as {key}"), dir.to_owned(), true));
    }
    expected.sort();
    for path in FILES {
        let spec = pod(path);
        let volumes = spec.volumes.clone().unwrap();
        for container in containers(&spec) {
            let mounts = container.volume_mounts.iter().flatten().map(|mount| {
                let volume = volumes.iter().find(|it| it.name == mount.name).unwrap();
                let map = |it: &ConfigMapVolumeSource| {
                    let items = it.items.iter().flatten().map(|it| format!("{} as {}", it.key, it.path));
                    format!("{} {}", it.name, items.collect::<Vec<_>>().join(" "))
                };
                let of_api = || map(volume.config_map.as_ref().unwrap());
                let on_node = volume.host_path.as_ref().map_or_else(of_api, |it| it.path.clone());
                (on_node, mount.mount_path.clone(), mount.read_only == Some(true))
            });
            let mut mounts: Vec<_> = mounts.collect();
            mounts.sort();
            // Who asks nothing of the API needs no way to it.
            let is_agent = path == "deploy/podnet.yaml";
            let wanted: Vec<_> = expected.iter().filter(|it| is_agent || !it.2).cloned().collect();
            assert_eq!(mounts, wanted, "{path}");
        }
    }
}

#[test]
fn probes_ask_where_the_agent_answers() {
    let spec = pod("deploy/podnet.yaml");
    let container = &spec.containers[0];
    let asked = |probe: &Option<k8s_openapi::api::core::v1::Probe>| probe.clone().unwrap().http_get.unwrap();
    for (get, path) in
        [(asked(&container.liveness_probe), "/healthz"), (asked(&container.readiness_probe), "/readyz")]
    {
        let wanted = HTTPGetAction {
            host: Some("127.0.0.1".to_owned()),
            port: IntOrString::Int(STATUS_PORT.into()),
            path: Some(path.to_owned()),
            ..HTTPGetAction::default()
        };
        assert_eq!(get, wanted);
    }
    let ports: Vec<i32> = container.ports.iter().flatten().map(|it| it.container_port).collect();
    assert!(ports.contains(&STATUS_PORT.into()), "{ports:?}");
}

#[test]
fn kind_is_told_to_leave_the_network_to_us() {
    for (path, family) in [("deploy/kind.yaml", None), ("deploy/kind-dual-stack.yaml", Some("dual"))] {
        let documents = documents(path);
        assert_eq!(documents.len(), 1);
        let cluster = &documents[0];
        assert_eq!(
            (&cluster["kind"], &cluster["apiVersion"]),
            (&"Cluster".into(), &"kind.x-k8s.io/v1alpha4".into())
        );
        assert_eq!(cluster["networking"]["disableDefaultCNI"], true);
        assert_eq!(cluster["networking"]["ipFamily"].as_str(), family);
        let roles: Vec<&str> =
            cluster["nodes"].as_array().unwrap().iter().filter_map(|it| it["role"].as_str()).collect();
        assert_eq!(roles, ["control-plane", "worker", "worker"]);
    }
}
