//! `podlab serve`: the page on 127.0.0.1, for whoever has its address with the token.
//!
//! A lab that is up is asked as the verbs ask it, over its socket; without one there are the recorded walks. Who may ask is
//! decided in `gate`, what is answered in `api`; here are the connections and their limits.

mod api;
mod gate;
mod stream;
mod teaching;

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use api::Answer;
use gate::Gate;

use crate::lessons::Classroom;

/// How many connections there may be at once.
const MOST_CONNECTIONS: usize = 64;
/// How long a client may take for the head of a request, and for its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head and the longest body of a request, in bytes.
const MOST_HEAD: usize = 16 * 1024;
const MOST_BODY: usize = 64 * 1024;

/// What is served.
#[derive(Debug)]
pub struct Server {
    /// The lab's name; that of the lesson's own, once one was started.
    name: Mutex<String>,
    /// Walks from files, before those that podlab carries with it.
    pub walks: Vec<(String, Value)>,
    /// The packets of the last walk.
    packets: Mutex<Option<Vec<u8>>>,
    /// The last report.
    report: Mutex<Option<Value>>,
    /// Where lessons are; the language is that of each request.
    room: Classroom,
}

impl Server {
    /// A server of that lab, these walks, each with its identifier, and lessons.
    pub fn new(name: String, walks: Vec<(String, Value)>, room: Classroom) -> Server {
        Server { name: Mutex::new(name), walks, packets: Mutex::default(), report: Mutex::default(), room }
    }

    fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves on 127.0.0.1 until the process ends; port 0 is one that is free. Tells its address first.
    ///
    /// # Errors
    /// The port cannot be had.
    pub fn run(self, port: u16, mut tell: impl FnMut(&str) -> Result<()>) -> Result<Infallible> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .await
                .with_context(|| format!("listen on 127.0.0.1:{port} · try: --port 0"))?;
            let gate = Arc::new(Gate::new(listener.local_addr()?.port())?);
            tell(&gate.address())?;
            let (server, policy) = (Arc::new(self), HeaderValue::try_from(crate::page::policy())?);
            let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
            loop {
                let permit = Arc::clone(&room).acquire_owned().await?;
                // One client's bad luck (ECONNABORTED, EMFILE) is no reason to leave the others.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let (server, gate, policy) = (Arc::clone(&server), Arc::clone(&gate), policy.clone());
                let service = service_fn(move |request| {
                    let (server, gate, policy) = (Arc::clone(&server), Arc::clone(&gate), policy.clone());
                    async move { Ok::<_, Infallible>(answer(server, &gate, policy, request).await) }
                });
                tokio::spawn(async move {
                    let mut connection = http1::Builder::new();
                    connection.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MOST_HEAD);
                    // A client that goes away in the middle is its own affair.
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                    drop(permit);
                });
            }
        })
    }
}

/// An answer's body: whole, or events as they come.
enum Content {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<String>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Events(_) => SizeHint::default(),
        }
    }

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Events(events) => {
                events.poll_recv(context).map(|event| event.map(|text| Ok(Frame::data(text.into()))))
            }
        }
    }
}

async fn answer(
    server: Arc<Server>,
    gate: &Gate,
    policy: HeaderValue,
    request: Request<Incoming>,
) -> Response<Content> {
    let (head, body) = request.into_parts();
    let is_page = head.uri.path() == "/";
    let answer = if !gate.lets(&head.method, &head.uri, &head.headers) {
        Answer::error(
            StatusCode::FORBIDDEN,
            "forbidden: the page is opened by the address that podlab serve prints",
        )
    } else if !api::is_allowed(&head.method, head.uri.path()) {
        Answer::error(StatusCode::FORBIDDEN, "forbidden: this is not asked with that method")
    } else if head.method == Method::GET && head.uri.path() == "/api/events" {
        let (sender, receiver) = mpsc::channel(16);
        let name = server.name();
        tokio::task::spawn_blocking(move || stream::run(&name, &sender));
        return respond(StatusCode::OK, "text/event-stream", Content::Events(receiver), policy);
    } else {
        let read = tokio::time::timeout(PATIENCE, Limited::new(body, MOST_BODY).collect()).await;
        match read {
            Ok(Ok(body)) => {
                let work = move || api::answer(&server, &head.method, &head.uri, &body.to_bytes());
                let done = tokio::task::spawn_blocking(work).await;
                done.unwrap_or_else(|err| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &err.to_string()))
            }
            Ok(Err(err)) => Answer::error(StatusCode::BAD_REQUEST, &format!("the body: {err}")),
            Err(_) => Answer::error(StatusCode::BAD_REQUEST, "the body did not come in time"),
        }
    };
    let mut response = respond(answer.status, answer.kind, Content::Whole(Some(answer.body.into())), policy);
    if let (true, StatusCode::OK, Ok(cookie)) = (is_page, answer.status, gate.cookie().try_into()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    content: Content,
    policy: HeaderValue,
) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ] {
        headers.insert(name, value);
    }
    response
}
