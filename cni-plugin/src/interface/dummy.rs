//! `dummy`: a link in the pod whose frames go nowhere, to hold addresses.

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo};
use kernel::link::LinkKind;
use serde::Deserialize;

use super::dns::WrittenDns;
use super::one_link::{self, OneLink};

/// The plugin.
pub(crate) struct Dummy;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    dns: WrittenDns,
}

fn resolve(call: &Call) -> Result<OneLink, Error> {
    let written: Written = call.conf_as()?;
    Ok(OneLink {
        kind: LinkKind::Dummy,
        parent: None,
        mac: None,
        mtu: 0,
        mtu_within_parent: false,
        given: None,
        dns: written.dns.chosen(),
    })
}

impl Plugin for Dummy {
    fn name(&self) -> &'static str {
        "dummy"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        one_link::add(call, resolve(call)?, undo)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        one_link::del(call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        one_link::check(call, &resolve(call)?)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        one_link::gc(call)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        one_link::status(call, &resolve(call)?)
    }
}
