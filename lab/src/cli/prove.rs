//! `podlab verify`, `podlab trace` and `podlab why`: the proofs. The supervisor captures and judges; here the answer is
//! printed.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use serde_json::{Value, json};

use super::{ReportArgs, Selection, Style, TraceArgs, VerifyArgs, WhyArgs, step};
use crate::control::{Client, Keep, Request};
use crate::exit::{self, Failure};
use crate::output::{self, Format, Steps, Tests};
use crate::page::walk::Wanted;
use crate::trace::{self, Trace};
use crate::verdict::{self, Report};
use crate::verify::Plan;
use crate::why::{self, Why};
use crate::{bundle, record, suites, verify};

/// The name of the form of what `verify --from` says.
const AGAIN: &str = "podlab.again/1";

pub(super) fn verify(args: VerifyArgs, style: Style) -> Result<u8, Failure> {
    if args.list {
        return list(style);
    }
    if let Some(bundle) = &args.from {
        return again(bundle, args.junit.as_deref(), style);
    }
    let kept = args.write.as_deref().map(|path| (path, Keep::Packets));
    let (report, document) = ask_to_verify(&args.lab.name, args.selection, kept, style)?;
    write_junit(&report, args.junit.as_deref())?;
    tell(&report, &document, style)
}

pub(super) fn report(args: ReportArgs, style: Style) -> Result<u8, Failure> {
    let kept = Some((args.file.as_path(), Keep::Bundle));
    let (report, document) = ask_to_verify(&args.lab.name, args.selection, kept, style)?;
    let code = tell(&report, &document, style)?;
    if !style.quiet {
        output::tell(&format!("evidence in {0} · podlab verify --from {0}", args.file.display()));
    }
    Ok(code)
}

/// Has a lab verify, and saves what is to be kept; the report, and the document that it was read from.
fn ask_to_verify(
    lab: &str,
    selection: Selection,
    kept: Option<(&Path, Keep)>,
    style: Style,
) -> Result<(Report, Value), Failure> {
    let steps = Steps::new(style.quiet);
    let request = Request::Verify {
        checks: selection.checks,
        nodes: selection.node,
        sample: selection.sample.map(NonZeroUsize::get),
        seed: selection.seed,
        keep: kept.map_or(Keep::Nothing, |(_, keep)| keep),
    };
    let mut client = Client::connect(lab)?;
    let document = client.ask(&request, &mut |text, ms| steps.done(text, ms))?;
    if let Some((path, _)) = kept {
        save(&mut client, path)?;
    }
    Ok((decode(&document)?, document))
}

fn write_junit(report: &Report, path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, suites::junit(&report.suites()))
        .map_err(|err| Failure::new(exit::FAILED, format!("{}: {err}", path.display())))
}

fn tell(report: &Report, document: &Value, style: Style) -> Result<u8, Failure> {
    match (style.tests, style.format) {
        (Some(Tests::Tap), _) => output::print(&suites::tap(&report.suites()))?,
        (Some(Tests::Junit), _) => output::print(&suites::junit(&report.suites()))?,
        (None, Format::Json) => output::print_json(document)?,
        (None, Format::Table) => output::print(&verdict::render_table(report, looks(style)))?,
    }
    Ok(report.exit_code())
}

/// Differences that are shown.
const SHOWN: usize = 20;

