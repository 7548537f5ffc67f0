//! The crate's error: what was tried on what, and the kernel's own words about it.
//!
//! Callers ask by method (`is_not_found`, `is_exists`), never by text. It holds no backtrace and no chain.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A request that the kernel refused, or an answer that could not be used.
///
/// Shown as `create link "veth0": file exists (os error 17; kernel: …)`; the part after `kernel:` is the sentence
/// of the extended ack (`NLMSGERR_ATTR_MSG`, linux/netlink.h) and present only when the kernel gave one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {cause}")]
pub struct Error {
    subject: String,
    cause: Cause,
}

/// Why a request came to nothing, before it is known what the request was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// An errno, with the extended ack's sentence if there was one.
    Os { errno: i32, kernel: Option<String> },
    /// The file is on a file system that holds no namespaces; its magic number.
    NotNetns { magic: u64 },
    /// A dump was interrupted (NLM_F_DUMP_INTR) this many times in a row.
    Interrupted { tries: u32 },
    /// The kernel was built without what the request needs: its name and the option that switches it on.
    Lacks(String),
    /// The kernel's answer does not have the shape that linux/rtnetlink.h promises.
    Malformed(String),
}

impl Cause {
    pub(crate) fn errno(errno: i32) -> Self {
        Cause::Os { errno, kernel: None }
    }

    /// The cause as the standard library's error, for where only a number can pass.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Cause::Os { errno, .. } => io::Error::from_raw_os_error(errno),
            Cause::Lacks(_) => io::Error::from_raw_os_error(libc::EOPNOTSUPP),
            _ => io::Error::from_raw_os_error(libc::EIO),
        }
    }

    /// Names what was tried.
    pub(crate) fn about(self, subject: impl Into<String>) -> Error {
        Error { subject: subject.into(), cause: self }
    }
}

impl From<io::Error> for Cause {
    fn from(e: io::Error) -> Self {
        match e.raw_os_error() {
            Some(errno) => Cause::errno(errno),
            None => Cause::Malformed(e.to_string()),
        }
    }
}

impl From<Errno> for Cause {
    fn from(e: Errno) -> Self {
        Cause::errno(e as i32)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Os { errno, kernel } => {
                let words = Errno::from_raw(*errno).desc();
                // "File exists" reads on in lower case; "I/O error" keeps its capital.
                match words.as_bytes() {
                    [first, second, ..] if second.is_ascii_lowercase() => {
                        write!(f, "{}{}", first.to_ascii_lowercase() as char, &words[1..])?;
                    }
                    _ => f.write_str(words)?,
                }
                match kernel {
                    Some(sentence) => write!(f, " (os error {errno}; kernel: {sentence})"),
                    None => write!(f, " (os error {errno})"),
                }
            }
            Cause::NotNetns { magic } => write!(f, "{magic:x}"),
            Cause::Interrupted { tries } => {
                write!(f, "the dump was interrupted by changes {tries} times in a row")
            }
            Cause::Lacks(feature) => write!(f, "kernel lacks {feature}"),
            Cause::Malformed(what) => write!(f, "unusable answer: {what}"),
        }
    }
}

impl Error {
    /// The kernel says that the thing acted on is not there: a file (ENOENT), a link (ENODEV, ENXIO), a route or
    /// namespace id (ESRCH), an address (EADDRNOTAVAIL).
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ESRCH | libc::EADDRNOTAVAIL)
        )
    }

    /// The thing to create is there already (EEXIST).
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// The path handed to [`crate::Netns::open`] exists but is neither on nsfs nor on procfs.
    pub fn is_not_netns(&self) -> bool {
        matches!(self.cause, Cause::NotNetns { .. })
    }

    /// A dump kept being interrupted by changes (NLM_F_DUMP_INTR), so no consistent answer could be had.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.cause, Cause::Interrupted { .. })
    }

    /// The kernel lacks what the request needs; the name of it, with the option that switches it on.
    pub fn lacks(&self) -> Option<&str> {
        match &self.cause {
            Cause::Lacks(feature) => Some(feature),
            _ => None,
        }
    }

    /// The errno, when the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self.cause {
            Cause::Os { errno, .. } => Some(errno),
            Cause::Lacks(_) => Some(libc::EOPNOTSUPP),
            _ => None,
        }
    }

    /// The kernel's own sentence (extended ack), when it gave one.
    pub fn kernel_message(&self) -> Option<&str> {
        match &self.cause {
            Cause::Os { kernel, .. } => kernel.as_deref(),
            _ => None,
        }
    }

    /// An error of the standard library's as one of this crate's, for what is done with a descriptor that this crate gave.
    pub fn io(subject: &str, error: io::Error) -> Error {
        Cause::from(error).about(subject)
    }

    /// What was tried: `create link "veth0"`.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// Repeats a system call as long as a signal interrupts it. A receive with a time limit (SO_RCVTIMEO) is never
