//! The MAC of a macvlan: asked for by text, or derived from the attachment so that it is the same at every ADD and
//! another on every other machine.

use std::path::Path;

use cni::{Call, Error};
use kernel::Mac;

use crate::hash::sha512;
use crate::interface::mac;

/// What makes two machines different (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// The keys as they stand in the configuration; an empty text is none.
pub(super) struct WrittenMac<'a> {
    /// `mac`.
    pub(super) config: &'a str,
    /// `runtimeConfig.mac`.
    pub(super) runtime: &'a str,
    /// `macFrom`.
    pub(super) from: &'a str,
}

/// Where the MAC comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MacSource {
    /// The kernel makes one up.
    Kernel,
    /// It was asked for.
    Asked(Mac),
    /// It is derived from machine, network, container and interface.
    Attachment,
}

impl WrittenMac<'_> {
    /// `mac`, over it CNI_ARGS `MAC`, over it `runtimeConfig.mac`; `macFrom` where none of them is.
    ///
    /// # Errors
    /// Code 7 for what is no MAC, for an unknown `macFrom`, and for one beside `mac`; code 4 for CNI_ARGS.
    pub(super) fn resolve(&self, call: &Call) -> Result<MacSource, Error> {
        let from_args = mac::of_args(call)?;
        if !matches!(self.from, "" | "attachment") {
            return Err(Error::invalid(format!("macFrom {:?} is not \"attachment\"", self.from)));
        }
        if !self.from.is_empty() && !self.config.is_empty() {
            return Err(Error::invalid("mac and macFrom exclude each other"));
        }
        match mac::first(&[self.runtime, &from_args, self.config])? {
            Some(mac) => Ok(MacSource::Asked(mac)),
            None if self.from.is_empty() => Ok(MacSource::Kernel),
            None => Ok(MacSource::Attachment),
        }
    }
}

impl MacSource {
    /// The MAC to ask the kernel for.
    ///
    /// # Errors
    /// The machine has no id.
    pub(super) fn mac(&self, call: &Call) -> Result<Option<Mac>, Error> {
        match self {
            MacSource::Kernel => Ok(None),
            MacSource::Asked(mac) => Ok(Some(*mac)),
            MacSource::Attachment => {
                let machine = machine_id(Path::new(MACHINE_ID))?;
                Ok(Some(derived(&machine, &call.conf.name, &call.env.container_id, &call.env.ifname)))
            }
        }
    }

    /// Whether ADD could tell the MAC.
    ///
    /// # Errors
    /// The machine has no id.
    pub(super) fn status(&self) -> Result<(), Error> {
        match self {
            MacSource::Attachment => machine_id(Path::new(MACHINE_ID)).map(drop),
            _ => Ok(()),
        }
    }
}

fn machine_id(path: &Path) -> Result<String, Error> {
    let none = |why: String| {
        Error::internal(format!(
            "macFrom \"attachment\": {}: {why} (try: systemd-machine-id-setup)",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(path).map_err(|err| none(err.to_string()))?;
    match text.trim() {
        // systemd writes the second before the machine has its id.
        "" | "uninitialized" => Err(none("no machine id".into())),
        id => Ok(id.to_owned()),
    }
}

/// A unicast, locally administered MAC: the first 48 bits of SHA-512 over the four, separated by a byte that is in
/// none of them, with those two bits set.
fn derived(machine: &str, network: &str, container: &str, ifname: &str) -> Mac {
    let hash = sha512(&[machine, "\0", network, "\0", container, "\0", ifname]);
    Mac([(hash[0] & 0xfc) | 0x02, hash[1], hash[2], hash[3], hash[4], hash[5]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(config: &str, cni_args: &str, runtime: &str, from: &str) -> Result<MacSource, Error> {
        let env = cni::Env { command: "ADD".into(), args: cni_args.into(), ..cni::Env::default() };
        let call = Call::new(env, br#"{"cniVersion":"1.0.0","name":"n","type":"macvlan"}"#.to_vec())?;
        WrittenMac { config, runtime, from }.resolve(&call)
    }

    fn asked(last: u8) -> Result<MacSource, Error> {
        Ok(MacSource::Asked(Mac([2, 0, 0, 0, 0, last])))
    }

    #[test]
    fn the_runtimes_mac_wins_over_cni_args_and_these_over_the_configuration() {
        let (one, two, three) = ("02:00:00:00:00:01", "MAC=02:00:00:00:00:02", "02:00:00:00:00:03");
        assert_eq!(source(one, "", "", ""), asked(1));
        assert_eq!(source(one, two, "", ""), asked(2));
        assert_eq!(source(one, two, three, ""), asked(3));
        assert_eq!(source("", "IgnoreUnknown=1;K8S_POD_NAME=x", "", ""), Ok(MacSource::Kernel));
        assert_eq!(source("02:00", "", "", "").unwrap_err().code, 7);
        assert_eq!(source("", "K8S_POD_NAME=x", "", "").unwrap_err().code, 4);
    }

    #[test]
    fn a_mac_that_is_asked_for_wins_over_a_derived_one() {
        assert_eq!(source("", "", "", "attachment"), Ok(MacSource::Attachment));
        assert_eq!(source("", "MAC=02:00:00:00:00:02", "", "attachment"), asked(2));
        assert_eq!(source("02:00:00:00:00:01", "", "", "attachment").unwrap_err().code, 7);
        assert_eq!(source("", "", "", "Attachment").unwrap_err().code, 7);
    }

    #[test]
    fn a_derived_mac_is_unicast_local_and_depends_on_all_four() {
        let mac = derived("m", "n", "c", "i");
        assert_eq!(mac, derived("m", "n", "c", "i"));
        assert_eq!(mac.0[0] & 3, 2, "{mac}");
        let others = [
            derived("M", "n", "c", "i"),
            derived("m", "N", "c", "i"),
            derived("m", "n", "C", "i"),
            derived("m", "n", "c", "I"),
        ];
        assert!(others.iter().all(|other| *other != mac && other.0[0] & 3 == 2));
        assert_ne!(derived("m", "na", "c", "i"), derived("m", "n", "ac", "i"), "no two share a text");
        // What pods have been given must not change with a new version.
        assert_eq!(mac.to_string(), "42:d0:36:8e:fa:e1");
    }

    #[test]
    fn a_machine_without_an_id_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine-id");
        assert!(machine_id(&file).is_err());
        for (text, ok) in [("", false), ("uninitialized\n", false), ("\n", false), ("0123abc\n", true)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(machine_id(&file).is_ok(), ok, "{text:?}");
        }
        assert_eq!(machine_id(&file).unwrap(), "0123abc");
    }
}
