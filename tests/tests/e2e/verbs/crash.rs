//! ADD and DEL are killed with SIGKILL, at each of their system calls that may change something (by `strace`), and ADD at
//! moments of the clock too: a DEL afterwards leaves nothing, and the next ADD works.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podnet_tests::counts::SystemCall;
use podnet_tests::world::{Call, NETWORK};
use podnet_tests::{Side, World, workers};
use serde_json::Value;

use super::{DUAL, bridge};
use crate::rules::ruleset;

/// System calls after which the kernel or a disk may be another than before.
const CHANGING: &str = "sendto,sendmsg,sendmmsg,write,writev,pwrite64,rename,renameat,renameat2,link,linkat,symlink,\
    symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,open,openat,ftruncate,utimensat,ioctl,flock,setns,fork,vfork,clone,\
    clone3,exit_group";

/// A bridge with rules of both kinds and a gateway.
const RULES: &str = r#"{"isGateway":true,"ipMasq":true,"macspoofchk":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#;

/// A plugin that is killed, and the node that it is killed on.
pub(crate) struct Scene<'a> {
    /// Its name.
    pub(crate) plugin: &'a str,
    /// Its configuration.
    pub(crate) text: &'a str,
    /// The links of the node that `prepare` made, with `lo`; a bridge `cni0` may be there too.
    pub(crate) links: &'a [&'a str],
    /// Furnishes the node.
    pub(crate) prepare: &'a (dyn Fn(&World) -> Result<()> + Sync),
}

/// What a call under strace left.
struct Traced {
    world: World,
    /// The node's rules before the first call.
    rules: String,
    /// The result of the ADD before, when it is DEL that was traced.
    prev: Option<Value>,
    exit: Option<i32>,
    log: Vec<String>,
}

impl<'a> Scene<'a> {
    /// On an empty node.
    pub(crate) fn new(plugin: &'a str, text: &'a str) -> Self {
        Scene { plugin, text, links: &["lo"], prepare: &|_| Ok(()) }
    }

    fn call<'w>(&self, world: &'w World, verb: &str, prev: Option<&Value>) -> Call<'w> {
        let call = world.call(self.plugin, verb).config("1.1.0", self.text);
        prev.map_or(call.clone(), |prev| call.prev(prev))
    }

    /// `verb` under strace, which brings about a fault, in a world of its own; DEL after an ADD.
    fn traced(&self, verb: &str, fault: Option<&str>) -> Result<Traced> {
        let world = World::new(Side::Podnet, 1)?;
        (self.prepare)(&world)?;
        let rules = ruleset(&world)?;
        let prev = match verb {
            "ADD" => None,
            _ => Some(self.call(&world, "ADD", None).run()?.result()?),
        };
        let log = world.dir().join("strace").to_string_lossy().into_owned();
        let calls = format!("trace={CHANGING}");
        let mut strace = vec!["strace", "-o", &log, "-e", &calls];
        strace.extend(fault.into_iter().flat_map(|fault| ["-e", fault]));
        let outcome = self.call(&world, verb, prev.as_ref()).through(&strace).run();
        let outcome = outcome.context("run strace: is it installed?")?;
        let log = std::fs::read_to_string(&log).context("read strace's log")?;
        let log = log.lines().map(str::to_owned).collect();
        Ok(Traced { world, rules, prev, exit: outcome.exit, log })
    }

    /// A DEL leaves the links of the node that were there before and no others, no rule, no address reserved and no
    /// temporary file; and ADD, CHECK and DEL succeed.
    fn recovers(&self, world: &World, rules: &str, prev: Option<&Value>) -> Result<()> {
        self.call(world, "DEL", prev).run()?.silent()?;
        self.clean(world, rules)?;
        let result = self.call(world, "ADD", None).run()?.result()?;
        self.call(world, "CHECK", Some(&result)).run()?.silent()?;
        self.call(world, "DEL", Some(&result)).run()?.silent()?;
        self.clean(world, rules).context("after one more ADD and DEL")
    }

    fn clean(&self, world: &World, rules: &str) -> Result<()> {
        let snapshot = world.snapshot()?;
        let links = &snapshot.pods[0].macs;
        ensure!(links.keys().eq(["lo"]), "links left in the pod: {links:?}");
        let links: Vec<_> =
            snapshot.host.macs.keys().map(String::as_str).filter(|link| *link != "cni0").collect();
        ensure!(links == self.links, "links on the node: {links:?}, not {:?}", self.links);
        let left = world.reservations(NETWORK)?;
        ensure!(left.is_empty(), "reservations left: {left:?}");
        let strays =
            snapshot.facts.iter().filter(|(path, _)| path.starts_with("data/") && path.contains("tmp"));
        ensure!(strays.count() == 0, "temporary files left: {:?}", snapshot.facts);
        let left = ruleset(world)?;
        ensure!(left == rules, "rules left: {left}");
        Ok(())
    }

    /// `verb` is killed at each of its system calls that may change something (at the others it leaves what it leaves at
    /// the next of these), and DEL cleans up.
    pub(crate) fn killed_at_any_system_call(&self, verb: &str) -> Result<()> {
        let undisturbed = self.traced(verb, None)?;
        ensure!(undisturbed.exit == Some(0), "{verb} of {} fails: {:#?}", self.plugin, undisturbed.log);
        let moments = moments(&undisturbed.log);
        ensure!(moments.len() > 10, "only {moments:?}");
        let kill = |name: &str, n: usize| -> Result<()> {
            let traced = self.traced(verb, Some(&format!("inject={name}:signal=KILL:when={n}")))?;
            let what = || {
                format!("killed at {name} {n}: {:#?}", traced.log.iter().rev().take(4).collect::<Vec<_>>())
            };
            ensure!(traced.exit.is_none(), "it was not killed: {}", what());
            self.recovers(&traced.world, &traced.rules, traced.prev.as_ref()).with_context(what)
        };
        let next = AtomicUsize::new(0);
        let worker = || -> Result<()> {
            while let Some((name, n)) = moments.get(next.fetch_add(1, Ordering::Relaxed)) {
                kill(name, *n)?;
            }
            Ok(())
        };
        workers(3, worker)?;
        println!("{verb} of {} was killed at {} system calls", self.plugin, moments.len());
        Ok(())
    }
}

