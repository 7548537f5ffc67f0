//! `kubectl port-forward`: a port of this machine's localhost, carried into a pod.
//!
//! It is no route and no translation: for each connection a second one is made inside the pod's network namespace, from
//! the pod's own localhost, and bytes are copied between the two. So the app sees 127.0.0.1, no frame of it is on any
//! interface but lo, and a pod that is replaced takes the forwarding with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use super::Kind;
use super::client::Lab;
use super::parse::{PortForwardArgs, one};
use crate::cli::enter_user_namespace;
use crate::exit::{self, Failure};
use crate::output;

/// Descriptors' places among those that a lab hands over: see [`crate::control::Request::Enter`].
const USER: usize = 0;
const NETWORK: usize = 3;

/// A port of localhost and the pod's port behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    /// 0 means any that is free.
    local: u16,
    remote: u16,
}

impl std::str::FromStr for Pair {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let number = |part: &str| match part.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(Failure::usage(format!("error parsing port {text:?}: ports are 1 to 65535"))),
        };
        match text.split_once(':') {
            None => Ok(Self { local: number(text)?, remote: number(text)? }),
            Some(("", remote)) => Ok(Self { local: 0, remote: number(remote)? }),
            Some((local, remote)) => Ok(Self { local: number(local)?, remote: number(remote)? }),
        }
    }
}

pub(super) fn forward(lab: &Lab, args: &PortForwardArgs) -> Result<u8, Failure> {
    let pairs: Vec<Pair> = args.ports.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let (pod, pairs) = target(lab, &args.what, pairs)?;
    let mut listeners = Vec::new();
    for pair in pairs {
        let cannot = |err: io::Error| {
            Failure::new(exit::FAILED, format!("unable to listen on port {}: {err}", pair.local))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, pair.local)).map_err(cannot)?;
        let local = listener.local_addr().map_err(cannot)?;
        output::print(&format!("Forwarding from {local} -> {}\n", pair.remote))?;
        listeners.push((listener, local.port(), pair.remote));
    }
    // From here on this process may enter the pod's namespaces; what it listens on stays where it is.
    let user = namespace(lab, &pod, USER).map(|user| enter_user_namespace(&user));
    if !matches!(user, Some(Ok(()))) {
        return Err(Failure::new(exit::FAILED, format!("cannot enter the lab of pod {pod}")));
    }
    loop {
        for (listener, local, remote) in ready(&listeners)? {
            let Ok((stream, _)) = listener.accept() else { continue };
            output::print(&format!("Handling connection for {local}\n"))?;
            let Some(netns) = namespace(lab, &pod, NETWORK) else {
                return Err(Failure::new(exit::FAILED, "lost connection to pod"));
            };
            let (local, remote) = (*local, *remote);
            std::thread::spawn(move || {
                if let Err(err) = carry(stream, &netns, remote) {
                    eprintln!("error: an error occurred forwarding {local} -> {remote}: {err}");
                }
            });
        }
    }
}

/// The pod, and the ports as it has them: of a service those of its pods.
fn target(lab: &Lab, what: &str, mut pairs: Vec<Pair>) -> Result<(String, Vec<Pair>), Failure> {
    let words =
        if what.contains('/') { vec![what.to_owned()] } else { vec!["pod".to_owned(), what.to_owned()] };
    let (kind, name) = one(&words)?;
    let object = lab.get(kind, std::slice::from_ref(&name), None)?.swap_remove(0);
    let selector = match kind {
        Kind::Pod => return Ok((name, pairs)),
        Kind::ReplicationController | Kind::Service => &object["spec"]["selector"],
        other => return Err(Failure::usage(format!("cannot forward to a {other}"))),
    };
    for port in object["spec"]["ports"].as_array().into_iter().flatten() {
        let number = |key: &str| port[key].as_u64().and_then(|port| u16::try_from(port).ok());
        for pair in pairs.iter_mut().filter(|pair| Some(pair.remote) == number("port")) {
            pair.remote = number("targetPort").unwrap_or(pair.remote);
        }
    }
    let labels: crate::labels::Labels = serde_json::from_value(selector.clone()).unwrap_or_default();
    let none = || Failure::new(exit::FAILED, format!("no pod behind {kind}/{name}"));
    if labels.is_empty() {
        return Err(none());
    }
    let pods = lab.get(Kind::Pod, &[], Some(&crate::labels::joined(&labels)))?;
    let first = pods.first().and_then(|pod| pod["metadata"]["name"].as_str());
    first.map(|pod| (pod.to_owned(), pairs)).ok_or_else(none)
}

/// Waits until somebody knocks; the listeners where that is so.
fn ready(listeners: &[(TcpListener, u16, u16)]) -> Result<Vec<&(TcpListener, u16, u16)>, Failure> {
    let mut waiting: Vec<PollFd<'_>> =
        listeners.iter().map(|listener| PollFd::new(listener.0.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut waiting, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => {
            return Err(Failure::new(exit::FAILED, format!("wait for connections: {}", errno.desc())));
        }
    }
    let knocked = waiting.iter().map(|fd| fd.any().unwrap_or(false));
    Ok(listeners.iter().zip(knocked).filter(|(_, knocked)| *knocked).map(|(listener, _)| listener).collect())
}

/// One of the pod's namespaces, if there is the pod.
fn namespace(lab: &Lab, pod: &str, place: usize) -> Option<File> {
    let mut namespaces: Vec<File> = lab.connect().ok()?.enter(Some(pod)).ok()?;
    (namespaces.len() > place).then(|| namespaces.swap_remove(place))
}

/// Copies until both sides have ended, on a thread of its own, which goes to the pod for good.
fn carry(stream: TcpStream, netns: &File, port: u16) -> io::Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let inside = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    std::thread::scope(|scope| {
        scope.spawn(|| copy(&stream, &inside));
        copy(&inside, &stream);
    });
    Ok(())
}

/// One direction. Its end is passed on; a broken connection ends it too.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
            Ok(_) => break,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                // The other direction has nothing to wait for any more.
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_kubectl_has_them() {
        let pair = |text: &str| text.parse::<Pair>().map(|pair| (pair.local, pair.remote)).ok();
        assert_eq!(pair("8888:8080"), Some((8888, 8080)));
        assert_eq!(pair("8080"), Some((8080, 8080)));
        assert_eq!(pair(":8080"), Some((0, 8080)));
        for wrong in ["", "x", "8888:", "0:8080", "8888:0", "99999", "1:2:3"] {
            assert_eq!(pair(wrong), None, "{wrong}");
        }
    }
}
