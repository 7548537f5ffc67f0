//! The daemon: one process, one thread and one poll loop for all leases of a node.
//!
//! It waits for the plugin's requests, for answers of servers while an exchange is under way, and for the times at which
//! leases must be looked after. It enters a pod's namespace only to open a socket or to change the link.

mod attachment;
mod flags;
mod listen;
mod pod;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use cni::{CniResult, Error, ValidAttachment, code};
use kernel::Mac;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::config::state_dir_for;
use super::rpc::{self, Answer, GOB_REFUSAL, Key, Received, Request, Wish};
use super::state::{Clock, State, Unopened};
use super::timing::{Ms, Random};
use attachment::{Attachment, Phase, addresses};
use flags::{Flags, USAGE};
use listen::Listener;
use pod::Trouble;

/// What does not change while the daemon runs.
pub(super) struct Settings {
    flags: Flags,
}

impl Settings {
    /// The machine's id (machine-id(5)).
    fn machine_id(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.prefixed("/etc/machine-id")).ok()?;
        Some(text.trim().to_owned()).filter(|id| !id.is_empty())
    }
}

/// A line on stderr; nobody needs to read it.
fn log(key: &Key, text: &str) {
    let _ = writeln!(std::io::stderr(), "{key}: {text}");
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs the daemon with the arguments after `daemon`; returns the process's exit code.
pub(crate) fn run(args: &[&str]) -> u8 {
    let flags = match Flags::parse(args) {
        Ok(Some(flags)) => flags,
        Ok(None) => return crate::applet::print(USAGE),
        Err(error) => {
            say(&format!("error: dhcp daemon: {error}\n\n{USAGE}"));
            return 2;
        }
    };
    match serve(flags) {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("error: dhcp daemon: {error}"));
            1
        }
    }
}

fn serve(flags: Flags) -> Result<(), String> {
    // Blocked before anything is made, so that everything made is removed again.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    let blocked = signals
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC));
    let signals = blocked.map_err(|error| format!("wait for signals: {error}"))?;
    let pidfile = PathBuf::from(&flags.pidfile);
    let unwritten = |why: &dyn std::fmt::Display| format!("Error writing pidfile {pidfile:?}: {why}");
    let wanted = !flags.pidfile.is_empty();
    if wanted && !pidfile.is_absolute() {
        return Err(unwritten(&"path not absolute"));
    }
    allow_many_files();
    let mut daemon = Daemon::start(flags)?;
    let outcome = match wanted.then(|| std::fs::write(&pidfile, std::process::id().to_string())) {
        Some(Err(error)) => Err(unwritten(&error)),
        _ => {
            say(&format!("dhcp daemon: ready with {} leases", daemon.attachments.len()));
            daemon.run(&signals)
        }
    };
    // Nobody looks for this daemon any more, whether the files go or not.
    let files = daemon.listener.file.iter().chain(wanted.then_some(&pidfile));
    files.for_each(|file| drop(std::fs::remove_file(file)));
    outcome
}

/// An exchange takes a handful of descriptors, and many may be under way: the soft limit rises to the hard one.
fn allow_many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it, what finds no descriptor is tried again.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// A connection of a plugin.
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    /// The attachment whose lease it waits for.
    waits_for: Option<Key>,
}

struct Daemon {
    settings: Settings,
    listener: Listener,
    /// `None` where leases cannot be written down.
    state: Option<State>,
    attachments: BTreeMap<Key, Attachment>,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    random: Random,
}

