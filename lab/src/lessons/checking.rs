//! The check of a lesson on its running lab. Nothing is repeated until it works, and the lab is not changed.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::model::{Check, Lang, Trail};
use super::shell;
use super::told::Checked;
use crate::control::{Client, Keep, Request};
use crate::exit::{self, Failure};
use crate::page::walk::Wanted;
use crate::trace::{Hop, Trace};
use crate::verdict::{Report, Ruling};

/// How many verdicts that are not green are told.
const TOLD: usize = 2;

/// Carries a check out. What could not be carried out is not passed.
pub(super) fn check(lab: &str, check: &Check, lang: Lang) -> Checked {
    let (expected, outcome) = match (&check.run, &check.trace) {
        (Some(lines), _) => (wanted(check, lang), ran(lab, lines, check)),
        (_, Some(trail)) => (trail.words(lang), follow(lab, trail)),
        _ => {
            let expected = lang.say("every verdict PASS", "모든 판정이 PASS");
            (format!("podlab verify {}: {expected}", check.verify.join(" ")), verify(lab, &check.verify))
        }
    };
    let (passed, observed) = match outcome {
        Ok(Ok(observed)) => (true, observed),
        Ok(Err(observed)) => (false, observed),
        Err(failure) => (false, failure.text),
    };
    Checked { title: check.title.clone(), passed, expected, observed }
}

/// What was seen, as it has to be or not.
type Outcome = Result<Result<String, String>, Failure>;

fn wanted(check: &Check, lang: Lang) -> String {
    let mut text = check.run.clone().unwrap_or_default().trim().replace('\n', "; ");
    text += &format!(": exit {}", check.exit);
    if !check.words.is_empty() {
        text += &format!("{}{}", lang.say(", with ", ", 있어야 할 말: "), check.words.join(" | "));
    }
    if !check.without.is_empty() {
        text += &format!("{}{}", lang.say(", without ", ", 없어야 할 말: "), check.without.join(" | "));
    }
    text
}

fn ran(lab: &str, lines: &str, check: &Check) -> Outcome {
    let ran = shell::run(lab, lines)?;
    Ok(match ran.differs(check.exit, &check.words, &check.without) {
        None => Ok(ran.last()),
        Some(differs) => Err(differs),
    })
}

fn verify(lab: &str, checks: &[String]) -> Outcome {
    Ok(judged(&report(lab, checks)?))
}

/// Has a lab verify.
pub(super) fn report(lab: &str, checks: &[String]) -> Result<Report, Failure> {
    let request = Request::Verify {
        checks: checks.to_vec(),
        nodes: Vec::new(),
        sample: None,
        seed: 0,
        keep: Keep::Nothing,
    };
    answer(lab, &request)
}

/// Everything is green, and there was something to look at; or the first verdicts that are not.
pub(super) fn judged(report: &Report) -> Result<String, String> {
    let red = report.checks.iter().flat_map(|check| {
        let red = check.verdicts.iter().filter(|verdict| verdict.ruling != Ruling::Pass);
        red.map(|verdict| {
            format!("{} {}: {} {}", check.name, verdict.subject, verdict.ruling, verdict.evidence)
        })
    });
    let told: Vec<String> = red.take(TOLD).collect();
    match (report.failed, report.passed) {
        (0, passed) if passed > 0 => Ok(report.summary()),
        (0, _) => Err("there was nothing to check".to_owned()),
        _ => Err(format!("{} · {}", report.summary(), told.join(" · "))),
    }
}

/// Asks a lab for a document.
pub(super) fn answer<T: DeserializeOwned>(lab: &str, request: &Request) -> Result<T, Failure> {
    let document: Value = Client::connect(lab)?.ask(request, &mut |_, _| {})?;
    T::deserialize(document).map_err(|err| Failure::new(exit::BUG, format!("answer of lab {lab}: {err}")))
}

fn follow(lab: &str, trail: &Trail) -> Outcome {
    let request = Wanted::parse(&trail.from, &trail.to, &trail.proto, false)?.request(Keep::Nothing);
    Ok(trail.judge(&answer(lab, &request)?))
}

impl Trail {
    fn words(&self, lang: Lang) -> String {
        let mut text = format!("podlab trace {} {}:", self.from, self.to);
        if self.unchanged {
            text += lang.say(" an answer, and no NAT;", " 응답이 오고 주소 변환(NAT) 없음;");
        }
        if let Some((first, last)) = self.ttl {
            text += &format!(" TTL {first}→{last};");
        }
        if self.sightings > 0 {
            text += &match lang {
                Lang::En => format!(" seen at {} interfaces or more;", self.sightings),
                Lang::Ko => format!(" 인터페이스 {}곳 이상에서 보임;", self.sightings),
            };
        }
        if !self.passes.is_empty() {
            text += &format!("{}{};", lang.say(" by way of ", " 지나는 곳: "), self.passes.join(", "));
        }
        if !self.avoids.is_empty() {
            text +=
                &format!("{}{};", lang.say(" not by way of ", " 지나지 않는 곳: "), self.avoids.join(", "));
        }
        text.trim_end_matches(';').to_owned()
    }

    /// What was seen of the first packet: as it has to be, or what is other.
    fn judge(&self, trace: &Trace) -> Result<String, String> {
        let none = Vec::new();
        let hops: &Vec<Hop> = trace.walks.first().map_or(&none, |walk| &walk.hops);
        let place = |hop: &Hop| format!("{}/{}", hop.space, hop.interface);
        let ttl = hops.first().zip(hops.last()).map(|(first, last)| (first.ttl, last.ttl));
        let seen = match ttl {
            Some((first, last)) => {
                format!("{}; TTL {first}→{last} at {} interfaces", trace.verdict, hops.len())
            }
            None => format!("{}; no packet was seen", trace.verdict),
        };
        let missing = self.passes.iter().find(|at| !hops.iter().any(|hop| place(hop) == **at));
        let strayed =
            hops.iter().find(|hop| self.avoids.iter().any(|at| *at == hop.space || *at == place(hop)));
        match (missing, strayed) {
            _ if hops.is_empty() => Err(seen),
            _ if self.unchanged && trace.ruling != Ruling::Pass => Err(seen),
            _ if self.ttl.is_some() && self.ttl != ttl => Err(seen),
            _ if hops.len() < self.sightings => Err(seen),
            (Some(at), _) => Err(format!("{seen}; not at {at}")),
            (_, Some(hop)) => Err(format!("{seen}; at {}", place(hop))),
            (None, None) => Ok(seen),
        }
    }
}
