//! The forms of the documents that podlab reads and prints, as JSON Schema (draft 2020-12): the files of `schemas/`.
//!
//! A document says in `schema` which form it has. Keys may be added to a printed form without a new number; those that are
//! there stay. What podlab reads has no keys but those of its schema.

use crate::exit::Failure;

/// Name and text of each.
pub const ALL: [(&str, &str); 35] = [
    ("again", include_str!("../schemas/again.json")),
    ("attempt", include_str!("../schemas/attempt.json")),
    ("bench", include_str!("../schemas/bench.json")),
    ("bundle", include_str!("../schemas/bundle.json")),
    ("call", include_str!("../schemas/call.json")),
    ("checks", include_str!("../schemas/checks.json")),
    ("doctor", include_str!("../schemas/doctor.json")),
    ("down", include_str!("../schemas/down.json")),
    ("event", include_str!("../schemas/event.json")),
    ("exam", include_str!("../schemas/exam.json")),
    ("faults", include_str!("../schemas/faults.json")),
    ("inspect", include_str!("../schemas/inspect.json")),
    ("lab", include_str!("../schemas/lab.json")),
    ("labs", include_str!("../schemas/labs.json")),
    ("lesson", include_str!("../schemas/lesson.json")),
    ("lessons", include_str!("../schemas/lessons.json")),
    ("lint", include_str!("../schemas/lint.json")),
    ("namespaces", include_str!("../schemas/namespaces.json")),
    ("plan", include_str!("../schemas/plan.json")),
    ("probes", include_str!("../schemas/probes.json")),
    ("rehearsal", include_str!("../schemas/rehearsal.json")),
    ("resolved", include_str!("../schemas/resolved.json")),
    ("result", include_str!("../schemas/result.json")),
    ("results", include_str!("../schemas/results.json")),
    ("run", include_str!("../schemas/run.json")),
    ("schemas", include_str!("../schemas/schemas.json")),
    ("sighting", include_str!("../schemas/sighting.json")),
    ("state", include_str!("../schemas/state.json")),
    ("step", include_str!("../schemas/step.json")),
    ("topology", include_str!("../schemas/topology.json")),
    ("trace", include_str!("../schemas/trace.json")),
    ("verdict", include_str!("../schemas/verdict.json")),
    ("versions", include_str!("../schemas/versions.json")),
    ("walk", include_str!("../schemas/walk.json")),
    ("why", include_str!("../schemas/why.json")),
];

/// The text of the schema of that name; `podlab.NAME/1` and `NAME` are the same.
///
/// # Errors
/// There is none; the error has the names that there are.
pub fn text(name: &str) -> Result<&'static str, Failure> {
    let short = name.strip_prefix("podlab.").and_then(|rest| rest.strip_suffix("/1")).unwrap_or(name);
    let found = ALL.iter().find(|(own, _)| *own == short);
    found.map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        Failure::usage(format!("no schema {name:?} · there are: {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_file_is_a_schema_of_its_own_name() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let files: BTreeSet<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".json").to_owned())
            .collect();
        assert_eq!(files, ALL.iter().map(|(name, _)| (*name).to_owned()).collect());
        for (name, text) in ALL {
            let schema: Value = serde_json::from_str(text).unwrap();
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
            assert_eq!(schema["$id"], format!("urn:podlab:{name}:1"), "{name}");
            assert!(text.contains(&format!("\"const\": \"podlab.{name}/1\"")), "{name}");
        }
        assert_eq!(text("podlab.verdict/1").unwrap(), text("verdict").unwrap());
        assert!(text("nothing").unwrap_err().text.contains("no schema \"nothing\" · there are: again, "));
    }
}
