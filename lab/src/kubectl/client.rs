//! The client's side: a command line becomes questions and orders, the answers become kubectl's words.

use std::ffi::OsString;

use clap::Parser;
use serde_json::{Value, json};

use super::parse::{self, GetArgs, Line, Output, RunArgs, Verb, meant, one};
use super::table::{Look, table};
use super::{Ask, FROM_SERVER, Kind, describe, edit, exec, forward, objects, serve, server_error};
use crate::control::{Client, Request};
use crate::exit::{self, Failure};
use crate::{labels, output};

/// The lab that is talked to.
#[derive(Debug)]
pub(super) struct Lab {
    name: String,
}

impl Lab {
    pub(super) fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.name)
    }

    pub(super) fn ask(&self, ask: Ask) -> Result<Value, Failure> {
        self.connect()?.ask(&Request::Kubectl { ask }, &mut |_, _| {})
    }

    /// The objects that are meant.
    pub(super) fn get(
        &self,
        kind: Kind,
        names: &[String],
        selector: Option<&str>,
    ) -> Result<Vec<Value>, Failure> {
        let answer =
            self.ask(Ask::Get { kind, names: names.to_vec(), selector: selector.map(str::to_owned) })?;
        Ok(answer["items"].as_array().cloned().unwrap_or_default())
    }

    /// Gives an order; what went wrong on the way is told on standard error.
    pub(super) fn order(&self, ask: Ask) -> Result<Value, Failure> {
        let answer = self.ask(ask)?;
        for warning in answer["warnings"].as_array().into_iter().flatten() {
            eprintln!("Warning: {}", warning.as_str().unwrap_or_default());
        }
        Ok(answer)
    }
}

/// Runs a command line without the program's own name; returns the exit code.
pub fn main(args: &[OsString]) -> u8 {
    let words = std::iter::once(OsString::from("kubectl")).chain(args.iter().cloned());
    let line = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(err) => {
            // Help is an error to clap; what cannot be printed has no reader.
            let _ = err.print();
            return if err.use_stderr() { exit::USAGE } else { exit::OK };
        }
    };
    let with_dashes = args.iter().any(|arg| arg == "--");
    dispatch(line, with_dashes).unwrap_or_else(|failure| {
        match failure.text.starts_with(FROM_SERVER) {
            true => eprintln!("{failure}"),
            false => eprintln!("error: {failure}"),
        }
        failure.code
    })
}

fn dispatch(line: Line, with_dashes: bool) -> Result<u8, Failure> {
    if line.namespace != objects::NAMESPACE {
        return Err(server_error("NotFound", &format!("namespaces {:?} not found", line.namespace)));
    }
    let lab = Lab { name: line.context };
    match line.verb {
        Verb::Run(args) => run(&lab, args),
        Verb::Get(args) => get(&lab, &args),
        Verb::Exec(args) => exec::exec(&lab, &args, with_dashes),
        Verb::Scale(args) => {
            let (kind, name) = one(&args.what)?;
            if kind != Kind::ReplicationController {
                return Err(Failure::usage(format!("cannot scale a {kind}")));
            }
            let (replicas, current) = (args.replicas, args.current_replicas);
            lab.order(Ask::Scale { name: name.clone(), replicas, current })?;
            output::print(&format!("{kind}/{name} scaled\n"))?;
            Ok(exit::OK)
        }
        Verb::PortForward(args) => forward::forward(&lab, &args),
        Verb::Edit(args) => edit::edit(&lab, &args),
        Verb::Expose(args) => serve::expose(&lab, args),
        Verb::Create(args) => serve::create_line(&lab, args),
        Verb::Patch(args) => {
            let (kind, name) = one(&args.what)?;
            let patch: Value = serde_json::from_str(&args.patch)
                .map_err(|err| Failure::usage(format!("unable to parse {:?}: {err}", args.patch)))?;
            lab.order(Ask::Patch { kind, name: name.clone(), patch })?;
            output::print(&format!("{kind}/{name} patched\n"))?;
            Ok(exit::OK)
        }
        Verb::Delete(args) => {
            let selector = if args.all { Some(String::new()) } else { args.selector };
            delete(&lab, &args.what, selector)
        }
        Verb::Describe(args) => {
            let mut texts = Vec::new();
            for (kind, names) in meant(&args.what)? {
                let items = lab.get(kind, &names, args.selector.as_deref())?;
                texts.extend(items.iter().map(|item| describe::text(kind, item)));
            }
            if texts.is_empty() {
                return nothing();
            }
            output::print(&texts.join("\n\n"))?;
            Ok(exit::OK)
        }
        Verb::Label(args) => label(&lab, args),
        Verb::Logs(args) => {
            let name = args.pod.strip_prefix("pod/").unwrap_or(&args.pod).to_owned();
            let answer = lab.ask(Ask::Logs { name })?;
            output::print(answer["text"].as_str().unwrap_or_default())?;
            Ok(exit::OK)
        }
    }
}

