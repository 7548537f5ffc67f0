//! ADD undoes everything on any error: after a failed ADD the world is exactly as before, whatever step failed, whatever
//! stood there already. Errors that a configuration or a world can bring about are in `bad_input` too; here are those at
//! the very end (stdout), those on a node that is in use, and, by `strace` (which makes the n-th system call of a kind
//! fail), those at any request in between.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use podnet_tests::facts::Facts;
use podnet_tests::process::Stdout;
use podnet_tests::world::NETWORK;
use podnet_tests::{Outcome, Side, World, workers};

const DUAL: &str = r#"{"isDefaultGateway":true,"hairpinMode":true,"mtu":1400,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],"routes":[{"dst":"192.168.0.0/16"}]}}"#;

/// The network's own directory, lock, cursor and whatever else reserves nothing may stay. So may the queue that the
/// kernel gives a link when it is first set up: setting it down again does not take it away.
fn essence(facts: &Facts) -> Facts {
    facts.filtered(|path| {
        if path.ends_with("/qdisc") {
            return false;
        }
        let file = path.strip_prefix(&format!("data/{NETWORK}/"));
        match file.and_then(|file| file.split('/').next()) {
            Some(file) => podnet_tests::world::is_reservation(file),
            None => !path.starts_with("data/"),
        }
    })
}

