//! What plugin and daemon say to each other: one JSON document each way on a unix socket, with its length in four bytes
//! before it.
//!
//! The reference's pair speaks Go's gob over HTTP instead and cannot be mixed with this one; each side notices the other
//! kind and says so.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cni::{CniResult, Error, Json, ValidAttachment, Version, json};
use serde::Deserialize;

use super::config::Mode;
use super::hash::{from_hex, to_hex};
use super::v4::Options;

/// The longest document.
const LONGEST: usize = 4 << 20;
/// What the reference's plugin begins with, and what its daemon answers.
const GO_PLUGIN: &[u8] = b"CONN";
const GO_DAEMON: &[u8] = b"HTTP";

/// What names an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) network: String,
    pub(super) container_id: String,
    pub(super) ifname: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.container_id, self.network, self.ifname)
    }
}

/// What an attachment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) mode: Mode,
    /// What goes into every DHCPv4 message.
    pub(super) options: Options,
    /// Metric of the routes.
    pub(super) priority: u32,
}

/// A request of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A lease for the attachment in this network namespace.
    Add { key: Key, netns: String, wish: Wish },
    /// Is the lease known and valid?
    Check { key: Key },
    /// Give the lease back.
    Del { key: Key },
    /// Give back the leases of the network that are not in the list.
    Gc { network: String, valid: Vec<ValidAttachment> },
    /// Does the daemon live?
    Status,
}

