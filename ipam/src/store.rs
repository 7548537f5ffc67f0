//! The store: one directory per network with one file per reservation, shared with the reference plugin.
//!
//! It reserves, releases, finds and collects; which address comes next is [`crate::decide`]'s, the arithmetic is
//! [`crate::range`]'s. It expires nothing, and it never touches a file that is not named as an address or by itself.
//!
//! # On disk
//! `<data dir>/<network>/` is the reference's, byte for byte, so that its `host-local` may read and write there between
//! any two of our operations: `lock` (held by flock for each whole operation), `<ip>` holding `<container
//! id>\r\n<ifname>` (or, from old versions, only the container id), `last_reserved_ip.<set>`. Nothing of ours stands
//! there. `<data dir>/.podnet/<network>/` is ours alone: the index (a symbolic link per reservation, named by a hash
//! of its content), and what is being written. No network's name begins with a dot, so it meets none.
//!
//! # Why a crash leaves nothing half-done
//! A reservation is written in our directory and then given its name in the reference's by a hard link, which the
//! kernel makes as a whole and never over an existing file (renameat2 with RENAME_NOREPLACE would do in one call, but
//! is not to be had under musl without unsafe code). So at every moment an `<ip>` file is absent or complete, whatever
//! ends the process and whatever runs full. `last_reserved_ip.<set>` is written over in
//! one write, or replaced by rename where its text becomes shorter. A failure that we live to
//! see takes the reservation back. Only where the file system has no hard links is the file made in place, as the
//! reference does; then, as after the reference's own crash, an empty file may be left, and the next operation of ours
//! removes it: the lock is held, so no one can be about to fill it.
//!
//! # Why the index may be believed
//! It is complete if the two directories have the same modification time, and that time's second is the one
//! that we fabricate for this boot, decades ago. Each operation of ours ends by setting both to such a time with
//! random nanoseconds, its own changes being done. Every creation, removal or renaming sets the directory's
//! time to now. So:
//! * ended before the first change: times equal, index complete;
//! * ended between the first change and the last: at least one directory says now, and now is never a fabricated second:
//!   incomplete;
//! * ended between the two settings: the times differ: incomplete;
//! * a reference plugin, or a person, changed the network's directory: it says now: incomplete. If a reference
//!   plugin ran and changed no name (ADD refused, DEL of an unknown owner), nothing is stale;
//! * the directory was removed, restored or copied: a random time that both have, by chance, does not happen.
//!
//! An incomplete index is rebuilt by reading each reservation once. Even a complete one is only a hint: every file it
//! leads to is read before it is believed, and a contradiction rebuilds it. What it cannot notice is someone who
//! rewrites an existing `<ip>` file in place and so gives a reservation to another owner; no plugin does that. Where the
//! index or the times cannot be written (read-only file system, another user's directory) everything works from the
//! reservations alone, at the reference's cost.
//!
//! # Power loss
//! Nothing is flushed to the medium: after a power loss the pods are gone, and flushing would cost more than all else
//! here. A file system may then show a reservation without its content. As the fabricated second depends on the boot id,
//! the first operation after each boot reads all reservations and removes empty ones.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ipnetwork::IpNetwork;

use crate::decide::{self, Candidate};
use crate::index::{Reservation, is_network_name};
use crate::range::canonical;
use crate::session::{Access, Session};
use crate::{Error, RangeSet, Result};

/// Who owns a reservation: an interface of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner<'a> {
    /// The container id (CNI_CONTAINERID).
    pub container_id: &'a str,
    /// The interface's name in the container (CNI_IFNAME).
    pub ifname: &'a str,
}

impl Owner<'_> {
    /// What the owner's reservations hold.
    fn content(&self) -> Vec<u8> {
        format!("{}\r\n{}", self.container_id.trim(), self.ifname).into_bytes()
    }

    /// What reservations hold that were made by a version that did not know of interfaces.
    fn legacy_content(&self) -> &[u8] {
        self.container_id.trim().as_bytes()
    }
}