fn nothing() -> Result<u8, Failure> {
    eprintln!("No resources found in {} namespace.", objects::NAMESPACE);
    Ok(exit::OK)
}

fn run(lab: &Lab, args: RunArgs) -> Result<u8, Failure> {
    let labels = labels::parse(args.labels.as_deref().unwrap_or_default()).map_err(Failure::usage)?;
    let (kind, replicas) = match args.generator.as_deref() {
        None => (Kind::Pod, None),
        Some("run-pod/v1") => (Kind::Pod, None),
        Some("run/v1") => (Kind::ReplicationController, Some(args.replicas.unwrap_or(1))),
        Some(other) => {
            return Err(Failure::usage(format!(
                "generator {other:?} not supported · a lab has: run/v1, run-pod/v1"
            )));
        }
    };
    if args.generator.is_some() {
        eprintln!(
            "Flag --generator has been deprecated: kubectl of today has none and runs a pod; a lab still takes it."
        );
    }
    if replicas.is_none() && args.replicas.is_some() {
        return Err(Failure::usage("--replicas goes with --generator=run/v1"));
    }
    let name = args.name.clone();
    let (image, port) = (args.image, args.port);
    lab.order(Ask::Run { name: args.name, image, port, labels, replicas, containers: None })?;
    output::print(&format!("{kind}/{name} created\n"))?;
    Ok(exit::OK)
}

fn get(lab: &Lab, args: &GetArgs) -> Result<u8, Failure> {
    let meant = meant(&args.what)?;
    let mut found = Vec::new();
    for (kind, names) in &meant {
        found.push((*kind, lab.get(*kind, names, args.selector.as_deref())?));
    }
    let is_one = meant.len() == 1 && meant[0].1.len() == 1;
    let look = Look {
        wide: args.output == Some(Output::Wide),
        labels: args.show_labels,
        headless: args.no_headers,
        kinds: meant.len() > 1,
    };
    if args.output == Some(Output::Json) {
        let mut items: Vec<Value> = found.into_iter().flat_map(|(_, items)| items).collect();
        let document = match is_one {
            true => items.swap_remove(0),
            false => json!({ "apiVersion": "v1", "kind": "List", "items": items }),
        };
        output::print_json(&document)?;
        return Ok(exit::OK);
    }
    found.retain(|(_, items)| !items.is_empty());
    if found.is_empty() {
        return nothing();
    }
    let texts: Vec<String> = found
        .iter()
        .map(|(kind, items)| match args.output {
            Some(Output::Name) => names(*kind, items),
            _ => table(*kind, items, look),
        })
        .collect();
    let between = if args.output == Some(Output::Name) { "" } else { "\n" };
    output::print(&texts.join(between))?;
    Ok(exit::OK)
}

fn names(kind: Kind, items: &[Value]) -> String {
    let name = |item: &Value| format!("{kind}/{}\n", item["metadata"]["name"].as_str().unwrap_or_default());
    items.iter().map(name).collect()
}

fn delete(lab: &Lab, what: &[String], selector: Option<String>) -> Result<u8, Failure> {
    let mut code = exit::OK;
    for (kind, names) in meant(what)? {
        let answer = lab.order(Ask::Delete { kind, names, selector: selector.clone() })?;
        let texts = |key: &str| {
            let list = answer[key].as_array().cloned().unwrap_or_default();
            list.into_iter().filter_map(|text| text.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        for name in texts("deleted") {
            output::print(&format!("{kind} {name:?} deleted\n"))?;
        }
        for missing in texts("missing") {
            eprintln!("{missing}");
            code = exit::FAILED;
        }
    }
    Ok(code)
}

fn label(lab: &Lab, args: parse::LabelArgs) -> Result<u8, Failure> {
    let is_change = |word: &String| word.contains('=') || word.ends_with('-');
    let at = args.what.iter().position(is_change).unwrap_or(args.what.len());
    let (what, changes) = args.what.split_at(at);
    let (kind, name) = one(what)?;
    if kind != Kind::Pod {
        return Err(Failure::usage(format!("a lab changes the labels of pods, not of a {kind}")));
    }
    let mut labels = Vec::new();
    for change in changes {
        match change.strip_suffix('-') {
            Some(key) => labels.push((key.to_owned(), None)),
            None => {
                let pairs = labels::parse(change).map_err(Failure::usage)?;
                labels.extend(pairs.into_iter().map(|(key, value)| (key, Some(value))));
            }
        }
    }
    if labels.is_empty() {
        return Err(Failure::usage("at least one label update is required"));
    }
    lab.order(Ask::Label { name: name.clone(), labels, overwrite: args.overwrite })?;
    output::print(&format!("{kind}/{name} labeled\n"))?;
    Ok(exit::OK)
}
