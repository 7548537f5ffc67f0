//! Connections that the policies forbid by now are cut: a bit in the connection's mark, which the table's first rule
//! looks at. A connection that is allowed again goes on.
//!
//! A connection is judged as it was opened: by its first packet's source, and by the one who really answers, which
//! behind a Service is the pod that was chosen. Only the direction of this node's own pods is judged here, the other one
//! on the other end's node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kernel::conntrack::{self, Flow};
use kernel::{Nfnl, Result};

use super::apply::Anew;
use super::compile::Local;
use super::evaluate::{Addresses, Connection, evaluate};
use super::program::CUT;
use crate::model::Cluster;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Connections that were looked at.
    pub judged: usize,
    /// Those that were cut.
    pub cut: usize,
    /// Those that go on.
    pub restored: usize,
}

/// Which connections are to be cut (true) or to go on (false): those that are not as they should be.
pub fn changes<'f>(
    cluster: &Cluster,
    locals: &BTreeMap<IpAddr, Local<'_>>,
    flows: &'f [Flow],
) -> Vec<(&'f Flow, bool)> {
    let mut addresses = Addresses::of(cluster);
    for (address, local) in locals {
        if let Local::Pod(pod) = local {
            addresses.put(*address, pod);
        }
    }
    let own = |address: IpAddr| matches!(locals.get(&address), Some(Local::Pod(_)));
    let other = flows.iter().filter_map(|flow| {
        let (client, server) = (flow.original.source, flow.reply.source);
        let (client_here, server_here) = (own(client), own(server));
        let connection = Connection {
            source: addresses.end(client),
            destination: addresses.end(server),
            protocol: flow.original.protocol,
            port: flow.reply.source_port,
        };
        let forbidden = (client_here || server_here) && {
            let judged = evaluate(cluster, &connection);
            (client_here && !judged.egress.allows()) || (server_here && !judged.ingress.allows())
        };
        let is_cut = flow.mark & CUT != 0;
        (forbidden != is_cut).then_some((flow, forbidden))
    });
    other.collect()
}

/// Looks at the connections of those whose may be judged otherwise, and cuts and restores.
///
/// # Errors
/// The kernel's words, such as that it lacks what lists connections.
pub fn cut(
    nfnl: &mut Nfnl,
    cluster: &Cluster,
    locals: &BTreeMap<IpAddr, Local<'_>>,
    anew: &Anew,
) -> Result<Cut> {
    let flows = match anew {
        Anew::Nobody => return Ok(Cut::default()),
        Anew::Of(addresses) => conntrack::of(nfnl, &addresses.iter().copied().collect::<Vec<_>>())?,
        Anew::Everybody => conntrack::all(nfnl)?,
    };
    let mut done = Cut { judged: flows.len(), ..Cut::default() };
    for (flow, forbidden) in changes(cluster, locals, &flows) {
        let changed = conntrack::set_mark(nfnl, flow, if forbidden { CUT } else { 0 }, CUT)?;
        *(if forbidden { &mut done.cut } else { &mut done.restored }) += usize::from(changed);
    }
    Ok(done)
}
