//! How `podlab` talks with the supervisor of a running lab: lines of JSON over an abstract socket in the
//! machine's network namespace, so that no file is made, and namespaces handed over as descriptors.
//!
//! Who may ask is decided by the kernel's word for the peer's user.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, sockopt::PeerCredentials,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{self, Failure};
use crate::kubectl::Ask;
use crate::stack::OneFamily;
use crate::step;

/// The namespaces that [`Request::Enter`] hands over, in this order.
pub const NAMESPACES: usize = 6;

/// What a client asks of a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// One line of state, for `ls`.
    Summary,
    /// The state of the lab, of one node, pod or other namespace.
    Inspect {
        /// The namespace's name; none means the lab.
        what: Option<String>,
    },
    /// What has changed, and how many faults are active.
    Changes {
        /// How many changes are known already.
        seen: u64,
    },
    /// The checks.
    Verify {
        /// Names of checks; empty means all.
        checks: Vec<String>,
        /// Pods of these nodes only, as clients; empty means all.
        nodes: Vec<String>,
        /// A sample of so many ordered pairs of pods; none means all.
        #[serde(default)]
        sample: Option<usize>,
        /// Which sample.
        #[serde(default)]
        seed: u64,
        /// What to keep of it, for [`Request::Collect`].
        #[serde(default)]
        keep: Keep,
    },
    /// One packet's walk.
    Trace {
        /// Where it starts: a pod's name or `outside`.
        source: String,
        /// Where it goes: a pod's name, `outside` or an address.
        target: String,
        /// The port.
        port: u16,
        /// `tcp`, `udp` or `icmp`.
        protocol: String,
        /// The IP version; none is the lab's first.
        #[serde(default)]
        family: Option<OneFamily>,
        /// What nf_tables does is told too.
        #[serde(default)]
        hooks: bool,
        /// Frames wait on a wire for orders, which come on this connection.
        #[serde(default)]
        step: bool,
        /// What to keep of it, for [`Request::Collect`].
        #[serde(default)]
        keep: Keep,
    },
    /// Rates between pods.
    Bench {
        /// The time of each measurement, in milliseconds.
        millis: u64,
    },
    /// What is broken between two places.
    Why {
        /// Where probes start: a pod's name or `outside`.
        source: String,
        /// Where they go: a pod, a service, `outside` or an address.
        target: String,
        /// The port.
        port: u16,
        /// The IP version; none is the lab's first.
        #[serde(default)]
        family: Option<OneFamily>,
    },
    /// Break something.
    Break {
        /// The fault, with its number where it takes one.
        fault: String,
        /// What it is aimed at; empty means the default.
        targets: Vec<String>,
        /// The IP version; none is the lab's first.
        #[serde(default)]
        family: Option<OneFamily>,
    },
    /// Undo faults.
    Heal {
        /// A fault's name or number; none means all.
        which: Option<String>,
    },
    /// The faults that are active.
    Active,
    /// From now on an exam is going on: what is broken is neither told nor healed, until the lab ends.
    Seal,
    /// Whether an exam is going on.
    Sealed,
    /// The file that was kept of the last answer on this connection. Answered by a descriptor alone, as
    /// [`Request::Handover`].
    Collect,
    /// What `podlab kubectl` wants.
    Kubectl {
        /// The question or order.
        ask: Ask,
    },
    /// Descriptors of a space's namespaces (user, mount, PID, network, UTS, IPC), to run a command there.
    Enter {
        /// The namespace's name; none means the capsule itself.
        what: Option<String>,
    },
    /// The namespaces themselves, asked for once [`Request::Enter`] said that they are there: descriptors must not arrive
    /// together with a line, as the reader of lines would drop them. Answered by descriptors alone.
    Handover {
        /// The namespace's name; none means the capsule itself.
        what: Option<String>,
    },
    /// The end of the lab.
    Down {
        /// Deletes every pod by CNI DEL first.
        graceful: bool,
    },
}

/// What the supervisor keeps of an answer, as a file in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Nothing.
    #[default]
    Nothing,
    /// The packets, as pcapng.
    Packets,
    /// All the evidence, as a bundle.
    Bundle,
}

/// What the supervisor says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A step is done.
    Progress {
        /// What it was.
        text: String,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// What happens on the wire of a trace that is stepped through.
    Step {
        /// It.
        news: step::News,
    },
    /// The answer.
    Result {
        /// The document, or null.
        value: Value,
    },
    /// It did not work.
    Error {
        /// The exit code that it means.
        code: u8,
        /// What failed, where, what to try.
        text: String,
    },
}

impl Event {
    /// The event that tells a failure.
    pub fn error(failure: &Failure) -> Self {
        Self::Error { code: failure.code, text: failure.text.clone() }
    }
}

/// Writes one message as a line.
///
/// # Errors
/// The peer is gone.
pub fn send(stream: &mut impl Write, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one message; `None` at the end.
///
/// # Errors
/// What is not a message.
pub fn receive<T: for<'a> Deserialize<'a>>(reader: &mut impl BufRead) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// Who this process was started by; in the user namespace of a lab it has another number.
fn user() -> u32 {
    static USER: OnceLock<u32> = OnceLock::new();
    *USER.get_or_init(|| nix::unistd::geteuid().as_raw())
}

fn prefix(uid: u32) -> String {
    format!("podlab/{uid}/")
}

fn address(name: &str) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(prefix(user()) + name)
}

/// Takes the lab's name for this user on this machine.
///
/// # Errors
/// A lab of that name runs.
pub fn listen(name: &str) -> Result<UnixListener, Failure> {
    let bound = address(name).and_then(|address| UnixListener::bind_addr(&address));
    bound.map_err(|err| match err.kind() {
        std::io::ErrorKind::AddrInUse => Failure::usage(format!(
            "lab {name:?} is up already · try: podlab down --name {name}, or another --name"
        )),
        _ => Failure::new(exit::FAILED, format!("socket of lab {name:?}: {err}")),
    })
}

