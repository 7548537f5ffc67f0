//! `podlab faults`, `break` and `heal`: what can be broken, and breaking and undoing it.

use std::time::Instant;

use serde_json::Value;

use super::{BreakArgs, FaultsArgs, HealArgs, Style};
use crate::breaking;
use crate::control::{Client, Request};
use crate::exit::{self, Failure};
use crate::faults::{self, Fault};
use crate::output::{self, Format, Steps};

pub(super) fn faults(args: &FaultsArgs, style: Style) -> Result<u8, Failure> {
    if args.active {
        let document = Client::connect(&args.lab.name)?.ask(&Request::Active, &mut |_, _| {})?;
        match style.format {
            Format::Json => output::print_json(&document)?,
            Format::Table => {
                let of = |told: &Value| ["number", "fault", "target"].map(|key| cell(&told[key])).to_vec();
                let rows: Vec<Vec<String>> =
                    document["active"].as_array().into_iter().flatten().map(of).collect();
                output::print(&output::table(&["NUMBER", "FAULT", "TARGET"], &rows))?;
            }
        }
        return Ok(exit::OK);
    }
    let all = faults::all();
    match style.format {
        Format::Json => {
            output::print_json(&breaking::catalogue())?;
        }
        Format::Table => {
            let row = |fault: &&Fault| {
                vec![usage(fault), fault.act.usage().to_owned(), fault.does.to_owned(), fault.seen.to_owned()]
            };
            let rows: Vec<Vec<String>> = all.iter().map(row).collect();
            output::print(&output::table(&["FAULT", "TARGET", "WHAT IT DOES", "WHAT IS SEEN"], &rows))?;
        }
    }
    Ok(exit::OK)
}

/// `loss[:PERCENT]`
fn usage(fault: &Fault) -> String {
    let unit = |unit: &str| unit.split('/').next().unwrap_or(unit).to_uppercase();
    fault.amount.map_or_else(|| fault.id.to_owned(), |amount| format!("{}[:{}]", fault.id, unit(amount.unit)))
}

fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn inject(args: BreakArgs, style: Style) -> Result<u8, Failure> {
    let start = Instant::now();
    let request = Request::Break { fault: args.fault, targets: args.targets, family: args.ip_family };
    let document = Client::connect(&args.lab.name)?.ask(&request, &mut |_, _| {})?;
    let broken = &document["broken"];
    Steps::new(style.quiet).done(
        &format!("{} at {}", cell(&broken["fault"]), cell(&broken["target"])),
        start.elapsed().as_millis() as u64,
    );
    if style.format == Format::Json {
        output::print_json(&document)?;
    }
    Ok(exit::OK)
}

pub(super) fn heal(args: HealArgs, style: Style) -> Result<u8, Failure> {
    let start = Instant::now();
    let request = Request::Heal { which: args.fault };
    let document = Client::connect(&args.lab.name)?.ask(&request, &mut |_, _| {})?;
    let healed = document["healed"].as_array().map_or(0, Vec::len);
    let text = if healed == 1 { "1 fault healed".to_owned() } else { format!("{healed} faults healed") };
    Steps::new(style.quiet).done(&text, start.elapsed().as_millis() as u64);
    if style.format == Format::Json {
        output::print_json(&document)?;
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_listed_with_its_number_and_its_target() {
        let (loss, _) = faults::find("loss").unwrap();
        assert_eq!(usage(loss), "loss[:PERCENT]");
        assert_eq!(usage(faults::find("rate").unwrap().0), "rate[:KBIT]");
        let listed = breaking::catalogue();
        let of =
            |name| listed["faults"].as_array().unwrap().iter().find(|fault| fault["name"] == name).unwrap();
        assert_eq!(of("loss")["amount"]["most"], 100);
        assert_eq!(of("dup-ip")["target"], "pods");
    }
}
