//! How fast packets get through, by the kernel's own timestamps of each.
//!
//! All datagrams are handed over at once and wait in the qdisc, so that it is the qdisc's clock that spaces them and not
//! the sender's: a machine that is busy elsewhere does not make them slower. The rate is the median of many slopes of
//! bytes over time, each over half of the datagrams, so that one moment's delay at either end counts for nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::packet::PacketSocket;
use kernel::{Netns, link};
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};

/// Datagrams of one measurement.
const COUNT: u32 = 400;
/// Bytes of each, with all headers: 1000, 8 of UDP, 20 or 40 of IP, 14 of Ethernet.
const PAYLOAD: usize = 1000;
/// Starts every payload; the datagram's number follows.
const MARK: &[u8; 8] = b"how fast";

/// One way through the network.
pub(super) struct Way<'w> {
    pub(super) from: (&'w Netns, IpAddr),
    pub(super) to: (&'w Netns, IpAddr),
    /// The link in the receiving namespace at which they are timed, and whether they are leaving by it. What an ifb
    /// lets go is seen at the ifb only: at the link that it came in on it was seen before it had to wait.
    pub(super) by: (String, bool),
    /// Bytes that pass before the bucket is empty.
    pub(super) burst: usize,
}

/// Bytes per second, link-layer headers included, as the kernel counts them.
pub(super) fn measure(way: &Way<'_>) -> Result<f64> {
    let receiver = way.to.0.run(|| UdpSocket::bind((way.to.1, 0)))??;
    let to = receiver.local_addr()?;
    let sender = way.from.0.run(|| UdpSocket::bind((way.from.1, 0)))??;
    setsockopt(&sender, SndBufForce, &(16 << 20)).context("enlarge the send buffer")?;
    let by = link::by_name(&mut kernel::Rtnl::open_in(way.to.0)?, &way.by.0)?.index;
    // Neighbours are found before the clock starts.
    sender.send_to(b"hello", to)?;
    receiver.set_read_timeout(Some(Duration::from_secs(20)))?;
    kernel::uninterrupted(|| receiver.recv_from(&mut [0; 16]))
        .with_context(|| format!("nothing arrives at {to}"))?;

    let capture = PacketSocket::open_in(way.to.0)?;
    send(&sender, to)?;
    let arrivals = arrivals(&capture, (by, way.by.1))?;
    slope(&arrivals, way.burst)
}

fn send(sender: &UdpSocket, to: SocketAddr) -> Result<()> {
    let mut payload = [0; PAYLOAD];
    payload[..MARK.len()].copy_from_slice(MARK);
    for number in 0..COUNT {
        payload[MARK.len()..MARK.len() + 4].copy_from_slice(&number.to_be_bytes());
        sender.send_to(&payload, to)?;
    }
    Ok(())
}

/// When each datagram passed, and its length.
fn arrivals(capture: &PacketSocket, by: (u32, bool)) -> Result<Vec<(u64, usize)>> {
    let mut seen: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
    let mut buffer = [0; 2048];
    let deadline = Instant::now() + Duration::from_secs(30);
    while seen.len() < COUNT as usize {
        ensure!(Instant::now() < deadline, "{} of {COUNT} datagrams arrived", seen.len());
        let Some(frame) = capture.recv(&mut buffer)? else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let bytes = &buffer[..frame.len];
        let at = bytes.windows(MARK.len()).position(|window| window == MARK);
        let Some(at) = at.filter(|_| (frame.ifindex, frame.outgoing) == by) else { continue };
        let number: [u8; 4] = bytes[at + MARK.len()..at + MARK.len() + 4].try_into()?;
        seen.insert(u32::from_be_bytes(number), (frame.stamp_ns, frame.original_len));
    }
    let mut arrivals: Vec<_> = seen.into_values().collect();
    arrivals.sort_unstable();
    Ok(arrivals)
}

fn slope(arrivals: &[(u64, usize)], burst: usize) -> Result<f64> {
    let mut bytes = 0;
    let mut points = Vec::new();
    for (stamp, length) in arrivals {
        bytes += length;
        // What the bucket held at the start passes at once.
        if bytes > burst {
            points.push((*stamp as f64 / 1e9, bytes as f64));
        }
    }
    let half = points.len() / 2;
    ensure!(half >= 50, "{} datagrams behind the burst are too few", points.len());
    let mut slopes: Vec<f64> =
        (0..half).map(|i| (points[i + half].1 - points[i].1) / (points[i + half].0 - points[i].0)).collect();
    slopes.sort_by(f64::total_cmp);
    Ok(slopes[slopes.len() / 2])
}

#[test]
fn the_slope_is_that_of_the_packets_behind_the_burst() -> Result<()> {
    // 100 packets at once, then one of 1000 bytes a millisecond; the last is held up for a second.
    let mut arrivals: Vec<(u64, usize)> = (0..100).map(|i| (i, 1000)).collect();
    arrivals.extend((1..=200).map(|i| (i * 1_000_000, 1000)));
    arrivals.push((1_201_000_000, 1000));
    let rate = slope(&arrivals, 100_000)?;
    assert!((rate - 1e6).abs() < 1e4, "{rate}");
    // The negative control: without knowing of the burst it would be another.
    assert!(slope(&arrivals, 0)? > 1.2e6);
    Ok(())
}
