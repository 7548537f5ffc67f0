//! Packets that the kernel drops, with its reasons (the tracepoint `skb:kfree_skb`, since Linux 5.17).
//!
//! The tracepoint says nothing of namespaces or contents, so a drop is told by its time and EtherType. Nothing is left
//! anywhere: the samples go with the process's descriptors, and tracefs, which tells how a sample is laid out, is mounted
//! where only a thread that ends sees it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};

use crate::error::{Cause, Result};
use crate::sys::Ring;

/// Where the kernel has a directory to mount tracefs on.
const TRACEFS: &str = "/sys/kernel/tracing";

/// A packet that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// When, in nanoseconds since 1970.
    pub stamp_ns: u64,
    /// Its EtherType.
    pub ether_type: u16,
    /// The kernel's word: `NETFILTER_DROP`, `IP_RPFILTER`; the number where it has none.
    pub reason: String,
}

/// Listens to drops on all processors.
#[derive(Debug)]
pub struct Drops {
    rings: Vec<Ring>,
    layout: &'static Layout,
}

/// How a sample is laid out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Layout {
    tracepoint: u64,
    protocol: usize,
    reason: usize,
    words: HashMap<u32, String>,
}

impl Drops {
    /// Listens from now on. An error where the kernel has no such tracepoint, or this process may not listen.
    pub fn open() -> Result<Drops> {
        let open = || -> std::result::Result<Drops, Cause> {
            let layout = known_layout()?;
            let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
            let rings = processors(&online).into_iter().map(|cpu| Ring::open(layout.tracepoint, cpu));
            Ok(Drops { rings: rings.collect::<std::io::Result<_>>()?, layout })
        };
        open().map_err(|c| c.about("listen to dropped packets"))
    }

    /// The drops since the last call, in order of time.
    pub fn read(&mut self) -> Result<Vec<Dropped>> {
        let monotonic =
            clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|e| Cause::from(e).about("read the clock"))?;
        let monotonic = monotonic.tv_sec() as u64 * 1_000_000_000 + monotonic.tv_nsec() as u64;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
        let ahead = now.saturating_sub(monotonic);
        let layout = self.layout;
        let samples = self.rings.iter_mut().flat_map(Ring::samples);
        let dropped = |(time, raw): (u64, Vec<u8>)| {
            let bytes = |at: usize, len: usize| raw.get(at..at + len);
            let ether_type = bytes(layout.protocol, 2).map(|b| u16::from_ne_bytes([b[0], b[1]]))?;
            let number = bytes(layout.reason, 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))?;
            let reason = layout.words.get(&number).cloned().unwrap_or_else(|| format!("reason {number}"));
            Some(Dropped { stamp_ns: time + ahead, ether_type, reason })
        };
        let mut all: Vec<Dropped> = samples.filter_map(dropped).collect();
        all.sort_by_key(|dropped| dropped.stamp_ns);
        Ok(all)
    }
}

/// The layout, which is read once: it is the same for as long as the kernel runs.
fn known_layout() -> std::io::Result<&'static Layout> {
    static KNOWN: OnceLock<Layout> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known);
    }
    let read = std::thread::scope(|scope| scope.spawn(layout).join())
        .unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))?;
    Ok(KNOWN.get_or_init(|| read))
}

/// Reads the layout. The calling thread has a mount namespace of its own afterwards, so it is one that ends.
fn layout() -> std::io::Result<Layout> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none)?;
    let format = fs::read_to_string(Path::new(TRACEFS).join("events/skb/kfree_skb/format"))?;
    parse(&format)
        .ok_or_else(|| std::io::Error::other("the tracepoint skb:kfree_skb is laid out in another way"))
}

/// The tracepoint's number, where its fields are, and what its reasons are called.
fn parse(format: &str) -> Option<Layout> {
    let number =
        |text: &str, key: &str| text.split_once(key)?.1.split(';').next()?.trim().parse::<usize>().ok();
    let field = |name: &str| {
        let end = format!(" {name};");
        let line = format.lines().find(|line| line.contains("field:") && line.contains(&end))?;
        number(line, "offset:")
    };
    let id = format.lines().find_map(|line| line.strip_prefix("ID: "))?;
    let mut layout = Layout {
        tracepoint: id.trim().parse().ok()?,
        protocol: field("protocol")?,
        reason: field("reason")?,
        words: HashMap::new(),
    };
    // `{ 12, "NETFILTER_DROP" }`
    for part in format.split('{').skip(1) {
        let Some((number, rest)) = part.split_once(',') else { continue };
        let word = rest.trim().strip_prefix('"').and_then(|rest| rest.split_once('"'));
        if let (Ok(number), Some((word, _))) = (number.trim().parse(), word) {
            layout.words.insert(number, word.to_owned());
        }
    }
    (!layout.words.is_empty()).then_some(layout)
}

/// `0-3,8` as numbers.
fn processors(online: &str) -> Vec<i32> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    online.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_read_from_the_tracepoints_format() {
        let format = "name: kfree_skb\nID: 2310\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:unsigned short protocol;\toffset:32;\tsize:2;\tsigned:0;\n\
            \tfield:enum skb_drop_reason reason;\toffset:36;\tsize:4;\tsigned:0;\n\n\
            print fmt: \"reason: %s\", __print_symbolic(REC->reason, { 2, \"NOT_SPECIFIED\" }, { 12, \"NETFILTER_DROP\" })\n";
        let layout = parse(format).unwrap();
        assert_eq!((layout.tracepoint, layout.protocol, layout.reason), (2310, 32, 36));
        assert_eq!(layout.words[&12], "NETFILTER_DROP");
        assert_eq!(parse(&format.replace(" reason;", " why;")), None);
    }

    #[test]
    fn processors_are_numbers_and_ranges() {
        assert_eq!(processors("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(processors("0\n"), [0]);
    }
}
