//! The supervisor's side of `podlab kubectl`: orders become changes of the wanted state, which the controller loop
//! carries out; questions become objects.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::objects::CONTAINERS;
use super::{Ask, Kind, objects, serve, server_error};
use crate::cluster::{Cluster, PodMeta};
use crate::controller::work::Order;
use crate::controller::{ReplicationController, Template};
use crate::exit::{self, Failure};
use crate::labels::{Labels, Selector};
use crate::services::backed;
use crate::supervisor::Lab;

/// Does what is asked. The answer has the objects as `items`, and as `warnings` what went wrong on the way.
///
/// # Errors
/// In the API server's words.
pub fn answer(lab: &Lab, ask: Ask) -> Result<Value, Failure> {
    match ask {
        Ask::Run { name, image, port, labels, replicas, containers } => {
            let labels = if labels.is_empty() { [("run".to_owned(), name.clone())].into() } else { labels };
            let containers = containers.unwrap_or(CONTAINERS.map(str::to_owned));
            let template = Template { labels, image, port, containers };
            match replicas {
                Some(replicas) => run_controlled(lab, name, replicas, template),
                None => run_alone(lab, name, template),
            }
        }
        Ask::Get { kind, names, selector } => {
            let cluster = lab.cluster();
            let chosen = chosen(&cluster, kind, &names, selector.as_deref())?;
            Ok(json!({ "items": chosen }))
        }
        Ask::Scale { name, replicas, current } => scale(lab, &name, replicas, current),
        Ask::Delete { kind, names, selector } => delete(lab, kind, &names, selector.as_deref()),
        Ask::Label { name, labels, overwrite } => label(lab, &name, labels, overwrite),
        Ask::Serve { name, wanted } => serve::create(lab, name, *wanted),
        Ask::Patch { kind, name, patch } => serve::patch(lab, kind, &name, patch),
        Ask::Logs { name } => {
            let cluster = lab.cluster();
            let pod = cluster.pod(&name).ok_or_else(|| Kind::Pod.not_found(&name))?;
            let path = &pod.containers.kubia_log;
            let text = std::fs::read_to_string(path)
                .map_err(|err| Failure::new(exit::FAILED, format!("log of {name}: {err}")))?;
            Ok(json!({ "text": text }))
        }
    }
}

/// The names of RFC 1123, section 2.1, as Kubernetes wants them.
pub(crate) fn check_name(kind: Kind, name: &str) -> Result<(), Failure> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends_well = !name.starts_with('-') && !name.ends_with('-');
    match !name.is_empty() && name.len() <= 57 && name.chars().all(fine) && ends_well {
        true => Ok(()),
        false => Err(server_error(
            "Invalid",
            &format!("{} {name:?}: a name is 1 to 57 lower-case letters, digits and '-'", kind.singular()),
        )),
    }
}

fn run_controlled(lab: &Lab, name: String, replicas: u32, template: Template) -> Result<Value, Failure> {
    let kind = Kind::ReplicationController;
    check_name(kind, &name)?;
    {
        let mut cluster = lab.cluster_mut();
        if cluster.objects.controller(&name).is_some() {
            return Err(kind.exists(&name));
        }
        cluster.objects.controllers.push(ReplicationController {
            labels: template.labels.clone(),
            selector: template.labels.clone(),
            created: SystemTime::now(),
            name,
            replicas,
            template,
        });
    }
    Ok(json!({ "warnings": lab.orders.carry_out(Order::Reconcile) }))
}

fn run_alone(lab: &Lab, name: String, template: Template) -> Result<Value, Failure> {
    check_name(Kind::Pod, &name)?;
    if lab.cluster().space(&name).is_some() {
        return Err(Kind::Pod.exists(&name));
    }
    let Template { labels, image, port, containers } = template;
    let meta = PodMeta { labels, owner: None, image, port, containers, created: SystemTime::now() };
    Ok(json!({ "warnings": lab.orders.carry_out(Order::AddPod(name, meta)) }))
}

fn scale(lab: &Lab, name: &str, replicas: u32, current: Option<u32>) -> Result<Value, Failure> {
    {
        let mut cluster = lab.cluster_mut();
        let controllers = &mut cluster.objects.controllers;
        let found = controllers.iter_mut().find(|controller| controller.name == name);
        let controller = found.ok_or_else(|| Kind::ReplicationController.not_found(name))?;
        if let Some(current) = current.filter(|current| *current != controller.replicas) {
            let text = format!("Expected replicas to be {current}, was {}", controller.replicas);
            return Err(Failure::new(exit::FAILED, text));
        }
        controller.replicas = replicas;
    }
    Ok(json!({ "warnings": lab.orders.carry_out(Order::Reconcile) }))
}