/// An address that was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// The address, with the prefix length of its subnet.
    pub address: IpNetwork,
    /// The gateway of its range; always there, as a range without one has a default.
    pub gateway: Option<IpAddr>,
}

/// A reservation, as it stands on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The address.
    pub address: IpAddr,
    /// The container id of its owner.
    pub container_id: String,
    /// The interface of its owner; empty in reservations of versions that did not know of interfaces.
    pub ifname: String,
    /// When it was made; none where the file system does not tell.
    pub since: Option<SystemTime>,
}

/// The reservations of one network on this node.
///
/// Holds only names, so it is cheap, and may be shared by threads; processes may work on one directory at the same
/// time. Each method takes the lock, waiting for it without limit, and lets it go before it returns.
#[derive(Debug, Clone)]
pub struct Store {
    data_dir: PathBuf,
    network: String,
}

impl Store {
    /// Names the store of a network below `data_dir`; nothing is opened or created yet.
    ///
    /// # Errors
    /// [`Error::NetworkName`] if the name is empty, begins with a dot or has a slash in it.
    pub fn open(data_dir: &Path, network: &str) -> Result<Store> {
        if !is_network_name(network) {
            return Err(Error::NetworkName { name: network.to_owned() });
        }
        Ok(Store { data_dir: data_dir.to_owned(), network: network.to_owned() })
    }

    /// Reserves an address of a set: the requested one, or the next free one after the set's last.
    ///
    /// `set_index` is the set's place in the configuration. Creates the directories. As in the reference, a request by
    /// address does not ask whether the owner has one already.
    ///
    /// # Errors
    /// [`Error::Exhausted`], [`Error::Duplicate`], [`Error::RequestedOutside`], [`Error::RequestedGateway`],
    /// [`Error::RequestedTaken`]; [`Error::Io`], after which nothing is reserved.
    pub fn allocate(
        &self,
        set_index: usize,
        set: &RangeSet,
        owner: &Owner<'_>,
        requested: Option<IpAddr>,
    ) -> Result<Allocation> {
        self.create(|session| Ok(reserve(session, set_index, set, owner, requested)?.0))
    }

    /// Reserves an address of each set, in their order and under one lock; all or none.
    ///
    /// A set gives the first of the `requested` addresses that lies in it, or else its next free one. What this call
    /// reserved is released if a later set has none, or if a requested address is left over; older reservations of the
    /// owner stay.
    ///
    /// # Errors
    /// [`Error::SetFailed`] around what [`Store::allocate`] says, [`Error::RequestsLeft`].
    pub fn allocate_all(
        &self,
        sets: &[RangeSet],
        owner: &Owner<'_>,
        requested: &[IpAddr],
    ) -> Result<Vec<Allocation>> {
        let mut left: Vec<IpAddr> = Vec::with_capacity(requested.len());
        for address in requested.iter().copied().map(canonical) {
            if !left.contains(&address) {
                left.push(address);
            }
        }
        self.create(|session| {
            let mut done: Vec<(Allocation, Reservation)> = Vec::with_capacity(sets.len());
            let mut failure = None;
            for (index, set) in sets.iter().enumerate() {
                let wanted = left.iter().position(|address| set.contains(*address)).map(|i| left.remove(i));
                match reserve(session, index, set, owner, wanted) {
                    Ok(one) => done.push(one),
                    Err(source) => {
                        failure = Some(Error::SetFailed { index, source: Box::new(source) });
                        break;
                    }
                }
            }
            if failure.is_none() && !left.is_empty() {
                failure = Some(Error::RequestsLeft { addresses: left });
            }
            match failure {
                None => Ok(done.into_iter().map(|(allocation, _)| allocation).collect()),
                Some(err) => {
                    for (_, reservation) in done.iter().rev() {
                        let _ = session.remove(reservation);
                    }
                    Err(err)
                }
            }
        })
    }

