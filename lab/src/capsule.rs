//! The capsule: mount, PID, network, UTS and IPC namespaces in which a whole lab lives.
//!
//! `podlab up` (the launcher) takes the lab's name, makes the namespaces and starts `__init`, which is
//! process 1 in them; init makes the mounts private, covers what plugins write to, and starts
//! `__supervisor`. Whichever of them dies, by whatever signal, the kernel ends all processes of the PID
//! namespace, and with their descriptors go namespaces, links, mounts and files. There is nothing to clean.
//!
//! Whoever may not make such namespaces, an ordinary user, gets a user namespace around them and is root in there, and
//! there alone.

use std::ffi::OsString;
use std::fs;
use std::io::{BufReader, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, setsid};

use crate::control::{self, Event};
use crate::exit::{self, Failure};
use crate::topology::Topology;

/// The argument under which the binary is process 1 of a capsule.
pub const INIT: &str = "__init";
/// The argument under which it is the supervisor.
pub const SUPERVISOR: &str = "__supervisor";
/// The variable that carries the topology from launcher to supervisor.
pub const TOPOLOGY: &str = "PODLAB_CAPSULE_TOPOLOGY";
/// The argument of `__init` for a lab that outlives its launcher.
const DETACHED: &str = "detached";
/// The argument of `__init` for a lab that does not.
const TIED: &str = "tied";
/// The argument of `__init` for a command in an empty capsule; the command follows.
const COMMAND: &str = "command";

/// Where a capsule has files of its own, which nobody outside sees.
pub const COVERED: [&str; 4] = ["/proc", "/run", "/sys", "/var/lib"];

/// Where the supervisor's events arrive.
#[derive(Debug)]
pub struct Launched {
    events: BufReader<PipeReader>,
}

/// Makes the capsule of `topology` and starts the lab in it. The calling process must have one thread, and
/// is in the capsule's namespaces itself afterwards (all but the PID namespace).
///
/// # Errors
/// The lab is up already, or the kernel refuses the namespaces.
pub fn launch(topology: &Topology, detached: bool) -> Result<Launched, Failure> {
    // The name is taken in the machine's own network namespace, before it is left.
    let listener = control::listen(&topology.name)?;
    let document = serde_json::to_string(topology)
        .map_err(|err| Failure::new(exit::BUG, format!("topology as JSON: {err}")))?;
    enter_new_namespaces()?;
    let (reader, writer) = std::io::pipe().map_err(started)?;
    let mut init = Command::new("/proc/self/exe");
    init.arg(INIT).arg(if detached { DETACHED } else { TIED }).env(TOPOLOGY, document);
    if detached {
        init.stderr(Stdio::null());
    }
    // Zombies are no matter: the launcher ends soon, or waits for the end of the events.
    init.stdin(OwnedFd::from(listener)).stdout(writer).spawn().map_err(started)?;
    Ok(Launched { events: BufReader::new(reader) })
}

fn started(err: std::io::Error) -> Failure {
    Failure::new(exit::FAILED, format!("start the capsule: {err}"))
}

/// Makes the calling process, which must have one thread, leave its namespaces for new ones of these kinds; for an ordinary
/// user in a new user namespace, where that user is root and nobody else is anybody (user_namespaces(7)).
///
/// # Errors
/// The kernel's refusal.
pub fn unshare_as_anyone(kinds: CloneFlags) -> nix::Result<()> {
    match unshare(kinds) {
        Err(Errno::EPERM) => {}
        other => return other,
    }
    let (user, group) = (geteuid(), getegid());
    unshare(kinds | CloneFlags::CLONE_NEWUSER)?;
    let map = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|err| err.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    };
    // Without this no group may be mapped by a user.
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("0 {user} 1"))?;
    map("gid_map", format!("0 {group} 1"))
}

/// Leaves the machine's namespaces for new ones; the PID namespace is that of children to come.
///
/// # Errors
/// The kernel's refusal, with what to try.
pub fn enter_new_namespaces() -> Result<(), Failure> {
    let kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare_as_anyone(kinds).map_err(|errno| {
        Failure::new(
            exit::LACKING,
            format!("create the capsule's namespaces: {} · try: as root, or podlab doctor", errno.desc()),
        )
    })
}

