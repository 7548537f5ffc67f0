//! `podlab bench`: rates between pods. A lab that is up is measured by its supervisor; `--modes` brings labs up for it, one
//! after the other.

use std::fs::File;
use std::io::{BufReader, stderr, stdout};
use std::os::fd::{AsFd, OwnedFd};

use kernel::fork;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getppid};
use serde_json::Value;

use super::{BenchArgs, Style};
use crate::bench::{Bench, LabBench, Measured, ROUNDS, SCHEMA, Skipped, plot, render_table};
use crate::capsule;
use crate::control::{self, Client, Event, Request};
use crate::exit::{self, Failure};
use crate::modes::{self, Selected};
use crate::output::{self, Format, Steps};
use crate::topology::{Nodes, Topology, Written};

/// What `--modes` takes for every mode.
const ALL: &str = "all";
/// The least and the most time for a measurement, in seconds.
const SECONDS: std::ops::RangeInclusive<f64> = 0.1..=60.0;

/// `--seconds`.
///
/// # Errors
/// It is no number, or not in the range.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let (least, most) = (SECONDS.start(), SECONDS.end());
    let fits = text.parse().ok().filter(|number| SECONDS.contains(number));
    fits.ok_or_else(|| format!("{text:?} is not from {least} to {most}"))
}

pub(super) fn bench(args: &BenchArgs, style: Style) -> Result<u8, Failure> {
    let mut bench = Bench {
        schema: SCHEMA.to_owned(),
        seconds: args.seconds,
        rounds: ROUNDS,
        labs: Vec::new(),
        skipped: Vec::new(),
    };
    let modes = selected(&args.modes)?;
    // What cannot be written is told before minutes are spent.
    let plot_file = args
        .plot
        .as_deref()
        .map(|path| File::create(path).map_err(|err| Failure::usage(format!("{}: {err}", path.display()))));
    let plot_file = plot_file.transpose()?;
    if modes.is_empty() {
        bench.labs.push(ask(&args.lab.name, args.seconds, style)?);
    }
    for mode in modes {
        match in_own_lab(mode, args.seconds, style) {
            Ok(lab) => bench.labs.push(lab),
            Err(failure) if failure.code == exit::LACKING => {
                bench.skipped.push(Skipped { mode: mode.to_string(), why: failure.text });
            }
            Err(failure) => return Err(failure),
        }
    }
    if let Some(mut file) = plot_file {
        std::io::Write::write_all(&mut file, plot(&bench).as_bytes())
            .map_err(|err| Failure::new(exit::FAILED, format!("plot: {err}")))?;
    }
    match style.format {
        Format::Json => output::print_json(&output::document(&bench)?)?,
        Format::Table => output::print(&render_table(&bench))?,
    }
    let measured: Vec<&Measured> = bench.labs.iter().flat_map(|lab| &lab.results).collect();
    Ok(if measured.is_empty() { exit::NOTHING } else { exit::OK })
}

/// The modes that are named, each once.
fn selected(words: &[String]) -> Result<Vec<Selected>, Failure> {
    let mut all: Vec<Selected> = Vec::new();
    for word in words {
        let names = if word == ALL { modes::names().collect() } else { vec![word.as_str()] };
        for name in names {
            let mode = name.parse().map_err(Failure::usage)?;
            if !all.contains(&mode) {
                all.push(mode);
            }
        }
    }
    Ok(all)
}

/// Has the supervisor of a lab measure.
fn ask(lab: &str, seconds: f64, style: Style) -> Result<LabBench, Failure> {
    let steps = Steps::new(style.quiet);
    let request = Request::Bench { millis: (seconds * 1000.0) as u64 };
    let document = Client::connect(lab)?.ask(&request, &mut |text, ms| steps.done(text, ms))?;
    super::prove::decode(&document)
}

