//! Connections that are there when a policy comes: cut where it forbids them, and only there.

use std::net::SocketAddr;
use std::time::Duration;

use agent::policy::apply::{Anew, Kept};
use agent::policy::compile::{compile, locals};
use agent::policy::{cut, probe_kernel, slots};
use anyhow::{Context, Result, ensure};
use kernel::events::{Event, Listener};
use kernel::{Nfnl, conntrack};
use serde_json::{Value, json};

use super::bed::add_pod;
use super::cases::policy;
use super::node::{One, Talk};

fn ingress(name: &str, from: &str) -> Value {
    let peers = json!([{"podSelector": {"matchLabels": {"pod": from}}}]);
    policy("x", name, json!({"podSelector": {"matchLabels": {"pod": "b"}}, "ingress": [{"from": peers}]}))
}

#[test]
fn a_connection_is_cut_when_a_policy_forbids_it_and_goes_on_when_one_allows_it() -> Result<()> {
    let mut one = One::new(true)?;
    let mut enforcer = one.enforcer()?;
    let (a, b) = (add_pod(one.node(), "x", "a")?, add_pod(one.node(), "x", "b")?);
    let c = add_pod(one.node(), "x", "c")?;
    for pod in [&a, &b, &c] {
        one.tell_pod("x", &pod.name, &pod.ips)?;
    }
    enforcer.repair(&one.cluster, true)?;
    // A service in front of b: the connection is opened to an address that no pod has.
    one.nft("add table ip service")?;
    one.nft("add chain ip service prerouting { type nat hook prerouting priority -100 ; }")?;
    let real = SocketAddr::new(b.ips[0], 8080);
    one.nft(&format!("add rule ip service prerouting ip daddr 10.96.0.1 udp dport 53 dnat to {real}"))?;

    let mut nfnl = one.node().run(Nfnl::open)??;
    for to in [real, "10.96.0.1:53".parse()?] {
        conntrack::delete_of(&mut nfnl, &b.ips)?;
        one.set_policies(&[])?;
        enforcer.sync(&one.cluster)?;
        let talk = Talk::new(&a.netns, &b, to)?;
        talk.goes_on("without a policy")?;
        one.set_policies(&[ingress("only-a", "a")])?;
        enforcer.sync(&one.cluster)?;
        talk.goes_on("a policy that allows it")?;
        one.set_policies(&[ingress("only-c", "c")])?;
        let outcome = enforcer.sync(&one.cluster)?;
        ensure!(outcome.cut.cut == 1, "{:?}", outcome.cut);
        talk.is_stopped("a policy that forbids it")?;
        one.set_policies(&[ingress("only-c", "c"), ingress("only-a", "a")])?;
        let outcome = enforcer.sync(&one.cluster)?;
        ensure!(outcome.cut.restored == 1, "{:?}", outcome.cut);
        talk.goes_on("another policy allows it again")?;
    }
    Ok(())
}

