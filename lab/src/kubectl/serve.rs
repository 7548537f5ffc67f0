//! Services on both sides: what `expose`, `create service` and `patch` say, and what becomes of it.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use ipnetwork::Ipv4Network;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Lab as Remote;
use super::parse::{CreateArgs, ExposeArgs, one};
use super::server::check_name;
use super::{Ask, Kind, Wanted, server_error};
use crate::cluster::Cluster;
use crate::controller::work::Order;
use crate::exit::{self, Failure};
use crate::labels::{self, Labels};
use crate::modes::Selected;
use crate::output;
use crate::services;
use crate::services::model::{
    BALANCERS, NODE_PORTS, Service, ServicePort, ServiceType, TrafficPolicy, Transport, free_balancer,
    free_node_port, free_service_address,
};
use crate::supervisor::Lab;
use crate::topology::Ranges;

/// `kubectl expose`.
pub(super) fn expose(lab: &Remote, args: ExposeArgs) -> Result<u8, Failure> {
    let (kind, name) = one(&args.what)?;
    let selector = args.selector.as_deref().map(labels::parse).transpose().map_err(Failure::usage)?;
    let wanted = Wanted {
        from: Some((kind, name.clone())),
        kind: args.kind,
        port: args.port,
        target_port: args.target_port,
        protocol: args.protocol,
        selector,
        cluster_ip: args.cluster_ip,
        balancer: args.load_balancer_ip,
        has_affinity: affinity(args.session_affinity.as_deref().unwrap_or("None"))?,
        ..Wanted::default()
    };
    let name = args.name.unwrap_or(name);
    lab.order(Ask::Serve { name: name.clone(), wanted: Box::new(wanted) })?;
    output::print(&format!("{}/{name} exposed\n", Kind::Service))?;
    Ok(exit::OK)
}

/// `kubectl create service`.
pub(super) fn create_line(lab: &Remote, args: CreateArgs) -> Result<u8, Failure> {
    let number =
        |text: &str| text.parse::<u16>().map_err(|err| Failure::usage(format!("port {text:?}: {err}")));
    let (port, target_port) =
        match args.tcp.as_deref().map(|text| text.split_once(':').unwrap_or((text, text))) {
            Some((port, target)) => (Some(number(port)?), Some(number(target)?)),
            None => (None, None),
        };
    let name = args.name;
    let wanted = Wanted {
        kind: args.kind,
        port,
        target_port,
        node_port: args.node_port,
        selector: Some([("app".to_owned(), name.clone())].into()),
        external_name: args.external_name,
        ..Wanted::default()
    };
    lab.order(Ask::Serve { name: name.clone(), wanted: Box::new(wanted) })?;
    output::print(&format!("{}/{name} created\n", Kind::Service))?;
    Ok(exit::OK)
}

fn affinity(word: &str) -> Result<bool, Failure> {
    match word {
        "ClientIP" => Ok(true),
        "None" => Ok(false),
        other => Err(invalid(&format!("sessionAffinity: {other:?}: there are ClientIP and None"))),
    }
}

fn invalid(text: &str) -> Failure {
    server_error("Invalid", text)
}

/// Makes the service that is wanted.
pub(super) fn create(lab: &Lab, name: String, wanted: Wanted) -> Result<Value, Failure> {
    check_name(Kind::Service, &name)?;
    {
        let mut cluster = lab.cluster_mut();
        possible(&cluster.ranges, &cluster.mode)?;
        if cluster.objects.service(&name).is_some() {
            return Err(Kind::Service.exists(&name));
        }
        let exposed = match &wanted.from {
            Some((kind, name)) => exposed(&cluster, *kind, name)?,
            None => Exposed::default(),
        };
        let range = cluster.ranges.services;
        let service = resolve(name, wanted, exposed, &cluster.objects.services, range)?;
        cluster.objects.services.push(service);
    }
    Ok(json!({ "warnings": lab.orders.carry_out(Order::Reconcile) }))
}

/// Whether there can be services at all.
///
/// # Errors
/// The lab has no IPv4, or no node that its pods' packets pass, where addresses could be rewritten.
pub(crate) fn possible(ranges: &Ranges, mode: &Selected) -> Result<(), Failure> {
    if !ranges.has_services() {
        let words = "services are IPv4's, and the lab has IPv6 only · try: podlab up --ip-family dual";
        return Err(Failure::usage(words));
    }
    if mode.on_lan() {
        let words =
            format!("mode {mode} has no services: packets of pods pass no node that could rewrite them");
        return Err(Failure::usage(format!("{words} · try: another mode")));
    }
    Ok(())
}