/// The calls of an undisturbed run, each as the n-th of its name, which is how strace counts them. Opening a file that is
/// there changes nothing.
///
/// A write to /proc/sys that found the routing lock taken is started again by the kernel, and strace counts it once more.
/// The next run need not meet the lock, so it is not counted here.
fn moments(log: &[String]) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    let mut moments = Vec::new();
    for call in log.iter().filter_map(|line| SystemCall::parse(line)) {
        let count = counts.entry(call.name).or_insert(0);
        *count += 1;
        if !call.name.starts_with("open") || call.arguments.contains("O_CREAT") {
            moments.push((call.name.to_owned(), *count));
        }
    }
    moments
}

#[test]
fn an_add_killed_at_any_system_call_is_cleaned_up_by_del() -> Result<()> {
    Scene::new("bridge", DUAL).killed_at_any_system_call("ADD")
}

#[test]
fn an_add_with_rules_killed_at_any_system_call_is_cleaned_up_by_del() -> Result<()> {
    Scene::new("bridge", RULES).killed_at_any_system_call("ADD")
}

#[test]
fn a_del_killed_at_any_system_call_is_finished_by_the_next() -> Result<()> {
    Scene::new("bridge", DUAL).killed_at_any_system_call("DEL")
}

#[test]
fn a_del_with_rules_killed_at_any_system_call_is_finished_by_the_next() -> Result<()> {
    Scene::new("bridge", RULES).killed_at_any_system_call("DEL")
}

/// The key `delete` is `announced` in all other tests of this module, which is its default.
#[test]
fn a_del_that_waits_killed_at_any_system_call_is_finished_by_the_next() -> Result<()> {
    let text = RULES.replacen('{', r#"{"delete":"complete","#, 1);
    Scene::new("bridge", &text).killed_at_any_system_call("DEL")
}

/// Only the child that deletes the link closes ranges of descriptors.
#[test]
fn a_del_whose_child_is_killed_deletes_the_link_itself() -> Result<()> {
    for text in [DUAL, RULES] {
        let scene = Scene::new("bridge", text);
        for n in 1.. {
            let world = World::new(Side::Podnet, 1)?;
            let rules = ruleset(&world)?;
            let prev = scene.call(&world, "ADD", None).run()?.result()?;
            let log = world.dir().join("strace").to_string_lossy().into_owned();
            let fault = format!("inject=close_range:signal=KILL:when={n}");
            let strace = ["strace", "-f", "-o", &log, "-e", "trace=close_range,exit_group", "-e", &fault];
            scene.call(&world, "DEL", Some(&prev)).through(&strace).run()?.silent()?;
            scene.clean(&world, &rules).with_context(|| format!("child killed at close_range {n}"))?;
            if !std::fs::read_to_string(&log)?.contains("killed by SIGKILL") {
                ensure!(n > 2, "the child was killed at {} calls only", n - 1);
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn an_add_killed_at_any_moment_is_cleaned_up_by_del() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let scene = Scene::new("bridge", DUAL);
    let started = Instant::now();
    bridge(&world, "ADD", DUAL).run()?.result()?;
    let whole = started.elapsed().max(Duration::from_millis(5));
    bridge(&world, "DEL", DUAL).run()?.silent()?;
    for step in 0..40 {
        let moment = whole.mul_f64(f64::from(step) / 40.0);
        bridge(&world, "ADD", DUAL).run_killed(moment)?;
        scene.recovers(&world, "", None).with_context(|| format!("killed after {moment:?} of {whole:?}"))?;
    }
    Ok(())
}

/// The negative control: what a killed ADD leaves is seen when no DEL takes it away.
#[test]
fn what_a_killed_add_leaves_is_seen() -> Result<()> {
    let scene = Scene::new("bridge", RULES);
    let traced = scene.traced("ADD", Some("inject=exit_group:signal=KILL:when=1"))?;
    ensure!(traced.exit.is_none(), "{:?}", traced.log);
    let found = scene.clean(&traced.world, &traced.rules);
    ensure!(found.is_err(), "a whole attachment is not seen");
    Ok(())
}
