//! `podlab exec`: commands inside a lab, with this terminal and the command's own exit code.
//!
//! The client enters the namespaces itself and starts the command from there, so the command is a member of
//! the lab's PID namespace and cannot outlive it.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::ExecArgs;
use crate::control::{Client, NAMESPACES};
use crate::exit::{self, Failure};

pub(super) fn exec(args: &ExecArgs) -> Result<u8, Failure> {
    let namespaces = Client::connect(&args.lab.name)?.enter(Some(&args.target))?;
    spawn_in(&namespaces, &args.command, Surroundings::default())
}

/// What a command finds besides the namespaces.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Surroundings<'a> {
    /// No standard input, instead of this process's.
    pub(crate) is_deaf: bool,
    /// What stands in /etc/resolv.conf for this command alone, where there is such a file.
    pub(crate) resolver: Option<&'a str>,
}

/// Enters the namespaces, in the order that [`Client::enter`] gives them, and runs the command there. The calling process
/// must have one thread.
///
/// # Errors
/// A namespace that cannot be entered, a command that cannot be started.
pub(crate) fn spawn_in(
    namespaces: &[File],
    command: &[OsString],
    around: Surroundings<'_>,
) -> Result<u8, Failure> {
    let kinds: [CloneFlags; NAMESPACES] = [
        CloneFlags::CLONE_NEWUSER,
        CloneFlags::CLONE_NEWNS,
        CloneFlags::CLONE_NEWPID,
        CloneFlags::CLONE_NEWNET,
        CloneFlags::CLONE_NEWUTS,
        CloneFlags::CLONE_NEWIPC,
    ];
    if namespaces.len() != NAMESPACES {
        return Err(Failure::new(exit::RUN_FAILED, "the lab gave no namespaces (it ended?)"));
    }
    let directory = std::env::current_dir();
    for (namespace, kind) in namespaces.iter().zip(kinds) {
        let entered = match kind {
            CloneFlags::CLONE_NEWUSER => enter_user_namespace(namespace),
            _ => setns(namespace, kind),
        };
        entered
            .map_err(|errno| Failure::new(exit::RUN_FAILED, format!("enter the lab: {}", errno.desc())))?;
    }
    if let Some(text) = around.resolver {
        give_resolver(text)?;
    }
    let Some((program, args)) = command.split_first() else { return Err(Failure::usage("no command")) };
    let mut child = Command::new(program);
    child.args(args);
    if around.is_deaf {
        child.stdin(std::process::Stdio::null());
    }
    if let Some(directory) = directory.ok().filter(|directory| directory.is_dir()) {
        child.current_dir(directory);
    }
    let status = child.status().map_err(|err| exit::of_spawn(program, &err))?;
    Ok(exit::of_status(status))
}

/// Enters a user namespace, unless this process is in it already, as it is where the lab is root's: nobody may enter the
/// own one again. The calling process must have one thread.
///
/// # Errors
/// It is another user's.
pub(crate) fn enter_user_namespace(namespace: &File) -> nix::Result<()> {
    let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let own = std::fs::metadata("/proc/self/ns/user").map(id).ok();
    match own.is_some() && namespace.metadata().map(id).ok() == own {
        true => Ok(()),
        false => setns(namespace, CloneFlags::CLONE_NEWUSER),
    }
}

/// Puts a file in place of /etc/resolv.conf, in a mount namespace of this process's own.
fn give_resolver(text: &str) -> Result<(), Failure> {
    let failed =
        |what: &str, words: String| Failure::new(exit::RUN_FAILED, format!("{what} of the pod: {words}"));
    let Ok(target) = std::fs::canonicalize("/etc/resolv.conf") else { return Ok(()) };
    let path = format!("/run/podlab/resolv.{}", std::process::id());
    std::fs::write(&path, text).map_err(|err| failed("resolv.conf", err.to_string()))?;
    let none: Option<&str> = None;
    let put = || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(path.as_str()), &target, none, MsFlags::MS_BIND, none)
    };
    let done = put().map_err(|errno| failed("mounts", errno.desc().to_owned()));
    // What is mounted needs no name any more.
    std::fs::remove_file(&path).map_err(|err| failed("resolv.conf", err.to_string())).and(done)
}
