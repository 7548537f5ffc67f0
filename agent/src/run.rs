//! The agent's work from start to end: what it hears goes into one loop, which makes the node equal to what the cluster
//! asks for.
//!
//! ```text
//!   API (watches) ─┐
//!   kernel events ─┼─> loop ─> routes, masquerade, policy, configuration ─> status
//!   plugins' asks ─┤
//!   clock ─────────┘
//! ```
//! One thread does all of it. Changes that come close together are worked off together. What cannot be done is told in
//! the status and tried again; it never ends the agent, and what the kernel holds goes on meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::FutureExt;
use kernel::{Nfnl, Rtnl};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::drift::{Interest, Look, Watch};
use crate::install::reservations::{self, GRACE, GRACE_AT_START};
use crate::install::{binaries, conflist};
use crate::metrics::{self, Counters};
use crate::model::{Change, Cluster, Node, Part};
use crate::places::{Places, STATUS_PORT};
use crate::policy::slots::{self, Request};
use crate::policy::{Enforcer, Outcome, probe_kernel};
use crate::prober::Prober;
use crate::routing::{self, Facts, How, Plan};
use crate::status::{Board, Condition, Path, Peer, Way};
use crate::{api, masquerade, peers, serve, tell};

/// How long to wait for more after something has changed.
const TOGETHER: Duration = Duration::from_millis(10);
/// How often the records of plugins and the clock's own work are looked at.
const TICK: Duration = Duration::from_secs(10);
/// After how many ticks everything in the kernel is looked at, although nothing was heard of it, and what was reserved.
const WHOLE: u64 = 30;
/// How long to wait before something that failed is tried again, at most.
const RETRY: Duration = Duration::from_secs(10);

/// How an agent is to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The Node's name.
    pub node: String,
    /// The way to the API; `None`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The executable with the plugins.
    pub plugin: PathBuf,
    /// Where things are on the node.
    pub places: Places,
}

/// Runs the agent in the calling thread's network namespace until SIGTERM or SIGINT.
///
/// # Errors
/// What it cannot begin without: its port, its sockets to the kernel, its directories.
pub async fn run(settings: Settings) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = work(settings) => done,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn work(settings: Settings) -> Result<()> {
    let board = Board::new(&settings.node);
    let counters = Counters::default();
    let listener = serve::listen((std::net::Ipv6Addr::UNSPECIFIED, STATUS_PORT).into()).await?;
    tokio::spawn(serve::serve(listener, board.clone(), counters.clone()));
    let mut agent = Agent::open(settings, board, counters)?;
    agent.prepare();
    let mut requests = slots::listen(&agent.settings.places.socket())?;
    let mut watch = Watch::open(Interest::default())?;
    let server = peers::Server::bind(&agent.settings.node, peers::PORT);
    let server = server.with_context(|| format!("answer probes on port {}", peers::PORT))?;
    tokio::spawn(server.serve());
    let client = agent.connect().await;
    let (to, mut news) = mpsc::channel(1024);
    api::watch_all(&client, &to);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0;
    loop {
        agent.board.beat();
        tokio::select! {
            Some(it) = news.recv() => agent.hear(it),
            request = requests.next() => agent.arm(request),
            look = watch.next() => agent.look(look?),
            () = sleep_until(agent.due), if !agent.dirty.is_empty() => {
                if let Some(interest) = agent.work() {
                    watch.set_interest(interest);
                }
            }
            _ = tick.tick() => {
                ticks += 1;
                agent.tick(ticks % WHOLE == 0);
            }
        }
        agent.tell(&client);
    }
}

/// A kind of object that is watched, as a bit.
const NODES: u8 = 1;
const PODS: u8 = 2;
const NAMESPACES: u8 = 4;
const POLICIES: u8 = 8;
const ALL: u8 = NODES | PODS | NAMESPACES | POLICIES;

struct Agent {
    settings: Settings,
    board: Board,
    counters: Counters,
    rtnl: Rtnl,
    nfnl: Nfnl,
    cluster: Cluster,
    enforcer: Enforcer,
    prober: Prober,
    /// The kinds of objects of which all were heard of.
    listed: u8,
    /// What is to be worked off, and when.
    dirty: BTreeSet<Part>,
    due: Instant,
    /// How long the next retry waits.
    retry: Duration,
    plan: Plan,
    /// Whether the policies' table was made once.
    is_guarded: bool,
    /// What the kernel lacks for policies.
    lacks: Option<String>,
    telling: Telling,
}

