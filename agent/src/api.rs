//! The way to the Kubernetes API: finding it, and hearing of every change.
//!
//! Each kind of object is watched by a task of its own, which begins with all that there are, goes on with each change,
//! and begins anew when the connection is lost. What it hears goes into one queue, as [`Change`]s.

use std::fmt::Debug;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::model::{Change, Cluster, Key};
use crate::wire;

/// kube-proxy's own way to the API as kubeadm and kind write it down, in the ConfigMap `kube-proxy`: of use before kube-proxy
/// has made the API's service address one that answers. The manifest mounts it where there is one.
pub const PROXY_CONFIG: &str = "/etc/podnet/kube-proxy/kubeconfig.conf";

/// kubeadm's description of a cluster, in the ConfigMap `kubeadm-config`: of use in a cluster without kube-proxy, where it
/// names the API for all nodes, as kind's does. The manifest mounts it where there is one.
pub const KUBEADM_CONFIG: &str = "/etc/podnet/kubeadm/ClusterConfiguration";

/// The port of an API of which none is said (kubeadm's `bindPort`).
const API_PORT: u16 = 6443;

/// How long a connection to the API may be silent: every watch hears a bookmark about once a minute. One that hears nothing
/// has lost its way, as when the node's own address has changed, and is begun anew.
const SILENCE: Duration = Duration::from_secs(150);

/// How long one API may take to answer whether it is there at all before the next is tried.
const PATIENCE: Duration = Duration::from_secs(3);

/// Objects in one answer while all are listed.
const PAGE: u32 = 500;

/// Connects to the API: by `kubeconfig` where it is given; otherwise by the pod's service account, at the address
/// in the environment; where nobody answers there, because kube-proxy is not there yet or never, at the server that
/// kube-proxy's configuration names ([`PROXY_CONFIG`]) or kubeadm's ([`KUBEADM_CONFIG`]), still as the service account.
///
/// # Errors
/// That none of them answered, with what each said.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client> {
    if let Some(path) = kubeconfig {
        return by_file(path).await;
    }
    let mut config = Config::incluster_env()
        .or_else(|_| Config::incluster())
        .context("find the API: no --kubeconfig, and no service account of a pod")?;
    config.read_timeout = Some(SILENCE);
    let first = answering(config.clone()).await;
    let Err(first) = first else { return first };
    let second = async {
        let Some((server, file)) = elsewhere(PROXY_CONFIG.as_ref(), KUBEADM_CONFIG.as_ref())? else {
            bail!("no ConfigMap of kubeadm names another: neither {PROXY_CONFIG} nor {KUBEADM_CONFIG} does");
        };
        let mut config = config.clone();
        config.cluster_url =
            server.parse().with_context(|| format!("server {server:?} of {}", file.display()))?;
        // The certificate has the name by which it is reached here.
        config.tls_server_name = None;
        answering(config).await
    };
    second.await.map_err(|second| {
        anyhow!(
            "the API answers neither at its service's address ({first:#}) nor at the nodes' own ({second:#})"
        )
    })
}

async fn by_file(path: &Path) -> Result<Client> {
    let at = || format!("kubeconfig {}", path.display());
    let file = Kubeconfig::read_from(path).with_context(at)?;
    let mut config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(at)?;
    config.read_timeout = Some(SILENCE);
    Client::try_from(config).with_context(at)
}

/// The server that kube-proxy's configuration names, or else kubeadm's, and by which file. `None` where neither is there:
/// clusters without kubeadm have none.
fn elsewhere<'p>(proxy: &'p Path, kubeadm: &'p Path) -> Result<Option<(String, &'p Path)>> {
    if let Some(text) = read(proxy)? {
        let file = Kubeconfig::from_yaml(&text).with_context(|| format!("read {}", proxy.display()))?;
        let server = file.clusters.iter().find_map(|it| it.cluster.as_ref()?.server.clone());
        let server = server.ok_or_else(|| anyhow!("{} names no server", proxy.display()))?;
        return Ok(Some((server, proxy)));
    }
    let Some(text) = read(kubeadm)? else { return Ok(None) };
    let cluster: ClusterConfiguration =
        serde_saphyr::from_str(&text).with_context(|| format!("read {}", kubeadm.display()))?;
    let endpoint = cluster.control_plane_endpoint.filter(|it| !it.is_empty());
    Ok(endpoint.map(|it| (format!("https://{}", with_port(&it)), kubeadm)))
}

