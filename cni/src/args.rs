//! The strict parser of CNI_ARGS, as most reference plugins have it: `KEY=VALUE;KEY=VALUE`.
//!
//! Keys are matched by exact case. There is no way to write a value with `=` or `;` in it, and a `;` at the
//! end is an error; both are so in the reference.

use std::collections::HashMap;

use crate::error::{Error, code};

/// Reads `text` for the keys in `known`; of a key that stands there twice the last one counts.
///
/// Every caller knows `IgnoreUnknown` (`1`, `0`, `true`, `false` in any case): when it is true, other keys
/// are passed over. It is not in what is returned.
///
/// # Errors
/// Code 4 with the reference's sentence: a piece that is no pair, an unknown key, a bad `IgnoreUnknown`.
pub fn parse(text: &str, known: &[&str]) -> Result<HashMap<String, String>, Error> {
    let refuse = |msg: String| Error::new(code::INVALID_ENVIRONMENT, msg).with_details("in CNI_ARGS");
    let mut found = HashMap::new();
    let mut unknown = Vec::new();
    let mut ignore_unknown = false;
    let pieces = text.split(';').filter(|_| !text.is_empty());
    for pair in pieces {
        let mut halves = pair.split('=');
        let (Some(key), Some(value), None) = (halves.next(), halves.next(), halves.next()) else {
            return Err(refuse(format!("ARGS: invalid pair {pair:?}")));
        };
        if key == "IgnoreUnknown" {
            ignore_unknown = boolean(value).ok_or_else(|| {
                refuse(format!(
                    "ARGS: error parsing value of pair {pair:?}: boolean unmarshal error: invalid input {}",
                    value.to_lowercase()
                ))
            })?;
        } else if known.contains(&key) {
            found.insert(key.to_owned(), value.to_owned());
        } else {
            unknown.push(format!("{pair:?}"));
        }
    }
    if !unknown.is_empty() && !ignore_unknown {
        return Err(refuse(format!("ARGS: unknown args [{}]", unknown.join(" "))));
    }
    Ok(found)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_args_pass_with_ignore_unknown() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;IP=10.1.2.3";
        let found = parse(text, &["IP"]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found["IP"], "10.1.2.3");
    }

    #[test]
    fn empty_text_has_no_pairs_and_the_last_duplicate_counts() {
        assert!(parse("", &["IP"]).unwrap().is_empty());
        assert_eq!(parse("IP=a;IP=b", &["IP"]).unwrap()["IP"], "b");
        assert_eq!(parse("IP=", &["IP"]).unwrap()["IP"], "");
    }

    #[test]
    fn errors_have_the_sentences_of_the_reference() {
        let table = [
            ("IP=1;", "ARGS: invalid pair \"\""),
            ("IP", "ARGS: invalid pair \"IP\""),
            ("IP=a=b", "ARGS: invalid pair \"IP=a=b\""),
            ("ip=1;MAC=2", "ARGS: unknown args [\"ip=1\" \"MAC=2\"]"),
            ("IgnoreUnknown=0;X=1", "ARGS: unknown args [\"X=1\"]"),
            ("ignoreunknown=1", "ARGS: unknown args [\"ignoreunknown=1\"]"),
            (
                "IgnoreUnknown=Yes",
                "ARGS: error parsing value of pair \"IgnoreUnknown=Yes\": boolean unmarshal error: invalid input yes",
            ),
        ];
        for (text, msg) in table {
            let error = parse(text, &["IP"]).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (code::INVALID_ENVIRONMENT, msg));
        }
    }

    #[test]
    fn ignore_unknown_counts_wherever_it_stands() {
        for text in
            ["X=1;IgnoreUnknown=TRUE", "IgnoreUnknown=true;X=1", "IgnoreUnknown=0;X=1;IgnoreUnknown=1"]
        {
            parse(text, &[]).unwrap();
        }
    }
}
