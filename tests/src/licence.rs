//! SPDX licence expressions (Annex D of the SPDX specification, 2.3), as far as package manifests use them: identifiers,
//! `WITH`, `AND`, `OR`, parentheses, and the old `/` for `OR`. It does not know what a licence means; it asks whether an
//! expression can be satisfied by a set of accepted ones.

use anyhow::{Result, bail, ensure};

/// The licences that dependencies of this project may have.
pub const ACCEPTED: [&str; 11] = [
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Apache-2.0 WITH LLVM-exception",
    "Unlicense",
    "0BSD",
    "CC0-1.0",
];

/// Whether a choice of licences allowed by `expression` lies within `accepted`.
///
/// # Errors
/// The expression cannot be read.
pub fn satisfied(expression: &str, accepted: &[&str]) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { tokens: &tokens, accepted };
    let value = parser.or()?;
    ensure!(parser.tokens.is_empty(), "licence expression {expression:?}: unexpected {:?}", parser.tokens[0]);
    Ok(value)
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    accepted: &'a [&'a str],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.tokens.first().is_some_and(|token| token.eq_ignore_ascii_case(word));
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn or(&mut self) -> Result<bool> {
        let mut value = self.and()?;
        while self.take("OR") {
            value |= self.and()?;
        }
        Ok(value)
    }

    fn and(&mut self) -> Result<bool> {
        let mut value = self.term()?;
        while self.take("AND") {
            value &= self.term()?;
        }
        Ok(value)
    }

    fn term(&mut self) -> Result<bool> {
        if self.take("(") {
            let value = self.or()?;
            ensure!(self.take(")"), "licence expression without a closing parenthesis");
            return Ok(value);
        }
        let id = self.word()?;
        let id = if self.take("WITH") { format!("{id} WITH {}", self.word()?) } else { id };
        Ok(self.accepted.contains(&id.as_str()))
    }

    fn word(&mut self) -> Result<String> {
        let Some((&word, rest)) = self.tokens.split_first() else { bail!("licence expression ends early") };
        ensure!(
            !["OR", "AND", "WITH", "(", ")"].contains(&word),
            "licence expression: {word:?} in the wrong place"
        );
        self.tokens = rest;
        Ok(word.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn and_binds_closer_than_or() -> Result<()> {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-2.0-only", false),
            ("MIT OR GPL-2.0-only", true),
            ("MIT AND GPL-2.0-only", false),
            ("GPL-2.0-only AND MIT OR ISC", true),
            ("GPL-2.0-only AND (MIT OR ISC)", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-2.0-only WITH Classpath-exception-2.0", false),
        ] {
            assert_eq!(satisfied(expression, &ACCEPTED)?, expected, "{expression}");
        }
        Ok(())
    }

    #[test]
    fn a_broken_expression_is_an_error() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT ISC", "MIT WITH"] {
            assert!(satisfied(expression, &ACCEPTED).is_err(), "{expression}");
        }
    }
}
