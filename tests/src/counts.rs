//! What a program asks of the kernel, counted in `strace`'s log: a measure of its speed that is the same on every
//! machine and in every run.
//!
//! It deliberately leaves out what does not depend on the program's own steps:
//! * all before the first read of stdin, which is the dynamic loader's, libc's and the runtime library's start;
//! * memory, signals, descriptor flags and the end of the process, which differ between C libraries and between builds;
//! * waiting and receiving (`recvfrom`, `poll`, `wait4`), of which there are more or fewer as the kernel's answers come;
//! * stdin, whose length is that of the paths in it;
//! * a call that the kernel starts again because a lock was taken: the log has it twice;
//! * whatever a program that was started does itself.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::Outcome;
use crate::world::Call;

/// System calls of the C library and of the build, and those that wait or receive.
const LEFT_OUT: [&str; 33] = [
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "epoll_pwait",
    "epoll_wait",
    "exit",
    "exit_group",
    "fcntl",
    "futex",
    "getpid",
    "gettid",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "poll",
    "ppoll",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "tgkill",
    "wait4",
    "waitid",
];

/// One system call in strace's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall<'a> {
    /// `openat`.
    pub name: &'a str,
    /// As strace shows them.
    pub arguments: &'a str,
    /// What it returned, or nothing when it did not return.
    pub result: &'a str,
}

impl<'a> SystemCall<'a> {
    /// Reads one line without a process id; `None` for signals, ends of processes, and calls that the kernel starts again.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
            return None;
        }
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or((rest, ""));
        if rest.contains("ERESTART") {
            return None;
        }
        Some(SystemCall { name, arguments, result })
    }

    /// The returned number, when it is not negative.
    pub fn number(&self) -> Option<u64> {
        self.result.split_whitespace().next()?.parse().ok()
    }

    /// Whether it is on a file that has a path, and not on a socket or a pipe.
    fn on_a_file(&self) -> bool {
        let digits = self.arguments.trim_start_matches(|c: char| c.is_ascii_digit());
        digits.len() < self.arguments.len() && digits.starts_with("</")
    }

    fn on_stdin(&self) -> bool {
        self.arguments.starts_with("0<")
    }
}

/// How much of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// System calls, but for those left out.
    pub calls: u64,
    /// Sends on netlink sockets: round trips.
    pub sends: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes read from files.
    pub bytes: u64,
    /// Files and directories opened.
    pub files: u64,
    /// Programs started.
    pub execs: u64,
    /// Processes and threads made.
    pub forks: u64,
}

