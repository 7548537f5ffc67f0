//! `podlab export` and `podlab serve`: walks as files, and the page.

use std::path::Path;

use super::prove::decode;
use super::{ExportArgs, ServeArgs, Style};
use crate::control::Client;
use crate::exit::{self, Failure};
use crate::lessons::{Classroom, Lang};
use crate::output;
use crate::page;
use crate::page::walk::{self, Wanted};
use crate::serve::Server;
use crate::trace::Trace;

pub(super) fn export(args: &ExportArgs, style: Style) -> Result<u8, Failure> {
    let wanted = Wanted::parse(&args.source, &args.target, &args.proto, args.hooks)?;
    let wanted = Wanted { family: args.ip_family, ..wanted };
    let mut walk = walk::record(&mut Client::connect(&args.lab.name)?, &wanted)?.document;
    if let Some(title) = &args.title {
        walk["title"] = title.as_str().into();
    }
    for (path, text) in [(&args.html, page::file(&walk)), (&args.walk, format!("{walk}\n"))] {
        let Some(path) = path else { continue };
        std::fs::write(path, text).map_err(|err| failed(path, &err))?;
        if !style.quiet {
            output::tell(&format!("the walk is in {}", path.display()));
        }
    }
    // What became of the packet is what trace says of it.
    Ok(decode::<Trace>(&walk["trace"])?.exit_code())
}

fn failed(path: &Path, err: &dyn std::fmt::Display) -> Failure {
    Failure::new(exit::FAILED, format!("{}: {err}", path.display()))
}

pub(super) fn serve(args: ServeArgs) -> Result<u8, Failure> {
    let mut walks = Vec::new();
    for path in &args.from {
        let unusable = |err: &dyn std::fmt::Display| Failure::usage(format!("{}: {err}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|err| unusable(&err))?;
        let walk = walk::read(&text).map_err(|err| unusable(&err))?;
        let stem: String = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let id: String = stem
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        walks.push((format!("{}-{id}", walks.len() + 1), walk));
    }
    let room = Classroom {
        dir: args.lessons,
        lang: Lang::of_locale(),
        state: args.lesson_state,
        lab: args.lesson_lab,
    };
    let never = Server::new(args.lab.name, walks, room)
        .run(args.port, |address| output::print(&format!("{address}\n")).map_err(anyhow::Error::from))?;
    match never {}
}