/// Of kubeadm's `ClusterConfiguration` (kubeadm.k8s.io/v1beta2 and later) what leads to the API.
#[derive(Debug, Deserialize)]
struct ClusterConfiguration {
    #[serde(rename = "controlPlaneEndpoint")]
    control_plane_endpoint: Option<String>,
}

/// A `controlPlaneEndpoint`: a name or an address, with or without a port; an IPv6 address with one stands in brackets.
fn with_port(endpoint: &str) -> String {
    match endpoint.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{API_PORT}"),
        Err(_) if endpoint.contains(':') && !endpoint.ends_with(']') => endpoint.to_owned(),
        Err(_) => format!("{endpoint}:{API_PORT}"),
    }
}

/// The text of a file. `None` where there is none, or nothing in it.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        text => {
            let text = text.with_context(|| format!("read {}", path.display()))?;
            Ok((!text.trim().is_empty()).then_some(text))
        }
    }
}

/// A client, once the API has said its version to it.
async fn answering(config: Config) -> Result<Client> {
    let server = config.cluster_url.clone();
    let client = Client::try_from(config).with_context(|| format!("client of {server}"))?;
    let asked = tokio::time::timeout(PATIENCE, client.apiserver_version()).await;
    asked
        .map_err(|_| anyhow!("{server}: no answer within {} s", PATIENCE.as_secs()))?
        .with_context(|| server.to_string())?;
    Ok(client)
}

/// What a watch tells.
#[derive(Debug)]
pub enum News {
    /// The cluster has changed.
    Change(Change),
    /// The watch of a kind of object failed; it goes on trying.
    Lost {
        /// The kind, such as `Node`.
        kind: &'static str,
        /// Why.
        error: String,
    },
}

/// Watches all that the agent keeps. Ends when nobody listens any more.
pub fn watch_all(client: &Client, to: &mpsc::Sender<News>) {
    let nodes = Changes {
        kept: wire::node,
        one: Change::Node,
        gone: |it| Change::NodeGone(it.name),
        all: Change::Nodes,
    };
    let pods = Changes { kept: wire::pod, one: Change::Pod, gone: Change::PodGone, all: Change::Pods };
    let namespaces = Changes {
        kept: wire::namespace,
        one: Change::Namespace,
        gone: |it| Change::NamespaceGone(it.name),
        all: Change::Namespaces,
    };
    let policies =
        Changes { kept: wire::policy, one: Change::Policy, gone: Change::PolicyGone, all: Change::Policies };
    tokio::spawn(watch(Api::<core::Node>::all(client.clone()), nodes, to.clone()));
    tokio::spawn(watch(Api::<core::Pod>::all(client.clone()), pods, to.clone()));
    tokio::spawn(watch(Api::<core::Namespace>::all(client.clone()), namespaces, to.clone()));
    tokio::spawn(watch(Api::<networking::NetworkPolicy>::all(client.clone()), policies, to.clone()));
}

/// The cluster as it is now, for a command that looks once.
///
/// # Errors
/// A kind of object cannot be listed.
pub async fn snapshot(client: &Client) -> Result<Cluster> {
    let (to, mut news) = mpsc::channel(64);
    watch_all(client, &to);
    let mut cluster = Cluster::default();
    let mut left = 4;
    while left > 0 {
        match news.recv().await {
            Some(News::Change(change)) => {
                left -= u8::from(change.is_all());
                cluster.take(change);
            }
            Some(News::Lost { kind, error }) => bail!("list objects of kind {kind}: {error}"),
            None => bail!("list the cluster's objects: the watches ended"),
        }
    }
    Ok(cluster)
}

/// How the events of one kind become changes.
struct Changes<K, T> {
    /// What is kept of an object; the rest of it is not held even while all are listed.
    kept: fn(K) -> T,
    one: fn(T) -> Change,
    gone: fn(Key) -> Change,
    all: fn(Vec<T>) -> Change,
}

