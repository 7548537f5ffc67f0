//! `podlab up`.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::{Style, UpArgs};
use crate::capsule;
use crate::exit::{self, Failure};
use crate::output::{self, Format, Steps};
use crate::topology::{Cni, Host, Nodes, OneOrMany, Topology, Written};

/// The schema of the document that describes a lab that is up.
const SCHEMA: &str = "podlab.lab/1";
/// And of the one that describes a lab that is not made.
const PLAN_SCHEMA: &str = "podlab.plan/1";

pub(super) fn up(args: UpArgs, style: Style) -> Result<u8, Failure> {
    let start = Instant::now();
    let (detach, dry_run) = (args.detach, args.dry_run);
    let file = args.file.as_deref().map(read).transpose()?.unwrap_or_default();
    let line = Written {
        name: args.name,
        nodes: args.nodes.map(Nodes::Count),
        pods: args.pods,
        racks: args.racks,
        mode: args.mode,
        ip_family: args.ip_family,
        pod_cidr: args.pod_cidr,
        service_cidr: args.service_cidr,
        cni: Cni {
            dir: args.cni_bin.map(OneOrMany::Many),
            conf: args.cni_conf,
            ip_masq: args.ip_masq.then_some(true),
        },
        seed: args.seed,
        ..Written::default()
    };
    let mut topology = file.overridden_by(line).resolve()?;
    for dir in &mut topology.cni_bin {
        // The capsule has another current directory and another view of some others.
        *dir = dir.canonicalize().map_err(|err| Failure::usage(format!("{}: {err}", dir.display())))?;
    }
    if dry_run {
        return describe(&topology, style);
    }
    let steps = Steps::new(style.quiet);
    let mut lab = capsule::launch(&topology, detach)?;
    let mut summary = lab.wait_until_up(&mut |text, ms| steps.done(text, ms))?;
    let ms = start.elapsed().as_millis() as u64;
    summary["schema"] = SCHEMA.into();
    summary["ms"] = ms.into();
    let name = &topology.name;
    let on = if name == "demo" { String::new() } else { format!(" --name {name}") };
    match style.format {
        Format::Json => output::print_json(&summary)?,
        Format::Table if style.quiet => output::print(&format!("{name}\n"))?,
        Format::Table => output::print(&format!(
            "lab {name} is up in {}.{:02} s · podlab verify{on} · podlab down{on}\n",
            ms / 1000,
            ms % 1000 / 10
        ))?,
    }
    if !detach {
        steps.done("until Ctrl-C or podlab down", 0);
        lab.wait_until_down();
    }
    Ok(exit::OK)
}

fn read(path: &Path) -> Result<Written, Failure> {
    let name = path.display().to_string();
    let text = match path.as_os_str() == "-" {
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => std::fs::read_to_string(path),
    };
    let text = text.map_err(|err| Failure::usage(format!("topology {name}: {err}")))?;
    // What is read from standard input is nowhere; its paths are relative to the current directory.
    Ok(Written::parse(&text, &name)?.relative_to(path.parent().unwrap_or(Path::new(""))))
}

fn describe(topology: &Topology, style: Style) -> Result<u8, Failure> {
    let nodes = 0..topology.nodes.len();
    match style.format {
        Format::Json => {
            let nodes: Vec<_> = nodes
                .map(|node| {
                    json!({
                        "name": topology.node_name(node),
                        "address": topology.node_address(node).first,
                        "addresses": topology.node_address(node).iter().collect::<Vec<_>>(),
                        "podCIDR": topology.pod_cidr(node).first.to_string(),
                        "podCIDRs": topology.pod_cidr(node).iter().collect::<Vec<_>>(),
                        "network": topology.network(node),
                    })
                })
                .collect();
            let host = |host: &Host| {
                let addresses: Vec<_> = host.address.iter().collect();
                json!({ "name": host.name, "address": host.address.first, "addresses": addresses })
            };
            let outside: Vec<_> = topology.outside.iter().map(host).collect();
            let document = json!({
                "schema": PLAN_SCHEMA, "name": topology.name, "mode": topology.mode, "racks": topology.racks, "pods": topology.pods, "nodes": nodes, "outside": outside,
                "podCIDR": topology.ranges.pods.to_string(), "serviceCIDR": topology.ranges.of_services(),
                "workloads": topology.workloads, "services": topology.services, "verify": topology.verify,
            });
            output::print_json(&document)?;
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = nodes
                .map(|node| {
                    vec![
                        topology.node_name(node).to_owned(),
                        topology.node_address(node).to_string(),
                        topology.pod_cidr(node).to_string(),
                        topology.pods.to_string(),
                    ]
                })
                .collect();
            output::print(&output::table(&["NODE", "ADDRESS", "PODCIDR", "PODS"], &rows))?;
            let first = topology.node_name(0);
            let network = match topology.mode.root(first) {
                Some(root) => format!("written by the node's agent, below {}\n", root.display()),
                None => topology.network(0),
            };
            output::print(&format!("\nnetwork configuration of {first}:\n{network}"))?;
        }
    }
    Ok(exit::OK)
}