fn label(
    lab: &Lab,
    name: &str,
    labels: Vec<(String, Option<String>)>,
    overwrite: bool,
) -> Result<Value, Failure> {
    {
        let mut cluster = lab.cluster_mut();
        let found = cluster.pods.iter_mut().find(|pod| pod.space.name == name);
        let own = &mut found.ok_or_else(|| Kind::Pod.not_found(name))?.meta.labels;
        for (key, value) in &labels {
            let differs = |old: &String| value.as_ref().is_some_and(|new| new != old);
            if let Some(old) = own.get(key).filter(|old| differs(old) && !overwrite) {
                let text = format!("'{key}' already has a value ({old}), and --overwrite is false");
                return Err(Failure::new(exit::FAILED, text));
            }
        }
        for (key, value) in labels {
            match value {
                Some(value) => own.insert(key, value),
                None => own.remove(&key),
            };
        }
    }
    Ok(json!({ "warnings": lab.orders.carry_out(Order::Reconcile) }))
}

fn delete(lab: &Lab, kind: Kind, names: &[String], selector: Option<&str>) -> Result<Value, Failure> {
    if names.is_empty() && selector.is_none() {
        return Err(Failure::usage("resource(s) were provided, but no name was specified"));
    }
    let (chosen, missing) = {
        let cluster = lab.cluster();
        let (there, missing): (Vec<String>, Vec<String>) = names
            .iter()
            .cloned()
            .partition(|name| chosen(&cluster, kind, std::slice::from_ref(name), None).is_ok());
        let chosen = match selector {
            Some(selector) => names_of(&chosen(&cluster, kind, &[], Some(selector))?),
            None => there,
        };
        (chosen, missing)
    };
    let warnings = match kind {
        Kind::Pod => lab.orders.carry_out(Order::DeletePods(chosen.clone())),
        Kind::ReplicationController => {
            let gone = |name: &String| chosen.contains(name);
            lab.cluster_mut().objects.controllers.retain(|controller| !gone(&controller.name));
            lab.orders.carry_out(Order::Reconcile)
        }
        Kind::Service => {
            lab.cluster_mut().objects.services.retain(|service| !chosen.contains(&service.name));
            lab.orders.carry_out(Order::Reconcile)
        }
        Kind::Node | Kind::Namespace | Kind::Endpoints => {
            return Err(server_error("Forbidden", &format!("{} of a lab stay", kind.plural())));
        }
    };
    let missing: Vec<String> = missing.iter().map(|name| kind.not_found(name).text).collect();
    Ok(json!({ "deleted": chosen, "missing": missing, "warnings": warnings }))
}

fn names_of(items: &[Value]) -> Vec<String> {
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect()
}

/// The objects of a kind that are meant, in the order in which they were made.
fn chosen(
    cluster: &Cluster,
    kind: Kind,
    names: &[String],
    selector: Option<&str>,
) -> Result<Vec<Value>, Failure> {
    let selector: Selector = selector.unwrap_or_default().parse().map_err(Failure::usage)?;
    let all = every(cluster, kind);
    if names.is_empty() {
        let fits = |item: &Value| {
            let labels: Labels =
                serde_json::from_value(item["metadata"]["labels"].clone()).unwrap_or_default();
            selector.fits(&labels)
        };
        return Ok(all.into_iter().filter(fits).collect());
    }
    let find = |name: &String| {
        let found = all.iter().find(|item| item["metadata"]["name"] == name.as_str());
        found.cloned().ok_or_else(|| kind.not_found(name))
    };
    names.iter().map(find).collect()
}

fn every(cluster: &Cluster, kind: Kind) -> Vec<Value> {
    let since = cluster.objects.since;
    match kind {
        Kind::Pod => cluster.pods.iter().map(|pod| objects::pod(cluster, pod)).collect(),
        Kind::ReplicationController => {
            cluster.objects.controllers.iter().map(|it| objects::controller(cluster, it)).collect()
        }
        Kind::Service => backed(cluster).iter().map(|it| objects::service(cluster, it)).collect(),
        Kind::Endpoints => {
            let all = backed(cluster);
            let real = all.iter().filter(|it| it.service.cluster_ip.is_some());
            real.map(|it| objects::endpoints(cluster, it)).collect()
        }
        Kind::Node => cluster.nodes.iter().map(|node| objects::node(cluster, node, since)).collect(),
        Kind::Namespace => vec![objects::namespace(cluster, since)],
    }
}