async fn watch<K, T>(api: Api<K>, changes: Changes<K, T>, to: mpsc::Sender<News>)
where
    T: Send + 'static,
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().page_size(PAGE);
    let mut events = watcher::watcher(api, config).default_backoff().boxed();
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => {
                all.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                all.push((changes.kept)(object));
                continue;
            }
            Ok(Event::InitDone) => (changes.all)(std::mem::take(&mut all)),
            Ok(Event::Apply(object)) => (changes.one)((changes.kept)(object)),
            Ok(Event::Delete(object)) => (changes.gone)(Key {
                namespace: object.namespace().unwrap_or_else(|| "default".to_owned()),
                name: object.name_any(),
            }),
            Err(error) => {
                let kind = std::any::type_name::<K>().rsplit("::").next().unwrap_or_default();
                let news = News::Lost { kind, error: error.to_string() };
                if to.send(news).await.is_err() {
                    return;
                }
                continue;
            }
        };
        if to.send(News::Change(change)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_kube_proxy_is_taken_where_there_is_one_and_missed_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (proxy, kubeadm) = (dir.path().join("kubeconfig.conf"), dir.path().join("ClusterConfiguration"));
        let found = || elsewhere(&proxy, &kubeadm).map(|it| it.map(|it| it.0));
        assert_eq!(found().unwrap(), None, "no such file");
        let inside = dir.path().join("kube-proxy/kubeconfig.conf");
        assert!(elsewhere(&inside, &inside).unwrap().is_none(), "no such directory");
        let proxys = |text: &str| {
            fs::write(&proxy, text).unwrap();
            found()
        };
        assert_eq!(proxys(" \n").unwrap(), None, "an empty file");
        // As kubeadm writes it.
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority: \
            /var/run/secrets/kubernetes.io/serviceaccount/ca.crt\n    server: https://kind-control-plane:6443\n  \
            name: default\ncontexts: []\nusers: []\n";
        assert_eq!(proxys(text).unwrap().as_deref(), Some("https://kind-control-plane:6443"));
        for text in ["clusters: [", "apiVersion: v1\nkind: Config\nclusters: []\n"] {
            let error = format!("{:#}", proxys(text).unwrap_err());
            assert!(error.contains("kubeconfig.conf"), "{error}");
        }
    }

    #[test]
    fn without_kube_proxy_kubeadms_own_way_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (proxy, kubeadm) = (dir.path().join("kubeconfig.conf"), dir.path().join("ClusterConfiguration"));
        let of = |text: &str| {
            fs::write(&kubeadm, text).unwrap();
            elsewhere(&proxy, &kubeadm).map(|it| it.map(|it| it.0))
        };
        for (endpoint, server) in [
            ("kind-control-plane:6443", "https://kind-control-plane:6443"),
            ("api.example", "https://api.example:6443"),
            ("192.0.2.1:443", "https://192.0.2.1:443"),
            ("\"2001:db8::1\"", "https://[2001:db8::1]:6443"),
            ("\"[2001:db8::1]:443\"", "https://[2001:db8::1]:443"),
            ("\"[2001:db8::1]\"", "https://[2001:db8::1]:6443"),
        ] {
            // As kubeadm writes it, with what else is in it.
            let text = format!(
                "apiServer:\n  extraArgs:\n    runtime-config: \"\"\napiVersion: kubeadm.k8s.io/v1beta2\n\
                controlPlaneEndpoint: {endpoint}\nkind: ClusterConfiguration\nnetworking:\n  podSubnet: 10.244.0.0/16\n"
            );
            assert_eq!(of(&text).unwrap().as_deref(), Some(server));
        }
        // A cluster of one control plane needs no common name for it.
        assert_eq!(of("kind: ClusterConfiguration\ncontrolPlaneEndpoint: \"\"\n").unwrap(), None);
        assert_eq!(of("kind: ClusterConfiguration\n").unwrap(), None);
        let error = format!("{:#}", of("controlPlaneEndpoint: [").unwrap_err());
        assert!(error.contains("ClusterConfiguration"), "{error}");
    }
}