    /// Releases all addresses of an owner, in whatever set, and returns them.
    ///
    /// Reservations that hold only the container id are released if there is none in the owner's own name. An unknown
    /// owner and a missing directory are no error.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be used; [`Error::Incomplete`] if some reservations could not be
    /// removed, the others being released.
    pub fn release(&self, owner: &Owner<'_>) -> Result<Vec<IpAddr>> {
        self.release_where(owner, |_| true)
    }

    /// Releases those of the given addresses that the owner has: what an ADD that went wrong later takes back.
    ///
    /// # Errors
    /// As [`Store::release`].
    pub fn release_only(&self, owner: &Owner<'_>, addresses: &[IpAddr]) -> Result<()> {
        let addresses: Vec<IpAddr> = addresses.iter().copied().map(canonical).collect();
        self.release_where(owner, |address| addresses.contains(&address)).map(drop)
    }

    fn release_where(&self, owner: &Owner<'_>, wanted: impl Fn(IpAddr) -> bool) -> Result<Vec<IpAddr>> {
        self.existing(Access::Change, |session| {
            let mut found = session.with_content(&owner.content())?;
            if found.is_empty() {
                found = legacy(session, owner)?;
            }
            found.retain(|one| wanted(one.address));
            remove_all(session, &found, Vec::new())
        })
    }

    /// The addresses of an owner, those included that are kept under the container id alone.
    ///
    /// Works without write permission, then at the cost of reading every reservation if the index is not complete.
    ///
    /// # Errors
    /// [`Error::Io`], also if nothing was found and some reservation could not be read.
    pub fn find(&self, owner: &Owner<'_>) -> Result<Vec<IpAddr>> {
        self.existing(Access::Read, |session| {
            let found = owned(session, owner)?;
            match session.unread().into_iter().next() {
                Some(err) if found.is_empty() => Err(err),
                _ => Ok(found.into_iter().map(|one| one.address).collect()),
            }
        })
    }

    /// All reservations, sorted by address; those that cannot be read are not among them.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory is there but cannot be listed.
    pub fn list(&self) -> Result<Vec<Reserved>> {
        self.existing(Access::Read, |session| {
            let all = session.all()?.to_vec();
            let mut listed: Vec<Reserved> = all.iter().map(|one| reserved(session, one)).collect();
            listed.sort_by_key(|one| one.address);
            Ok(listed)
        })
    }

