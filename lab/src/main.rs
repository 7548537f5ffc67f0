//! `podlab`: the lab's command line. Nothing is decided here.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(podlab::cli::main(std::env::args_os().collect()))
}
