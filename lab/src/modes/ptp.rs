//! Point to point: no bridge. Every pod has a routed pair of its own to the node, so the node is a router between two
//! of its pods as well. Between nodes as in routed mode.

use anyhow::Result;
use kernel::Family;

use super::{Ground, Mode, Routers, Siblings, Wire, default_routes, network, pod_ranges};
use crate::cluster::Node;
use crate::fabric;
use crate::topology::Topology;

/// The mode.
pub(super) struct Ptp;
pub(super) const MODE: Ptp = Ptp;

impl Mode for Ptp {
    fn summary(&self) -> &'static str {
        "a routed veth pair for each pod and no bridge, a route to every PodCIDR"
    }

    fn network(&self, _option: Option<&str>, ip_masq: bool, families: &[Family]) -> Option<String> {
        let keys: Vec<String> = ip_masq.then(|| r#""ipMasq": true"#.to_owned()).into_iter().collect();
        let ipam = format!("{},\n        {}", pod_ranges(families), default_routes(families));
        Some(network("ptp", &keys, &ipam))
    }

    fn routers(&self, _option: Option<&str>, topology: &Topology) -> Routers {
        if topology.racks > 1 { Routers::Know } else { Routers::FromOutside }
    }

    fn prepare(&self, _option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        fabric::routes_to_pods_of_peers(ground)
    }

    fn siblings(&self) -> Siblings {
        Siblings::Routed
    }

    fn wire(&self, _option: Option<&str>, _near: &Node, _far: &Node, _: Family) -> Wire {
        Wire::Plain
    }
}
