//! `podlab inspect`.

use serde_json::{Value, json};

use super::{InspectArgs, Style};
use crate::control::{Client, Request};
use crate::exit::{self, Failure};
use crate::output::{self, Format};

/// The parts of a document that can be asked for alone, with their columns.
const PARTS: [(&str, &[&str]); 9] = [
    ("interfaces", &["name", "kind", "state", "mtu", "mac", "master", "addresses"]),
    ("routes", &["dst", "gateway", "dev", "src", "metric", "table"]),
    ("rules", &["priority", "from", "to", "table"]),
    ("neigh", &["address", "dev", "mac", "state"]),
    ("fdb", &["mac", "dev", "dst", "vni"]),
    ("qdiscs", &["dev", "kind", "rate"]),
    ("chains", &["table", "chain", "rules"]),
    ("sysctls", &["name", "value"]),
    ("events", &["ms", "node", "what"]),
];

pub(super) fn inspect(args: &InspectArgs, style: Style) -> Result<u8, Failure> {
    let part = args.part.as_deref();
    if let Some(part) = part.filter(|part| !PARTS.iter().any(|(name, _)| name == part)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(Failure::usage(format!("nothing is called {part:?} · there are: {}", names.join(", "))));
    }
    let request = Request::Inspect { what: args.target.clone() };
    let document = Client::connect(&args.lab.name)?.ask(&request, &mut |_, _| {})?;
    match (style.format, part) {
        (Format::Json, None) => output::print_json(&document)?,
        (Format::Json, Some(part)) => {
            output::print_json(
                &json!({ "schema": document["schema"], "name": document["name"], part: document[part] }),
            )?;
        }
        (Format::Table, part) => output::print(&tables(&document, part))?,
    }
    Ok(exit::OK)
}

fn tables(document: &Value, part: Option<&str>) -> String {
    let mut text = String::new();
    if part.is_none() {
        for (key, value) in document.as_object().into_iter().flatten() {
            if !value.is_array() && !value.is_object() && key != "schema" {
                text.push_str(&format!("{key}: {}\n", cell(value)));
            }
        }
    }
    let lab: [(&str, &[&str]); 2] = [
        ("nodes", &["name", "rack", "address", "podCIDR"]),
        ("pods", &["name", "node", "addresses", "netns"]),
    ];
    for (name, columns) in lab.iter().chain(&PARTS) {
        let asked = part.is_none_or(|part| part == *name);
        let Some(rows) = document[*name].as_array().filter(|_| asked) else { continue };
        if rows.is_empty() && part.is_none() {
            continue;
        }
        let head: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| columns.iter().map(|column| cell(&row[*column])).collect()).collect();
        if part.is_none() {
            text.push_str(&format!("\n{name}\n"));
        }
        text.push_str(&output::table(&head, &rows));
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_one_table_and_all_is_a_table_each() {
        let document = json!({
            "schema": "podlab.inspect/1", "name": "node1", "role": "node",
            "routes": [{ "dst": "0.0.0.0/0", "gateway": "192.0.2.1", "dev": "eth0", "table": 254 }],
            "neigh": [],
        });
        assert_eq!(
            tables(&document, Some("routes")),
            "DST        GATEWAY    DEV   SRC  METRIC  TABLE\n0.0.0.0/0  192.0.2.1  eth0  -    -       254\n"
        );
        let all = tables(&document, None);
        assert!(all.starts_with("name: node1\nrole: node\n\nroutes\nDST"), "{all}");
        assert!(!all.contains("neigh"), "{all}");
        assert_eq!(tables(&document, Some("neigh")), "ADDRESS  DEV  MAC  STATE\n");
    }
}
