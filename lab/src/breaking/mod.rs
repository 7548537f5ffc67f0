//! Breaking a lab and healing it: which faults are active, and the way back from each.
//!
//! The register lives here and is given to no one who looks for faults: `verify`, `trace` and `why` take a
//! [`Cluster`](crate::cluster::Cluster), which knows nothing of it.

mod target;
mod work;

use std::sync::PoisonError;

use kernel::Family;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::exit::{self, Failure};
use crate::faults::{self, Act, Fault};
use crate::look;
use crate::stack::{self, OneFamily};
use crate::supervisor::Lab;
use work::Step;
pub use work::Work;
pub(crate) use work::{unless_gone, unless_there};

/// The schema of the documents.
pub const SCHEMA: &str = "podlab.faults/1";

/// A fault that is active.
#[derive(Debug)]
struct Active {
    told: Told,
    steps: Vec<Step>,
}

/// What is said of an active fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its number in this lab, from 1; never given again.
    pub number: u32,
    /// The fault, with its number where it takes one: `loss:30`.
    pub fault: String,
    /// What it was aimed at.
    pub target: String,
}

/// The faults that are active, oldest first.
#[derive(Debug, Default)]
pub struct Register {
    last: u32,
    /// An exam is going on.
    is_sealed: bool,
    active: Vec<Active>,
}

impl Register {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.active.len()
    }
}

/// How many faults are active.
pub fn count(lab: &Lab) -> usize {
    lab.register.lock().unwrap_or_else(PoisonError::into_inner).count()
}

/// From now on an exam is going on, until the lab ends.
pub fn seal(lab: &Lab) {
    lab.register.lock().unwrap_or_else(PoisonError::into_inner).is_sealed = true;
}

/// Refuses what would do the work of somebody who is examined.
///
/// # Errors
/// An exam is going on.
pub fn unless_sealed(lab: &Lab) -> Result<(), Failure> {
    match lab.register.lock().unwrap_or_else(PoisonError::into_inner).is_sealed {
        false => Ok(()),
        true => Err(Failure::usage(format!(
            "an exam is going on in lab {:?}: why, break, heal and faults --active are off until it ends · try: podlab trace, \
             podlab inspect",
            lab.topology.name
        ))),
    }
}

/// In words, for `verify`: how many faults are active, and no word on which.
pub fn note(lab: &Lab) -> Option<String> {
    if unless_sealed(lab).is_err() {
        return Some("an exam is going on in this lab (podlab lesson exam --check)".to_owned());
    }
    match count(lab) {
        0 => None,
        1 => Some("1 fault is active in this lab (podlab heal --all)".to_owned()),
        many => Some(format!("{many} faults are active in this lab (podlab heal --all)")),
    }
}

/// What can be broken, as a document.
pub fn catalogue() -> Value {
    let list: Vec<Value> = faults::all().into_iter().map(describe).collect();
    json!({ "schema": SCHEMA, "faults": list })
}

fn describe(fault: &Fault) -> Value {
    let amount = fault.amount.map(|amount| {
        let (least, most) = amount.range;
        json!({ "unit": amount.unit, "default": amount.default, "least": least, "most": most })
    });
    let target = match fault.act {
        Act::Lab(_) => "lab",
        Act::Node(_) => "node",
        Act::Nodes(_) => "nodes",
        Act::Pod(_) => "pod",
        Act::Pods(_) => "pods",
        Act::Service(_) => "service",
    };
    json!({ "name": fault.id, "does": fault.does, "seen": fault.seen, "target": target, "amount": amount })
}

/// The active faults, oldest first.
pub fn active(lab: &Lab) -> Value {
    let register = lab.register.lock().unwrap_or_else(PoisonError::into_inner);
    let told: Vec<&Told> = register.active.iter().map(|active| &active.told).collect();
    json!({ "schema": SCHEMA, "name": lab.topology.name, "active": told })
}

