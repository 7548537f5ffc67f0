//! The daemon as a process: its socket, signals, files, and what the plugin says when it is not there.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::*;

#[test]
fn status_tells_whether_the_daemon_lives() -> Result<()> {
    let mut lan = Lan::new(1)?;
    let dead = lan.call("STATUS", 0).run()?.error()?;
    ensure!(dead.code == 50 && dead.msg.contains("start `podnet dhcp daemon`"), "{dead:?}");
    lan.start_daemon(&[])?;
    lan.call("STATUS", 0).run()?.silent()?;
    lan.daemon.as_mut().context("daemon")?.end(Signal::SIGKILL)?;
    let dead = lan.call("STATUS", 0).run()?.error()?;
    ensure!(dead.code == 50, "a socket without a daemon: {dead:?}");
    Ok(())
}

#[test]
fn without_a_daemon_add_and_check_fail_and_del_and_gc_succeed() -> Result<()> {
    let lan = Lan::new(1)?;
    let prev = json!({"cniVersion": VERSION});
    for verb in ["ADD", "CHECK"] {
        let error = lan.call(verb, 0).prev(&prev).run()?.error()?;
        ensure!(error.msg.contains("error dialing DHCP daemon"), "{error:?}");
    }
    lan.call("DEL", 0).run()?.silent()?;
    lan.call("DEL", 0).env("CNI_NETNS", "").run()?.silent()?;
    lan.call("GC", 0).with("cni.dev/valid-attachments", "[]").run()?.silent()?;
    // A configuration that has become wrong keeps nothing.
    let broken =
        PLAIN.replace(r#""type":"dhcp","#, r#""type":"dhcp","mode":"what","request":[{"option":"x"}],"#);
    lan.call_with("DEL", 0, &broken).run()?.silent()
}

#[test]
fn gc_without_a_daemon_forgets_what_the_next_one_would_take_over() -> Result<()> {
    let mut lan = Lan::ready(2, &[])?;
    lan.add(0)?;
    lan.add(1)?;
    lan.daemon.as_mut().context("daemon")?.end(Signal::SIGKILL)?;
    let valid = r#"[{"containerID":"c1","ifname":"eth0"}]"#;
    lan.call("GC", 0).with("cni.dev/valid-attachments", valid).run()?.silent()?;
    ensure!(lan.kept() == 1);
    lan.start_daemon(&[])?;
    lan.daemon().wait_for("c1/testnet/eth0: taking over")?;
    ensure!(lan.daemon().count("c0/") == 0);
    Ok(())
}

#[test]
fn signals_end_it_and_its_files_go() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut lan = Lan::ready(1, &[])?;
        let pidfile = lan.world.dir().join("pid");
        lan.daemon.take();
        lan.start_daemon(&["--pidfile", &pidfile.to_string_lossy()])?;
        ensure!(std::fs::read_to_string(&pidfile)? == lan.daemon().id().to_string());
        let result = lan.add(0)?;
        let status = lan.daemon.as_mut().context("daemon")?.end(signal)?;
        ensure!(status.success() && !lan.socket().exists() && !pidfile.exists(), "{signal}: {status}");
        // An end is no release: the pods live on.
        ensure!(lan.dnsmasq().count("DHCPRELEASE") == 0 && lan.kept() == 1);
        lan.start_daemon(&[])?;
        lan.call("CHECK", 0).prev(&result).run()?.silent()?;
    }
    Ok(())
}

#[test]
fn flags_that_make_no_sense_are_refused() -> Result<()> {
    let lan = Lan::new(0)?;
    for (args, gist) in [
        (&["-nope"][..], "flag provided but not defined: -nope"),
        (&["-pidfile", "relative"], "path not absolute"),
        (&["-timeout", "soon"], "invalid value \"soon\""),
    ] {
        let args = [&["dhcp", "daemon", "-socketpath", "/nowhere/x"][..], args].concat();
        let mut program = Program::start(&lan.world.host, &plugins::podnet()?, &args, &[])?;
        let status = program.wait()?;
        ensure!(!status.success(), "{args:?}");
        program.wait_for(gist)?;
    }
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_and_disturbs_nothing() -> Result<()> {
    let lan = Lan::ready(1, &[])?;
    let result = lan.add(0)?;
    let (socket, state) = (lan.socket(), lan.world.dir().join("state"));
    for (socket, gist) in [
        (socket.to_string_lossy().into_owned(), "another daemon answers"),
        (format!("{}.second", socket.display()), "another daemon uses it"),
    ] {
        let args = ["dhcp", "daemon", "-socketpath", &socket, "-statedir", &state.to_string_lossy()];
        let mut second = Program::start(&lan.world.host, &plugins::podnet()?, &args, &[])?;
        ensure!(!second.wait()?.success());
        second.wait_for(gist)?;
    }
    lan.call("CHECK", 0).prev(&result).run()?.silent()
}

#[test]
fn a_link_named_dhcp_is_a_daemon_too() -> Result<()> {
    let lan = Lan::new(1)?;
    let socket = lan.socket();
    let program = lan.world.plugins().join("dhcp");
    let state = lan.world.dir().join("state").to_string_lossy().into_owned();
    let args = ["daemon", "--socketpath", &socket.to_string_lossy(), "--statedir", &state];
    let daemon = Program::start(&lan.world.host, &program, &args, &[])?;
    daemon.wait_for("ready")?;
    lan.call("STATUS", 0).run()?.silent()
}

#[test]
fn systemd_hands_on_the_socket() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.serve(&[])?;
    let socket = lan.socket();
    let listener = UnixListener::bind(&socket)?;
    // What systemd does: the listening socket as descriptor 3, and the process's own number.
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let podnet = plugins::podnet()?;
    let state = lan.world.dir().join("state");
    let args = [
        "-c",
        script,
        "sh",
        &podnet.to_string_lossy(),
        "dhcp",
        "daemon",
        "-statedir",
        &state.to_string_lossy(),
    ];
    let stdin = Some(OwnedFd::from(listener));
    let mut daemon = Program::start_with(&lan.world.host, "/bin/sh".as_ref(), &args, &[], stdin)?;
    daemon.wait_for("ready")?;
    lan.add(0)?;
    ensure!(daemon.end(Signal::SIGTERM)?.success());
    ensure!(socket.exists(), "the socket is systemd's: it listens there for the next start");
    Ok(())
}

