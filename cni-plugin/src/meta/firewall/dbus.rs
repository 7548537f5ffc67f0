//! A method call over D-Bus: one blocking connection to the system bus, text arguments, an answer that is
//! nothing, a text or a boolean. Wire format: the D-Bus specification, "Message Protocol" and
//! "Authentication Protocol" (mechanism EXTERNAL).
//!
//! Not here: signals, properties, objects of our own, file descriptors, other types of arguments. A whole
//! client would weigh more than this plugin.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// Where the system bus listens when DBUS_SYSTEM_BUS_ADDRESS does not say otherwise.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// How long a service may take; what libdbus waits.
const TIMEOUT: Duration = Duration::from_secs(25);
/// The longest message that the specification allows.
const MESSAGE_MAX: usize = 128 << 20;

/// Message types.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Error {
    /// No connection, or it broke.
    Io(io::Error),
    /// The peer does not speak as the specification says.
    Protocol(String),
    /// The service answered with an error: its name and its text.
    Refused { name: String, text: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(err) if err.kind() == io::ErrorKind::WouldBlock => {
                write!(f, "no answer on the system bus within {} s", TIMEOUT.as_secs())
            }
            Error::Io(err) => write!(f, "D-Bus system bus: {err}"),
            Error::Protocol(what) => write!(f, "D-Bus system bus: {what}"),
            Error::Refused { name, text } => write!(f, "{name}: {text}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Self {
        Error::Io(err)
    }
}

/// What a method gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    Text(String),
    Bool(bool),
    /// Values that nothing here asks for, by their signature.
    Other(String),
}

/// The method of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    pub(super) service: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) name: &'a str,
}

/// A connection to a bus, after its Hello.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects to the system bus at `address`, the text of DBUS_SYSTEM_BUS_ADDRESS if there is one.
    ///
    /// # Errors
    /// Nobody listens, or the bus refuses this user.
    pub(super) fn system(address: Option<&OsStr>) -> Result<Self, Error> {
        let address = address.map_or(SYSTEM_BUS.as_bytes(), OsStr::as_bytes);
        let mut last = Error::Protocol("no unix socket in DBUS_SYSTEM_BUS_ADDRESS".into());
        for one in address.split(|&byte| byte == b';') {
            match socket_address(one).map(|socket| Bus::connect(&socket)) {
                Some(Ok(bus)) => return Ok(bus),
                Some(Err(err)) => last = err,
                None => {}
            }
        }
        Err(last)
    }

    fn connect(address: &SocketAddr) -> Result<Self, Error> {
        let stream = UnixStream::connect_addr(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut bus = Bus { stream, serial: 0 };
        bus.authenticate()?;
        bus.call(method_of_the_bus("Hello"), &[])?;
        Ok(bus)
    }

    /// Says who we are; the bus knows it from the socket and compares.
    fn authenticate(&mut self) -> Result<(), Error> {
        let uid = nix::unistd::geteuid().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(Error::Protocol("an endless line while authenticating".into()));
            }
        }
        if !line.starts_with(b"OK ") {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            return Err(Error::Protocol(format!("authentication refused: {line}")));
        }
        Ok(self.stream.write_all(b"BEGIN\r\n")?)
    }

    /// Whether somebody on the bus has this name.
    ///
    /// # Errors
    /// The bus does not answer.
    pub(super) fn has_owner(&mut self, name: &str) -> Result<bool, Error> {
        Ok(self.call(method_of_the_bus("NameHasOwner"), &[name])? == Answer::Bool(true))
    }

    /// Calls a method with texts as arguments and waits for its answer.
    ///
    /// # Errors
    /// The service refuses, is not there, or takes longer than 25 s.
    pub(super) fn call(&mut self, method: Method<'_>, arguments: &[&str]) -> Result<Answer, Error> {
        self.serial += 1;
        self.stream.write_all(&call_message(self.serial, method, arguments))?;
        loop {
            let message = self.read()?;
            if message.reply_serial != Some(self.serial) {
                continue;
            }
            let answer = message.answer()?;
            return match (message.kind, answer) {
                (METHOD_RETURN, answer) => Ok(answer),
                (_, Answer::Text(text)) => Err(Error::Refused { name: message.error_name, text }),
                _ => Err(Error::Refused { name: message.error_name, text: "no text".into() }),
            };
        }
    }

    fn read(&mut self) -> Result<Message, Error> {
        let mut bytes = vec![0; 16];
        self.stream.read_exact(&mut bytes)?;
        let big = match bytes[0] {
            b'l' => false,
            b'B' => true,
            other => return Err(Error::Protocol(format!("byte order {other}"))),
        };
        let head = Reader { bytes: &bytes, at: 4, big };
        let (body, fields) = (head.u32_at(4)? as usize, head.u32_at(12)? as usize);
        let rest = fields.next_multiple_of(8) + body;
        if fields > MESSAGE_MAX || body > MESSAGE_MAX || rest > MESSAGE_MAX {
            return Err(Error::Protocol(format!("a message of {rest} bytes")));
        }
        bytes.resize(16 + rest, 0);
        self.stream.read_exact(&mut bytes[16..])?;
        Message::parse(bytes, big, 16 + fields)
    }
}

