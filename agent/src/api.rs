//! The way to the Kubernetes API: finding it, and hearing of every change.
//!
//! Each kind of object is watched by a task of its own, which begins with all that there are, goes on with each change,
//! and begins anew when the connection is lost. What it hears goes into one queue, as [`Change`]s.

use std::env;
use std::fmt::Debug;
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
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::model::{Change, Cluster, Key};
use crate::wire;

/// The kubelet's own way to the API, which is there before any pod network and without kube-proxy.
pub const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// How long one API may take to answer whether it is there at all before the next is tried.
const PATIENCE: Duration = Duration::from_secs(3);

/// Objects in one answer while all are listed.
const PAGE: u32 = 500;

/// Connects to the API: by `kubeconfig` where it is given; otherwise by the pod's service account, at the address
/// in the environment; where nobody answers there, because kube-proxy is not yet or never, at the server
/// that the kubelet's own configuration names, still as the service account.
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
    config.read_timeout = None;
    let first = answering(config.clone()).await;
    let Err(first) = first else { return first };
    let second = async {
        let kubelet = env::var("PODNET_KUBELET_CONFIG").unwrap_or_else(|_| KUBELET_CONFIG.to_owned());
        let file = Kubeconfig::read_from(&kubelet).with_context(|| format!("read {kubelet}"))?;
        let server = server(&file).ok_or_else(|| anyhow!("{kubelet} names no server"))?;
        let mut config = config.clone();
        config.cluster_url = server.parse().with_context(|| format!("server {server:?} of {kubelet}"))?;
        // The certificate has the name by which it is reached here.
        config.tls_server_name = None;
        answering(config).await
    };
    second.await.map_err(|second| {
        anyhow!(
            "the API answers neither at its service's address ({first:#}) nor at the kubelet's ({second:#})"
        )
    })
}

async fn by_file(path: &Path) -> Result<Client> {
    let at = || format!("kubeconfig {}", path.display());
    let file = Kubeconfig::read_from(path).with_context(at)?;
    let mut config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(at)?;
    config.read_timeout = None;
    Client::try_from(config).with_context(at)
}

fn server(file: &Kubeconfig) -> Option<String> {
    file.clusters.iter().find_map(|it| it.cluster.as_ref()?.server.clone())
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
