//! Configuration × verb × version against Debian's plugins.
//!
//! ```text
//!   world of debian                    world of podnet
//!   host ── cni0 ── pod0 [pod1]        host ── cni0 ── pod0 [pod1]
//!        ADD, CHECK, DEL, DEL of each pod, a picture after each
//!                     └── the same line by line, or listed ──┘
//! ```
//! The list of intended differences is `tests/differences.json`: a difference that is not listed fails, a listed one that no
//! longer occurs fails too. Random names and MACs become symbols (see `podnet_tests::reader`).

mod bridge;
mod chained;
mod host_device;
mod hostport;
mod ipam;
mod macvlan;
mod ptp;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::chained::attach;
use anyhow::{Context, Result};
use podnet_tests::difference::{Differences, Place};
use podnet_tests::facts::{Change, Facts};
use podnet_tests::{Side, World, result, workers};
use serde_json::Value;

/// The versions that Debian's 1.1.1 and we both speak.
const VERSIONS: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// One configuration that both sides accept, and what stands around it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) plugin: &'static str,
    /// The configuration without cniVersion, name and type.
    pub(crate) text: &'static str,
    /// The oldest version whose result can hold what comes out.
    pub(crate) since: &'static str,
    pub(crate) pods: usize,
    /// Whether the pod has an interface before ADD, which is told of it, as what is chained behind other plugins is.
    pub(crate) attached: bool,
    /// Whether CHECK is called; not where the reference's answer is a matter of chance.
    pub(crate) check: bool,
    /// CNI_ARGS.
    pub(crate) args: &'static str,
    pub(crate) ifname: &'static str,
    /// `ip` commands in the host namespace before anything else.
    pub(crate) host: &'static [&'static str],
    /// `ip` commands in each pod's namespace.
    pub(crate) pod: &'static [&'static str],
    /// Sysctls of each pod.
    pub(crate) pod_sysctls: &'static [(&'static str, &'static str)],
    /// Sysctls of the host.
    pub(crate) host_sysctls: &'static [(&'static str, &'static str)],
    /// A file in the world's directory: name and content.
    pub(crate) file: Option<(&'static str, &'static str)>,
}