#[test]
fn the_references_pair_is_named_from_both_sides() -> Result<()> {
    let mut lan = Lan::ready(1, &[])?;
    // The reference's plugin with our daemon.
    lan.world.switch(Side::Debian)?;
    let outcome = lan.world.call("dhcp", "ADD").config("1.0.0", PLAIN).run()?;
    ensure!(outcome.error()?.msg.contains("does not speak gob: use podnet's dhcp plugin"), "{outcome:?}");
    lan.daemon().wait_for("it speaks gob")?;
    // Our plugin with the reference's daemon.
    lan.daemon.take();
    std::fs::remove_file(lan.socket())?;
    let socket = lan.socket();
    let args = ["daemon", "-socketpath", &socket.to_string_lossy()];
    let _reference = Program::start(&lan.world.host, &lan.world.plugins().join("dhcp"), &args, &[])?;
    eventually("the reference listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok())?;
    lan.world.switch(Side::Podnet)?;
    for (verb, code) in [("ADD", 999), ("DEL", 999), ("STATUS", 50)] {
        let error = lan.call(verb, 0).run()?.error()?;
        ensure!(
            error.code == code && error.msg.contains("it speaks gob, so it is the reference's"),
            "{verb}: {error:?}"
        );
    }
    Ok(())
}

#[test]
fn a_pod_that_is_not_there_is_an_error_at_once() -> Result<()> {
    let lan = Lan::ready(1, &[])?;
    let error = lan.call("ADD", 0).env("CNI_IFNAME", "eth7").run()?.error()?;
    ensure!(error.msg.contains("error looking up \"eth7\""), "{error:?}");
    let error = lan.call("ADD", 0).env("CNI_NETNS", "/run/no/such/netns").run()?.error()?;
    ensure!(error.code == 8, "{error:?}");
    ensure!(lan.kept() == 0);
    Ok(())
}

#[test]
fn a_host_prefix_stands_before_all_paths() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.serve(&[])?;
    // The node's root as a container sees it: a directory with /proc and /run in it.
    let root = lan.world.dir().join("host");
    std::fs::create_dir(&root)?;
    std::os::unix::fs::symlink("/proc", root.join("proc"))?;
    let prefix = root.to_string_lossy().into_owned();
    let args = ["dhcp", "daemon", "-hostprefix", &prefix, "-socketpath", "/run/lan.sock"];
    let daemon = Program::start(&lan.world.host, &plugins::podnet()?, &args, &[])?;
    daemon.wait_for("ready")?;
    let text = r#"{"ipam":{"type":"dhcp","daemonSocketPath":"@DIR@/host/run/lan.sock"}}"#;
    lan.call_with("ADD", 0, text).run()?.result()?;
    ensure!(root.join("var/lib/cni/dhcp/at-run-lan.sock").read_dir()?.count() == 2, "the lease and the lock");
    Ok(())
}

#[test]
fn neither_plugin_nor_daemon_starts_a_program() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.serve(&[])?;
    let (socket, state) = (lan.socket(), lan.world.dir().join("state"));
    let (podnet, log) = (plugins::podnet()?, lan.world.dir().join("strace"));
    let pidfile = lan.world.dir().join("pid");
    let [podnet, log, socket, state, pid] =
        [&podnet, &log, &socket, &state, &pidfile].map(|path| path.to_string_lossy());
    let traced = ["-f", "-o", &log, "-e", "trace=execve", &podnet];
    let flags = ["dhcp", "daemon", "-socketpath", &socket, "-statedir", &state, "-pidfile", &pid];
    let args = [&traced[..], &flags].concat();
    let mut daemon = Program::start(&lan.world.host, "/usr/bin/strace".as_ref(), &args, &[])?;
    daemon.wait_for("ready")?;
    let plugin_log = format!("{log}.plugin");
    let through = ["strace", "-f", "-A", "-o", &plugin_log, "-e", "trace=execve"];
    let result = lan.call("ADD", 0).through(&through).run()?.result()?;
    for verb in ["CHECK", "STATUS", "GC", "DEL"] {
        lan.call(verb, 0).prev(&result).through(&through).run()?.silent()?;
    }
    // Not strace, which would only let go of it.
    let pid = std::fs::read_to_string(&pidfile)?.parse()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM)?;
    daemon.wait()?;
    let execs = |log: &str| -> Result<usize> {
        Ok(std::fs::read_to_string(log)?.lines().filter(|line| line.contains("execve(")).count())
    };
    // Each log holds the start of the program itself.
    ensure!((execs(&log)?, execs(&plugin_log)?) == (1, 5), "{:?}", (execs(&log)?, execs(&plugin_log)?));
    Ok(())
}
