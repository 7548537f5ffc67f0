//! `podnetd routes --export`: the routes by which a machine outside the cluster reaches its pods, as a node of a sibling
//! cluster or the host that kind runs on: each PodCIDR by the InternalIP of its node.
//!
//! Printed for `ip`, as JSON, or made here ([`apply`]). Ours are known by a protocol number, which is not the agent's, as
//! a node of a sibling cluster has an agent of its own; and by a metric computed from the cluster's identity, so that
//! routes to several clusters stand beside each other and each export takes away its own cluster's stale ones and no
//! others.

use std::net::IpAddr;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;
use kernel::route::{self, TABLE_MAIN};
use kernel::{Batch, Family, Rtnl};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::model::Node;
use crate::routing::{self, Facts, Way};

/// What marks these routes (`RTPROT_*`).
pub const PROTOCOL: u8 = 81;
/// The metrics are from here on, as many as two bytes tell apart; behind those that people give.
const METRICS: u32 = 0x1_0000;
/// The document's name and version.
const SCHEMA: &str = "podnet.routes/1";

/// Arguments of `podnetd routes`.
#[derive(Debug, Clone, Args)]
pub struct Routes {
    /// Print the routes by which a machine outside the cluster reaches its pods
    #[arg(long, required = true)]
    pub export: bool,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Ip)]
    pub format: Format,
    /// Make them on this machine instead of printing them, and take away those of the cluster that are stale
    #[arg(long, conflicts_with = "format")]
    pub apply: bool,
    /// Take them away: print how, or with --apply do it
    #[arg(long)]
    pub remove: bool,
}

/// How routes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Commands for ip(8), which may be run again
    Ip,
    /// A JSON document
    Json,
}

/// A route to a node's pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The PodCIDR.
    #[serde(serialize_with = "as_text")]
    pub destination: IpNetwork,
    /// The node's InternalIP.
    pub gateway: IpAddr,
    /// The node's name.
    pub node: String,
}

fn as_text<S: serde::Serializer>(net: &IpNetwork, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(net)
}

/// What there is to export of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Export {
    /// `podnet.routes/1`
    pub schema: &'static str,
    /// The metric of all of them.
    pub metric: u32,
    /// The protocol number of all of them.
    pub protocol: u8,
    /// The routes, by destination.
    pub routes: Vec<Exported>,
    /// What is left out, with the node and the reason.
    pub skipped: Vec<String>,
}

impl Export {
    /// The routes of a cluster. `identity` is what tells it from every other cluster, such as the UID of its namespace
    /// `kube-system`.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>, identity: &str) -> Export {
        let nodes: Vec<&Node> = nodes.into_iter().collect();
        // Seen by a machine that is none of them: one that can reach every node directly.
        let mut facts = Facts::default();
        facts.links.insert(1, routing::Link { name: String::new(), mtu: 1500, loses_advertisements: false });
        for address in nodes.iter().flat_map(|it| &it.addresses) {
            facts.ways.insert(*address, Way::Link(1, None));
        }
        let stranger = Node::default();
        let plan = routing::plan(&stranger, nodes, &facts);
        let hash = Sha256::digest(identity.as_bytes());
        let routes = plan.routes.into_iter().map(|it| Exported {
            destination: it.dst,
            gateway: it.via,
            node: it.node,
        });
        Export {
            schema: SCHEMA,
            metric: METRICS + u32::from(u16::from_be_bytes([hash[0], hash[1]])),
            protocol: PROTOCOL,
            routes: routes.collect(),
            skipped: plan
                .peers
                .iter()
                .filter(|it| !it.how.is_served())
                .map(|it| format!("node {}: {}", it.node, it.how))
                .collect(),
        }
    }

    /// The routes as commands for ip(8); with `remove`, those that take them away, which succeed where there is none.
    pub fn commands(&self, remove: bool) -> String {
        let mut text = String::new();
        let (metric, protocol) = (self.metric, self.protocol);
        for Exported { destination, gateway, node } in &self.routes {
            let ip = if destination.is_ipv4() { "ip" } else { "ip -6" };
            let line = match remove {
                false => format!(
                    "{ip} route replace {destination} via {gateway} proto {protocol} metric {metric}  # {node}\n"
                ),
                true => format!(
                    "{ip} route flush exact {destination} proto {protocol} metric {metric}  # {node}\n"
                ),
            };
            text.push_str(&line);
        }
        text
    }

    /// The routes as a JSON document.
    ///
    /// # Errors
    /// None that is known of.
    pub fn json(&self) -> anyhow::Result<String> {
        serde_json::to_string_pretty(self).context("write the routes as JSON")
    }
}

