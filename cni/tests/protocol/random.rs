//! Random documents: whatever stands on stdin, reading it gives a value or an error, never a panic.

use std::collections::BTreeMap;

use cni::{CniResult, Conf, Json, Version, json};
use serde::Deserialize;

/// A small generator (xorshift64*), so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or_default() % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn json(&mut self, depth: usize) -> Json {
        match self.below(if depth > 4 { 4 } else { 7 }) {
            0 => Json::Null,
            1 => Json::Bool(self.below(2) == 0),
            2 => Json::Number(self.pick(&NUMBERS).to_owned()),
            3 => Json::String(self.pick(&TEXTS).to_owned()),
            4 => Json::Array((0..self.below(4)).map(|_| self.json(depth + 1)).collect()),
            _ => {
                let entry = |random: &mut Self| (random.pick(&KEYS).to_owned(), random.json(depth + 1));
                Json::Object((0..self.below(8)).map(|_| entry(self)).collect())
            }
        }
    }
}

const NUMBERS: [&str; 10] = [
    "0",
    "-0",
    "1",
    "-1",
    "255",
    "4294967296",
    "1.5",
    "1e3",
    "-1e400",
    "99999999999999999999999999999999999999999",
];
const TEXTS: [&str; 14] = [
    "",
    "1.0.0",
    "0.4.0",
    "0.1.0",
    "9.9.9",
    "net",
    "10.1.2.3/24",
    "10.1.2.3",
    "::1/64",
    "\u{0}",
    "é\u{2028}",
    "\"\\",
    "true",
    "4",
];
const KEYS: [&str; 24] = [
    "cniVersion",
    "CNIVERSION",
    "name",
    "type",
    "ipam",
    "IPAM",
    "dns",
    "prevResult",
    "PrevResult",
    "interfaces",
    "ips",
    "address",
    "gateway",
    "routes",
    "dst",
    "gw",
    "interface",
    "ip4",
    "ip",
    "cni.dev/valid-attachments",
    "containerID",
    "capabilities",
    "sysctl",
    "",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Odd {
    name: Option<String>,
    ips: Vec<Option<Odd>>,
    interface: Option<i8>,
    ipam: BTreeMap<String, serde_json::Value>,
    dns: Option<(u8, String)>,
    gw: f32,
    dst: char,
}

#[test]
fn random_documents_never_panic_and_survive_printing() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut read = 0;
    for round in 0..20_000 {
        let document = random.json(0);
        for text in [document.to_compact(), document.to_pretty()] {
            assert_eq!(Json::parse(text.as_bytes()).as_ref(), Ok(&document), "round {round}: {text}");
        }
        let text = document.to_compact();
        for command in ["ADD", "DEL"] {
            read += usize::from(Conf::parse(text.as_bytes(), command).is_ok());
        }
        for &version in Version::ALL {
            if let Ok(result) = CniResult::parse(text.as_bytes(), version) {
                read += 1;
                for &version in Version::ALL {
                    let _ = result.render(version);
                }
            }
            let _ = CniResult::from_prev(&document, version);
        }
        let _ = json::from_slice::<Odd>(text.as_bytes());
    }
    assert!(read > 1000, "only {read} documents could be read: the generator is of no use");
}

#[test]
fn damaged_documents_never_panic() {
    let whole =
        r#"{"cniVersion":"1.0.0","name":"n\u00e9\ud83d\ude00","ipam":{"type":"x","r":[[{"a":-1.5e3}]]},
        "prevResult":{"ips":[{"address":"10.1.2.3/24"}],"routes":[{"dst":"::/0"}]},"é":null}"#
            .as_bytes();
    let mut random = Random(42);
    for end in 0..whole.len() {
        assert!(Json::parse(&whole[..end]).is_err(), "{end}");
    }
    for _ in 0..20_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..=random.below(3) {
            let position = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[position] = u8::try_from(random.below(256)).unwrap(),
                1 => drop(bytes.remove(position)),
                _ => bytes.insert(position, b"{}[]\",:\\u0-.eE"[random.below(14)]),
            }
        }
        let _ = Conf::parse(&bytes, "ADD");
    }
}
