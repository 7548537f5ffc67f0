//! kubia: the app in every pod. It says which host was hit and logs who came.
//!
//! An HTTP server and a UDP echo on one port, on one thread. It routes nothing, keeps no state and speaks no TLS; the
//! name and the greeting are those of the seed document's own container. SIGUSR1 has it listen on localhost only, as an
//! app that was written on somebody's laptop, SIGUSR2 on all addresses again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

use crate::packet::Nonce;

/// The port that kubia listens on, TCP and UDP.
pub const PORT: u16 = 8080;
/// The header that gives the request's nonce back.
pub const NONCE_HEADER: &str = "podlab-nonce";
/// The header that tells the client which address kubia saw.
pub const REMOTE_HEADER: &str = "podlab-remote";

/// Serves [`PORT`] on all addresses of the calling thread's namespace until the process ends. `ready` is called when
/// both sockets listen; the log, one line per request, goes to standard output before the answer is sent.
pub fn run(host: &str, ready: impl FnOnce()) -> io::Result<Infallible> {
    serve(host, io::stdout(), ready)
}

/// As [`run`], with the log going elsewhere.
pub fn serve(host: &str, log: impl Write + 'static, ready: impl FnOnce()) -> io::Result<Infallible> {
    let log = Log(Rc::new(RefCell::new(log)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut orders = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
        let mut reach = Reach::All;
        let mut ready = Some(ready);
        loop {
            let tcp = listen(reach, TcpListener::bind).await?;
            let udp = listen(reach, UdpSocket::bind).await?;
            let second = match reach {
                Reach::All => None,
                Reach::Localhost => localhost_v6().await,
            };
            if let Some(ready) = ready.take() {
                ready();
            }
            let serve = async {
                let both = async |tcp, udp| {
                    tokio::try_join!(serve_http(tcp, host, log.clone()), serve_udp(udp, host, log.clone()))
                };
                match second {
                    Some((tcp_v6, udp_v6)) => {
                        tokio::try_join!(both(tcp, udp), both(tcp_v6, udp_v6)).map(|it| it.0)
                    }
                    None => both(tcp, udp).await,
                }
            };
            reach = tokio::select! {
                ended = serve => return ended.map(|(never, _)| never),
                _ = orders.0.recv() => Reach::Localhost,
                _ = orders.1.recv() => Reach::All,
            };
        }
    })
}

/// Who can reach kubia.
#[derive(Debug, Clone, Copy)]
enum Reach {
    All,
    Localhost,
}

/// Listens on the IPv6 wildcard, which takes IPv4 too, or on the IPv4 one where the kernel has no IPv6; or on IPv4's
/// localhost.
async fn listen<T, F: Future<Output = io::Result<T>>>(
    reach: Reach,
    bind: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let address: IpAddr = match reach {
        Reach::All => match bind((Ipv6Addr::UNSPECIFIED, PORT).into()).await {
            Ok(socket) => return Ok(socket),
            Err(_) => Ipv4Addr::UNSPECIFIED.into(),
        },
        Reach::Localhost => Ipv4Addr::LOCALHOST.into(),
    };
    bind((address, PORT).into()).await
}

/// IPv6's localhost; where there is no IPv6, it is nobody's.
async fn localhost_v6() -> Option<(TcpListener, UdpSocket)> {
    let own = SocketAddr::from((Ipv6Addr::LOCALHOST, PORT));
    Some((TcpListener::bind(own).await.ok()?, UdpSocket::bind(own).await.ok()?))
}

async fn serve_http(listener: TcpListener, host: &str, log: Log) -> io::Result<Infallible> {
    let host: Rc<str> = host.into();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                // One client's bad luck (ECONNABORTED, EMFILE) is no reason to leave the others.
                let Ok((stream, from)) = listener.accept().await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let (host, log) = (host.clone(), log.clone());
                let answer = service_fn(move |request: Request<Incoming>| {
                    let response = answer(&host, from, &request, &log);
                    async move { response }
                });
                tokio::task::spawn_local(async move {
                    // A client that goes away in the middle is its own affair.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        })
        .await
}

fn answer(
    host: &str,
    from: SocketAddr,
    request: &Request<Incoming>,
    log: &Log,
) -> io::Result<Response<Full<Bytes>>> {
    let remote = from.ip().to_canonical();
    let path = request.uri().path();
    log.line(format_args!(
        "Received request from {remote} port {} {} {path}",
        from.port(),
        request.method()
    ))?;
    let mut response = Response::new(Full::new(Bytes::from(format!("You've hit {host}\n"))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let mut put = |name: &'static str, value: String| {
        headers.extend(
            HeaderValue::try_from(value).ok().map(|v| (hyper::header::HeaderName::from_static(name), v)),
        );
    };
    put(REMOTE_HEADER, remote.to_string());
    if let Some(nonce) = Nonce::find(path.as_bytes()) {
        put(NONCE_HEADER, nonce.marked());
    }
    Ok(response)
}

async fn serve_udp(socket: UdpSocket, host: &str, log: Log) -> io::Result<Infallible> {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error about an earlier answer is reported here; the next datagram is not concerned.
        let Ok((n, from)) = socket.recv_from(&mut buffer).await else { continue };
        let remote = from.ip().to_canonical();
        let nonce = Nonce::find(&buffer[..n]).map(Nonce::marked).unwrap_or_default();
        log.line(format_args!("Received datagram from {remote} port {} {nonce}", from.port()))?;
        let _ = socket.send_to(format!("You've hit {host}\n{nonce}\n{remote}\n").as_bytes(), from).await;
    }
}

/// Where requests are logged, by every connection of the one thread.
#[derive(Clone)]
struct Log(Rc<RefCell<dyn Write>>);

impl Log {
    /// One line, one write: readers of the log never see half of it.
    fn line(&self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        let mut out = self.0.borrow_mut();
        out.write_all(format!("{line}\n").as_bytes())?;
        out.flush()
    }
}

/// Who kubia says a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// The remote address.
    pub remote: IpAddr,
    /// The remote port.
    pub port: u16,
}

/// Reads a log: the visits by nonce. Lines of other requests are passed over.
pub fn visits(log: &str) -> HashMap<Nonce, Visit> {
    log.lines().filter_map(visit).collect()
}

fn visit(line: &str) -> Option<(Nonce, Visit)> {
    let rest = line.strip_prefix("Received request from ").or(line.strip_prefix("Received datagram from "))?;
    let (remote, rest) = rest.split_once(" port ")?;
    let (port, rest) = rest.split_once(' ')?;
    let visit = Visit { remote: remote.parse().ok()?, port: port.parse().ok()? };
    Some((Nonce::find(rest.as_bytes())?, visit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_read_by_nonce() {
        let log = "Received request from 10.244.1.2 port 40000 GET /podlab/0000000000000000000000000000002a\n\
                   Received request from 10.244.1.3 port 40001 GET /\n\
                   Received datagram from fd00::2 port 53 podlab/0000000000000000000000000000002b\n\
                   Received request from nobody port 1 GET /podlab/0000000000000000000000000000002c\n\
                   Received request from 10.244.1.4 po";
        let visits = visits(log);
        assert_eq!(visits.len(), 2);
        assert_eq!(visits[&Nonce(0x2a)], Visit { remote: [10, 244, 1, 2].into(), port: 40000 });
        assert_eq!(visits[&Nonce(0x2b)], Visit { remote: "fd00::2".parse().unwrap(), port: 53 });
    }
}
