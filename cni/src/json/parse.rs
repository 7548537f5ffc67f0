//! The JSON parser: RFC 8259 with Go's words for what is wrong.
//!
//! As in Go, `\u` escapes of half a surrogate pair become U+FFFD. Unlike Go, bytes that are not UTF-8 are an
//! error instead of U+FFFD: they can only be damage.

use super::{Error, Json, MAX_DEPTH};

/// Parses all of `bytes` as one document.
pub(super) fn document(bytes: &[u8]) -> Result<Json, Error> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::new(format_args!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
    let mut parser = Parser { text, at: 0 };
    let json = parser.value(0)?;
    match parser.peek() {
        None => Ok(json),
        Some(_) => Err(parser.unexpected("after top-level value")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next byte, which is consumed.
    fn next(&mut self) -> Option<u8> {
        let byte = self.raw();
        self.at += usize::from(byte.is_some());
        byte
    }

    /// The byte under the cursor.
    fn raw(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The byte under the cursor after white space is passed over.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.raw() {
            self.at += 1;
        }
        self.raw()
    }

    /// The error for the character under the cursor.
    fn unexpected(&self, context: &str) -> Error {
        let Some(c) = self.text.get(self.at..).and_then(|rest| rest.chars().next()) else {
            return Error::new("unexpected end of JSON input");
        };
        let before = self.text.get(..self.at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        Error::new(format_args!("invalid character {c:?} {context} (line {line}, column {column})"))
    }

    fn value(&mut self, depth: usize) -> Result<Json, Error> {
        match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => {
                Err(Error::new(format_args!("exceeded max depth of {MAX_DEPTH}")))
            }
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Json::Number),
            Some(b't') => self.literal("true", Json::Bool(true)),
            Some(b'f') => self.literal("false", Json::Bool(false)),
            Some(b'n') => self.literal("null", Json::Null),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str, json: Json) -> Result<Json, Error> {
        for expected in word.bytes() {
            if self.raw() != Some(expected) {
                let context = format!("in literal {word} (expecting {:?})", char::from(expected));
                return Err(self.unexpected(&context));
            }
            self.at += 1;
        }
        Ok(json)
    }

    fn object(&mut self, depth: usize) -> Result<Json, Error> {
        self.at += 1;
        let mut entries = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(entries));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let key = self.string()?;
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            let value = self.value(depth)?;
            entries.push((key, value));
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
        self.at += 1;
        Ok(Json::Object(entries))
    }

    fn array(&mut self, depth: usize) -> Result<Json, Error> {
        self.at += 1;
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.unexpected("after array element")),
            }
        }
        self.at += 1;
        Ok(Json::Array(items))
    }

    fn number(&mut self) -> Result<String, Error> {
        let start = self.at;
        if self.raw() == Some(b'-') {
            self.at += 1;
        }
        match self.raw() {
            Some(b'0') => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        if self.raw() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.raw() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.raw() {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(self.since(start).to_owned())
    }

    /// One digit or more.
    fn digits(&mut self, context: &str) -> Result<(), Error> {
        if !self.raw().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected(context));
        }
        while self.raw().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    /// The text from `start` to the cursor, both of which stand at ASCII bytes.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn string(&mut self) -> Result<String, Error> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.raw().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            out.push_str(self.since(start));
            match self.raw() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                _ => return Err(self.unexpected("in string literal")),
            }
        }
    }

    /// The character that an escape stands for; the cursor is behind the backslash.
    fn escape(&mut self) -> Result<char, Error> {
        let c = match self.raw() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        Ok(c)
    }

    /// The character of `\uXXXX` or a pair of them; the cursor is behind the `u`.
    fn unicode_escape(&mut self) -> Result<char, Error> {
        let first = self.hex4()?;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        let behind = self.at;
        if first < 0xdc00 && self.next() == Some(b'\\') && self.next() == Some(b'u') {
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
        self.at = behind;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.raw().and_then(|byte| char::from(byte).to_digit(16));
            let digit = digit.ok_or_else(|| self.unexpected("in \\u hexadecimal character escape"))?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        document(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn order_duplicates_and_spelling_are_kept() {
        let json = document(b" {\"b\" : 1.50, \"a\":[true , false,null],\n\"b\":\"x\"}\t").unwrap();
        assert_eq!(
            json,
            Json::Object(vec![
                ("b".into(), Json::Number("1.50".into())),
                ("a".into(), Json::Array(vec![Json::Bool(true), Json::Bool(false), Json::Null])),
                ("b".into(), Json::String("x".into())),
            ])
        );
    }

    #[test]
    fn numbers_follow_the_grammar() {
        for good in ["0", "-0", "10", "-1.25", "1e5", "1E-5", "0.0e+10", "123456789012345678901234567890"] {
            assert_eq!(document(good.as_bytes()), Ok(Json::Number(good.into())));
        }
        for bad in ["-", "01", "+1", ".5", "1.", "1.e5", "1e", "1e+", "0x10", "Infinity", "NaN", "1_000"] {
            assert!(document(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes_are_resolved() {
        let table = [
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\u0041\u00e9\u20AC""#, "Aé€"),
            (r#""\ud83d\ude00""#, "\u{1F600}"),
            (r#""\ud83dx""#, "\u{FFFD}x"),
            (r#""\ude00\ud83d""#, "\u{FFFD}\u{FFFD}"),
            (r#""\ud83d\u0041""#, "\u{FFFD}A"),
            (r#""\ud83d\n""#, "\u{FFFD}\n"),
            (r#""\u0000""#, "\0"),
        ];
        for (text, expected) in table {
            assert_eq!(document(text.as_bytes()), Ok(Json::String(expected.into())), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_told_with_its_place() {
        let table = [
            ("", "unexpected end of JSON input"),
            ("  \n", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("\"abc", "unexpected end of JSON input"),
            ("tru", "unexpected end of JSON input"),
            ("\"\\u12", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value (line 1, column 1)"),
            ("\u{feff}{}", "invalid character '\\u{feff}' looking for beginning of value (line 1, column 1)"),
            ("{} {}", "invalid character '{' after top-level value (line 1, column 4)"),
            ("{\"a\"\n 1}", "invalid character '1' after object key (line 2, column 2)"),
            ("{\"é\":1 2}", "invalid character '2' after object key:value pair (line 1, column 8)"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string (line 1, column 2)"),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string (line 1, column 8)",
            ),
            ("[1,]", "invalid character ']' looking for beginning of value (line 1, column 4)"),
            ("[1 2]", "invalid character '2' after array element (line 1, column 4)"),
            ("nul1", "invalid character '1' in literal null (expecting 'l') (line 1, column 4)"),
            ("\"a\nb\"", "invalid character '\\n' in string literal (line 1, column 3)"),
            ("\"\\x\"", "invalid character 'x' in string escape code (line 1, column 3)"),
            ("\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape (line 1, column 6)"),
            ("-x", "invalid character 'x' in numeric literal (line 1, column 2)"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal (line 1, column 3)"),
            ("1ex", "invalid character 'x' in exponent of numeric literal (line 1, column 3)"),
            ("[01]", "invalid character '1' after array element (line 1, column 3)"),
        ];
        for (text, expected) in table {
            assert_eq!(error(text), expected, "{text:?}");
        }
        assert_eq!(document(b"{\"a\":\"\xff\"}").unwrap_err().to_string(), "invalid UTF-8 at byte 6");
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(document(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(error(&nested(MAX_DEPTH + 1)), "exceeded max depth of 500");
        assert_eq!(error(&"[".repeat(1_000_000)), "exceeded max depth of 500");
        assert_eq!(error(&"{\"a\":".repeat(1_000_000)), "exceeded max depth of 500");
    }
}
