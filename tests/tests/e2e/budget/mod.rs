//! What a verb asks of the kernel, held to `tests/budget.txt`: system calls, netlink messages, bytes, files, programs and
//! processes instead of times, so that the test says the same on every machine. [`podnet_tests::counts`] tells what is
//! left out.
//!
//! A count above its ceiling fails, and so does one that is far below, which would hide the next that is not.
//! `PODNET_BLESS=1 cargo test -p podnet-tests budget::` writes the file.

mod cases;
mod growth;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use podnet_tests::counts::{Counts, count};
use podnet_tests::{Side, World};

/// Row by row, `CASE VERB`.
type Table = BTreeMap<String, Counts>;

const HEAD: &str = "\
# What each verb may ask of the kernel: the most of each, counted from the first read of stdin on, without what the
# C library does for itself and without receiving and waiting (tests/src/counts.rs). Written by
# PODNET_BLESS=1 cargo test -p podnet-tests budget::
#
# calls: system calls; sends and messages: on netlink sockets; bytes: read from files; files: opened;
# execs: programs started; forks: processes made.
#
";

/// How often a case that does not fit is counted again. The kernel may break off a dump because an address of it has
/// just become valid; then there is one request more.
const TRIES: usize = 3;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("budget.txt")
}

fn print(table: &Table) -> String {
    let width = table.keys().map(String::len).max().unwrap_or(0);
    let mut text = HEAD.to_owned();
    let mut line = |head: &str, cells: [String; 7]| {
        let _ = write!(text, "{head:width$}");
        cells.iter().for_each(|cell| text.push_str(&format!(" {cell:>8}")));
        text.push('\n');
    };
    line("# case and verb", Counts::NAMES.map(str::to_owned));
    for (row, counts) in table {
        line(row, counts.values().map(|value| value.to_string()));
    }
    text
}

fn parse(text: &str) -> Result<Table> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let row = |line: &str| -> Result<(String, Counts)> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [case, verb, values @ ..] = &words[..] else { bail!("not a case and a verb: {line:?}") };
        let values: Vec<u64> = values.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
        let values = values.try_into().ok().with_context(|| format!("not seven numbers: {line:?}"))?;
        Ok((format!("{case} {verb}"), Counts::from_values(values)))
    };
    lines.map(|line| row(line).with_context(|| format!("tests/budget.txt: {line:?}"))).collect()
}

/// What does not fit: above the ceiling, or more than a twentieth below.
fn misfits(row: &str, ceiling: &Counts, counts: &Counts) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((name, ceiling), count) in Counts::NAMES.iter().zip(ceiling.values()).zip(counts.values()) {
        if count > ceiling {
            wrong.push(format!("{row}: {count} {name}, above the ceiling of {ceiling}"));
        } else if ceiling - count > ceiling / 20 {
            wrong.push(format!("{row}: {count} {name}, so lower the ceiling of {ceiling} to {count}"));
        }
    }
    wrong
}

#[test]
fn no_verb_asks_more_of_the_kernel_than_its_ceiling() -> Result<()> {
    let bless = std::env::var_os("PODNET_BLESS").is_some_and(|value| value == "1");
    let mut table = Table::new();
    if bless {
        for case in cases::all() {
            table.extend(case.measure()?);
        }
        return fs::write(path(), print(&table)).context("write tests/budget.txt");
    }
    let ceilings = parse(&fs::read_to_string(path()).context("read tests/budget.txt")?)?;
    let mut wrong = Vec::new();
    for case in cases::all() {
        let mut least = Table::new();
        for try_ in 1..=TRIES {
            for (row, counts) in case.measure()? {
                let counts = least.get(&row).map_or(counts, |before| counts.least(before));
                least.insert(row, counts);
            }
            let misfits: Vec<_> = least
                .iter()
                .flat_map(|(row, counts)| match ceilings.get(row) {
                    Some(ceiling) => misfits(row, ceiling, counts),
                    None => vec![format!("{row}: no ceiling yet")],
                })
                .collect();
            if misfits.is_empty() {
                break;
            }
            if try_ == TRIES {
                wrong.extend(misfits);
            }
        }
        table.append(&mut least);
    }
    let gone = ceilings.keys().filter(|row| !table.contains_key(*row));
    wrong.extend(gone.map(|row| format!("{row}: a ceiling for no case")));
    ensure!(
        wrong.is_empty(),
        "{}\nif that is meant: PODNET_BLESS=1 cargo test -p podnet-tests budget::",
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn a_count_above_or_far_below_its_ceiling_is_told() -> Result<()> {
    let ceiling = Counts { calls: 100, sends: 3, bytes: 7, ..Counts::default() };
    assert_eq!(misfits("x ADD", &ceiling, &ceiling), [""; 0]);
    assert_eq!(misfits("x ADD", &ceiling, &Counts { calls: 95, ..ceiling }), [""; 0]);
    let found = misfits("x ADD", &ceiling, &Counts { calls: 94, sends: 4, forks: 1, ..ceiling });
    assert_eq!(
        found,
        [
            "x ADD: 94 calls, so lower the ceiling of 100 to 94",
            "x ADD: 4 sends, above the ceiling of 3",
            "x ADD: 1 forks, above the ceiling of 0"
        ]
    );
    let table = Table::from([("x ADD".to_owned(), ceiling), ("longer-name CHECK".to_owned(), ceiling)]);
    assert_eq!(parse(&print(&table))?, table);
    assert!(parse("x ADD 1 2 3").is_err() && parse("x ADD 1 2 3 4 5 6 many").is_err());
    Ok(())
}

/// The negative control: a delegate that is another program costs a process and a program.
#[test]
fn a_foreign_delegate_is_counted() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let text =
        |ipam: &str| format!(r#"{{"ipam":{{"type":"{ipam}","addresses":[{{"address":"10.1.2.3/24"}}]}}}}"#);
    let own = world.call("bridge", "ADD").config("1.0.0", &text("static"));
    let (outcome, own) = count(&own, world.dir())?;
    outcome.result()?;
    let world = World::new(Side::Podnet, 1)?;
    std::os::unix::fs::symlink(Side::Debian.dir()?.join("static"), world.dir().join("delegate"))?;
    let foreign = world.call("bridge", "ADD").config("1.0.0", &text("delegate")).env("CNI_PATH", world.dir());
    let (outcome, foreign) = count(&foreign, world.dir())?;
    outcome.result()?;
    ensure!(own.execs == 0 && own.forks == 0, "{own:?}");
    ensure!(foreign.execs == 1 && foreign.forks == 1 && foreign.calls > own.calls, "{foreign:?}");
    Ok(())
}
