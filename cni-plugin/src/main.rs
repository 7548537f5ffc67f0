//! `podnet`: the CNI plugins in one multi-call executable.
//!
//! The name that it is started under (a link in the plugin directory) or its first argument picks the
//! applet. Nothing else is decided here.

mod applet;
mod hash;
mod install;
mod interface;
mod ipam;
mod masq;
mod meta;
mod rules;

use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;

/// musl's own maps and unmaps each buffer of a few KiB by a system call, which is a tenth of an ADD.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    ExitCode::from(applet::run(&name, args.collect()))
}
