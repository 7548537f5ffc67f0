//! Rules that another program replaces with others, as many as there were: put right because the kernel tells of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent::drift::{Interest, Watch};
use agent::masquerade::{self, Masquerade};
use agent::policy::Enforcer;
use anyhow::{Context, Result, ensure};
use kernel::Nfnl;
use podnet_tests::nodes::wait_until;
use serde_json::json;

use super::bed::add_pod;
use super::cases::policy;
use super::node::One;

/// The agent's loop for its two tables, without an API and without a clock: looks only at what the kernel tells of.
fn keep(one: &One, mut enforcer: Enforcer, ended: &AtomicBool) -> Result<()> {
    let own = one.cluster.nodes.get("n0").context("the node")?;
    let wanted = Masquerade::of(own, one.cluster.nodes.values());
    let mut nfnl = Nfnl::open()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interest = Interest { pods: own.pod_cidrs.clone(), ..Interest::default() };
        interest.own.insert(enforcer.port());
        let mut watch = Watch::open(interest)?;
        masquerade::apply(&mut nfnl, &wanted)?;
        enforcer.repair(&one.cluster, true)?;
        while !ended.load(Ordering::SeqCst) {
            let Ok(look) = tokio::time::timeout(Duration::from_millis(20), watch.next()).await else {
                continue;
            };
            let look = look?;
            if look.masquerade {
                masquerade::apply(&mut nfnl, &wanted)?;
            }
            if look.policy {
                enforcer.repair(&one.cluster, true)?;
            }
        }
        Ok(())
    })
}

/// Chain and handle of each rule of a table, as `nft` tells.
fn rules(one: &One, table: &str) -> Result<Vec<(String, String)>> {
    let (mut all, mut chain) = (Vec::new(), String::new());
    for line in one.nft(&format!("-a list table inet {table}"))?.lines() {
        let Some((text, handle)) = line.trim().split_once(" # handle ") else { continue };
        match text.strip_prefix("chain ").and_then(|it| it.strip_suffix(" {")) {
            Some(name) => chain = name.to_owned(),
            None if chain.is_empty() || text.ends_with('{') => {}
            None => all.push((chain.clone(), handle.to_owned())),
        }
    }
    Ok(all)
}

/// A listing whose chains, sets and elements stand in an order of their own: the kernel's is that in which they were made.
fn sorted(text: &str) -> String {
    let mut blocks: Vec<String> = Vec::new();
    for block in text.split("\t}\n") {
        if block.contains("elements = {") {
            let mut words: Vec<&str> = block.split_whitespace().map(|it| it.trim_end_matches(',')).collect();
            words.sort_unstable();
            blocks.push(words.join(" ") + "\n");
        } else {
            blocks.push(block.trim_start().to_owned());
        }
    }
    blocks.sort();
    blocks.concat()
}

#[test]
fn each_rule_that_is_replaced_with_another_is_put_right_when_the_kernel_tells_of_it() -> Result<()> {
    let mut one = One::new(true)?;
    let enforcer = one.enforcer()?;
    let (a, b) = (add_pod(one.node(), "x", "a")?, add_pod(one.node(), "x", "b")?);
    for pod in [&a, &b] {
        one.tell_pod("x", &pod.name, &pod.ips)?;
    }
    let peers = json!([{"podSelector": {"matchLabels": {"pod": "a"}}}, {"ipBlock": {"cidr": "10.9.0.0/16"}}]);
    let ports = json!([{"port": 80, "endPort": 90}, {"port": 443}, {"port": "serve-80-tcp"}]);
    let spec = json!({"podSelector": {"matchLabels": {"pod": "b"}}, "ingress": [{"from": peers, "ports": ports}],
        "egress": [{"ports": [{"protocol": "UDP"}]}], "policyTypes": ["Ingress", "Egress"]});
    one.set_policies(&[policy("x", "p", spec)])?;
    let ended = AtomicBool::new(false);
    let tables = ["podnet-policy", "podnet-masq"];
    let one = &one;
    let picture = || -> Result<String> {
        let list = |it: &&str| one.nft(&format!("list table inet {it}"));
        Ok(sorted(&tables.iter().map(list).collect::<Result<Vec<_>>>()?.concat()))
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| one.node().run(|| keep(one, enforcer, &ended)));
        let replaced = || -> Result<usize> {
            wait_until("the tables are made", || {
                ensure!(picture()?.contains("th dport") && picture()?.contains("masquerade"));
                Ok(())
            })?;
            let right = picture()?;
            let mut count = 0;
            for table in tables {
                for number in 0..rules(one, table)?.len() {
                    // They have other handles after each repair.
                    let (chain, handle) = rules(one, table)?.swap_remove(number);
                    one.nft(&format!(
                        "replace rule inet {table} {chain} handle {handle} udp dport 9 accept"
                    ))?;
                    wait_until(&format!("rule {number} of {table}, in {chain}"), || {
                        let now = picture()?;
                        ensure!(now == right, "{right}\n-- now:\n{now}");
                        Ok(())
                    })?;
                    count += 1;
                }
            }
            Ok(count)
        };
        let outcome = replaced();
        ended.store(true, Ordering::SeqCst);
        let kept = running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        kept.and_then(|it| it).context("the agent")?;
        let count = outcome?;
        ensure!(count >= 30, "only {count} rules");
        Ok(())
    })
}

/// A pod's link that another program takes out of its group: closed until the kernel has told the agent of it.
#[test]
fn a_pods_link_that_is_taken_out_of_its_group_is_put_back_when_the_kernel_tells_of_it() -> Result<()> {
    let mut one = One::new(true)?;
    let enforcer = one.enforcer()?;
    let a = add_pod(one.node(), "x", "a")?;
    one.tell_pod("x", &a.name, &a.ips)?;
    let link = a.result["interfaces"][0]["name"].as_str().context("the node's end")?.to_owned();
    let ended = AtomicBool::new(false);
    let one = &one;
    let is_back = || {
        wait_until("the link is in its group", || {
            let shown = one.node().output(&format!("ip -o link show dev {link}"))?;
            ensure!(shown.contains(" group 10180 "), "{shown}");
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| one.node().run(|| keep(one, enforcer, &ended)));
        let outcome = (0..3).try_for_each(|_| {
            is_back()?;
            one.node().ip(&[&format!("link set {link} group 0")])
        });
        let outcome = outcome.and_then(|()| is_back());
        ended.store(true, Ordering::SeqCst);
        let kept = running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        kept.and_then(|it| it).context("the agent")?;
        outcome
    })
}
