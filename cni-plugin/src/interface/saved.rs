//! What a link had before an ADD changed it, to give back when that ADD fails: addresses and routes that
//! the kernel drops along with an address, or when a link is set down.

use cni::Error;
use kernel::addr::{self, Address};
use kernel::route::{self, Family, PROTOCOL_KERNEL, Route};
use kernel::{Rtnl, sysctl};

use super::attach::failed;

/// Addresses and routes of one link.
pub(crate) struct Saved {
    index: u32,
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

impl Saved {
    /// Notes what the link has now.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn of(rtnl: &mut Rtnl, index: u32) -> Result<Self, Error> {
        let mut routes = route::list(rtnl, Family::V4).map_err(failed("list routes"))?;
        routes.extend(route::list(rtnl, Family::V6).map_err(failed("list IPv6 routes"))?);
        // The kernel makes its own anew with the addresses.
        routes.retain(|route| route.oif == Some(index) && route.protocol != PROTOCOL_KERNEL);
        let addresses = addr::list(rtnl, Some(index)).map_err(failed("list addresses"))?;
        Ok(Self { index, addresses, routes })
    }

    /// The same for a link that has another index by now.
    pub(crate) fn at(mut self, index: u32) -> Self {
        self.index = index;
        self.addresses.iter_mut().for_each(|address| address.index = index);
        self.routes.iter_mut().for_each(|route| route.oif = Some(index));
        self
    }

    /// Gives back what is missing and takes away what has come since.
    ///
    /// # Errors
    /// Everything that the kernel refused, in one text.
    pub(crate) fn restore(&self, rtnl: &mut Rtnl) -> Result<(), String> {
        let mut errors = Vec::new();
        let mut note = |outcome: kernel::Result<()>| match outcome {
            Err(err) if !err.is_exists() && !err.is_not_found() => errors.push(err.to_string()),
            _ => {}
        };
        match addr::list(rtnl, Some(self.index)) {
            Ok(now) => {
                let link_local = |address: &Address| address.scope == route::SCOPE_LINK;
                for new in now.iter().filter(|new| !(self.has(new) || new.net.is_ipv6() && link_local(new))) {
                    note(addr::delete(rtnl, self.index, new.net));
                }
            }
            Err(err) => note(Err(err)),
        }
        for address in &self.addresses {
            note(addr::restore(rtnl, address));
        }
        for route in &self.routes {
            note(route::add(rtnl, route));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }

    fn has(&self, address: &Address) -> bool {
        self.addresses.iter().any(|saved| saved.net == address.net)
    }
}

/// The interfaces of the calling thread's netns that forward packets of a family: switching the family's
/// forwarding off resets them all, so they are noted before it is switched on.
pub(crate) fn forwarding_interfaces(family: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/sys/net/{family}/conf")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| name != "all")
        .map(|name| format!("net/{family}/conf/{name}/forwarding"))
        .filter(|key| sysctl::read(key).is_ok_and(|value| value == "1"))
        .collect()
}
