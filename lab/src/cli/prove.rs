//! `podlab verify` and `podlab trace`: the proofs. The supervisor captures and judges; here the answer is
//! printed.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use serde_json::{Value, json};

use super::{Style, TraceArgs, VerifyArgs};
use crate::control::{Client, Keep, Request};
use crate::exit::{self, Failure};
use crate::output::{self, Format, Steps};
use crate::trace::{self, Trace};
use crate::verdict::{self, Report};
use crate::{kubia, verify};

pub(super) fn verify(args: VerifyArgs, style: Style) -> Result<u8, Failure> {
    if args.list {
        return list(style);
    }
    let steps = Steps::new(style.quiet);
    let request = Request::Verify {
        checks: args.checks,
        nodes: args.node,
        sample: args.sample.map(NonZeroUsize::get),
        seed: args.seed,
        keep: keep(args.write.as_deref()),
    };
    let mut client = Client::connect(&args.lab.name)?;
    let document = client.ask(&request, &mut |text, ms| steps.done(text, ms))?;
    if let Some(path) = &args.write {
        save(&mut client, path)?;
    }
    let report: Report = decode(&document)?;
    match style.format {
        Format::Json => output::print_json(&document)?,
        Format::Table => output::print(&verdict::render_table(&report, looks(style)))?,
    }
    Ok(report.exit_code())
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
            output::print_json(&json!({ "schema": verdict::SCHEMA, "checks": checks }))?;
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
    let (target, port) = match args.target.rsplit_once(':') {
        Some((target, port)) => {
            let port = port.parse().map_err(|_| Failure::usage(format!("{port:?} is not a port")))?;
            (target, port)
        }
        None => (args.target.as_str(), kubia::PORT),
    };
    let request = Request::Trace {
        source: args.source.clone(),
        target: target.to_owned(),
        port,
        protocol: args.proto.clone(),
        keep: keep(args.write.as_deref()),
    };
    let mut client = Client::connect(&args.lab.name)?;
    let document = client.ask(&request, &mut |_, _| {})?;
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

fn decode<T: serde::de::DeserializeOwned>(document: &Value) -> Result<T, Failure> {
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
