//! One direction's limit: the numbers, and the qdiscs, classes and filters that hold it.
//!
//! Without subnets it is the reference's token bucket, number by number. With subnets it is an htb: a class of
//! the same rate, bucket and queue for what is shaped, and one without a limit worth the name for the rest.

use ipnetwork::IpNetwork;
use kernel::Rtnl;
use kernel::tc::{self, Address, Class, Filter, Kind, Qdisc, ROOT, Tbf, Word};

/// The handle of the link's own qdisc.
const HANDLE: u32 = tc::handle(1, 0);
/// Minor numbers of the classes, as in the version of the reference that had them.
const SHAPED: u16 = 0x30;
const UNSHAPED: u16 = 1;
/// Bytes per second of the class that is not to be limited.
const UNLIMITED: u64 = 100_000_000_000;
/// Its bucket in microseconds, and its queue in packets.
const UNLIMITED_MICROS: u64 = 1000;
const UNLIMITED_PACKETS: u32 = 1000;
/// Filters of the two protocols cannot share a priority.
const PRIORITY_V6: u16 = 15;
const PRIORITY_V4: u16 = 16;

/// Whose traffic is limited, by the address at the other end.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Subnets {
    /// All of it.
    All,
    /// That with these.
    Only(Vec<IpNetwork>),
    /// That with all but these.
    Except(Vec<IpNetwork>),
}

/// The limit of one direction.
#[derive(Clone, Debug)]
pub(super) struct Shaper {
    tbf: Tbf,
    subnets: Subnets,
}

/// All that stands on a link for a limit.
#[derive(Debug, PartialEq)]
pub(super) struct Parts {
    pub(super) root: Qdisc,
    pub(super) classes: Vec<Class>,
    pub(super) leaves: Vec<Qdisc>,
    pub(super) filters: Vec<Filter>,
}

impl Shaper {
    /// A limit of `rate` bytes a second with a bucket of `burst` bytes, behind which packets wait `latency`
    /// milliseconds at most.
    ///
    /// The kernel counts a bucket in ticks; the reference's number wraps around at 32 bits (275 s of the
    /// rate), this one stops there.
    pub(super) fn new(rate: u64, burst: u32, latency: u64, subnets: Subnets) -> Self {
        let micros = u64::from(burst) * 1_000_000 / rate;
        let waiting = u128::from(rate) * u128::from(latency) / 1000;
        let limit = u32::try_from(waiting).unwrap_or(u32::MAX).saturating_add(burst);
        Self { tbf: Tbf { rate, limit, buffer: tc::ticks(micros) }, subnets }
    }

    /// Any one, to try what the kernel has.
    pub(super) fn usual() -> Self {
        Self::new(125_000, 125_000, 25, Subnets::All)
    }

    /// Bytes a second.
    #[cfg(test)]
    pub(super) fn rate(&self) -> u64 {
        self.tbf.rate
    }

    /// Whether only some traffic is limited.
    pub(super) fn has_subnets(&self) -> bool {
        self.subnets != Subnets::All
    }

    /// Puts all of it on a link.
    pub(super) fn apply(&self, rtnl: &mut Rtnl, index: u32, remote: Address) -> kernel::Result<()> {
        self.begin(rtnl, index)?;
        self.complete(rtnl, index, remote)
    }

    /// Puts the link's own qdisc there, which is all there is without subnets.
    pub(super) fn begin(&self, rtnl: &mut Rtnl, index: u32) -> kernel::Result<()> {
        tc::add_qdisc(rtnl, &self.parts(index, Address::Source).root)
    }

    /// Puts the rest below it. Filters come last: before them nothing goes to the class that they name.
    pub(super) fn complete(&self, rtnl: &mut Rtnl, index: u32, remote: Address) -> kernel::Result<()> {
        let parts = self.parts(index, remote);
        parts.classes.iter().try_for_each(|class| tc::add_class(rtnl, class))?;
        parts.leaves.iter().try_for_each(|leaf| tc::add_qdisc(rtnl, leaf))?;
        parts.filters.iter().try_for_each(|filter| tc::add_filter(rtnl, filter))
    }

