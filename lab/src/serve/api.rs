//! What is answered to each request. A lab is asked what the verbs ask it; nothing is decided here that they decide
//! otherwise.

use std::sync::PoisonError;

use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::gate::query;
use super::{Server, teaching};
use crate::control::{Client, Keep, Request};
use crate::exit::{self, Failure};
use crate::graph::{Form, Picture};
use crate::kubia;
use crate::page::{self, recorded, walk};
use crate::stack::OneFamily;
use crate::{breaking, graph};

const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The type of the content.
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: StatusCode::OK, kind, body: body.into() }
    }

    pub(super) fn document(value: &Value) -> Answer {
        Answer::ok(JSON, value.to_string())
    }

    /// One sentence.
    pub(super) fn error(status: StatusCode, sentence: &str) -> Answer {
        Answer { status, ..Answer::document(&json!({ "error": sentence })) }
    }
}

/// Why there is no answer.
pub(super) struct Refusal(StatusCode, String);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        let status = match failure.code {
            exit::USAGE => StatusCode::BAD_REQUEST,
            exit::LACKING | exit::NOTHING => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal(status, failure.text)
    }
}

pub(super) fn bad(sentence: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, sentence.into())
}

pub(super) fn missing(sentence: impl Into<String>) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, sentence.into())
}

/// The paths of actions.
const ACTIONS: [&str; 4] = ["/api/trace", "/api/verify", "/api/break", "/api/heal"];
pub(super) const LESSONS: &str = "/api/lessons";

/// Whether a path is asked with that method: actions with POST, everything else with GET.
pub(super) fn is_allowed(method: &Method, path: &str) -> bool {
    let of_lesson = path.strip_prefix(LESSONS).and_then(|rest| rest.rsplit_once('/'));
    let is_action =
        ACTIONS.contains(&path) || of_lesson.is_some_and(|(_, verb)| teaching::VERBS.contains(&verb));
    *method == if is_action { Method::POST } else { Method::GET }
}

/// Answers a request that may be asked.
pub(super) fn answer(server: &Server, method: &Method, uri: &Uri, body: &[u8]) -> Answer {
    route(server, method, uri, body)
        .unwrap_or_else(|Refusal(status, sentence)| Answer::error(status, &sentence))
}

fn route(server: &Server, method: &Method, uri: &Uri, body: &[u8]) -> Result<Answer, Refusal> {
    let path = uri.path();
    match (method.as_str(), path) {
        ("GET", "/") => Ok(Answer::ok("text/html; charset=utf-8", front(server))),
        ("GET", "/api/lab") => {
            Ok(Answer::document(&lab(server)?.ask(&Request::Inspect { what: None }, &mut |_, _| {})?))
        }
        ("GET", "/api/picture.svg") => {
            let shown = query(uri, "show").unwrap_or_default();
            let shown: Vec<String> = words(&shown).collect();
            let document = lab(server)?.ask(&Request::Inspect { what: None }, &mut |_, _| {})?;
            let picture = Picture::of(&document, &shown).map_err(bad)?;
            Ok(Answer::ok(SVG, picture.render(Form::Svg)))
        }
        ("GET", "/api/walks") => Ok(Answer::document(&json!({ "walks": walks(server) }))),
        ("GET", "/api/trace.pcapng") => {
            let packets = server.packets.lock().unwrap_or_else(PoisonError::into_inner);
            let packets = packets.clone().ok_or_else(|| missing("no packet has been followed yet"))?;
            Ok(Answer::ok("application/x-pcapng", packets))
        }
        ("GET", "/api/faults") => all_faults(server),
        ("GET", "/api/heatmap.svg") => heatmap(server, uri),
        ("POST", "/api/trace") => trace(server, read(body)?),
        ("POST", "/api/verify") => Ok(Answer::document(&verify(server, read(body)?)?)),
        ("POST", "/api/break") => {
            let Break { fault, on, family } = read(body)?;
            let targets = on.into_iter().flat_map(OneOrMany::words).collect();
            Ok(Answer::document(
                &lab(server)?.ask(&Request::Break { fault, targets, family }, &mut |_, _| {})?,
            ))
        }
        ("POST", "/api/heal") => heal(server, read(body)?),
        _ if path.starts_with(LESSONS) => teaching::answer(server, uri),
        ("GET", _) if path.starts_with("/api/walks/") => {
            let id = path.trim_start_matches("/api/walks/");
            let own = server.walks.iter().find(|(own, _)| own == id).map(|(_, walk)| walk.to_string());
            let text = own.or_else(|| recorded::text(id).map(str::to_owned));
            text.map(|text| Answer::ok(JSON, text)).ok_or_else(|| missing(format!("there is no walk {id:?}")))
        }
        _ => Err(missing(format!("there is nothing at {path}"))),
    }
}

/// A connection to the lab.
fn lab(server: &Server) -> Result<Client, Refusal> {
    Client::connect(&server.name()).map_err(|failure| Refusal(StatusCode::CONFLICT, failure.text))
}

