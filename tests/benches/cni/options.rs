//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::session::CASES;

/// A file system in memory (shm_overview(7)).
const MEMORY: &str = "/dev/shm";

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
usage: scripts/bench [OPTION...]

  --case NAME[,NAME...]  only these cases:
                         start loopback bridge bridge-dual bridge-masquerade bridge-ports-1
                         bridge-ports-10 bridge-bandwidth ptp macvlan reservations pods rules
                         namespaces parallel memory size
  --peer NAME=DIR        another directory of CNI plugins beside podnet's and Debian's
  --against NAME         the peer that the goals compare with (debian)
  -n COUNT               iterations of each operation (40)
  --quick                few iterations and small numbers, for trying
  --json FILE            keep the run
  --plots DIR            a picture of each case
  --markdown             tables as Markdown
  --compare FILE         the goals' figures beside those of another run; exit code 1 when
                         one differs by more than 15 %
  --from FILE            show a run that was kept instead of measuring
  --state DIR            where the plugins keep their files (/dev/shm: on a disk, making a file takes
                         longer the more were deleted shortly before)

Exit codes: 0 all is well, 1 a result was wrong or two runs do not agree, 2 wrong use.
";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) cases: Vec<String>,
    pub(crate) peers: Vec<(String, PathBuf)>,
    pub(crate) against: String,
    pub(crate) iterations: usize,
    pub(crate) quick: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) plots: Option<PathBuf>,
    pub(crate) markdown: bool,
    pub(crate) compare: Option<PathBuf>,
    pub(crate) from: Option<PathBuf>,
    pub(crate) state: PathBuf,
}

impl Options {
    /// From the arguments; None when help is asked for.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Options {
            cases: CASES.iter().map(|case| (*case).to_owned()).collect(),
            peers: Vec::new(),
            against: "debian".into(),
            iterations: 0,
            quick: false,
            json: None,
            plots: None,
            markdown: false,
            compare: None,
            from: None,
            state: Some(PathBuf::from(MEMORY)).filter(|dir| dir.is_dir()).unwrap_or_else(std::env::temp_dir),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument}: no value"));
            match argument.as_str() {
                // Cargo says so to every benchmark.
                "--bench" => {}
                "-h" | "--help" => return Ok(None),
                "--case" => options.cases = value()?.split(',').map(str::to_owned).collect(),
                "--peer" => {
                    let text = value()?;
                    let (name, directory) = text.split_once('=').context("--peer NAME=DIR")?;
                    options.peers.push((name.to_owned(), directory.into()));
                }
                "--against" => options.against = value()?,
                "-n" => options.iterations = value()?.parse().context("-n")?,
                "--quick" => options.quick = true,
                "--json" => options.json = Some(value()?.into()),
                "--plots" => options.plots = Some(value()?.into()),
                "--markdown" => options.markdown = true,
                "--compare" => options.compare = Some(value()?.into()),
                "--from" => options.from = Some(value()?.into()),
                "--state" => options.state = value()?.into(),
                _ => bail!("no such option: {argument}"),
            }
        }
        if options.iterations == 0 {
            options.iterations = if options.quick { 5 } else { 40 };
        }
        for case in &options.cases {
            ensure!(CASES.contains(&case.as_str()), "no such case: {case}");
        }
        Ok(Some(options))
    }
}
