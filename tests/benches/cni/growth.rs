//! Cases at several points: what else is there must not make an operation dearer than the kernel makes it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use podnet_tests::bench::run::Unit;
use serde_json::json;

use crate::attachment::Attachment;
use crate::node::Node;
use crate::peer::Kind;
use crate::session::{Session, WARM_UP, pods, turn};
use crate::shape::{Link, NETWORK, Shape, plain};
use crate::spawn::{Call, run, text};
use crate::standard;
use crate::verify;

/// The first address that host-local gives.
const FIRST: u32 = u32::from_be_bytes([10, 88, 0, 2]);

/// host-local alone, beside so many reservations of others.
pub(crate) fn reservations(session: &mut Session<'_>) -> Result<()> {
    let points: &[u64] = if session.options.quick { &[0, 1000] } else { &[0, 1000, 10_000, 60_000] };
    let shape = plain(Link::Bridge);
    let pod = pods(1)?.remove(0);
    for &point in points {
        let mut nodes = session.nodes("reservations", &shape, |peer| match peer.kind {
            Kind::Netavark => false,
            Kind::Floor => !peer.announces(),
            Kind::Plugins => !peer.announces() && peer.has(&["host-local"]),
        })?;
        for node in &nodes {
            fill(&node.data().join(NETWORK), point)?;
        }
        let count = session.iterations(if point > 1000 { 4 } else { 1 }) + WARM_UP;
        for i in 0..count {
            for n in turn(i, nodes.len()) {
                let node = &mut nodes[n];
                let peer = node.peer.name.clone();
                let attachment = node.attachment(&shape, "eth0");
                match reserve_and_release(node, &shape, &pod, &attachment, point) {
                    Err(error) => session.fail("reservations", &peer, "ADD and DEL", &format!("{error:#}")),
                    Ok(_) if i < WARM_UP => {}
                    Ok(times) => {
                        for (operation, micros) in ["ADD", "DEL"].into_iter().zip(times) {
                            let (unit, samples) = (Unit::Microseconds, vec![micros]);
                            session.put("reservations", operation, Some(point), &peer, unit, samples);
                        }
                    }
                }
            }
        }
        for node in &nodes {
            fs::remove_dir_all(node.data()).context("remove the reservations")?;
        }
    }
    Ok(())
}

/// The reservations of `count` others, as host-local writes them.
fn fill(directory: &Path, count: u64) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    for n in 0..count as u32 {
        let path = directory.join(Ipv4Addr::from(FIRST + n).to_string());
        fs::write(&path, format!("{:064x}\r\neth0", u64::from(n) + 7)).context("write a reservation")?;
    }
    if count > 0 {
        let last = Ipv4Addr::from(FIRST + count as u32 - 1).to_string();
        fs::write(directory.join("last_reserved_ip.0"), last).context("write the last address")?;
    }
    Ok(())
}

/// One ADD and one DEL of host-local, or what they cannot do without.
fn reserve_and_release(
    node: &Node,
    shape: &Shape,
    pod: &kernel::netns::Netns,
    attachment: &Attachment,
    others: u64,
) -> Result<[f64; 2]> {
    let directory = node.data().join(NETWORK);
    let configuration = json!({
        "cniVersion": "1.0.0", "name": NETWORK, "type": "host-local", "ipam": shape.ipam(&node.data()),
    });
    let mut attachment = attachment.clone();
    let floor = |verb: &str, ip: &str| Call {
        program: node.peer.path.clone(),
        arguments: [verb, &text(&directory), ip, &attachment.id].map(str::to_owned).to_vec(),
        ..Call::default()
    };
    let spare = Ipv4Addr::from(FIRST + others as u32).to_string();
    let (add, del) = match node.peer.kind {
        Kind::Floor => (floor("reserve", &spare), floor("release", &spare)),
        _ => {
            let call = |verb: &str| node.plugin(verb, configuration.clone(), pod, &attachment);
            (call("ADD"), call("DEL"))
        }
    };
    let added = run(&node.netns, &add)?;
    ensure!(added.success, "ADD: {}", added.words());
    let ip = match node.peer.kind {
        Kind::Floor => spare,
        _ => {
            attachment.took(&added.stdout)?;
            attachment.nets.first().context("no address")?.ip().to_string()
        }
    };
    let taken = u32::from(ip.parse::<Ipv4Addr>().context("an IPv4 address")?) - FIRST;
    ensure!(u64::from(taken) >= others, "{ip} is another's");
    let owner = fs::read_to_string(directory.join(&ip)).with_context(|| format!("{ip} is not reserved"))?;
    ensure!(owner.starts_with(&attachment.id), "{ip} is reserved for {owner}");
    let deleted = run(&node.netns, &del)?;
    ensure!(deleted.success, "DEL: {}", deleted.words());
    ensure!(!directory.join(&ip).exists(), "{ip} is still reserved");
    Ok([added.micros, deleted.micros])
}