impl Daemon {
    fn start(flags: Flags) -> Result<Daemon, String> {
        let settings = Settings { flags };
        let flags = &settings.flags;
        let listener = Listener::open(&settings.prefixed(&flags.socket_path))?;
        let dir: PathBuf = match flags.state_dir.as_str() {
            "" => settings.prefixed(&state_dir_for(&flags.socket_path).to_string_lossy()),
            dir => settings.prefixed(dir),
        };
        let state = match State::open(&dir) {
            Ok(state) => Some(state),
            Err(Unopened::Taken(error)) => return Err(error),
            Err(Unopened::Unusable(error)) => {
                say(&format!("leases will not outlive this daemon: {error}"));
                None
            }
        };
        let seed = || -> kernel::Result<u64> {
            let half =
                || Mac::random().map(|mac| mac.0.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
            Ok(half()? << 32 ^ half()?)
        };
        let random = Random::new(seed().map_err(|error| error.to_string())?);
        let mut daemon = Daemon {
            settings,
            listener,
            state,
            attachments: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_client: 0,
            random,
        };
        daemon.adopt_all();
        Ok(daemon)
    }

    /// Takes over the leases of the daemon before.
    fn adopt_all(&mut self) {
        let clock = Clock::read();
        let Some(state) = &self.state else { return };
        for entry in state.load(clock, |text| say(&text)) {
            let key = entry.key.clone();
            match Attachment::adopt(&self.settings, entry, &mut self.random, clock.now) {
                Ok(attachment) => {
                    log(&key, &format!("taking over the lease of {}", addresses(&attachment.result())));
                    self.attachments.insert(key, attachment);
                }
                Err(Trouble::Gone(text)) => {
                    log(&key, &format!("forgetting the lease: {text}"));
                    if let Err(error) = state.remove(&key) {
                        log(&key, &error);
                    }
                }
                Err(Trouble::Refused(text)) => log(&key, &text),
            }
        }
    }

    /// Serves until a signal comes.
    fn run(&mut self, signals: &SignalFd) -> Result<(), String> {
        loop {
            if self.wait(signals)? {
                say("dhcp daemon: ending");
                return Ok(());
            }
            let now = Clock::read().now;
            let due =
                self.attachments.iter().filter(|(_, a)| a.deadline() <= now).map(|(key, _)| key.clone());
            for key in due.collect::<Vec<_>>() {
                if let Some(attachment) = self.attachments.get_mut(&key) {
                    attachment.on_timer(&self.settings, &mut self.random, now);
                }
                self.look_at(&key);
            }
        }
    }

    /// Waits for the next event and handles what came on sockets; true when a signal asks for the end.
    fn wait(&mut self, signals: &SignalFd) -> Result<bool, String> {
        let deadline = self.attachments.values().map(Attachment::deadline).min().unwrap_or(Ms::MAX);
        let pause = deadline.saturating_sub(Clock::read().now);
        // Not longer than a minute: poll does not count the time that the machine sleeps.
        let pause = PollTimeout::try_from(pause.min(60_000)).unwrap_or(PollTimeout::MAX);
        let wires: Vec<Key> =
            self.attachments.iter().filter(|(_, a)| a.wire().is_some()).map(|(key, _)| key.clone()).collect();
        let clients: Vec<u64> = self.clients.keys().copied().collect();
        let ready: Vec<bool> = {
            let mut fds = vec![
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener.socket.as_fd(), PollFlags::POLLIN),
            ];
            let pollable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            fds.extend(self.clients.values().map(|client| pollable(client.stream.as_fd())));
            let open = self.attachments.values().filter_map(Attachment::wire);
            fds.extend(open.map(|wire| pollable(wire.socket.as_fd())));
            match poll(&mut fds, pause) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => return Ok(false),
                Err(error) => return Err(format!("poll: {error}")),
            }
            fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()
        };
        if ready[0] {
            return Ok(true);
        }
        let mut rest = ready[2..].iter();
        for client in clients {
            if rest.next().is_some_and(|ready| *ready) {
                self.on_client(client);
            }
        }
        let now = Clock::read().now;
        for key in wires {
            if !rest.next().is_some_and(|ready| *ready) {
                continue;
            }
            if let Some(attachment) = self.attachments.get_mut(&key) {
                attachment.on_readable(&self.settings, now);
            }
            self.look_at(&key);
        }
        if ready[1] {
            self.accept();
        }
        Ok(false)
    }

    fn accept(&mut self) {
        loop {
            match self.listener.socket.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    let client = Client { stream, received: Vec::new(), waits_for: None };
                    self.clients.insert(self.next_client, client);
                    self.next_client += 1;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    say(&format!("accept: {error}"));
                    // Out of descriptors, perhaps: not to spin until one is free.
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    return;
                }
            }
        }
    }

    fn on_client(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let mut buffer = [0; 4096];
        match client.stream.read(&mut buffer) {
            // It has nothing to say until it is answered.
            Ok(n) if n > 0 && client.waits_for.is_some() => return,
            Ok(n) if n > 0 => client.received.extend(&buffer[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            _ => return self.lose(id),
        }
        let request = match rpc::received(&client.received) {
            Received::Part => return,
            Received::Gob => {
                let _ = client.stream.write_all(GOB_REFUSAL);
                self.clients.remove(&id);
                say("a plugin of the reference asked: it speaks gob, which this daemon does not");
                return;
            }
            Received::Nonsense => Err("a request that makes no sense".to_owned()),
            Received::Whole(document) => Request::parse(document),
        };
        match request {
            Ok(request) => self.on_request(id, request),
            Err(error) => self.answer(id, &Err(Error::new(code::DECODING, error))),
        }
    }

    /// A connection is gone. A lease that only it waited for is not wanted any more.
    fn lose(&mut self, id: u64) {
        let Some(key) = self.clients.remove(&id).and_then(|client| client.waits_for) else { return };
        let Some(attachment) = self.attachments.get_mut(&key) else { return };
        attachment.waiting.retain(|waiting| *waiting != id);
        if attachment.waiting.is_empty() && !attachment.answered {
            log(&key, "the plugin is gone");
            self.release(&key);
        }
    }

    fn on_request(&mut self, id: u64, request: Request) {
        let nothing = Ok((CniResult::default(), false));
        match request {
            Request::Add { key, netns, wish } => self.on_add(id, key, netns, wish),
            Request::Check { key } => {
                let answer = match self.attachments.get(&key) {
                    Some(attachment) if attachment.is_bound() => Ok((attachment.result(), false)),
                    Some(Attachment { phase: Phase::Over(why), .. }) => Err(Error::internal(why.clone())),
                    Some(attachment) if attachment.answered => {
                        Err(Error::internal("one of the two leases expired"))
                    }
                    Some(_) => Err(Error::internal("the lease is still being acquired")),
                    None => Err(Error::internal("the daemon knows no lease of this attachment")),
                };
                self.answer(id, &answer);
            }
            Request::Del { key } => {
                self.release(&key);
                self.answer(id, &nothing);
            }
            Request::Gc { network, valid } => {
                let kept = |key: &Key| {
                    valid.iter().any(|ValidAttachment { container_id, ifname }| {
                        *container_id == key.container_id && *ifname == key.ifname
                    })
                };
                let stale = self.attachments.keys().filter(|key| key.network == network && !kept(key));
                for key in stale.cloned().collect::<Vec<_>>() {
                    self.release(&key);
                }
                self.answer(id, &nothing);
            }
            Request::Status => self.answer(id, &nothing),
        }
    }

    fn on_add(&mut self, id: u64, key: Key, netns: String, wish: Wish) {
        if let Some(attachment) = self.attachments.get_mut(&key) {
            let over = matches!(attachment.phase, Phase::Over(_));
            if !over && attachment.is_same_pod(&self.settings, &netns) {
                if attachment.is_bound() {
                    let answer = Ok((attachment.result(), false));
                    return self.answer(id, &answer);
                }
                if !attachment.answered {
                    attachment.waiting.push(id);
                    return self.waits(id, &key);
                }
            }
            log(&key, "another pod or an expired lease: asking anew");
            self.release(&key);
        }
        log(&key, "acquiring lease");
        let now = Clock::read().now;
        match Attachment::acquire(&self.settings, key.clone(), netns, wish, now) {
            Ok(mut attachment) => {
                attachment.waiting.push(id);
                self.attachments.insert(key.clone(), attachment);
                self.waits(id, &key);
            }
            Err(trouble) => self.answer(id, &Err(trouble.into_error())),
        }
    }

    fn waits(&mut self, id: u64, key: &Key) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.waits_for = Some(key.clone());
        }
    }

    /// Draws the consequences of what an attachment has just done.
    fn look_at(&mut self, key: &Key) {
        let Some(attachment) = self.attachments.get_mut(key) else { return };
        if let Some(why) = attachment.failed.take() {
            log(key, &why);
            let error = Error::new(code::TRY_LATER, why);
            let waiting = std::mem::take(&mut attachment.waiting);
            self.release(key);
            waiting.into_iter().for_each(|id| self.answer(id, &Err(error.clone())));
            return;
        }
        if !std::mem::take(&mut attachment.changed) {
            return;
        }
        let Some(attachment) = self.attachments.get(key) else { return };
        if matches!(attachment.phase, Phase::Over(_)) {
            self.forget(key);
        } else if attachment.is_bound() {
            let saved = self.state.as_ref().map(|state| state.save(&attachment.entry, Clock::read()));
            if let Some(Err(error)) = saved {
                log(key, &error);
            }
            self.hand_out(key);
        }
    }

    /// Answers who waits for the lease.
    fn hand_out(&mut self, key: &Key) {
        let Some(attachment) = self.attachments.get_mut(key) else { return };
        let result = attachment.result();
        let waiting = std::mem::take(&mut attachment.waiting);
        if waiting.is_empty() {
            log(key, &format!("lease of {} renewed", addresses(&result)));
            return;
        }
        log(key, &format!("lease of {} acquired", addresses(&result)));
        attachment.answered = true;
        for (position, id) in waiting.into_iter().enumerate() {
            self.answer(id, &Ok((result.clone(), position == 0)));
        }
    }

    /// Gives an attachment's lease back and forgets it; one that is not known is success.
    fn release(&mut self, key: &Key) {
        if let Some(mut attachment) = self.attachments.remove(key) {
            attachment.release(&self.settings, Clock::read().now);
            let error = Error::internal("the attachment was deleted while its lease was being acquired");
            attachment.waiting.iter().for_each(|id| self.answer(*id, &Err(error.clone())));
        }
        self.forget(key);
    }

    fn forget(&self, key: &Key) {
        if let Some(Err(error)) = self.state.as_ref().map(|state| state.remove(key)) {
            log(key, &error);
        }
    }

    /// Sends an answer and ends the connection.
    fn answer(&mut self, id: u64, answer: &Answer) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        // Answers fit the socket's buffer. Who does not wait for one misses it.
        if let Err(error) = client.stream.write_all(&rpc::answer(answer)) {
            say(&format!("answer a plugin: {error}"));
        }
    }
}
