//! What the agent tells over HTTP, on port 10180: `/healthz` (the process works), `/readyz` (the node's pods have their
//! network), `/status` (all of it, as JSON), `/metrics`.
//!
//! It only tells: nothing can be changed here, and nothing secret is known here. Whoever reaches the node may ask, as with
//! the kubelet's and kube-proxy's health.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::{self, Counters};
use crate::status::{Board, PATIENCE, Status};

/// How many connections there may be at once, of all listeners of one call.
const MOST_CONNECTIONS: usize = 64;
/// How long a client may take for the head of a request, and for a connection as a whole.
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(60);
/// The longest head of a request, in bytes.
const MOST_HEAD: usize = 8 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Listens on an address; in the place of all of IPv6 and IPv4 (`[::]`) on those of IPv4, where a kernel has no IPv6.
///
/// # Errors
/// It cannot be had; another agent may have it.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let mut listener = TcpListener::bind(address).await;
    let lacks_ipv6 = |err: &std::io::Error| err.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32);
    if address.ip() == Ipv6Addr::UNSPECIFIED && listener.as_ref().is_err_and(lacks_ipv6) {
        listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
    }
    listener.with_context(|| {
        format!("listen on {address} · try: end the program that has it, another podnetd perhaps")
    })
}

/// Answers on a listener until the process ends.
pub async fn serve(listener: TcpListener, board: Board, counters: Counters) -> Infallible {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // One client's bad luck (ECONNABORTED, EMFILE) is no reason to leave the others.
        let (Ok(permit), Ok((stream, _))) =
            (Arc::clone(&room).acquire_owned().await, listener.accept().await)
        else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (board, counters) = (board.clone(), counters.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(request.method(), request.uri().path(), &board, &counters);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(async move {
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MOST_HEAD);
            // A client that goes away in the middle, or never does, is its own affair.
            let served = connection.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION, served).await;
            drop(permit);
        });
    }
}

fn answer(method: &Method, path: &str, board: &Board, counters: &Counters) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
    }
    match path {
        "/healthz" => {
            let silent = board.silent_for();
            if silent > PATIENCE {
                let text = format!("the main loop has said nothing for {} s\n", silent.as_secs());
                return respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text);
            }
            respond(StatusCode::OK, TEXT, "ok\n".to_owned())
        }
        "/readyz" => {
            let status = board.status();
            let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(code, TEXT, readiness(&status))
        }
        "/status" => match serde_json::to_string_pretty(&board.status()) {
            Ok(text) => respond(StatusCode::OK, JSON, text + "\n"),
            Err(err) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{err}\n")),
        },
        "/metrics" => respond(StatusCode::OK, METRICS, metrics::render(&board.status(), counters)),
        _ => respond(StatusCode::NOT_FOUND, TEXT, "/healthz /readyz /status /metrics\n".to_owned()),
    }
}

/// What `/readyz` says: each condition with its reason, those that fail first, as the kubelet shows only the beginning.
pub fn readiness(status: &Status) -> String {
    let mut text = String::new();
    for state in status.failing() {
        let _ = writeln!(text, "[-] {}: {}", state.condition.name(), state.reason);
    }
    for state in status.conditions.iter().filter(|it| it.met) {
        let _ = writeln!(text, "[+] {}: {}", state.condition.name(), state.reason);
    }
    if let Some(lost) = &status.api_lost {
        let _ = writeln!(text, "[i] the connection to the API is lost: {lost}");
    }
    for (title, note) in &status.notes {
        let _ = writeln!(text, "[i] {title}: {note}");
    }
    text
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::status::Condition;

    /// A request over a connection of its own; the whole answer.
    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn what_the_board_says_is_what_is_told() {
        let board = Board::new("node1");
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, board.clone(), Counters::default()));

        let text = ask(address, "GET /readyz").await;
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        for condition in Condition::ALL {
            assert!(text.contains(&format!("[-] {}: not looked at yet\n", condition.name())), "{text}");
            board.report(condition, Ok("as it should be".to_owned()));
        }
        board.note("other networks", Some("10-kindnet.conflist".to_owned()));
        let text = ask(address, "GET /readyz").await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        assert!(text.ends_with("[i] other networks: 10-kindnet.conflist\n"), "{text}");
        board.report(Condition::Routes, Err("no route to 10.244.1.0/24".to_owned()));
        let text = ask(address, "GET /readyz").await;
        assert!(text.contains("\r\n\r\n[-] routes: no route to 10.244.1.0/24\n[+] api: "), "{text}");

        let text = ask(address, "GET /status").await;
        let document: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(document["schema"], "podnetd.status/1");
        assert_eq!(document["ready"], false);
        assert_eq!(document["conditions"][4]["condition"], "routes");
        assert_eq!(document["conditions"][4]["met"], false);

        let text = ask(address, "GET /metrics").await;
        assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
        assert!(
            text.contains("\npodnet_ready 0\n") && text.contains("\npodnet_condition{condition=\"api\"} 1\n"),
            "{text}"
        );

        assert!(ask(address, "GET /healthz").await.ends_with("\r\n\r\nok\n"));
        assert!(ask(address, "HEAD /healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(ask(address, "POST /healthz").await.starts_with("HTTP/1.1 405 "));
        assert!(ask(address, "GET /").await.starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn a_main_loop_that_hangs_is_not_healthy() {
        let (board, counters) = (Board::new("node1"), Counters::default());
        let healthy = || answer(&Method::GET, "/healthz", &board, &counters).status();
        assert_eq!(healthy(), StatusCode::OK);
        board.silence(PATIENCE + Duration::from_secs(1));
        assert_eq!(healthy(), StatusCode::INTERNAL_SERVER_ERROR);
        board.beat();
        assert_eq!(healthy(), StatusCode::OK);
    }
}
