//! One operation on one network's directory: from taking the lock to letting it go.
//!
//! It decides whether the index may be believed, rebuilds it from the reservations when not, and keeps both in step.
//! The reasoning is at the head of [`crate::store`]. It does not decide what to reserve or to release.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::stat::Mode;

use crate::directory::{Content, Directory, Stamp, is_at, name};
use crate::index::{self, Index, Reservation};
use crate::{Error, Result};

/// The lock's file name and mode, as the reference makes it.
const LOCK: &str = "lock";
const LOCK_MODE: Mode = Mode::from_bits_truncate(0o750);
/// How often the lock is taken anew when it is found to have been removed meanwhile.
const LOCK_TRIES: usize = 100;
/// The directory of indexes beside the networks' own, in a directory of reservations.
pub const INDEXES: &str = ".podnet";
/// Our files in the index directory while they are written: one each, as only the lock's holder writes.
const DRAFT: &str = "reservation";
const LAST_DRAFT: &str = "last";

/// What an operation means to do, which says what may be created and what may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reserve: make the directories.
    Create,
    /// Release: a directory that is not there has nothing to release.
    Change,
    /// Look: as well as permissions allow, without the lock if it cannot be had.
    Read,
}

/// A network's directory, locked.
#[derive(Debug)]
pub(crate) struct Session {
    network: Directory,
    index_path: PathBuf,
    index: Option<Index>,
    /// Whether the index holds exactly the reservations.
    indexed: bool,
    /// All reservations, if they had to be read.
    all: Option<Vec<Reservation>>,
    /// Whether the directories changed, so that their times have to be set.
    changed: bool,
    /// Files that could not be read: of unknown owner.
    unread: Vec<Error>,
    /// Addresses of empty files that were removed.
    reclaimed: Vec<IpAddr>,
    lock: Option<File>,
}

impl Session {
    /// Opens and locks `<data_dir>/<network>`. `None` if there is no such directory, unless `access` is to create it.
    pub(crate) fn begin(data_dir: &Path, network: &str, access: Access) -> Result<Option<Session>> {
        let path = data_dir.join(network);
        let Some((directory, lock)) = open_locked(&path, access)? else { return Ok(None) };
        let index_path = data_dir.join(INDEXES).join(network);
        let index = match access {
            Access::Create => Some(Index::create(&index_path)?),
            Access::Change | Access::Read => Index::open(&index_path).unwrap_or_default(),
        };
        let indexed = match &index {
            Some(index) => {
                let stamp = directory.stamp()?;
                stamp.seconds == boot_seconds() && stamp == index.directory().stamp()?
            }
            None => false,
        };
        Ok(Some(Session {
            network: directory,
            index_path,
            index,
            indexed,
            all: None,
            changed: false,
            unread: Vec::new(),
            reclaimed: Vec::new(),
            lock,
        }))
    }

    /// Ends the operation: marks the index as complete, if it is. Without this call it counts as incomplete.
    pub(crate) fn finish(self) {
        let Some(index) = &self.index else { return };
        if !(self.changed && self.indexed && self.unread.is_empty() && self.lock.is_some()) {
            return;
        }
        let random = std::hash::RandomState::new().build_hasher().finish();
        let stamp = Stamp { seconds: boot_seconds(), nanoseconds: (random % 1_000_000_000) as i64 };
        // An index that cannot be marked, for want of ownership say, is rebuilt the next time: slow but right.
        if index.directory().set_stamp(stamp).is_ok() {
            let _ = self.network.set_stamp(stamp);
        }
    }

    /// The reservations with this content.
    pub(crate) fn with_content(&mut self, content: &[u8]) -> Result<Vec<Reservation>> {
        if self.indexed
            && let Some(index) = &self.index
        {
            if let Some(found) = index.lookup(&self.network, content)? {
                return Ok(found);
            }
            self.indexed = false;
        }
        Ok(self.all()?.iter().filter(|one| one.content == content).cloned().collect())
    }

    /// All reservations, read one by one unless they have been already.
    pub(crate) fn all(&mut self) -> Result<&[Reservation]> {
        if self.all.is_none() {
            self.read_all()?;
        }
        Ok(self.all.as_deref().unwrap_or_default())
    }

    /// Makes sure that the index is complete, where it can be.
    pub(crate) fn ensure_index(&mut self) -> Result<()> {
        if !self.indexed {
            self.read_all()?;
        }
        Ok(())
    }

    /// Files that could not be read, so far.
    pub(crate) fn unread(&mut self) -> Vec<Error> {
        self.unread.clone()
    }

