//! The CNI error object: code, sentence, details (specification section 5, "Error").
//!
//! There is no error enum: what a runtime can do about an error is its code.

use crate::Version;
use crate::json::Json;

/// The error codes of the specification, and those that the reference library adds.
pub mod code {
    /// The version of the configuration is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A key with a value that the plugin cannot honour; the sentence names both.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown: the runtime need not call DEL.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A variable of the environment is missing or invalid; the sentence names it.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading stdin or writing stdout went wrong.
    pub const IO: u32 = 5;
    /// The configuration or a part of it does not decode.
    pub const DECODING: u32 = 6;
    /// The configuration decodes, but its values are invalid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace cannot be used (in the reference library, not in the specification).
    pub const INVALID_NETNS: u32 = 8;
    /// A transient condition: the runtime should try again later.
    pub const TRY_LATER: u32 = 11;
    /// STATUS: the plugin cannot serve ADD.
    pub const UNAVAILABLE: u32 = 50;
    /// STATUS: as 50, and existing containers may have limited connectivity.
    pub const LIMITED: u32 = 51;
    /// Any other failure of a plugin.
    pub const INTERNAL: u32 = 999;
}

/// A CNI error: what a plugin prints on stdout when it fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { "; " })]
pub struct Error {
    /// One of [`code`], or a number of the plugin's own from 100 on.
    pub code: u32,
    /// One sentence.
    pub msg: String,
    /// More about it, or empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// An error of code 999, the code of every failure that has none of its own.
    pub fn internal(msg: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, msg)
    }

    /// An error of code 7: a configuration that decodes but cannot be meant.
    pub fn invalid(msg: impl Into<String>) -> Self {
        Self::new(code::INVALID_CONFIG, msg)
    }

    /// The same error with these details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// One error out of several outcomes: the first one's code, all the sentences.
    ///
    /// # Errors
    /// When any of `outcomes` is one.
    pub fn join(outcomes: impl IntoIterator<Item = Result<(), Error>>) -> Result<(), Error> {
        let mut errors = outcomes.into_iter().filter_map(Result::err);
        let Some(first) = errors.next() else { return Ok(()) };
        Err(errors.fold(first, |mut all, next| {
            all.msg = format!("{all}; {next}");
            all.details.clear();
            all
        }))
    }

    /// The error object as printed: 4-space indent, no newline at the end, `<`, `>` and `&` escaped.
    /// The reference omits `cniVersion`; the specification lists it, so it is there.
    pub fn render(&self, version: Version) -> String {
        let mut object = vec![
            ("cniVersion".to_owned(), Json::from(version.as_str())),
            ("code".to_owned(), Json::Number(self.code.to_string())),
            ("msg".to_owned(), Json::from(self.msg.as_str())),
        ];
        if !self.details.is_empty() {
            object.push(("details".to_owned(), Json::from(self.details.as_str())));
        }
        Json::Object(object).to_pretty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_renders_with_version_and_without_empty_details() {
        let error = Error::new(code::INVALID_CONFIG, "missing network name");
        assert_eq!(
            error.render(Version::V1_1_0),
            "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 7,\n    \"msg\": \"missing network name\"\n}"
        );
        assert_eq!(error.to_string(), "missing network name");
    }

    #[test]
    fn several_errors_become_one_with_the_first_code() {
        let (a, b) = (Error::new(7, "a").with_details("x"), Error::internal("b"));
        assert_eq!(Error::join([Ok(()), Ok(())]), Ok(()));
        assert_eq!(Error::join([Ok(()), Err(b.clone())]), Err(b.clone()));
        assert_eq!(Error::join([Err(a), Ok(()), Err(b)]), Err(Error::new(7, "a; x; b")));
    }

    #[test]
    fn error_escapes_what_html_minds() {
        let error = Error::internal("a<b> & \"c\"").with_details("d\n");
        assert_eq!(
            error.render(Version::V0_4_0),
            "{\n    \"cniVersion\": \"0.4.0\",\n    \"code\": 999,\n    \
             \"msg\": \"a\\u003cb\\u003e \\u0026 \\\"c\\\"\",\n    \"details\": \"d\\n\"\n}"
        );
        assert_eq!(error.to_string(), "a<b> & \"c\"; d\n");
    }
}
