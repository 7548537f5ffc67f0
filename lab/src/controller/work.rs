//! The controller loop: one thread of the supervisor that makes and ends pods until what is there is what is wanted.
//!
//! Everything that changes pods or services goes through it, one order after the other, and whoever gave the order
//! waits until the lab has come to rest. A pod that could not be made is tried again, after a while that doubles.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::cluster::{Cluster, Pod, PodMeta};
use crate::controller::{Action, Seen, Template, reconcile};
use crate::modes::Told;
use crate::objects::Incident;
use crate::services::Dataplane;
use crate::services::dns::SharedZone;
use crate::supervisor::Lab;

/// How long the first failure makes the loop wait, and the longest that it waits.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the loop is told.
#[derive(Debug)]
pub enum Order {
    /// Something is wanted that was not before; whatever is missing is made.
    Reconcile,
    /// These pods go, whoever owns them.
    DeletePods(Vec<String>),
    /// A pod of nobody's.
    AddPod(String, PodMeta),
}

/// An order and where the troubles are told that came of it.
type Message = (Order, Sender<Vec<String>>);

/// Where orders are given.
#[derive(Debug)]
pub struct Orders(Mutex<Sender<Message>>);

impl Orders {
    /// For the other end of the loop's channel.
    pub fn new(sender: Sender<Message>) -> Self {
        Self(Mutex::new(sender))
    }

    /// Gives an order and waits until the lab has come to rest; what went wrong is returned. The caller must not look
    /// at the cluster meanwhile.
    pub fn carry_out(&self, order: Order) -> Vec<String> {
        let (done, troubles) = channel();
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner).send((order, done));
        let gone = || vec!["the controller loop has ended".to_owned()];
        if sent.is_err() { gone() } else { troubles.recv().unwrap_or_else(|_| gone()) }
    }
}

/// Starts the loop, which keeps the names of services too. It ends with the supervisor.
pub fn start(lab: &Arc<Lab>, zone: SharedZone, orders: Receiver<Message>) {
    let lab = Arc::clone(lab);
    std::thread::spawn(move || {
        let mut plane = Dataplane::of(zone);
        let mut wait = Duration::MAX;
        loop {
            let message = match wait {
                Duration::MAX => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                wait => orders.recv_timeout(wait),
            };
            let troubles = match message {
                Ok((order, done)) => {
                    let troubles = obey(&lab, &mut plane, order);
                    // Whoever asked may have gone.
                    let _ = done.send(troubles.clone());
                    troubles
                }
                Err(RecvTimeoutError::Timeout) => settle(&lab, &mut plane),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            wait = match (troubles.is_empty(), wait) {
                (true, _) => Duration::MAX,
                (false, Duration::MAX) => WAIT.0,
                (false, wait) => (wait * 2).min(WAIT.1),
            };
        }
    });
}

fn obey(lab: &Lab, plane: &mut Dataplane, order: Order) -> Vec<String> {
    let mut troubles = match order {
        Order::Reconcile => Vec::new(),
        Order::DeletePods(pods) => delete(lab, plane, &pods),
        Order::AddPod(name, meta) => add(lab, &name, meta).err().into_iter().collect(),
    };
    troubles.extend(settle(lab, plane));
    troubles
}

/// Carries out actions until there are none, and has services follow; a controller whose pod could not be made gets no
/// more this time.
fn settle(lab: &Lab, plane: &mut Dataplane) -> Vec<String> {
    let mut troubles: Vec<String> = Vec::new();
    let mut failing: Vec<String> = Vec::new();
    loop {
        let actions = wanted(&lab.cluster());
        let is_possible =
            |action: &Action| !matches!(action, Action::Add { controller } if failing.contains(controller));
        let Some(action) = actions.iter().find(|action| is_possible(action)) else { break };
        match action.clone() {
            Action::Add { controller } => {
                if let Err(trouble) = add_of(lab, &controller) {
                    failing.push(controller);
                    troubles.push(trouble);
                }
            }
            // All that go, at once: services are changed once for all of them.
            Action::Delete { .. } => {
                let mut names = Vec::new();
                for action in actions {
                    if let Action::Delete { pod, controller } = action {
                        note(
                            lab,
                            format!("rc/{controller}"),
                            "SuccessfulDelete",
                            format!("Deleted pod: {pod}"),
                        );
                        names.push(pod);
                    }
                }
                troubles.extend(delete(lab, plane, &names));
            }
            Action::Adopt { pod, controller } => own(&mut lab.cluster_mut(), &pod, Some(controller)),
            Action::Release { pod, .. } => own(&mut lab.cluster_mut(), &pod, None),
        }
    }
    let cluster = lab.cluster();
    troubles.extend(plane.sync(&cluster));
    troubles.extend(cluster.mode.tell(&mut cluster.told()).err().map(|err| format!("{err:#}")));
    troubles
}

fn wanted(cluster: &Cluster) -> Vec<Action> {
    fn see(pod: &Pod) -> Seen<'_> {
        Seen { name: &pod.space.name, labels: &pod.meta.labels, owner: pod.meta.owner.as_deref() }
    }
    reconcile(&cluster.objects.controllers, &cluster.pods.iter().map(see).collect::<Vec<_>>())
}