    /// Addresses of empty files that were removed, so far.
    pub(crate) fn reclaimed(&self) -> &[IpAddr] {
        &self.reclaimed
    }

    /// The addresses that are reserved, by name only.
    pub(crate) fn listing(&self) -> Result<HashSet<IpAddr>> {
        reserved(&self.network)
    }

    /// Whether an address is held by nothing but an empty file.
    pub(crate) fn is_empty(&self, address: IpAddr) -> bool {
        self.network.is_empty_file(OsStr::new(&address.to_string()))
    }

    /// When a reservation was written.
    pub(crate) fn since(&self, reservation: &Reservation) -> Option<SystemTime> {
        self.network.written(&reservation.file)
    }

    /// Reads every reservation once, removes empty files, and makes the index right if that is possible.
    fn read_all(&mut self) -> Result<()> {
        let mut all = Vec::new();
        self.unread.clear();
        for file in self.network.names()? {
            let Some(address) = index::parse(&file) else { continue };
            match self.network.read(&file) {
                Ok(Content::Bytes(bytes)) if bytes.is_empty() => self.reclaim(&file, address),
                Ok(Content::Bytes(bytes)) => {
                    all.push(Reservation { file, address, content: index::trim(&bytes).to_vec() });
                }
                Ok(Content::Absent | Content::NotAFile) => {}
                Err(err) => self.unread.push(err),
            }
        }
        if self.lock.is_some() {
            self.changed = true;
            self.indexed = self.rewrite_index(&all).is_ok();
        }
        self.all = Some(all);
        Ok(())
    }

    /// Removes empty files, found without reading any; whether there were some.
    pub(crate) fn reclaim_all(&mut self) -> Result<bool> {
        let before = self.reclaimed.len();
        for file in self.network.names()? {
            if let Some(address) = index::parse(&file).filter(|_| self.network.is_empty_file(&file)) {
                // Its link, of when it was not empty, is wrong now.
                self.indexed = false;
                self.reclaim(&file, address);
            }
        }
        Ok(self.reclaimed.len() > before)
    }

    fn reclaim(&mut self, file: &OsStr, address: IpAddr) {
        if self.lock.is_some() {
            match self.network.unlink(file) {
                Ok(_) => self.reclaimed.push(address),
                Err(err) => self.unread.push(err),
            }
        }
    }

    fn rewrite_index(&mut self, all: &[Reservation]) -> Result<()> {
        let index = match self.index.take() {
            Some(index) => index,
            None => Index::create(&self.index_path)?,
        };
        self.index.insert(index).rewrite(all)
    }

    /// The address that this set gave last, as far as is known.
    pub(crate) fn last_reserved(&self, set_index: usize) -> Option<IpAddr> {
        match self.network.read(&last_file(set_index)) {
            Ok(Content::Bytes(bytes)) => index::parse(name(index::trim(&bytes))),
            _ => None,
        }
    }

    /// Writes what a reservation is to hold, to be linked into place by [`Session::take`].
    pub(crate) fn draft(&mut self, content: &[u8]) -> Result<()> {
        self.changed = true;
        self.drafts()?.create_anew(OsStr::new(DRAFT), content)
    }

    /// Removes the draft; one that stays behind makes the index one that is to be tidied.
    pub(crate) fn discard_draft(&mut self) {
        if self.drafts().and_then(|drafts| drafts.unlink(OsStr::new(DRAFT))).is_err() {
            self.indexed = false;
        }
    }

    /// Makes the draft the reservation of an address. False if the address is taken.
    pub(crate) fn take(&self, address: IpAddr, content: &[u8]) -> Result<bool> {
        let file = OsString::from(address.to_string());
        match self.network.link(self.drafts()?, OsStr::new(DRAFT), &file) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            // No hard links here, or the two directories are on two file systems: write in place as the reference does.
            Err(Errno::EXDEV | Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {
                self.network.create(&file, content)
            }
            Err(errno) => Err(self.network.error("create reservation", &file, errno)),
        }
    }

    /// Enters a reservation that [`Session::take`] made; removes it again if that cannot be done.
    pub(crate) fn enter(&mut self, address: IpAddr, content: &[u8], set_index: usize) -> Result<Reservation> {
        let file = OsString::from(address.to_string());
        let reservation = Reservation { file, address, content: index::trim(content).to_vec() };
        if let Some(index) = self.index.as_ref().filter(|_| self.indexed)
            && let Err(err) = index.add(&reservation.content, &reservation.file)
        {
            self.indexed = false;
            let _ = self.network.unlink(&reservation.file);
            return Err(err);
        }
        if let Some(all) = &mut self.all {
            all.push(reservation.clone());
        }
        if let Err(err) = self.write_last(set_index, address) {
            let _ = self.remove(&reservation);
            // The draft may have stayed behind.
            self.indexed = false;
            return Err(err);
        }
        Ok(reservation)
    }

