//! What every writer of nf_tables rules shares: the socket to take them away with. Which rules is each one's own affair.

use cni::Error;
use kernel::{Nfnl, nft};

use crate::interface::attach::failed;

/// A socket for DEL and GC of rules. `None` on a kernel without nf_tables, which holds nothing of ours.
///
/// # Errors
/// What else the kernel refuses, under the name `what`.
pub(crate) fn open_for_del(what: &str) -> Result<Option<Nfnl>, Error> {
    let opened =
        Nfnl::open().and_then(|mut nfnl| nft::tables(&mut nfnl, Some(nft::Family::Ip)).map(|_| nfnl));
    match opened {
        Ok(nfnl) => Ok(Some(nfnl)),
        Err(err) if err.lacks().is_some() => Ok(None),
        Err(err) => Err(failed(what)(err)),
    }
}
