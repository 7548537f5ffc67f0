//! A plugin's output as [`Facts`]: MACs are shown by what they belong to, the sandbox by the pod's number, random names
//! by their symbol. Everything else stays as printed.

use serde_json::Value;

use crate::facts::Facts;
use crate::process::Outcome;
use crate::world::{Snapshot, World};

/// Pictures one call: `exit`, and `result/…`, `error/…` or `stdout`.
pub fn facts(world: &World, snapshot: &Snapshot, outcome: &Outcome) -> Facts {
    let mut facts = Facts::new();
    facts.put(
        "exit",
        outcome.exit.map_or_else(|| format!("signal {:?}", outcome.signal), |code| code.to_string()),
    );
    if outcome.stdout.is_empty() {
        return facts;
    }
    match outcome.json() {
        Ok(mut json) if outcome.exit == Some(0) => {
            normalise(world, snapshot, &mut json);
            facts.put_json("result", &json);
        }
        Ok(json) => facts.put_json("error", &sentences(world, json)),
        Err(_) => facts.put("stdout", outcome.stdout.clone()),
    }
    facts
}

fn sentences(world: &World, mut error: Value) -> Value {
    for key in ["msg", "details"] {
        if let Some(text) = error.get(key).and_then(Value::as_str) {
            let text = anonymous(world, text);
            error[key] = Value::String(text);
        }
    }
    error
}

/// A sentence without this world's own paths and random names.
fn anonymous(world: &World, text: &str) -> String {
    let mut text = world.names.sentence(text).replace(&*world.dir().to_string_lossy(), "@DIR@");
    for pod in 0..world.pods.len() {
        text = text.replace(&world.netns(pod), &format!("@POD{pod}@"));
    }
    text
}

fn normalise(world: &World, snapshot: &Snapshot, result: &mut Value) {
    for interface in result.get_mut("interfaces").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = world.names.link(interface["name"].as_str().unwrap_or_default());
        let pod = (0..world.pods.len()).find(|&pod| interface["sandbox"] == world.netns(pod));
        let macs = match pod {
            Some(pod) => &snapshot.pods[pod].macs,
            None => &snapshot.host.macs,
        };
        if let Some(mac) = interface["mac"].as_str() {
            let shown = match macs.get(&name) {
                _ if mac == "00:00:00:00:00:00" => "zero",
                Some(real) if real == mac => "that of the link",
                Some(_) => "another than that of the link",
                None => "that of no link",
            };
            interface["mac"] = shown.into();
        }
        if let Some(pod) = pod {
            interface["sandbox"] = format!("pod{pod}").into();
        }
        interface["name"] = name.into();
    }
}