fn own(cluster: &mut Cluster, name: &str, owner: Option<String>) {
    if let Some(pod) = cluster.pods.iter_mut().find(|pod| pod.space.name == name) {
        pod.meta.owner = owner;
    }
}

/// One pod of a controller.
fn add_of(lab: &Lab, controller: &str) -> Result<(), String> {
    let (name, meta) = {
        let mut cluster = lab.cluster_mut();
        let Some(found) = cluster.objects.controller(controller) else { return Ok(()) };
        let template = found.template.clone();
        let mut name = cluster.objects.names.next(controller);
        while cluster.space(&name).is_some() {
            name = cluster.objects.names.next(controller);
        }
        let owner = Some(controller.to_owned());
        let Template { labels, image, port, containers } = template;
        (name, PodMeta { labels, owner, image, port, containers, created: SystemTime::now() })
    };
    let made = add(lab, &name, meta);
    if made.is_ok() {
        note(lab, format!("rc/{controller}"), "SuccessfulCreate", format!("Created pod: {name}"));
    }
    made
}

/// A pod on the node that has the fewest.
fn add(lab: &Lab, name: &str, meta: PodMeta) -> Result<(), String> {
    let object = format!("pod/{name}");
    let cluster = lab.cluster();
    let mut load: HashMap<usize, usize> = HashMap::new();
    cluster.pods.iter().for_each(|pod| *load.entry(pod.node).or_default() += 1);
    let pods_on = |node: &usize| load.get(node).copied().unwrap_or(0);
    let chosen =
        (0..cluster.nodes.len()).min_by_key(pods_on).filter(|node| pods_on(node) < lab.topology.most_pods());
    let Some(index) = chosen else {
        drop(cluster);
        let message = format!("0/{} nodes are available: Too many pods.", lab.topology.nodes.len());
        warn(lab, object, "FailedScheduling", &message);
        return Err(format!("pod {name:?}: {message}"));
    };
    let node_name = cluster.nodes[index].space.name.clone();
    let to_come = Told::to_come(&cluster.nodes[index], name.to_owned(), &meta);
    let told = cluster.mode.tell(&mut cluster.told().chain([to_come]));
    drop(cluster);
    let begun = Instant::now();
    let made = told.and_then(|()| lab.agent(index, |agent| agent.add(index, name)));
    match made {
        Ok(pod) => {
            let pod = Pod { meta, ..pod };
            let (image, containers) = (pod.meta.image.clone(), pod.meta.containers.join(" and "));
            let address = pod.addresses.first().map(ToString::to_string).unwrap_or_default();
            lab.cluster_mut().pods.push(pod);
            let told = [
                ("Scheduled", format!("Successfully assigned default/{name} to {node_name}")),
                (
                    "AddedInterface",
                    format!("Add eth0 [{address}] by CNI ADD in {} ms", begun.elapsed().as_millis()),
                ),
                ("Pulled", format!("Container image {image:?} already present on machine")),
                ("Started", format!("Started containers {containers}")),
            ];
            for (reason, message) in told {
                note(lab, object.clone(), reason, message);
            }
            Ok(())
        }
        Err(err) => {
            warn(lab, object, "FailedCreatePodSandBox", &format!("{err:#}"));
            Err(format!("{err:#}"))
        }
    }
}

/// Ends pods, which by then are no endpoints of a service any more; one that is gone already is no trouble.
fn delete(lab: &Lab, plane: &mut Dataplane, names: &[String]) -> Vec<String> {
    let taken: Vec<Pod> = {
        let mut cluster = lab.cluster_mut();
        cluster.pods.extract_if(.., |pod| names.contains(&pod.space.name)).collect()
    };
    if taken.is_empty() {
        return Vec::new();
    }
    let mut troubles = plane.sync(&lab.cluster());
    for pod in taken {
        let ended = lab.agent(pod.node, |agent| agent.remove(&pod.space.name));
        troubles.extend(ended.unwrap_or_else(|err| vec![format!("{err:#}")]));
    }
    troubles
}

fn note(lab: &Lab, object: String, reason: &'static str, message: String) {
    let from = match reason {
        "Scheduled" => "default-scheduler",
        "AddedInterface" => "cni",
        "SuccessfulCreate" | "SuccessfulDelete" => "replication-controller",
        _ => "kubelet",
    };
    let incident = Incident { at: SystemTime::now(), object, is_warning: false, reason, from, message };
    lab.cluster_mut().objects.note(incident);
}

fn warn(lab: &Lab, object: String, reason: &'static str, message: &str) {
    let from = if reason == "FailedScheduling" { "default-scheduler" } else { "kubelet" };
    let message = message.lines().next().unwrap_or_default().to_owned();
    let incident = Incident { at: SystemTime::now(), object, is_warning: true, reason, from, message };
    lab.cluster_mut().objects.note(incident);
}
