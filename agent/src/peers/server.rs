//! Answers whoever asks with the address that it is seen as. A datagram is answered from the address that was asked, which
//! is not always the one that the kernel would choose.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage,
    setsockopt, sockopt,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::wire;

/// How many clients are answered at a time by TCP.
const CLIENTS: usize = 64;
/// How long one may take to be answered.
const PATIENCE: Duration = Duration::from_secs(5);
/// A pause after the process had no descriptor for another client.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest question that is read: an IPv4 packet's whole length.
const LONGEST: usize = 65_535;

/// Listens on all addresses of the node.
#[derive(Debug)]
pub struct Server {
    node: Arc<str>,
    tcp: TcpListener,
    udp: UdpSocket,
    family: AddressFamily,
}

impl Server {
    /// Listens on `port`, [`super::PORT`] in a cluster, in the calling thread's namespace. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// The port is taken (EADDRINUSE), or a socket cannot be had.
    pub fn bind(node: &str, port: u16) -> io::Result<Server> {
        // One socket takes both IP versions; where the kernel has no IPv6, there is one version.
        let (family, any) = match socket(AddressFamily::Inet6, SockType::Datagram) {
            Err(Errno::EAFNOSUPPORT) => (AddressFamily::Inet, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            _ => (AddressFamily::Inet6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        };
        let address = SockaddrStorage::from(SocketAddr::new(any, port));
        let tcp = socket(family, SockType::Stream)?;
        setsockopt(&tcp, sockopt::ReuseAddr, &true)?;
        socket::bind(tcp.as_raw_fd(), &address)?;
        socket::listen(&tcp, socket::Backlog::new(128)?)?;
        let udp = socket(family, SockType::Datagram)?;
        match family {
            AddressFamily::Inet => setsockopt(&udp, sockopt::Ipv4PacketInfo, &true)?,
            _ => setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        socket::bind(udp.as_raw_fd(), &address)?;
        let (tcp, udp) = (TcpListener::from_std(tcp.into())?, UdpSocket::from_std(udp.into())?);
        Ok(Server { node: node.into(), tcp, udp, family })
    }

    /// Answers until the future is dropped.
    pub async fn serve(self) {
        let datagrams = datagrams(&self.udp, self.family, &self.node);
        tokio::join!(connections(&self.tcp, &self.node), datagrams);
    }
}

fn socket(family: AddressFamily, kind: SockType) -> Result<OwnedFd, Errno> {
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    Ok(fd)
}

async fn connections(tcp: &TcpListener, node: &Arc<str>) {
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match tcp.accept().await {
            Ok((client, from)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, greet(client, &node, from.ip())).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn greet(mut client: TcpStream, node: &str, from: IpAddr) -> io::Result<()> {
    client.write_all(wire::line(node, from).as_bytes()).await?;
    client.shutdown().await
}

async fn datagrams(udp: &UdpSocket, family: AddressFamily, node: &str) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let answered = udp.async_io(Interest::READABLE, || one(udp, family, node, &mut buffer)).await;
        if answered.is_err() {
            // Of another client, such as a port that is closed again.
            tokio::task::yield_now().await;
        }
    }
}

/// Reads a datagram and answers it.
fn one(udp: &UdpSocket, family: AddressFamily, node: &str, buffer: &mut [u8]) -> io::Result<()> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = socket::recvmsg::<SockaddrStorage>(
        udp.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let (len, from) = (received.bytes, received.address);
    let mut asked = None;
    for message in received.cmsgs()? {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => asked = Some(Asked::V4(info)),
            ControlMessageOwned::Ipv6PacketInfo(info) => asked = Some(Asked::V6(info)),
            _ => {}
        }
    }
    let Some(from) = from else { return Ok(()) };
    let Some(seen) = ip(&from, family) else { return Ok(()) };
    let Some(answer) = wire::answer(&parts[0][..len], node, seen) else { return Ok(()) };
    let parts = [IoSlice::new(&answer)];
    let send = |control: &[ControlMessage<'_>]| {
        socket::sendmsg(udp.as_raw_fd(), &parts, control, MsgFlags::MSG_DONTWAIT, Some(&from))
    };
    // The route decides about the link, the question about the source.
    match asked {
        Some(Asked::V4(mut info)) => {
            (info.ipi_ifindex, info.ipi_spec_dst) = (0, info.ipi_addr);
            send(&[ControlMessage::Ipv4PacketInfo(&info)])?;
        }
        Some(Asked::V6(mut info)) => {
            info.ipi6_ifindex = 0;
            send(&[ControlMessage::Ipv6PacketInfo(&info)])?;
        }
        None => drop(send(&[])?),
    }
    Ok(())
}

/// Where a datagram was sent to.
enum Asked {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

fn ip(address: &SockaddrStorage, family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => address.as_sockaddr_in().map(|it| it.ip().into()),
        _ => address.as_sockaddr_in6().map(|it| it.ip().into()),
    }
}