/// ADD of the first pod to the thousandth on one bridge. Peers share the pods' namespaces, each with a link of its own.
pub(crate) fn pods_on_one_bridge(session: &mut Session<'_>) -> Result<()> {
    let count = if session.options.quick { 50 } else { 1000 };
    let points = [1, 10, 50, 100, 250, 500, 1000].into_iter().filter(|point| *point <= count as u64);
    let points: Vec<u64> = points.collect();
    let shape = Shape { routes: false, ..plain(Link::Bridge) };
    let mut nodes = session.nodes("pods", &shape, |peer| match peer.kind {
        Kind::Netavark => false,
        Kind::Floor => !peer.announces(),
        Kind::Plugins => !peer.announces() && peer.has(&shape.plugins()),
    })?;
    let namespaces = pods(count)?;
    // The samples of a point are those of the pods around it.
    let at =
        |i: usize, reach: u64| points.iter().copied().rfind(|&point| (i as u64 + 1).abs_diff(point) <= reach);
    let mut attached: Vec<Vec<Attachment>> = nodes.iter().map(|_| Vec::new()).collect();
    for (i, pod) in namespaces.iter().enumerate() {
        for n in turn(i, nodes.len()) {
            let peer = nodes[n].peer.name.clone();
            let ifname = format!("eth{n}");
            let (mut attachment, cost) = match nodes[n].add(&shape, pod, &ifname) {
                Ok(done) => done,
                Err(error) => bail!("pod {} of {peer}: {error:#}", i + 1),
            };
            let wrong = verify::attached(&nodes[n], &shape, pod, &mut attachment)?;
            if !wrong.is_empty() {
                session.fail("pods", &peer, "ADD", &format!("pod {}: {}", i + 1, wrong.join("; ")));
            }
            attached[n].push(attachment);
            // The very first makes the bridge.
            let reach = if i < 8 { 4 } else { 12 };
            if let (Some(point), true) = (at(i, reach), i > 0) {
                session.put("pods", "ADD", Some(point), &peer, Unit::Microseconds, vec![cost.micros]);
            }
        }
    }
    for i in (0..count).rev().filter(|i| count <= 200 || i % 10 == 0) {
        for n in turn(i, nodes.len()) {
            let peer = nodes[n].peer.name.clone();
            let cost = nodes[n].del(&shape, &namespaces[i], &attached[n][i])?;
            let wrong = verify::gone(&nodes[n], &shape, &namespaces[i], &attached[n][i])?;
            if !wrong.is_empty() {
                session.fail("pods", &peer, "DEL", &format!("pod {}: {}", i + 1, wrong.join("; ")));
            } else if let Some(point) = at(i, 60) {
                session.put("pods", "DEL", Some(point), &peer, Unit::Microseconds, vec![cost.micros]);
            }
        }
    }
    Ok(())
}

/// A masqueraded ADD on a node whose nat table holds so many rules of a service proxy.
pub(crate) fn rules(session: &mut Session<'_>) -> Result<()> {
    let points: &[u64] = if session.options.quick { &[0, 500] } else { &[0, 5000] };
    let shape = Shape { masquerade: true, ..plain(Link::Bridge) };
    for &point in points {
        let nodes = session.nodes("rules", &shape, |peer| match peer.kind {
            Kind::Netavark => false,
            Kind::Floor => !peer.announces(),
            Kind::Plugins => !peer.announces() && peer.has(&shape.plugins()),
        })?;
        let rule = |n: u64| {
            let service = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + n as u32);
            format!("-A KUBE-SERVICES -d {service}/32 -p tcp -m tcp --dport 80 -j RETURN\n")
        };
        let all: String = (0..point).map(rule).collect();
        let head = "*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n";
        for node in &nodes {
            node.feed("iptables-restore", &["--noflush"], &format!("{head}{all}COMMIT\n"))?;
        }
        standard::measure_on(session, "rules", Some(point), shape, nodes)?;
    }
    Ok(())
}

/// ADD on a machine that has so many network namespaces more.
pub(crate) fn namespaces(session: &mut Session<'_>) -> Result<()> {
    let points: &[u64] = if session.options.quick { &[0, 100] } else { &[0, 1000] };
    let shape = plain(Link::Bridge);
    for &point in points {
        let _idle = pods(point as usize)?;
        let nodes = session.nodes("namespaces", &shape, |peer| match peer.kind {
            Kind::Netavark => false,
            Kind::Floor => !peer.announces(),
            Kind::Plugins => !peer.announces() && peer.has(&shape.plugins()),
        })?;
        standard::measure_on(session, "namespaces", Some(point), shape, nodes)?;
    }
    Ok(())
}
