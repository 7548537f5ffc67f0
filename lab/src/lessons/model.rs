//! What a lesson is, once its file has been read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::topology::{Topology, Written};

/// A language that lessons are written in. Each lesson is there in all of them.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Korean.
    Ko,
}

impl Lang {
    /// All of them.
    pub const ALL: [Lang; 2] = [Lang::En, Lang::Ko];

    /// Its code of ISO 639-1.
    pub fn code(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Ko => "ko",
        }
    }

    /// That of the locale (LC_ALL, LC_MESSAGES, LANG), English where there is no other.
    pub fn of_locale() -> Lang {
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .unwrap_or_default();
        if locale.starts_with("ko") { Lang::Ko } else { Lang::En }
    }

    /// One of two sentences.
    pub fn say<'s>(self, english: &'s str, korean: &'s str) -> &'s str {
        match self {
            Lang::En => english,
            Lang::Ko => korean,
        }
    }
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A kind of block, in the order in which they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What is learned.
    Goal,
    /// What to type, in a lab that is whole.
    Commands,
    /// What is seen.
    Observed,
    /// What it rests on.
    Evidence,
    /// What is broken, and how that shows.
    Break,
    /// When it is repaired.
    Check,
    /// Steps towards the repair.
    Hints,
    /// The repair.
    Solution,
    /// What else is worth knowing.
    Note,
}

impl Kind {
    /// Each with its heading in English and in Korean.
    pub const ALL: [(Kind, &'static str, &'static str); 9] = [
        (Kind::Goal, "Goal", "목표"),
        (Kind::Commands, "Commands", "명령"),
        (Kind::Observed, "What is observed", "관찰"),
        (Kind::Evidence, "Evidence", "증거"),
        (Kind::Break, "Break it", "고장 내기"),
        (Kind::Check, "Automatic check", "자동 확인"),
        (Kind::Hints, "Hints", "힌트"),
        (Kind::Solution, "Solution", "해결"),
        (Kind::Note, "Good to know", "알아 두기"),
    ];

    /// Its heading in a language.
    pub fn heading(self, lang: Lang) -> &'static str {
        let found = Self::ALL.iter().find(|(kind, ..)| *kind == self);
        found.map_or("", |(_, english, korean)| lang.say(english, korean))
    }

    /// A lesson need not have one.
    pub fn is_optional(self) -> bool {
        self == Kind::Note
    }
}

/// Commands, and what has to come of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Where they stand in the file.
    #[serde(skip)]
    pub line: usize,
    /// The lines, for a shell.
    pub run: String,
    /// The exit code.
    #[serde(default)]
    pub exit: u8,
    /// Words that must be in what they print.
    #[serde(default)]
    pub words: Vec<String>,
    /// Words that must not.
    #[serde(default)]
    pub without: Vec<String>,
}

/// Something that is broken at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    /// A fault of the catalogue and what it is aimed at: `route-missing node1 node2`.
    pub fault: Option<String>,
    /// Or lines for a shell.
    pub run: Option<String>,
}

/// What has to be so for the lesson to be passed: exactly one of `verify`, `run` and `trace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// In words, for students.
    pub title: String,
    /// Checks of `podlab verify` in which nothing may be red.
    #[serde(default)]
    pub verify: Vec<String>,
    /// Lines for a shell.
    pub run: Option<String>,
    /// Their exit code, 0.
    #[serde(default)]
    pub exit: u8,
    /// Words that must be in what they print.
    #[serde(default)]
    pub words: Vec<String>,
    /// Words that must not.
    #[serde(default)]
    pub without: Vec<String>,
    /// A packet to follow.
    pub trace: Option<Trail>,
}

/// A packet to follow, and what its walk has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trail {
    /// Where it starts.
    pub from: String,
    /// Where it goes, with `:PORT` if it is not 8080.
    pub to: String,
    /// tcp, udp or icmp.
    #[serde(default = "tcp")]
    pub proto: String,
    /// Nothing may have rewritten addresses or ports, and an answer must have come.
    #[serde(default)]
    pub unchanged: bool,
    /// The TTL at the first and at the last sighting.
    pub ttl: Option<(u8, u8)>,
    /// At how many interfaces it must be seen at least.
    #[serde(default)]
    pub sightings: usize,
    /// Places `node1/eth0` that it must pass.
    #[serde(default)]
    pub passes: Vec<String>,
    /// Places, or whole namespaces, that it must not pass.
    #[serde(default)]
    pub avoids: Vec<String>,
}

