//! macvlan: pods are on their nodes' own wire, each with a MAC of its own there. No bridge, no veth, and no node routes for
//! a pod: the fabric's router is the pods' gateway.

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use kernel::addr;
use kernel::link::{self, LinkKind, MacvlanMode};
use kernel::route::{self, Route};
use kernel::{Family, Netns, Rtnl};

use super::{Ground, MAC, Mode, Routers, Siblings, Wire, default_routes, network, ranges};
use crate::cluster::Node;
use crate::fabric::{NODAD, SWITCH, UPLINK};
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

    fn network(&self, _option: Option<&str>, ip_masq: bool, families: &[Family]) -> Option<String> {
        let keys = [format!(r#""master": "{UPLINK}""#), r#""mode": "bridge""#.to_owned(), MAC.to_owned()];
        // One subnet for all pods of the wire; each node hands out the addresses of its PodCIDR.
        let set = |end: &str| {
            let word = |name: &str| format!("${{{name}{end}}}");
            let (subnet, gateway) = (word("CLUSTER_CIDR"), word("CLUSTER_GATEWAY"));
            let (first, last) = (word("FIRST_POD"), word("LAST_POD"));
            format!(
                r#"[{{
          "subnet": "{subnet}", "rangeStart": "{first}", "rangeEnd": "{last}", "gateway": "{gateway}"
        }}]"#
            )
        };
        let ipam = format!("{},\n        {}", ranges(families, set), default_routes(families));
        (!ip_masq).then(|| network("macvlan", &keys, &ipam))
    }

    fn routers(&self, _option: Option<&str>, _topology: &Topology) -> Routers {
        Routers::Told
    }

    /// The router gets an address among the pods: that is all the way in and out there is. Nodes know that pods are on
    /// their wire, as they do where both share a subnet.
    fn prepare(&self, _option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        let ranges = ground.topology.ranges;
        let mut rtnl = Rtnl::open_in(&ground.fabric.netns)?;
        let lan = link::by_name(&mut rtnl, SWITCH)?.index;
        for (gateway, subnet) in ranges.gateway().iter().zip(ranges.pods.iter()) {
            let gateway = IpNetwork::new(gateway, subnet.prefix())?;
            addr::add(&mut rtnl, lan, gateway, &NODAD).context("fabric")?;
        }
        for node in ground.nodes {
            let mut rtnl = Rtnl::open_in(&node.space.netns)?;
            let uplink = link::by_name(&mut rtnl, UPLINK)?.index;
            for subnet in ranges.pods.iter() {
                // Only IPv4's routes have scopes.
                let scope = subnet.is_ipv4().then_some(SCOPE_LINK);
                let route = Route { dst: Some(subnet), oif: Some(uplink), scope, ..Route::default() };
                route::add(&mut rtnl, &route).with_context(|| node.space.name.clone())?;
            }
        }
        Ok(())
    }

    fn siblings(&self) -> Siblings {
        Siblings::Direct
    }

    fn on_lan(&self) -> bool {
        true
    }

    fn wire(&self, _option: Option<&str>, _near: &Node, _far: &Node, _: Family) -> Wire {
        Wire::Plain
    }

    fn notes(&self) -> &'static [&'static str] {
        &["a node and its own pods do not reach one another: a macvlan hands nothing to the link below it"]
    }
}
