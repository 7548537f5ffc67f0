//! The IPAM plugins, and how an interface plugin reaches the one that its configuration names: in this
//! process when the name resolves to this executable, by running it as the specification says otherwise.

pub(crate) mod dhcp;
pub(crate) mod host_local;
pub(crate) mod request;
pub(crate) mod static_;

use std::path::PathBuf;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo, code, delegate};

use crate::applet::{self, Kind};

/// The IPAM plugin of one call.
pub(crate) enum Ipam {
    /// One of this executable, called as a function.
    Own(&'static dyn Plugin),
    /// Another program.
    Foreign(PathBuf),
}

impl Ipam {
    /// Finds the plugin that `ipam.type` names on CNI_PATH.
    ///
    /// # Errors
    /// No type, not on the path, or one of ours that is no IPAM plugin.
    pub(crate) fn find(call: &Call) -> Result<Self, Error> {
        let name = call.conf.ipam_type().unwrap_or_default();
        let path = delegate::find(name, &call.cni_path())?;
        if !delegate::is_self(&path) {
            return Ok(Self::Foreign(path));
        }
        match applet::find(name) {
            Some(applet) if applet.kind == Kind::Ipam => Ok(Self::Own(applet.plugin)),
            _ => Err(Error::invalid(format!("ipam type {name:?} is not an IPAM plugin"))),
        }
    }

    /// As [`find`](Self::find), for STATUS: a delegate that is not there means that ADD cannot be served
    /// (code 50).
    ///
    /// # Errors
    /// As `find`, with code 50.
    pub(crate) fn find_for_status(call: &Call) -> Result<Self, Error> {
        Self::find(call).map_err(unavailable)
    }

    /// Whether ADD needs the pod's link to be there: `dhcp` speaks on it, and of another program nothing is known.
    /// The reference has it there always.
    pub(crate) fn needs_link(&self) -> bool {
        matches!(self, Self::Foreign(_)) || self.releases_on_link()
    }

    /// Whether DEL needs the pod's link still to be there: `dhcp` tells the server on it.
    pub(crate) fn releases_on_link(&self) -> bool {
        match self {
            Self::Own(plugin) => plugin.name() == "dhcp",
            Self::Foreign(path) => path.file_name().is_some_and(|name| name == "dhcp"),
        }
    }

    /// Reserves addresses. A delegate that fails is told to DEL, as the specification asks.
    ///
    /// # Errors
    /// The IPAM plugin's own.
    pub(crate) fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        match self {
            Self::Own(plugin) => plugin.add(call, undo),
            Self::Foreign(path) => {
                let (program, stdin, env) = (path.clone(), call.stdin.clone(), call.env.clone());
                undo.push("release the addresses", move || {
                    delegate::exec(&program, "DEL", &stdin, &env).map(drop).map_err(|err| err.msg)
                });
                delegate::exec(path, "ADD", &call.stdin, &call.env).map(Option::unwrap_or_default)
            }
        }
    }

    /// Releases the attachment's addresses.
    ///
    /// # Errors
    /// The IPAM plugin's own.
    pub(crate) fn del(&self, call: &Call) -> Result<(), Error> {
        match self {
            Self::Own(plugin) => plugin.del(call),
            Self::Foreign(path) => self.run(path, "DEL", call),
        }
    }

    /// Checks that the reservation stands.
    ///
    /// # Errors
    /// The IPAM plugin's own.
    pub(crate) fn check(&self, call: &Call) -> Result<(), Error> {
        match self {
            Self::Own(plugin) => plugin.check(call),
            Self::Foreign(path) => self.run(path, "CHECK", call),
        }
    }

    /// Forwards GC.
    ///
    /// # Errors
    /// The IPAM plugin's own.
    pub(crate) fn gc(&self, call: &Call) -> Result<(), Error> {
        match self {
            Self::Own(plugin) => plugin.gc(call),
            Self::Foreign(path) => self.run(path, "GC", call),
        }
    }

    /// Asks whether addresses can be had.
    ///
    /// # Errors
    /// The IPAM plugin's own; code 50 when it could not be asked.
    pub(crate) fn status(&self, call: &Call) -> Result<(), Error> {
        match self {
            Self::Own(plugin) => plugin.status(call),
            Self::Foreign(path) => self.run(path, "STATUS", call).map_err(unavailable),
        }
    }

    fn run(&self, path: &std::path::Path, command: &str, call: &Call) -> Result<(), Error> {
        delegate::exec(path, command, &call.stdin, &call.env).map(drop)
    }
}

/// The same error with code 50 where the plugin gave none that the specification defines for STATUS.
fn unavailable(err: Error) -> Error {
    if matches!(err.code, code::UNAVAILABLE | code::LIMITED) {
        err
    } else {
        Error { code: code::UNAVAILABLE, ..err }
    }
}
