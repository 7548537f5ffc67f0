//! Running one child process: bytes in, bytes out, an optional time-out.
//!
//! One thread serves all three pipes with poll(2), so that a child that reads and writes at the same time
//! cannot block it. The child is started by the calling thread and inherits its network namespace.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often a program that is being written to ("text file busy") is tried, and how far apart.
const BUSY_TRIES: u32 = 6;
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// How a child ended and what it printed.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// All of its stdout, or what there was when the time was over.
    pub(crate) stdout: Vec<u8>,
    /// All of its stderr, likewise.
    pub(crate) stderr: Vec<u8>,
    /// The time was over: the child and its process group were killed.
    pub(crate) timed_out: bool,
}

/// Runs the command with `stdin`. With a time-out the child leads a process group of its own, which is
/// killed as a whole.
///
/// # Errors
/// The program cannot be started, or its pipes cannot be served.
pub(crate) fn run(command: &mut Command, stdin: &[u8], timeout: Option<Duration>) -> io::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if timeout.is_some() {
        command.process_group(0);
    }
    let mut child = spawn(command)?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut streams = Streams { out: Vec::new(), err: Vec::new() };
    let served = streams.serve(&mut child, stdin, deadline);
    let ended = match served {
        Ok(true) => wait_until(&mut child, deadline),
        Ok(false) => Ok(None),
        Err(error) => Err(error),
    };
    let status = match ended {
        Ok(Some(status)) => Ok((status, false)),
        other => {
            kill(&mut child, timeout.is_some());
            let status = child.wait()?;
            other.map(|_| (status, true))
        }
    };
    let (status, timed_out) = status?;
    Ok(Output { status, stdout: streams.out, stderr: streams.err, timed_out })
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut tries = 1;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            other => return other,
        }
    }
}

/// Waits for the end of the child; `None` when the time is over first.
fn wait_until(child: &mut Child, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
    let Some(deadline) = deadline else { return child.wait().map(Some) };
    // Both output pipes are closed, so the child is about to end: it is asked rather than waited for, as
    // there is no wait with a time-out.
    let mut pause = Duration::from_micros(50);
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => std::thread::sleep(pause),
            other => return Ok(other),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn kill(child: &mut Child, group: bool) {
    // The child may have ended by now: then there is nobody to kill, and wait() tells the rest.
    if group && let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.kill();
}

/// What the child has printed so far.
struct Streams {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Streams {
    /// Writes stdin and reads both outputs until they end; false when the time is over first.
    fn serve(&mut self, child: &mut Child, stdin: &[u8], deadline: Option<Instant>) -> io::Result<bool> {
        let (mut input, mut out, mut err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut left = stdin;
        for fd in
            [input.as_ref().map(AsFd::as_fd), out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)]
        {
            fd.map_or(Ok(()), nonblocking)?;
        }
        if left.is_empty() {
            input = None;
        }
        while input.is_some() || out.is_some() || err.is_some() {
            let [can_write, can_out, can_err] = {
                let fds = [
                    input.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLOUT)),
                    out.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
                    err.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
                ];
                match ready(fds, deadline)? {
                    Some(ready) => ready,
                    None => return Ok(false),
                }
            };
            if can_write && !write_some(input.as_mut(), &mut left)? {
                input = None;
            }
            if can_out && !read_some(out.as_mut(), &mut self.out)? {
                out = None;
            }
            if can_err && !read_some(err.as_mut(), &mut self.err)? {
                err = None;
            }
        }
        Ok(true)
    }
}

fn nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Waits until one of the pipes can be served; `None` when the time is over.
fn ready(fds: [Option<PollFd<'_>>; 3], deadline: Option<Instant>) -> io::Result<Option<[bool; 3]>> {
    let open = [fds[0].is_some(), fds[1].is_some(), fds[2].is_some()];
    let mut fds: Vec<PollFd<'_>> = fds.into_iter().flatten().collect();
    loop {
        let timeout = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) => return Ok(None),
            // Rounded up, so that the last wait is not a busy one.
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut events = fds.iter().map(|fd| fd.any().unwrap_or(true));
    Ok(Some(open.map(|open| open && events.next().unwrap_or(false))))
}

/// One write; false when all is written or nobody reads.
fn write_some(pipe: Option<&mut impl Write>, left: &mut &[u8]) -> io::Result<bool> {
    let Some(pipe) = pipe else { return Ok(false) };
    match pipe.write(left) {
        Ok(written) => {
            *left = left.get(written..).unwrap_or_default();
            Ok(!left.is_empty())
        }
        // A plugin need not read its stdin.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
        Err(error) => Err(error),
    }
}

/// One read; false at the end of the stream.
fn read_some(pipe: Option<&mut impl Read>, into: &mut Vec<u8>) -> io::Result<bool> {
    let Some(pipe) = pipe else { return Ok(false) };
    let mut buffer = [0; 8192];
    match pipe.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(read) => {
            into.extend_from_slice(buffer.get(..read).unwrap_or_default());
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn large_input_and_output_do_not_block() {
        let input = vec![b'x'; 4 << 20];
        for timeout in [None, Some(Duration::from_secs(60))] {
            let output = run(&mut shell("tee /dev/stderr"), &input, timeout).unwrap();
            assert!(output.status.success() && !output.timed_out);
            assert_eq!((output.stdout.len(), output.stderr.len()), (input.len(), input.len()));
        }
    }

    #[test]
    fn a_child_that_reads_nothing_is_no_error() {
        let output = run(&mut shell("echo done; exit 3"), &vec![b'x'; 1 << 20], None).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"done\n"[..]));
    }

    #[test]
    fn time_out_kills_the_whole_group() {
        for script in ["echo early; sleep 1000", "echo early; exec >&- 2>&-; sleep 1000"] {
            let started = Instant::now();
            let output = run(&mut shell(script), b"", Some(Duration::from_millis(200))).unwrap();
            assert!(output.timed_out && !output.status.success());
            assert_eq!(output.stdout, b"early\n");
            assert!(started.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn missing_program_is_not_found() {
        let error = run(&mut Command::new("/nonexistent/plugin"), b"", None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
