//! Agents answer each other with what they see, and what is wrong between them is named.

use std::sync::mpsc;
use std::time::Duration;

use agent::peers::{Answer, Ask, Limits, Outcome, Path, Server, asks, probe};
use anyhow::{Context, Result, ensure};
use kernel::Netns;
use podnet_tests::nodes::Nodes;

use super::{models, nft, nodes, run, settle_all};

/// As in a cluster, but more patient, as a machine may be busy.
const LIMITS: Limits = Limits { at_once: 8, patience: Duration::from_secs(20), port: agent::peers::PORT };
/// For what will not be answered, where everything else was before.
const IMPATIENT: Limits = Limits { patience: Duration::from_secs(5), ..LIMITS };

/// An agent that answers in a namespace until it is dropped.
struct Answering {
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Answering {
    fn start(netns: &Netns, node: &str) -> Result<Answering> {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let netns = Netns::from(std::os::fd::AsFd::as_fd(netns).try_clone_to_owned()?);
        let node = node.to_owned();
        let serve = move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let server = Server::bind(&node, agent::peers::PORT);
                let failed = server.as_ref().err().map(ToString::to_string);
                tell.send(failed)?;
                tokio::select! { () = server?.serve() => {}, _ = ended => {} }
                Ok(())
            })
        };
        let thread = std::thread::spawn(move || drop(netns.run(serve)));
        let failed = told.recv().context("the agent did not start")?;
        ensure!(failed.is_none(), "{failed:?}");
        Ok(Answering { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks from the first node all that there is to ask.
fn asked(nodes: &Nodes, all: &[Ask], limits: Limits) -> Result<Vec<Answer>> {
    nodes.nodes[0].run(|| -> Result<Vec<Answer>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(probe(all.to_vec(), limits)))
    })?
}

/// Nodes with their agents, and what the first one asks: all of it is good, before there is any pod.
fn cluster(racks: &[usize]) -> Result<(Nodes, Vec<Answering>, Vec<Ask>)> {
    let nodes = nodes(racks)?;
    let plans = settle_all(&nodes)?;
    let answering = nodes.nodes.iter().map(|it| Answering::start(&it.netns, &it.name));
    let answering = answering.collect::<Result<Vec<_>>>()?;
    let models = models(&nodes);
    let all = asks(&models[0], &models.iter().collect::<Vec<_>>(), &plans[0]);
    // The first packets wait, as the router's links look for duplicates of their addresses.
    let answers = asked(&nodes, &all, LIMITS)?;
    let bad: Vec<String> =
        answers.iter().filter(|it| it.outcome != Outcome::Good).map(ToString::to_string).collect();
    ensure!(bad.is_empty(), "{bad:?}");
    Ok((nodes, answering, all))
}

/// The outcomes of one path and IP version, by peer.
fn of(answers: &[Answer], path: Path, ipv6: bool) -> Vec<(&str, &Outcome)> {
    let wanted = |it: &&Answer| it.ask.path == path && it.ask.to.is_ipv6() == ipv6;
    answers.iter().filter(wanted).map(|it| (it.ask.node.as_str(), &it.outcome)).collect()
}

#[test]
fn all_paths_are_good_before_there_is_any_pod() -> Result<()> {
    let (_nodes, _answering, all) = cluster(&[0, 0, 1])?;
    ensure!(all.len() == 8, "two peers, two paths, two versions: {all:?}");
    let mtus: Vec<u32> = all.iter().map(|it| it.mtu).collect();
    ensure!(mtus == [1500, 1430, 1500, 1430, 1500, 1430, 1500, 1430], "{mtus:?}");
    Ok(())
}

