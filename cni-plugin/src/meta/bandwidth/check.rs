//! CHECK of `bandwidth`: the numbers in the kernel are those of the configuration, and what comes from the pod
//! goes where it is limited.

use cni::Error;
use kernel::Rtnl;
use kernel::link::Link;
use kernel::tc::{self, Address, Kind, ROOT};

use super::INGRESS_HANDLE;
use super::shaper::Shaper;
use crate::interface::attach::failed;

/// Compares what stands on `link` with the limit.
///
/// # Errors
/// The first thing that is missing or different.
pub(super) fn check_shaper(
    node: &mut Rtnl,
    link: &Link,
    shaper: &Shaper,
    remote: Address,
) -> Result<(), Error> {
    let name = &link.name;
    let refuse = |what: String| Err(Error::internal(format!("{name:?}: {what}")));
    let wanted = shaper.parts(link.index, remote);
    let present = tc::qdiscs(node, link.index).map_err(failed("Failed to find qdisc"))?;
    let Some(root) = present.iter().find(|qdisc| qdisc.parent == ROOT) else {
        return refuse(format!("Failed to find qdisc {}", wanted.root.kind.name()));
    };
    match (&root.kind, &wanted.root.kind) {
        (Kind::Tbf(is), Kind::Tbf(wanted)) => {
            let numbers = [
                ("Rate", is.rate, wanted.rate),
                ("Limit", is.limit.into(), wanted.limit.into()),
                ("Buffer", is.buffer.into(), wanted.buffer.into()),
            ];
            for (what, is, wanted) in numbers {
                if is != wanted {
                    return refuse(format!("{what} doesn't match: it is {is}, not {wanted}"));
                }
            }
        }
        (is, wanted) if is != wanted => {
            return refuse(format!(
                "qdisc is {}, not that of the configuration ({})",
                is.name(),
                wanted.name()
            ));
        }
        _ => {}
    }
    if !shaper.has_subnets() {
        return Ok(());
    }
    let classes = tc::classes(node, link.index).map_err(failed("list classes"))?;
    for class in &wanted.classes {
        let same = |is: &&tc::Class| is.handle == class.handle && is.rate == class.rate;
        if !classes.iter().any(|is| same(&is) && is.buffer == class.buffer) {
            return refuse(format!("class {:x} is not that of the configuration", class.handle));
        }
    }
    if let Some(leaf) = wanted.leaves.iter().find(|leaf| !present.contains(leaf)) {
        return refuse(format!("qdisc {} of class {:x} is missing", leaf.kind.name(), leaf.parent));
    }
    let filters = tc::filters(node, link.index, wanted.root.handle).map_err(failed("list filters"))?;
    if filters.len() != wanted.filters.len() || wanted.filters.iter().any(|filter| !filters.contains(filter))
    {
        return refuse("filters are not those of the subnets in the configuration".to_owned());
    }
    Ok(())
}

/// What `port` receives is sent out of the ifb, which is up.
///
/// # Errors
/// It is not.
pub(super) fn check_redirect(node: &mut Rtnl, port: &Link, ifb: &Link) -> Result<(), Error> {
    if !ifb.up {
        return Err(Error::internal(format!("ifb {:?} is down", ifb.name)));
    }
    let filters = match tc::filters(node, port.index, INGRESS_HANDLE) {
        Err(err) if err.is_not_found() => Vec::new(),
        other => other.map_err(failed("list filters"))?,
    };
    let all = |filter: &tc::Filter| filter.words.is_empty() && filter.protocol == tc::PROTOCOL_ALL;
    if filters.iter().any(|filter| all(filter) && filter.redirect == Some(ifb.index)) {
        return Ok(());
    }
    Err(Error::internal(format!("{:?}: what it receives is not redirected to {:?}", port.name, ifb.name)))
}
