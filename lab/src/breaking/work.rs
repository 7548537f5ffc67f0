//! The work of a fault: changes, each with its way back.
//!
//! A change is made and its undo noted in one call, so there is no moment at which something is broken and nobody knows
//! how it was. What an active fault has changed is not changed again by another one: undone in any order, both are gone.

use std::cell::Cell;
use std::fmt;

use anyhow::{Context, Result, bail};
use kernel::Family;

use crate::cluster::Space;
use crate::supervisor::Lab;

type Undo = Box<dyn Fn(&Lab) -> Result<()> + Send>;

/// A change that was made, and the way back. Going back twice is the same as once.
pub(super) struct Step {
    /// What was changed: `node1: route 10.244.2.0/24`.
    pub(super) what: String,
    undo: Undo,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Step {
    pub(super) fn undo(&self, lab: &Lab) -> Result<()> {
        (self.undo)(lab)
    }
}

/// What a fault does, as it does it.
#[derive(Debug)]
pub struct Work<'l> {
    /// The lab.
    pub lab: &'l Lab,
    /// The fault's number.
    pub amount: u32,
    family: Family,
    asked: Cell<bool>,
    held: Vec<String>,
    steps: Vec<Step>,
}

impl<'l> Work<'l> {
    pub(super) fn new(lab: &'l Lab, amount: u32, family: Family, held: Vec<String>) -> Work<'l> {
        Work { lab, amount, family, asked: Cell::new(false), held, steps: Vec::new() }
    }

    /// The IP version that is broken, of a fault that breaks one.
    pub fn family(&self) -> Family {
        self.asked.set(true);
        self.family
    }

    /// The fault is one of IPv4 alone.
    ///
    /// # Errors
    /// IPv6 is to be broken, which has no `what`.
    pub fn ipv4_only(&self, what: &str) -> Result<()> {
        match self.family() {
            Family::V4 => Ok(()),
            Family::V6 => bail!("IPv6 has no {what}"),
        }
    }

    /// It matters which IP version is to be broken.
    pub(super) fn is_of_a_family(&self) -> bool {
        self.asked.get()
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// Changes something; what `change` saves of how it was is what `undo` gets. Both must leave alone what is already
    /// as they would make it.
    ///
    /// # Errors
    /// An active fault has changed it already, or why `change` could not.
    pub fn change<S: Send + 'static>(
        &mut self,
        what: impl Into<String>,
        change: impl FnOnce() -> Result<S>,
        undo: impl Fn(&Lab, &S) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let what = what.into();
        if self.held.contains(&what) {
            bail!("{what}: another fault has changed it · try: podlab heal");
        }
        let saved = change().with_context(|| what.clone())?;
        self.steps.push(Step { what, undo: Box::new(move |lab| undo(lab, &saved)) });
        Ok(())
    }

    /// As [`Work::change`], of something in a namespace. When the namespace has gone by the time of the undo, so has
    /// what was changed in it.
    ///
    /// # Errors
    /// As [`Work::change`].
    pub fn change_in<S: Send + 'static>(
        &mut self,
        space: &Space,
        what: impl fmt::Display,
        change: impl FnOnce(&Space) -> Result<S>,
        undo: impl Fn(&Space, &S) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (name, id) = (space.name.clone(), space.netns.id()?);
        let change = || change(space);
        self.change(format!("{name}: {what}"), change, move |lab, saved| {
            let cluster = lab.cluster();
            match cluster.space(&name).filter(|space| space.netns.id().is_ok_and(|now| now == id)) {
                Some(space) => undo(space, saved),
                None => Ok(()),
            }
        })
    }
}

/// What is there already need not be made.
///
/// # Errors
/// Any other.
pub(crate) fn unless_there(made: kernel::Result<()>) -> Result<()> {
    match made {
        Err(err) if !err.is_exists() => Err(err.into()),
        _ => Ok(()),
    }
}

/// What is gone already need not be removed.
///
/// # Errors
/// Any other.
pub(crate) fn unless_gone(removed: kernel::Result<()>) -> Result<()> {
    match removed {
        Err(err) if !err.is_not_found() => Err(err.into()),
        _ => Ok(()),
    }
}