    /// Releases every reservation whose owner is not among those to keep, and returns the addresses that are free now,
    /// those of empty files included.
    ///
    /// A reservation that holds only a container id is kept if a kept owner has this container id.
    ///
    /// # Errors
    /// As [`Store::release`]; a reservation that cannot be read is left and reported too.
    pub fn gc(&self, keep: &[Owner<'_>]) -> Result<Vec<IpAddr>> {
        let mut kept: HashSet<Vec<u8>> = keep.iter().map(Owner::content).collect();
        kept.extend(keep.iter().map(|owner| owner.legacy_content().to_vec()));
        self.existing(Access::Change, |session| {
            let stale: Vec<Reservation> =
                session.all()?.iter().filter(|one| !kept.contains(&one.content)).cloned().collect();
            let mut removed = session.reclaimed().to_vec();
            let unread = session.unread();
            match remove_all(session, &stale, unread) {
                Ok(more) => {
                    removed.extend(more);
                    Ok(removed)
                }
                Err(Error::Incomplete { removed: more, errors }) => {
                    removed.extend(more);
                    Err(Error::Incomplete { removed, errors })
                }
                Err(err) => Err(err),
            }
        })
    }

    /// How many addresses of a set are free, by the names of the reservations alone (2¹²⁸ is given as 2¹²⁸ - 1).
    ///
    /// # Errors
    /// [`Error::Io`] if the directory is there but cannot be listed.
    pub fn available(&self, set: &RangeSet) -> Result<u128> {
        let Some(session) = Session::begin(&self.data_dir, &self.network, Access::Read)? else {
            return Ok(set.capacity());
        };
        let taken: Vec<IpAddr> = session
            .listing()?
            .into_iter()
            .filter(|address| set.contains(*address) && !set.is_gateway(*address))
            .collect();
        let free = set.capacity().saturating_sub(taken.len() as u128);
        if free > 0 {
            return Ok(free);
        }
        // What an allocation would reclaim is free too.
        Ok(taken.into_iter().filter(|address| session.is_empty(*address)).count() as u128)
    }

    /// Runs an operation that reserves.
    fn create<T>(&self, operation: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let access = Access::Create;
        let Some(mut session) = Session::begin(&self.data_dir, &self.network, access)? else {
            unreachable!("a directory that is to be created is never missing")
        };
        let result = session.ensure_index().and_then(|()| operation(&mut session));
        session.finish();
        result
    }

    /// Runs an operation that has nothing to do where there is no directory.
    fn existing<T: Default>(
        &self,
        access: Access,
        operation: impl FnOnce(&mut Session) -> Result<T>,
    ) -> Result<T> {
        let Some(mut session) = Session::begin(&self.data_dir, &self.network, access)? else {
            return Ok(T::default());
        };
        let result = operation(&mut session);
        session.finish();
        result
    }
}

fn reserved(session: &Session, one: &Reservation) -> Reserved {
    let text = String::from_utf8_lossy(&one.content);
    let (container_id, ifname) = text.split_once("\r\n").unwrap_or((&text, ""));
    Reserved {
        address: one.address,
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
        since: session.since(one),
    }
}

/// The owner's reservations, in its own name and in the container's.
fn owned(session: &mut Session, owner: &Owner<'_>) -> Result<Vec<Reservation>> {
    let mut found = session.with_content(&owner.content())?;
    found.extend(legacy(session, owner)?);
    Ok(found)
}

fn legacy(session: &mut Session, owner: &Owner<'_>) -> Result<Vec<Reservation>> {
    match owner.legacy_content() {
        [] => Ok(Vec::new()),
        content => session.with_content(content),
    }
}

fn reserve(
    session: &mut Session,
    set_index: usize,
    set: &RangeSet,
    owner: &Owner<'_>,
    requested: Option<IpAddr>,
) -> Result<(Allocation, Reservation)> {
    let requested = requested.map(|address| decide::requested(set, address)).transpose()?;
    if requested.is_none()
        && let Some(old) = owned(session, owner)?.into_iter().find(|one| set.contains(one.address))
    {
        return Err(Error::Duplicate {
            address: old.address,
            container_id: owner.container_id.trim().to_owned(),
        });
    }
    let content = owner.content();
    session.draft(&content)?;
    let chosen = match requested {
        Some(candidate) => session.take(candidate.address, &content).and_then(|taken| {
            let refusal = || Error::RequestedTaken { address: candidate.address, set: set.to_string() };
            taken.then_some(candidate).ok_or_else(refusal)
        }),
        None => next_free(session, set_index, set, &content),
    };
    session.discard_draft();
    let Candidate { address, range } = chosen?;
    let reservation = session.enter(address, &content, set_index)?;
    Ok((Allocation { address: range.with_prefix(address), gateway: Some(range.gateway()) }, reservation))
}

fn next_free<'a>(
    session: &mut Session,
    set_index: usize,
    set: &'a RangeSet,
    content: &[u8],
) -> Result<Candidate<'a>> {
    loop {
        let take = |address| session.take(address, content);
        let chosen = decide::choose(set, session.last_reserved(set_index), take, || session.listing())?;
        match chosen {
            Some(candidate) => return Ok(candidate),
            // The last resort: files that someone emptied while the index was believed.
            None if session.reclaim_all()? => {}
            None => return Err(Error::Exhausted { set: set.to_string() }),
        }
    }
}

/// Removes all it can. Errors come on top of those that stood before.
fn remove_all(session: &mut Session, found: &[Reservation], mut errors: Vec<Error>) -> Result<Vec<IpAddr>> {
    let mut removed = Vec::with_capacity(found.len());
    for reservation in found {
        match session.remove(reservation) {
            Ok(()) => removed.push(reservation.address),
            Err(err) => errors.push(err),
        }
    }
    if errors.is_empty() { Ok(removed) } else { Err(Error::Incomplete { removed, errors }) }
}
