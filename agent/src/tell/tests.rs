//! Against an API server that writes down what it is asked: each request is one of the rights that the manifest gives, and
//! each of these rights is used.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

/// A request: method, path with query, body.
type Asked = Arc<Mutex<Vec<(Method, String, Value)>>>;

/// A server that has no objects and takes all.
async fn server() -> (Client, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let asked = Asked::default();
    let written = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = Arc::clone(&written);
            let service = service_fn(move |request| answer(request, Arc::clone(&asked)));
            tokio::spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (Client::try_from(Config::new(uri)).unwrap(), asked)
}

async fn answer(request: Request<Incoming>, asked: Asked) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    asked.lock().unwrap().push((head.method.clone(), head.uri.to_string(), body.clone()));
    let answer = match head.method {
        Method::GET => json!({ "metadata": { "resourceVersion": "1" }, "items": [] }).to_string(),
        Method::PATCH => json!({ "metadata": { "name": "node1" } }).to_string(),
        _ => body.to_string(),
    };
    // A watch that ends at once is begun anew, after a pause.
    let is_watch = head.uri.query().is_some_and(|query| query.contains("watch="));
    Ok(Response::new(Full::from(if is_watch { String::new() } else { answer })))
}

/// Group, resource and verb of a request, as RBAC names them.
fn right(method: &Method, uri: &str) -> (String, String, String) {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match words[..] {
        ["api", "v1", ref rest @ ..] => ("", rest),
        ["apis", group, "v1", ref rest @ ..] => (group, rest),
        _ => panic!("no resource: {uri}"),
    };
    let (resource, named) = match *rest {
        ["namespaces", _, resource] => (resource.to_owned(), false),
        [resource] => (resource.to_owned(), false),
        [resource, _] => (resource.to_owned(), true),
        [resource, _, sub] => (format!("{resource}/{sub}"), true),
        _ => panic!("no resource: {uri}"),
    };
    let verb = match (method.as_str(), named) {
        ("GET", true) => "get",
        ("GET", false) if query.contains("watch=") => "watch",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        (other, _) => panic!("no verb: {other}"),
    };
    (group.to_owned(), resource, verb.to_owned())
}

#[tokio::test]
async fn the_rights_are_what_is_asked_and_nothing_else() {
    let (client, asked) = server().await;
    let (sender, _receiver) = mpsc::channel(1000);
    crate::api::watch_all(&client, &sender);
    network_is_up(&client, "node1").await.unwrap();
    policies_are_not_enforced(&client, "node1", "no nft_ct").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let used: BTreeSet<_> =
            asked.lock().unwrap().iter().map(|(method, uri, _)| right(method, uri)).collect();
        if used == rights() {
            return;
        }
        assert!(used.is_subset(&rights()), "asked {used:?}, may {:?}", rights());
        assert!(Instant::now() < deadline, "asked {used:?}, may {:?}", rights());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_network_is_told_by_one_condition_and_nothing_else_of_the_node_is_touched() {
    let (client, asked) = server().await;
    network_is_up(&client, "node1").await.unwrap();
    let asked = asked.lock().unwrap();
    let (method, uri, body) = &asked[0];
    assert_eq!((method, uri.split('?').next()), (&Method::PATCH, Some("/api/v1/nodes/node1/status")));
    assert_eq!(body.as_object().unwrap().len(), 1);
    let conditions = body["status"]["conditions"].as_array().unwrap();
    assert_eq!((body["status"].as_object().unwrap().len(), conditions.len()), (1, 1));
    assert_eq!(
        (conditions[0]["type"].as_str(), conditions[0]["status"].as_str(), conditions[0]["reason"].as_str()),
        (Some("NetworkUnavailable"), Some("False"), Some("PodnetIsUp"))
    );
}

#[tokio::test]
async fn a_kernel_that_cannot_enforce_policies_is_told_where_describe_node_shows_it() {
    let (client, asked) = server().await;
    policies_are_not_enforced(&client, "node1", &"ß".repeat(2000)).await.unwrap();
    let asked = asked.lock().unwrap();
    let (_, uri, body) = &asked[0];
    assert_eq!(uri.split('?').next(), Some("/api/v1/namespaces/default/events"));
    assert_eq!(
        body["involvedObject"],
        json!({"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": "node1"})
    );
    assert_eq!(
        (body["type"].as_str(), body["reason"].as_str()),
        (Some("Warning"), Some("NetworkPolicyNotEnforced"))
    );
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("NetworkPolicies are not enforced on this node: ß") && message.len() <= 1024);
}
