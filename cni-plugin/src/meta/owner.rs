//! Whose a rule is: a record in its user data, beside the comment that the reference looks for.
//!
//! Comments are the reference's and name a container at most; the record names the attachment, so that DEL
//! and GC find the rules of one attachment and no other's. `nft` and iptables pass over records that they do
//! not know.

use cni::{Call, ValidAttachment};
use kernel::nft::Userdata;

use crate::hash::sha512;

/// The type of the record, far from those that `nft` uses (0 and 1 on rules, 0 to 7 on sets).
const RECORD: u8 = 0x70;
/// What stands in the record of what belongs to no attachment: entry chains, jumps, tables.
const SCAFFOLDING: &[u8] = b"podnet";
/// Bytes of each of the two hashes.
const LEN: usize = 8;

/// An attachment: network, and container with interface, each by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    network: [u8; LEN],
    attachment: [u8; LEN],
}

impl Owner {
    /// The attachment of `call`.
    pub(crate) fn of(call: &Call) -> Self {
        Self::new(&call.conf.name, &call.env.container_id, &call.env.ifname)
    }

    fn new(network: &str, container: &str, ifname: &str) -> Self {
        // A colon is in no container id and no interface name.
        Self { network: short(&[network]), attachment: short(&[ifname, ":", container]) }
    }

    /// The record, with more bytes behind it.
    pub(crate) fn record(self, userdata: Userdata, more: &[u8]) -> Userdata {
        userdata.with(RECORD, &[&self.network[..], &self.attachment[..], more].concat())
    }

    /// Whether what has this user data belongs to the attachment.
    pub(crate) fn owns(self, userdata: &Userdata) -> bool {
        owner(userdata) == Some(self)
    }
}

/// The attachment that user data names.
pub(crate) fn owner(userdata: &Userdata) -> Option<Owner> {
    let (network, rest) = userdata.get(RECORD)?.split_first_chunk()?;
    let (attachment, _) = rest.split_first_chunk()?;
    Some(Owner { network: *network, attachment: *attachment })
}

/// The bytes behind the owner in a record.
pub(crate) fn more(userdata: &Userdata) -> Option<&[u8]> {
    userdata.get(RECORD)?.get(2 * LEN..)
}

/// User data of what we make for all attachments.
pub(crate) fn scaffolding(userdata: Userdata) -> Userdata {
    userdata.with(RECORD, SCAFFOLDING)
}

/// Whether user data is that of [`scaffolding`].
pub(crate) fn is_scaffolding(userdata: &Userdata) -> bool {
    userdata.get(RECORD) == Some(SCAFFOLDING)
}

/// What GC may remove: the attachments of a network that are not valid any more.
pub(crate) struct Stale {
    network: [u8; LEN],
    valid: Vec<Owner>,
}

impl Stale {
    /// `None` when the runtime gave no list of valid attachments: nothing may be removed then.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        let name = &call.conf.name;
        let owner = |valid: &ValidAttachment| Owner::new(name, &valid.container_id, &valid.ifname);
        let valid = call.conf.valid_attachments.as_ref()?.iter().map(owner).collect();
        Some(Self { network: short(&[name]), valid })
    }

    /// Whether what has this user data is to go.
    pub(crate) fn covers(&self, userdata: &Userdata) -> bool {
        owner(userdata).is_some_and(|owner| owner.network == self.network && !self.valid.contains(&owner))
    }
}

fn short(parts: &[&str]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(&sha512(parts)[..LEN]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_one_attachment_and_stands_beside_the_comment() {
        let a = Owner::new("net", "c1", "eth0");
        let data = a.record(Userdata::comment("c1"), b"more");
        assert_eq!((data.text(), more(&data)), (Some("c1"), Some(&b"more"[..])));
        assert!(a.owns(&data) && !is_scaffolding(&data));
        for other in [
            Owner::new("net", "c1", "eth1"),
            Owner::new("net2", "c1", "eth0"),
            Owner::new("net", "c2", "eth0"),
            Owner::new("ne", "tc1", "eth0"),
        ] {
            assert!(!other.owns(&data), "{other:?}");
        }
        assert!(!a.owns(&Userdata::comment("c1")));
        let scaffold = scaffolding(Userdata::new());
        assert!(is_scaffolding(&scaffold) && owner(&scaffold).is_none() && !a.owns(&scaffold));
    }

    #[test]
    fn stale_is_what_is_of_the_network_and_not_valid() {
        let text = r#"{"cniVersion":"1.1.0","name":"net","type":"x",
            "cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}"#;
        let env = cni::Env { command: "GC".into(), ..cni::Env::default() };
        let stale = Stale::of(&Call::new(env.clone(), text.into()).unwrap()).unwrap();
        let covers = |network, container, ifname| {
            stale.covers(&Owner::new(network, container, ifname).record(Userdata::new(), &[]))
        };
        assert!(covers("net", "c1", "eth1") && covers("net", "c2", "eth0"));
        assert!(!covers("net", "c1", "eth0") && !covers("other", "c2", "eth0"));
        assert!(!stale.covers(&Userdata::comment("c2")));
        let text = r#"{"cniVersion":"1.1.0","name":"net","type":"x"}"#;
        assert!(Stale::of(&Call::new(env, text.into()).unwrap()).is_none());
    }
}
