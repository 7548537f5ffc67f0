//! macvlan: pods are on their nodes' own wire, each with a MAC of its own there. No bridge, no veth, and no node routes for
//! a pod: the fabric's router is the pods' gateway.

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, LinkKind, MacvlanMode};
use kernel::route::{self, Route};
use kernel::{Netns, Rtnl};

use super::{Ground, MAC, Mode, Routers, Siblings, Wire, network};
use crate::cluster::Node;
use crate::fabric::{SWITCH, UPLINK};
use crate::topology::Topology;

/// `RT_SCOPE_LINK`: no router is needed.
const SCOPE_LINK: u8 = 253;

/// The mode.
pub(super) struct Macvlan;
pub(super) const MODE: Macvlan = Macvlan;

impl Mode for Macvlan {
    fn summary(&self) -> &'static str {
        "pods on their nodes' wire, each with its own MAC; no bridge"
    }

    fn refuse(&self, topology: &Topology) -> Option<String> {
        let why = "pods of one subnet must share a link, racks do not · try: --racks 1, or --mode bgp";
        (topology.racks > 1).then(|| why.to_owned())
    }

    fn require(&self, _option: Option<&str>) -> Result<()> {
        let kind = LinkKind::Macvlan { mode: MacvlanMode::Bridge, bc_queue_len: None };
        Ok(link::require(&mut Rtnl::open_in(&Netns::create()?)?, &kind)?)
    }

    fn network(&self, _option: Option<&str>, ip_masq: bool) -> Option<String> {
        let keys = [format!(r#""master": "{UPLINK}""#), r#""mode": "bridge""#.to_owned(), MAC.to_owned()];
        // One subnet for all pods of the wire; each node hands out the addresses of its PodCIDR.
        let ipam = r#""ranges": [[{
          "subnet": "${CLUSTER_CIDR}", "rangeStart": "${FIRST_POD}", "rangeEnd": "${LAST_POD}", "gateway": "${CLUSTER_GATEWAY}"
        }]],
        "routes": [{ "dst": "0.0.0.0/0" }]"#;
        (!ip_masq).then(|| network("macvlan", &keys, ipam))
    }

    fn routers(&self, _option: Option<&str>, _topology: &Topology) -> Routers {
        Routers::Told
    }

    /// The router gets an address among the pods: that is all the way in and out there is. Nodes know that pods are on
    /// their wire, as they do where both share a subnet.
    fn prepare(&self, _option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        let subnet = ground.topology.ranges.pods;
        let mut rtnl = Rtnl::open_in(&ground.fabric.netns)?;
        let lan = link::by_name(&mut rtnl, SWITCH)?.index;
        let gateway = IpNetwork::new(ground.topology.ranges.gateway().into(), subnet.prefix())?;
        addr::add(&mut rtnl, lan, gateway, &AddrOptions::default()).context("fabric")?;
        for node in ground.nodes {
            let mut rtnl = Rtnl::open_in(&node.space.netns)?;
            let uplink = link::by_name(&mut rtnl, UPLINK)?.index;
            let route = Route {
                dst: Some(IpNetwork::V4(subnet)),
                oif: Some(uplink),
                scope: Some(SCOPE_LINK),
                ..Route::default()
            };
            route::add(&mut rtnl, &route).with_context(|| node.space.name.clone())?;
        }
        Ok(())
    }

    fn siblings(&self) -> Siblings {
        Siblings::Direct
    }

    fn on_lan(&self) -> bool {
        true
    }

    fn wire(&self, _option: Option<&str>, _near: &Node, _far: &Node) -> Wire {
        Wire::Plain
    }

    fn notes(&self) -> &'static [&'static str] {
        &["a node and its own pods do not reach one another: a macvlan hands nothing to the link below it"]
    }
}
