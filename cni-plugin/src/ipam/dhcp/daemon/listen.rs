//! The daemon's socket: handed on by systemd, or made here in the place of one that a dead daemon left.

use std::fs::{self, File};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The first descriptor that systemd hands on (sd_listen_fds(3)).
const FIRST: i32 = 3;

/// The socket, and its file when it is ours to remove.
pub(super) struct Listener {
    pub(super) socket: UnixListener,
    pub(super) file: Option<PathBuf>,
}

impl Listener {
    /// Takes the socket that systemd hands on, else listens at `path`.
    ///
    /// # Errors
    /// More than one socket was handed on, `path` is another daemon's or cannot be had.
    pub(super) fn open(path: &Path) -> Result<Listener, String> {
        let listener = match handed_on(|name| std::env::var(name).ok())? {
            Some(number) => {
                let taken = kernel::inherit::descriptor(number).map_err(|error| error.to_string())?;
                Listener { socket: UnixListener::from(taken), file: None }
            }
            None => Listener {
                socket: listen(path).map_err(|error| format!("listen at {}: {error}", path.display()))?,
                file: Some(path.to_path_buf()),
            },
        };
        listener.socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok(listener)
    }
}

/// The number of the one descriptor that systemd hands on to this process.
fn handed_on(variable: impl Fn(&str) -> Option<String>) -> Result<Option<i32>, String> {
    let number = |name| variable(name).and_then(|text: String| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(FIRST)),
        Some(n) => Err(format!("Too many ({n}) FDs passed through socket activation")),
    }
}

/// Binds `path`. A socket file that nobody listens at is replaced; daemons that start at the same time wait for each
/// other by a lock on the directory.
fn listen(path: &Path) -> Result<UnixListener, Error> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let _lock =
        Flock::lock(File::open(dir)?, FlockArg::LockExclusive).map_err(|(_, errno)| Error::from(errno))?;
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(Error::new(ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
        }
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Ok(_) => return Err(Error::new(ErrorKind::AddrInUse, "another daemon answers there")),
            Err(error) => return Err(error),
        }
    }
    let listener = UnixListener::bind(path)?;
    // As the reference's socket unit has it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/dhcp.sock");
        drop(listen(&path).unwrap());
        assert!(path.exists(), "what a killed daemon leaves");
        let alive = listen(&path).unwrap();
        assert!(listen(&path).unwrap_err().to_string().contains("another daemon answers"));
        UnixStream::connect(&path).unwrap();
        drop(alive);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(listen(&path).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_descriptor_for_this_process_is_taken() {
        let own = std::process::id().to_string();
        let told = |pid: &str, fds: &str| {
            let (pid, fds) = (pid.to_owned(), fds.to_owned());
            handed_on(move |name| Some(if name == "LISTEN_PID" { pid.clone() } else { fds.clone() }))
        };
        assert_eq!(told(&own, "1"), Ok(Some(3)));
        assert_eq!(told("1", "1"), Ok(None), "meant for another process");
        assert_eq!(told(&own, "0"), Ok(None));
        assert_eq!(told(&own, "2"), Err("Too many (2) FDs passed through socket activation".into()));
        assert_eq!(handed_on(|_| None), Ok(None));
    }
}
