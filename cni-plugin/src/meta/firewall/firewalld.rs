//! firewalld, over D-Bus: the pod's addresses as sources of a zone.
//!
//! firewalld knows no owner of a source; who put an address there is noted in `registry`.

use std::net::IpAddr;

use cni::Error;

use super::dbus::{self, Answer, Bus, Method};

const SERVICE: &str = "org.fedoraproject.FirewallD1";

/// What firewalld says about a source that is not there, or in a zone that is not.
const ABSENT: [&str; 4] = ["NOT_ENABLED", "UNKNOWN_SOURCE", "INVALID_ZONE", "ZONE_CONFLICT"];

/// A connection to firewalld.
pub(super) struct Firewalld {
    bus: Bus,
}

impl Firewalld {
    /// firewalld, if it runs: its name has an owner on the system bus. No bus, no firewalld.
    pub(super) fn running() -> Option<Self> {
        let mut bus = Bus::system(std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").as_deref()).ok()?;
        bus.has_owner(SERVICE).ok()?.then_some(Self { bus })
    }

    /// firewalld, which the configuration names.
    ///
    /// # Errors
    /// It does not run.
    pub(super) fn required() -> Result<Self, Error> {
        let unavailable = |why: String| Error::internal(format!("firewalld does not run: {why}"));
        let mut bus = Bus::system(std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").as_deref())
            .map_err(|err| unavailable(err.to_string()))?;
        match bus.has_owner(SERVICE) {
            Ok(true) => Ok(Self { bus }),
            Ok(false) => Err(unavailable(format!("nobody owns {SERVICE} on the system bus"))),
            Err(err) => Err(unavailable(err.to_string())),
        }
    }

    fn call(&mut self, name: &str, zone: &str, ip: IpAddr) -> Result<Answer, dbus::Error> {
        let method = Method {
            service: SERVICE,
            path: "/org/fedoraproject/FirewallD1",
            interface: "org.fedoraproject.FirewallD1.zone",
            name,
        };
        self.bus.call(method, &[zone, &source(ip)])
    }

    /// Puts an address in a zone; true when it was not there before.
    ///
    /// # Errors
    /// firewalld's own words.
    pub(super) fn add(&mut self, zone: &str, ip: IpAddr) -> Result<bool, Error> {
        match self.call("addSource", zone, ip) {
            Ok(_) => Ok(true),
            Err(dbus::Error::Refused { text, .. }) if text.contains("ZONE_ALREADY_SET") => Ok(false),
            Err(err) => Err(Error::internal(format!(
                "failed to add the address {} to {zone} zone: {err}",
                source(ip)
            ))),
        }
    }

    /// Takes an address out of a zone; absent is success.
    ///
    /// # Errors
    /// firewalld's own words.
    pub(super) fn remove(&mut self, zone: &str, ip: IpAddr) -> Result<(), Error> {
        match self.call("removeSource", zone, ip) {
            Ok(_) => Ok(()),
            Err(dbus::Error::Refused { text, .. }) if ABSENT.iter().any(|word| text.contains(word)) => Ok(()),
            Err(err) => Err(Error::internal(format!("remove {} from {zone} zone: {err}", source(ip)))),
        }
    }

    /// CHECK: the address is in the zone.
    ///
    /// # Errors
    /// It is not, or firewalld does not say.
    pub(super) fn check(&mut self, zone: &str, ip: IpAddr) -> Result<(), Error> {
        match self.call("querySource", zone, ip) {
            Ok(Answer::Bool(true)) => Ok(()),
            Ok(_) => {
                Err(Error::internal(format!("failed to find the address {} in {zone} zone", source(ip))))
            }
            Err(err) => Err(Error::internal(format!(
                "failed to find the address {} in {zone} zone: {err}",
                source(ip)
            ))),
        }
    }
}

/// An address as firewalld takes sources.
fn source(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}
