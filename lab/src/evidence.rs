//! The evidence of a verification, put together by the supervisor: packets, plan and verdicts, what the lab was made from,
//! and what the kernel had before and after.

use std::fs::File;
use std::io::{self, BufWriter};

use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::utsname::uname;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::bundle::{self, Bundle};
use crate::exit::Failure;
use crate::record::{self, Heading};
use crate::supervisor::Lab;
use crate::verify::Proof;
use crate::{inspect, plugins};

/// The forms of the parts that are made here.
const STATE_SCHEMA: &str = "podlab.state/1";
const VERSIONS_SCHEMA: &str = "podlab.versions/1";
const TOPOLOGY_SCHEMA: &str = "podlab.resolved/1";

/// A file that is in memory only, written from its beginning.
///
/// # Errors
/// The kernel's words.
pub fn in_memory(
    write: impl FnOnce(BufWriter<File>) -> io::Result<BufWriter<File>>,
) -> Result<File, Failure> {
    let make = || -> io::Result<File> {
        let file = File::from(memfd_create(c"evidence", MFdFlags::MFD_CLOEXEC)?);
        write(BufWriter::new(file))?.into_inner().map_err(io::IntoInnerError::into_error)
    };
    make().context("write the evidence").map_err(Failure::from)
}

/// What `inspect` says of the lab and of every namespace, by name.
///
/// # Errors
/// A namespace that cannot be read.
pub fn state(lab: &Lab) -> Result<Value, Failure> {
    let names: Vec<String> = lab.cluster().spaces().map(|space| space.name.clone()).collect();
    let mut spaces = Map::new();
    for name in names {
        let state = inspect::inspect(lab, Some(&name))?;
        spaces.insert(name, state);
    }
    Ok(json!({ "schema": STATE_SCHEMA, "lab": inspect::inspect(lab, None)?, "spaces": spaces }))
}

/// The bundle of a verification, as a file in memory.
///
/// # Errors
/// What of it cannot be read or written.
pub fn gather(lab: &Lab, proof: &Proof, before: &Value) -> Result<File, Failure> {
    let after = state(lab)?;
    let heading = Heading::of(&lab.cluster());
    let make = || -> Result<Bundle> {
        let system = uname().context("read the kernel's version")?;
        let words = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
        let versions = json!({
            "schema": VERSIONS_SCHEMA,
            "podlab": env!("CARGO_PKG_VERSION"),
            "kernel": words(system.release()),
            "machine": words(system.machine()),
            "plugins": lab.topology.cni_bin,
        });
        let mut topology = serde_json::to_value(&lab.topology)?;
        topology["schema"] = TOPOLOGY_SCHEMA.into();
        Ok(Bundle {
            versions: document(&versions)?,
            topology: document(&topology)?,
            cni: plugins::transcripts()?,
            state_before: document(before)?,
            state_after: document(&after)?,
            plan: document(&proof.plan)?,
            verdicts: document(&proof.report)?,
            packets: record::write(Vec::new(), &heading, &proof.recording, |_| None)?,
        })
    };
    let bundle = make().context("gather the evidence").map_err(Failure::from)?;
    in_memory(|out| bundle::write(out, &bundle))
}

fn document(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}