impl Case {
    pub(crate) const fn new(name: &'static str, plugin: &'static str, text: &'static str) -> Self {
        Case {
            name,
            plugin,
            text,
            since: "0.1.0",
            pods: 1,
            attached: false,
            check: true,
            args: "",
            ifname: "eth0",
            host: &[],
            pod: &[],
            pod_sysctls: &[],
            host_sysctls: &[],
            file: None,
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = bridge::cases();
    cases.extend(ipam::cases());
    cases.extend(ptp::cases());
    cases.extend(host_device::cases());
    cases.extend(macvlan::cases());
    cases.extend(chained::cases());
    cases.extend(hostport::cases());
    cases
}

/// A verb for a pod, and the picture after it.
struct Step {
    label: String,
    facts: Facts,
}

/// Runs all verbs of a case with one side's plugins.
fn play(case: &Case, version: &str, side: Side) -> Result<Vec<Step>> {
    let world = World::new(side, case.pods)?;
    world.names.choose(case.text);
    world.names.choose(case.args);
    world.host_ip(case.host)?;
    write_sysctls(&world.host, case.host_sysctls)?;
    if case.attached {
        attach(&world, case.ifname, 0)?;
    }
    for pod in 0..case.pods {
        world.pod_ip(pod, case.pod)?;
        write_sysctls(&world.pods[pod], case.pod_sysctls)?;
    }
    if let Some((name, content)) = case.file {
        std::fs::write(world.dir().join(name), content).context("write the case's file")?;
    }
    let mut steps = Vec::new();
    let before = case.attached.then(|| crate::chained::result(&world, version, case.ifname, 0));
    let mut results: Vec<Option<Value>> = vec![before; case.pods];
    for (verb, label) in [("ADD", "ADD"), ("CHECK", "CHECK"), ("DEL", "DEL"), ("DEL", "DEL again")] {
        if verb == "CHECK" && !case.check {
            continue;
        }
        for (pod, result) in results.iter_mut().enumerate() {
            let mut call = world.call(case.plugin, verb).config(version, case.text).pod(pod);
            call = call.env("CNI_IFNAME", case.ifname).env("CNI_ARGS", case.args);
            // As libcni: CHECK always gets prevResult, DEL from 0.4.0 on, ADD what came before.
            let told = verb == "CHECK" || version >= "0.4.0" || verb == "ADD";
            if let Some(result) = result.as_ref().filter(|_| told) {
                call = call.prev(result);
            }
            let outcome = call.run()?;
            let snapshot = world.snapshot()?;
            let mut facts = result::facts(&world, &snapshot, &outcome);
            facts.absorb("world", snapshot.facts);
            steps.push(Step { label: format!("{label} pod{pod}"), facts });
            if verb == "ADD" && outcome.exit == Some(0) {
                *result = Some(outcome.json()?);
            }
        }
    }
    Ok(steps)
}

fn write_sysctls(netns: &kernel::netns::Netns, sysctls: &[(&str, &str)]) -> Result<()> {
    for (path, value) in sysctls {
        netns
            .run(|| std::fs::write(format!("/proc/sys/{path}"), value))?
            .with_context(|| (*path).to_string())?;
    }
    Ok(())
}

/// What a run of the matrix found.
#[derive(Default)]
struct Report {
    compared: usize,
    lines: usize,
    covered: usize,
    wrong: usize,
    /// Verb and change → where it was seen first, how often.
    groups: BTreeMap<String, (String, usize)>,
}

impl Report {
    /// The unlisted differences, one line for all that are alike.
    fn text(&self) -> String {
        let lines = self
            .groups
            .iter()
            .map(|(change, (first, times))| format!("{change}  ({times} times, first {first})"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Compares cases whose device not every kernel has, so that their differences cannot stand in the list: `intended` has
/// patterns of path, reference's value and ours.
pub(crate) fn compare_device(cases: &[Case], intended: &[(&str, &str, &str)]) -> Result<()> {
    use podnet_tests::difference::matches;
    let list = Differences::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("differences.json"))?;
    let report = compare(cases, &["1.0.0"], Side::Debian, Side::Podnet, |place, change| {
        let fits = |(path, left, right): &(&str, &str, &str)| {
            matches(path, &change.path) && matches(left, &change.left) && matches(right, &change.right)
        };
        intended.iter().any(fits) || list.covers(place, change)
    })?;
    anyhow::ensure!(report.wrong == 0, "differences that are not intended:\n{}", report.text());
    Ok(())
}

/// Plays each case in each version on both sides, in a few threads, and compares.
fn compare(
    cases: &[Case],
    versions: &[&str],
    left: Side,
    right: Side,
    covers: impl Fn(Place<'_>, &Change) -> bool + Sync,
) -> Result<Report> {
    let jobs: Vec<_> = cases
        .iter()
        .flat_map(|case| {
            versions.iter().filter(|version| **version >= case.since).map(move |version| (case, *version))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let report = Mutex::new(Report::default());
    let worker = || -> Result<()> {
        while let Some((case, version)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let what = || format!("{} {version}", case.name);
            let (a, b) = (
                play(case, version, left).with_context(what)?,
                play(case, version, right).with_context(what)?,
            );
            let mut report = report.lock().unwrap_or_else(|e| e.into_inner());
            for (a, b) in a.iter().zip(&b) {
                report.compared += 1;
                report.lines += a.facts.iter().count();
                let place = Place { config: case.name, version, step: &a.label };
                for change in a.facts.changes(&b.facts) {
                    if covers(place, &change) {
                        report.covered += 1;
                    } else {
                        report.wrong += 1;
                        let verb = a.label.rsplit_once(' ').map_or(a.label.as_str(), |(verb, _pod)| verb);
                        let group = report.groups.entry(format!("{verb} {change}"));
                        group.or_insert_with(|| (format!("{:?} {version}", case.name), 0)).1 += 1;
                    }
                }
            }
        }
        Ok(())
    };
    workers(4, worker)?;
    Ok(report.into_inner().unwrap_or_else(|e| e.into_inner()))
}

#[test]
fn the_reference_agrees_with_itself() -> Result<()> {
    let report = compare(&cases(), &["0.4.0"], Side::Debian, Side::Debian, |_, _| false)?;
    assert!(report.wrong == 0, "not normalised:\n{}", report.text());
    Ok(())
}

/// The negative control: two configurations that differ in one key must differ in the picture.
#[test]
fn a_difference_is_seen() -> Result<()> {
    let played = |name: &str| -> Result<Vec<Step>> {
        let case = cases().into_iter().find(|case| case.name == name).context("no such case")?;
        play(&case, "0.4.0", Side::Debian)
    };
    for (other, path) in [
        ("mtu", "world/pod0/link/eth0/mtu"),
        ("default gateway", "world/pod0/route/main/4/default/0/gateway"),
        ("default gateway", "result/routes/0/dst"),
        ("defaults", "world/host/sysctl/net/ipv4/ip_forward"),
        ("defaults", "world/host/addr/cni0/10.1.2.1_24/scope"),
        ("another bridge name", "world/host/link/veth0/master"),
        ("podman's CNI_ARGS", "world/data/testnet/10.1.2.77/content"),
    ] {
        let (left, right) = (played("gateway")?, played(other)?);
        let changes = left[0].facts.changes(&right[0].facts);
        assert!(
            changes.iter().any(|change| change.path == path),
            "{other}: {path} is not among {changes:#?}"
        );
    }
    Ok(())
}

#[test]
fn ours_does_what_the_reference_does() -> Result<()> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("differences.json");
    let differences = Differences::load(&list)?;
    let (cases, started) = (cases(), Instant::now());
    let report = compare(&cases, &VERSIONS, Side::Debian, Side::Podnet, |place, change| {
        differences.covers(place, change)
    })?;
    println!(
        "{} configurations × {} versions: {} calls, {} lines compared, {} intended differences, {} others, {:.1} s",
        cases.len(),
        VERSIONS.len(),
        report.compared,
        report.lines,
        report.covered,
        report.wrong,
        started.elapsed().as_secs_f32()
    );
    for (count, reason) in differences.summary() {
        println!("{count:6}  {reason}");
    }
    assert!(cases.len() >= 30, "the matrix has only {} configurations", cases.len());
    assert!(report.wrong == 0, "differences that are not listed:\n{}", report.text());
    let unseen = differences.unseen();
    assert!(unseen.is_empty(), "listed differences that did not occur:\n{}", unseen.join("\n"));
    Ok(())
}
