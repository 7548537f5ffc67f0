//! The run as a whole: peers, cases, what is kept.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::Rtnl;
use kernel::link::{self, Veth};
use kernel::netns::Netns;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use podnet_tests::bench::run::{Row, Run, SCHEMA, Unit};
use podnet_tests::plugins;
use tempfile::TempDir;

use crate::node::{self, Node};
use crate::options::Options;
use crate::peer::{self, Peer};
use crate::shape::{Link, Shape, plain};
use crate::{faults, growth, machine, parallel, simple, standard};

/// The cases, in their order.
pub(crate) const CASES: [&str; 17] = [
    "start",
    "loopback",
    "bridge",
    "bridge-dual",
    "bridge-masquerade",
    "bridge-ports-1",
    "bridge-ports-10",
    "bridge-bandwidth",
    "ptp",
    "macvlan",
    "reservations",
    "pods",
    "rules",
    "namespaces",
    "parallel",
    "memory",
    "size",
];

/// Iterations that are thrown away before each case.
pub(crate) const WARM_UP: usize = 2;
/// The same pause before every DEL: what the operation before left to the kernel would otherwise count.
pub(crate) const GAP: Duration = Duration::from_millis(60);
/// The longest that the kernel may take to clean up after a case, and a rest after it.
const PATIENCE: Duration = Duration::from_secs(120);
const REST: Duration = Duration::from_millis(300);
/// How many failures of one kind are told.
const TOLD: usize = 5;

/// A run that goes on.
pub(crate) struct Session<'o> {
    pub(crate) options: &'o Options,
    pub(crate) peers: Vec<Peer>,
    pub(crate) floor: PathBuf,
    pub(crate) run: Run,
    directory: TempDir,
    _installed: TempDir,
    nodes: usize,
}

impl<'o> Session<'o> {
    /// Installs our plugins as a user would, and finds the others.
    pub(crate) fn new(options: &'o Options) -> Result<Self> {
        // A namespace is a descriptor, and there are thousands.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of descriptors")?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of descriptors")?;
        let directory = TempDir::with_prefix_in("podnet-bench-", &options.state)
            .with_context(|| format!("make a directory in {}", options.state.display()))?;
        // Programs are where Debian's are: on the disk.
        let installed = TempDir::with_prefix("podnet-bench-").context("make a directory")?;
        let ours = installed.path().join("plugins");
        let program = plugins::podnet()?;
        let status = Command::new(&program).arg("install").arg(&ours).output().context("start podnet")?;
        ensure!(status.status.success(), "podnet install: {}", String::from_utf8_lossy(&status.stderr));
        let floor = plugins::floor()?;
        let peers = peer::all(&ours, &floor, &options.peers)?;
        ensure!(peers.iter().any(|p| p.name == options.against), "no peer is named {}", options.against);
        let mut machine = machine::describe(&program, &floor)?;
        let policy = if machine::prefer(true) { "SCHED_RR, where one runs at a time" } else { "as usual" };
        machine::prefer(false);
        machine.push(("scheduling".into(), policy.into()));
        machine.push(("the plugins' files in".into(), options.state.display().to_string()));
        let run = Run {
            schema: SCHEMA,
            machine,
            reference: options.against.clone(),
            rows: Vec::new(),
            failures: Vec::new(),
        };
        Ok(Session { options, peers, floor, run, directory, _installed: installed, nodes: 0 })
    }

    /// Proves that faults are seen, then measures every case that was asked for.
    pub(crate) fn measure(&mut self) -> Result<()> {
        faults::prove(self)?;
        for case in self.options.cases.clone() {
            let began = Instant::now();
            machine::prefer(case != "parallel");
            self.case(&case).with_context(|| format!("case {case}"))?;
            machine::prefer(false);
            settle()?;
            eprintln!("  {case:<24} {:5.1} s", began.elapsed().as_secs_f64());
        }
        let place = |name: &str| self.peers.iter().position(|peer| peer.name == name);
        let case = |name: &str| CASES.iter().position(|case| *case == name);
        self.run.rows.sort_by_key(|row| (case(&row.case), row.point, place(&row.peer)));
        Ok(())
    }

