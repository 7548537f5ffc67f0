//! What a verb asks of the kernel is the same whatever else is on the node.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use kernel::netns::Netns;
use podnet_tests::World;

use super::Table;
use super::cases::{Case, reserve, v4};

/// A bridge with rules, whose verbs have the most to look at.
fn bridge() -> Case {
    let text = v4(r#""isGateway":true,"ipMasq":true,"macspoofchk":true,"#);
    Case { name: "bridge", plugin: "bridge", text, ..Case::default() }
}

fn same(what: &str, before: &Table, after: &Table) -> Result<()> {
    ensure!(before == after, "{what}: {before:#?}, but then {after:#?}");
    Ok(())
}

/// The same `ADD`, `CHECK` and `DEL` twice, `between` them something that must not matter.
fn unmoved(case: &Case, what: &str, between: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    let world = case.world()?;
    let before = case.count(&world, case.pods)?;
    between(&world)?;
    same(what, &before, &case.count(&world, case.pods)?)
}

#[test]
fn the_sixtieth_pod_costs_what_the_second_does() -> Result<()> {
    let case = Case { pods: 1, ..bridge() };
    let crowd = Case { pods: 59, ..bridge() };
    same("the 2nd and the 60th pod", &case.measure()?, &crowd.measure()?)
}

/// Puts so many rules more into each of three tables of other programs.
fn add_rules(world: &World, count: usize) -> Result<()> {
    let mut text = String::new();
    for (table, chain, hook) in [
        ("ip nat", "POSTROUTING", "type nat hook postrouting priority srcnat;"),
        ("ip other", "others", "type nat hook postrouting priority srcnat;"),
        ("bridge other", "others", "type filter hook prerouting priority 0;"),
    ] {
        text.push_str(&format!("table {table} {{\nchain {chain} {{\n{hook}\n"));
        (1..=count).for_each(|n| text.push_str(&format!("ip saddr 10.9.9.{n} counter accept\n")));
        text.push_str("}\n}\n");
    }
    let rules = world.dir().join("rules");
    std::fs::write(&rules, text)?;
    let nft = world.host.run(|| Command::new("nft").arg("-f").arg(&rules).output())?.context("start nft")?;
    ensure!(nft.status.success(), "{}", String::from_utf8_lossy(&nft.stderr));
    Ok(())
}

/// That there is such a table costs a look into it; how much is in it costs nothing.
#[test]
fn rules_of_other_programs_cost_nothing() -> Result<()> {
    let case = Case { pods: 1, ..bridge() };
    let world = case.world()?;
    add_rules(&world, 1)?;
    let before = case.count(&world, case.pods)?;
    add_rules(&world, 60)?;
    same("with 180 rules of other programs more", &before, &case.count(&world, case.pods)?)
}

#[test]
fn namespaces_on_the_machine_cost_nothing() -> Result<()> {
    let mut others = Vec::new();
    unmoved(&Case { pods: 1, ..bridge() }, "with 60 namespaces more", |_| {
        for _ in 0..60 {
            others.push(Netns::create()?);
        }
        Ok(())
    })
}

#[test]
fn reservations_cost_nothing() -> Result<()> {
    for plugin in ["host-local", "bridge"] {
        let few = Case { name: "x", plugin, text: v4(""), reservations: 1, ..Case::default() };
        let many = Case { reservations: 2000, ..few.clone() };
        same("with 2000 reservations", &few.measure()?, &many.measure()?)?;
    }
    Ok(())
}

/// The negative control: reservations that our index does not know are all read, once.
#[test]
fn a_cost_that_grows_is_seen() -> Result<()> {
    let case = Case { name: "x", plugin: "host-local", text: v4(""), ..Case::default() };
    let moved = unmoved(&case, "with 50 reservations of another program", |world| reserve(world, 50));
    ensure!(moved.is_err(), "reading 50 files more is not seen");
    Ok(())
}
