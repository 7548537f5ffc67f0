//! `podnetd`: the node agent's command line. Nothing is decided here.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::cli::main(std::env::args_os().collect())
}