/// What the object that is exposed says: the pods' labels, its own, the declared port.
type Exposed = (Labels, Labels, Option<u16>);

fn exposed(cluster: &Cluster, kind: Kind, name: &str) -> Result<Exposed, Failure> {
    match kind {
        Kind::ReplicationController => {
            let found = cluster.objects.controller(name).ok_or_else(|| kind.not_found(name))?;
            Ok((found.selector.clone(), found.labels.clone(), found.template.port))
        }
        Kind::Pod => {
            let meta = &cluster.pod(name).ok_or_else(|| kind.not_found(name))?.meta;
            Ok((meta.labels.clone(), meta.labels.clone(), meta.port))
        }
        other => Err(Failure::usage(format!("cannot expose a {other}"))),
    }
}

/// The service that is wanted, with an address of `range`, beside others.
///
/// # Errors
/// What it cannot be.
fn resolve(
    name: String,
    wanted: Wanted,
    (selector, own, declared): Exposed,
    others: &[Service],
    range: Ipv4Network,
) -> Result<Service, Failure> {
    let selector = wanted.selector.unwrap_or(selector);
    let mut service = Service {
        labels: if own.is_empty() { selector.clone() } else { own },
        name,
        selector,
        kind: wanted.kind,
        cluster_ip: None,
        balancer: None,
        external_name: wanted.external_name,
        port: None,
        has_affinity: wanted.has_affinity,
        policy: TrafficPolicy::Cluster,
        created: SystemTime::now(),
    };
    if wanted.kind == ServiceType::ExternalName {
        if service.external_name.is_none() {
            return Err(invalid("spec.externalName: a service of this type needs it"));
        }
        service.selector.clear();
        return Ok(service);
    }
    let port = wanted
        .port
        .or(declared)
        .ok_or_else(|| Failure::new(exit::FAILED, "couldn't find port via --port flag or introspection"))?;
    let target_port = wanted.target_port.unwrap_or(port);
    if port == 0 || target_port == 0 {
        return Err(invalid("spec.ports: a port is 1 to 65535"));
    }
    service.port =
        Some(ServicePort { protocol: wanted.protocol, port, target_port, node_port: wanted.node_port });
    let none = |what: &str| server_error("Invalid", &format!("{what} are all taken"));
    service.cluster_ip = match wanted.cluster_ip {
        Some(address) => Some(own_address(address, range, others.iter().filter_map(|it| it.cluster_ip))?),
        None => Some(free_service_address(range, others).ok_or_else(|| none("addresses of services"))?),
    };
    complete(&mut service, others, wanted.balancer)?;
    Ok(service)
}

/// Checks a service that belongs to a topology, beside those before it.
///
/// # Errors
/// What it cannot be.
pub(crate) fn check(
    name: &str,
    wanted: &Wanted,
    others: &mut Vec<Service>,
    range: Ipv4Network,
) -> Result<(), Failure> {
    check_name(Kind::Service, name)?;
    if others.iter().any(|other| other.name == name) {
        return Err(Kind::Service.exists(name));
    }
    let service = resolve(name.to_owned(), wanted.clone(), Exposed::default(), others, range)?;
    others.push(service);
    Ok(())
}

fn own_address(
    address: Ipv4Addr,
    range: Ipv4Network,
    taken: impl Iterator<Item = Ipv4Addr>,
) -> Result<Ipv4Addr, Failure> {
    let taken: Vec<Ipv4Addr> = taken.collect();
    match range.contains(address) && !taken.contains(&address) {
        true => Ok(address),
        false => Err(invalid(&format!("spec.clusterIP: {address} is taken, or not of {range}"))),
    }
}

