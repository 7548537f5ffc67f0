//! Faults: what can be broken in a running lab, each by real kernel objects and with an exact way back.
//!
//! A file of this folder is a family of faults; `build.rs` finds the files, and no other place names one. A fault is
//! data: what it is called, what it needs to be told, and the function that breaks. How breaking is undone is noted
//! change by change in [`Work`], so that what fails half-way leaves nothing behind.

use anyhow::Result;

use crate::breaking::Work;
use crate::cluster::{Cluster, Node, Pod};
use crate::exit::{self, Failure};

include!(concat!(env!("OUT_DIR"), "/faults.rs"));

/// A fault of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// What it is called.
    pub id: &'static str,
    /// What it does, in a line.
    pub does: &'static str,
    /// What a student sees of it.
    pub seen: &'static str,
    /// The number behind the colon of `FAULT:NUMBER`, where it takes one.
    pub amount: Option<Amount>,
    /// Why it cannot be in this lab.
    pub unless: fn(&Cluster) -> Result<(), Failure>,
    /// What it breaks, and how.
    pub act: Act,
}

/// A number that a fault takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// What it counts.
    pub unit: &'static str,
    /// What it is where nothing is said.
    pub default: u32,
    /// The least and the most.
    pub range: (u32, u32),
}

/// What a fault breaks, which is also what it needs to be told, and the function that does it.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// The lab as a whole.
    Lab(fn(&mut Work<'_>, &Cluster) -> Result<()>),
    /// A node.
    Node(fn(&mut Work<'_>, &Cluster, &Node) -> Result<()>),
    /// A node in its dealings with another one.
    Nodes(fn(&mut Work<'_>, &Cluster, &Node, &Node) -> Result<()>),
    /// A pod.
    Pod(fn(&mut Work<'_>, &Cluster, &Pod) -> Result<()>),
    /// A pod, and another one of its node that is to take something of it.
    Pods(fn(&mut Work<'_>, &Cluster, &Pod, &Pod) -> Result<()>),
    /// A service. What the lab wants is changed, so the cluster must not be held meanwhile.
    Service(fn(&mut Work<'_>, &str) -> Result<()>),
}

impl Act {
    /// What the command line takes behind the fault's name.
    pub fn usage(&self) -> &'static str {
        match self {
            Act::Lab(_) => "",
            Act::Node(_) => "[NODE]",
            Act::Nodes(_) => "[NODE [PEER]]",
            Act::Pod(_) => "[POD]",
            Act::Pods(_) => "[POD [OTHER]]",
            Act::Service(_) => "[SERVICE]",
        }
    }
}

/// Every fault, sorted by name.
pub fn all() -> Vec<&'static Fault> {
    let mut all: Vec<&Fault> = ALL.iter().flat_map(|family| family.iter()).collect();
    all.sort_by_key(|fault| fault.id);
    all
}

/// The fault of that name and its number, from `FAULT` or `FAULT:NUMBER`.
///
/// # Errors
/// There is no such fault, or it takes no such number.
pub fn find(text: &str) -> Result<(&'static Fault, u32), Failure> {
    let (id, number) = text.split_once(':').map_or((text, None), |(id, number)| (id, Some(number)));
    let Some(fault) = all().into_iter().find(|fault| fault.id == id) else {
        return Err(Failure::usage(format!("no fault {id:?} · podlab faults lists them")));
    };
    match (fault.amount, number) {
        (None, None) => Ok((fault, 0)),
        (Some(amount), None) => Ok((fault, amount.default)),
        (None, Some(_)) => Err(Failure::usage(format!("fault {id} takes no number"))),
        (Some(Amount { unit, range: (least, most), .. }), Some(number)) => {
            let fits = number.parse().ok().filter(|number| (least..=most).contains(number));
            let wrong = || format!("fault {id}: {number:?} is not from {least} to {most} ({unit})");
            fits.map(|number| (fault, number)).ok_or_else(|| Failure::usage(wrong()))
        }
    }
}

/// A fault that can be in any lab.
fn always(_: &Cluster) -> Result<(), Failure> {
    Ok(())
}

/// A fault of something that this lab's mode does not have.
fn not_in_mode(cluster: &Cluster, what: &str) -> Failure {
    Failure::usage(format!("mode {} has {what}", cluster.mode))
}

/// A fault that the kernel has no means for.
fn lacking(what: &str) -> Failure {
    Failure::new(exit::LACKING, what)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_is_a_family_and_names_are_unique() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/faults");
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let files = names.filter(|name| *name != "mod.rs").count();
        assert_eq!(ALL.len(), files);
        let ids: BTreeSet<&str> = all().iter().map(|fault| fault.id).collect();
        assert_eq!(ids.len(), all().len(), "{ids:?}");
        let is_refused = |fault: &&&Fault| fault.does.starts_with("not on this kernel");
        assert!(all().iter().filter(|fault| !is_refused(fault)).count() >= 30, "{ids:?}");
    }

    #[test]
    fn a_fault_is_described_in_lines() {
        for fault in all() {
            for text in [fault.id, fault.does, fault.seen] {
                assert!(!text.is_empty() && !text.contains('\n') && !text.ends_with('.'), "{text:?}");
            }
            if let Some(Amount { default, range: (least, most), .. }) = fault.amount {
                assert!((least..=most).contains(&default), "{}", fault.id);
            }
        }
    }

    #[test]
    fn a_fault_is_found_with_its_number_and_refused_by_name() {
        assert_eq!(find("route-missing").unwrap().0.id, "route-missing");
        assert_eq!((find("loss").unwrap().1, find("loss:60").unwrap().1), (30, 60));
        for (text, words) in [
            ("teleport", "no fault \"teleport\" · podlab faults"),
            ("loss:0", "fault loss: \"0\" is not from 1 to 100 (percent)"),
            ("loss:much", "\"much\" is not from"),
            ("link-down:3", "fault link-down takes no number"),
        ] {
            let failure = find(text).unwrap_err();
            assert!(failure.text.contains(words), "{text}: {failure}");
            assert_eq!(failure.code, exit::USAGE);
        }
    }
}