/// The world is as `before`, but for what may stay after a failed ADD.
pub(super) fn unchanged(world: &World, before: &Facts) -> Result<()> {
    let left = essence(before).changes(&essence(&world.snapshot()?.facts));
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

fn fails_without_a_trace(world: &World, text: &str, version: &str, stdout: Stdout) -> Result<Outcome> {
    add_fails_without_a_trace(world, "bridge", text, version, stdout)
}

/// ADD of `plugin` fails, and leaves the world as it was.
pub(super) fn add_fails_without_a_trace(
    world: &World,
    plugin: &str,
    text: &str,
    version: &str,
    stdout: Stdout,
) -> Result<Outcome> {
    let before = world.snapshot()?.facts;
    let outcome = world.call(plugin, "ADD").config(version, text).stdout(stdout).run()?;
    ensure!(outcome.exit == Some(1) && !outcome.panicked(), "{outcome:?}");
    unchanged(world, &before)?;
    Ok(outcome)
}

#[test]
fn a_result_that_nobody_reads_is_undone() -> Result<()> {
    for stdout in [Stdout::Closed, Stdout::Full] {
        for text in [DUAL, "{}"] {
            let world = World::new(Side::Podnet, 1)?;
            fails_without_a_trace(&world, text, "1.0.0", stdout)
                .with_context(|| format!("{stdout:?} {text}"))?;
        }
        let world = World::new(Side::Podnet, 1)?;
        let before = world.snapshot()?.facts;
        let outcome = world.call("host-local", "ADD").config("1.0.0", DUAL).stdout(stdout).run()?;
        ensure!(outcome.exit == Some(1), "{outcome:?}");
        unchanged(&world, &before)?;
        let outcome = world.call("loopback", "ADD").config("1.0.0", "{}").stdout(stdout).run()?;
        ensure!(outcome.exit == Some(1), "{outcome:?}");
        unchanged(&world, &before)?;
    }
    Ok(())
}

#[test]
fn a_result_that_the_version_cannot_express_is_undone() -> Result<()> {
    for version in ["", "0.1.0", "0.2.0"] {
        let world = World::new(Side::Podnet, 1)?;
        let outcome = fails_without_a_trace(&world, r#"{"mtu":1300}"#, version, Stdout::Read)?;
        ensure!(outcome.error()?.msg.contains("cannot convert: no valid IP addresses"), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn a_bridge_that_was_there_gets_back_what_was_changed() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(&[
        "link add cni0 address 02:00:00:00:00:b0 type bridge",
        "addr add 10.9.9.1/24 dev cni0",
        "addr add 2001:db8:1::9/64 dev cni0 nodad",
    ])?;
    let text = r#"{"isGateway":true,"forceAddress":true,"promiscMode":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
        "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#;
    fails_without_a_trace(&world, text, "1.0.0", Stdout::Closed)?;
    Ok(())
}

#[test]
fn an_address_that_forceaddress_took_comes_back_with_its_routes() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(&[
        "link add cni0 address 02:00:00:00:00:b0 type bridge",
        "addr add 10.9.9.1/24 dev cni0",
        "addr add 10.9.9.2/24 dev cni0",
        "link set cni0 up",
    ])?;
    let text = r#"{"isGateway":true,"forceAddress":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
    fails_without_a_trace(&world, text, "1.0.0", Stdout::Closed)?;
    Ok(())
}

#[test]
fn forwarding_of_single_interfaces_survives_an_undone_add() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(&["link add up0 type veth peer name up1"])?;
    for path in
        ["net/ipv4/conf/up0/forwarding", "net/ipv6/conf/up0/forwarding", "net/ipv4/conf/up1/send_redirects"]
    {
        world.host.run(|| std::fs::write(format!("/proc/sys/{path}"), "1"))?.context(path)?;
    }
    fails_without_a_trace(&world, DUAL, "1.0.0", Stdout::Closed)?;
    Ok(())
}

#[test]
fn a_failed_add_leaves_the_other_pods_alone() -> Result<()> {
    let world = World::new(Side::Podnet, 2)?;
    let first = world.call("bridge", "ADD").config("1.0.0", DUAL).pod(1).run()?.result()?;
    fails_without_a_trace(&world, DUAL, "1.0.0", Stdout::Closed)?;
    let broken = DUAL.replace(r#"{"dst":"192.168.0.0/16"}"#, r#"{"dst":"192.168.0.0/16","gw":"172.16.0.1"}"#);
    fails_without_a_trace(&world, &broken, "1.0.0", Stdout::Read)?;
    world.call("bridge", "CHECK").config("1.0.0", DUAL).pod(1).prev(&first).run()?.silent()?;
    Ok(())
}

#[test]
fn a_second_add_of_the_same_attachment_fails_and_leaves_the_first() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let first = world.call("bridge", "ADD").config("1.0.0", DUAL).run()?.result()?;
    fails_without_a_trace(&world, DUAL, "1.0.0", Stdout::Read)?;
    // Another container id: it is the interface name that is taken then.
    let before = world.snapshot()?.facts;
    let outcome = world.call("bridge", "ADD").config("1.0.0", DUAL).container("other").run()?;
    ensure!(outcome.error()?.msg.contains("container veth name (\"eth0\")"), "{outcome:?}");
    unchanged(&world, &before)?;
    world.call("bridge", "CHECK").config("1.0.0", DUAL).prev(&first).run()?.silent()
}

#[test]
fn a_foreign_delegate_is_told_to_del_when_add_fails() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for (answer, expected) in [
        // The delegate itself fails: the specification asks for a DEL then too.
        ("exit 1", "ADD\nDEL\n"),
        // A later step fails: the gateway of the route cannot be reached.
        (
            r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}],"routes":[{"dst":"10.0.0.0/8","gw":"10.7.7.7"}]}'"#,
            "ADD\nDEL\n",
        ),
        ("echo nonsense", "ADD\nDEL\n"),
    ] {
        let world = World::new(Side::Podnet, 1)?;
        let delegate = world.dir().join("delegate");
        let log = world.dir().join("log");
        let script = format!(
            "#!/bin/sh\necho $CNI_COMMAND >>{}\ncat >/dev/null\n[ $CNI_COMMAND = ADD ] || exit 0\n{answer}\n",
            log.display()
        );
        std::fs::write(&delegate, script)?;
        std::fs::set_permissions(&delegate, std::fs::Permissions::from_mode(0o755))?;
        let before = world.snapshot()?.facts;
        let call = world.call("bridge", "ADD").config("1.0.0", r#"{"ipam":{"type":"delegate"}}"#);
        let outcome = call.env("CNI_PATH", world.dir()).run()?;
        outcome.error()?;
        unchanged(&world, &before)?;
        let seen = std::fs::read_to_string(&log)?;
        ensure!(seen == expected, "{answer}: the delegate saw {seen:?}");
    }
    Ok(())
}

