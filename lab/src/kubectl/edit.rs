//! `kubectl edit`: an object's JSON in an editor; what of its `spec` is changed there becomes a patch.

use std::io::Write;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::Ask;
use super::client::Lab;
use super::parse::{EditArgs, one};
use crate::exit::{self, Failure};
use crate::output;

/// Where the editor's name may stand.
const EDITORS: [&str; 3] = ["KUBE_EDITOR", "VISUAL", "EDITOR"];

pub(super) fn edit(lab: &Lab, args: &EditArgs) -> Result<u8, Failure> {
    let (kind, name) = one(&args.what)?;
    let mut object = lab.get(kind, std::slice::from_ref(&name), None)?.swap_remove(0);
    if let Some(object) = object.as_object_mut() {
        object.remove("podlab");
    }
    let text = edited(&format!("{object:#}\n"))?;
    let new: Value = serde_json::from_str(&text)
        .map_err(|err| Failure::new(exit::FAILED, format!("the edited file: {err}; nothing was changed")))?;
    let Some(patch) = patch(&object, &new)? else {
        output::print("Edit cancelled, no changes made.\n")?;
        return Ok(exit::OK);
    };
    lab.order(Ask::Patch { kind, name: name.clone(), patch })?;
    output::print(&format!("{kind}/{name} edited\n"))?;
    Ok(exit::OK)
}

/// What the editor makes of a text.
fn edited(text: &str) -> Result<String, Failure> {
    let failed = |err: std::io::Error| Failure::new(exit::FAILED, format!("a file to edit: {err}"));
    let editor = EDITORS.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "vi".to_owned());
    let path = std::env::temp_dir().join(format!("podlab-edit-{}.json", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    // The editor may come with options, as `code --wait` does.
    let status = Command::new("sh").args(["-c", &format!("{editor} \"$0\"")]).arg(&path).status();
    let text = std::fs::read_to_string(&path).map_err(failed);
    std::fs::remove_file(&path).map_err(failed)?;
    match status.map_err(failed)? {
        status if status.success() => text,
        status => {
            Err(Failure::new(exit::FAILED, format!("editor {editor:?}: {status}; nothing was changed")))
        }
    }
}

/// The fields of `spec` that differ; none when nothing does.
fn patch(old: &Value, new: &Value) -> Result<Option<Value>, Failure> {
    let without_spec = |value: &Value| {
        let mut value = value.clone();
        value.as_object_mut().and_then(|object| object.remove("spec"));
        value
    };
    if without_spec(old) != without_spec(new) {
        return Err(Failure::new(exit::FAILED, "a lab changes what is in spec only; nothing was changed"));
    }
    let empty = Map::new();
    let fields = |value: &'_ Value| value["spec"].as_object().cloned().unwrap_or_else(|| empty.clone());
    let (before, after) = (fields(old), fields(new));
    if let Some(key) = before.keys().find(|key| !after.contains_key(*key)) {
        return Err(Failure::new(
            exit::FAILED,
            format!("spec.{key} cannot be taken away; nothing was changed"),
        ));
    }
    let changed: Map<String, Value> =
        after.into_iter().filter(|(key, value)| before.get(key) != Some(value)).collect();
    Ok((!changed.is_empty()).then(|| json!({ "spec": changed })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_sent() {
        let old =
            json!({ "kind": "x", "metadata": { "name": "default" }, "spec": { "replicas": 1, "a": 2 } });
        let with = |replicas: u32| json!({ "kind": "x", "metadata": { "name": "default" }, "spec": { "replicas": replicas, "a": 2 } });
        assert_eq!(patch(&old, &with(1)).unwrap(), None);
        assert_eq!(patch(&old, &with(3)).unwrap(), Some(json!({ "spec": { "replicas": 3 } })));
        assert!(patch(&old, &json!({ "kind": "y", "spec": old["spec"] })).is_err());
        assert!(
            patch(&old, &json!({ "kind": "x", "metadata": old["metadata"], "spec": { "replicas": 1 } }))
                .is_err()
        );
    }
}