    fn case(&mut self, case: &str) -> Result<()> {
        let bridge = plain(Link::Bridge);
        match case {
            "start" => simple::start(self),
            "loopback" => standard::measure(self, case, plain(Link::Loopback)),
            "bridge" => standard::measure(self, case, bridge),
            "bridge-dual" => standard::measure(self, case, Shape { v6: true, ..bridge }),
            "bridge-masquerade" => standard::measure(self, case, Shape { masquerade: true, ..bridge }),
            "bridge-ports-1" => standard::measure(self, case, Shape { ports: 1, ..bridge }),
            "bridge-ports-10" => standard::measure(self, case, Shape { ports: 10, ..bridge }),
            "bridge-bandwidth" => standard::measure(self, case, Shape { bandwidth: true, ..bridge }),
            "ptp" => standard::measure(self, case, plain(Link::Ptp)),
            "macvlan" => standard::measure(self, case, plain(Link::Macvlan)),
            "reservations" => growth::reservations(self),
            "pods" => growth::pods_on_one_bridge(self),
            "rules" => growth::rules(self),
            "namespaces" => growth::namespaces(self),
            "parallel" => parallel::measure(self),
            "memory" => simple::memory(self),
            _ => simple::size(self),
        }
    }

    /// Nodes, one for each of the peers that `wanted` wants.
    pub(crate) fn nodes(
        &mut self,
        case: &str,
        shape: &Shape,
        wanted: impl Fn(&Peer) -> bool,
    ) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for peer in self.peers.iter().filter(|peer| wanted(peer)) {
            self.nodes += 1;
            let directory = node::directory(self.directory.path(), case, peer, self.nodes);
            nodes.push(Node::new(peer, shape, directory)?);
        }
        Ok(nodes)
    }

    /// So many iterations, or a part of them, but never less than 3.
    pub(crate) fn iterations(&self, divisor: usize) -> usize {
        (self.options.iterations / divisor).max(3)
    }

    /// Keeps samples.
    pub(crate) fn put(
        &mut self,
        case: &str,
        operation: &str,
        point: Option<u64>,
        peer: &str,
        unit: Unit,
        samples: Vec<f64>,
    ) {
        if !samples.is_empty() {
            let (case, operation, peer) = (case.into(), operation.into(), peer.into());
            self.run.put(Row { case, operation, point, peer, unit, samples });
        }
    }

    /// Keeps what was wrong; the same case and peer are not told for ever.
    pub(crate) fn fail(&mut self, case: &str, peer: &str, operation: &str, what: &str) {
        let head = format!("{case}, {peer}, {operation}: ");
        let told = self.run.failures.iter().filter(|failure| failure.starts_with(&head)).count();
        if told < TOLD {
            self.run.failures.push(head + what);
        }
    }
}

/// Waits until the kernel has taken apart the namespaces that were let go before, which it does in its own time and at the
/// cost of whoever comes next. It takes them in turn: when the last one's link is gone, so are those of all before.
pub(crate) fn settle() -> Result<()> {
    let (near, last) = (Netns::create()?, Netns::create()?);
    let mut rtnl = Rtnl::open_in(&near)?;
    let wire = Veth { name: "near", peer: "last", peer_netns: Some(last.as_fd()), ..Veth::default() };
    link::add_veth(&mut rtnl, &wire)?;
    drop(last);
    let began = Instant::now();
    while link::by_name(&mut rtnl, "near").is_ok() {
        ensure!(began.elapsed() < PATIENCE, "namespaces are not taken apart");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(REST);
    Ok(())
}

/// So many pods.
pub(crate) fn pods(count: usize) -> Result<Vec<Netns>> {
    (0..count).map(|_| Netns::create().context("make a pod's namespace")).collect()
}

/// The order of the i-th turn: A B C, B C A, ….
pub(crate) fn turn(i: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |n| (n + i) % count)
}
