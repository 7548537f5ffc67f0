//! The link that a macvlan, ipvlan or VLAN stands on: named by the configuration, else that of the default route.

use cni::Error;
use kernel::Rtnl;
use kernel::link::{self, Link};
use kernel::route::{self, Family, Route};

use crate::interface::attach::failed;

/// Which link it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// Its name; `None` is the link of the first default route.
    pub(crate) name: Option<String>,
    /// It is in the pod, not on the node.
    pub(crate) in_pod: bool,
}

/// The link below, found.
pub(super) struct Found {
    /// The link.
    pub(super) link: Link,
    /// A socket on the node, if the link is there; else it is in the pod.
    pub(super) node: Option<Rtnl>,
}

impl Parent {
    /// From the keys `master` and `linkInContainer`; an empty name is none.
    pub(crate) fn of(master: String, in_pod: bool) -> Self {
        Self { name: Some(master).filter(|name| !name.is_empty()), in_pod }
    }

    /// Finds the link.
    ///
    /// # Errors
    /// There is none of the name, or no default route.
    pub(super) fn find(&self, pod: &mut Rtnl) -> Result<Found, Error> {
        if self.in_pod {
            return Ok(Found { link: self.look(pod)?, node: None });
        }
        let mut node = Rtnl::open().map_err(failed("netlink on the node"))?;
        Ok(Found { link: self.look(&mut node)?, node: Some(node) })
    }

    /// The same without a pod, for STATUS: `None` when the link would have to be in one.
    pub(super) fn find_on_node(&self) -> Result<Option<Link>, Error> {
        if self.in_pod {
            return Ok(None);
        }
        let mut node = Rtnl::open().map_err(failed("netlink on the node"))?;
        self.look(&mut node).map(Some)
    }

    fn look(&self, rtnl: &mut Rtnl) -> Result<Link, Error> {
        let place = if self.in_pod { "in the pod" } else { "on the node" };
        let Some(name) = &self.name else {
            let index = default_route(rtnl)?
                .ok_or_else(|| Error::internal(format!("no default route interface found {place}")))?;
            return link::by_index(rtnl, index).map_err(failed(format!("find link {index} {place}")));
        };
        link::by_name(rtnl, name).map_err(|err| match err.is_not_found() {
            true => Error::internal(format!("master {name:?} not found {place}")),
            false => failed(format!("find master {name:?} {place}"))(err),
        })
    }
}

/// The link of the first default route of the main table, IPv4 before IPv6.
fn default_route(rtnl: &mut Rtnl) -> Result<Option<u32>, Error> {
    for family in [Family::V4, Family::V6] {
        let routes = route::list(rtnl, family).map_err(failed("list routes"))?;
        let default = |route: &&Route| {
            route.destination().prefix() == 0
                && route.table_id() == route::TABLE_MAIN
                && route.kind == route::KIND_UNICAST
        };
        if let Some(index) = routes.iter().filter(default).find_map(|route| route.oif) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