fn tcp() -> String {
    "tcp".to_owned()
}

/// A piece of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Markdown: paragraphs, lists, emphasis.
    Text(String),
    /// Commands.
    Commands(Commands),
    /// What is broken.
    Breaks(Vec<Break>),
    /// What is checked.
    Checks(Vec<Check>),
    /// Code to read and not to run, with its language.
    Code(String, String),
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Which.
    pub kind: Kind,
    /// Where its heading is in the file.
    pub line: usize,
    /// What is in it.
    pub parts: Vec<Part>,
}

/// What stands before the first heading.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Front {
    pub(super) id: String,
    pub(super) number: u32,
    pub(super) title: String,
    pub(super) minutes: u32,
    #[serde(default)]
    pub(super) lab: Written,
    pub(super) network: Option<String>,
}

/// A lesson in one language.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// What it is called in commands: `no-nat`.
    pub id: String,
    /// Its place among the others, from 1 on.
    pub number: u32,
    /// Its language.
    pub lang: Lang,
    /// Its title.
    pub title: String,
    /// How long it takes.
    pub minutes: u32,
    /// The file that it was read from.
    pub file: String,
    /// The lab, as in a topology file.
    pub lab: Written,
    /// The lab's network configuration, where it is not the mode's own.
    pub network: Option<String>,
    /// Its blocks, in their order.
    pub blocks: Vec<Block>,
}

impl Lesson {
    /// The block of a kind.
    pub fn block(&self, kind: Kind) -> Option<&Block> {
        self.blocks.iter().find(|block| block.kind == kind)
    }

    fn parts(&self, kind: Kind) -> impl Iterator<Item = &Part> {
        self.block(kind).into_iter().flat_map(|block| &block.parts)
    }

    /// The commands of a block.
    pub fn commands(&self, kind: Kind) -> impl Iterator<Item = &Commands> {
        self.parts(kind).filter_map(|part| match part {
            Part::Commands(commands) => Some(commands),
            _ => None,
        })
    }

    /// What is broken at the start.
    pub fn breaks(&self) -> impl Iterator<Item = &Break> {
        self.parts(Kind::Break).flat_map(|part| match part {
            Part::Breaks(breaks) => breaks.as_slice(),
            _ => &[],
        })
    }

    /// What is checked.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.parts(Kind::Check).flat_map(|part| match part {
            Part::Checks(checks) => checks.as_slice(),
            _ => &[],
        })
    }

    /// The hints, the first one first: the numbered items of their block.
    pub fn hints(&self) -> Vec<String> {
        let mut hints: Vec<String> = Vec::new();
        for part in self.parts(Kind::Hints) {
            match (part, hints.last_mut()) {
                (Part::Text(text), _) => {
                    for line in text.lines() {
                        match (numbered(line), hints.last_mut()) {
                            (Some(rest), _) => hints.push(rest.to_owned()),
                            (None, Some(last)) => *last += &format!("\n{}", line.trim()),
                            (None, None) => {}
                        }
                    }
                }
                (Part::Commands(commands), Some(last)) => *last += &format!("\n\n{}", commands.run),
                _ => {}
            }
        }
        hints.iter().map(|hint| hint.trim().to_owned()).collect()
    }

    /// The lab that the lesson starts, under a name.
    ///
    /// # Errors
    /// What cannot be.
    pub fn topology(&self, name: &str) -> Result<Topology, Failure> {
        let named = Written { name: Some(name.to_owned()), ..Written::default() };
        let mut topology = self.lab.clone().overridden_by(named).resolve()?;
        if let Some(network) = &self.network {
            topology.cni_conf.clone_from(network);
            cni::runtime::Network::parse(topology.network(0).as_bytes())
                .map_err(|err| Failure::usage(format!("network: {err}")))?;
        }
        Ok(topology)
    }
}

/// `1. text`: the text.
fn numbered(line: &str) -> Option<&str> {
    let (number, rest) = line.split_once(". ")?;
    (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit())).then_some(rest)
}
