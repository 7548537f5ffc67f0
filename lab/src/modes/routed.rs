//! Routed: packets of pods cross the wire as they are, as on GKE and with Flannel's host-gw. Each node has a route to
//! every PodCIDR of its own link; between racks the routers know the PodCIDRs, as a cloud's do.

use anyhow::Result;
use kernel::Family;

use super::{Ground, Mode, Routers, Siblings, Wire, bridge};
use crate::cluster::Node;
use crate::fabric;
use crate::topology::Topology;

/// Nodes know the way on their own link only, and nobody else does.
const HOST_GW: &str = "host-gw";

/// The mode.
pub(super) struct Routed;
pub(super) const MODE: Routed = Routed;

impl Mode for Routed {
    fn summary(&self) -> &'static str {
        "a bridge on each node, a route to every PodCIDR, as GKE"
    }

    fn options(&self) -> &'static [(&'static str, &'static str)] {
        &[(HOST_GW, "routers between racks know nothing of pods, as any LAN's; fails across racks")]
    }

    fn network(&self, _option: Option<&str>, ip_masq: bool, families: &[Family]) -> Option<String> {
        Some(bridge(ip_masq, None, families))
    }

    fn routers(&self, option: Option<&str>, topology: &Topology) -> Routers {
        // On one link nodes reach each other by themselves, and a node without its route is not helped.
        if topology.racks > 1 && option != Some(HOST_GW) { Routers::Know } else { Routers::FromOutside }
    }

    fn prepare(&self, _option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        fabric::routes_to_pods_of_peers(ground)
    }

    fn siblings(&self) -> Siblings {
        Siblings::Switched
    }

    fn wire(&self, _option: Option<&str>, _near: &Node, _far: &Node, _: Family) -> Wire {
        Wire::Plain
    }
}