impl Agent {
    fn open(settings: Settings, board: Board, counters: Counters) -> Result<Agent> {
        let enforcer = Enforcer::open(&settings.node, settings.places.root())?;
        Ok(Agent {
            rtnl: Rtnl::open()?,
            nfnl: Nfnl::open()?,
            cluster: Cluster::default(),
            prober: Prober::start(board.clone(), counters.clone()),
            enforcer,
            settings,
            board,
            counters,
            listed: 0,
            dirty: BTreeSet::new(),
            due: Instant::now(),
            retry: Duration::from_millis(200),
            plan: Plan::default(),
            is_guarded: false,
            lacks: None,
            telling: Telling::Later(Instant::now()),
        })
    }

    /// What needs no API.
    fn prepare(&mut self) {
        let lacks = probe_kernel(&mut self.nfnl);
        self.lacks = (!lacks.is_empty()).then(|| lacks.join("; "));
        let kernel = match &self.lacks {
            None => Ok("it has all that policies need".to_owned()),
            Some(lacks) => Err(lacks.clone()),
        };
        self.board.report(Condition::Kernel, kernel);
        self.plugins();
        self.reservations(true);
    }

    fn plugins(&mut self) {
        let installed = binaries::install(&self.settings.plugin, &self.settings.places.plugins());
        let outcome = installed.map(|it| format!("{} in place", it.names.join(", ")));
        self.board.report_outcome(Condition::Plugins, &outcome);
    }

    fn reservations(&mut self, is_start: bool) {
        let places = &self.settings.places;
        let swept = (|| {
            let restarted = is_start && reservations::has_restarted(places)?;
            let swept =
                reservations::sweep(places, &mut self.rtnl, if restarted { GRACE_AT_START } else { GRACE })?;
            if restarted {
                reservations::mark_start(places)?;
            }
            Ok::<_, anyhow::Error>(swept)
        })();
        match swept {
            Ok(swept) => {
                self.counters.add(metrics::RELEASED, &[], swept.released.len() as u64);
                self.counters.set(metrics::RESERVATIONS, &["in use"], swept.in_use as u64);
                self.counters.set(metrics::RESERVATIONS, &["waiting"], swept.waiting as u64);
                let problems = (!swept.problems.is_empty()).then(|| swept.problems.join("; "));
                self.board.note("reservations", problems);
            }
            Err(error) => self.board.note("reservations", Some(format!("{error:#}"))),
        }
    }

