//! `podlab schema`: the forms of documents, for programs and editors.

use serde_json::{Map, Value, json};

use super::{SchemaArgs, Style};
use crate::exit::{self, Failure};
use crate::output::{self, Format};
use crate::schemas;

pub(super) fn schema(args: &SchemaArgs, style: Style) -> Result<u8, Failure> {
    match (&args.name, style.format) {
        (Some(name), _) => output::print(schemas::text(name)?)?,
        (None, Format::Json) => {
            let all: Map<String, Value> = schemas::ALL
                .iter()
                .map(|(name, text)| Ok(((*name).to_owned(), parsed(text)?)))
                .collect::<Result<_, Failure>>()?;
            output::print_json(&json!({ "schema": "podlab.schemas/1", "schemas": all }))?;
        }
        (None, Format::Table) => {
            let row = |(name, text): &(&str, &str)| -> Result<Vec<String>, Failure> {
                let what = parsed(text)?["description"].as_str().unwrap_or_default().to_owned();
                Ok(vec![(*name).to_owned(), what])
            };
            let rows = schemas::ALL.iter().map(row).collect::<Result<Vec<_>, _>>()?;
            output::print(&output::table(&["NAME", "WHAT"], &rows))?;
        }
    }
    Ok(exit::OK)
}

fn parsed(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|err| Failure::new(exit::BUG, format!("a schema: {err}")))
}
