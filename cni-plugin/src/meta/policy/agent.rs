//! The agent's socket: one line of JSON each way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use cni::{Json, json};
use serde::Deserialize;

use super::record::Record;

/// How long ADD waits for the pod to be armed.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    armed: bool,
    error: String,
}

/// Has the agent arm an attachment, and waits until it has.
///
/// # Errors
/// Why it is not armed, in words.
pub(super) fn arm(socket: &Path, record: &Record) -> Result<(), String> {
    let started = Instant::now();
    let stream = send(socket, "add", record)?;
    let left = PATIENCE.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).map_err(|err| err.to_string())?;
    let mut line = String::new();
    match kernel::uninterrupted(|| BufReader::new(&stream).read_line(&mut line)) {
        Ok(0) => return Err("podnetd went away".into()),
        Ok(_) => {}
        Err(err) if matches!(err.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            return Err(format!("podnetd has not armed it within {} s", PATIENCE.as_secs()));
        }
        Err(err) => return Err(format!("ask podnetd: {err}")),
    }
    let answer: Answer =
        json::from_slice(line.as_bytes()).map_err(|err| format!("podnetd's answer: {err}"))?;
    match answer {
        Answer { armed: true, .. } => Ok(()),
        Answer { error, .. } => Err(format!("podnetd: {error}")),
    }
}

/// Tells the agent and does not wait. One that is not there reads the records when it comes.
pub(super) fn tell(socket: &Path, verb: &str, record: &Record) {
    let _ = send(socket, verb, record);
}

fn send(socket: &Path, verb: &str, record: &Record) -> Result<UnixStream, String> {
    let refuse = |err: std::io::Error| format!("podnetd at {}: {err}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(refuse)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(refuse)?;
    let verb = Json::from(verb).to_compact();
    let line = format!("{{\"verb\":{verb},\"record\":{}}}\n", record.to_json());
    stream.write_all(line.as_bytes()).map_err(refuse)?;
    Ok(stream)
}
