//! What the agent knows of itself: conditions, peers, and whether the node is ready.
//!
//! One [`Board`] is shared by those who find out (the main loop, the prober) and those who tell ([`crate::serve`]). A
//! condition that nobody has reported yet is not met, so an agent is ready only when everything has been looked at.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ipnetwork::IpNetwork;
use serde::Serialize;

/// How long the main loop may say nothing before the agent counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Something that has to be so for the node to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// All objects were heard of at least once. A connection that is lost later makes nobody unready: what the node has
    /// holds on.
    Api,
    /// The kernel has what policies and routes need.
    Kernel,
    /// The plugins are in place and run.
    Plugins,
    /// The network's configuration is in place, and the runtime takes it.
    Conflist,
    /// A route to every peer's PodCIDRs.
    Routes,
    /// The rules of masquerading.
    Masquerade,
    /// The rules of policies.
    Policy,
    /// Every peer whose Node is Ready answers probes, at addresses that nobody has rewritten.
    Peers,
}

impl Condition {
    /// All of them, in the order in which an agent meets them.
    pub const ALL: [Condition; 8] = [
        Condition::Api,
        Condition::Kernel,
        Condition::Plugins,
        Condition::Conflist,
        Condition::Routes,
        Condition::Masquerade,
        Condition::Policy,
        Condition::Peers,
    ];

    /// Its name in `/status` and `/metrics`.
    pub fn name(self) -> &'static str {
        match self {
            Condition::Api => "api",
            Condition::Kernel => "kernel",
            Condition::Plugins => "plugins",
            Condition::Conflist => "conflist",
            Condition::Routes => "routes",
            Condition::Masquerade => "masquerade",
            Condition::Policy => "policy",
            Condition::Peers => "peers",
        }
    }
}

/// How a condition stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// Which one.
    pub condition: Condition,
    /// Whether it is met.
    pub met: bool,
    /// What is so; when it is not met, what failed, where and what to try.
    pub reason: String,
    /// Since when it has been met, or not, in seconds since 1970; none before it was first reported.
    pub since: Option<u64>,
}

/// How packets get to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// As they are, by its address on a link that both have.
    Direct,
    /// In UDP datagrams, as a router is between.
    Vxlan,
}

impl Way {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Vxlan => "vxlan",
        }
    }
}

/// How the pods of a peer are reached, in one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// Their addresses.
    pub pod_cidr: IpNetwork,
    /// By which node's address.
    pub node_address: IpAddr,
    /// How.
    pub way: Way,
    /// Why so: `same link eth0`, `behind router 10.0.0.1`.
    pub reason: String,
}

/// What a probe came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// From which address of ours.
    pub from: IpAddr,
    /// To which of the peer's.
    pub to: IpAddr,
    /// None: it was answered, and the peer saw our address. Otherwise what went wrong.
    pub problem: Option<String>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Whether its Node is Ready. One that is not makes nobody else unready.
    pub node_ready: bool,
    /// How its pods are reached.
    pub paths: Vec<Path>,
    /// The last probe of each pair of addresses; empty before the first.
    pub probes: Vec<Probe>,
}

impl Peer {
    /// What is wrong with it; none when all its probes were answered.
    pub fn problem(&self) -> Option<String> {
        if self.probes.is_empty() {
            return Some("not probed yet".to_owned());
        }
        let bad = self.probes.iter().filter_map(|probe| {
            probe.problem.as_ref().map(|problem| format!("{} > {}: {problem}", probe.from, probe.to))
        });
        let bad: Vec<String> = bad.collect();
        (!bad.is_empty()).then(|| bad.join("; "))
    }
}

/// All that is told of an agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The form of this document.
    pub schema: &'static str,
    /// The Node's name.
    pub node: String,
    /// The agent's version.
    pub version: &'static str,
    /// Whether pods of this node have their network.
    pub ready: bool,
    /// Every condition, in the order of [`Condition::ALL`].
    pub conditions: Vec<State>,
    /// Whether the connection to the API is there now; if not, what was said when it was lost.
    pub api_lost: Option<String>,
    /// The other nodes by name.
    pub peers: BTreeMap<String, Peer>,
    /// What a person should know and what makes nobody unready, such as the configuration of another network.
    pub notes: BTreeMap<&'static str, String>,
}