    /// The API, once it answers.
    async fn connect(&mut self) -> Client {
        let mut pause = Duration::from_millis(200);
        loop {
            self.board.beat();
            match api::connect(self.settings.kubeconfig.as_deref()).await {
                Ok(client) => return client,
                Err(error) => {
                    let text = format!("{error:#}");
                    eprintln!("podnetd: {text}");
                    self.board.api(Some(text.clone()));
                    self.board.report(Condition::Api, Err(text));
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY);
        }
    }

    fn is_listed(&self, kinds: u8) -> bool {
        self.listed & kinds == kinds
    }

    fn hear(&mut self, news: api::News) {
        match news {
            api::News::Lost { kind, error } => self.board.api(Some(format!("watch of {kind}: {error}"))),
            api::News::Change(change) => {
                self.board.api(None);
                self.counters.add(metrics::EVENTS, &[], 1);
                let before = self.listed;
                self.listed |= match &change {
                    Change::Nodes(_) => NODES,
                    Change::Pods(_) => PODS,
                    Change::Namespaces(_) => NAMESPACES,
                    Change::Policies(_) => POLICIES,
                    _ => 0,
                };
                let is_first = self.listed != before;
                if is_first && self.is_listed(ALL) {
                    self.board.report(Condition::Api, Ok("all objects are known".to_owned()));
                }
                match self.cluster.take(change) {
                    // A node's own PodCIDR and the addresses of nodes are in the rules of policies, too.
                    Some(Part::Nodes) => self.mark([Part::Nodes, Part::Policies]),
                    Some(Part::Policies) => self.mark([Part::Policies]),
                    None if is_first => self.mark([Part::Nodes, Part::Policies]),
                    None => {}
                }
            }
        }
    }

    fn mark(&mut self, parts: impl IntoIterator<Item = Part>) {
        self.mark_for(Instant::now() + TOGETHER, parts);
    }

    /// Something that could not be done is tried again later.
    fn mark_later(&mut self, part: Part) {
        self.mark_for(Instant::now() + self.retry, [part]);
        self.retry = (self.retry * 2).min(RETRY);
    }

    /// What is to be tried again later does not keep back what is new.
    fn mark_for(&mut self, at: Instant, parts: impl IntoIterator<Item = Part>) {
        self.due = if self.dirty.is_empty() { at } else { self.due.min(at) };
        self.dirty.extend(parts);
    }

    /// A plugin waits: at once.
    fn arm(&mut self, request: Request) {
        if !self.is_listed(ALL) {
            return request.refused("the agent has not heard of all pods and policies yet");
        }
        let outcome = self.enforcer.take(request, &self.cluster);
        if self.enforced(outcome) {
            self.counters.add(metrics::ARMED, &[], 1);
        }
    }

    fn look(&mut self, look: Look) {
        if look.routes {
            self.mark([Part::Nodes]);
        }
        if look.masquerade {
            self.counters.add(metrics::DRIFT, &["masquerade"], 1);
            self.mark([Part::Nodes]);
        }
        if look.policy && self.is_guarded {
            self.repair(true);
        }
    }

    fn tick(&mut self, whole: bool) {
        if self.is_guarded {
            self.repair(whole);
        }
        if whole {
            self.mark([Part::Nodes]);
            self.reservations(false);
            self.plugins();
        }
    }

    fn repair(&mut self, whole: bool) {
        match self.enforcer.repair(&self.cluster, whole) {
            Ok((drift, outcome)) => {
                if let Some(drift) = drift {
                    eprintln!("podnetd: policy table put right: {drift}");
                    self.counters.add(metrics::DRIFT, &["policy"], 1);
                }
                self.enforced(Ok(outcome));
            }
            Err(error) => {
                self.enforced(Err(error));
                self.mark_later(Part::Policies);
            }
        }
    }

    /// Works off what has changed. Gives what of the kernel's announcements matters from now on.
    fn work(&mut self) -> Option<Interest> {
        let parts = std::mem::take(&mut self.dirty);
        if !self.is_listed(NODES) {
            return None;
        }
        let Some(own) = self.cluster.nodes.get(&self.settings.node).cloned() else {
            let text = format!(
                "the API knows no Node {:?} · try: NODE_NAME as `kubectl get nodes` has it",
                self.settings.node
            );
            self.board.report(Condition::Routes, Err(text));
            return None;
        };
        let mut failed = false;
        if parts.contains(&Part::Nodes) {
            failed |= !self.routes(&own);
            failed |= !self.masquerade(&own);
            if failed {
                self.mark_later(Part::Nodes);
            }
        }
        if parts.contains(&Part::Policies) && self.is_listed(ALL) {
            let outcome = self.enforcer.sync(&self.cluster);
            if !self.enforced(outcome) {
                failed = true;
                self.mark_later(Part::Policies);
            }
        }
        self.conflist(&own);
        if !failed {
            self.retry = Duration::from_millis(200);
        }
        let mut interest = Interest::of(&own, &self.plan);
        interest.own.insert(self.enforcer.port());
        Some(interest)
    }

    fn routes(&mut self, own: &Node) -> bool {
        let nodes = self.cluster.nodes.values();
        let done = Facts::gather(&mut self.rtnl, own, nodes.clone()).and_then(|facts| {
            let plan = routing::plan(own, nodes, &facts);
            let applied = routing::apply(&mut self.rtnl, &plan)?;
            Ok((plan, applied))
        });
        let (plan, applied) = match done {
            Ok(done) => done,
            Err(error) => {
                self.board.report(Condition::Routes, Err(error.to_string()));
                self.count("routes", false);
                return false;
            }
        };
        self.plan = plan;
        for change in &applied.sysctls {
            eprintln!("podnetd: {} is {} now, was {}", change.path.replace('/', "."), change.to, change.from);
        }
        let foreign = (!applied.foreign.is_empty()).then(|| applied.foreign.join("; "));
        self.board.note("routes of others", foreign);
        let mut trouble = self.plan.trouble.clone();
        trouble.extend(applied.trouble.iter().cloned());
        let refused = self.plan.peers.iter().filter(|it| matches!(it.how, How::Refused(_)));
        trouble.extend(refused.map(|it| format!("{}: {}", it.node, it.how)));
        let served = self.plan.peers.iter().filter(|it| it.how.is_served()).count();
        let good = trouble.is_empty();
        let state = if good { Ok(format!("to {served} PodCIDRs")) } else { Err(trouble.join("; ")) };
        self.board.report(Condition::Routes, state);
        self.count("routes", good);
        self.peers(own);
        // What the kernel refused may be taken later; what the plan refuses is not until the cluster changes.
        applied.trouble.is_empty()
    }

    /// The peers, with the ways to them, for status and prober.
    fn peers(&mut self, own: &Node) {
        let (cluster, plan) = (&self.cluster, &self.plan);
        self.board.peers(|peers| {
            peers.retain(|name, _| *name != own.name && cluster.nodes.contains_key(name));
            for node in cluster.nodes.values().filter(|it| it.name != own.name) {
                let peer = peers.entry(node.name.clone()).or_insert_with(|| Peer {
                    node_ready: node.ready,
                    paths: Vec::new(),
                    probes: Vec::new(),
                });
                peer.node_ready = node.ready;
                peer.paths.clear();
            }
            for it in &plan.peers {
                let way = match it.how {
                    How::Direct { .. } => Way::Direct,
                    How::Tunnel { .. } => Way::Vxlan,
                    How::Skipped(_) | How::Refused(_) => continue,
                };
                let (Some(pod_cidr), Some(node_address)) = (it.cidr, it.address) else { continue };
                if let Some(peer) = peers.get_mut(&it.node) {
                    peer.paths.push(Path { pod_cidr, node_address, way, reason: it.how.to_string() });
                }
            }
        });
        let nodes: Vec<&Node> = self.cluster.nodes.values().collect();
        self.prober.aim(peers::asks(own, &nodes, &self.plan));
    }

    fn masquerade(&mut self, own: &Node) -> bool {
        let wanted = masquerade::Masquerade::of(own, self.cluster.nodes.values());
        let outcome = masquerade::apply(&mut self.nfnl, &wanted);
        self.count("masquerade", outcome.is_ok());
        let good = outcome.is_ok();
        let state = match outcome {
            Ok(_) => Ok("of what leaves the cluster, and of nothing else".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        self.board.report(Condition::Masquerade, state);
        good
    }

    /// Takes note of what policies came to. False: not enforced.
    fn enforced(&mut self, outcome: Result<Outcome>) -> bool {
        let good = outcome.is_ok();
        self.count("policy", good);
        match outcome {
            Ok(outcome) => {
                self.is_guarded = true;
                self.counters.add(metrics::CUT, &[], outcome.cut.cut as u64);
                let warnings = (!outcome.warnings.is_empty()).then(|| outcome.warnings.join("; "));
                self.board.note("policy", warnings);
                self.board.report(Condition::Policy, Ok("enforced by the kernel".to_owned()));
            }
            Err(error) => _ = self.board.report(Condition::Policy, Err(format!("{error:#}"))),
        }
        good
    }

    fn count(&self, part: &'static str, good: bool) {
        self.counters.add(metrics::RECONCILED, &[part, if good { "done" } else { "failed" }], 1);
    }

    /// Last, and only when pods would have all they need.
    fn conflist(&mut self, own: &Node) {
        let needed = [Condition::Api, Condition::Plugins, Condition::Masquerade, Condition::Policy];
        let missing = needed.into_iter().find(|it| !self.board.is_met(*it));
        let outcome = match missing {
            Some(missing) => Err(anyhow!("waits for {}", missing.name())),
            None => self.configure(own),
        };
        // One that is in place stays: pods of a node that has it can be made, whatever is being put right.
        if missing.is_none() || !self.board.is_met(Condition::Conflist) {
            self.board.report_outcome(Condition::Conflist, &outcome);
        }
    }

    fn configure(&self, own: &Node) -> Result<String> {
        let places = &self.settings.places;
        let text = conflist::render(own, self.plan.mtu, places)?;
        conflist::write(&text, places)?;
        let others = conflist::others(places)?;
        let about = conflist::about(&others);
        if others.iter().any(|it| it.is_first) {
            bail!("{}", about.unwrap_or_default());
        }
        self.board.note("other networks", about);
        Ok(format!("{} with MTU {}", places.conflist().display(), self.plan.mtu))
    }

    /// Tells the API that the network is there, or why policies are not enforced, until it has heard. Nobody waits for
    /// that.
    fn tell(&mut self, client: &Client) {
        match &self.telling {
            Telling::Done => return,
            Telling::Now(task) if !task.is_finished() => return,
            Telling::Later(at) if *at > Instant::now() => return,
            Telling::Now(_) | Telling::Later(_) => {}
        }
        if let Telling::Now(task) = std::mem::replace(&mut self.telling, Telling::Later(Instant::now())) {
            self.telling = match task.now_or_never() {
                Some(Ok(true)) => Telling::Done,
                _ => Telling::Later(Instant::now() + RETRY),
            };
            return;
        }
        if self.lacks.is_none() && !self.board.is_met(Condition::Conflist) {
            return;
        }
        let (client, node, lacks) = (client.clone(), self.settings.node.clone(), self.lacks.clone());
        self.telling = Telling::Now(tokio::spawn(async move {
            let told = match lacks {
                Some(lacks) => tell::policies_are_not_enforced(&client, &node, &lacks).await,
                None => tell::network_is_up(&client, &node).await,
            };
            if let Err(error) = &told {
                eprintln!("podnetd: {error:#}");
            }
            told.is_ok()
        }));
    }
}

/// Whether the API was told what it has to know of this node.
enum Telling {
    Later(Instant),
    Now(JoinHandle<bool>),
    Done,
}
