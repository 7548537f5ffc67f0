//! `podlab run`, inside the capsule or the lab: runs the script, reads what it tells, reports it, and keeps evidence of what
//! failed while the namespaces are still there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use kernel::Netns;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::exit::{self, Failure};
use crate::inspect;
use crate::output::{self, Tests};
use crate::suites::{Case, Outcome, Suite, junit, tap};
use crate::tap::{Directive, Point, Reader, Told};

/// The argument under which the binary is a runner; the job and the command follow.
pub const RUNNER: &str = "__runner";
/// The name of the form of what is told of a run.
pub const SCHEMA: &str = "podlab.run/1";
/// The name of the form of the namespaces that are kept.
const NAMESPACES_SCHEMA: &str = "podlab.namespaces/1";
/// So many bytes of each of a script's outputs are kept.
const KEPT: usize = 16 << 20;

/// What is to be done besides running a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The script's name.
    pub script: String,
    /// The lab it runs in; none means a capsule of its own.
    pub lab: Option<String>,
    /// What is printed instead of what the script prints.
    pub print: Print,
    /// Where outcomes are written as JUnit's XML.
    pub junit: Option<PathBuf>,
    /// Where evidence is kept: a directory that there is not yet.
    pub evidence: PathBuf,
}

/// What a run prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Print {
    /// What the script prints, as it comes.
    Script,
    /// The document [`SCHEMA`].
    Json,
    /// Outcomes of tests.
    Tests(Tests),
}

/// A script that has ended.
struct Ran {
    status: ExitStatus,
    told: Option<Told>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    seconds: f64,
}

/// Runs as the runner: `args` are the job and the command. Returns the exit code.
pub fn run(args: &[OsString]) -> u8 {
    let work = || -> Result<u8, Failure> {
        let bad = || Failure::new(exit::BUG, "__runner is podlab's own");
        let (job, command) = args.split_first().ok_or_else(bad)?;
        let job: Job = serde_json::from_str(&job.to_string_lossy()).map_err(|_| bad())?;
        let ran = execute(command, job.print == Print::Script)?;
        report(&job, &ran)
    };
    work().unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        failure.code
    })
}

/// The exit code of a run: the script's own, and 1 where it is 0 though a test failed.
fn code(ran: &Ran) -> u8 {
    let own = exit::of_status(ran.status);
    let has_failed = ran.told.as_ref().is_some_and(|told| !told.is_well());
    if own == exit::OK && has_failed { exit::FAILED } else { own }
}

fn execute(command: &[OsString], passes: bool) -> Result<Ran, Failure> {
    let Some((program, args)) = command.split_first() else { return Err(Failure::usage("no command")) };
    let (stdout, stdout_end) = std::io::pipe().map_err(piped)?;
    let mut child = Command::new(program);
    child.args(args).stdout(stdout_end);
    // A shell for people talks to the terminal by standard error.
    let mut stderr = None;
    if !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        let (reader, end) = std::io::pipe().map_err(piped)?;
        stderr = Some(reader);
        child.stderr(end);
    }
    let start = Instant::now();
    let spawned = child.spawn().map_err(|err| exit::of_spawn(program, &err))?;
    // It holds the pipes' other ends.
    drop(child);
    let mut outputs = Outputs { pipes: [Some(stdout), stderr], passes, kept: Default::default() };
    let status = outputs.follow(spawned).map_err(piped)?;
    let (told, seconds) = (outputs.told(), start.elapsed().as_secs_f64());
    let [stdout, stderr] = outputs.kept;
    Ok(Ran { status, told, stdout, stderr, seconds })
}

fn piped(err: std::io::Error) -> Failure {
    Failure::new(exit::RUN_FAILED, format!("output of the script: {err}"))
}

/// The outputs of a script, standard output and standard error, passed on while it runs.
struct Outputs {
    pipes: [Option<PipeReader>; 2],
    /// Standard output goes on as it comes.
    passes: bool,
    kept: [Vec<u8>; 2],
}

