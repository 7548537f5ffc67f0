//! Bad input: each line of the tables in this folder is one call that must fail, with the code and a literal part of the
//! sentence, exit code 1, one JSON object on stdout, no panic, and a world that is exactly as it was.
//!
//! ```text
//!   host ── (nothing) ── pod0        picture, call, the same picture
//! ```
//! Each line also says what Debian's 1.1.1 does with the same call, and that is tried too: where the reference fails with a
//! sentence of its own, ours says the same, so that people find the same answers.

mod arguments;
mod bridge;
mod delegate;
mod environment;
mod host_local;
mod json;
mod links;
mod static_;
mod storage;

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use podnet_tests::facts::Facts;
use podnet_tests::sealed::sealed;
use podnet_tests::{Outcome, Side, World};

/// What Debian's plugins do with the same call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reference {
    /// Fail with the same code and the same part of the sentence.
    Same,
    /// Fail with the same part of the sentence, under code 999 where the specification has a code for it.
    SameWords,
    /// Fail, in other words.
    Fails,
    /// Take it, or do not know what it is about (newer keys and verbs, defects).
    Accepts,
}

/// One call that must fail.
#[derive(Clone, Debug)]
struct Bad {
    name: String,
    plugin: &'static str,
    verb: &'static str,
    version: &'static str,
    /// The configuration without cniVersion, name and type; or, if `raw`, all of stdin.
    text: String,
    raw: bool,
    env: Vec<(&'static str, Option<String>)>,
    /// What is done to the world before.
    prepare: Option<fn(&World) -> Result<()>>,
    /// Mounts of `prepare` must not be seen outside.
    sealed: bool,
    through: &'static [&'static str],
    code: u64,
    says: String,
    reference: Reference,
}

/// A configuration that fails on ADD.
fn conf(plugin: &'static str, name: impl Into<String>, text: impl Into<String>) -> Bad {
    Bad {
        name: name.into(),
        plugin,
        verb: "ADD",
        version: "1.0.0",
        text: text.into(),
        raw: false,
        env: Vec::new(),
        prepare: None,
        sealed: false,
        through: &[],
        code: 0,
        says: String::new(),
        reference: Reference::Same,
    }
}

/// The whole of stdin.
fn raw(plugin: &'static str, name: impl Into<String>, text: impl Into<String>) -> Bad {
    Bad { raw: true, ..conf(plugin, name, text) }
}

impl Bad {
    fn verb(self, verb: &'static str) -> Self {
        Bad { verb, ..self }
    }

    fn version(self, version: &'static str) -> Self {
        Bad { version, ..self }
    }

    fn env(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.env.push((key, Some(value.into())));
        self
    }

    fn without(mut self, key: &'static str) -> Self {
        self.env.push((key, None));
        self
    }

    fn prepare(self, prepare: fn(&World) -> Result<()>) -> Self {
        Bad { prepare: Some(prepare), ..self }
    }

    fn sealed(self, prepare: fn(&World) -> Result<()>) -> Self {
        Bad { prepare: Some(prepare), sealed: true, ..self }
    }

    fn says(self, code: u64, says: impl Into<String>) -> Self {
        Bad { code, says: says.into(), ..self }
    }

    /// As Debian, but with the specification's code.
    fn same_words(self) -> Self {
        Bad { reference: Reference::SameWords, ..self }
    }

    fn other_words(self) -> Self {
        Bad { reference: Reference::Fails, ..self }
    }

    fn ours_alone(self) -> Self {
        Bad { reference: Reference::Accepts, ..self }
    }

    fn call(&self, world: &World) -> Result<Outcome> {
        let mut call = world.call(self.plugin, self.verb).through(self.through);
        for (key, value) in &self.env {
            call = match value {
                Some(value) => call.env(key, world.fill(value)),
                None => call.unset(key),
            };
        }
        let call = match self.raw {
            true => call.stdin(world.fill(&self.text)),
            false => call.config(self.version, &self.text),
        };
        call.run()
    }

