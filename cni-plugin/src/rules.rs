//! What every writer of nf_tables rules shares: the socket to take them away with, and which tables there are. Which rules
//! is each one's own affair.

use std::os::fd::{AsFd, BorrowedFd};

use cni::{Call, Error};
use kernel::Nfnl;
use kernel::nft::{self, Table, TableInfo};

use crate::interface::attach::failed;
use crate::interface::delete::Delete;

/// What DEL and GC need to take rules away.
pub(crate) struct Rules {
    /// The socket.
    pub(crate) nfnl: Nfnl,
    tables: Vec<TableInfo>,
}

/// Takes rules of one kind away.
pub(crate) type Removal<'a> = &'a dyn Fn(&mut Rules) -> Result<(), Error>;

impl Rules {
    /// Opens the socket and looks which tables there are. `None` on a kernel without nf_tables, which holds nothing of
    /// ours.
    ///
    /// # Errors
    /// What else the kernel refuses, under the name `what`.
    pub(crate) fn open_for_del(what: &str) -> Result<Option<Self>, Error> {
        let opened = Nfnl::open().and_then(|mut nfnl| {
            let tables = nft::tables(&mut nfnl, None)?;
            Ok(Self { nfnl, tables })
        });
        match opened {
            Ok(rules) => Ok(Some(rules)),
            Err(err) if err.lacks().is_some() => Ok(None),
            Err(err) => Err(failed(what)(err)),
        }
    }

    /// Ends the socket, as the key `delete` says: after rules were taken away the kernel makes the one who closes it wait,
    /// 8 to 18 ms, until no processor can be using them.
    pub(crate) fn end(self, call: &Call) {
        if Delete::of(call).unwrap_or_default() == Delete::Announced {
            self.nfnl.leave();
        }
    }

    /// Whether there was such a table when this was opened. What ADD made before is in one that was there then.
    pub(crate) fn has(&self, table: Table<'_>) -> bool {
        self.tables.iter().any(|there| there.table() == table)
    }

    /// The sockets whose end makes the process wait after rules were taken away.
    pub(crate) fn sockets(rules: &Result<Option<Self>, Error>) -> Vec<BorrowedFd<'_>> {
        rules.iter().flatten().map(|rules| rules.nfnl.as_fd()).collect()
    }

    /// Runs each of `removals`, whatever the others do; nothing where the kernel has no nf_tables.
    ///
    /// # Errors
    /// Why it could not be opened, or all that the removals say.
    pub(crate) fn remove(
        rules: &mut Result<Option<Self>, Error>,
        removals: &[Removal<'_>],
    ) -> Result<(), Error> {
        match rules {
            Ok(Some(rules)) => Error::join(removals.iter().map(|removal| removal(rules)).collect::<Vec<_>>()),
            Ok(None) => Ok(()),
            Err(err) => Err(err.clone()),
        }
    }
}
