//! How a control plane comes, stops, goes on and goes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kernel::Netns;
use podnet_tests::kube::{ControlPlane, Program, refusal};
use podnet_tests::nodes::wait_until;

use super::start;

#[test]
fn an_outage_ends_where_it_began() -> Result<()> {
    let (_netns, mut control) = start()?;
    let client = control.client()?;
    client.create_namespace("kept", &[])?;

    control.pause()?;
    let hasty = control.client()?.patience(Duration::from_millis(500));
    let silence = hasty.get("/api/v1/namespaces/kept").err().context("a stopped API has answered")?;
    ensure!(
        refusal(&silence).is_none() && format!("{silence:#}").contains("no answer within"),
        "{silence:#}"
    );
    control.resume()?;
    client.get("/api/v1/namespaces/kept")?;

    let before = client.get("/api/v1/namespaces/kept")?;
    let processes = pids(&control)?;
    control.kill()?;
    ensure!(client.get("/api/v1/namespaces/kept").is_err(), "a killed API has answered");
    control.restart()?;
    ensure!(pids(&control)?.iter().all(|pid| !processes.contains(pid)), "the old programs still run");
    let after = wait_until("the API answers again", || client.get("/api/v1/namespaces/kept"))?;
    ensure!(after == before, "before {before}, after {after}");
    Ok(())
}

#[test]
fn two_know_nothing_of_each_other_and_leave_nothing() -> Result<()> {
    // The same address and ports, each in a namespace of its own.
    let ((_one, left), (_other, right)) = (start()?, start()?);
    left.client()?.create_namespace("left", &[])?;
    let unknown = right.client()?.get("/api/v1/namespaces/left").err().context("the other knows it too")?;
    ensure!(refusal(&unknown) == Some(404), "{unknown:#}");
    let (dir, processes) = (left.dir().to_owned(), pids(&left)?);
    ensure!(dir.join("data").is_dir() && processes.len() == 2);
    drop(left);
    ensure!(!dir.exists(), "{} is still there", dir.display());
    ensure!(processes.iter().all(|pid| !runs(*pid)), "{processes:?} still run");
    right.client()?.get("/api/v1/namespaces/kube-system")?;
    Ok(())
}

#[test]
fn programs_end_with_the_thread_that_started_them() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (at, netns) = (dir.path().to_owned(), Netns::create()?);
    let started = std::thread::spawn(move || -> Result<u32> {
        let program = Program::start(&netns, &at, Path::new("/usr/bin/sleep"), &["1000".to_owned()])?;
        let pid = program.pid();
        // It has become `sleep`, which ends by nothing but a signal.
        wait_until("the program runs", || {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe"))?;
            ensure!(exe.ends_with("sleep"), "{}", exe.display());
            Ok(())
        })?;
        // As when the test is killed: nobody ends it.
        std::mem::forget(program);
        Ok(pid)
    });
    let pid = started.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    wait_until("the program ends", || {
        ensure!(!runs(pid), "{pid} runs");
        Ok(())
    })
}

#[test]
fn a_program_that_ends_is_told_with_its_last_words() -> Result<()> {
    let netns = Netns::create()?;
    // Nobody has this address, so kube-apiserver cannot listen.
    let assets = podnet_tests::kube::assets(&[])?;
    let error =
        ControlPlane::start(&netns, "10.7.0.9:6443".parse()?, &assets).err().context("it has started")?;
    let text = format!("{error:#}");
    ensure!(text.contains("a program has ended") && text.contains("10.7.0.9:6443: bind"), "{text}");
    Ok(())
}

fn pids(control: &ControlPlane) -> Result<Vec<u32>> {
    ["etcd", "kube-apiserver"].iter().map(|name| Ok(control.program(name)?.pid())).collect()
}

/// Whether a process is there and is no zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
