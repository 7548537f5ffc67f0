//! The benchmark: CNI plugins as whole processes, side by side in one run, beside the least that the kernel allows. Run by
//! `scripts/bench`; `cargo test` does not run it.
//!
//! Every peer has a node (a network namespace) of its own; peers take turns A B C, B C A, …; what is timed is from before
//! the process is made until it has been waited for. Each result is verified in the kernel, so that a wrong one cannot
//! win. Mounts are private and /run is a file system in memory: nothing of the machine is touched.

mod attachment;
mod faults;
mod growth;
mod machine;
mod node;
mod options;
mod parallel;
mod peer;
mod session;
mod shape;
mod simple;
mod spawn;
mod standard;
mod traffic;
mod verify;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use podnet_tests::bench::run::Run;
use podnet_tests::bench::{compare, plot, report};
use podnet_tests::sealed::{sealed, tmpfs};

use options::Options;
use session::Session;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error:#} · try: --help");
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, or reads what was measured, and shows it; whether nothing failed and, if asked, both runs agree.
fn bench(options: &Options) -> Result<bool> {
    let run = match &options.from {
        Some(file) => read(file)?,
        None => sealed(|| {
            tmpfs(Path::new("/run"), "size=64m")?;
            let mut session = Session::new(options)?;
            session.measure()?;
            Ok(session.run)
        })?,
    };
    if let Some(file) = &options.json {
        let json = serde_json::to_vec(&run).context("encode the run")?;
        fs::write(file, json).with_context(|| format!("write {}", file.display()))?;
    }
    if let Some(directory) = &options.plots {
        write_plots(&run, directory)?;
    }
    print!("{}", if options.markdown { report::markdown(&run) } else { report::text(&run) });
    let mut good = run.failures.is_empty();
    for failure in &run.failures {
        eprintln!("FAILED: {failure}");
    }
    if let Some(file) = &options.compare {
        let (table, agrees) = compare::compare(&run, &read(file)?);
        println!("\nTwo runs\n{}", if options.markdown { table.markdown() } else { table.text() });
        good &= agrees;
    }
    Ok(good)
}

fn read(file: &Path) -> Result<Run> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no run of this benchmark", file.display()))
}

fn write_plots(run: &Run, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    for case in run.cases() {
        let Some(svg) = plot::svg(run, case) else { continue };
        let file = directory.join(format!("{case}.svg"));
        fs::write(&file, svg).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
