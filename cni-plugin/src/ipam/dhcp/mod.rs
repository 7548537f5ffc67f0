//! `dhcp`: addresses from the servers and routers of the network that the pod's link is on.
//!
//! The plugin asks a daemon of its node, which keeps the leases up. Here stand the plugin's verbs; the daemon is in
//! [`daemon`], the protocols in [`v4`] and [`v6`]: state machines without sockets and clocks.

mod config;
pub(crate) mod daemon;
mod frame;
mod hash;
mod machine;
mod names;
mod rpc;
mod state;
mod timing;
mod v4;
mod v6;

use std::time::Duration;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Dns, Error, Undo, code};

use super::request::one_per_family;
use config::{DhcpConfig, Place};
use rpc::{Key, Request, Unanswered, Wish};

/// How long the daemon may take for what it answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The plugin.
pub(crate) struct Dhcp;

fn key(call: &Call) -> Key {
    Key {
        network: call.conf.name.clone(),
        container_id: call.env.container_id.clone(),
        ifname: call.env.ifname.clone(),
    }
}

impl Plugin for Dhcp {
    fn name(&self) -> &'static str {
        "dhcp"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let DhcpConfig { place, mode, options, priority, dns } = DhcpConfig::resolve(call)?;
        // The daemon's working directory is another one.
        let netns = std::path::absolute(&call.env.netns).map_err(|error| {
            Error::internal(format!("failed to make {:?} an absolute path: {error}", call.env.netns))
        })?;
        let netns = netns.to_string_lossy().into_owned();
        let wish = Wish { mode, options, priority };
        let request = Request::Add { key: key(call), netns, wish };
        // The daemon knows best how long it takes; the runtime ends both.
        let (mut result, new) = rpc::call(&place.socket, &request, None)?;
        if new {
            let (socket, request) = (place.socket, Request::Del { key: key(call) });
            undo.push("release the lease", move || {
                let outcome = rpc::call(&socket, &request, Some(PATIENCE));
                outcome.map(drop).map_err(|unanswered| Error::from(unanswered).msg)
            });
        }
        let v6 = result.ips.iter().filter(|ip| ip.address.is_ipv6()).count();
        one_per_family(call.version, result.ips.len() - v6, v6)?;
        if !dns {
            result.dns = Dns::default();
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let (place, key) = (Place::of(call)?, key(call));
        let request = Request::Del { key: key.clone() };
        without_daemon(&place, &request, || state::forget(&place.state_dir, &key))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = DhcpConfig::resolve(call)?;
        let request = Request::Check { key: key(call) };
        let (lease, _) = rpc::call(&config.place.socket, &request, Some(PATIENCE))?;
        let Some(previous) = &call.conf.prev_result else { return Ok(()) };
        for held in lease.ips.iter().map(|ip| ip.address) {
            if !previous.ips.iter().any(|ip| ip.address == held) {
                return Err(Error::internal(format!(
                    "dhcp: the lease of container {} is of {held}, which is not in prevResult",
                    call.env.container_id
                )));
            }
        }
        Ok(())
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let Some(valid) = &call.conf.valid_attachments else { return Ok(()) };
        let (place, network) = (Place::of(call)?, call.conf.name.as_str());
        let request = Request::Gc { network: network.to_owned(), valid: valid.clone() };
        let kept = |key: &Key| {
            valid.iter().any(|kept| kept.container_id == key.container_id && kept.ifname == key.ifname)
        };
        without_daemon(&place, &request, || state::forget_others(&place.state_dir, network, kept))
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let config = DhcpConfig::resolve(call)?;
        rpc::call(&config.place.socket, &Request::Status, Some(PATIENCE))
            .map(drop)
            .map_err(|unanswered| Error { code: code::UNAVAILABLE, ..unanswered.into() })
    }
}

/// Asks the daemon to remove something. When there is none, what it would go on with is removed from its files instead,
/// and that is success: the server takes the address back when the lease is over.
fn without_daemon(
    place: &Place,
    request: &Request,
    forget: impl FnOnce() -> Result<(), String>,
) -> Result<(), Error> {
    match rpc::call(&place.socket, request, Some(PATIENCE)) {
        Ok(_) => Ok(()),
        Err(Unanswered::Absent(error)) => {
            // The log is best effort.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("dhcp: the lease is not released but forgotten: {error}\n"),
            );
            forget().map_err(|error| Error::new(code::IO, error))
        }
        Err(unanswered) => Err(unanswered.into()),
    }
}
