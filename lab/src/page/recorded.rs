//! The walks that podlab carries with it, every file of `walks/`: real ones, recorded by `scripts/record-walks`.

use serde_json::{Value, json};

include!(concat!(env!("OUT_DIR"), "/walks.rs"));

/// A walk by its identifier.
pub fn text(id: &str) -> Option<&'static str> {
    let own = |text: &&&str| head(text)["id"] == id;
    ALL.iter().find(own).copied()
}

/// Identifier and titles of each, in order.
pub fn list() -> Vec<Value> {
    ALL.iter().map(|text| head(text)).collect()
}

/// What is said of a walk in a list.
pub fn head(text: &str) -> Value {
    let walk: Value = serde_json::from_str(text).unwrap_or_default();
    json!({ "id": walk["id"], "title": walk["titles"], "mode": walk["mode"] })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::page::walk;

    #[test]
    fn every_walk_is_one_with_titles_in_two_languages() {
        let ids: BTreeSet<String> = list().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), ALL.len());
        for id in ids {
            let walk = walk::read(text(&id).unwrap()).unwrap();
            let (en, ko) = (walk["titles"]["en"].as_str().unwrap(), walk["titles"]["ko"].as_str().unwrap());
            assert_eq!(walk["title"], en, "{id}");
            assert!(ko.chars().any(|c| ('가'..='힣').contains(&c)), "{id}: {ko}");
            assert!(walk["trace"]["walks"].as_array().is_some_and(|walks| !walks.is_empty()), "{id}");
        }
        assert_eq!(text("nothing"), None);
    }
}