/// Judges a bundle again. What it says of itself is printed only where the packets say otherwise.
fn again(path: &Path, junit: Option<&Path>, style: Style) -> Result<u8, Failure> {
    let refused = |text: String| Failure::usage(format!("{}: {text}", path.display()));
    let file = File::open(path).map_err(|err| refused(err.to_string()))?;
    let bundle = bundle::read(io::BufReader::new(file), bundle::Limits::default()).map_err(refused)?;
    let plan: Plan =
        serde_json::from_slice(&bundle.plan).map_err(|err| refused(format!("plan.json: {err}")))?;
    let claimed: Report =
        serde_json::from_slice(&bundle.verdicts).map_err(|err| refused(format!("verdicts.json: {err}")))?;
    let recording = record::read(&bundle.packets).map_err(refused)?;
    let (report, differences) = verify::again(&plan, &recording, &claimed).map_err(refused)?;
    write_junit(&report, junit)?;
    match (style.tests, style.format) {
        (Some(Tests::Tap), _) => output::print(&suites::tap(&report.suites()))?,
        (Some(Tests::Junit), _) => output::print(&suites::junit(&report.suites()))?,
        (None, Format::Json) => output::print_json(&json!({
            "schema": AGAIN,
            "report": report,
            "differences": differences,
        }))?,
        (None, Format::Table) => {
            let mut text = verdict::render_table(&report, looks(style));
            for it in differences.iter().take(SHOWN) {
                let (subject, field, claimed, found) = (&it.subject, &it.field, &it.claimed, &it.found);
                text.push_str(&format!(
                    "the bundle is wrong about {subject}, {field}: it says {claimed}, the packets say {found}\n"
                ));
            }
            if differences.len() > SHOWN {
                text.push_str(&format!("and {} more differences\n", differences.len() - SHOWN));
            }
            if differences.is_empty() {
                text.push_str("the packets say what the bundle says\n");
            }
            output::print(&text)?;
        }
    }
    Ok(if differences.is_empty() { report.exit_code() } else { exit::FAILED })
}

fn keep(path: Option<&Path>) -> Keep {
    if path.is_some() { Keep::Packets } else { Keep::Nothing }
}

/// Writes what the lab has kept of its answer.
fn save(client: &mut Client, path: &Path) -> Result<(), Failure> {
    let mut kept = client.collect()?;
    let copied = File::create(path).and_then(|mut file| io::copy(&mut kept, &mut file));
    copied.map(drop).map_err(|err| Failure::new(exit::FAILED, format!("{}: {err}", path.display())))
}

fn list(style: Style) -> Result<u8, Failure> {
    match style.format {
        Format::Json => {
            let checks: Vec<Value> = verify::CHECKS
                .iter()
                .map(|check| json!({ "name": check.name, "title": check.title }))
                .collect();
            output::print_json(&json!({ "schema": "podlab.checks/1", "checks": checks }))?;
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = verify::CHECKS
                .iter()
                .map(|check| vec![check.name.to_owned(), check.title.to_owned()])
                .collect();
            output::print(&output::table(&["CHECK", "WHAT IT SHOWS"], &rows))?;
        }
    }
    Ok(exit::OK)
}

pub(super) fn trace(args: &TraceArgs, style: Style) -> Result<u8, Failure> {
    let wanted = Wanted {
        family: args.ip_family,
        step: args.step,
        ..Wanted::parse(&args.source, &args.target, &args.proto, args.hooks)?
    };
    let request = wanted.request(keep(args.write.as_deref()));
    let mut client = Client::connect(&args.lab.name)?;
    let document = match args.step {
        true => step::trace(&mut client, &request, style)?,
        false => client.ask(&request, &mut |_, _| {})?,
    };
    if let Some(path) = &args.write {
        save(&mut client, path)?;
    }
    let walk: Trace = decode(&document)?;
    match style.format {
        Format::Json => output::print_json(&document)?,
        Format::Table => output::print(&trace::render_trace(&walk, looks(style)))?,
    }
    Ok(walk.exit_code())
}

pub(super) fn why(args: WhyArgs, style: Style) -> Result<u8, Failure> {
    let request =
        Request::Why { source: args.source, target: args.target, port: args.port, family: args.ip_family };
    let document = Client::connect(&args.lab.name)?.ask(&request, &mut |_, _| {})?;
    let why: Why = decode(&document)?;
    match style.format {
        Format::Json => output::print_json(&document)?,
        Format::Table => output::print(&why::render_why(&why, looks(style)))?,
    }
    Ok(why.exit_code())
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(document: &Value) -> Result<T, Failure> {
    T::deserialize(document).map_err(|err| {
        Failure::new(
            exit::BUG,
            format!("answer of the lab: {err} · try: the podlab that the lab was made with"),
        )
    })
}

fn looks(style: Style) -> verdict::Style {
    verdict::Style { is_coloured: style.color, is_ascii: !output::is_utf8() }
}
