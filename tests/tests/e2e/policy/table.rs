//! The truth table: for each set of policies every connection between nine pods, two nodes and the outside, judged by
//! an oracle, by the agent, and by the kernels with real packets.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::bed::{Bed, stay_on_one_processor};
use super::cases;
use super::generate::Dice;

/// How many sets of policies are made by chance.
const GENERATED: u64 = 40;

#[test]
fn policies_are_what_the_oracle_says_on_packets() -> Result<()> {
    stay_on_one_processor()?;
    let mut bed = Bed::new()?;
    let (mut sets, mut packets, mut allowed) = (0, 0, 0);
    let started = Instant::now();
    let named = cases::all().into_iter().map(|case| (case.name.to_owned(), case.policies));
    let generated = (1..=GENERATED).map(|seed| (format!("seed {seed}"), Dice::new(seed).policies()));
    for (name, policies) in named.chain(generated) {
        bed.objects.policies = policies;
        let compared = bed.sync().and_then(|()| bed.compare());
        let tried = compared.with_context(|| format!("{name}:\n{:#}", json!(bed.objects.policies)))?;
        ensure!(tried.packets == 1296, "{name}: {} packets", tried.packets);
        (sets, packets, allowed) = (sets + 1, packets + tried.packets, allowed + tried.allowed);
    }
    println!("{sets} sets of policies, {packets} packets, {allowed} allowed, {:?}", started.elapsed());
    ensure!(sets >= 110, "only {sets} sets of policies");
    Ok(())
}

/// Labels of pods and namespaces, policies themselves: what is changed counts for the next connection.
#[test]
fn changes_of_labels_and_policies_are_followed_and_a_mistake_is_found() -> Result<()> {
    stay_on_one_processor()?;
    let mut bed = Bed::new()?;
    let step = |bed: &mut Bed, what: &'static str| {
        bed.sync().and_then(|()| bed.compare()).context(what).map(|tried| tried.allowed)
    };
    let from_y_b = |ports: serde_json::Value| {
        let peer = json!({"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": {"matchLabels": {"pod": "b"}}});
        let rules = json!([{"from": [peer], "ports": ports}]);
        cases::policy("x", "p", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": rules}))
    };
    let open = step(&mut bed, "no policy")?;
    bed.objects.policies = vec![from_y_b(json!([{"port": "serve-80-tcp"}]))];
    let before = step(&mut bed, "policy made")?;
    ensure!(before < open, "the policy isolates nobody");

    bed.pod("y", "a")["metadata"]["labels"] = json!({"pod": "b"});
    ensure!(step(&mut bed, "a pod becomes a peer")? == before + 2);
    bed.pod("y", "a")["metadata"]["labels"] = json!({"pod": "a"});
    bed.pod("y", "b")["metadata"]["labels"] = json!({"pod": "b", "tier": "db"});
    ensure!(step(&mut bed, "a pod is no peer any more")? == before);
    bed.pod("x", "b")["metadata"]["labels"] = json!({"pod": "a"});
    ensure!(step(&mut bed, "a pod becomes isolated")? < before);
    bed.pod("x", "b")["metadata"]["labels"] = json!({"pod": "b"});
    ensure!(step(&mut bed, "a pod is isolated no more")? == before);
    bed.objects.namespaces[2]["metadata"]["labels"]["ns"] = json!("y");
    ensure!(step(&mut bed, "a namespace becomes a peer")? == before + 2);
    bed.objects.namespaces[1]["metadata"]["labels"] = json!({"kubernetes.io/metadata.name": "y"});
    ensure!(step(&mut bed, "a namespace is no peer any more")? == before);
    bed.objects.namespaces[1]["metadata"]["labels"] = json!({"ns": "y", "kubernetes.io/metadata.name": "y"});
    bed.pod("x", "a")["spec"]["containers"][0]["ports"] =
        json!([{"name": "serve-80-tcp", "containerPort": 81}]);
    ensure!(step(&mut bed, "the named port is another number")? == before + 2);
    bed.objects.policies = vec![from_y_b(json!([{"protocol": "TCP"}, {"protocol": "SCTP", "port": 81}]))];
    ensure!(step(&mut bed, "policy updated")? > before + 2);
    bed.objects.policies.clear();
    ensure!(step(&mut bed, "policy deleted")? == open);

    // The negative controls: one packet that should have been dropped, one that should have passed.
    bed.objects.policies = vec![from_y_b(json!([{"port": 80}]))];
    bed.sync()?;
    for expected in [true, false] {
        let once = std::cell::Cell::new(true);
        let mistake =
            |_: &_, verdict: bool| if verdict == expected && once.take() { !verdict } else { verdict };
        let error = bed.compare_with(mistake).err().context("a wrong verdict is not found")?;
        let words = if expected { "1 are forbidden and arrived" } else { "1 of 1296 packets are missing" };
        ensure!(format!("{error:#}").contains(words), "{error:#}");
    }
    bed.compare().map(drop)
}
