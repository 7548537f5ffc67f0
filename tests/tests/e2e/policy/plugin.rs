//! `podnet-policy` in the chain of a node: a pod's first instant, and what is left when one part is missing.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::policy::program::LINKS;
use agent::policy::slots;
use anyhow::{Context, Result, ensure};
use kernel::packet::PacketSocket;
use kernel::{Netns, Rtnl, conntrack, link};
use podnet_tests::nodes::{Nodes, Pod, wait_until};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};
use serde_json::{Value, json};

use super::bed::add_pod;
use super::cases::policy;
use super::frames::{self, Tuple};
use super::node::{Agent, One, Talk};
use super::{make_table, nft};

/// Sends first packets of connections to one address without a pause.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: Option<JoinHandle<Result<()>>>,
    hears: PacketSocket,
    to: IpAddr,
    uplink: u32,
}

impl Flood {
    /// From the outside to the address that the node's next pod will have.
    fn start(one: &One, to: IpAddr) -> Result<Flood> {
        let find =
            |netns: &Netns, name: &str| -> Result<_> { Ok(link::by_name(&mut Rtnl::open_in(netns)?, name)?) };
        let (rack, uplink) = (find(&one.nodes.outside, "rack0")?, find(&one.node().netns, "eth0")?);
        let sends = PacketSocket::open_on(&one.nodes.outside, rack.index, &[])?;
        let (from, mac) = (rack.mac.context("a MAC")?, uplink.mac.context("a MAC")?);
        let source = Nodes::outside_address(0, false);
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let mut source_port = 1024;
            while !stopped.load(Ordering::Relaxed) {
                let tuple = Tuple { source, destination: to, protocol: 17, source_port, port: 80 };
                sends.send(&frames::frame(&tuple, from, mac))?;
                count.fetch_add(1, Ordering::Relaxed);
                source_port = if source_port == u16::MAX { 1024 } else { source_port + 1 };
                // About ten in a millisecond.
                std::thread::sleep(Duration::from_micros(100));
            }
            Ok(())
        });
        let hears = PacketSocket::open_in(&one.node().netns)?;
        Ok(Flood { stop, sent, thread: Some(thread), hears, to, uplink: uplink.index })
    }

    /// How many packets the node has sent on to the pod since the last time this was asked.
    fn passed(&self) -> Result<usize> {
        let (mut passed, mut buffer) = (0, [0; 256]);
        while let Some(frame) = self.hears.recv(&mut buffer)? {
            let to_pod = frame.outgoing && frame.ifindex != self.uplink;
            let tuple = frames::seen(&buffer[..frame.len.min(buffer.len())]);
            passed += usize::from(to_pod && tuple.is_some_and(|it| it.destination == self.to));
        }
        Ok(passed)
    }

    /// Waits until so many more were sent.
    fn go_on(&self, more: u32) -> Result<()> {
        let (until, started) = (self.sent.load(Ordering::Relaxed) + more, Instant::now());
        while self.sent.load(Ordering::Relaxed) < until {
            ensure!(started.elapsed() < Duration::from_secs(60), "nobody floods");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn deny_all() -> Value {
    policy("x", "deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
}

fn second_address() -> IpAddr {
    "10.244.0.2".parse().expect("an address")
}

#[test]
fn not_one_packet_reaches_a_pod_before_its_policy() -> Result<()> {
    let mut one = One::new(true)?;
    one.set_policies(&[deny_all()])?;
    // The API tells of a pod before the runtime makes it, and of its addresses afterwards.
    one.tell_pod("x", "a", &[])?;
    let agent = Agent::start(&one)?;
    let flood = Flood::start(&one, second_address())?;
    flood.go_on(50)?;
    let pod = add_pod(one.node(), "x", "a")?;
    ensure!(pod.ips[0] == second_address(), "the pod has another address: {:?}", pod.ips);
    ensure!(agent.hears()? == slots::Verb::Add);
    one.node().check_pod(&pod).context("CHECK right after ADD: the pod is armed")?;
    flood.go_on(200)?;
    ensure!(flood.passed()? == 0, "packets reached the pod under a policy that lets nothing in");
    // The positive control: the same packets under no policy.
    one.set_policies(&[])?;
    agent.tell(&one.cluster)?;
    wait_until("packets of an open pod", || {
        ensure!(flood.passed()? > 0, "none passes");
        Ok(())
    })?;
    agent.end().map(drop)
}

/// The fault: a network whose pods are open until the agent has heard of them.
#[test]
fn without_the_plugin_packets_reach_a_pod_before_its_policy() -> Result<()> {
    let one = One::new(false)?;
    let flood = Flood::start(&one, second_address())?;
    flood.go_on(50)?;
    add_pod(one.node(), "x", "a")?;
    wait_until("packets of a pod without policy", || {
        ensure!(flood.passed()? > 0, "none passes");
        Ok(())
    })
}

#[test]
fn a_dead_agent_leaves_old_pods_as_they_are_and_new_ones_closed() -> Result<()> {
    let mut one = One::new(true)?;
    one.tell_pod("x", "a", &[])?;
    one.tell_pod("x", "b", &[])?;
    let agent = Agent::start(&one)?;
    let (a, b) = (add_pod(one.node(), "x", "a")?, add_pod(one.node(), "x", "b")?);
    let old = Talk::new(&a.netns, &b, SocketAddr::new(b.ips[0], 8080))?;
    old.goes_on("armed pods")?;
    drop(agent.end()?);

    let c = add_pod(one.node(), "x", "c")?;
    let error = one.node().check_pod(&c).err().context("CHECK of a closed pod is content")?;
    ensure!(format!("{error:#}").contains("is closed"), "{error:#}");
    let (to, from) = (
        Talk::new(&a.netns, &c, SocketAddr::new(c.ips[0], 8080))?,
        Talk::new(&c.netns, &a, SocketAddr::new(a.ips[0], 8080))?,
    );
    to.is_stopped("to a pod without an agent")?;
    from.is_stopped("from a pod without an agent")?;
    old.goes_on("pods of before, without an agent")?;

    // An agent that comes later reads the record.
    one.tell_pod("x", "c", &c.ips)?;
    let agent = Agent::start(&one)?;
    to.goes_on("to the pod, with an agent")?;
    from.goes_on("from the pod, with an agent")?;
    one.node().check_pod(&c)?;
    agent.end().map(drop)
}

#[test]
fn a_pod_of_which_the_api_tells_late_is_closed_until_then() -> Result<()> {
    let mut one = One::new(true)?;
    one.tell_pod("x", "a", &[])?;
    let agent = Agent::start(&one)?;
    let a = add_pod(one.node(), "x", "a")?;
    // The plugin waits 2 s for the agent, which does not know the pod.
    let started = Instant::now();
    let b = add_pod(one.node(), "x", "b")?;
    ensure!(started.elapsed() >= Duration::from_secs(2), "ADD did not wait: {:?}", started.elapsed());
    let talk = Talk::new(&a.netns, &b, SocketAddr::new(b.ips[0], 8080))?;
    talk.is_stopped("to a pod that the API does not know")?;
    // A pod of the same name that was there before has another uid, and says nothing about this one.
    let mut former = one.cluster.clone();
    super::node::tell_pod(&mut former, "x", "b", &["10.244.0.77".parse()?])?;
    former.pods.values_mut().filter(|it| it.key.name == "b").for_each(|it| it.uid = "former".into());
    agent.tell(&former)?;
    talk.is_stopped("to a pod whose name another one had")?;
    one.tell_pod("x", "b", &[])?;
    agent.tell(&one.cluster)?;
    talk.goes_on("to a pod that the API knows")?;
    agent.end().map(drop)
}

#[test]
fn del_and_gc_take_away_record_verdicts_and_connections() -> Result<()> {
    let mut one = One::new(true)?;
    for name in ["a", "b"] {
        one.tell_pod("x", name, &[])?;
    }
    let agent = Agent::start(&one)?;
    let (a, b) = (add_pod(one.node(), "x", "a")?, add_pod(one.node(), "x", "b")?);
    Talk::new(&a.netns, &b, SocketAddr::new(b.ips[0], 8080))?.goes_on("armed pods")?;
    for _ in 0..2 {
        ensure!(agent.hears()? == slots::Verb::Add);
    }
    let elements = |pod: &Pod| -> Result<usize> {
        let table = one.nft("list table inet podnet-policy")?;
        Ok(pod.ips.iter().map(|ip| table.matches(&format!("{ip} : ")).count()).sum())
    };
    let flows = || -> Result<usize> {
        let all = one.node().run(|| conntrack::all(&mut kernel::Nfnl::open()?))??;
        Ok(all.iter().filter(|flow| flow.is_of(b.ips[0])).count())
    };
    let record = one.node().root.join("run/podnet/slots/x-b-eth0.json");
    ensure!(
        (elements(&b)?, flows()?, record.exists()) == (4, 1, true),
        "before: {} {}",
        elements(&b)?,
        flows()?
    );
    one.node().del_pod(&b)?;
    ensure!(agent.hears()? == slots::Verb::Del);
    ensure!(
        (elements(&b)?, flows()?, record.exists()) == (0, 0, false),
        "after: {} {}",
        elements(&b)?,
        flows()?
    );
    ensure!(elements(&a)? == 4, "the other pod's verdicts went, too");
    one.node().del_pod(&b).context("DEL twice")?;
    one.node().check_pod(&a)?;
    agent.end().map(drop)
}

const CHAINED: &str = r#"{"dataDir":"@DIR@/podnet"}"#;
const RESULT: &str = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"node0"},{"name":"eth0","sandbox":"@POD@"}],
    "ips":[{"address":"10.1.2.3/24","interface":1},{"address":"2001:db8::3/64","interface":1}]}"#;

