//! `conditionsV4` and `conditionsV6`: what a packet must be besides addressed to a mapped port.
//!
//! Two languages are read, iptables' options and nft's words, as far as the page of `portmap` says. A word
//! beyond that is refused by name: a mapping that was to be narrowed must not be open to all. Alternatives
//! (`-s a,b`, `ip saddr { a, b }`) become several lists, each of which makes rules of its own.

use cni::{Error, code};
use ipnetwork::IpNetwork;

use super::config::Protocol;

/// One thing that a packet must be, or must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) negated: bool,
    pub(crate) on: On,
}

/// What a match looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Source(IpNetwork),
    Destination(IpNetwork),
    /// The link it came in by; a trailing `*` stands for any rest of the name.
    Input(String),
    /// The link it leaves by.
    Output(String),
    Mark {
        value: u32,
        mask: u32,
    },
    Protocol(u8),
    SourcePort(u16, u16),
    DestinationPort(u16, u16),
}

impl std::fmt::Display for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let not = if self.negated { "!= " } else { "" };
        let range = |first: &u16, last: &u16| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        match &self.on {
            On::Source(net) => write!(f, "saddr {not}{net}"),
            On::Destination(net) => write!(f, "daddr {not}{net}"),
            On::Input(name) => write!(f, "iifname {not}{name}"),
            On::Output(name) => write!(f, "oifname {not}{name}"),
            On::Mark { value, mask } => write!(f, "mark {not}{value:#x}/{mask:#x}"),
            On::Protocol(number) => write!(f, "l4proto {not}{number}"),
            On::SourcePort(first, last) => write!(f, "sport {not}{}", range(first, last)),
            On::DestinationPort(first, last) => write!(f, "dport {not}{}", range(first, last)),
        }
    }
}

/// The language that a list of conditions is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Iptables,
    Nft,
}

impl Language {
    /// The reference's backend that takes it.
    pub(super) fn backend(self) -> &'static str {
        match self {
            Language::Iptables => "iptables",
            Language::Nft => "nftables",
        }
    }
}

/// The language of a list; `None` when it is empty. As in the reference, the first character tells.
pub(super) fn language(list: &[String]) -> Option<Language> {
    match list.first()?.trim_start().chars().next()? {
        '-' | '!' => Some(Language::Iptables),
        _ => Some(Language::Nft),
    }
}

/// Reads the list under `key` for one family: any of the lists that come out must hold whole. No conditions
/// are one empty list.
///
/// # Errors
/// Code 2 with the first word that cannot be expressed.
pub(super) fn parse(key: &str, list: Option<&[String]>, v6: bool) -> Result<Vec<Vec<Match>>, Error> {
    let list = list.unwrap_or_default();
    let parsed = match language(list) {
        None => return Ok(vec![Vec::new()]),
        Some(Language::Iptables) => iptables(&words(list, "")),
        Some(Language::Nft) => nft(&words(list, "{},")),
    };
    let groups = parsed.and_then(|groups| groups.into_iter().map(|group| group.expand(v6)).collect());
    let groups: Vec<Vec<Vec<Match>>> = groups.map_err(|what: String| {
        let text = format!("unsupported field {key:?} with value {list:?}: {what}");
        Error::new(code::UNSUPPORTED_FIELD, text)
    })?;
    let none = vec![Vec::new()];
    Ok(groups.into_iter().fold(none, |all, alternatives| {
        all.iter().flat_map(|one| alternatives.iter().map(move |more| [&one[..], more].concat())).collect()
    }))
}

/// The words of a list, whose entries may hold one or several; each character of `apart` is a word.
fn words(list: &[String], apart: &str) -> Vec<String> {
    let mut words = Vec::new();
    for text in list {
        for word in text.split_whitespace() {
            let mut rest = word;
            while let Some(at) = rest.find(|c: char| apart.contains(c)) {
                words.extend((at > 0).then(|| rest[..at].to_owned()));
                words.push(rest[at..at + 1].to_owned());
                rest = &rest[at + 1..];
            }
            words.extend((!rest.is_empty()).then(|| rest.trim_matches('"').to_owned()));
        }
    }
    words
}