/// A change that is nobody's has nobody's connections looked at; one that is of some pods, theirs alone.
#[test]
fn only_connections_of_pods_that_a_change_concerns_are_judged_anew() -> Result<()> {
    let mut one = One::new(true)?;
    let mut enforcer = one.enforcer()?;
    let pods: Vec<_> =
        ["a", "b", "c"].map(|it| add_pod(one.node(), "x", it)).into_iter().collect::<Result<_>>()?;
    for pod in &pods {
        one.tell_pod("x", &pod.name, &pod.ips)?;
    }
    enforcer.repair(&one.cluster, true)?;
    let [a, b, c] = &pods[..] else { unreachable!("three pods") };
    let talks = [
        Talk::to_port(&a.netns, b, 8080)?,
        Talk::to_port(&a.netns, c, 8081)?,
        Talk::to_port(&b.netns, c, 8082)?,
    ];
    for talk in &talks {
        talk.goes_on("without a policy")?;
    }
    let step = |one: &mut One, policies: &[Value], enforcer: &mut agent::policy::Enforcer| -> Result<_> {
        one.set_policies(policies)?;
        let outcome = enforcer.sync(&one.cluster)?;
        Ok((outcome.cut.judged, outcome.cut.cut, outcome.cut.restored))
    };
    let of = |name: &str, from: &str, to: &str| {
        let peers = json!([{"podSelector": {"matchLabels": {"pod": from}}}]);
        let select = json!({"matchLabels": {"pod": to}});
        policy("x", name, json!({"podSelector": select, "ingress": [{"from": peers}]}))
    };
    // b has a connection of a and one to c; a policy isolates it from all but c.
    ensure!(step(&mut one, &[of("p", "c", "b")], &mut enforcer)? == (2, 1, 0));
    // One that selects nobody of this node, and the same again.
    let nobody = of("q", "a", "nobody");
    ensure!(step(&mut one, &[of("p", "c", "b"), nobody.clone()], &mut enforcer)? == (0, 0, 0));
    ensure!(step(&mut one, &[of("p", "c", "b"), nobody], &mut enforcer)? == (0, 0, 0));
    // What the policy lets in by its peers: a set that is looked into by b's policy alone.
    let also = policy(
        "x",
        "p",
        json!({"podSelector": {"matchLabels": {"pod": "b"}},
        "ingress": [{"from": [{"podSelector": {"matchExpressions": [{"key": "pod", "operator": "Exists"}]}}]}]}),
    );
    ensure!(step(&mut one, std::slice::from_ref(&also), &mut enforcer)? == (2, 0, 1));
    one.tell_pod("x", "d", &["10.244.9.9".parse()?])?;
    one.cluster.pods.values_mut().filter(|it| it.key.name == "d").for_each(|it| it.node = "n1".into());
    ensure!(
        step(&mut one, std::slice::from_ref(&also), &mut enforcer)? == (2, 0, 0),
        "a peer more, of b's policy"
    );
    // Two policies more, of two pods: those of the three connections that are theirs.
    ensure!(step(&mut one, &[also, of("r", "b", "c"), of("s", "b", "a")], &mut enforcer)? == (3, 1, 0));
    Ok(())
}

/// The negative control: rules alone let a connection go on that is there.
#[test]
fn without_the_cut_a_forbidden_connection_goes_on() -> Result<()> {
    let mut one = One::new(true)?;
    let mut enforcer = one.enforcer()?;
    let (a, b) = (add_pod(one.node(), "x", "a")?, add_pod(one.node(), "x", "b")?);
    for pod in [&a, &b] {
        one.tell_pod("x", &pod.name, &pod.ips)?;
    }
    enforcer.repair(&one.cluster, true)?;
    let talk = Talk::new(&a.netns, &b, SocketAddr::new(b.ips[0], 8080))?;
    talk.goes_on("without a policy")?;
    one.set_policies(&[ingress("only-c", "c")])?;
    let (slots, _) = slots::Slots::read(&one.node().root.join(slots::RECORDS))?;
    let mut nfnl = one.node().run(Nfnl::open)??;
    Kept::new().apply(&mut nfnl, compile(&one.cluster, "n0", slots.all()))?;
    talk.goes_on("a policy that forbids it, without a cut")?;
    let locals = locals(&one.cluster, "n0", slots.all(), slots.released());
    let done = cut::cut(&mut nfnl, &one.cluster, &locals, &Anew::Everybody)?;
    ensure!((done.cut, done.restored) == (1, 0), "{done:?}");
    talk.is_stopped("with the cut")?;
    ensure!(cut::cut(&mut nfnl, &one.cluster, &locals, &Anew::Everybody)?.cut == 0, "it is cut twice");
    Ok(())
}

#[test]
fn a_kernel_that_has_everything_lacks_nothing_and_is_left_as_it_was() -> Result<()> {
    let one = One::new(true)?;
    let missing = one.node().run(|| -> Result<_> { Ok(probe_kernel(&mut Nfnl::open()?)) })??;
    ensure!(missing.is_empty(), "{missing:?}");
    ensure!(one.nft("list ruleset")?.is_empty());
    Ok(())
}

/// Which sockets have touched the table since the last time.
fn touched(listener: &mut Listener) -> Result<Vec<u32>> {
    let heard = listener.heard()?;
    ensure!(!heard.lost, "announcements are lost");
    let ours = heard.events.into_iter().filter_map(|event| match event {
        Event::Table { name, port, .. } if name == "podnet-policy" => Some(port),
        _ => None,
    });
    Ok(ours.collect())
}

