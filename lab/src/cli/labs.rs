//! `podlab ls` and `podlab down`: the labs that are up, and their end.

use serde_json::{Value, json};

use super::up::SCHEMA;
use super::{DownArgs, Style};
use crate::control::{self, Client, Request};
use crate::exit::{self, Failure};
use crate::output::{self, Format, Steps};

pub(super) fn ls(style: Style) -> Result<u8, Failure> {
    let mut labs = Vec::new();
    for name in control::running() {
        // A lab may be coming up, when it does not answer yet, or going down, when it is none any more.
        let Ok(mut client) = Client::connect(&name) else { continue };
        if let Ok(summary) = client.ask(&Request::Summary, &mut |_, _| {}) {
            labs.push(summary);
        }
    }
    match style.format {
        Format::Json => output::print_json(&json!({ "schema": SCHEMA, "labs": labs }))?,
        Format::Table if style.quiet => {
            labs.iter().try_for_each(|lab| output::print(&format!("{}\n", text(&lab["name"]))))?;
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = labs.iter().map(row).collect();
            output::print(&output::table(&["NAME", "MODE", "NODES", "PODS", "STATE"], &rows))?;
        }
    }
    Ok(exit::OK)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn row(lab: &Value) -> Vec<String> {
    let troubles: Vec<String> = lab["troubles"].as_array().into_iter().flatten().map(text).collect();
    let state = match troubles.as_slice() {
        [] => text(&lab["state"]),
        troubles => format!("{}: {}", text(&lab["state"]), troubles.join(", ")),
    };
    let mut cells: Vec<String> =
        ["name", "mode", "nodes", "pods"].iter().map(|key| text(&lab[*key])).collect();
    cells.push(state);
    cells
}

pub(super) fn down(args: &DownArgs, style: Style) -> Result<u8, Failure> {
    let names = if args.all { control::running() } else { vec![args.lab.name.clone()] };
    let steps = Steps::new(style.quiet);
    let mut ended = Vec::new();
    for name in &names {
        let start = std::time::Instant::now();
        let mut client = Client::connect(name)?;
        let answer = client.ask(&Request::Down { graceful: args.graceful }, &mut |_, _| {})?;
        client.wait_for_end();
        steps.done(&format!("lab {name} is down"), start.elapsed().as_millis() as u64);
        ended.push(answer);
    }
    let failures: Vec<String> =
        ended.iter().filter_map(|lab| lab["failed"].as_array()).flatten().map(text).collect();
    if style.format == Format::Json {
        output::print_json(&json!({ "schema": SCHEMA, "down": ended }))?;
    }
    for failure in &failures {
        eprintln!("error: CNI DEL: {failure}");
    }
    Ok(if failures.is_empty() { exit::OK } else { exit::FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_degraded_lab_says_what_is_wrong() {
        let lab = json!({
            "name": "demo", "mode": "routed", "nodes": 3, "pods": 30, "state": "degraded",
            "troubles": ["node2/eth0 is down"],
        });
        assert_eq!(row(&lab), ["demo", "routed", "3", "30", "degraded: node2/eth0 is down"]);
    }
}
