//! The command line of `podnetd doctor`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::{Host, Scope, examine, exit_code, text};
use crate::places::{Places, STATUS_PORT};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each check.
    Text,
    /// A document of form `podnetd.doctor/1`.
    Json,
}

/// Looks for causes of trouble on this node, and says what to do. Exit code: 0 nothing found, 1 a cause was found, 3
/// warnings only, 4 something could not be looked at.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Look at a machine whose containers are nodes (kind), not at a node
    #[arg(long)]
    pub machine: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    /// Where the node's files are
    #[arg(long, default_value = "/", env = "PODNETD_ROOT")]
    pub root: PathBuf,
    /// The port at which podnetd answers on 127.0.0.1
    #[arg(long, default_value_t = STATUS_PORT, env = "PODNETD_STATUS_PORT")]
    pub status_port: u16,
}

/// Runs the checks, prints, and gives the exit code.
///
/// # Errors
/// The kernel cannot be asked at all, or nobody takes the output.
pub fn run(args: &Args) -> Result<u8> {
    let scope = if args.machine { Scope::Machine } else { Scope::Node };
    let agent = ask((Ipv4Addr::LOCALHOST, args.status_port).into()).map_err(|err| format!("{err:#}"));
    let findings = examine(&mut Host::new(Places::below(&args.root), agent)?, scope);
    let out = match args.output {
        Output::Text => text(&findings),
        Output::Json => {
            format!("{:#}\n", json!({ "schema": "podnetd.doctor/1", "findings": findings }))
        }
    };
    std::io::stdout().write_all(out.as_bytes()).context("print the findings")?;
    Ok(exit_code(&findings))
}

/// Asks an agent for its `/status`.
///
/// # Errors
/// Nobody listens there, or what answers is no agent.
pub(super) fn ask(address: SocketAddr) -> Result<Value> {
    let about = || format!("ask http://{address}/status");
    let get = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(
            format!("GET /status HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = get().with_context(about)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let status: Value = serde_json::from_str(body).context("no document").with_context(about)?;
    if status["schema"] != "podnetd.status/1" {
        bail!("{}: another program answers", about());
    }
    Ok(status)
}
