//! ADD is killed with SIGKILL, at each of its system calls that may change something (by `strace`) and at moments of
//! the clock: a DEL afterwards leaves nothing, and the next ADD works.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{DUAL, bridge};

fn recovers(world: &World) -> Result<()> {
    recovers_of(world, "bridge", DUAL, &["lo"])
}

/// After the DEL of a killed ADD: the links of the node that were there before and no others, no address reserved; and
/// the same ADD succeeds.
fn recovers_of(world: &World, plugin: &str, text: &str, links: &[&str]) -> Result<()> {
    let call = |verb: &str| world.call(plugin, verb).config("1.1.0", text);
    call("DEL").run()?.silent()?;
    let snapshot = world.snapshot()?;
    ensure!(snapshot.pods[0].macs.keys().eq(["lo"]), "links left in the pod: {:?}", snapshot.pods[0].macs);
    let there: Vec<_> =
        snapshot.host.macs.keys().map(String::as_str).filter(|link| *link != "cni0").collect();
    ensure!(there == links, "links on the node: {there:?}, not {links:?}");
    ensure!(world.reservations(NETWORK)?.is_empty(), "reservations left: {:?}", world.reservations(NETWORK)?);
    let strays = snapshot.facts.iter().filter(|(path, _)| path.starts_with("data/") && path.contains("tmp"));
    ensure!(strays.count() == 0, "temporary files left: {:?}", snapshot.facts);
    let result = call("ADD").run()?.result()?;
    call("CHECK").prev(&result).run()?.silent()?;
    call("DEL").prev(&result).run()?.silent()
}

#[test]
fn an_add_killed_at_any_system_call_is_cleaned_up_by_del() -> Result<()> {
    killed_at_any_system_call("bridge", DUAL, &["lo"], |_| Ok(()))
}

/// System calls after which the kernel or a disk may be another than before.
const CHANGING: &str = "sendto,sendmsg,sendmmsg,write,writev,pwrite64,rename,renameat,renameat2,link,linkat,unlink,\
    unlinkat,mkdir,mkdirat,open,openat,ftruncate,ioctl,flock,setns,fork,clone,exit_group";

/// ADD of `plugin` is killed at each of its system calls that may change something (at the others it leaves what it
/// leaves at the next of these), in a world with these links on the node that `prepare` made, and DEL cleans up.
///
/// strace counts the calls of each name by itself, so they are counted in an undisturbed ADD first.
pub(crate) fn killed_at_any_system_call(
    plugin: &str,
    text: &str,
    links: &[&str],
    prepare: impl Fn(&World) -> Result<()> + Sync,
) -> Result<()> {
    let trace = |fault: &str| -> Result<(World, Option<i32>, Vec<String>)> {
        let world = World::new(Side::Podnet, 1)?;
        prepare(&world)?;
        let log = world.dir().join("strace").to_string_lossy().into_owned();
        let (calls, fault) = (format!("trace={CHANGING}"), fault.replace("CHANGING", CHANGING));
        let strace = ["strace", "-o", &log, "-e", &calls, "-e", &fault];
        let outcome = world.call(plugin, "ADD").config("1.1.0", text).through(&strace).run();
        let outcome = outcome.context("run strace: is it installed?")?;
        let log = std::fs::read_to_string(&log).context("read strace's log")?;
        Ok((world, outcome.exit, log.lines().map(str::to_owned).collect()))
    };
    let (_world, exit, log) = trace("trace=CHANGING")?;
    ensure!(exit == Some(0), "ADD of {plugin} fails: {log:#?}");
    let mut counts = std::collections::BTreeMap::new();
    let mut moments = Vec::new();
    for line in &log {
        let Some((name, arguments)) = line.split_once('(') else { continue };
        // A write to /proc/sys that found the routing lock taken: the kernel starts it again, and it is counted
        // once more. The next run need not meet the lock, and would then end before the last count.
        if arguments.contains("ERESTART") {
            continue;
        }
        let count = counts.entry(name).or_insert(0);
        *count += 1;
        if !name.starts_with("open") || arguments.contains("O_CREAT") {
            moments.push((name, *count));
        }
    }
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        while let Some((name, n)) = moments.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (world, exit, log) = trace(&format!("inject={name}:signal=KILL:when={n}"))?;
            let what =
                || format!("killed at {name} {n}: {:#?}", log.iter().rev().take(4).collect::<Vec<_>>());
            ensure!(exit.is_none(), "it was not killed: {}", what());
            recovers_of(&world, plugin, text, links).with_context(what)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked"))))
    })?;
    println!("ADD of {plugin} was killed at {} system calls", moments.len());
    ensure!(moments.len() > 10, "only {moments:?}");
    Ok(())
}

#[test]
fn an_add_killed_at_any_moment_is_cleaned_up_by_del() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let started = Instant::now();
    bridge(&world, "ADD", DUAL).run()?.result()?;
    let whole = started.elapsed().max(Duration::from_millis(5));
    bridge(&world, "DEL", DUAL).run()?.silent()?;
    for step in 0..40 {
        let moment = whole.mul_f64(f64::from(step) / 40.0);
        bridge(&world, "ADD", DUAL).run_killed(moment)?;
        recovers(&world).with_context(|| format!("killed after {moment:?} of {whole:?}"))?;
    }
    Ok(())
}

#[test]
fn a_del_killed_at_any_system_call_is_finished_by_the_next() -> Result<()> {
    let (next, last) = (AtomicUsize::new(1), AtomicUsize::new(usize::MAX));
    let worker = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n > last.load(Ordering::Relaxed) {
                return Ok(());
            }
            let world = World::new(Side::Podnet, 1)?;
            let result = bridge(&world, "ADD", DUAL).run()?.result()?;
            let fault = format!("inject=all:signal=KILL:when={n}");
            let del = bridge(&world, "DEL", DUAL).prev(&result);
            let outcome =
                del.through(&["strace", "-o", "/dev/null", "-e", "trace=all", "-e", &fault]).run()?;
            if outcome.exit == Some(0) {
                last.fetch_min(n, Ordering::Relaxed);
                return Ok(());
            }
            recovers(&world).with_context(|| format!("killed at system call {n}"))?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked"))))
    })
}
