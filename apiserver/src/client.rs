//! A client of the API that waits: each request is made inside the namespace that the client is for, as one user.
//!
//! Objects are JSON; what is created or applied goes where its `apiVersion`, `kind` and metadata say, as the API itself
//! tells which kinds it has.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures_util::TryStreamExt;
use http::{Method, Request};
use kernel::Netns;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use kube::{Config, Error};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Who has made a change, as server-side apply asks.
const MANAGER: &str = "podnet";
/// How long a request may take, unless [`Client::patience`] says otherwise; generous, as machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// A user's way to the API.
pub struct Client {
    netns: Netns,
    runtime: Runtime,
    client: kube::Client,
    patience: Duration,
    /// What the API has told of each of its groups, by path.
    kinds: Mutex<HashMap<String, Value>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("netns", &self.netns).finish_non_exhaustive()
    }
}

/// The API's refusal of a request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{request}: {code} {reason}: {message}")]
pub struct Refused {
    /// Method and path.
    pub request: String,
    /// The HTTP status: 403 what the user may not, 404 what is not there, 409 what is there already.
    pub code: u16,
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// What a watch tells of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is new, or was there when the watch began.
    Added(Value),
    /// It has changed.
    Modified(Value),
    /// It is gone.
    Deleted(Value),
}