/// The names of this user's running labs, sorted.
pub fn running() -> Vec<String> {
    let own = format!(" @{}", prefix(user()));
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    // One line per socket, the listening one and each connection; the flag 10000 marks the former.
    let listening = table.lines().filter(|line| line.split_whitespace().nth(3) == Some("00010000"));
    let mut names: Vec<String> =
        listening.filter_map(|line| line.split_once(&own)).map(|(_, name)| name.to_owned()).collect();
    names.sort();
    names
}

/// Takes what happens on a wire.
pub type OnStep<'a> = &'a mut dyn FnMut(&UnixStream, &step::News) -> Result<(), Failure>;

/// A connection to a running lab.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl AsFd for Client {
    /// The connection, which the lab closes when it ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Client {
    /// Connects to the lab of that name.
    ///
    /// # Errors
    /// It is not up.
    pub fn connect(name: &str) -> Result<Self, Failure> {
        let none = |err: std::io::Error| {
            let up = running();
            let hint =
                if up.is_empty() { "podlab up -d".to_owned() } else { format!("--name {}", up.join(" or ")) };
            Failure::usage(format!("no lab {name:?} is up ({err}) · try: {hint}"))
        };
        let stream = address(name).and_then(|address| UnixStream::connect_addr(&address)).map_err(none)?;
        let reader = BufReader::new(stream.try_clone().map_err(none)?);
        Ok(Self { stream, reader })
    }

    /// Asks, shows progress as it comes, and returns the answer.
    ///
    /// # Errors
    /// The supervisor's, or that it ended without an answer.
    pub fn ask(&mut self, request: &Request, progress: &mut dyn FnMut(&str, u64)) -> Result<Value, Failure> {
        self.hear(request, progress, &mut |_, _| Ok(()))
    }

    /// Asks for a trace that is stepped through, and hands on what happens on the wire, with the connection for orders.
    ///
    /// # Errors
    /// As [`Client::ask`], or those of `step`.
    pub fn ask_stepping(&mut self, request: &Request, step: OnStep<'_>) -> Result<Value, Failure> {
        self.hear(request, &mut |_, _| {}, step)
    }

    fn hear(
        &mut self,
        request: &Request,
        progress: &mut dyn FnMut(&str, u64),
        step: OnStep<'_>,
    ) -> Result<Value, Failure> {
        let gone = |err: std::io::Error| {
            Failure::new(exit::FAILED, format!("the lab ended before it answered ({err}) · try: podlab ls"))
        };
        send(&mut self.stream, request).map_err(gone)?;
        loop {
            match receive(&mut self.reader).map_err(gone)? {
                Some(Event::Progress { text, ms }) => progress(&text, ms),
                Some(Event::Result { value }) => return Ok(value),
                Some(Event::Error { code, text }) => return Err(Failure::new(code, text)),
                Some(Event::Step { news }) => step(&self.stream, &news)?,
                None => return Err(gone(std::io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Asks for the namespaces of `what`; see [`Request::Enter`].
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn enter(&mut self, what: Option<&str>) -> Result<Vec<File>, Failure> {
        let what = what.map(str::to_owned);
        self.ask(&Request::Enter { what: what.clone() }, &mut |_, _| {})?;
        send(&mut self.stream, &Request::Handover { what })
            .map_err(|err| Failure::new(exit::FAILED, format!("ask the lab: {err}")))?;
        receive_descriptors(&self.stream)
            .map_err(|err| Failure::new(exit::FAILED, format!("namespaces of the lab: {err}")))
    }

    /// Collects the file that was kept of the last answer; see [`Keep`].
    ///
    /// # Errors
    /// The lab is gone.
    pub fn collect(&mut self) -> Result<File, Failure> {
        let broken = |err: std::io::Error| Failure::new(exit::FAILED, format!("evidence of the lab: {err}"));
        send(&mut self.stream, &Request::Collect).map_err(broken)?;
        let mut files = receive_descriptors(&self.stream).map_err(broken)?;
        files.pop().ok_or_else(|| broken(std::io::ErrorKind::UnexpectedEof.into()))
    }

    /// Waits until the supervisor closes the connection, which it does when it ends, and until the lab's name is free: init
    /// holds it a moment longer, and longest ten seconds.
    pub fn wait_for_end(mut self, name: &str) {
        let mut rest = String::new();
        while self.reader.read_line(&mut rest).is_ok_and(|bytes| bytes > 0) {
            rest.clear();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while running().iter().any(|up| up == name) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The user on the other side.
///
/// # Errors
/// The kernel does not say.
pub fn peer_uid(stream: &UnixStream) -> std::io::Result<u32> {
    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

/// Hands descriptors over (SCM_RIGHTS, unix(7)).
///
/// # Errors
/// The peer is gone.
pub fn send_descriptors(stream: &UnixStream, descriptors: &[impl AsRawFd]) -> std::io::Result<()> {
    let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let message = [ControlMessage::ScmRights(&raw)];
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(b"\n")], &message, MsgFlags::empty(), None)?;
    Ok(())
}

fn receive_descriptors(stream: &UnixStream) -> std::io::Result<Vec<File>> {
    let mut space = cmsg_space!([i32; NAMESPACES]);
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut all = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // Opened anew by number, which yields a value that owns its descriptor.
            all.extend(numbers.iter().map(|number| File::open(format!("/proc/self/fd/{number}"))));
            numbers.into_iter().try_for_each(nix::unistd::close)?;
        }
    }
    all.into_iter().collect()
}
