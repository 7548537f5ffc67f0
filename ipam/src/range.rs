//! Ranges: a configuration as written ([`RangeConf`]) becomes a complete and checked one ([`Range`], [`RangeSet`]).
//!
//! Pure arithmetic with the reference plugin's defaults, checks and sentences (`host-local`, package `allocator`). It
//! reads no file and does not know which addresses are reserved.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::{Error, Result};

/// One range as a configuration gives it: `subnet`, `rangeStart`, `rangeEnd`, `gateway`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeConf {
    /// The subnet; host bits are kept by the parser so that they can be refused here.
    pub subnet: IpNetwork,
    /// The first address; network + 1 unless given.
    pub range_start: Option<IpAddr>,
    /// The last address; broadcast - 1 (IPv4) or all ones (IPv6) unless given.
    pub range_end: Option<IpAddr>,
    /// The gateway; network + 1 unless given. It may lie outside the range and the subnet.
    pub gateway: Option<IpAddr>,
}

/// A complete range: first and last address lie in the subnet, in this order, and there is a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    subnet: IpNetwork,
    first: IpAddr,
    last: IpAddr,
    gateway: IpAddr,
}

impl Range {
    /// Completes and checks one range.
    ///
    /// # Errors
    /// The first of the reference's sentences that applies: [`Error::TooSmall`], [`Error::Mapped`],
    /// [`Error::HostBits`], [`Error::StartOutside`] (also for a start behind the end), [`Error::EndOutside`].
    pub fn resolve(conf: &RangeConf) -> Result<Range> {
        let subnet = conf.subnet;
        let written = written(subnet);
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > bits - 2 {
            return Err(Error::TooSmall { subnet: written });
        }
        if canonical(subnet.ip()) != subnet.ip() {
            return Err(Error::Mapped);
        }
        if subnet.ip() != subnet.network() {
            return Err(Error::HostBits { prefix: subnet.prefix(), network: subnet.network() });
        }
        let v6 = subnet.is_ipv6();
        let (network, all_ones) = (number(subnet.network()), number(subnet.broadcast()));
        let first = conf.range_start.map_or(address(network + 1, v6), canonical);
        let last = conf.range_end.map_or(address(if v6 { all_ones } else { all_ones - 1 }, v6), canonical);
        let gateway = conf.gateway.map_or(address(network + 1, v6), canonical);
        if conf.range_start.is_some() {
            let behind = conf.range_end.is_some() && number(first) > number(last);
            if !subnet.contains(first) || behind {
                return Err(Error::StartOutside { address: first, subnet: written });
            }
        }
        if !subnet.contains(last) || number(last) < number(first) {
            return Err(Error::EndOutside { address: last, subnet: written });
        }
        Ok(Range { subnet, first, last, gateway })
    }

    /// The subnet, whose prefix length an allocated address gets.
    pub fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// The first address that may be handed out.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address that may be handed out.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The gateway, which is never handed out.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Whether the address lies between the first and the last one.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        ip.is_ipv6() == self.first.is_ipv6() && (number(self.first)..=number(self.last)).contains(&number(ip))
    }

    /// Whether an address lies in both ranges.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// An address of the range with the subnet's prefix length.
    pub(crate) fn with_prefix(&self, ip: IpAddr) -> IpNetwork {
        IpNetwork::new(ip, self.subnet.prefix())
            .expect("a prefix that the subnet has, in the subnet's family")
    }

    /// How many addresses there are from first to last, the gateway included (2¹²⁸ is given as 2¹²⁸ - 1).
    pub(crate) fn len(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A pool of ranges of one family that do not overlap; an attachment gets one address from each set.
///
/// Shown as the reference does, `a-b,c-d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// Completes and checks one set.
    ///
    /// # Errors
    /// [`Error::EmptySet`], what [`Range::resolve`] says, [`Error::MixedFamilies`], [`Error::RangesOverlap`].
    pub fn resolve(confs: &[RangeConf]) -> Result<RangeSet> {
        let mut ranges: Vec<Range> = Vec::with_capacity(confs.len());
        for conf in confs {
            let range = Range::resolve(conf)?;
            if ranges.first().is_some_and(|one| one.first.is_ipv6() != range.first.is_ipv6()) {
                return Err(Error::MixedFamilies);
            }
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Err(Error::EmptySet);
        }
        for (i, first) in ranges.iter().enumerate() {
            if let Some(second) = ranges[i + 1..].iter().find(|other| first.overlaps(other)) {
                return Err(Error::RangesOverlap { first: first.to_string(), second: second.to_string() });
            }
        }
        Ok(RangeSet(ranges))
    }

    /// Completes and checks all sets of a configuration.
    ///
    /// # Errors
    /// [`Error::NoRanges`], [`Error::InvalidSet`] around what [`RangeSet::resolve`] says, [`Error::SetsOverlap`].
    pub fn resolve_all(sets: &[Vec<RangeConf>]) -> Result<Vec<RangeSet>> {
        if sets.is_empty() {
            return Err(Error::NoRanges);
        }
        let sets = sets
            .iter()
            .enumerate()
            .map(|(index, confs)| {
                RangeSet::resolve(confs)
                    .map_err(|source| Error::InvalidSet { index, source: Box::new(source) })
            })
            .collect::<Result<Vec<_>>>()?;
        check_disjoint(&sets)?;
        Ok(sets)
    }

    /// The ranges, at least one, in the order of the configuration.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Whether the set is of IPv6 addresses.
    pub fn is_ipv6(&self) -> bool {
        self.0[0].first.is_ipv6()
    }

    /// Whether one of the ranges has the address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.range_of(ip).is_some()
    }

    /// The range that has the address.
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    /// Whether the address is the gateway of one of the ranges.
    pub fn is_gateway(&self, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        self.0.iter().any(|range| range.gateway == ip)
    }

    /// Whether the sets share an address.
    pub fn overlaps(&self, other: &RangeSet) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|another| range.overlaps(another)))
    }

    /// How many addresses the set can hand out: all of its ranges but the gateways (2¹²⁸ is given as 2¹²⁸ - 1).
    pub fn capacity(&self) -> u128 {
        let mut gateways: Vec<IpAddr> =
            self.0.iter().map(|range| range.gateway).filter(|gateway| self.contains(*gateway)).collect();
        gateways.sort_unstable();
        gateways.dedup();
        self.0.iter().fold(0, |sum: u128, range| sum.saturating_add(range.len())) - gateways.len() as u128
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Refuses sets that share an address.
///
/// # Errors
/// [`Error::SetsOverlap`] with the indices of the first such pair.
pub fn check_disjoint(sets: &[RangeSet]) -> Result<()> {
    for (first, set) in sets.iter().enumerate() {
        if let Some(distance) = sets[first + 1..].iter().position(|other| set.overlaps(other)) {
            return Err(Error::SetsOverlap { first, second: first + 1 + distance });
        }
    }
    Ok(())
}

/// The address in its own family: an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) as the IPv4 one.
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The subnet as the reference prints it: host bits kept, an IPv4-mapped one as IPv4.
fn written(subnet: IpNetwork) -> String {
    match canonical(subnet.ip()) {
        IpAddr::V4(ip) if subnet.is_ipv6() && subnet.prefix() >= 96 => {
            format!("{ip}/{}", subnet.prefix() - 96)
        }
        _ => subnet.to_string(),
    }
}

/// The address as a number, within its family.
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address of a number; for IPv4 the number must be below 2³².
pub(crate) fn address(number: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from_bits(number).into() } else { Ipv4Addr::from_bits(number as u32).into() }
}
