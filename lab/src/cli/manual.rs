//! `podlab completions` and `podlab man`: what shells and man(1) need, from the command line's own definition.

use clap::CommandFactory;

use super::{Cli, CompletionsArgs, KUBECTL, ManArgs, Style};
use crate::exit::{self, Failure};
use crate::{kubectl, output};

pub(super) fn completions(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    // kubectl's own verbs are in it, which podlab itself hands on unread.
    let mut command = Cli::command().mut_subcommand(KUBECTL, |_| kubectl::command());
    clap_complete::generate(args.shell, &mut command, "podlab", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}

pub(super) fn man(args: &ManArgs, style: Style) -> Result<u8, Failure> {
    // kubectl's options are its own, and none of podlab's are for it.
    for command in [Cli::command(), kubectl::command().name("podlab-kubectl")] {
        clap_mangen::generate_to(command, &args.dir).map_err(|err| {
            Failure::new(exit::FAILED, format!("manual pages into {}: {err}", args.dir.display()))
        })?;
    }
    if !style.quiet {
        output::print(&format!(
            "{}/podlab.1, and one for each verb · man -l shows them\n",
            args.dir.display()
        ))?;
    }
    Ok(exit::OK)
}
