//! Packets that must pass after an ADD: a connection to each mapped port, and a datagram whose sender is the node.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kernel::netns::Netns;

use crate::attachment::Attachment;
use crate::node::{NEAR, Node, OUTSIDE};
use crate::shape::{GATEWAY, HOST_PORT, POD_PORT, Shape};

/// How long a packet may take; a first one may be lost while the port comes up.
const LIMIT: Duration = Duration::from_secs(4);

/// What does not pass, for the shapes that promise something.
pub(crate) fn check(node: &Node, shape: &Shape, pod: &Netns, attachment: &Attachment) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for n in (0..shape.ports).take(1).chain((1..shape.ports).rev().take(1)) {
        wrong.extend(mapping(node, pod, attachment, n)?);
    }
    if shape.masquerade {
        wrong.extend(masquerade(node, pod)?);
    }
    Ok(wrong)
}

/// A connection from the node to its n-th mapped port must reach a listener in the pod.
fn mapping(node: &Node, pod: &Netns, attachment: &Attachment, n: u16) -> Result<Option<String>> {
    let ip = attachment.nets.first().context("an address")?.ip();
    let listener = pod.run(|| TcpListener::bind((ip, POD_PORT + n)))?.context("listen in the pod")?;
    listener.set_nonblocking(true).context("listen without waiting")?;
    let to = SocketAddr::from((GATEWAY, HOST_PORT + n));
    match node.netns.run(|| TcpStream::connect_timeout(&to, LIMIT))? {
        Err(error) => Ok(Some(format!("port {}: {error}", to.port()))),
        Ok(_) => Ok(listener.accept().err().map(|_| format!("port {}: another answered", to.port()))),
    }
}

/// What the pod sends outside must come from the node's address.
fn masquerade(node: &Node, pod: &Netns) -> Result<Option<String>> {
    let outside = node.outside.as_ref().context("a world outside")?;
    let server = outside.run(|| UdpSocket::bind((OUTSIDE, 9)))?.context("listen outside")?;
    server.set_read_timeout(Some(Duration::from_millis(20))).context("set a time limit")?;
    let client = pod.run(|| UdpSocket::bind("0.0.0.0:0"))?.context("open a socket in the pod")?;
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        // Until the route is of use the kernel may refuse.
        let _ = client.send_to(b"x", (OUTSIDE, 9));
        match kernel::uninterrupted(|| server.recv_from(&mut [0; 8])) {
            Ok((_, from)) if from.ip() == NEAR => return Ok(None),
            Ok((_, from)) => return Ok(Some(format!("a datagram came from {}", from.ip()))),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("receive outside"),
        }
    }
    Ok(Some("no datagram came outside".into()))
}