/// The node's side of [`RESULT`], as `ptp` makes it.
fn make_link(world: &World) -> Result<()> {
    world.host_ip(&[
        "link add node0 type veth peer name far0",
        "link set far0 up",
        "link set node0 up",
        "route add 10.1.2.3/32 dev node0",
        "-6 route add 2001:db8::3/128 dev node0",
    ])
}

/// The group of that link.
fn group(world: &World) -> Result<u32> {
    Ok(link::by_name(&mut Rtnl::open_in(&world.host)?, "node0")?.group)
}

#[test]
fn without_the_table_add_is_to_be_tried_again_and_status_says_so() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let result: Value = serde_json::from_str(&world.fill(RESULT))?;
    let add = world.call("podnet-policy", "ADD").config("1.1.0", CHAINED).prev(&result);
    let error = add.run()?.error()?;
    ensure!(error.code == 11 && error.msg.contains("podnetd has not yet prepared"), "{error:?}");
    ensure!(!world.dir().join("podnet/slots/c0-eth0.json").exists(), "a failed ADD leaves a record");
    let status = world.call("podnet-policy", "STATUS").config("1.1.0", CHAINED);
    ensure!(status.run()?.error()?.code == 50);
    make_table(&world)?;
    status.run()?.silent()?;
    let error = add.run()?.error()?;
    ensure!(error.msg.contains("node0"), "a link of prevResult is not there: {error:?}");
    make_link(&world)?;
    world.host_ip(&["-6 route del 2001:db8::3/128 dev node0", "-6 route add 2001:db8::3/128 dev far0"])?;
    let error = add.run()?.error()?;
    ensure!(error.msg.contains("route to 2001:db8::3 leads to none"), "a pod that may forge: {error:?}");
    ensure!(!world.dir().join("podnet/slots/c0-eth0.json").exists(), "a failed ADD leaves a record");
    world.host_ip(&["-6 route replace 2001:db8::3/128 dev node0"])?;
    let added = add.run()?.result()?;
    ensure!(group(&world)? == LINKS, "the link's group is {}", group(&world)?);
    ensure!(added["ips"] == result["ips"], "the result is passed on: {added}");
    for text in [r#"{"dataDir":"run"}"#, r#"{"dataDir":7}"#] {
        let error = world.call("podnet-policy", "ADD").config("1.1.0", text).prev(&result).run()?.error()?;
        ensure!([6, 7].contains(&error.code), "{text}: {error:?}");
    }
    let error = world.call("podnet-policy", "ADD").config("1.1.0", CHAINED).run()?.error()?;
    ensure!(error.code == 7 && error.msg.contains("chained"), "{error:?}");
    Ok(())
}

