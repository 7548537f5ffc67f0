//! `podlab graph`: the picture of a lab.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::{GraphArgs, Style};
use crate::control::{Client, Request};
use crate::exit::{self, Failure};
use crate::graph::{Picture, heatmap};
use crate::output::{self, Format};

pub(super) use crate::graph::Form;

pub(super) fn graph(args: &GraphArgs, style: Style) -> Result<u8, Failure> {
    if style.format == Format::Json {
        return Err(Failure::usage(
            "a picture is no JSON · try: podlab inspect -o json, or podlab graph -f svg",
        ));
    }
    if let Some(path) = &args.heatmap {
        let drawn = heatmap::render(&read(path)?);
        let refused = |err| Failure::usage(format!("{}: {err}", path.display()));
        output::print(&drawn.map_err(refused)?)?;
        return Ok(exit::OK);
    }
    let (document, whence) = match &args.from {
        Some(path) => (read(path)?, path.display().to_string()),
        None => {
            let mut client = Client::connect(&args.lab.name)?;
            (client.ask(&Request::Inspect { what: None }, &mut |_, _| {})?, args.lab.name.clone())
        }
    };
    let picture =
        Picture::of(&document, &args.show).map_err(|err| Failure::usage(format!("{whence}: {err}")))?;
    output::print(&picture.render(args.form))?;
    Ok(exit::OK)
}

/// A document of JSON, from a file or standard input.
pub(super) fn read(path: &Path) -> Result<Value, Failure> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(path).map(|it| text = it),
    };
    let refused = |err: &dyn std::fmt::Display| Failure::usage(format!("{}: {err}", path.display()));
    read.map_err(|err| refused(&err))?;
    serde_json::from_str(&text).map_err(|err| refused(&err))
}