    /// In a world of its own.
    fn run<T: Send>(&self, side: Side, look: impl Fn(&World) -> Result<T> + Sync + Send) -> Result<T> {
        let all = || {
            let world = World::new(side, 1)?;
            if let Some(prepare) = self.prepare {
                prepare(&world).context("prepare the world")?;
            }
            look(&world)
        };
        if self.sealed { sealed(all) } else { all() }
    }

    fn check_ours(&self) -> Result<()> {
        self.run(Side::Podnet, |world| {
            let before = world.snapshot()?.facts;
            let outcome = self.call(world)?;
            let error = outcome.error()?;
            ensure!(!outcome.panicked(), "panic: {outcome:?}");
            let says = world.fill(&self.says);
            ensure!(
                error.code == self.code && format!("{} · {}", error.msg, error.details).contains(&says),
                "expected code {} and {says:?}\n  seen {error:?}",
                self.code
            );
            let after = world.snapshot()?.facts;
            let left: Vec<_> = kept(&before).changes(&kept(&after));
            ensure!(left.is_empty(), "left behind: {left:?}");
            Ok(())
        })
    }

    fn check_reference(&self) -> Result<()> {
        let outcome = self.run(Side::Debian, |world| self.call(world))?;
        if self.reference == Reference::Accepts {
            ensure!(
                outcome.exit == Some(0) || self.verb == "GC" || self.verb == "STATUS",
                "refused: {outcome:?}"
            );
            return Ok(());
        }
        ensure!(outcome.exit != Some(0), "accepted: {outcome:?}");
        if self.reference == Reference::Fails {
            return Ok(());
        }
        let error = outcome.error()?;
        let code = if self.reference == Reference::Same { self.code } else { 999 };
        ensure!(error.code == code && !self.says.is_empty(), "expected code {code}: {error:?}");
        // Paths of a world differ from side to side: only the text before the first is compared.
        let says = self.says.split('@').next().unwrap_or_default();
        ensure!(
            format!("{} · {}", error.msg, error.details).contains(says),
            "expected {says:?}\n  seen {error:?}"
        );
        Ok(())
    }
}

/// The network's own directory, its lock and its cursor may stay after a failed ADD, and so may our index of the
/// reservations: they reserve nothing.
fn kept(facts: &Facts) -> Facts {
    facts.filtered(|path| {
        let Some(file) = path.strip_prefix("data/") else { return true };
        if file.starts_with(".podnet/") {
            return false;
        }
        !(file.is_empty()
            || file == "testnet/"
            || file.starts_with("testnet/lock/")
            || file.starts_with("testnet/last_reserved_ip."))
    })
}

fn table() -> Vec<Bad> {
    let mut table = environment::cases();
    table.extend(json::cases());
    table.extend(arguments::cases());
    table.extend(bridge::cases());
    table.extend(delegate::cases());
    table.extend(host_local::cases());
    table.extend(links::cases());
    table.extend(static_::cases());
    table.extend(storage::cases());
    table
}

/// Tries each line in a few threads; the failures as one text.
fn try_all(check: impl Fn(&Bad) -> Result<()> + Sync) -> Result<()> {
    let (table, next, failures) = (table(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(bad) = table.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = check(bad) {
                        let text = format!("{} {} {}: {error:#}", bad.plugin, bad.verb, bad.name);
                        failures.lock().unwrap_or_else(|e| e.into_inner()).push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    println!("{} bad inputs, {} not as the table says", table.len(), failures.len());
    let mut text = String::new();
    for failure in &failures {
        writeln!(text, "{failure}")?;
    }
    ensure!(failures.is_empty(), "{} of {}:\n{text}", failures.len(), table.len());
    Ok(())
}

#[test]
fn each_bad_input_gets_its_error_and_leaves_nothing() -> Result<()> {
    try_all(Bad::check_ours)
}

#[test]
fn the_reference_does_what_the_table_says_of_it() -> Result<()> {
    try_all(Bad::check_reference)
}

#[test]
fn the_table_is_long_and_has_no_line_twice() {
    let table = table();
    assert!(table.len() >= 200, "only {} bad inputs", table.len());
    let mut names: Vec<_> = table.iter().map(|bad| (bad.plugin, bad.verb, bad.name.as_str())).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "two lines of one name");
    }
}
