//! The document `podlab.walk/1`: a trace with its lab, its picture and its packets, so that it can be looked at anywhere.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::control::{Client, Keep, Request};
use crate::exit::{self, Failure};
use crate::graph::{Form, Picture};
use crate::kubia;
use crate::stack::OneFamily;

/// The name of the document's form.
pub const SCHEMA: &str = "podlab.walk/1";

/// Which packet is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it starts.
    pub source: String,
    /// Where it goes, without the port.
    pub target: String,
    /// The port.
    pub port: u16,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Over which IP, where both ends have both.
    pub family: Option<OneFamily>,
    /// What nf_tables does with it is told too.
    pub hooks: bool,
    /// Its frames wait on a wire for orders.
    pub step: bool,
}

impl Wanted {
    /// From the words of a command line: `kubia-3` or `kubia-3:80`, an address, `[fd00::1]:80`.
    ///
    /// # Errors
    /// What is behind the colon is no port.
    pub fn parse(source: &str, target: &str, protocol: &str, hooks: bool) -> Result<Wanted, Failure> {
        let bare = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(target);
        let (target, port) = match (bare.parse::<IpAddr>(), target.parse::<SocketAddr>()) {
            (Ok(_), _) => (bare.to_owned(), kubia::PORT),
            (_, Ok(both)) => (both.ip().to_string(), both.port()),
            _ => match target.rsplit_once(':') {
                Some((target, port)) => {
                    let wrong = |_| Failure::usage(format!("{port:?} is not a port"));
                    (target.to_owned(), port.parse().map_err(wrong)?)
                }
                None => (target.to_owned(), kubia::PORT),
            },
        };
        Ok(Wanted {
            source: source.into(),
            target,
            port,
            protocol: protocol.into(),
            family: None,
            step: false,
            hooks,
        })
    }

    /// The question to a lab.
    pub fn request(&self, keep: Keep) -> Request {
        Request::Trace {
            source: self.source.clone(),
            target: self.target.clone(),
            port: self.port,
            protocol: self.protocol.clone(),
            family: self.family,
            hooks: self.hooks,
            step: self.step,
            keep,
        }
    }

    /// The command line that asks it.
    fn again(&self) -> String {
        let family = match self.family {
            None => "",
            Some(OneFamily::Ipv4) => " --ip-family ipv4",
            Some(OneFamily::Ipv6) => " --ip-family ipv6",
        };
        let target = match self.target.parse::<IpAddr>() {
            _ if self.port == kubia::PORT => self.target.clone(),
            Ok(address) => SocketAddr::new(address, self.port).to_string(),
            Err(_) => format!("{}:{}", self.target, self.port),
        };
        let protocol =
            if self.protocol == "tcp" { String::new() } else { format!(" --proto {}", self.protocol) };
        let hooks = if self.hooks { " --hooks" } else { "" };
        format!("podlab trace {} {target}{protocol}{family}{hooks}", self.source)
    }
}

/// A walk, and the packets of it as pcapng.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// `podlab.walk/1`.
    pub document: Value,
    /// The packets, which are in the document too.
    pub packets: Vec<u8>,
}

/// Has a lab follow a packet, and puts all that is known of it into one document.
///
/// # Errors
/// The lab's.
pub fn record(client: &mut Client, wanted: &Wanted) -> Result<Recorded, Failure> {
    let trace = client.ask(&wanted.request(Keep::Packets), &mut |_, _| {})?;
    let mut packets = Vec::new();
    client
        .collect()?
        .read_to_end(&mut packets)
        .map_err(|err| Failure::new(exit::FAILED, format!("packets of the lab: {err}")))?;
    let lab = client.ask(&Request::Inspect { what: None }, &mut |_, _| {})?;
    let picture = Picture::of(&lab, &pods_of(&trace)).map_err(|err| Failure::new(exit::BUG, err))?;
    let what = match wanted.protocol.as_str() {
        "icmp" => "ICMP".to_owned(),
        other => format!("{} {}", other.to_uppercase(), wanted.port),
    };
    let document = json!({
        "schema": SCHEMA,
        "title": format!("{} to {}, {what}", wanted.source, wanted.target),
        "mode": lab["mode"],
        "picture": picture.render(Form::Svg),
        "lab": lab,
        "trace": trace,
        "pcapng": STANDARD.encode(&packets),
        "again": wanted.again(),
    });
    Ok(Recorded { document, packets })
}

/// The pods that a walk passes, with their loopbacks where it passes those.
fn pods_of(trace: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let hops = list(&trace["walks"]).into_iter().flat_map(|walk| list(&walk["hops"]));
    let pods = hops.filter(|hop| hop["role"] == "pod").filter_map(|hop| {
        let loopback = if hop["interface"] == "lo" { "/lo" } else { "" };
        Some(format!("{}{loopback}", hop["space"].as_str()?))
    });
    let mut pods: Vec<String> = pods.collect();
    pods.sort();
    pods.dedup();
    pods
}

/// Reads a document as `podlab export --walk` writes it.
///
/// # Errors
/// What is none, in one sentence.
pub fn read(text: &str) -> Result<Value, String> {
    let walk: Value = serde_json::from_str(text).map_err(|err| err.to_string())?;
    if walk["schema"] != SCHEMA {
        return Err(format!(
            "no document of podlab export --walk: schema is {}, not {SCHEMA:?}",
            walk["schema"]
        ));
    }
    for (key, schema) in [("lab", "podlab.inspect/1"), ("trace", crate::trace::SCHEMA)] {
        if walk[key]["schema"] != schema {
            return Err(format!("{key} has the schema {}, not {schema:?}", walk[key]["schema"]));
        }
    }
    match ["title", "mode", "picture", "again"].into_iter().find(|key| !walk[*key].is_string()) {
        Some(key) => Err(format!("{key} is no text")),
        None => Ok(walk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_read_and_told_again() {
        let again =
            |target, protocol, hooks| Wanted::parse("kubia-1", target, protocol, hooks).unwrap().again();
        assert_eq!(again("kubia-3", "tcp", false), "podlab trace kubia-1 kubia-3");
        assert_eq!(again("kubia-3:80", "udp", true), "podlab trace kubia-1 kubia-3:80 --proto udp --hooks");
        assert_eq!(again("10.0.0.1:80", "tcp", false), "podlab trace kubia-1 10.0.0.1:80");
        assert_eq!(again("fd00::1", "tcp", false), "podlab trace kubia-1 fd00::1");
        assert_eq!(again("[fd00::1]", "tcp", false), "podlab trace kubia-1 fd00::1");
        assert_eq!(again("[fd00::1]:80", "tcp", false), "podlab trace kubia-1 [fd00::1]:80");
        let refused = Wanted::parse("kubia-1", "kubia-3:http", "tcp", false).unwrap_err();
        assert_eq!(refused.text, "\"http\" is not a port");
    }

    #[test]
    fn what_is_no_walk_is_refused() {
        for (text, words) in [
            ("{", "EOF"),
            ("{}", "no document of podlab export --walk"),
            (r#"{"schema":"podlab.walk/1"}"#, "lab has the schema null"),
            (
                r#"{"schema":"podlab.walk/1","lab":{"schema":"podlab.inspect/1"},"trace":{"schema":"podlab.trace/1"}}"#,
                "title is no text",
            ),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
