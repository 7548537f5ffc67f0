//! Writing [`Json`] byte for byte as Go's encoding/json does with its default escaping.
//!
//! Numbers are written as they were read: there is no arithmetic here.

use super::Json;

pub(super) fn pretty(json: &Json) -> String {
    let mut out = String::new();
    value(json, Some(0), &mut out);
    out
}

pub(super) fn compact(json: &Json) -> String {
    let mut out = String::new();
    value(json, None, &mut out);
    out
}

/// Writes one value; `depth` is the indentation of its line, or `None` for one line without white space.
fn value(json: &Json, depth: Option<usize>, out: &mut String) {
    let inner = depth.map(|depth| depth + 1);
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Number(text) => out.push_str(text),
        Json::String(text) => string(text, out),
        Json::Array(items) if items.is_empty() => out.push_str("[]"),
        Json::Object(entries) if entries.is_empty() => out.push_str("{}"),
        Json::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                separate(position, inner, out);
                value(item, inner, out);
            }
            line(depth, out);
            out.push(']');
        }
        Json::Object(entries) => {
            out.push('{');
            for (position, (key, item)) in entries.iter().enumerate() {
                separate(position, inner, out);
                string(key, out);
                out.push_str(if depth.is_some() { ": " } else { ":" });
                value(item, inner, out);
            }
            line(depth, out);
            out.push('}');
        }
    }
}

fn separate(position: usize, depth: Option<usize>, out: &mut String) {
    if position > 0 {
        out.push(',');
    }
    line(depth, out);
}

fn line(depth: Option<usize>, out: &mut String) {
    if let Some(depth) = depth {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str("    "));
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::Json;

    #[test]
    fn documents_are_written_as_go_writes_them() {
        let text = br#"{"a":[],"b":{},"c":[1,-0.50e3,true,null],"a":{"d":"x"}}"#;
        let json = Json::parse(text).unwrap();
        assert_eq!(json.to_compact().as_bytes(), text);
        let expected = r#"{
    "a": [],
    "b": {},
    "c": [
        1,
        -0.50e3,
        true,
        null
    ],
    "a": {
        "d": "x"
    }
}"#;
        assert_eq!(json.to_pretty(), expected);
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let json = Json::from("<a> & \"b\" \\ \n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}é\u{2028}\u{2029}\u{1F600}");
        let expected = "\"\\u003ca\\u003e \\u0026 \\\"b\\\" \\\\ \\n\\r\\t\\b\\f\\u0001\\u001f\u{7f}é\\u2028\\u2029\u{1F600}\"";
        assert_eq!(json.to_compact(), expected);
        assert_eq!(Json::parse(expected.as_bytes()), Ok(json));
    }
}
