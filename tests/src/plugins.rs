//! Where the programs under test are: our own binaries, and Debian's reference plugins (package
//! `containernetworking-plugins`). It builds nothing: when a program is missing the error says what to run.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// Where Debian's package `containernetworking-plugins` puts the reference plugins.
pub const DEBIAN: &str = "/usr/lib/cni";

/// The names `podnet` answers to.
pub const NAMES: [&str; 19] = [
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "podnet-policy",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

/// Those that the reference has not, or got after 1.1.1.
const NEWER: [&str; 3] = ["dummy", "tap", "podnet-policy"];

/// Whose plugins a world runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The reference plugins, as packaged by Debian (v1.1.1: specification up to 1.0.0).
    Debian,
    /// Ours.
    Podnet,
}

impl Side {
    /// The directory that holds this side's plugins under their CNI names.
    ///
    /// # Errors
    /// The plugins are not there; the text says how to get them.
    pub fn dir(self) -> Result<PathBuf> {
        match self {
            Side::Debian => debian_dir(),
            Side::Podnet => podnet_dir().map(Path::to_path_buf),
        }
    }

    /// `debian` or `podnet`.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Debian => "debian",
            Side::Podnet => "podnet",
        }
    }
}

/// The `podnet` executable: `PODNET_BIN`, or the one next to this test's executable.
///
/// # Errors
/// There is no such file.
pub fn podnet() -> Result<PathBuf> {
    binary("PODNET_BIN", "podnet")
}

/// The `podlab` executable: `PODLAB_BIN`, or the one next to this test's executable.
///
/// # Errors
/// There is no such file.
pub fn podlab() -> Result<PathBuf> {
    binary("PODLAB_BIN", "podlab")
}

/// The `podnetd` executable: `PODNETD_BIN`, or the one next to this test's executable.
///
/// # Errors
/// There is no such file.
pub fn podnetd() -> Result<PathBuf> {
    binary("PODNETD_BIN", "podnetd")
}

/// The `floor` program of the benchmark: `PODNET_FLOOR`, or the one next to this program.
///
/// # Errors
/// There is no such file.
pub fn floor() -> Result<PathBuf> {
    binary("PODNET_FLOOR", "floor")
}

fn binary(variable: &str, name: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) if path != OsString::new() => PathBuf::from(path),
        _ => profile_dir()?.join(name),
    };
    ensure!(
        path.is_file(),
        "{name}: no such file: {}: run `cargo build --workspace` first, or set {variable}",
        path.display()
    );
    path.canonicalize().with_context(|| format!("resolve {}", path.display()))
}

/// Debian's directory, after a look that the plugins the tests compare with are in it.
///
/// # Errors
/// A plugin is missing.
pub fn debian_dir() -> Result<PathBuf> {
    let dir = PathBuf::from(DEBIAN);
    for name in NAMES.iter().filter(|name| !NEWER.contains(name)) {
        let path = dir.join(name);
        ensure!(
            path.is_file(),
            "reference plugin {} is missing: install the package containernetworking-plugins",
            path.display()
        );
    }
    Ok(dir)
}

/// A directory, made once per run, with a link to `podnet` for each of [`NAMES`].
///
/// # Errors
/// `podnet` is not built, or the directory cannot be made.
pub fn podnet_dir() -> Result<&'static Path> {
    static DIR: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(|| make_podnet_dir().map_err(|e| format!("{e:#}")))
        .as_deref()
        .map_err(|text| anyhow::anyhow!("{text}"))
}

/// The links go beside the test's executable, so that nothing is left in the directory for temporary files when the run
/// ends. Each is put in place by a rename: several runs may do so at once.
fn make_podnet_dir() -> Result<PathBuf> {
    let program = podnet()?;
    let dir = profile_dir()?.join("e2e-plugins");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    for name in NAMES {
        let link = dir.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == program) {
            continue;
        }
        let fresh = dir.join(format!(".{name}.{}", std::process::id()));
        std::os::unix::fs::symlink(&program, &fresh).context("link a plugin name")?;
        fs::rename(&fresh, &link).with_context(|| format!("put {} in place", link.display()))?;
    }
    Ok(dir)
}

/// `<target directory>/<profile>`, two levels above this test's executable.
fn profile_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().context("path of the test's executable")?;
    let profile = own.parent().and_then(Path::parent).context("directory of the test's executable")?;
    Ok(profile.to_path_buf())
}
