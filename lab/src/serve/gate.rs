//! Who may ask: nobody but the page that was opened with the token. A page of another origin, a name that was made to point
//! here (DNS rebinding) and other users of this machine have none.
//!
//! Everything that is asked is a head of a request alone; nothing of a body is read before.

use anyhow::Result;
use hyper::header::{COOKIE, HOST, HeaderMap, ORIGIN};
use hyper::{Method, Uri};

use crate::bytes::{hex, random};

/// The header that carries the token.
pub(super) const HEADER: &str = "x-podlab-token";
/// Paths whose token may be in the address: a browser sends no header of ours for them.
const BY_ADDRESS: [&str; 2] = ["/", "/api/events"];

/// The token, and where the server is.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    port: u16,
    token: String,
    /// What a browser has in a cookie once the token has opened the page: it opens the page again, which then has its token
    /// from the tab, and nothing else. Cookies go to every port of a host, so this must not be the token.
    again: String,
}

impl Gate {
    /// With a new token of 256 bits.
    pub(super) fn new(port: u16) -> Result<Gate> {
        Ok(Gate { port, token: hex(&random::<32>()?), again: hex(&random::<32>()?) })
    }

    /// The cookie that opens the page again (RFC 6265, section 4.1): for this host, no script and no other site.
    pub(super) fn cookie(&self) -> String {
        format!("podlab-{}={}; Path=/; HttpOnly; SameSite=Strict", self.port, self.again)
    }

    /// Where the page is.
    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token)
    }

    /// Whether a request may be answered at all.
    pub(super) fn lets(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
        // A request to a proxy names a host in its first line.
        let is_direct = uri.authority().is_none() && uri.path().starts_with('/');
        let own = |host: &[u8]| {
            let names = ["127.0.0.1", "localhost"];
            names.iter().any(|name| host.eq_ignore_ascii_case(format!("{name}:{}", self.port).as_bytes()))
        };
        let of_host = only(headers, HOST.as_str()).is_some_and(own);
        let of_origin = match headers.get_all(ORIGIN).iter().count() {
            0 => true,
            _ => only(headers, ORIGIN.as_str())
                .and_then(|origin| origin.strip_prefix(b"http://"))
                .is_some_and(own),
        };
        let by_header = only(headers, HEADER).is_some_and(|told| is_same(told, self.token.as_bytes()));
        let by_address = || {
            let may = *method == Method::GET && BY_ADDRESS.contains(&uri.path());
            may && query(uri, "token").is_some_and(|told| is_same(told.as_bytes(), self.token.as_bytes()))
        };
        let by_cookie = || {
            *method == Method::GET
                && uri.path() == "/"
                && cookie(headers, &format!("podlab-{}", self.port))
                    .is_some_and(|told| is_same(told, self.again.as_bytes()))
        };
        is_direct && of_host && of_origin && (by_header || by_address() || by_cookie())
    }
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.next().is_none().then(|| first.as_bytes())
}

/// The value of the first cookie of that name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let all = headers.get_all(COOKIE).iter();
    let pairs = all.flat_map(|header| header.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.into_iter().find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The value of a key of the query, with `%20` and such decoded (RFC 3986, section 2.1). The first one counts.
pub(super) fn query(uri: &Uri, key: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(own, _)| *own == key).and_then(|(_, value)| decoded(value))
}

/// None for what is no encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

/// Whether two texts are the same, in a time that does not tell how much of them is.
fn is_same(told: &[u8], own: &[u8]) -> bool {
    let differences = told.iter().zip(own).fold(0, |sum, (a, b)| sum | (a ^ b));
    told.len() == own.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn lets(first_line: (&str, &str), headers: &[(&str, &str)]) -> bool {
        let gate = Gate { port: 8000, token: "secret".to_owned(), again: "again".to_owned() };
        let mut request = Request::builder().method(first_line.0).uri(first_line.1);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        gate.lets(request.method(), request.uri(), request.headers())
    }

    #[test]
    fn host_origin_and_token_must_all_be_right() {
        let (host, token) = (("host", "127.0.0.1:8000"), (HEADER, "secret"));
        let get = ("GET", "/api/lab");
        assert!(lets(get, &[host, token]));
        assert!(lets(get, &[("host", "LocalHost:8000"), token]));
        assert!(lets(get, &[host, token, ("origin", "http://localhost:8000")]));
        for headers in [
            &[token][..],
            &[("host", "127.0.0.1"), token],
            &[("host", "127.0.0.1:8001"), token],
            &[("host", "evil.example:8000"), token],
            &[("host", "127.0.0.1:8000.evil.example"), token],
            &[host, host, token],
            &[host],
            &[host, (HEADER, "secre")],
            &[host, (HEADER, "secrets")],
            &[host, (HEADER, "Secret")],
            &[host, (HEADER, "")],
            &[host, token, token],
            &[host, token, ("origin", "http://evil.example")],
            &[host, token, ("origin", "https://127.0.0.1:8000")],
            &[host, token, ("origin", "http://127.0.0.1:8001")],
            &[host, token, ("origin", "null")],
            &[host, token, ("origin", "")],
            &[host, token, ("origin", "http://127.0.0.1:8000"), ("origin", "http://127.0.0.1:8000")],
        ] {
            assert!(!lets(get, headers), "{headers:?}");
        }
        assert!(!lets(("GET", "http://127.0.0.1:8000/api/lab"), &[host, token]));
    }

    #[test]
    fn a_token_in_the_address_is_for_what_a_browser_opens_itself() {
        let host = ("host", "127.0.0.1:8000");
        assert!(lets(("GET", "/?token=secret"), &[host]));
        assert!(lets(("GET", "/api/events?x=1&token=%73ecret"), &[host]));
        for line in [
            ("GET", "/api/lab?token=secret"),
            ("POST", "/?token=secret"),
            ("POST", "/api/events?token=secret"),
            ("GET", "/?token=secret%"),
            ("GET", "/?token="),
            ("GET", "/?token"),
            ("GET", "//?token=secret"),
            ("GET", "/?token=wrong!&token=secret"),
        ] {
            assert!(!lets(line, &[host]), "{line:?}");
        }
    }

    #[test]
    fn the_cookie_opens_the_page_again_and_nothing_else() {
        let host = ("host", "127.0.0.1:8000");
        for good in ["podlab-8000=again", "other=1;podlab-8000=again", "a; podlab-8000=again ; b=c"] {
            assert!(lets(("GET", "/"), &[host, ("cookie", good)]), "{good}");
        }
        for bad in [
            "podlab-8000=secret",
            "podlab-8001=again",
            "podlab-8000",
            "xpodlab-8000=again",
            "podlab-8000=x; podlab-8000=again",
        ] {
            assert!(!lets(("GET", "/"), &[host, ("cookie", bad)]), "{bad}");
        }
        let cookie = ("cookie", "podlab-8000=again");
        for (method, path) in
            [("GET", "/api/lab"), ("GET", "/api/events"), ("POST", "/"), ("POST", "/api/break")]
        {
            assert!(!lets((method, path), &[host, cookie]), "{method} {path}");
        }
        assert!(!lets(("GET", "/?token=again"), &[host]));
        assert!(!lets(("GET", "/"), &[("host", "evil.example:8000"), cookie]));
        assert!(!lets(("GET", "/"), &[host, cookie, ("origin", "http://evil.example")]));
    }
}
