//! An open directory: the few operations that the store needs, each by file descriptor, each error with its path.
//!
//! It gives no meaning to names or contents and takes no lock. Nothing is flushed to the medium (see [`crate::store`]).

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, futimens, stat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, read, symlinkat, unlinkat, write};

use crate::{Error, Result};

/// The file mode of what is written: the owner's only.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// What a name in the directory turned out to hold.
pub(crate) enum Content {
    /// There is no such name (any more).
    Absent,
    /// Something that is no file: a directory, a FIFO, a socket.
    NotAFile,
    /// A file and its bytes.
    Bytes(Vec<u8>),
}

/// A modification time, in seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// An open directory and the path it was opened by.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens an existing directory; `None` if there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Directory>> {
        match open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(Directory { fd, path: path.to_owned() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error::Io { action: "open directory", path: path.to_owned(), errno }),
        }
    }

    /// An error about a name in this directory.
    pub(crate) fn error(&self, action: &'static str, name: &OsStr, errno: Errno) -> Error {
        Error::Io { action, path: self.path.join(name), errno }
    }

    /// When names were last added or removed, or what was set instead.
    pub(crate) fn stamp(&self) -> Result<Stamp> {
        let stat = fstat(&self.fd).map_err(|errno| self.error("stat", OsStr::new(""), errno))?;
        Ok(Stamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec })
    }

    /// Sets the modification time.
    pub(crate) fn set_stamp(&self, stamp: Stamp) -> Result<()> {
        let time = TimeSpec::new(stamp.seconds, stamp.nanoseconds);
        futimens(&self.fd, &TimeSpec::UTIME_OMIT, &time)
            .map_err(|errno| self.error("set the time of", OsStr::new(""), errno))
    }

    /// Opens a file for its lock, made with this mode if absent.
    pub(crate) fn open_lock(&self, name: &OsStr, mode: Mode) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC;
        openat(&self.fd, name, flags, mode).map_err(|errno| self.error("open", name, errno))
    }

    /// All names but `.` and `..`, in no order.
    pub(crate) fn names(&self) -> Result<Vec<std::ffi::OsString>> {
        let list = || {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let mut names = Vec::new();
            for entry in Dir::openat(&self.fd, ".", flags, Mode::empty())?.iter() {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(std::os::unix::ffi::OsStringExt::from_vec(name));
                }
            }
            Ok(names)
        };
        list().map_err(|errno| self.error("list", OsStr::new(""), errno))
    }

    /// Reads a file; never waits for a FIFO's writer.
    pub(crate) fn read(&self, name: &OsStr) -> Result<Content> {
        let get = || {
            let fd = match openat(
                &self.fd,
                name,
                OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
                Mode::empty(),
            ) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) => return Ok(Content::Absent),
                Err(Errno::ENXIO | Errno::ENODEV) => return Ok(Content::NotAFile),
                Err(errno) => return Err(errno),
            };
            let mut bytes = Vec::new();
            let mut buffer = [0; 1024];
            loop {
                let count = match retry(|| read(&fd, &mut buffer)) {
                    Ok(count) => count,
                    Err(Errno::EISDIR | Errno::EAGAIN) => return Ok(Content::NotAFile),
                    Err(errno) => return Err(errno),
                };
                bytes.extend_from_slice(&buffer[..count]);
                if count < buffer.len() {
                    break;
                }
            }
            // An empty answer may come from a FIFO, a device or a directory of some file systems.
            Ok(if bytes.is_empty() && !is_file(&fstat(&fd)?) {
                Content::NotAFile
            } else {
                Content::Bytes(bytes)
            })
        };
        get().map_err(|errno| self.error("read", name, errno))
    }

    /// Whether the name is a file without content.
    pub(crate) fn is_empty_file(&self, name: &OsStr) -> bool {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| is_file(&stat) && stat.st_size == 0)
    }

    /// When the content of a file was written; none where that cannot be told.
    pub(crate) fn written(&self, name: &OsStr) -> Option<SystemTime> {
        let stat = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    }

    /// Makes a new file with this content; on any error there is none.
    ///
    /// `Ok(false)` if the name is taken.
    pub(crate) fn create(&self, name: &OsStr, content: &[u8]) -> Result<bool> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let fd = match openat(&self.fd, name, flags, PRIVATE) {
            Ok(fd) => fd,
            Err(Errno::EEXIST) => return Ok(false),
            Err(errno) => return Err(self.error("create", name, errno)),
        };
        let mut rest = content;
        while !rest.is_empty() {
            match retry(|| write(&fd, rest)) {
                Ok(0) => return Err(self.discard(name, Errno::EIO)),
                Ok(count) => rest = &rest[count..],
                Err(errno) => return Err(self.discard(name, errno)),
            }
        }
        // Some file systems (NFS, those with quotas) tell only on close that there was no room.
        nix::unistd::close(fd).map_err(|errno| self.discard(name, errno))?;
        Ok(true)
    }

    fn discard(&self, name: &OsStr, errno: Errno) -> Error {
        let _ = unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir);
        self.error("write", name, errno)
    }

    /// As [`Directory::create`], but a file of this name is removed first.
    pub(crate) fn create_anew(&self, name: &OsStr, content: &[u8]) -> Result<()> {
        if !self.create(name, content)? {
            self.unlink(name)?;
            if !self.create(name, content)? {
                return Err(self.error("create", name, Errno::EEXIST));
            }
        }
        Ok(())
    }

    /// Writes over a file that is no longer than `content`, in one write; false where that cannot be done.
    pub(crate) fn overwrite(&self, name: &OsStr, content: &[u8]) -> bool {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let Ok(fd) = openat(&self.fd, name, flags, Mode::empty()) else { return false };
        let fits = |stat: FileStat| {
            is_file(&stat)
                && stat.st_nlink == 1
                && usize::try_from(stat.st_size).is_ok_and(|size| size <= content.len())
        };
        fstat(&fd).is_ok_and(fits) && retry(|| write(&fd, content)) == Ok(content.len())
    }

    /// Gives a file of another directory a second name here, never over an existing one.
    ///
    /// # Errors
    /// The bare errno, of which the caller knows some to mean more than failure.
    pub(crate) fn link(
        &self,
        from: &Directory,
        file: &OsStr,
        name: &OsStr,
    ) -> std::result::Result<(), Errno> {
        linkat(&from.fd, file, &self.fd, name, AtFlags::empty())
    }

    /// Moves a file of another directory here, over an existing one.
    pub(crate) fn rename(
        &self,
        from: &Directory,
        file: &OsStr,
        name: &OsStr,
    ) -> std::result::Result<(), Errno> {
        renameat(&from.fd, file, &self.fd, name)
    }

    /// Removes a name; false if there was none.
    pub(crate) fn unlink(&self, name: &OsStr) -> Result<bool> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.error("remove", name, errno)),
        }
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(&self, name: &OsStr, target: &OsStr) -> Result<()> {
        symlinkat(target, &self.fd, name).map_err(|errno| self.error("create", name, errno))
    }

    /// The target of a symbolic link; `None` if there is no such link.
    pub(crate) fn read_link(&self, name: &OsStr) -> Result<Option<std::ffi::OsString>> {
        match readlinkat(&self.fd, name) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
            Err(errno) => Err(self.error("read link", name, errno)),
        }
    }
}

/// Whether the open file is the one that the path leads to now.
pub(crate) fn is_at(fd: impl AsFd, path: &Path) -> bool {
    let identity = |stat: FileStat| (stat.st_dev, stat.st_ino);
    matches!((fstat(fd), stat(path)), (Ok(held), Ok(found)) if identity(held) == identity(found))
}

/// Repeats a system call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn is_file(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

/// Bytes as a file name.
pub(crate) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
