//! The chained plugins, a file or folder each: they change what the plugins before them made.

pub(crate) mod bandwidth;
pub(crate) mod firewall;
pub(crate) mod owner;
pub(crate) mod portmap;
pub(crate) mod sbr;
pub(crate) mod tuning;
pub(crate) mod vrf;

use cni::Error;
use kernel::{Nfnl, nft};

use crate::interface::attach::failed;

/// A socket for DEL and GC of rules. `None` on a kernel without nf_tables, which holds nothing of ours.
fn open_for_del() -> Result<Option<Nfnl>, Error> {
    let opened =
        Nfnl::open().and_then(|mut nfnl| nft::tables(&mut nfnl, Some(nft::Family::Ip)).map(|_| nfnl));
    match opened {
        Ok(nfnl) => Ok(Some(nfnl)),
        Err(err) if err.lacks().is_some() => Ok(None),
        Err(err) => Err(failed("netfilter on the node")(err)),
    }
}