fn inject(calls: &str, error: &str, text: &str) -> Result<usize> {
    inject_into("bridge", calls, error, text, |_| Ok(()))
}

/// Makes the n-th call of each kind fail, for n from 1 until ADD of `plugin` no longer notices, each in a world that
/// `prepare` has furnished. Returns how many ADDs failed.
pub(super) fn inject_into(
    plugin: &str,
    calls: &str,
    error: &str,
    text: &str,
    prepare: impl Fn(&World) -> Result<()> + Sync,
) -> Result<usize> {
    let (next, failed) = (AtomicUsize::new(1), AtomicUsize::new(0));
    let last = AtomicUsize::new(usize::MAX);
    let worker = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n > last.load(Ordering::Relaxed) {
                return Ok(());
            }
            let world = World::new(Side::Podnet, 1)?;
            prepare(&world)?;
            let before = world.snapshot()?.facts;
            let log = world.dir().join("strace");
            let (trace, fault) = (format!("trace={calls}"), format!("inject={calls}:error={error}:when={n}"));
            let log_path = log.to_string_lossy();
            let strace = ["strace", "-f", "-o", &log_path, "-e", &trace, "-e", &fault];
            let call = world.call(plugin, "ADD").config("1.0.0", text);
            let outcome = call.through(&strace).run().context("run strace: is it installed?")?;
            let log = std::fs::read_to_string(&log).context("read strace's log")?;
            if !log.contains("(INJECTED)") {
                last.fetch_min(n, Ordering::Relaxed);
                return Ok(());
            }
            let what = || format!("the {n}th of {calls} fails with {error}:\n{log}\n{outcome:?}");
            ensure!(!outcome.panicked(), "panic: {}", what());
            if outcome.exit == Some(0) {
                // A best-effort step: what was made must be whole and deletable.
                let result = outcome.result()?;
                world
                    .call(plugin, "CHECK")
                    .config("1.0.0", text)
                    .prev(&result)
                    .run()?
                    .silent()
                    .with_context(what)?;
                world
                    .call(plugin, "DEL")
                    .config("1.0.0", text)
                    .prev(&result)
                    .run()?
                    .silent()
                    .with_context(what)?;
                continue;
            }
            failed.fetch_add(1, Ordering::Relaxed);
            unchanged(&world, &before).with_context(what)?;
        }
    };
    workers(3, worker)?;
    Ok(failed.into_inner())
}

#[test]
fn each_netlink_request_that_fails_is_undone() -> Result<()> {
    for error in ["EPERM", "ENOBUFS"] {
        let failed = inject("sendto,sendmsg,sendmmsg", error, DUAL)?;
        ensure!(failed >= 5, "only {failed} requests of ADD could be made to fail");
    }
    Ok(())
}

#[test]
fn each_file_that_cannot_be_written_is_undone() -> Result<()> {
    let failed =
        inject("rename,renameat,renameat2,link,linkat,fsync,fdatasync,ftruncate,mkdir,flock", "EIO", DUAL)?;
    ensure!(failed >= 1, "nothing of ADD could be made to fail");
    Ok(())
}

#[test]
fn each_socket_or_namespace_that_cannot_be_had_is_undone() -> Result<()> {
    // One call at a time: strace counts each kind by itself, and a taking back that fails too is another matter.
    let mut failed = 0;
    for call in ["socket", "bind", "setns"] {
        failed += inject(call, "EMFILE", DUAL)?;
    }
    ensure!(failed >= 3, "only {failed} calls of ADD could be made to fail");
    Ok(())
}