/// Whoever deletes or flushes what is ours is noticed, and it is made good.
#[test]
fn a_table_that_another_program_changed_is_noticed_and_repaired() -> Result<()> {
    let mut one = One::new(true)?;
    let mut enforcer = one.enforcer()?;
    let (a, b) = (add_pod(one.node(), "x", "a")?, add_pod(one.node(), "x", "b")?);
    for pod in [&a, &b] {
        one.tell_pod("x", &pod.name, &pod.ips)?;
    }
    one.set_policies(&[ingress("only-a", "a")])?;
    enforcer.repair(&one.cluster, true)?;
    let program = enforcer.program().context("a program")?.clone();
    let policy = program.chains.keys().find(|name| name.starts_with("in-")).context("the policy's chain")?;
    let peers = program.sets.keys().find(|name| name.starts_with("pods4-")).context("the peers' set")?;
    let mut listener = one.node().run(Listener::tables)??;
    let whole = [
        ("delete table inet podnet-policy".to_owned(), "is gone"),
        ("flush chain inet podnet-policy ingress".to_owned(), "chain ingress has 0 rules"),
        (format!("flush chain inet podnet-policy {policy}"), "has 0 rules"),
        (format!("delete element inet podnet-policy ingress4 {{ {} }}", b.ips[0]), "map ingress4"),
        ("flush set inet podnet-policy itself4".to_owned(), "itself4"),
        (format!("flush set inet podnet-policy {peers}"), "0 elements of 1"),
        (
            format!(
                "delete element inet podnet-policy {peers} {{ {} }}; add element inet podnet-policy {peers} {{ 10.244.0.99 }}",
                a.ips[0]
            ),
            "1 elements of 1",
        ),
        ("add chain inet podnet-policy egress { policy drop ; }".to_owned(), "chain egress stands elsewhere"),
        ("add chain inet podnet-policy theirs".to_owned(), "another program's"),
    ];
    for (command, words) in whole {
        one.nft(&command)?;
        let ports = touched(&mut listener)?;
        ensure!(!ports.is_empty() && !ports.contains(&enforcer.port()), "{command}: {ports:?}");
        let (drift, outcome) = enforcer.repair(&one.cluster, true)?;
        let drift = drift.with_context(|| format!("{command}: not noticed"))?;
        ensure!(drift.contains(words) && outcome.applied.whole, "{command}: {drift}");
        let ports = touched(&mut listener)?;
        ensure!(ports.iter().all(|it| *it == enforcer.port()) && !ports.is_empty(), "{command}: {ports:?}");
        let (drift, outcome) = enforcer.repair(&one.cluster, true)?;
        ensure!(drift.is_none() && outcome.applied.messages == 0, "{command}: {drift:?} after the repair");
    }
    // A pod whose verdicts were taken out, as the plugin does: its next request puts them in.
    one.nft(&format!("delete element inet podnet-policy egress4 {{ {} }}", a.ips[0]))?;
    let mut kept = Kept::new();
    let mut nfnl = one.node().run(Nfnl::open)??;
    kept.apply(&mut nfnl, program.clone())?;
    one.nft(&format!("delete element inet podnet-policy egress4 {{ {} }}", a.ips[0]))?;
    kept.forget(&a.ips);
    let applied = kept.apply(&mut nfnl, program)?;
    ensure!(!applied.whole && kept.drift(&mut nfnl, true)?.is_none(), "{applied:?}");
    enforcer.repair(&one.cluster, true)?;
    // Another program's table is no affair of ours.
    one.nft("add table inet other")?;
    let (drift, outcome) = enforcer.repair(&one.cluster, false)?;
    ensure!(drift.is_none() && outcome.applied.messages == 0, "{drift:?}");
    let talk = Talk::new(&a.netns, &b, SocketAddr::new(b.ips[0], 8080))?;
    ensure!(talk.passes(Duration::from_secs(20))?, "nothing passes after all repairs");
    Ok(())
}