/// restarted by the kernel, not even where no handler ran (signal(7), "Interruption of system calls"); each further try
/// has the whole limit.
///
/// # Errors
/// Those of the call, without EINTR.
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_carries_subject_words_number_and_the_kernels_sentence() {
        let plain = Cause::errno(libc::EEXIST).about("create link \"veth0\"");
        assert_eq!(plain.to_string(), "create link \"veth0\": file exists (os error 17)");
        let told = Cause::Os { errno: libc::EINVAL, kernel: Some("Device does not allow it".into()) };
        assert_eq!(
            told.about("set link 4").to_string(),
            "set link 4: invalid argument (os error 22; kernel: Device does not allow it)"
        );
        assert_eq!(Cause::errno(libc::EIO).to_string(), "I/O error (os error 5)");
    }

    #[test]
    fn questions_answer_by_errno() {
        let e = |n| Cause::errno(n).about("x");
        for absent in [libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL, libc::ENXIO] {
            assert!(e(absent).is_not_found() && !e(absent).is_exists());
        }
        assert!(e(libc::EEXIST).is_exists() && !e(libc::EEXIST).is_not_found());
        assert!(!e(libc::EPERM).is_not_found());
        assert_eq!(e(libc::EPERM).errno(), Some(libc::EPERM));
        let torn = Cause::Interrupted { tries: 5 }.about("list links");
        assert!(torn.is_interrupted() && torn.errno().is_none() && torn.kernel_message().is_none());
        assert_eq!(torn.to_string(), "list links: the dump was interrupted by changes 5 times in a row");
    }

    #[test]
    fn lacking_feature_is_named_with_its_option() {
        let e = Cause::Lacks("ipvlan (CONFIG_IPVLAN)".into()).about("create link \"eth0\"");
        assert_eq!((e.lacks(), e.errno()), (Some("ipvlan (CONFIG_IPVLAN)"), Some(libc::EOPNOTSUPP)));
        assert_eq!(e.to_string(), "create link \"eth0\": kernel lacks ipvlan (CONFIG_IPVLAN)");
        assert_eq!(Cause::errno(libc::EOPNOTSUPP).about("x").lacks(), None);
    }

    #[test]
    fn foreign_file_system_is_named_by_its_magic() {
        let e = Cause::NotNetns { magic: 0xef53 }.about("unknown FS magic on \"/etc/passwd\"");
        assert!(e.is_not_netns() && !e.is_not_found());
        assert_eq!(e.to_string(), "unknown FS magic on \"/etc/passwd\": ef53");
    }

    #[test]
    fn only_an_interrupted_call_is_repeated() {
        let answers = |errors: &[i32]| {
            let mut left = errors.iter();
            let outcome =
                uninterrupted(|| left.next().map_or(Ok(()), |&e| Err(std::io::Error::from_raw_os_error(e))));
            (outcome.map_err(|e| e.raw_os_error()), left.len())
        };
        assert_eq!(answers(&[libc::EINTR, libc::EINTR]), (Ok(()), 0));
        assert_eq!(answers(&[libc::EINTR, libc::EAGAIN, libc::EINTR]), (Err(Some(libc::EAGAIN)), 1));
    }
}
