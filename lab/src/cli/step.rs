//! `podlab trace --step`: a person, or a script on standard input, lets the frames of a wire go by.
//!
//! Orders are read on a thread of their own, so that frames are shown as they come.

use std::io::{BufRead, IsTerminal, stdin};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::{Style, capture};
use crate::control::{self, Client, Request};
use crate::exit::{self, Failure};
use crate::output;
use crate::packet::Packet;
use crate::step::{Act, News, Order, Side};

/// What can be said.
pub(super) const WORDS: &str = "Enter or next: let the first frame go by · drop · dup · edit ttl N · edit byte OFFSET VALUE · swap: \
                     the second one goes first · go: let all by · quit";

/// Asks for the trace, and hands orders on until it is there.
pub(super) fn trace(client: &mut Client, request: &Request, style: Style) -> Result<Value, Failure> {
    let mut step = |stream: &UnixStream, news: &News| -> Result<(), Failure> {
        if let News::Held(_) = news {
            let stream =
                stream.try_clone().map_err(|err| Failure::new(exit::FAILED, format!("the lab: {err}")))?;
            // It ends with this process, or when the lab takes no more orders.
            std::thread::spawn(move || give_orders(stream));
        }
        if !style.quiet {
            output::tell(&told(news));
        }
        Ok(())
    };
    client.ask_stepping(request, &mut step)
}

/// Reads orders to the end of standard input; then everything may go by.
fn give_orders(mut stream: UnixStream) {
    let is_patient = !stdin().is_terminal();
    let mut order = |act| control::send(&mut stream, &Order { act, is_patient });
    for line in stdin().lock().lines().map_while(Result::ok) {
        match parse(&line) {
            Ok(act) if order(act).is_err() => return,
            Ok(_) => {}
            Err(text) => output::tell(&format!("{text} · {WORDS}")),
        }
    }
    // A lab that has ended needs no order.
    let _ = order(Act::Go);
}

/// An order, from a line.
fn parse(line: &str) -> Result<Act, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [] | ["next" | "n"] => Ok(Act::Next),
        ["drop" | "d"] => Ok(Act::Drop),
        ["dup" | "u"] => Ok(Act::Duplicate),
        ["swap" | "s"] => Ok(Act::Swap),
        ["go" | "g"] => Ok(Act::Go),
        ["quit" | "q"] => Ok(Act::Quit),
        ["edit", "ttl", ttl] => Ok(Act::Ttl(number(ttl)?)),
        ["edit", "byte", offset, value] => Ok(Act::Byte(number(offset)?, number(value)?)),
        _ => Err(format!("{:?} is no order", line.trim())),
    }
}

/// A number, in hexadecimal after `0x`.
fn number<N: TryFrom<u64>>(word: &str) -> Result<N, String> {
    let read = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    let fits = read.ok().and_then(|number| N::try_from(number).ok());
    fits.ok_or_else(|| format!("{word:?} is no number that fits"))
}

fn told(news: &News) -> String {
    match news {
        News::Held(node) => format!("the wire of {node} is held · {WORDS}"),
        News::Waits(number, from, bytes) => {
            let way = match from {
                Side::Node => "from the node",
                Side::Switch => "to the node",
            };
            let what =
                Packet::decode(bytes).map_or_else(|| "no frame".to_owned(), |packet| capture::words(&packet));
            format!("{number:>3}  {way:<13}  {what}, frame of {} bytes", bytes.len())
        }
        News::Again(number, times) => format!("{number:>3}  comes again ({times} in all; one waits)"),
        News::Done(number, text) => format!("{number:>3}  {text}"),
        News::Refused(text) => format!("no: {text}"),
        News::Ended(text) => format!("the probe has ended: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_words_or_their_first_letters() {
        for (line, act) in [
            ("", Act::Next),
            (" next ", Act::Next),
            ("d", Act::Drop),
            ("dup", Act::Duplicate),
            ("edit ttl 3", Act::Ttl(3)),
            ("edit  byte 0x16 255", Act::Byte(22, 255)),
            ("swap", Act::Swap),
            ("g", Act::Go),
            ("q", Act::Quit),
        ] {
            assert_eq!(parse(line), Ok(act), "{line:?}");
        }
        for (line, words) in [
            ("delete", "\"delete\" is no order"),
            ("edit ttl 256", "\"256\" is no number that fits"),
            ("edit ttl", "is no order"),
            ("edit byte 1 -1", "\"-1\" is no number"),
            ("next 2", "is no order"),
        ] {
            assert!(parse(line).unwrap_err().contains(words), "{line:?}");
        }
    }
}
