//! Lessons for the page: what the verbs of `podlab lesson` answer, in the language of each request.

use std::sync::PoisonError;

use hyper::Uri;
use serde::Serialize;

use super::Server;
use super::api::{Answer, LESSONS, Refusal, bad, missing};
use super::gate::query;
use crate::exit::Failure;
use crate::lessons::{Classroom, Lang, Lesson, Step};
use crate::output::document;

/// What may be asked of a lesson, with POST.
pub(super) const VERBS: [&str; 5] = ["start", "check", "hint", "reset", "solve"];

/// Answers a request to a path below [`LESSONS`].
pub(super) fn answer(server: &Server, uri: &Uri) -> Result<Answer, Refusal> {
    let path = uri.path();
    let room = Classroom { lang: language(uri)?, ..server.room.clone() };
    let rest: Vec<&str> = path.strip_prefix(LESSONS).unwrap_or_default().split('/').skip(1).collect();
    match rest.as_slice() {
        [] => told(room.list()),
        [id] if !id.is_empty() => told(room.show(&known(&room, id)?, false)),
        [id, verb] => {
            let lesson = known(&room, id)?;
            match *verb {
                "start" => begun(server, room.start(&lesson, false)),
                "reset" => begun(server, room.reset(&lesson)),
                "check" => told(room.check(&lesson)),
                "hint" => told(room.hint(&lesson)),
                "solve" => told(room.solve(&lesson)),
                _ => Err(missing(format!("there is nothing at {path}"))),
            }
        }
        _ => Err(missing(format!("there is nothing at {path}"))),
    }
}

/// That lesson, if there is one.
fn known(room: &Classroom, id: &str) -> Result<Lesson, Refusal> {
    room.find(Some(id)).map_err(|_| missing(format!("there is no lesson {id:?}")))
}

/// The lab of a lesson that was started is what the page shows from then on.
fn begun(server: &Server, step: Result<Step, Failure>) -> Result<Answer, Refusal> {
    let step = step?;
    server.name.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&step.lab);
    told(Ok(step))
}

fn told<T: Serialize>(said: Result<T, Failure>) -> Result<Answer, Refusal> {
    Ok(Answer::document(&document(&said?)?))
}

fn language(uri: &Uri) -> Result<Lang, Refusal> {
    match query(uri, "lang").as_deref() {
        None => Ok(Lang::of_locale()),
        Some("en") => Ok(Lang::En),
        Some("ko") => Ok(Lang::Ko),
        Some(other) => Err(bad(format!("lang is en or ko, not {other:?}"))),
    }
}