impl Launched {
    /// Passes progress on until the lab is up; returns the supervisor's summary.
    ///
    /// # Errors
    /// What kept the lab from coming up; by then nothing of it is left.
    pub fn wait_until_up(
        &mut self,
        progress: &mut dyn FnMut(&str, u64),
    ) -> Result<serde_json::Value, Failure> {
        loop {
            match control::receive(&mut self.events) {
                Ok(Some(Event::Progress { text, ms })) => progress(&text, ms),
                Ok(Some(Event::Result { value })) => return Ok(value),
                Ok(Some(Event::Error { code, text })) => return Err(Failure::new(code, text)),
                Ok(Some(Event::Step { .. })) => {}
                Ok(None) => {
                    return Err(Failure::new(exit::FAILED, "the lab ended before it was up (killed?)"));
                }
                Err(err) => return Err(Failure::new(exit::BUG, format!("events of the lab: {err}"))),
            }
        }
    }

    /// Waits for the end of the lab.
    pub fn wait_until_down(&mut self) {
        while let Ok(Some(_)) = control::receive::<Event>(&mut self.events) {}
    }
}

/// Runs a command in a capsule of its own with nothing in it, and returns the command's exit code.
///
/// # Errors
/// The capsule or the command cannot be started.
pub fn run_command(command: &[OsString]) -> Result<u8, Failure> {
    enter_new_namespaces()?;
    let status =
        Command::new("/proc/self/exe").arg(INIT).arg(COMMAND).args(command).status().map_err(started)?;
    Ok(exit::of_status(status))
}

/// Process 1 of the capsule: prepares the mounts, starts the supervisor or a command, reaps what is left to
/// it, and ends when that does.
pub fn init(args: &[OsString]) -> u8 {
    let (kind, rest) = args.split_first().map_or((None, args), |(kind, rest)| (kind.to_str(), rest));
    let done = match kind {
        Some(DETACHED) => {
            // Already a leader when started so; a lab without a terminal is what is wanted either way.
            let _ = setsid();
            prepare().and_then(|()| spawn_supervisor())
        }
        Some(TIED) => tie_to_launcher().and_then(|()| prepare()).and_then(|()| spawn_supervisor()),
        Some(COMMAND) => {
            return match tie_to_launcher().and_then(|()| prepare()).and_then(|()| spawn_command(rest)) {
                Ok(command) => reap_until(command),
                Err(failure) => {
                    eprintln!("error: {failure}");
                    failure.code
                }
            };
        }
        _ => Err(Failure::new(exit::BUG, "__init is podlab's own")),
    };
    match done {
        Ok(supervisor) => reap_until(supervisor),
        Err(failure) => {
            tell(&Event::error(&failure));
            failure.code
        }
    }
}

fn tie_to_launcher() -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL).map_err(failed("tie the capsule to its launcher"))?;
    if launcher_is_gone() {
        return Err(Failure::new(exit::FAILED, "the launcher is gone"));
    }
    Ok(())
}

fn spawn_command(command: &[OsString]) -> Result<Pid, Failure> {
    let Some((program, args)) = command.split_first() else {
        return Err(Failure::usage("no command"));
    };
    let spawned = Command::new(program).args(args).spawn();
    spawned.map(|child| Pid::from_raw(child.id() as i32)).map_err(|err| exit::of_spawn(program, &err))
}

/// Sends an event to the launcher, which may be gone.
pub fn tell(event: &Event) {
    let mut stdout = std::io::stdout().lock();
    // A detached lab outlives the reader of its events.
    let _ = control::send(&mut stdout, event).and_then(|()| stdout.flush());
}

fn prepare() -> Result<(), Failure> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(failed("make mounts private"))?;
    let fence = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), fence, none).map_err(failed("mount /proc"))?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), fence, none).map_err(failed("mount /sys"))?;
    let state = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), state, Some("mode=755")).map_err(failed("mount /run"))?;
    for dir in ["/run/netns", "/run/podlab/pods", "/run/podlab/ipam", "/run/podlab/bin", "/run/lock"] {
        fs::create_dir_all(dir).map_err(|err| Failure::new(exit::FAILED, format!("create {dir}: {err}")))?;
    }
    cover("/var/lib")?;
    nix::unistd::sethostname("podlab").map_err(failed("set the host name"))
}