/// One option or selector with its values.
struct Group {
    what: Selector,
    negated: bool,
    values: Vec<String>,
}

#[derive(Clone, Copy)]
enum Selector {
    Source,
    Destination,
    Input,
    Output,
    Mark { mask: Option<u32> },
    Protocol,
    SourcePort,
    DestinationPort,
}

impl Group {
    /// The alternatives; of several negated values all must hold, so they are one.
    fn expand(self, v6: bool) -> Result<Vec<Vec<Match>>, String> {
        let read = |value: &String| Ok(Match { negated: self.negated, on: self.what.read(value, v6)? });
        let all: Vec<Match> = self.values.iter().map(read).collect::<Result<_, String>>()?;
        Ok(if self.negated { vec![all] } else { all.into_iter().map(|one| vec![one]).collect() })
    }
}

impl Selector {
    fn read(self, value: &str, v6: bool) -> Result<On, String> {
        Ok(match self {
            Selector::Source => On::Source(network(value, v6)?),
            Selector::Destination => On::Destination(network(value, v6)?),
            Selector::Input => On::Input(link(value)?),
            Selector::Output => On::Output(link(value)?),
            Selector::Mark { mask } => mark(value, mask)?,
            Selector::Protocol => On::Protocol(match Protocol::parse(value) {
                Some(Protocol(number)) => number,
                None => value.parse().map_err(|_| format!("unknown protocol {value:?}"))?,
            }),
            Selector::SourcePort => ports(value).map(|(first, last)| On::SourcePort(first, last))?,
            Selector::DestinationPort => {
                ports(value).map(|(first, last)| On::DestinationPort(first, last))?
            }
        })
    }
}

/// An address or a prefix of the right family; a dotted mask is a prefix too.
fn network(value: &str, v6: bool) -> Result<IpNetwork, String> {
    let net: IpNetwork = value.parse().map_err(|_| format!("{value:?} is neither address nor prefix"))?;
    if net.is_ipv6() != v6 {
        return Err(format!("{value:?} is of the other family"));
    }
    IpNetwork::new(net.network(), net.prefix()).map_err(|err| err.to_string())
}

/// A link's name; both languages' sign for any rest of it becomes `*`.
fn link(value: &str) -> Result<String, String> {
    let name = match value.strip_suffix(['+', '*']) {
        Some(head) => format!("{head}*"),
        None => value.to_owned(),
    };
    let plain = name.trim_end_matches('*');
    if plain.is_empty() || plain.len() > 15 || plain.contains(['/', '*', ':']) {
        return Err(format!("{value:?} is no interface name"));
    }
    Ok(name)
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no mark"))
}

fn mark(value: &str, mask: Option<u32>) -> Result<On, String> {
    let (value, own) = match value.split_once('/') {
        Some((value, mask)) => (value, Some(number(mask)?)),
        None => (value, None),
    };
    Ok(On::Mark { value: number(value)?, mask: mask.or(own).unwrap_or(u32::MAX) })
}

/// A port or a range, which iptables writes `a:b` and nft `a-b`.
fn ports(value: &str) -> Result<(u16, u16), String> {
    let (first, last) = value.split_once([':', '-']).unwrap_or((value, value));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(format!("{value:?} is neither port nor range of ports")),
    }
}

