//! `podlab serve` as a process, asked over sockets: requests as bytes, so that wrong ones can be sent too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::command;

/// Longer than anything that is waited for takes.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// A server that ends with this value.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
    pub(super) token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer, as it came.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| String::from_utf8_lossy(&self.body).into_owned())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Server {
    pub(super) fn start(args: &[&str]) -> Result<Server> {
        Server::run(command(&[&["serve"], args].concat())?)
    }

    pub(super) fn run(mut program: Command) -> Result<Server> {
        let mut child =
            program.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start podlab")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let told = line.trim().strip_prefix("http://127.0.0.1:").and_then(|rest| rest.split_once("/?token="));
        let (port, token) = match told {
            Some((port, token)) => (port.parse()?, token.to_owned()),
            None => {
                child.kill()?;
                anyhow::bail!("podlab serve prints {line:?}");
            }
        };
        Ok(Server { child, port, token })
    }

    pub(super) fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(stream)
    }

    /// Sends bytes and reads until the server has closed the connection.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<Answer> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        let mut all = Vec::new();
        kernel::uninterrupted(|| stream.read_to_end(&mut all))?;
        let text = String::from_utf8_lossy(&all);
        let end = text.find("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
        let head = text[..end].to_owned();
        // The head is of ASCII, so bytes and characters are counted alike.
        Ok(Answer { status, head, body: all[end + 4..].to_vec() })
    }

    /// A request with these headers and no others but that the connection is to be closed.
    pub(super) fn raw(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.send(format!("{line} HTTP/1.1\r\n{headers}{length}Connection: close\r\n\r\n{body}").as_bytes())
    }

    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        self.raw(&format!("GET {path}"), &[("Host", &self.host()), ("X-Podlab-Token", &self.token)], "")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let headers = [("Host", &*self.host()), ("X-Podlab-Token", &self.token)];
        self.raw(&format!("POST {path}"), &headers, &body.to_string())
    }
}