impl Outputs {
    /// Reads until the script has ended and what it wrote is read; what it has left running may go on writing to nobody.
    fn follow(&mut self, mut child: Child) -> std::io::Result<ExitStatus> {
        let (ended, end) = std::io::pipe()?;
        let waiter = std::thread::spawn(move || {
            let status = child.wait();
            drop(end);
            status
        });
        let mut has_ended = false;
        while !has_ended {
            let open =
                self.pipes.iter().enumerate().filter_map(|(index, pipe)| Some((index, pipe.as_ref()?)));
            let (indices, pipes): (Vec<usize>, Vec<&PipeReader>) = open.unzip();
            let all = pipes.into_iter().chain([&ended]);
            let mut waited: Vec<PollFd<'_>> =
                all.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut waited, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            let ready: Vec<bool> = waited.iter().map(|it| it.any().unwrap_or(false)).collect();
            has_ended = ready.last() == Some(&true);
            for (index, _) in indices.into_iter().zip(ready).filter(|(_, is_ready)| *is_ready) {
                if !self.take(index)? {
                    self.pipes[index] = None;
                }
            }
        }
        for index in 0..self.pipes.len() {
            let Some(pipe) = &self.pipes[index] else { continue };
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            while self.take(index)? {}
        }
        waiter.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()))
    }

    /// Takes what there is of one output; whether there may be more.
    fn take(&mut self, index: usize) -> std::io::Result<bool> {
        let bytes = self.pipes[index].as_mut().map(read).transpose()?.unwrap_or_default();
        // Who reads it may have gone; the script goes on, as its exit code matters.
        if index == 1 {
            let _ = std::io::stderr().lock().write_all(&bytes);
        } else if self.passes {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        }
        let kept = &mut self.kept[index];
        let room = KEPT.saturating_sub(kept.len());
        kept.extend(&bytes[..bytes.len().min(room)]);
        Ok(!bytes.is_empty())
    }

    fn told(&self) -> Option<Told> {
        let mut reader = Reader::default();
        String::from_utf8_lossy(&self.kept[0]).lines().for_each(|line| reader.line(line));
        reader.finish()
    }
}

/// What is there to be read; nothing at the end.
fn read(pipe: &mut PipeReader) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 1 << 16];
    let count = loop {
        match pipe.read(&mut bytes) {
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) if err.kind() == ErrorKind::WouldBlock => break 0,
            other => break other?,
        }
    };
    bytes.truncate(count);
    Ok(bytes)
}

fn report(job: &Job, ran: &Ran) -> Result<u8, Failure> {
    let code = code(ran);
    let mut document = document(job, ran, code);
    if code != exit::OK {
        match evidence(job, ran, &document) {
            Ok(spaces) => {
                eprintln!(
                    "evidence of {} is kept in {}: its output, {} and rules",
                    job.script,
                    job.evidence.display(),
                    crate::construct::count(spaces, "namespace")
                );
                document["evidence"] = job.evidence.to_string_lossy().into();
            }
            Err(err) => eprintln!("error: evidence of {}: {err:#}", job.script),
        }
    }
    let suites = [suite(job, ran, code)];
    if let Some(path) = &job.junit {
        fs::write(path, junit(&suites))
            .map_err(|err| Failure::new(exit::RUN_FAILED, format!("{}: {err}", path.display())))?;
    }
    match job.print {
        Print::Script => {}
        Print::Json => output::print_json(&document)?,
        Print::Tests(Tests::Tap) => output::print(&tap(&suites))?,
        Print::Tests(Tests::Junit) => output::print(&junit(&suites))?,
    }
    if let (Some(told), Print::Script) = (&ran.told, job.print) {
        told.problems.iter().for_each(|problem| eprintln!("error: {}: {problem}", job.script));
        if let Some(reason) = &told.bail_out {
            eprintln!("error: {} gave up: {reason}", job.script);
        }
    }
    Ok(code)
}

fn document(job: &Job, ran: &Ran, code: u8) -> Value {
    let told = ran.told.as_ref();
    let count = |is: fn(&Point) -> bool| told.map(|told| told.points.iter().filter(|it| is(it)).count());
    json!({
        "schema": SCHEMA,
        "script": job.script,
        "lab": job.lab,
        "exit": code,
        "own_exit": exit::of_status(ran.status),
        "seconds": ran.seconds,
        "failed": count(Point::has_failed),
        "passed": count(|it| !it.has_failed()),
        "tap": told,
        "evidence": Value::Null,
    })
}