/// Options of iptables.
fn iptables(words: &[String]) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    let mut rest = words.iter().map(String::as_str).peekable();
    let mut negated = false;
    while let Some(word) = rest.next() {
        let what = match word {
            "!" if !negated => {
                negated = true;
                continue;
            }
            "-s" | "--source" | "--src" => Selector::Source,
            "-d" | "--destination" | "--dst" => Selector::Destination,
            "-i" | "--in-interface" => Selector::Input,
            "-o" | "--out-interface" => Selector::Output,
            "-p" | "--protocol" | "--proto" => Selector::Protocol,
            "--mark" => Selector::Mark { mask: None },
            "--sport" | "--source-port" => Selector::SourcePort,
            "--dport" | "--destination-port" => Selector::DestinationPort,
            // The options that follow say all of it.
            "-m" | "--match" if !negated => match rest.next() {
                Some("mark" | "comment" | "tcp" | "udp" | "sctp" | "dccp" | "udplite") => continue,
                Some(module) => return Err(format!("match {module:?} is not supported")),
                None => return Err(format!("{word} without a name")),
            },
            "--comment" if !negated => {
                rest.next();
                // A comment of several words has come apart.
                while rest.peek().is_some_and(|next| !next.starts_with('-') && *next != "!") {
                    rest.next();
                }
                continue;
            }
            _ => return Err(format!("option {word:?} is not supported")),
        };
        // The old place of the exclamation mark.
        if rest.next_if_eq(&"!").is_some() {
            if negated {
                return Err(format!("two exclamation marks at {word}"));
            }
            negated = true;
        }
        let value = rest.next().ok_or_else(|| format!("{word} without a value"))?;
        let values: Vec<String> = match what {
            Selector::Source | Selector::Destination => value.split(',').map(str::to_owned).collect(),
            _ => vec![value.to_owned()],
        };
        groups.push(Group { what, negated, values });
        negated = false;
    }
    if negated { Err("an exclamation mark at the end".into()) } else { Ok(groups) }
}

/// Words of nft.
fn nft(words: &[String]) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    let mut rest = words.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        let mut selector = word.to_owned();
        if matches!(word, "ip" | "ip6" | "meta" | "tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th") {
            selector = format!("{word} {}", rest.next().unwrap_or_default());
        }
        let mut what = match selector.as_str() {
            "ip saddr" | "ip6 saddr" => Selector::Source,
            "ip daddr" | "ip6 daddr" => Selector::Destination,
            "meta iifname" | "iifname" => Selector::Input,
            "meta oifname" | "oifname" => Selector::Output,
            "meta mark" | "mark" => Selector::Mark { mask: None },
            "meta l4proto" | "ip protocol" => Selector::Protocol,
            _ => match selector.split_once(' ') {
                Some((_, "sport")) => Selector::SourcePort,
                Some((_, "dport")) => Selector::DestinationPort,
                _ => return Err(format!("{selector:?} is not supported")),
            },
        };
        if let Some((protocol @ ("tcp" | "udp" | "sctp" | "dccp" | "udplite"), _)) = selector.split_once(' ')
        {
            groups.push(Group {
                what: Selector::Protocol,
                negated: false,
                values: vec![protocol.to_owned()],
            });
        }
        if let (Selector::Mark { .. }, Some("&" | "and")) = (what, rest.peek().copied()) {
            rest.next();
            what = Selector::Mark { mask: Some(number(rest.next().unwrap_or_default())?) };
        }
        let negated = rest.next_if_eq(&"!=").is_some();
        if !negated {
            rest.next_if_eq(&"==");
        }
        let values = match rest.next() {
            Some("{") => set(&mut rest)?,
            Some(value) => vec![value.to_owned()],
            None => return Err(format!("{selector:?} without a value")),
        };
        groups.push(Group { what, negated, values });
    }
    Ok(groups)
}

