//! `podlab verify`, `podlab trace` and `podlab why`: the proofs. The supervisor captures and judges; here the answer is
//! printed.

use std::num::NonZeroUsize;

use serde_json::{Value, json};

use super::{Style, TraceArgs, VerifyArgs, WhyArgs};
use crate::control::{Client, Request};
use crate::exit::{self, Failure};
use crate::output::{self, Format, Steps, Tests};
use crate::trace::{self, Trace};
use crate::verdict::{self, Report};
use crate::why::{self, Why};
use crate::{kubia, suites, verify};

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
    };
    let document = Client::connect(&args.lab.name)?.ask(&request, &mut |text, ms| steps.done(text, ms))?;
    let report: Report = decode(&document)?;
    if let Some(path) = &args.junit {
        std::fs::write(path, suites::junit(&report.suites()))
            .map_err(|err| Failure::new(exit::FAILED, format!("{}: {err}", path.display())))?;
    }
    match (style.tests, style.format) {
        (Some(Tests::Tap), _) => output::print(&suites::tap(&report.suites()))?,
        (Some(Tests::Junit), _) => output::print(&suites::junit(&report.suites()))?,
        (None, Format::Json) => output::print_json(&document)?,
        (None, Format::Table) => output::print(&verdict::render_table(&report, looks(style)))?,
    }
    Ok(report.exit_code())
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
    };
    let document = Client::connect(&args.lab.name)?.ask(&request, &mut |_, _| {})?;
    let walk: Trace = decode(&document)?;
    match style.format {
        Format::Json => output::print_json(&document)?,
        Format::Table => output::print(&trace::render_trace(&walk, looks(style)))?,
    }
    Ok(walk.exit_code())
}

pub(super) fn why(args: WhyArgs, style: Style) -> Result<u8, Failure> {
    let request = Request::Why { source: args.source, target: args.target, port: args.port };
    let document = Client::connect(&args.lab.name)?.ask(&request, &mut |_, _| {})?;
    let why: Why = decode(&document)?;
    match style.format {
        Format::Json => output::print_json(&document)?,
        Format::Table => output::print(&why::render_why(&why, looks(style)))?,
    }
    Ok(why.exit_code())
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