    /// Written in place where one write does it: to replace a file makes some file systems (ext4) write its content to
    /// the medium at once, which takes longer than all else here.
    fn write_last(&self, set_index: usize, address: IpAddr) -> Result<()> {
        let (file, text) = (last_file(set_index), address.to_string());
        if self.network.overwrite(&file, text.as_bytes()) {
            return Ok(());
        }
        let drafts = self.drafts()?;
        drafts.create_anew(OsStr::new(LAST_DRAFT), text.as_bytes())?;
        match self.network.rename(drafts, OsStr::new(LAST_DRAFT), &file) {
            Ok(()) => Ok(()),
            Err(errno) => {
                let _ = drafts.unlink(OsStr::new(LAST_DRAFT));
                match errno {
                    // It only says where to begin: a crash between removing and writing is of no matter.
                    Errno::EXDEV => self.network.create_anew(&file, text.as_bytes()),
                    _ => Err(self.network.error("replace", &file, errno)),
                }
            }
        }
    }

    /// Removes a reservation; one that is gone already is fine.
    pub(crate) fn remove(&mut self, reservation: &Reservation) -> Result<()> {
        self.changed = true;
        self.network.unlink(&reservation.file)?;
        if let Some(index) = self.index.as_ref().filter(|_| self.indexed) {
            // The reservation is gone whatever becomes of the index.
            self.indexed = index.remove(&reservation.content, &reservation.file).is_ok();
        }
        if let Some(all) = &mut self.all {
            all.retain(|one| one.file != reservation.file);
        }
        Ok(())
    }

    fn drafts(&self) -> Result<&Directory> {
        let absent =
            || Error::Io { action: "open directory", path: self.index_path.clone(), errno: Errno::ENOENT };
        self.index.as_ref().map(Index::directory).ok_or_else(absent)
    }
}

/// Opens the directory and takes its lock; without a lock only to read, where it cannot be opened.
fn open_locked(path: &Path, access: Access) -> Result<Option<(Directory, Option<File>)>> {
    for _ in 0..LOCK_TRIES {
        let Some(directory) = Directory::open(path)? else {
            if access == Access::Create {
                index::make_directory(path, 0o755)?;
                continue;
            }
            return Ok(None);
        };
        match take_lock(&directory) {
            Ok(lock) if is_at(&lock, &path.join(LOCK)) => return Ok(Some((directory, Some(lock)))),
            // Someone removed the directory or the lock while we waited for it.
            Ok(_) => {}
            Err(err) if err.errno() == Some(Errno::ENOENT as i32) => {}
            Err(_) if access == Access::Read => return Ok(Some((directory, None))),
            // After an ADD that found no room even for the lock, DEL has nothing to do.
            Err(_) if access == Access::Change && reserved(&directory)?.is_empty() => return Ok(None),
            Err(err) => return Err(err),
        }
    }
    Err(Error::Io { action: "lock", path: path.join(LOCK), errno: Errno::ESTALE })
}

/// The addresses that files of the directory are named by.
fn reserved(directory: &Directory) -> Result<HashSet<IpAddr>> {
    Ok(directory.names()?.iter().filter_map(|file| index::parse(file)).collect())
}

/// Holds flock(2) until the file is closed; a descriptor is closed also where the kernel would refuse to unlock it.
fn take_lock(directory: &Directory) -> Result<File> {
    let name = OsStr::new(LOCK);
    let file = File::from(directory.open_lock(name, LOCK_MODE)?);
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => {
                let errno = err.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
                return Err(directory.error("lock", name, errno));
            }
        }
    }
}

fn last_file(set_index: usize) -> OsString {
    format!("last_reserved_ip.{set_index}").into()
}

/// The second that marks a complete index: it is derived from the boot id, so that after each boot every reservation
/// is read once, and lies between 1987 and 2004, so that no clock that is right ever gives it.
fn boot_seconds() -> i64 {
    static SECONDS: OnceLock<i64> = OnceLock::new();
    *SECONDS.get_or_init(|| {
        // Without a boot id, where /proc is not mounted, all boots are taken for one.
        let mut id = [0; 64];
        let mut read = || File::open("/proc/sys/kernel/random/boot_id")?.read(&mut id);
        let length = read().unwrap_or_default();
        (1 << 29) + (index::hash(&id[..length]) >> 35) as i64
    })
}