#[test]
fn add_closes_what_a_former_pod_left_and_a_late_del_touches_nothing() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    make_table(&world)?;
    make_link(&world)?;
    let result: Value = serde_json::from_str(&world.fill(RESULT))?;
    let open = |map: &str, ip: &str| {
        nft(&world, &format!("add element inet podnet-policy {map} {{ {ip} : accept }}"))
    };
    let shown = || -> Result<String> {
        let run =
            || std::process::Command::new("nft").args(["list", "table", "inet", "podnet-policy"]).output();
        Ok(String::from_utf8_lossy(&world.host.run(run)??.stdout).into_owned())
    };
    for map in ["egress4", "ingress4"] {
        open(map, "10.1.2.3")?;
        open(map, "10.1.2.4")?;
    }
    open("ingress6", "2001:db8::3")?;
    let call = |verb: &str, container: &str| {
        let call = world.call("podnet-policy", verb).config("1.1.0", CHAINED).prev(&result);
        call.container(container)
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=a;K8S_POD_UID=u")
    };
    call("ADD", "new").run()?.result()?;
    let table = shown()?;
    ensure!(!table.contains("10.1.2.3") && !table.contains("2001:db8::3"), "{table}");
    ensure!(table.matches("10.1.2.4").count() == 2, "another pod's verdicts went: {table}");
    let record = fs::read_to_string(world.dir().join("podnet/slots/new-eth0.json"))?;
    let record: Value = serde_json::from_str(&record)?;
    ensure!(
        (&record["network"], &record["namespace"], &record["addresses"])
            == (&json!(NETWORK), &json!("x"), &json!(["10.1.2.3", "2001:db8::3"])),
        "{record}"
    );
    for (map, ip) in [("egress4", "10.1.2.3"), ("ingress4", "10.1.2.3"), ("egress6", "2001:db8::3")] {
        let error = call("CHECK", "new").run()?.error()?;
        ensure!(error.msg.contains("is closed"), "{error:?}");
        open(map, ip)?;
    }
    open("ingress6", "2001:db8::3")?;
    call("CHECK", "new").run()?.silent()?;
    world.host_ip(&["link set node0 group 7"])?;
    let error = call("CHECK", "new").run()?.error()?;
    ensure!(error.msg.contains("node0 is in group 7"), "{error:?}");
    world.host_ip(&["link set node0 group 10180"])?;
    // A DEL that comes when the address is another container's already.
    call("DEL", "former").run()?.silent()?;
    call("CHECK", "new").run()?.silent()?;
    let gc = |valid: &str| {
        let call = world.call("podnet-policy", "GC").config("1.1.0", CHAINED);
        call.with("cni.dev/valid-attachments", valid)
    };
    gc(r#"[{"containerID":"new","ifname":"eth0"}]"#).run()?.silent()?;
    call("CHECK", "new").run()?.silent()?;
    gc("[]").run()?.silent()?;
    ensure!(!world.dir().join("podnet/slots/new-eth0.json").exists());
    ensure!(!shown()?.contains("10.1.2.3") && shown()?.contains("10.1.2.4"), "{}", shown()?);
    Ok(())
}