impl Counts {
    /// The names, in the order of [`Counts::values`].
    pub const NAMES: [&'static str; 7] = ["calls", "sends", "messages", "bytes", "files", "execs", "forks"];

    /// The numbers, in the order of [`Counts::NAMES`].
    pub fn values(&self) -> [u64; 7] {
        [self.calls, self.sends, self.messages, self.bytes, self.files, self.execs, self.forks]
    }

    /// From numbers in that order.
    pub fn from_values(values: [u64; 7]) -> Self {
        let [calls, sends, messages, bytes, files, execs, forks] = values;
        Counts { calls, sends, messages, bytes, files, execs, forks }
    }

    /// The smaller of each.
    #[must_use]
    pub fn least(&self, other: &Counts) -> Counts {
        let (ours, theirs) = (self.values(), other.values());
        Counts::from_values(std::array::from_fn(|n| ours[n].min(theirs[n])))
    }

    /// Adds one process' log, to its end or to where it becomes another program.
    fn absorb(&mut self, log: &str, first: bool) {
        let mut started = !first;
        for call in log.lines().filter_map(SystemCall::parse) {
            if !started {
                started = call.name == "read" && call.on_stdin();
                continue;
            }
            let done = call.number();
            match call.name {
                "read" | "readv" | "pread64" | "preadv" if call.on_stdin() => continue,
                "read" | "readv" | "pread64" | "preadv" if call.on_a_file() => {
                    self.bytes += done.unwrap_or(0);
                }
                "open" | "openat" | "openat2" | "creat"
                    if call.result.starts_with(|c: char| c.is_ascii_digit()) =>
                {
                    self.files += 1;
                }
                "sendto" | "sendmsg" | "sendmmsg" => {
                    let messages = call.arguments.matches("{nlmsg_len=").count() as u64;
                    self.messages += messages;
                    self.sends += u64::from(messages > 0);
                }
                "fork" | "vfork" | "clone" | "clone3" if done.is_some_and(|pid| pid > 0) => self.forks += 1,
                "execve" | "execveat" if done == Some(0) => {
                    self.execs += 1;
                    self.calls += 1;
                    return;
                }
                _ => {}
            }
            self.calls += u64::from(!LEFT_OUT.contains(&call.name));
        }
    }
}

/// Makes a call, and counts what it and the processes that it forks do. `dir` takes the logs.
///
/// # Errors
/// `strace` is missing, or the log is not as expected.
pub fn count(call: &Call, dir: &Path) -> Result<(Outcome, Counts)> {
    let logs = tempfile::tempdir_in(dir).context("make a directory for strace's logs")?;
    let log = logs.path().join("log");
    // Long strings and lists in full, so that each message of a batch is seen.
    let strace = ["strace", "-ff", "-y", "-s", "65536", "-o", &log.to_string_lossy()];
    let outcome = call.clone().through(&strace).run().context("run strace: is it installed?")?;
    let (mut counts, mut firsts) = (Counts::default(), 0);
    for entry in std::fs::read_dir(logs.path()).context("list strace's logs")? {
        let text = std::fs::read(entry?.path()).context("read strace's log")?;
        let text = String::from_utf8_lossy(&text);
        let first = text.starts_with("execve(");
        firsts += usize::from(first);
        counts.absorb(&text, first);
    }
    ensure!(firsts == 1, "{firsts} of strace's logs begin with the plugin: {outcome:?}");
    Ok((outcome, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"execve("/p/bridge", ["bridge"], 0x7fff /* 9 vars */) = 0
openat(AT_FDCWD</>, "/etc/ld.so.cache", O_RDONLY) = 3</etc/ld.so.cache>
read(3</etc/ld.so.cache>, "\177ELF) = 5", 832) = 832
read(0<pipe:[77]>, "{\"a\":1}", 32) = 7
read(0<pipe:[77]>, "", 32) = 0
openat(AT_FDCWD</>, "/proc/sys/x", O_RDONLY) = 3</proc/sys/x>
openat(AT_FDCWD</>, "/none", O_RDONLY) = -1 ENOENT (No such file or directory)
read(3</proc/sys/x>, "1 = 2(\n", 32) = 7
brk(0x55c235c75000) = 0x55c235c75000
write(3</proc/sys/x>, "0", 1) = ? ERESTARTNOINTR (To be restarted)
write(3</proc/sys/x>, "0", 1) = 1
sendto(5<socket:[9]>, [[{nlmsg_len=28, nlmsg_type=0x10}, "\x08"], [{nlmsg_len=20, nlmsg_type=0x11}, "\x08"]], 48, 0, NULL, 0) = 48
recvfrom(5<socket:[9]>, [{nlmsg_len=36, nlmsg_type=NLMSG_ERROR}], 32768, MSG_TRUNC, NULL, NULL) = 36
clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88) = 4711
--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=4711} ---
exit_group(0) = ?
+++ exited with 0 +++
"#;

    #[test]
    fn calls_are_counted_from_the_first_read_of_stdin_on() {
        let mut counts = Counts::default();
        counts.absorb(LOG, true);
        // open, open, read, write, sendto, clone3.
        assert_eq!(
            counts,
            Counts { calls: 6, sends: 1, messages: 2, bytes: 7, files: 1, execs: 0, forks: 1 }
        );
    }

    #[test]
    fn what_a_started_program_does_is_its_own_affair() {
        let log = "rt_sigprocmask(SIG_SETMASK, [], NULL, 8) = 0\nexecve(\"/none\", [], 0x7f) = -1 ENOENT (No such file)\n\
            execve(\"/p/static\", [], 0x7f) = 0\nopenat(AT_FDCWD</>, \"/etc/x\", O_RDONLY) = 3</etc/x>\n";
        let mut counts = Counts::default();
        counts.absorb(log, false);
        assert_eq!(counts, Counts { calls: 2, execs: 1, ..Counts::default() });
    }
}
