//! What the plan has to know of this machine: its links, its addresses, and where the kernel would send a packet to
//! each peer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kernel::{Result, Rtnl, addr, link, route};

use crate::model::Node;

/// linux/rtnetlink.h, `RTN_LOCAL`
const LOCAL: u8 = 2;

/// A link of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// It takes router advertisements as long as the node does not forward (`accept_ra` is 1).
    pub loses_advertisements: bool,
}

/// How the kernel would send a packet to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Nowhere: it is an address of this machine.
    Own,
    /// To the address itself, over this link; with the route's MTU where it has one.
    Link(u32, Option<u32>),
    /// To a router, over this link; with the route's MTU where it has one.
    Router(IpAddr, u32, Option<u32>),
    /// Not at all, in the kernel's words.
    Unreachable(String),
}

/// What is so on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Links by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses, with the index of the link that has each.
    pub addresses: Vec<(u32, IpAddr)>,
    /// The way to each InternalIP of a peer.
    pub ways: BTreeMap<IpAddr, Way>,
}

impl Facts {
    /// Asks the kernel, in the namespace of `rtnl`, about the peers among `nodes`.
    ///
    /// # Errors
    /// Links or addresses cannot be listed. A way that cannot be told is [`Way::Unreachable`].
    pub fn gather<'a>(
        rtnl: &mut Rtnl,
        own: &Node,
        nodes: impl IntoIterator<Item = &'a Node>,
    ) -> Result<Facts> {
        let mut facts = Facts::default();
        for link in link::list(rtnl)? {
            let loses_advertisements = link.accept_ra == Some(1);
            facts.links.insert(link.index, Link { name: link.name, mtu: link.mtu, loses_advertisements });
        }
        facts.addresses = addr::list(rtnl, None)?.into_iter().map(|it| (it.index, it.net.ip())).collect();
        for node in nodes.into_iter().filter(|it| it.name != own.name) {
            for ipv6 in [false, true] {
                if let Some(address) = node.address(ipv6) {
                    facts.ways.entry(address).or_insert_with(|| way(rtnl, address));
                }
            }
        }
        Ok(facts)
    }

    /// The link that has an address.
    pub fn link_of(&self, ip: IpAddr) -> Option<u32> {
        self.addresses.iter().find(|it| it.1 == ip).map(|it| it.0)
    }

    /// A link's name; its number where it is gone.
    pub(super) fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("link {index}"), |it| it.name.clone())
    }
}

fn way(rtnl: &mut Rtnl, address: IpAddr) -> Way {
    match route::lookup(rtnl, address) {
        Err(error) => Way::Unreachable(words(&error)),
        Ok(found) if found.kind == LOCAL => Way::Own,
        Ok(found) => match (found.gateway, found.oif) {
            (Some(gateway), Some(link)) => Way::Router(gateway, link, found.mtu),
            (None, Some(link)) => Way::Link(link, found.mtu),
            (_, None) => Way::Unreachable("the kernel's route to it has no link".to_owned()),
        },
    }
}

/// What the kernel said, without what was asked.
fn words(error: &kernel::Error) -> String {
    let text = error.to_string();
    text.strip_prefix(error.subject()).and_then(|it| it.strip_prefix(": ")).unwrap_or(&text).to_owned()
}