/// Breaks something: the fault with these targets, or what they are by default, of an IP version or of the lab's first.
/// All of it, or nothing.
///
/// # Errors
/// Wrong usage, what the kernel lacks, or what failed; then nothing has changed.
pub fn inject(
    lab: &Lab,
    name: &str,
    targets: &[String],
    family: Option<OneFamily>,
) -> Result<Value, Failure> {
    let (fault, amount) = faults::find(name)?;
    let mut register = lab.register.lock().unwrap_or_else(PoisonError::into_inner);
    let (target, families) = {
        let cluster = lab.cluster();
        let families: Vec<Family> = cluster.families().collect();
        if let Some(family) = family.map(Family::from).filter(|family| !families.contains(family)) {
            return Err(Failure::usage(format!("the lab has no {}", stack::word(family))));
        }
        (fault.unless)(&cluster).map_err(|failure| about(fault, failure))?;
        (target::resolve(fault, &cluster, targets).map_err(|failure| about(fault, failure))?, families)
    };
    let held = register.active.iter().flat_map(|active| &active.steps).map(|step| step.what.clone());
    let broken = family.map(Family::from).or(families.first().copied()).unwrap_or(Family::V4);
    let mut work = Work::new(lab, amount, broken, held.collect());
    let acted = target.act(fault, &mut work).map_err(Failure::from).and_then(|()| {
        let is_idle = family.is_some() && !work.is_of_a_family();
        let words = "it breaks both IP versions, or none · try: without --ip-family";
        if is_idle { Err(Failure::usage(words)) } else { Ok(()) }
    });
    if let Err(failure) = acted {
        let left = undo(lab, &mut work.into_steps());
        let failure = about(fault, failure);
        return Err(match left.is_empty() {
            true => failure,
            false => Failure::new(failure.code, format!("{failure}; and not undone: {}", left.join("; "))),
        });
    }
    register.last += 1;
    let fault = if fault.amount.is_some() { format!("{}:{amount}", fault.id) } else { fault.id.to_owned() };
    let of_family = match families.len() > 1 && work.is_of_a_family() {
        true => format!(" {}", stack::word(broken)),
        false => String::new(),
    };
    let told = Told { number: register.last, fault, target: format!("{target}{of_family}") };
    let value = json!({ "schema": SCHEMA, "name": lab.topology.name, "broken": told });
    register.active.push(Active { told, steps: work.into_steps() });
    Ok(value)
}

fn about(fault: &Fault, failure: Failure) -> Failure {
    Failure::new(failure.code, format!("fault {}: {failure}", fault.id))
}

/// Undoes the active faults of that name (`FAULT` or a number), or all; the latest first.
///
/// # Errors
/// There is none of that name, or something could not be undone: that fault stays active.
pub fn heal(lab: &Lab, which: Option<&str>) -> Result<Value, Failure> {
    let mut register = lab.register.lock().unwrap_or_else(PoisonError::into_inner);
    let is_meant = |told: &Told| {
        let id = told.fault.split(':').next().unwrap_or_default();
        which.is_none_or(|which| which == id || which == told.fault || which == told.number.to_string())
    };
    if let Some(which) = which.filter(|_| !register.active.iter().any(|active| is_meant(&active.told))) {
        faults::find(which)
            .map(drop)
            .or_else(|failure| which.parse::<u32>().map(drop).map_err(|_| failure))?;
        return Err(Failure::usage(format!("fault {which} is not active · podlab faults --active")));
    }
    let (mut healed, mut left, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
    for mut active in std::mem::take(&mut register.active).into_iter().rev() {
        if is_meant(&active.told) {
            let failed = undo(lab, &mut active.steps);
            if failed.is_empty() {
                healed.push(active.told);
                continue;
            }
            troubles.extend(failed.into_iter().map(|err| format!("fault {}: {err}", active.told.fault)));
        }
        left.push(active);
    }
    left.reverse();
    register.active = left;
    if let Err(err) = look::forget_silence(&lab.cluster()) {
        troubles.push(format!("neighbours that did not answer: {err:#}"));
    }
    match troubles.as_slice() {
        [] => Ok(json!({ "schema": SCHEMA, "name": lab.topology.name, "healed": healed })),
        some => Err(Failure::new(exit::FAILED, format!("not healed: {}", some.join("; ")))),
    }
}

/// Undoes steps, the latest first; those that fail stay, and are told.
fn undo(lab: &Lab, steps: &mut Vec<Step>) -> Vec<String> {
    let (mut left, mut failed) = (Vec::new(), Vec::new());
    for step in std::mem::take(steps).into_iter().rev() {
        if let Err(err) = step.undo(lab) {
            failed.push(format!("{}: {err:#}", step.what));
            left.push(step);
        }
    }
    left.reverse();
    *steps = left;
    failed
}