/// Gives a service what its type has, and takes away what it has not.
fn complete(service: &mut Service, others: &[Service], balancer: Option<Ipv4Addr>) -> Result<(), Failure> {
    let none = |what: &str| invalid(&format!("{what} are all taken"));
    if let Some(port) = &mut service.port {
        port.node_port = match (service.kind.has_node_port(), port.node_port) {
            (false, _) => None,
            (true, Some(asked)) => {
                let is_taken = others.iter().filter_map(|it| it.port).any(|it| it.node_port == Some(asked));
                if !NODE_PORTS.contains(&asked) || is_taken {
                    let (least, most) = (NODE_PORTS.start(), NODE_PORTS.end());
                    return Err(invalid(&format!(
                        "nodePort: {asked} is taken, or not from {least} to {most}"
                    )));
                }
                Some(asked)
            }
            (true, None) => Some(free_node_port(others).ok_or_else(|| none("ports of nodes"))?),
        };
    }
    service.balancer = match (service.kind, balancer.or(service.balancer)) {
        (ServiceType::LoadBalancer, Some(asked)) => {
            let is_taken = others.iter().any(|it| it.balancer == Some(asked));
            if !BALANCERS.contains(asked) || is_taken {
                return Err(invalid(&format!("loadBalancerIP: {asked} is taken, or not of {BALANCERS}")));
            }
            Some(asked)
        }
        (ServiceType::LoadBalancer, None) => {
            Some(free_balancer(others).ok_or_else(|| none("addresses of load balancers"))?)
        }
        _ => None,
    };
    Ok(())
}

/// A patch: `{"spec": …}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    spec: Value,
}

/// The fields of a service that can be changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServicePatch {
    #[serde(rename = "type")]
    kind: Option<ServiceType>,
    selector: Option<Labels>,
    session_affinity: Option<String>,
    external_traffic_policy: Option<TrafficPolicy>,
    external_name: Option<String>,
    ports: Option<Vec<PortPatch>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PortPatch {
    port: Option<u16>,
    target_port: Option<u16>,
    node_port: Option<u16>,
    protocol: Option<Transport>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerPatch {
    replicas: u32,
}

/// Changes fields of an object's `spec`.
pub(super) fn patch(lab: &Lab, kind: Kind, name: &str, patch: Value) -> Result<Value, Failure> {
    fn read<T: for<'a> Deserialize<'a>>(value: Value) -> Result<T, Failure> {
        serde_json::from_value(value).map_err(|err| server_error("BadRequest", &err.to_string()))
    }
    let Patch { spec } = read(patch)?;
    {
        let mut cluster = lab.cluster_mut();
        let objects = &mut cluster.objects;
        match kind {
            Kind::ReplicationController => {
                let found = objects.controllers.iter_mut().find(|it| it.name == name);
                found.ok_or_else(|| kind.not_found(name))?.replicas = read::<ControllerPatch>(spec)?.replicas;
            }
            Kind::Service => {
                let at = objects.services.iter().position(|it| it.name == name);
                let at = at.ok_or_else(|| kind.not_found(name))?;
                let others: Vec<Service> =
                    objects.services.iter().filter(|it| it.name != name).cloned().collect();
                objects.services[at] = patched(objects.services[at].clone(), &others, read(spec)?)?;
            }
            other => return Err(Failure::usage(format!("a lab does not patch a {other}"))),
        }
    }
    let mut warnings = lab.orders.carry_out(Order::Reconcile);
    if kind == Kind::Service {
        // What was refused a moment ago is not led there again.
        let forgotten = services::forget_connections(&lab.cluster(), name);
        warnings.extend(forgotten.err().map(|err| format!("connections to {name}: {err:#}")));
    }
    Ok(json!({ "warnings": warnings }))
}

fn patched(mut service: Service, others: &[Service], patch: ServicePatch) -> Result<Service, Failure> {
    let is_name = |kind| kind == ServiceType::ExternalName;
    if let Some(kind) = patch.kind {
        if is_name(kind) != is_name(service.kind) {
            return Err(invalid("spec.type: a name does not become an address, or the other way round"));
        }
        service.kind = kind;
    }
    service.selector = patch.selector.unwrap_or(service.selector);
    service.external_name = patch.external_name.or(service.external_name);
    service.policy = patch.external_traffic_policy.unwrap_or(service.policy);
    if let Some(word) = patch.session_affinity {
        service.has_affinity = affinity(&word)?;
    }
    match (patch.ports.as_deref(), &mut service.port) {
        (None, _) => {}
        (Some([change]), Some(port)) => {
            port.port = change.port.unwrap_or(port.port);
            port.target_port = change.target_port.unwrap_or(port.target_port);
            port.node_port = change.node_port.or(port.node_port);
            port.protocol = change.protocol.unwrap_or(port.protocol);
        }
        _ => return Err(invalid("spec.ports: a service of a lab has one port")),
    }
    complete(&mut service, others, None)?;
    Ok(service)
}