#[test]
fn a_translation_on_the_way_is_named_with_the_address_that_was_seen() -> Result<()> {
    let (nodes, _answering, all) = cluster(&[0, 0, 0])?;
    nft(
        &nodes.nodes[0].netns,
        "table inet careless { chain postrouting { type nat hook postrouting priority srcnat - 5;
            ip daddr 10.244.1.1 masquerade; ip6 daddr fd00:10:244:1::1 udp dport 10181 masquerade; } }",
    )?;
    let answers = asked(&nodes, &all, LIMITS)?;
    let [v4, v6] = nodes.nodes[0].addresses();
    ensure!(of(&answers, Path::Pods, false) == [("n1", &Outcome::Nat(v4)), ("n2", &Outcome::Good)]);
    // Also where TCP alone looks well.
    ensure!(of(&answers, Path::Pods, true) == [("n1", &Outcome::Nat(v6)), ("n2", &Outcome::Good)]);
    ensure!(answers.iter().filter(|it| it.ask.path == Path::Nodes).all(|it| it.outcome == Outcome::Good));
    let line = answers.iter().find(|it| it.outcome == Outcome::Nat(v4)).context("an answer")?.to_string();
    let words = "n1, pods to pods, 10.244.0.1 to 10.244.1.1: seen as 172.18.0.10, so somebody on the way translates addresses";
    ensure!(line == words, "{line}");
    Ok(())
}

#[test]
fn who_does_not_answer_is_named_with_the_path_and_stops_no_other() -> Result<()> {
    let (nodes, mut answering, all) = cluster(&[0, 0, 0, 0])?;
    // n1 drops what comes to its pods' gateway, n2 has no agent, n3's is another's.
    nft(
        &nodes.nodes[1].netns,
        "table ip closed { chain input { type filter hook input priority 0; ip daddr 10.244.1.1 drop; } }",
    )?;
    answering.drain(2..);
    let _other = Answering::start(&nodes.nodes[3].netns, "stranger")?;
    let answers = asked(&nodes, &all, IMPATIENT)?;
    let stranger = Outcome::Other("stranger".into());
    let found = of(&answers, Path::Pods, false);
    let words = |outcome: &Outcome| match outcome {
        Outcome::NoAnswer(why) => why.clone(),
        other => format!("{other:?}"),
    };
    ensure!(words(found[0].1) == "nothing within 5s by TCP", "{found:?}");
    ensure!(words(found[1].1).contains("refused"), "{found:?}");
    ensure!(*found[2].1 == stranger, "{found:?}");
    ensure!(of(&answers, Path::Pods, true)[0].1 == &Outcome::Good, "n1 by IPv6");
    ensure!(of(&answers, Path::Nodes, false)[0].1 == &Outcome::Good, "n1 by its InternalIP");
    Ok(())
}

#[test]
fn a_path_that_loses_long_packets_is_named() -> Result<()> {
    let (nodes, _answering, all) = cluster(&[0, 0, 1])?;
    // Frames are lost on their way to n1, without a word; the router says that what is for n2 is too long.
    run(&nodes.nodes[1].netns, &["ip", "link", "set", "eth0", "mtu", "1400"])?;
    run(&nodes.outside, &["ip", "link", "set", "rack1", "mtu", "1450"])?;
    let answers = asked(&nodes, &all, IMPATIENT)?;
    for (path, ipv6) in [(Path::Nodes, false), (Path::Nodes, true), (Path::Pods, false), (Path::Pods, true)] {
        let found = of(&answers, path, ipv6);
        let long = |it: &Outcome| matches!(it, Outcome::TooLong(1500 | 1430));
        // The router divides an IPv4 tunnel's datagrams, so that packets within it arrive whole.
        let divided = (path, ipv6) == (Path::Pods, false);
        let n2 = if divided { *found[1].1 == Outcome::Good } else { long(found[1].1) };
        ensure!(long(found[0].1) && n2, "{path}, IPv6 {ipv6}: {found:?}");
    }
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_told() -> Result<()> {
    let nodes = nodes(&[0])?;
    let netns = &nodes.nodes[0].netns;
    let _first = Answering::start(netns, "n0")?;
    ensure!(Answering::start(netns, "n0").is_err());
    Ok(())
}
