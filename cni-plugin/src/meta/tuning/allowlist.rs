//! The administrator's list of sysctls that `tuning` may set: one regular expression a line, which a key must
//! match somewhere, as it is written in the configuration.

use std::io::ErrorKind;

use cni::Error;
use regex_lite::Regex;

/// Where the reference looks for it. Without the file everything below `net` is allowed.
const PATH: &str = "/etc/cni/tuning/allowlist.conf";

/// Every key is on the list. Without keys the list is not looked at: it may be unreadable to who is not root.
///
/// # Errors
/// A key is on no line, a line is no regular expression, the file cannot be read.
pub(super) fn check<'k>(keys: impl Iterator<Item = &'k str>) -> Result<(), Error> {
    let mut keys = keys.peekable();
    if keys.peek().is_none() {
        return Ok(());
    }
    let text = match std::fs::read_to_string(PATH) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|err| Error::internal(format!("read {PATH}: {err}")))?,
    };
    keys.try_for_each(|key| check_one(key, &text))
}

fn check_one(key: &str, text: &str) -> Result<(), Error> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for line in &lines {
        let regex = Regex::new(line)
            .map_err(|err| Error::internal(format!("{PATH}: {line:?} is no regular expression: {err}")))?;
        if regex.is_match(key) {
            return Ok(());
        }
    }
    Err(Error::invalid(format!(
        "Sysctl {key} is not allowed. Only the following sysctls are allowed: [{}]",
        lines.join(" ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_must_match_a_line_somewhere() {
        let list = "\n  ^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$ \nsomaxconn\n";
        for key in ["net.ipv4.conf.IFNAME.rp_filter", "net.core.somaxconn", "net/core/somaxconn2"] {
            assert_eq!(check_one(key, list), Ok(()), "{key}");
        }
        assert_eq!(
            check_one("net.ipv4.conf.eth0.rp_filter", list).unwrap_err().msg,
            "Sysctl net.ipv4.conf.eth0.rp_filter is not allowed. Only the following sysctls are allowed: \
             [^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$ somaxconn]"
        );
        assert!(check_one("x", "").unwrap_err().msg.contains("allowed: []"));
    }

    #[test]
    fn a_line_that_is_no_expression_counts_when_it_is_reached() {
        assert_eq!(check_one("net.a", "net\n["), Ok(()));
        assert!(check_one("net.a", "[\nnet").unwrap_err().msg.contains("\"[\" is no regular expression"));
    }
}