impl Client {
    /// A client inside `netns`, as the user of a kubeconfig.
    ///
    /// # Errors
    /// The file cannot be understood.
    pub fn new(netns: &Netns, kubeconfig: &Path) -> Result<Client> {
        let at = || format!("kubeconfig {}", kubeconfig.display());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let file = Kubeconfig::read_from(kubeconfig).with_context(at)?;
        let client = runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            kube::Client::try_from(config.with_context(at)?).with_context(at)
        })?;
        let netns =
            Netns::from(std::os::fd::AsFd::as_fd(netns).try_clone_to_owned().context("share a namespace")?);
        Ok(Client { netns, runtime, client, patience: PATIENCE, kinds: Mutex::default() })
    }

    /// The same with another limit of time for each request.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Client {
        self.patience = limit;
        self
    }

    /// What is at a path, such as `/api/v1/nodes/n0`: an object or a list.
    ///
    /// # Errors
    /// [`Refused`], or there is no answer.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.request(Method::GET, path, "", None)
    }

    /// What is at a path that is no object's, such as `/readyz`.
    ///
    /// # Errors
    /// [`Refused`], or there is no answer.
    pub fn text(&self, path: &str) -> Result<String> {
        let request = Request::get(path).body(Vec::new())?;
        self.wait(&format!("GET {path}"), self.client.request_text(request))
    }

    /// Makes an object, where its kind and namespace say.
    ///
    /// # Errors
    /// [`Refused`], as when it is there already, or there is no answer.
    pub fn create(&self, object: &Value) -> Result<Value> {
        self.post(&self.path_of(object, false)?, object)
    }

    /// Sends a document to a path, such as `/api/v1/namespaces/NAMESPACE/serviceaccounts/NAME/token`.
    ///
    /// # Errors
    /// [`Refused`], or there is no answer.
    pub fn post(&self, path: &str, document: &Value) -> Result<Value> {
        self.request(Method::POST, path, "application/json", Some(document))
    }

    /// Makes an object or changes the one that is there, by server-side apply.
    ///
    /// # Errors
    /// [`Refused`], or there is no answer.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let path = format!("{}?fieldManager={MANAGER}&force=true", self.path_of(object, true)?);
        self.request(Method::PATCH, &path, "application/apply-patch+yaml", Some(object))
    }

    /// Changes the object at a path by a JSON merge patch (RFC 7386).
    ///
    /// # Errors
    /// [`Refused`], or there is no answer.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<Value> {
        self.request(Method::PATCH, path, "application/merge-patch+json", Some(patch))
    }

    /// Changes the status of the object at a path: `status` is merged into it.
    ///
    /// # Errors
    /// [`Refused`], or there is no answer.
    pub fn set_status(&self, path: &str, status: &Value) -> Result<Value> {
        self.patch(&format!("{path}/status"), &serde_json::json!({ "status": status }))
    }

    /// Deletes the object at a path at once, without grace.
    ///
    /// # Errors
    /// [`Refused`], as when there is none, or there is no answer.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.request(Method::DELETE, &format!("{path}?gracePeriodSeconds=0"), "", None)
    }

    /// Watches the collection at a path until `done` says so of an event; `act` is called when the watch has begun.
    ///
    /// # Errors
    /// [`Refused`], or the event does not come in time.
    pub fn watch(
        &self,
        path: &str,
        act: impl FnOnce() -> Result<()>,
        mut done: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let request = Request::get(format!("{path}?watch=true&allowWatchBookmarks=false")).body(Vec::new())?;
        let what = format!("watch {path}");
        let mut events = self.wait(&what, self.client.request_events::<Value>(request)).map(Box::pin)?;
        act()?;
        loop {
            let event =
                match self.wait(&what, events.try_next())?.with_context(|| format!("{what}: ended"))? {
                    WatchEvent::Added(object) => Event::Added(object),
                    WatchEvent::Modified(object) => Event::Modified(object),
                    WatchEvent::Deleted(object) => Event::Deleted(object),
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(status) => return Err(anyhow!("{what}: {}", status.message)),
                };
            if done(&event) {
                return Ok(event);
            }
        }
    }

    /// The path of an object, or, without its name, of the collection that it belongs to.
    ///
    /// # Errors
    /// It lacks `apiVersion`, `kind` or name, or the API has no such kind.
    pub fn path_of(&self, object: &Value, named: bool) -> Result<String> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let version = text("/apiVersion").with_context(|| format!("no apiVersion in {object}"))?;
        let kind = text("/kind").with_context(|| format!("no kind in {object}"))?;
        let group = format!("/{}/{version}", if version.contains('/') { "apis" } else { "api" });
        let known = self.kinds.lock().map_err(|_| anyhow!("a request panicked"))?.get(&group).cloned();
        let kinds = match known {
            Some(kinds) => kinds,
            None => {
                let kinds = self.get(&group)?;
                self.kinds
                    .lock()
                    .map_err(|_| anyhow!("a request panicked"))?
                    .insert(group.clone(), kinds.clone());
                kinds
            }
        };
        let mut all = kinds["resources"].as_array().into_iter().flatten();
        let found = all
            .find(|it| it["kind"] == kind && it["name"].as_str().is_some_and(|name| !name.contains('/')))
            .with_context(|| format!("the API has no kind {kind} in {version}"))?;
        let mut path = group;
        if found["namespaced"] == true {
            write!(path, "/namespaces/{}", text("/metadata/namespace").unwrap_or("default"))?;
        }
        write!(path, "/{}", found["name"].as_str().unwrap_or_default())?;
        if named {
            let name = text("/metadata/name").with_context(|| format!("no name in {object}"))?;
            write!(path, "/{name}")?;
        }
        Ok(path)
    }

    fn request(&self, method: Method, path: &str, content: &str, body: Option<&Value>) -> Result<Value> {
        let what = format!("{method} {path}");
        ensure!(path.starts_with('/'), "{what}: no absolute path");
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, content);
        }
        let request = request.body(body.map(Value::to_string).unwrap_or_default().into_bytes())?;
        self.wait(&what, self.client.request(request))
    }

    /// Waits for an answer; meanwhile the thread is in the client's namespace.
    fn wait<T>(&self, what: &str, answer: impl Future<Output = kube::Result<T>>) -> Result<T> {
        let answered = self
            .netns
            .run(|| self.runtime.block_on(async { tokio::time::timeout(self.patience, answer).await }))
            .context("enter the namespace of a client")?;
        match answered {
            Err(_) => Err(anyhow!("{what}: no answer within {:?}", self.patience)),
            Ok(Err(Error::Api(status))) => Err(Refused {
                request: what.to_owned(),
                code: status.code,
                reason: status.reason,
                message: status.message,
            }
            .into()),
            Ok(answer) => answer.with_context(|| what.to_owned()),
        }
    }
}

/// The code with which the API refused a request, or `None` where something else went wrong.
pub fn refusal(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<Refused>().map(|refused| refused.code)
}
