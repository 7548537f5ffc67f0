//! The words of questions and answers.

use std::net::IpAddr;

/// What a datagram that asks begins with, and one that answers.
const ASK: &[u8] = b"podnet?";
const ANSWER: &[u8] = b"podnet!";
/// The first word of an answer by TCP.
const GREETING: &str = "podnet";
/// Bytes that tell questions apart.
pub(super) const NONCE: usize = 8;
/// The shortest question: as long as the longest answer, whose node's name has up to 253 bytes.
pub(super) const SHORTEST: usize = 320;
/// The longest answer by TCP.
pub(super) const LONGEST: usize = SHORTEST;

/// Who answers, and what it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) node: String,
    pub(super) seen: IpAddr,
}

/// The answer by TCP.
pub(super) fn line(node: &str, seen: IpAddr) -> String {
    format!("{GREETING} {node} {}\n", seen.to_canonical())
}

/// Reads an answer by TCP; None for what is none.
pub(super) fn read_line(text: &[u8]) -> Option<Said> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    said(text.strip_prefix(GREETING)?.strip_prefix(' ')?)
}

/// A question of `len` bytes, [`SHORTEST`] at least.
pub(super) fn question(nonce: [u8; NONCE], len: usize) -> Vec<u8> {
    let mut bytes = ASK.to_vec();
    bytes.extend(nonce);
    bytes.resize(len.max(SHORTEST), 0);
    bytes
}

/// The answer to a datagram; None for one that is no question, or too short to be answered.
pub(super) fn answer(question: &[u8], node: &str, seen: IpAddr) -> Option<Vec<u8>> {
    let nonce = question.strip_prefix(ASK)?.get(..NONCE)?;
    let mut bytes = [ANSWER, nonce].concat();
    bytes.extend(format!(" {node} {}", seen.to_canonical()).bytes());
    (bytes.len() <= question.len()).then_some(bytes)
}

/// Reads an answer to the question with this nonce; None for any other datagram.
pub(super) fn read_answer(bytes: &[u8], nonce: [u8; NONCE]) -> Option<Said> {
    let text = bytes.strip_prefix(ANSWER)?.strip_prefix(&nonce[..])?;
    said(std::str::from_utf8(text).ok()?.strip_prefix(' ')?)
}

fn said(text: &str) -> Option<Said> {
    let (node, seen) = text.split_once(' ')?;
    Some(Said { node: node.to_owned(), seen: seen.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_were_written() {
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let said = Said { node: "n1".into(), seen: "10.0.0.1".parse().unwrap() };
        assert_eq!(line("n1", mapped), "podnet n1 10.0.0.1\n");
        assert_eq!(read_line(line("n1", mapped).as_bytes()), Some(said.clone()));
        let asked = question([7; NONCE], 0);
        let told = answer(&asked, "n1", mapped).unwrap();
        assert_eq!(read_answer(&told, [7; NONCE]), Some(said));
        assert_eq!(read_answer(&told, [8; NONCE]), None, "an answer to another question");
    }

    #[test]
    fn no_answer_is_longer_than_its_question() {
        let name = "n".repeat(253);
        let seen: IpAddr = "fd00:1111:2222:3333:4444:5555:6666:7777".parse().unwrap();
        let asked = question([0; NONCE], 1);
        assert!(answer(&asked, &name, seen).unwrap().len() <= asked.len());
        assert_eq!(answer(&asked[..100], &name, seen), None);
        assert!(line(&name, seen).len() <= LONGEST);
    }

    #[test]
    fn what_is_no_question_or_answer_is_passed_over() {
        for bytes in [&b""[..], b"podnet", b"podnet?", b"GET / HTTP/1.1\r\n", b"podnet! x"] {
            assert_eq!(answer(bytes, "n", IpAddr::from([0; 4])), None);
            assert_eq!(read_answer(bytes, [0; NONCE]), None);
        }
        for text in ["", "podnet n1 10.0.0.1", "podnet n1\n", "podnet n1 here\n", "podlab n1 10.0.0.1\n"] {
            assert_eq!(read_line(text.as_bytes()), None, "{text:?}");
        }
    }
}
