//! The page: one HTML file, built in `web/` and embedded, in which a document to begin with and a table for readers without
//! scripts are put. What it may load and run is said by a policy made from its own contents.
//!
//! The server (`serve`) and the exports give it the same things.

pub mod recorded;
mod table;
pub mod walk;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::graph;
pub use table::table;

/// The page as it was built.
const PAGE: &str = include_str!("../../web/dist/index.html");
/// Where the document goes that the page begins with.
const BOOT: &str = "<script type=\"application/json\" id=\"podlab-boot\">{}</script>";
/// Where the table goes.
const TABLE: &str = "<!--podlab-table-->";
/// A page's own policy comes first in its head.
const HEAD: &str = "<meta charset=\"utf-8\">";

/// The page with its first document and its table. The table is HTML already.
pub fn page(boot: &Value, table: &str) -> String {
    // What ends a script must not be in one, in whatever string it is.
    let boot = boot.to_string().replace('<', "\\u003c");
    PAGE.replacen(BOOT, &BOOT.replace("{}", &boot), 1).replacen(TABLE, table, 1)
}

/// One file with a recorded walk: nothing else is needed to look at it.
pub fn file(walk: &Value) -> String {
    let boot = json!({ "live": false, "file": true, "version": env!("CARGO_PKG_VERSION"), "walk": walk });
    // These two are for headers only (Content Security Policy Level 3, section 3.3).
    let policy =
        policy().replace("; frame-ancestors 'none'", "").replace("connect-src 'self'", "connect-src 'none'");
    let meta = format!("{HEAD}<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">");
    page(&boot, &table(&walk["trace"])).replacen(HEAD, &meta, 1)
}

/// The Content-Security-Policy of the page: its own scripts and styles by their digests, the picture's style, and nothing
/// from elsewhere.
pub fn policy() -> String {
    let digest = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let sources = |name: &str, more: Option<&str>| {
        let all: Vec<String> = elements(PAGE, name).into_iter().chain(more).map(digest).collect();
        if all.is_empty() { "'none'".to_owned() } else { all.join(" ") }
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        sources("script", None),
        sources("style", Some(graph::STYLE)),
    )
}

/// The texts of the elements of that name, but for documents of JSON, which do not run.
fn elements<'t>(html: &'t str, name: &str) -> Vec<&'t str> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut rest = html;
    let mut all = Vec::new();
    while let Some(start) = rest.find(&open) {
        rest = &rest[start + open.len()..];
        let Some((attributes, after)) = rest.split_once('>') else { break };
        let Some((text, behind)) = after.split_once(&close) else { break };
        if !attributes.contains("application/json") {
            all.push(text);
        }
        rest = behind;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_each_place_once() {
        for place in [BOOT, TABLE, HEAD] {
            assert_eq!(PAGE.matches(place).count(), 1, "{place}");
        }
    }

    #[test]
    fn a_document_cannot_end_its_script() {
        let html = page(&json!({ "name": "</script><script>alert(1)</script>" }), "<table></table>");
        assert!(!html.contains("alert(1)</script>"), "{html}");
        assert!(html.contains(r#"{"name":"\u003c/script>\u003cscript>alert(1)\u003c/script>"}"#), "{html}");
        assert_eq!(elements(&html, "script").len(), elements(PAGE, "script").len());
    }

    #[test]
    fn the_policy_names_what_is_in_the_page_and_nothing_else() {
        let html = "<script type=\"application/json\">{}</script><script>a</script><style>b</style><style media=x>c</style>";
        assert_eq!(elements(html, "script"), ["a"]);
        assert_eq!(elements(html, "style"), ["b", "c"]);
        let policy = policy();
        assert!(policy.starts_with("default-src 'none'; script-src '"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        // Of "a", as `openssl dgst -sha256 -binary | base64` says.
        let digest = STANDARD.encode(Sha256::digest("a"));
        assert_eq!(digest, "ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=");
    }
}