/// The run as tests: those that the script told of, or the script itself.
fn suite(job: &Job, ran: &Ran, code: u8) -> Suite {
    let own = exit::of_status(ran.status);
    let mut suite = Suite {
        name: job.script.clone(),
        cases: Vec::new(),
        output: String::from_utf8_lossy(&ran.stdout).into_owned(),
    };
    let whole =
        |outcome| Case { name: job.script.clone(), outcome, detail: Vec::new(), seconds: Some(ran.seconds) };
    let Some(told) = &ran.told else {
        let outcome =
            if code == exit::OK { Outcome::Passed } else { Outcome::Failed(format!("exit code {code}")) };
        suite.cases.push(whole(outcome));
        return suite;
    };
    let outcome = |point: &Point| match &point.directive {
        _ if point.has_failed() => Outcome::Failed(point.description.clone()),
        Some(Directive::Skip(reason)) => Outcome::Skipped(reason.clone()),
        Some(Directive::Todo(reason)) if !point.ok => Outcome::Todo(reason.clone()),
        _ => Outcome::Passed,
    };
    suite.cases.extend(told.points.iter().map(|point| Case {
        name: point.description.clone(),
        outcome: outcome(point),
        detail: point.diagnostics.clone(),
        seconds: None,
    }));
    suite.cases.extend(told.skipped.as_ref().map(|reason| whole(Outcome::Skipped(reason.clone()))));
    suite.cases.extend(told.problems.iter().map(|problem| whole(Outcome::Error(problem.clone()))));
    suite
        .cases
        .extend(told.bail_out.as_ref().map(|reason| whole(Outcome::Error(format!("gave up: {reason}")))));
    if own != exit::OK {
        suite.cases.push(whole(Outcome::Failed(format!("exit code {own}"))));
    }
    suite
}

/// Keeps what the script printed, and every namespace's state and rules; how many namespaces.
fn evidence(job: &Job, ran: &Ran, document: &Value) -> Result<usize> {
    let dir = &job.evidence;
    fs::create_dir(dir).with_context(|| format!("create {}", dir.display()))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
    };
    write("stdout", &ran.stdout)?;
    write("stderr", &ran.stderr)?;
    write("run.json", format!("{document:#}\n").as_bytes())?;
    let mut states = Map::new();
    for (name, netns) in namespaces()? {
        let state = inspect::kernel_state(&netns).map(Value::Object);
        states.insert(name.clone(), state.unwrap_or_else(|err| json!({ "error": format!("{err:#}") })));
        // Without nft there are no rules to show.
        let list = || Command::new("nft").args(["list", "ruleset"]).stdin(Stdio::null()).output();
        if let Ok(listed) = netns.run(list)? {
            write(&format!("{name}.nft"), &listed.stdout)?;
        }
    }
    let spaces = states.len();
    let all = json!({ "schema": NAMESPACES_SCHEMA, "namespaces": states });
    write("namespaces.json", format!("{all:#}\n").as_bytes())?;
    Ok(spaces)
}

/// The namespaces that `ip netns` lists here, and the one that the script began in.
fn namespaces() -> Result<Vec<(String, Netns)>> {
    let mut all = vec![("capsule".to_owned(), Netns::current()?)];
    for entry in fs::read_dir("/run/netns").context("read /run/netns")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What the script has half made is no namespace.
        if let Ok(netns) = Netns::open(&entry.path()) {
            all.push((name, netns));
        }
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(all)
}

/// Refuses a path that is another file inside a capsule than outside.
///
/// # Errors
/// It lies where a capsule has files of its own.
pub fn outside_of_capsules(path: &Path) -> Result<PathBuf, Failure> {
    let refused = |err: std::io::Error| Failure::usage(format!("{}: {err}", path.display()));
    let absolute = std::path::absolute(path).map_err(refused)?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Failure::usage(format!("{} is no place for a file", path.display())));
    };
    let parent = parent.canonicalize().map_err(refused)?;
    match crate::capsule::COVERED.iter().find(|covered| parent.starts_with(covered)) {
        Some(covered) => Err(Failure::usage(format!(
            "{}: what is written below {covered} in a capsule is gone with it · try: another directory",
            path.display()
        ))),
        None => Ok(parent.join(name)),
    }
}

/// Makes sure that a file can be written before anything is run.
///
/// # Errors
/// It cannot.
pub fn writable(path: &Path) -> Result<PathBuf, Failure> {
    let path = outside_of_capsules(path)?;
    File::create(&path).map_err(|err| Failure::usage(format!("{}: {err}", path.display())))?;
    Ok(path)
}
