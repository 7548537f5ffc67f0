//! CHECK of `sbr`: each address has its rule, and the table that it leads to a default route.

use cni::{Error, IpConfig};
use ipnetwork::IpNetwork;
use kernel::route::{Route, TABLE_MAIN};
use kernel::rule::Rule;

use super::config::SbrConfig;
use super::plan::{self, FIRST_TABLE};
use crate::interface::attach::network;

/// Compares what the pod has with what ADD made for `ips` on the link `index`.
///
/// # Errors
/// The first rule or route that is missing.
pub(super) fn check(
    config: &SbrConfig,
    ips: &[IpConfig],
    index: u32,
    rules: &[Rule],
    routes: &[Route],
) -> Result<(), Error> {
    for ip in ips {
        let source = IpNetwork::from(ip.address.ip());
        let leads = |rule: &&Rule| match config.table {
            Some(table) => rule.table == table,
            None => rule.table >= FIRST_TABLE,
        };
        let mut own = rules.iter().filter(|rule| plan::is_rule_of(rule, ip.address)).filter(leads);
        let Some(rule) = own.next() else {
            let table = config.table.map(|table| format!(" to table {table}")).unwrap_or_default();
            return Err(Error::internal(format!("rule from {source}{table} is missing in the pod")));
        };
        if config.table.is_some() {
            continue;
        }
        if let Some(gateway) = plan::gateway(config, ip) {
            let family = plan::family(ip.address);
            let is_default = |route: &Route| {
                route.table_id() == rule.table
                    && route.dst.is_none()
                    && route.family() == family
                    && route.oif == Some(index)
            };
            if !routes.iter().any(is_default) {
                return Err(Error::internal(format!(
                    "default route via {gateway} in table {} is missing in the pod",
                    rule.table
                )));
            }
        }
        if config.source_hints {
            let subnet = network(ip.address);
            let hinted = |route: &Route| {
                route.table_id() == TABLE_MAIN
                    && route.oif == Some(index)
                    && route.destination() == subnet
                    && route.src.is_some_and(|src| ips.iter().any(|ip| ip.address.ip() == src))
            };
            if !routes.iter().any(hinted) {
                return Err(Error::internal(format!(
                    "route {subnet} with its source {} is missing in the pod's main table",
                    ip.address.ip()
                )));
            }
        }
    }
    Ok(())
}