impl Status {
    /// The conditions that are not met.
    pub fn failing(&self) -> impl Iterator<Item = &State> {
        self.conditions.iter().filter(|it| !it.met)
    }

    /// How one condition stands.
    pub fn state(&self, condition: Condition) -> &State {
        &self.conditions[condition as usize]
    }
}

/// The status, shared by those who find out and those who tell.
#[derive(Debug, Clone)]
pub struct Board(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    status: Status,
    beat: Instant,
}

impl Board {
    /// A board on which nothing is met yet.
    pub fn new(node: &str) -> Board {
        let conditions = Condition::ALL.map(|condition| State {
            condition,
            met: false,
            reason: "not looked at yet".to_owned(),
            since: None,
        });
        let status = Status {
            schema: "podnetd.status/1",
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            ready: false,
            conditions: conditions.to_vec(),
            api_lost: None,
            peers: BTreeMap::new(),
            notes: BTreeMap::new(),
        };
        Board(Arc::new(Mutex::new(Inner { status, beat: Instant::now() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports a condition: met, with what is so, or not, with what failed. True when it is other than before.
    pub fn report(&self, condition: Condition, state: Result<String, String>) -> bool {
        let mut inner = self.inner();
        let changed = set(&mut inner.status, condition, state);
        judge(&mut inner.status);
        changed
    }

    /// As [`Board::report`], of what was tried: an error is told with all its causes.
    pub fn report_outcome(&self, condition: Condition, outcome: &anyhow::Result<String>) -> bool {
        let state = match outcome {
            Ok(text) => Ok(text.clone()),
            Err(err) => Err(format!("{err:#}")),
        };
        self.report(condition, state)
    }

    /// The connection to the API is lost, with what was said, or is there again.
    pub fn api(&self, lost: Option<String>) {
        self.inner().status.api_lost = lost;
    }

    /// Changes what is known of the peers, and judges [`Condition::Peers`] by it.
    pub fn peers(&self, change: impl FnOnce(&mut BTreeMap<String, Peer>)) {
        let mut inner = self.inner();
        change(&mut inner.status.peers);
        let state = judge_peers(&inner.status.peers);
        set(&mut inner.status, Condition::Peers, state);
        judge(&mut inner.status);
    }

    /// Something a person should know under this title; none takes it back.
    pub fn note(&self, title: &'static str, text: Option<String>) {
        let notes = &mut self.inner().status.notes;
        match text {
            Some(text) => _ = notes.insert(title, text),
            None => _ = notes.remove(title),
        }
    }

    /// The main loop is alive.
    pub fn beat(&self) {
        self.inner().beat = Instant::now();
    }

    /// How long the main loop has said nothing.
    pub fn silent_for(&self) -> Duration {
        self.inner().beat.elapsed()
    }

    /// As if the main loop had said nothing for so long.
    #[cfg(test)]
    pub(crate) fn silence(&self, long: Duration) {
        let mut inner = self.inner();
        if let Some(beat) = inner.beat.checked_sub(long) {
            inner.beat = beat;
        }
    }

    /// Whether a condition is met.
    pub fn is_met(&self, condition: Condition) -> bool {
        self.inner().status.state(condition).met
    }

    /// All of it as it is now.
    pub fn status(&self) -> Status {
        self.inner().status.clone()
    }
}

fn set(status: &mut Status, condition: Condition, state: Result<String, String>) -> bool {
    let entry = &mut status.conditions[condition as usize];
    let met = state.is_ok();
    let reason = state.unwrap_or_else(|problem| problem);
    let changed = entry.since.is_none() || entry.met != met || entry.reason != reason;
    if entry.since.is_none() || entry.met != met {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        entry.since = Some(now.as_secs());
    }
    (entry.met, entry.reason) = (met, reason);
    changed
}

fn judge(status: &mut Status) {
    status.ready = status.conditions.iter().all(|it| it.met);
}

/// Whether all peers answer that have to. A node without peers has nothing to prove.
fn judge_peers(peers: &BTreeMap<String, Peer>) -> Result<String, String> {
    let (ready, down): (Vec<_>, Vec<_>) = peers.iter().partition(|(_, peer)| peer.node_ready);
    let bad =
        ready.iter().filter_map(|(name, peer)| peer.problem().map(|problem| format!("{name}: {problem}")));
    let bad: Vec<String> = bad.collect();
    if !bad.is_empty() {
        return Err(bad.join("; "));
    }
    let silent: Vec<&str> =
        down.iter().filter(|(_, peer)| peer.problem().is_some()).map(|(name, _)| name.as_str()).collect();
    let more = match silent.as_slice() {
        [] => String::new(),
        silent => format!("; not waited for, as their Nodes are not Ready: {}", silent.join(", ")),
    };
    Ok(format!("{} of {} answer{more}", peers.len() - silent.len(), peers.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node_ready: bool, probes: &[Option<&str>]) -> Peer {
        let address = IpAddr::from([10, 0, 0, 1]);
        let probes = probes.iter().map(|problem| Probe {
            from: address,
            to: address,
            problem: problem.map(str::to_owned),
        });
        Peer { node_ready, paths: Vec::new(), probes: probes.collect() }
    }

    fn all_but_peers(board: &Board) {
        for condition in Condition::ALL {
            if condition != Condition::Peers {
                board.report(condition, Ok("fine".to_owned()));
            }
        }
    }

    #[test]
    fn an_agent_is_ready_when_every_condition_was_looked_at_and_met() {
        let board = Board::new("node1");
        all_but_peers(&board);
        assert!(!board.status().ready, "nobody has looked for peers yet");
        assert_eq!(board.status().failing().count(), 1);
        board.peers(|_| {});
        assert!(board.status().ready, "a node alone has nothing to prove");
        for condition in Condition::ALL {
            board.report(condition, Err("broken".to_owned()));
            let status = board.status();
            assert!(!status.ready);
            let failing: Vec<_> = status.failing().map(|it| (it.condition, it.reason.as_str())).collect();
            assert_eq!(failing, [(condition, "broken")]);
            board.report(condition, Ok("fine".to_owned()));
            assert!(board.status().ready);
        }
    }

    #[test]
    fn a_peer_counts_while_its_node_is_ready() {
        let board = Board::new("node1");
        let judged = |peers: &[(&str, Peer)]| {
            let peers = peers.to_vec();
            board.peers(|all| {
                *all = peers.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect()
            });
            let state = board.status().state(Condition::Peers).clone();
            (state.met, state.reason)
        };
        let (met, reason) =
            judged(&[("a", peer(true, &[None, None])), ("b", peer(true, &[None, Some("timed out")]))]);
        assert!(!met);
        assert_eq!(reason, "b: 10.0.0.1 > 10.0.0.1: timed out");
        let (met, reason) = judged(&[("a", peer(true, &[None])), ("b", peer(false, &[Some("timed out")]))]);
        assert!(met);
        assert_eq!(reason, "1 of 2 answer; not waited for, as their Nodes are not Ready: b");
        let (met, reason) = judged(&[("a", peer(true, &[]))]);
        assert!(!met, "a peer that was not probed proves nothing: {reason}");
    }

    #[test]
    fn since_is_when_it_turned_and_not_when_its_reason_changed() {
        let board = Board::new("node1");
        assert!(board.report(Condition::Routes, Err("one".to_owned())));
        board.inner().status.conditions[Condition::Routes as usize].since = Some(5);
        assert!(board.report(Condition::Routes, Err("two".to_owned())));
        assert!(!board.report(Condition::Routes, Err("two".to_owned())));
        assert_eq!(board.status().state(Condition::Routes).since, Some(5));
        assert!(board.report(Condition::Routes, Ok("three".to_owned())));
        assert_ne!(board.status().state(Condition::Routes).since, Some(5));
    }

    #[test]
    fn every_condition_stands_at_its_own_place() {
        let status = Board::new("node1").status();
        for condition in Condition::ALL {
            assert_eq!(status.state(condition).condition, condition);
            assert_eq!(serde_json::to_value(condition).unwrap(), condition.name());
        }
    }
}
