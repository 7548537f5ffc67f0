//! Many plugins at once: no address twice, none lost, nothing left.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::packet::PacketSocket;
use podnet_tests::world::{NETWORK, is_reservation};
use podnet_tests::{Side, World};

/// Calls `work(0)` … `work(jobs - 1)` from `threads` threads; each call starts a process and waits for it.
fn spread(threads: usize, jobs: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs {
                        return;
                    }
                    if let Err(error) = work(job) {
                        failures.lock().unwrap_or_else(|e| e.into_inner()).push(format!("{job}: {error:#}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    ensure!(failures.is_empty(), "{} of {jobs} failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

const SLASH_22: &str = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.0.0/22"}}"#;

fn allocate(world: &World, id: usize) -> Result<String> {
    let result = world
        .call("host-local", "ADD")
        .config("1.0.0", SLASH_22)
        .container(&format!("c{id}"))
        .run()?
        .result()?;
    Ok(result["ips"][0]["address"].as_str().context("no address")?.to_owned())
}

#[test]
fn a_thousand_allocations_by_32_processes_give_a_thousand_addresses() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let seen = Mutex::new(BTreeSet::new());
    spread(32, 1000, |id| {
        let address = allocate(&world, id)?;
        let fresh = seen.lock().unwrap_or_else(|e| e.into_inner()).insert(address.clone());
        ensure!(fresh, "{address} was given twice");
        Ok(())
    })?;
    let seen = seen.into_inner().unwrap_or_else(|e| e.into_inner());
    assert_eq!(seen.len(), 1000);
    let held: BTreeSet<String> =
        world.reservations(NETWORK)?.into_iter().map(|ip| format!("{ip}/22")).collect();
    assert_eq!(held, seen, "the directory holds other addresses than were given out");
    spread(32, 1000, |id| {
        let call = |verb| {
            world.call("host-local", verb).config("1.0.0", SLASH_22).container(&format!("c{id}")).run()
        };
        call("CHECK")?.silent()?;
        call("DEL")?.silent()
    })?;
    assert_eq!(world.reservations(NETWORK)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn an_exhausted_range_gives_each_address_once_and_then_refuses() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.0.0/26"}}"#;
    let (given, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    spread(16, 100, |id| {
        let outcome =
            world.call("host-local", "ADD").config("1.0.0", text).container(&format!("c{id}")).run()?;
        if outcome.exit == Some(0) {
            given.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let error = outcome.error()?;
        ensure!(error.msg.contains("no IP addresses available in range set"), "{error:?}");
        refused.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })?;
    // 64 addresses less network, gateway and broadcast.
    assert_eq!((given.into_inner(), refused.into_inner()), (61, 39));
    assert_eq!(world.reservations(NETWORK)?.len(), 61);
    Ok(())
}

#[test]
fn allocations_and_releases_at_once_lose_nothing() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.0.0/26"}}"#;
    spread(16, 300, |id| {
        let call =
            |verb| world.call("host-local", verb).config("1.0.0", text).container(&format!("c{id}")).run();
        call("ADD")?.result()?;
        call("CHECK")?.silent()?;
        call("DEL")?.silent()
    })?;
    assert_eq!(world.reservations(NETWORK)?, Vec::<String>::new());
    Ok(())
}

const BRIDGE: &str = r#"{"bridge":"par0","isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#;

/// From the 64th port on a child of the plugin announces the address, and the kernel until then: both are heard.
#[test]
fn the_address_of_a_new_pod_is_announced_to_the_others_however_many_they_are() -> Result<()> {
    const PODS: usize = 68;
    let world = World::new(Side::Podnet, PODS)?;
    let add = |pod: usize| world.call("bridge", "ADD").config("1.0.0", BRIDGE).pod(pod).run()?.result();
    let announced = |pod: usize| -> Result<()> {
        let capture = PacketSocket::open_in(&world.pods[0])?;
        let result = add(pod)?;
        let ip: Ipv4Addr = result["ips"][0]["address"]
            .as_str()
            .context("no address")?
            .parse::<kernel::IpNetwork>()
            .map(|net| net.ip().to_string().parse())??;
        let mac = result["interfaces"][2]["mac"].as_str().context("no MAC")?;
        let mac: Vec<u8> =
            mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        // An ARP request with sender and target the new address (RFC 5227, section 3).
        let wanted =
            [&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1][..], &mac, &ip.octets(), &[0; 6], &ip.octets()]
                .concat();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut buffer = [0; 256];
        while Instant::now() < deadline {
            match capture.recv(&mut buffer)? {
                Some(frame) if buffer[..frame.len].get(12..12 + wanted.len()) == Some(&wanted[..]) => {
                    return Ok(());
                }
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        anyhow::bail!("{ip} of pod {pod} was not announced")
    };
    add(0)?;
    announced(1)?;
    spread(8, PODS - 4, |pod| add(pod + 2).map(drop))?;
    announced(PODS - 2)?;
    announced(PODS - 1)
}

#[test]
fn sixty_four_pods_at_once_on_a_bridge_that_is_not_there_yet() -> Result<()> {
    const PODS: usize = 64;
    let world = World::new(Side::Podnet, PODS)?;
    let results = Mutex::new(vec![serde_json::Value::Null; PODS]);
    spread(32, PODS, |pod| {
        let result = world.call("bridge", "ADD").config("1.0.0", BRIDGE).pod(pod).run()?.result()?;
        results.lock().unwrap_or_else(|e| e.into_inner())[pod] = result;
        Ok(())
    })?;
    let results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    let snapshot = world.snapshot()?;
    let ports =
        snapshot.facts.iter().filter(|(path, value)| path.ends_with("/master") && *value == "par0").count();
    assert_eq!(ports, PODS, "ports on the bridge");
    for address in ["10.1.0.1_24", "2001:db8:1::1_64"] {
        let path = format!("host/addr/par0/{address}/scope");
        assert!(snapshot.facts.get(&path).is_some(), "{path} is missing");
    }
    for (pod, result) in results.iter().enumerate() {
        world.call("bridge", "CHECK").config("1.0.0", BRIDGE).pod(pod).prev(result).run()?.silent()?;
    }
    spread(32, PODS, |pod| {
        world.call("bridge", "DEL").config("1.0.0", BRIDGE).pod(pod).prev(&results[pod]).run()?.silent()
    })?;
    nothing_left(&world)
}

/// Half of the pods fail after the bridge was made: their undoing must not take the bridge from the other half.
#[test]
fn a_failing_add_does_not_take_the_bridge_from_its_neighbours() -> Result<()> {
    const PODS: usize = 24;
    let world = World::new(Side::Podnet, PODS)?;
    let broken = r#"{"bridge":"par0","isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
        "ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"2001:db8:1::/64"}]],
        "routes":[{"dst":"192.168.0.0/16","gw":"172.31.0.1"}]}}"#;
    spread(16, PODS, |pod| {
        let text = if pod % 2 == 0 { BRIDGE } else { broken };
        let outcome = world.call("bridge", "ADD").config("1.0.0", text).pod(pod).run()?;
        ensure!(outcome.exit == Some(if pod % 2 == 0 { 0 } else { 1 }), "{outcome:?}");
        Ok(())
    })?;
    let snapshot = world.snapshot()?;
    let ports =
        snapshot.facts.iter().filter(|(path, value)| path.ends_with("/master") && *value == "par0").count();
    assert_eq!(ports, PODS / 2, "ports on the bridge");
    for path in ["host/addr/par0/10.1.0.1_24/scope", "host/addr/par0/2001:db8:1::1_64/scope"] {
        assert!(snapshot.facts.get(path).is_some(), "{path} is missing");
    }
    assert_eq!(snapshot.facts.get("host/sysctl/net/ipv4/ip_forward"), Some("1"));
    assert_eq!(world.reservations(NETWORK)?.len(), PODS, "two addresses of each pod that succeeded");
    spread(16, PODS, |pod| world.call("bridge", "DEL").config("1.0.0", BRIDGE).pod(pod).run()?.silent())?;
    nothing_left(&world)
}

fn nothing_left(world: &World) -> Result<()> {
    let snapshot = world.snapshot()?;
    let left: Vec<_> =
        snapshot.host.macs.keys().filter(|link| !["lo", "par0"].contains(&link.as_str())).collect();
    ensure!(left.is_empty(), "links left on the node: {left:?}");
    for (pod, reading) in snapshot.pods.iter().enumerate() {
        ensure!(reading.macs.keys().eq(["lo"]), "links left in pod {pod}: {:?}", reading.macs);
    }
    let names: Vec<_> = std::fs::read_dir(world.data().join(NETWORK))?
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    ensure!(!names.iter().any(|name| is_reservation(name)), "reservations left: {names:?}");
    Ok(())
}
