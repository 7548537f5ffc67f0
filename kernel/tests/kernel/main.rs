//! The crate against the real kernel, one module for each of its areas.
//!
//! Every test works in network namespaces that it makes itself and holds by file descriptor, on a thread of its own;
//! when the test ends, however it ends, the kernel takes them down. Root is needed: without it the tests fail.

mod addresses;
mod batches;
mod bridges;
mod encryption;
mod events;
mod flows;
mod kinds;
mod links;
mod namespaces;
mod packets;
mod routes;
mod rules;
mod shaping;
mod sysctls;
mod taps;
mod traces;

use std::net::UdpSocket;
use std::time::Duration;

use kernel::link::{Change, Link, Veth};
use kernel::{IpNetwork, Netns, Rtnl, addr, link};

/// Runs `f` in a new namespace on a thread of its own, with a socket and the namespace.
fn in_netns<T: Send>(f: impl FnOnce(&mut Rtnl, &Netns) -> T + Send) -> T {
    let ns = Netns::create().expect("root and CONFIG_NET_NS");
    std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            ns.run(|| {
                let mut rtnl = Rtnl::open().expect("rtnetlink");
                f(&mut rtnl, &ns)
            })
            .expect("enter the namespace")
        });
        test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn net(text: &str) -> IpNetwork {
    text.parse().expect("an address and prefix length")
}

/// A veth pair within one namespace.
fn pair(rtnl: &mut Rtnl, name: &str, peer: &str) -> (Link, Link) {
    link::add_veth(rtnl, &Veth { name, peer, ..Veth::default() }).expect("veth");
    (link::by_name(rtnl, name).expect("near end"), link::by_name(rtnl, peer).expect("far end"))
}

fn up(rtnl: &mut Rtnl, index: u32) {
    link::set(rtnl, index, &Change { up: Some(true), ..Change::default() }).expect("up");
}

/// A veth with one end here and the other in `far`, both up, with 10.9.0.1/24 and fd09::1/64 here, 10.9.0.2/24 and
/// fd09::2/64 there.
fn wire_to(rtnl: &mut Rtnl, far: &Netns) -> (Link, Link, Rtnl) {
    use std::os::fd::AsFd;
    let veth = Veth { name: "near", peer: "far", up: true, peer_netns: Some(far.as_fd()), ..Veth::default() };
    link::add_veth(rtnl, &veth).expect("veth");
    let mut there = Rtnl::open_in(far).expect("rtnetlink");
    let near_end = link::by_name(rtnl, "near").expect("near end");
    let far_end = link::by_name(&mut there, "far").expect("far end");
    up(&mut there, far_end.index);
    let options = addr::AddrOptions { nodad: true, ..addr::AddrOptions::default() };
    for (end, rtnl, host) in [(&near_end, &mut *rtnl, 1), (&far_end, &mut there, 2)] {
        addr::add(rtnl, end.index, net(&format!("10.9.0.{host}/24")), &options).expect("IPv4");
        addr::add(rtnl, end.index, net(&format!("fd09::{host}/64")), &options).expect("IPv6");
    }
    assert!(link::wait_oper_up(rtnl, near_end.index, Duration::from_secs(5)).expect("carrier"));
    (near_end, far_end, there)
}

/// Sends datagrams from the calling thread's namespace to the far end's address.
fn send_to_far(count: usize) {
    let socket = UdpSocket::bind("10.9.0.1:0").expect("bind");
    for _ in 0..count {
        socket.send_to(b"probe", "10.9.0.2:9").expect("send");
    }
}