/// What [`apply`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Routes made or changed.
    pub made: usize,
    /// Stale routes deleted.
    pub deleted: usize,
}

/// Makes the routes on this machine, in the namespace of `rtnl`, and deletes those of the same cluster that it has no
/// more; with `remove`, deletes all of the cluster. Where all is so already, nothing is changed.
///
/// # Errors
/// Routes that the kernel refuses, with its words; the others are made.
pub fn apply(rtnl: &mut Rtnl, export: &Export, remove: bool) -> anyhow::Result<Changed> {
    let mut stale = Vec::new();
    for family in [Family::V4, Family::V6] {
        stale.extend(route::list(rtnl, family).context("list the machine's routes")?);
    }
    stale.retain(|it| {
        it.protocol == export.protocol && it.priority == Some(export.metric) && it.table_id() == TABLE_MAIN
    });
    let (mut batch, mut about, mut changed) = (Batch::new(), Vec::new(), Changed::default());
    for wanted in export.routes.iter().filter(|_| !remove) {
        let there = stale.iter().position(|it| it.destination() == wanted.destination);
        if let Some(there) = there.map(|it| stale.remove(it))
            && there.gateway == Some(wanted.gateway)
        {
            continue;
        }
        batch.route_replace(&route::Route {
            dst: Some(wanted.destination),
            gateway: Some(wanted.gateway),
            priority: Some(export.metric),
            protocol: export.protocol,
            ..route::Route::default()
        });
        about.push((Some(wanted), "route"));
    }
    for gone in &stale {
        batch.route_delete_own(gone);
        about.push((None, "stale route"));
    }
    let mut refused = Vec::new();
    for (outcome, (wanted, what)) in rtnl.send(batch)?.into_iter().zip(about) {
        match (outcome, wanted) {
            (Ok(()), Some(_)) => changed.made += 1,
            (Ok(()), None) => changed.deleted += 1,
            (Err(error), None) if error.is_not_found() => {}
            (Err(error), Some(it)) => {
                let hint = format!("is {} on a link of this machine?", it.gateway);
                refused.push(format!("node {}: {error} ({hint})", it.node));
            }
            (Err(error), None) => refused.push(format!("{what}: {error}")),
        }
    }
    if !refused.is_empty() {
        bail!("{}", refused.join("\n"));
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::node;

    fn nodes() -> [Node; 4] {
        [
            node("a", &["10.244.0.0/24", "fd00:1::/64"], &["172.18.0.2", "fc00::2"]),
            node("b", &["10.244.1.0/24"], &["172.18.0.3"]),
            node("twin", &["10.244.1.0/24"], &["172.18.0.4"]),
            node("homeless", &["10.244.4.0/24"], &[]),
        ]
    }

    #[test]
    fn commands_are_for_every_node_that_can_be_told() {
        let export = Export::of(&nodes(), "f00d");
        insta::assert_snapshot!(format!(
            "{}{}{:#?}",
            export.commands(false),
            export.commands(true),
            export.skipped
        ));
    }

    #[test]
    fn clusters_are_told_apart_by_the_metric() {
        let [a, b, again] = ["one", "two", "one"].map(|it| Export::of(&nodes(), it).metric);
        assert_eq!(a, again);
        assert_ne!(a, b);
        assert!([a, b].iter().all(|it| (METRICS..METRICS + 0x1_0000).contains(it)));
    }

    #[test]
    fn json_has_its_schema_and_the_routes() {
        let json: serde_json::Value =
            serde_json::from_str(&Export::of(&nodes(), "f00d").json().unwrap()).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["routes"][0]["destination"], "10.244.0.0/24");
        assert_eq!(json["routes"][0]["gateway"], "172.18.0.2");
        assert_eq!(json["skipped"].as_array().unwrap().len(), 3);
    }

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        routes: Routes,
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        use clap::Parser;
        let parse = |words: &[&str]| Cli::try_parse_from([&["routes"], words].concat());
        assert!(parse(&[]).is_err(), "what to do with routes");
        assert!(parse(&["--export", "--apply", "--format", "json"]).is_err());
        let parsed = parse(&["--export", "--remove", "--format", "json"]).unwrap().routes;
        assert!(parsed.remove && !parsed.apply && parsed.format == Format::Json);
    }
}
