//! `podlab ls` and `podlab down`: the labs that are up, and their end.

use serde_json::{Value, json};

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
        Format::Json => output::print_json(&json!({ "schema": "podlab.labs/1", "labs": labs }))?,
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
    let mut state = match troubles.as_slice() {
        [] => text(&lab["state"]),
        troubles => format!("{}: {}", text(&lab["state"]), troubles.join(", ")),
    };
    match lab["faults"].as_u64() {
        None | Some(0) => {}
        Some(1) => state += ", 1 fault",
        Some(many) => state += &format!(", {many} faults"),
    }
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
        let request = Request::Down { graceful: args.graceful };
        let answer = client.ask(&request, &mut |text, ms| steps.done(text, ms))?;
        client.wait_for_end(name);
        steps.done(&ending(name, &answer), start.elapsed().as_millis() as u64);
        ended.push(answer);
    }
    let all = |key: &str| -> Vec<String> {
        ended.iter().filter_map(|lab| lab[key].as_array()).flatten().map(text).collect()
    };
    let (failed, left) = (all("failed"), all("left"));
    if style.format == Format::Json {
        output::print_json(&json!({ "schema": "podlab.down/1", "down": ended }))?;
    }
    failed.iter().for_each(|failure| eprintln!("error: {failure}"));
    left.iter().for_each(|what| eprintln!("error: left after CNI DEL: {what}"));
    Ok(if failed.is_empty() && left.is_empty() { exit::OK } else { exit::FAILED })
}

/// What is said of a lab that has ended, with the outcome of the CNI DELs if there were any.
fn ending(name: &str, answer: &Value) -> String {
    if answer["graceful"] != true {
        return format!("lab {name} is down");
    }
    let count = |key: &str| answer[key].as_array().map_or(0, Vec::len);
    format!(
        "lab {name} is down: {} of {} pods deleted by CNI DEL in {} ms, {} failed, {} left",
        answer["deleted"],
        answer["pods"],
        answer["ms"],
        count("failed"),
        count("left")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_with_dels_counts_them() {
        assert_eq!(ending("demo", &json!({ "graceful": false, "deleted": 0 })), "lab demo is down");
        let answer = json!({
            "graceful": true, "pods": 30, "deleted": 29, "failed": ["node1: no"], "left": [], "ms": 12,
        });
        assert_eq!(
            ending("demo", &answer),
            "lab demo is down: 29 of 30 pods deleted by CNI DEL in 12 ms, 1 failed, 0 left"
        );
    }

    #[test]
    fn a_degraded_lab_says_what_is_wrong() {
        let lab = json!({
            "name": "demo", "mode": "routed", "nodes": 3, "pods": 30, "state": "degraded",
            "troubles": ["node2/eth0 is down"], "faults": 1,
        });
        assert_eq!(row(&lab), ["demo", "routed", "3", "30", "degraded: node2/eth0 is down, 1 fault"]);
    }
}