/// The daemon's answer: a result where there is one, and whether the lease is new.
pub(super) type Answer = Result<(CniResult, bool), Error>;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenRequest {
    verb: String,
    network: String,
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
    netns: String,
    mode: String,
    options: String,
    priority: u32,
    valid: Vec<ValidAttachment>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenAnswer {
    new: bool,
    error: Option<WrittenError>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenError {
    code: u32,
    msg: String,
}

pub(super) fn text(value: impl Into<String>) -> Json {
    Json::String(value.into())
}

pub(super) fn number(value: impl ToString) -> Json {
    Json::Number(value.to_string())
}

pub(super) fn object(entries: Vec<(&str, Json)>) -> Json {
    Json::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

impl Key {
    pub(super) fn entries(&self) -> Vec<(&'static str, Json)> {
        vec![
            ("network", text(&self.network)),
            ("containerID", text(&self.container_id)),
            ("ifname", text(&self.ifname)),
        ]
    }
}

impl Wish {
    pub(super) fn entries(&self) -> Vec<(&'static str, Json)> {
        vec![
            ("mode", text(self.mode.as_str())),
            ("options", text(to_hex(&self.options.to_bytes()))),
            ("priority", number(self.priority)),
        ]
    }

    /// The wish of these values; `None` when they are none.
    pub(super) fn read(mode: &str, options: &str, priority: u32) -> Option<Wish> {
        Some(Wish { mode: Mode::parse(mode)?, options: Options::parse(&from_hex(options)?)?, priority })
    }
}

impl Request {
    fn to_json(&self) -> Json {
        let mut entries;
        match self {
            Request::Add { key, netns, wish } => {
                entries = vec![("verb", text("add")), ("netns", text(netns))];
                entries.extend(key.entries());
                entries.extend(wish.entries());
            }
            Request::Check { key } => {
                entries = vec![("verb", text("check"))];
                entries.extend(key.entries());
            }
            Request::Del { key } => {
                entries = vec![("verb", text("del"))];
                entries.extend(key.entries());
            }
            Request::Gc { network, valid } => {
                let one = |a: &ValidAttachment| {
                    object(vec![("containerID", text(&a.container_id)), ("ifname", text(&a.ifname))])
                };
                let valid = Json::Array(valid.iter().map(one).collect());
                entries = vec![("verb", text("gc")), ("network", text(network)), ("valid", valid)];
            }
            Request::Status => entries = vec![("verb", text("status"))],
        }
        object(entries)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// What does not make sense in it.
    pub(super) fn parse(document: &[u8]) -> Result<Request, String> {
        let written: WrittenRequest = json::from_slice(document).map_err(|error| error.to_string())?;
        let WrittenRequest { verb, network, container_id, ifname, netns, .. } = written;
        let key = Key { network, container_id, ifname };
        Ok(match verb.as_str() {
            "add" => {
                let wish = Wish::read(&written.mode, &written.options, written.priority);
                Request::Add { key, netns, wish: wish.ok_or("unknown mode or options")? }
            }
            "check" => Request::Check { key },
            "del" => Request::Del { key },
            "gc" => Request::Gc { network: key.network, valid: written.valid },
            "status" => Request::Status,
            other => return Err(format!("unknown verb {other:?}")),
        })
    }
}

/// An answer as bytes on the socket.
pub(super) fn answer(answer: &Answer) -> Vec<u8> {
    let document = match answer {
        Ok((result, new)) => {
            // The newest version can express every result.
            let result = result.to_json(Version::CURRENT).unwrap_or(Json::Null);
            object(vec![("result", result), ("new", Json::Bool(*new))])
        }
        Err(error) => {
            let error = object(vec![("code", number(error.code)), ("msg", text(error.to_string()))]);
            object(vec![("error", error)])
        }
    };
    framed(&document)
}

/// A document with its length. It ends with a line feed, without which the reference's daemon would wait for the rest of
/// what it takes for a line of HTTP.
fn framed(document: &Json) -> Vec<u8> {
    let document = document.to_compact() + "\n";
    [&(document.len() as u32).to_be_bytes(), document.as_bytes()].concat()
}

/// What has come of a document so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'b> {
    /// Not all of it.
    Part,
    /// All of it.
    Whole(&'b [u8]),
    /// The other side speaks gob, as the reference does.
    Gob,
    /// Something else.
    Nonsense,
}

/// Looks at what has been received.
pub(super) fn received(bytes: &[u8]) -> Received<'_> {
    let Some((&length, rest)) = bytes.split_first_chunk::<4>() else { return Received::Part };
    if length == GO_PLUGIN || length == GO_DAEMON {
        return Received::Gob;
    }
    match u32::from_be_bytes(length) as usize {
        length if length > LONGEST => Received::Nonsense,
        length if rest.len() < length => Received::Part,
        length => Received::Whole(&rest[..length]),
    }
}

/// What the reference's plugin is told: its library prints the status line.
pub(super) const GOB_REFUSAL: &[u8] =
    b"HTTP/1.0 501 this dhcp daemon is podnet's and does not speak gob: use podnet's dhcp plugin with it\r\n\r\n";

/// Why the daemon did not answer.
pub(super) enum Unanswered {
    /// It is not running: nobody listens at the socket.
    Absent(Error),
    /// It could not be asked, or did not answer in its language.
    Broken(Error),
    /// It answered with an error.
    Refused(Error),
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Error {
        match unanswered {
            Unanswered::Absent(error) | Unanswered::Broken(error) | Unanswered::Refused(error) => error,
        }
    }
}

/// Asks the daemon at `socket`; an answer is waited for no longer than `patience`, or for ever.
///
/// # Errors
/// It does not run, or answers with an error.
pub(super) fn call(
    socket: &Path,
    request: &Request,
    patience: Option<Duration>,
) -> Result<(CniResult, bool), Unanswered> {
    let at = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let unanswered = match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Unanswered::Absent,
            _ => Unanswered::Broken,
        };
        unanswered(Error::internal(format!(
            "error dialing DHCP daemon: {at}: {error} (try: start `podnet dhcp daemon`)"
        )))
    })?;
    let broken = |what: &dyn std::fmt::Display| {
        Unanswered::Broken(Error::internal(format!("DHCP daemon at {at}: {what}")))
    };
    let gob =
        || broken(&"it speaks gob, so it is the reference's (try: stop it, then start `podnet dhcp daemon`)");
    let io = |error: std::io::Error| broken(&error);
    stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)).map_err(io)?;
    // A daemon of the other kind may answer before it has read all; what it says is read below.
    let sent = stream.write_all(&framed(&request.to_json()));
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let document = loop {
        match received(&bytes) {
            Received::Whole(document) => break document,
            Received::Gob => return Err(gob()),
            Received::Nonsense => return Err(broken(&"its answer makes no sense")),
            Received::Part => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) => {
                sent.map_err(io)?;
                return Err(broken(&"it ended before it answered"));
            }
            Ok(n) => bytes.extend(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(broken(&"it does not answer"));
            }
            Err(error) => return Err(io(error)),
        }
    };
    let decode = || -> Result<Answer, Error> {
        let written: WrittenAnswer =
            json::from_slice(document).map_err(|error| Error::internal(error.to_string()))?;
        if let Some(WrittenError { code, msg }) = written.error {
            return Ok(Err(Error::new(code, msg)));
        }
        let json = Json::parse(document).map_err(|error| Error::internal(error.to_string()))?;
        let result = json.get("result").unwrap_or(&Json::Null).to_compact();
        Ok(Ok((CniResult::parse(result.as_bytes(), Version::CURRENT)?, written.new)))
    };
    decode().map_err(|error| broken(&error))?.map_err(Unanswered::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key { network: "net".into(), container_id: "c0".into(), ifname: "eth0".into() }
    }

    #[test]
    fn requests_survive_a_round_trip() {
        let mut options = Options::default();
        options.set(61, *b"\0c0");
        let wish = Wish { mode: Mode::Dual, options, priority: 5 };
        let valid = vec![ValidAttachment { container_id: "c1".into(), ifname: "eth1".into() }];
        for request in [
            Request::Add { key: key(), netns: "/run/netns/a \"b\"".into(), wish },
            Request::Check { key: key() },
            Request::Del { key: key() },
            Request::Gc { network: "net".into(), valid },
            Request::Status,
        ] {
            let bytes = framed(&request.to_json());
            let Received::Whole(document) = received(&bytes) else { panic!("{request:?}") };
            assert_eq!(Request::parse(document).as_ref(), Ok(&request));
            for cut in 0..bytes.len() {
                assert_eq!(received(&bytes[..cut]), Received::Part);
            }
        }
    }

    #[test]
    fn the_reference_is_recognised_and_nonsense_refused() {
        assert_eq!(received(b"CONNECT /_goRPC_ HTTP/1.0\n"), Received::Gob);
        assert_eq!(received(b"HTTP/1.1 400 Bad Request"), Received::Gob);
        assert_eq!(received(&[0xff; 8]), Received::Nonsense);
        for document in ["", "[]", r#"{"verb":"fly"}"#, r#"{"verb":"add","mode":"dhcp4","options":"3d"}"#] {
            assert!(Request::parse(document.as_bytes()).is_err(), "{document}");
        }
    }

    /// Answers one call with these bytes.
    fn answered_by(bytes: &'static [u8]) -> Error {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        });
        let outcome = call(&socket, &Request::Status, Some(Duration::from_secs(5)));
        server.join().unwrap();
        outcome.map(drop).map_err(Error::from).unwrap_err()
    }

    #[test]
    fn a_daemon_of_another_kind_is_named() {
        assert!(answered_by(b"HTTP/1.1 400 Bad Request\r\n\r\n").msg.contains("speaks gob"));
        assert!(answered_by(b"").msg.contains("ended before it answered"));
        assert!(answered_by(&[0xff; 20]).msg.contains("makes no sense"));
        assert!(answered_by(b"\0\0\0\x02{]").msg.contains("DHCP daemon at"));
        let error = answered_by(b"\0\0\0\x23{\"error\":{\"code\":11,\"msg\":\"later\"}}");
        assert_eq!((error.code, error.msg.as_str()), (11, "later"));
    }
}
