//! The undo list that makes ADD transactional.
//!
//! A plugin pushes how to take back each step it has taken; the protocol layer runs the list in reverse when
//! ADD ends in any error, failure to render or print the result included. Success drops it unrun.

use std::io::Write;

type Step = Box<dyn FnOnce() -> Result<(), String>>;

/// The steps that take back what ADD has done so far.
#[derive(Default)]
pub struct Undo {
    steps: Vec<(&'static str, Step)>,
}

impl Undo {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step; `what` names it in the log when it does not work.
    pub fn push(&mut self, what: &'static str, step: impl FnOnce() -> Result<(), String> + 'static) {
        self.steps.push((what, Box::new(step)));
    }

    /// Runs every step, last first. One that does not work is told on `log` and does not stop the others.
    pub fn run(self, log: &mut dyn Write) {
        for (what, step) in self.steps.into_iter().rev() {
            if let Err(error) = step() {
                // The log is best effort: nothing else can be told to anyone.
                let _ = writeln!(log, "undo: {what}: {error}");
            }
        }
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|(what, _)| what)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn steps_run_in_reverse_and_a_broken_one_stops_nothing() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut undo = Undo::new();
        for (name, outcome) in [("one", Ok(())), ("two", Err("no".to_owned())), ("three", Ok(()))] {
            let seen = Rc::clone(&seen);
            undo.push(name, move || {
                seen.borrow_mut().push(name);
                outcome
            });
        }
        let mut log = Vec::new();
        undo.run(&mut log);
        assert_eq!(*seen.borrow(), ["three", "two", "one"]);
        assert_eq!(log, b"undo: two: no\n");
    }
}