/// The page, with the walks that can be opened, and the first of them as a table.
fn front(server: &Server) -> String {
    let summary =
        Client::connect(&server.name()).and_then(|mut lab| lab.ask(&Request::Summary, &mut |_, _| {}));
    let mut boot = json!({
        "live": summary.is_ok(),
        "name": server.name(),
        "version": env!("CARGO_PKG_VERSION"),
        "walks": walks(server),
    });
    if let Ok(summary) = &summary {
        boot["mode"] = summary["mode"].clone();
    }
    let first = boot["walks"][0]["id"].as_str();
    let own = server.walks.first().map(|(_, walk)| walk.clone());
    let carried = || serde_json::from_str(recorded::text(first?)?).ok();
    let walk: Option<Value> = own.or_else(carried);
    page::page(&boot, &walk.map(|walk| page::table(&walk["trace"])).unwrap_or_default())
}

fn walks(server: &Server) -> Vec<Value> {
    let titles = |walk: &Value| match &walk["titles"] {
        Value::Null => json!({ "en": walk["title"], "ko": walk["title"] }),
        titles => titles.clone(),
    };
    let own = server
        .walks
        .iter()
        .map(|(id, walk)| json!({ "id": id, "title": titles(walk), "mode": walk["mode"] }));
    own.chain(recorded::list()).collect()
}

/// What a request's body says; nothing is an empty object.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|err| bad(format!("the body: {err}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trace {
    from: String,
    to: String,
    #[serde(default = "tcp")]
    protocol: String,
    port: Option<u16>,
    family: Option<OneFamily>,
    #[serde(default)]
    hooks: bool,
}

fn tcp() -> String {
    "tcp".to_owned()
}

fn trace(server: &Server, wanted: Trace) -> Result<Answer, Refusal> {
    let Trace { from, to, protocol, family, port, hooks } = wanted;
    let wanted = walk::Wanted {
        source: from,
        target: to,
        port: port.unwrap_or(kubia::PORT),
        protocol,
        family,
        hooks,
        step: false,
    };
    let recorded = walk::record(&mut lab(server)?, &wanted)?;
    *server.packets.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorded.packets);
    Ok(Answer::document(&recorded.document))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {
    #[serde(default)]
    checks: Vec<String>,
    sample: Option<usize>,
}

fn verify(server: &Server, wanted: Verify) -> Result<Value, Refusal> {
    let Verify { checks, sample } = wanted;
    if sample == Some(0) {
        return Err(bad("a sample has at least one pair"));
    }
    let request = Request::Verify { checks, nodes: Vec::new(), sample, seed: 1, keep: Keep::Nothing };
    let report = lab(server)?.ask(&request, &mut |_, _| {})?;
    *server.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
    Ok(report)
}

/// The pairs of the last report, or of a new one with that sample.
fn heatmap(server: &Server, uri: &Uri) -> Result<Answer, Refusal> {
    let sample =
        query(uri, "sample").map(|text| text.parse().map_err(|_| bad(format!("{text:?} is no number"))));
    let last = server.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let report = match (sample.transpose()?, last) {
        (None, Some(report)) => report,
        (sample, _) => verify(server, Verify { sample, ..Verify::default() })?,
    };
    let drawn = graph::heatmap::render(&report).map_err(bad)?;
    Ok(Answer::ok(SVG, drawn))
}

/// The catalogue, and what is active in the lab.
fn all_faults(server: &Server) -> Result<Answer, Refusal> {
    let mut document = breaking::catalogue();
    if let Ok(mut lab) = Client::connect(&server.name()) {
        let active = lab.ask(&Request::Active, &mut |_, _| {})?;
        document["active"] = active["active"].clone();
    }
    Ok(Answer::document(&document))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Break {
    fault: String,
    family: Option<OneFamily>,
    on: Option<OneOrMany>,
}

/// `node1 node2`, `node1,node2` or a list of names.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn words(self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => words(&text).collect(),
            OneOrMany::Many(names) => names,
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Heal {
    id: Option<Value>,
    #[serde(default)]
    all: bool,
}

fn heal(server: &Server, wanted: Heal) -> Result<Answer, Refusal> {
    let which = match (wanted.id, wanted.all) {
        (None, true) => None,
        (Some(Value::String(name)), false) => Some(name),
        (Some(Value::Number(number)), false) => Some(number.to_string()),
        _ => return Err(bad("either the id of a fault, or all: true")),
    };
    Ok(Answer::document(&lab(server)?.ask(&Request::Heal { which }, &mut |_, _| {})?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_posted_and_all_else_is_got() {
        for path in ["/api/trace", "/api/verify", "/api/break", "/api/heal", "/api/lessons/bridge/start"] {
            assert!(is_allowed(&Method::POST, path) && !is_allowed(&Method::GET, path), "{path}");
        }
        for path in [
            "/",
            "/api/lab",
            "/api/faults",
            "/api/lessons",
            "/api/lessons/bridge",
            "/start",
            "/api/trace.pcapng",
        ] {
            assert!(is_allowed(&Method::GET, path) && !is_allowed(&Method::POST, path), "{path}");
            assert!(!is_allowed(&Method::HEAD, path) && !is_allowed(&Method::OPTIONS, path), "{path}");
        }
    }

    #[test]
    fn bodies_are_read_whole_or_not_at_all() {
        let refused =
            |body: &str| read::<Trace>(body.as_bytes()).err().map(|Refusal(status, text)| (status, text));
        assert!(refused(r#"{"from":"a","to":"b","port":80}"#).is_none());
        let (status, text) = refused(r#"{"from":"a","to":"b","via":"c"}"#).unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains("unknown field `via`"), "{text}");
        assert!(refused("").is_some() && refused("[").is_some());
        assert!(read::<Verify>(b"").is_ok());
    }
}
