//! One datagram from one namespace to another: proof that a way exists, and whose address it carries at its end.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kernel::{Netns, uninterrupted};

/// How long a datagram may be on its way; the first one waits for ARP or neighbour discovery.
const PATIENCE: Duration = Duration::from_secs(5);

/// The source address that a datagram from `sender` has when it arrives at `to` in `receiver`.
///
/// # Errors
/// The address is not the receiver's, the sender has no route, or nothing arrives.
pub fn source_seen(sender: &Netns, receiver: &Netns, to: IpAddr) -> Result<IpAddr> {
    let bind = |address: IpAddr| move || UdpSocket::bind(SocketAddr::new(address, 0));
    let there = receiver.run(bind(to))?.with_context(|| format!("listen on {to}"))?;
    there.set_read_timeout(Some(PATIENCE)).context("set a time-out")?;
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let here = sender.run(bind(any))?.context("make a socket")?;
    here.send_to(b"podnet", there.local_addr()?).with_context(|| format!("send to {to}"))?;
    let mut buffer = [0; 16];
    let (length, from) =
        uninterrupted(|| there.recv_from(&mut buffer)).with_context(|| format!("wait for it at {to}"))?;
    ensure!(&buffer[..length] == b"podnet", "another datagram came to {to} from {from}");
    Ok(from.ip())
}