fn method_of_the_bus(name: &str) -> Method<'_> {
    Method {
        service: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        name,
    }
}

/// The socket of `unix:path=…` or `unix:abstract=…`; percent signs escape bytes.
fn socket_address(text: &[u8]) -> Option<SocketAddr> {
    let pairs = text.strip_prefix(b"unix:")?;
    pairs.split(|&byte| byte == b',').find_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        let value = unescape(&pair[at + 1..])?;
        match &pair[..at] {
            b"path" => SocketAddr::from_pathname(OsStr::from_bytes(&value)).ok(),
            b"abstract" => SocketAddr::from_abstract_name(&value).ok(),
            _ => None,
        }
    })
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    Some(out)
}

/// A little-endian message in the making.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    fn field(&mut self, code: u8, signature: &str, text: &str) {
        self.align(8);
        self.0.push(code);
        self.signature(signature);
        if signature == "g" { self.signature(text) } else { self.text(text) }
    }
}

fn call_message(serial: u32, method: Method<'_>, arguments: &[&str]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|text| body.text(text));
    let mut out = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    out.u32(body.0.len() as u32);
    out.u32(serial);
    out.u32(0);
    out.field(PATH, "o", method.path);
    out.field(INTERFACE, "s", method.interface);
    out.field(MEMBER, "s", method.name);
    out.field(DESTINATION, "s", method.service);
    if !arguments.is_empty() {
        out.field(SIGNATURE, "g", &"s".repeat(arguments.len()));
    }
    let fields = (out.0.len() - 16) as u32;
    out.0[12..16].copy_from_slice(&fields.to_le_bytes());
    out.align(8);
    out.0.extend(body.0);
    out.0
}

/// A message that came in.
struct Message {
    kind: u8,
    reply_serial: Option<u32>,
    error_name: String,
    signature: String,
    big: bool,
    bytes: Vec<u8>,
    body: usize,
}

impl Message {
    /// `end`: where the header fields end.
    fn parse(bytes: Vec<u8>, big: bool, end: usize) -> Result<Self, Error> {
        let mut message = Message {
            kind: bytes[1],
            reply_serial: None,
            error_name: String::new(),
            signature: String::new(),
            big,
            body: end.next_multiple_of(8),
            bytes: Vec::new(),
        };
        let mut reader = Reader { bytes: &bytes[..end], at: 16, big };
        while reader.at < end {
            reader.align(8);
            let code = reader.u8()?;
            match reader.signature()?.as_str() {
                "u" => {
                    let value = reader.u32()?;
                    if code == REPLY_SERIAL {
                        message.reply_serial = Some(value);
                    }
                }
                "s" | "o" => {
                    let text = reader.text()?;
                    if code == ERROR_NAME {
                        message.error_name = text;
                    }
                }
                "g" => {
                    let text = reader.signature()?;
                    if code == SIGNATURE {
                        message.signature = text;
                    }
                }
                other => return Err(Error::Protocol(format!("a header field of type {other:?}"))),
            }
        }
        message.bytes = bytes;
        // Signals and calls of others name no serial of ours.
        if !matches!(message.kind, METHOD_RETURN | ERROR) {
            message.reply_serial = None;
        }
        Ok(message)
    }

    fn answer(&self) -> Result<Answer, Error> {
        let mut reader = Reader { bytes: &self.bytes, at: self.body, big: self.big };
        Ok(match self.signature.as_bytes() {
            [] => Answer::Nothing,
            // An error may have more arguments than its text.
            [b's', ..] => Answer::Text(reader.text()?),
            b"b" => Answer::Bool(reader.u32()? != 0),
            _ => Answer::Other(self.signature.clone()),
        })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Error> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(count);
        taken.ok_or_else(|| Error::Protocol("a message that ends early".into()))
    }

    fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.align(4);
        self.at += 4;
        self.u32_at(self.at - 4)
    }

    fn u32_at(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let bytes: [u8; 4] = bytes.ok_or_else(|| Error::Protocol("a message that ends early".into()))?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> Result<String, Error> {
        let len = self.u32()? as usize;
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.u8()?;
        Ok(text)
    }

    fn signature(&mut self) -> Result<String, Error> {
        let len = self.u8()?;
        let text = String::from_utf8_lossy(self.take(len.into())?).into_owned();
        self.u8()?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