fn failed(what: &'static str) -> impl Fn(nix::errno::Errno) -> Failure {
    move |errno| Failure::new(exit::FAILED, format!("{what} in the capsule: {}", errno.desc()))
}

/// The launcher died between starting this process and the tie to its life: nobody holds the other end of
/// the events.
fn launcher_is_gone() -> bool {
    let stdout = std::io::stdout();
    let mut events = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut events, PollTimeout::ZERO).is_ok()
        && events[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR))
}

/// Lets plugins write below `dir` without the machine seeing it: an overlay in memory; where the kernel has
/// none, an empty directory over the one that plugins use, or else nothing may be written.
fn cover(dir: &str) -> Result<(), Failure> {
    let none: Option<&str> = None;
    let (upper, work) = ("/run/podlab/overlay/upper", "/run/podlab/overlay/work");
    for layer in [upper, work] {
        fs::create_dir_all(layer)
            .map_err(|err| Failure::new(exit::FAILED, format!("create {layer}: {err}")))?;
    }
    let layers = format!("lowerdir={dir},upperdir={upper},workdir={work}");
    if mount(Some("overlay"), dir, Some("overlay"), MsFlags::empty(), Some(layers.as_str())).is_ok() {
        return Ok(());
    }
    let cni = format!("{dir}/cni");
    if Path::new(&cni).is_dir() {
        return mount(Some("tmpfs"), cni.as_str(), Some("tmpfs"), MsFlags::empty(), none)
            .map_err(failed("cover the plugins' state"));
    }
    mount(Some(dir), dir, none, MsFlags::MS_BIND, none).map_err(failed("cover the plugins' state"))?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, dir, none, read_only, none).map_err(failed("cover the plugins' state"))
}

/// stdin and stdout, the socket and the events, go on to the supervisor.
fn spawn_supervisor() -> Result<Pid, Failure> {
    let child = Command::new("/proc/self/exe").arg(SUPERVISOR).spawn().map_err(started)?;
    Ok(Pid::from_raw(child.id() as i32))
}

fn reap_until(child: Pid) -> u8 {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return code as u8,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as u8,
            Err(nix::errno::Errno::ECHILD) => return exit::BUG,
            _ => {}
        }
    }
}

/// What the launcher left for the supervisor: the topology and the listening socket.
///
/// # Errors
/// It was not started by `__init`.
pub fn inherited() -> Result<(Topology, UnixListener), Failure> {
    let bad = |what: String| Failure::new(exit::BUG, format!("{what}: not started by podlab up"));
    let document = std::env::var(TOPOLOGY).map_err(|err| bad(err.to_string()))?;
    let topology = serde_json::from_str(&document).map_err(|err| bad(err.to_string()))?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(|err| bad(err.to_string()))?;
    Ok((topology, UnixListener::from(socket)))
}

/// A writer of events over a pipe of its own, for tests.
#[cfg(test)]
pub(crate) fn pipe() -> (Launched, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (Launched { events: BufReader::new(reader) }, writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_with_the_summary_or_with_the_failure() {
        let (mut launched, mut writer) = pipe();
        control::send(&mut writer, &Event::Progress { text: "a".into(), ms: 1 }).unwrap();
        control::send(&mut writer, &Event::Result { value: serde_json::json!({"pods": 2}) }).unwrap();
        let mut steps = Vec::new();
        let value = launched.wait_until_up(&mut |text, ms| steps.push((text.to_owned(), ms))).unwrap();
        assert_eq!((steps, &value["pods"]), (vec![("a".to_owned(), 1)], &serde_json::json!(2)));
        control::send(&mut writer, &Event::Error { code: 5, text: "no".into() }).unwrap();
        assert_eq!(launched.wait_until_up(&mut |_, _| {}).unwrap_err().code, 5);
        drop(writer);
        assert_eq!(launched.wait_until_up(&mut |_, _| {}).unwrap_err().code, exit::FAILED);
    }
}