    /// What stands on the link `index`, whose packets have the other end as `remote`.
    pub(super) fn parts(&self, index: u32, remote: Address) -> Parts {
        let root = |kind| Qdisc { index, handle: HANDLE, parent: ROOT, kind };
        let (nets, theirs, default) = match &self.subnets {
            Subnets::All => {
                let root = root(Kind::Tbf(self.tbf));
                return Parts { root, classes: vec![], leaves: vec![], filters: vec![] };
            }
            Subnets::Only(nets) => (nets, SHAPED, UNSHAPED),
            Subnets::Except(nets) => (nets, UNSHAPED, SHAPED),
        };
        let class =
            |minor, rate, buffer| Class { index, handle: tc::handle(1, minor), parent: HANDLE, rate, buffer };
        let leaf = |minor, kind| Qdisc {
            index,
            handle: tc::handle(minor, 0) + HANDLE,
            parent: tc::handle(1, minor),
            kind,
        };
        let filter = |net: &IpNetwork| Filter {
            index,
            parent: HANDLE,
            priority: if net.is_ipv4() { PRIORITY_V4 } else { PRIORITY_V6 },
            protocol: if net.is_ipv4() { tc::PROTOCOL_IPV4 } else { tc::PROTOCOL_IPV6 },
            words: Word::of_net(*net, remote),
            class: tc::handle(1, theirs),
            redirect: None,
        };
        Parts {
            root: root(Kind::Htb { default: default.into() }),
            classes: vec![
                class(UNSHAPED, UNLIMITED, tc::ticks(UNLIMITED_MICROS)),
                class(SHAPED, self.tbf.rate, self.tbf.buffer),
            ],
            leaves: vec![
                leaf(UNSHAPED, Kind::Pfifo { limit: UNLIMITED_PACKETS }),
                leaf(SHAPED, Kind::Bfifo { limit: self.tbf.limit }),
            ],
            filters: nets.iter().map(filter).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_references() {
        let tbf = |rate, burst| Shaper::new(rate, burst, 25, Subnets::All).tbf;
        // Rate and burst of the reference's own tests, in bytes.
        assert_eq!(tbf(1, 1), Tbf { rate: 1, limit: 1, buffer: 15_625_000 });
        assert_eq!(tbf(2, 1), Tbf { rate: 2, limit: 1, buffer: 7_812_500 });
        assert_eq!(tbf(125_000, 125_000), Tbf { rate: 125_000, limit: 128_125, buffer: 15_625_000 });
        assert_eq!(tbf(3, 1), Tbf { rate: 3, limit: 1, buffer: 5_208_328 });
        // containerd's burst: 4295 s at 1 Mbit/s.
        assert_eq!(tbf(125_000, 536_870_911).buffer, u32::MAX);
        assert_eq!(
            tbf(12_500_000, 536_870_911),
            Tbf { rate: 12_500_000, limit: 312_500 + 536_870_911, buffer: 671_088_625 }
        );
        assert_eq!(tbf(u64::MAX / 8, u32::MAX - 1).limit, u32::MAX);
    }

    #[test]
    fn subnets_split_the_traffic_in_two_classes() {
        let nets = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let only = Shaper::new(1000, 2000, 25, Subnets::Only(nets.clone())).parts(7, Address::Destination);
        assert_eq!(only.root.kind, Kind::Htb { default: 1 });
        assert!(only.filters.iter().all(|filter| filter.class == tc::handle(1, 0x30)));
        assert_eq!(only.classes[1].rate, 1000);
        assert_eq!(only.leaves[1].kind, Kind::Bfifo { limit: 2025 });
        let except = Shaper::new(1000, 2000, 25, Subnets::Except(nets)).parts(7, Address::Source);
        assert_eq!(except.root.kind, Kind::Htb { default: 0x30 });
        let filters: Vec<_> =
            except.filters.iter().map(|f| (f.priority, f.protocol, f.class, f.words[0].offset)).collect();
        assert_eq!(filters, [(16, 0x0800, 0x1_0001, 12), (15, 0x86dd, 0x1_0001, 8)]);
    }
}