/// Measures a mode in a lab of its own, which ends with this process at the latest.
fn in_own_lab(mode: Selected, seconds: f64, style: Style) -> Result<LabBench, Failure> {
    let name = format!("bench-{}-{}", std::process::id(), mode.to_string().replace(':', "-"));
    let topology = Written {
        name: Some(name.clone()),
        nodes: Some(Nodes::Count(2)),
        pods: Some(2),
        mode: Some(mode),
        ..Written::default()
    };
    let topology = topology.resolve()?;
    let (holder, events) = start(&topology)?;
    let up = await_up(events);
    let measured = up.and_then(|_| ask(&name, seconds, style));
    if let Ok(mut client) = Client::connect(&name) {
        // When it does not answer it is ending already.
        let _ = client.ask(&Request::Down { graceful: false }, &mut |_, _| {});
        client.wait_for_end(&name);
    }
    // It has no other status to tell.
    let _ = waitpid(holder, None);
    measured
}

/// Starts a process that launches the lab and waits for its end: a launcher is in the namespaces of its capsule from then
/// on, and this process is to launch another one.
fn start(topology: &Topology) -> Result<(Pid, BufReader<File>), Failure> {
    let failed =
        |what: &'static str| move |err: std::io::Error| Failure::new(exit::FAILED, format!("{what}: {err}"));
    let (events, told) = std::io::pipe().map_err(failed("pipe"))?;
    let nothing: OwnedFd = File::open("/dev/null").map_err(failed("/dev/null"))?.into();
    let errors = stderr().as_fd().try_clone_to_owned().map_err(failed("standard error"))?;
    let parent = std::process::id();
    let pid = fork::start([&nothing, &told.into(), &errors], || match hold(topology, parent) {
        Ok(()) => exit::OK,
        Err(failure) => {
            // Without a parent there is nobody to tell.
            let _ = control::send(&mut stdout(), &Event::error(&failure));
            failure.code
        }
    })
    .map_err(|err| Failure::new(exit::FAILED, format!("start a lab: {err}")))?;
    Ok((Pid::from_raw(pid), BufReader::new(File::from(OwnedFd::from(events)))))
}

/// The lab is tied to this process, and this process to its parent.
fn hold(topology: &Topology, parent: u32) -> Result<(), Failure> {
    let mut lab = capsule::launch(topology, false)?;
    // After the namespaces: who gets a user namespace loses the order (prctl(2), PR_SET_PDEATHSIG).
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| {
        Failure::new(exit::FAILED, format!("tie a lab to this process: {}", errno.desc()))
    })?;
    if getppid().as_raw().cast_unsigned() != parent {
        return Err(Failure::new(exit::FAILED, "podlab bench is gone"));
    }
    let value = lab.wait_until_up(&mut |_, _| {})?;
    control::send(&mut stdout(), &Event::Result { value })
        .map_err(|err| Failure::new(exit::FAILED, format!("tell that the lab is up: {err}")))?;
    lab.wait_until_down();
    Ok(())
}

fn await_up(mut events: BufReader<File>) -> Result<Value, Failure> {
    match control::receive(&mut events) {
        Ok(Some(Event::Result { value })) => Ok(value),
        Ok(Some(Event::Error { code, text })) => Err(Failure::new(code, text)),
        other => Err(Failure::new(exit::FAILED, format!("a lab ended before it was up: {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_named_once_each() {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(selected(&[]).unwrap(), []);
        let all = selected(&words(&["all"])).unwrap();
        assert_eq!(all.len(), modes::names().count());
        let mixed = selected(&words(&["vxlan:direct", "vxlan", "all", "vxlan"])).unwrap();
        assert_eq!(mixed.len(), all.len() + 1);
        assert!(selected(&words(&["pigeons"])).unwrap_err().text.contains("no mode \"pigeons\""));
    }

    #[test]
    fn seconds_have_a_range() {
        assert_eq!((seconds("0.1"), seconds("60")), (Ok(0.1), Ok(60.0)));
        for wrong in ["0", "61", "-1", "NaN", "soon", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
