//! Apps: what is wrong with the program in the pod, while the network does as it should.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Act, Fault, always};
use crate::breaking::Work;
use crate::cluster::{Cluster, Pod};
use crate::kubia::PORT;
use crate::sockets;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[Fault {
    id: "bind-localhost",
    does: "the app of a pod listens on 127.0.0.1 only",
    seen: "REFUSED at the pod's address, while curl localhost:8080 inside the pod works",
    amount: None,
    unless: always,
    act: Act::Pod(bind_localhost),
}];

/// How long the app may take to listen elsewhere.
const PATIENCE: Duration = Duration::from_secs(20);

fn bind_localhost(work: &mut Work<'_>, _: &Cluster, pod: &Pod) -> Result<()> {
    let pid = pod.containers.kubia_pid;
    let change = |_: &crate::cluster::Space| listen(pid, Signal::SIGUSR1, true);
    work.change_in(&pod.space, "app", change, move |_, ()| listen(pid, Signal::SIGUSR2, false))
}

/// Tells kubia where to listen, and waits until it does.
fn listen(pid: i32, signal: Signal, on_localhost: bool) -> Result<()> {
    kill(Pid::from_raw(pid), signal).context("tell the app")?;
    let deadline = Instant::now() + PATIENCE;
    let is_localhost = |address: IpAddr| address.to_canonical().is_loopback();
    loop {
        let own = sockets::listening(pid).context("sockets of the app")?;
        let mut own = own.iter().filter(|socket| socket.port() == PORT).peekable();
        if own.peek().is_some() && own.all(|socket| is_localhost(socket.ip()) == on_localhost) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the app does not listen elsewhere");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
