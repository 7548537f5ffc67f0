//! What the agent puts on the node and takes off again: the plugins, the network's configuration, reservations that
//! nobody needs any more.
//!
//! The order is the promise. [`binaries::install`] puts the plugins in place and runs each once; only then is the
//! configuration written ([`conflist::write`]), whose being there tells the kubelet that the network is ready. Taking off
//! ([`uninstall`]) is the other way round.

pub mod binaries;
pub mod conflist;
mod files;
pub mod reservations;
pub mod uninstall;

use std::path::Path;

use crate::model::Node;
use crate::places::Places;
use crate::status::{Board, Condition};

/// Puts plugins and configuration in place, in this order and as far as it goes, and reports [`Condition::Plugins`] and
/// [`Condition::Conflist`]. `from` is the executable with the plugins. May be called again at any time; what is right is
/// left alone. True when both conditions are met.
///
/// A configuration that is there stays when something fails, as pods that run need it.
pub fn ensure(from: &Path, node: &Node, mtu: u32, places: &Places, board: &Board) -> bool {
    let installed = binaries::install(from, &places.plugins());
    board.report(Condition::Plugins, installed.as_ref().map(told).map_err(|err| format!("{err:#}")));
    if let Ok(done) = &installed {
        let left =
            format!("{} in {} are another program's", done.left.join(", "), places.plugins().display());
        board.note("plugins that are not podnet's", (!done.left.is_empty()).then_some(left));
    }
    let written = installed.and_then(|_| configure(node, mtu, places, board));
    board.report_outcome(Condition::Conflist, &written);
    written.is_ok()
}

fn told(done: &binaries::Installed) -> String {
    format!("{} in place, each has run", done.names.len())
}

fn configure(node: &Node, mtu: u32, places: &Places, board: &Board) -> anyhow::Result<String> {
    conflist::write(&conflist::render(node, mtu, places)?, places)?;
    let others = conflist::others(places)?;
    let about = conflist::about(&others);
    board.note("other networks", about.clone());
    if others.iter().any(|it| it.is_first) {
        anyhow::bail!("the runtime takes another network: {} · try: remove it", about.unwrap_or_default());
    }
    Ok(format!("{}, MTU {mtu}", places.conflist().display()))
}

#[cfg(test)]
mod tests;
