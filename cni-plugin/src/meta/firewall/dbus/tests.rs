//! Messages by their bytes, and a bus of one socket that answers what it is told to.

use super::*;
use std::os::unix::net::UnixListener;

#[test]
fn a_call_is_these_bytes() {
    let method = Method { service: "a.b", path: "/p", interface: "i.f", name: "M" };
    let expected = [
        b"l\x01\x00\x01\x09\x00\x00\x00\x07\x00\x00\x00\x3f\x00\x00\x00".as_slice(),
        b"\x01\x01o\0\x02\x00\x00\x00/p\0\0\0\0\0\0",
        b"\x02\x01s\0\x03\x00\x00\x00i.f\0\0\0\0\0",
        b"\x03\x01s\0\x01\x00\x00\x00M\0\0\0\0\0\0\0",
        b"\x06\x01s\0\x03\x00\x00\x00a.b\0\0\0\0\0",
        b"\x08\x01g\0\x01s\0\0",
        b"\x04\x00\x00\x00text\0",
    ]
    .concat();
    let mut expected = expected;
    // The fields' length: up to the end of the last one, without the padding behind it.
    expected[12] = 16 + 16 + 16 + 16 + 7;
    assert_eq!(call_message(7, method, &["text"]), expected);
}

#[test]
fn addresses_of_a_bus() {
    let shown = |text: &str| socket_address(text.as_bytes()).map(|address| format!("{address:?}"));
    assert_eq!(shown("unix:path=/run/a%20b,guid=0").unwrap(), "\"/run/a b\" (pathname)");
    assert!(shown("unix:abstract=/tmp/x").unwrap().contains("abstract"));
    for bad in ["tcp:host=h,port=1", "unix:", "unix:tmpdir=/tmp", "unix:path=%4", "unix:path=%zz"] {
        assert_eq!(shown(bad), None, "{bad}");
    }
}

/// A bus that takes one client, answers each message with the next of `answers`, and ends.
fn bus(greeting: &'static [u8], answers: Vec<Vec<u8>>) -> Result<Bus, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let mut greeted = stream.read(&mut buffer).unwrap();
        while !buffer[..greeted].ends_with(b"\r\n") {
            greeted += stream.read(&mut buffer[greeted..]).unwrap();
        }
        stream.write_all(greeting).unwrap();
        for answer in answers {
            // BEGIN and the first call may come in one piece.
            while stream.read(&mut buffer).is_ok_and(|n| n == b"BEGIN\r\n".len()) {}
            stream.write_all(&answer).unwrap();
        }
        // What the client sends after the last answer is read, or it would see a reset.
        let _ = stream.read(&mut buffer);
    });
    let address = format!("unix:path={}", path.display());
    Bus::system(Some(OsStr::new(&address)))
}

/// A reply with header fields REPLY_SERIAL and, when given, SIGNATURE; `big` endian or little.
fn reply(kind: u8, serial: u32, error: &str, signature: &str, body: &[u8], big: bool) -> Vec<u8> {
    let number = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut fields = Vec::new();
    fields.extend([REPLY_SERIAL, 1, b'u', 0]);
    fields.extend(number(serial));
    if !error.is_empty() {
        fields.extend([ERROR_NAME, 1, b's', 0]);
        fields.extend(number(error.len() as u32));
        fields.extend(error.as_bytes());
        fields.push(0);
        fields.resize(fields.len().next_multiple_of(8), 0);
    }
    fields.extend([SIGNATURE, 1, b'g', 0, signature.len() as u8]);
    fields.extend(signature.as_bytes());
    fields.push(0);
    let mut out = vec![if big { b'B' } else { b'l' }, kind, 0, 1];
    out.extend(number(body.len() as u32));
    out.extend(number(99));
    out.extend(number(fields.len() as u32));
    out.extend(&fields);
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend(body);
    out
}

const METHOD: Method<'static> = Method { service: "a.b", path: "/p", interface: "i.f", name: "M" };
const HELLO: &[u8] = b"\x04\0\0\0:1.1\0";

#[test]
fn answers_are_read_in_both_byte_orders_and_matched_by_serial() {
    let hello = reply(METHOD_RETURN, 1, "", "s", HELLO, false);
    // Somebody else's answer comes first.
    let mut answer = reply(METHOD_RETURN, 7, "", "b", &[0, 0, 0, 0], false);
    answer.extend(reply(METHOD_RETURN, 2, "", "b", &[0, 0, 0, 1], true));
    let mut bus = bus(b"OK 0123\r\n", vec![hello, answer]).unwrap();
    assert_eq!(bus.call(METHOD, &["x"]).unwrap(), Answer::Bool(true));
}

#[test]
fn an_error_has_its_name_and_text() {
    let hello = reply(METHOD_RETURN, 1, "", "s", HELLO, false);
    let body = b"\x0b\0\0\0ZONE: taken\0";
    let refused = reply(ERROR, 2, "org.x.Exception", "s", body, false);
    let mut bus = bus(b"OK 0123\r\n", vec![hello, refused]).unwrap();
    let error = bus.call(METHOD, &[]).unwrap_err();
    assert_eq!(error.to_string(), "org.x.Exception: ZONE: taken");
}

#[test]
fn a_bus_that_refuses_or_talks_nonsense_is_an_error() {
    let error = bus(b"REJECTED EXTERNAL\r\n", vec![]).unwrap_err();
    assert!(error.to_string().contains("authentication refused: REJECTED EXTERNAL"), "{error}");
    let error = bus(b"OK 0\r\n", vec![vec![b'x'; 16]]).unwrap_err();
    assert!(error.to_string().contains("byte order"), "{error}");
    let mut torn = reply(METHOD_RETURN, 1, "", "s", b"\xff\0\0\0", false);
    torn.truncate(torn.len());
    let error = bus(b"OK 0\r\n", vec![torn]).unwrap_err();
    assert!(error.to_string().contains("ends early"), "{error}");
    let missing = Bus::system(Some(OsStr::new("unix:path=/nonexistent/bus"))).unwrap_err();
    assert!(matches!(missing, Error::Io(_)));
}