/// The elements of a set whose opening brace has been read.
fn set<'a>(rest: &mut impl Iterator<Item = &'a str>) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    loop {
        match rest.next() {
            Some("}") if !values.is_empty() => return Ok(values),
            Some("}") => return Err("an empty set".into()),
            Some(",") if !values.is_empty() => {}
            Some(value) if value != "," && value != "{" => values.push(value.to_owned()),
            _ => return Err("a set that does not end".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str], v6: bool) -> Result<Vec<String>, Error> {
        let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
        let key = if v6 { "conditionsV6" } else { "conditionsV4" };
        let lists = parse(key, Some(&list), v6)?;
        let text = |one: &Vec<Match>| one.iter().map(Match::to_string).collect::<Vec<_>>().join(" and ");
        Ok(lists.iter().map(text).collect())
    }

    #[test]
    fn both_languages_say_the_same() {
        for (iptables, nft, v6, expected) in [
            (&["-s", "10.1.2.3"][..], &["ip saddr 10.1.2.3"][..], false, &["saddr 10.1.2.3/32"][..]),
            (
                &["!", "-s", "10.1.2.3/24", "-i", "eth+"],
                &["ip saddr != 10.1.2.0/24", "iifname \"eth*\""],
                false,
                &["saddr != 10.1.2.0/24 and iifname eth*"],
            ),
            (
                &["-d", "10.0.0.1,10.0.1.0/255.255.255.0"],
                &["ip", "daddr", "{10.0.0.1,", "10.0.1.0/24}"],
                false,
                &["daddr 10.0.0.1/32", "daddr 10.0.1.0/24"],
            ),
            (
                &["-m", "mark", "!", "--mark", "0x1/0xff"],
                &["meta mark & 0xff != 0x1"],
                false,
                &["mark != 0x1/0xff"],
            ),
            (&["-p", "tcp", "--sport", "1:100"], &["tcp sport 1-100"], false, &["l4proto 6 and sport 1-100"]),
            (
                &["!", "-d", "fd00::1,fd00::2"],
                &["ip6 daddr != { fd00::1, fd00::2 }"],
                true,
                &["daddr != fd00::1/128 and daddr != fd00::2/128"],
            ),
            (&["-d", "!", "10.0.0.1"], &["ip daddr != 10.0.0.1"], false, &["daddr != 10.0.0.1/32"]),
            (
                &["-m", "comment", "--comment", "of", "ours", "-o", "lo"],
                &["meta oifname lo"],
                false,
                &["oifname lo"],
            ),
        ] {
            assert_eq!(texts(iptables, v6).unwrap(), expected, "{iptables:?}");
            assert_eq!(texts(nft, v6).unwrap(), expected, "{nft:?}");
        }
    }

    #[test]
    fn alternatives_multiply() {
        let list = ["ip saddr {10.0.0.1, 10.0.0.2} iifname { a, b }"];
        let expected = [
            "saddr 10.0.0.1/32 and iifname a",
            "saddr 10.0.0.1/32 and iifname b",
            "saddr 10.0.0.2/32 and iifname a",
            "saddr 10.0.0.2/32 and iifname b",
        ];
        assert_eq!(texts(&list, false).unwrap(), expected);
    }

    #[test]
    fn no_conditions_are_one_empty_list() {
        assert_eq!(parse("conditionsV4", None, false).unwrap(), [Vec::new()]);
        assert_eq!(texts(&[], false).unwrap(), [""]);
        assert_eq!(texts(&[""], false).unwrap(), [""]);
    }

    #[test]
    fn what_cannot_be_expressed_is_refused_by_name() {
        for (list, v6, word) in [
            (&["-m", "set", "--match-set", "x", "src"][..], false, "match \"set\""),
            (&["--limit", "5/s"], false, "\"--limit\""),
            (&["-s"], false, "-s without a value"),
            (&["-s", "fd00::1"], false, "other family"),
            (&["-d", "10.0.0.1"], true, "other family"),
            (&["-s", "node1"], false, "\"node1\" is neither"),
            (&["!", "-m", "mark"], false, "\"-m\""),
            (&["-s", "10.0.0.1", "!"], false, "exclamation mark"),
            (&["-i", "a/b"], false, "\"a/b\""),
            (&["ct state new"], false, "\"ct\""),
            (&["ip", "dscp", "4"], false, "\"ip dscp\""),
            (&["ip saddr @allowed"], false, "\"@allowed\""),
            (&["ip saddr { 10.0.0.1"], false, "does not end"),
            (&["ip saddr {}"], false, "empty set"),
            (&["ip saddr"], false, "without a value"),
            (&["ip saddr 10.0.0.1-10.0.0.9"], false, "\"10.0.0.1-10.0.0.9\""),
            (&["tcp sport 9-1"], false, "\"9-1\""),
            (&["meta mark high"], false, "\"high\""),
        ] {
            let error = texts(list, v6).unwrap_err();
            assert_eq!(error.code, code::UNSUPPORTED_FIELD, "{list:?}");
            let key = if v6 { "conditionsV6" } else { "conditionsV4" };
            assert!(error.msg.contains(word) && error.msg.contains(key), "{list:?}: {error}");
        }
    }
}
