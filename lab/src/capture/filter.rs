//! Which packets of a capture are wanted, in the words that tcpdump taught everybody: `icmp and host kubia-1`.
//!
//! A part of pcap-filter(7), looked at after decoding and not in the kernel: so a name of the lab is a host, and a packet
//! in a tunnel is found by its own addresses and by those of the nodes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::encap::Seal;
use crate::packet::{Content, Ip, Packet, Transport};

/// The words, for help and errors.
pub const WORDS: &str = "arp, ip, ip6, tcp, udp, icmp, vxlan, esp, [src|dst] host NAME|ADDRESS, [src|dst] net CIDR, \
                         [src|dst] port NUMBER, and, or, not, ( )";

/// A condition on packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every packet.
    All,
    /// By kind.
    Is(Kind),
    /// An address of the packet, or of what is around it, is in one of these.
    Address(Side, Vec<IpNetwork>),
    /// A port of the packet, or of what is around it.
    Port(Side, u16),
    /// Not this.
    Not(Box<Filter>),
    /// Both.
    And(Box<Filter>, Box<Filter>),
    /// One of them at least.
    Or(Box<Filter>, Box<Filter>),
}

/// Kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ARP.
    Arp,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP of either version.
    Icmp,
    /// In a VXLAN tunnel.
    Vxlan,
    /// Encrypted.
    Esp,
}

/// Which of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The source.
    Source,
    /// The destination.
    Target,
    /// One of them at least.
    Either,
}

impl Side {
    fn holds(self, source: impl FnOnce() -> bool, target: impl FnOnce() -> bool) -> bool {
        match self {
            Side::Source => source(),
            Side::Target => target(),
            Side::Either => source() || target(),
        }
    }
}

impl Filter {
    /// From the words; `names` are the addresses that a name of the lab has. No words mean every packet.
    ///
    /// # Errors
    /// The word that is not understood, and which there are.
    pub fn parse(text: &str, names: &[(IpAddr, String)]) -> Result<Filter, String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, names };
        if parser.words.is_empty() {
            return Ok(Filter::All);
        }
        let filter = parser.either()?;
        match parser.next() {
            None => Ok(filter),
            Some(word) => Err(parser.strange(word)),
        }
    }

    /// The packet is wanted.
    pub fn holds(&self, packet: &Packet) -> bool {
        match self {
            Filter::All => true,
            Filter::Is(kind) => kind.holds(packet),
            Filter::Address(side, nets) => {
                let within = |ip: IpAddr| nets.iter().any(|net| net.contains(ip));
                let outer = packet.outer.is_some_and(|outer| {
                    side.holds(|| within(outer.source.ip()), || within(outer.target.ip()))
                });
                outer
                    || match &packet.content {
                        Content::Ip(ip) => side.holds(|| within(ip.source), || within(ip.target)),
                        Content::Arp(arp) => {
                            side.holds(|| within(arp.sender.into()), || within(arp.target.into()))
                        }
                        Content::Other(_) => false,
                    }
            }
            Filter::Port(side, port) => {
                let outer = packet.outer.is_some_and(|outer| {
                    side.holds(|| outer.source.port() == *port, || outer.target.port() == *port)
                });
                // Port 0 is the want of one.
                let of = |ip: &Ip| side.holds(|| ip.from().port() == *port, || ip.to().port() == *port);
                outer || *port != 0 && packet.ip().is_some_and(of)
            }
            Filter::Not(inner) => !inner.holds(packet),
            Filter::And(a, b) => a.holds(packet) && b.holds(packet),
            Filter::Or(a, b) => a.holds(packet) || b.holds(packet),
        }
    }
}

impl Kind {
    fn of(word: &str) -> Option<Kind> {
        Some(match word {
            "arp" => Kind::Arp,
            "ip" => Kind::Ip,
            "ip6" => Kind::Ip6,
            "tcp" => Kind::Tcp,
            "udp" => Kind::Udp,
            "icmp" => Kind::Icmp,
            "vxlan" => Kind::Vxlan,
            "esp" => Kind::Esp,
            _ => return None,
        })
    }

    fn holds(self, packet: &Packet) -> bool {
        let ip = packet.ip();
        let carries = |is: fn(&Transport) -> bool| ip.is_some_and(|ip| is(&ip.transport));
        match self {
            Kind::Arp => matches!(packet.content, Content::Arp(_)),
            Kind::Ip => ip.is_some_and(|ip| ip.source.is_ipv4()),
            Kind::Ip6 => ip.is_some_and(|ip| ip.source.is_ipv6()),
            Kind::Tcp => carries(|t| matches!(t, Transport::Tcp(_))),
            Kind::Udp => carries(|t| matches!(t, Transport::Udp { .. })),
            Kind::Icmp => carries(|t| matches!(t, Transport::Icmp { .. })),
            Kind::Vxlan => packet.outer.is_some(),
            Kind::Esp => ip.is_some_and(|ip| Seal::of(ip).is_some()),
        }
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    names: &'a [(IpAddr, String)],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    fn took(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.at += usize::from(is);
        is
    }

    fn strange(&self, word: &str) -> String {
        format!("filter: {word:?} is not understood · there are: {WORDS}")
    }

    fn either(&mut self) -> Result<Filter, String> {
        let mut filter = self.both()?;
        while self.took("or") {
            filter = Filter::Or(Box::new(filter), Box::new(self.both()?));
        }
        Ok(filter)
    }

    fn both(&mut self) -> Result<Filter, String> {
        let mut filter = self.one()?;
        while self.took("and") {
            filter = Filter::And(Box::new(filter), Box::new(self.one()?));
        }
        Ok(filter)
    }

    fn one(&mut self) -> Result<Filter, String> {
        let Some(word) = self.next() else { return Err("filter: something is missing at its end".into()) };
        let (side, word) = match word {
            "not" => return Ok(Filter::Not(Box::new(self.one()?))),
            "(" => {
                let inner = self.either()?;
                return if self.took(")") {
                    Ok(inner)
                } else {
                    Err("filter: a bracket is not closed".into())
                };
            }
            "src" => (Side::Source, self.next()),
            "dst" => (Side::Target, self.next()),
            word => (Side::Either, Some(word)),
        };
        let value = |parser: &mut Self, what: &str| {
            parser.next().ok_or_else(|| format!("filter: {what} is missing at its end"))
        };
        match word {
            Some("host") => {
                let name = value(self, "a host")?;
                Ok(Filter::Address(side, self.host(name)?))
            }
            Some("net") => {
                let text = value(self, "a network")?;
                let net = text
                    .parse()
                    .map_err(|_| format!("filter: {text:?} is no network, such as 10.244.0.0/16"))?;
                Ok(Filter::Address(side, vec![net]))
            }
            Some("port") => {
                let text = value(self, "a port")?;
                let port = text.parse().map_err(|_| format!("filter: {text:?} is no port"))?;
                Ok(Filter::Port(side, port))
            }
            Some(word) => match (side, Kind::of(word)) {
                (Side::Either, Some(kind)) => Ok(Filter::Is(kind)),
                _ => Err(self.strange(word)),
            },
            None => Err("filter: host, net or port is missing at its end".into()),
        }
    }

    fn host(&self, name: &str) -> Result<Vec<IpNetwork>, String> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![address.into()]);
        }
        let of_name = self.names.iter().filter(|(_, known)| known == name);
        let addresses: Vec<IpNetwork> = of_name.map(|(address, _)| (*address).into()).collect();
        if addresses.is_empty() {
            return Err(format!("filter: {name:?} is no address, and no pod or node of the lab"));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encap::Outer;
    use crate::sighting::tests::seen;

    fn names() -> Vec<(IpAddr, String)> {
        vec![([10, 244, 1, 2].into(), "kubia-1".into()), ([10, 244, 2, 2].into(), "kubia-3".into())]
    }

    fn holds(text: &str) -> bool {
        let packet = seen("node1/eth0 out", 1, "10.244.1.2:40000", "10.244.2.2:8080", 63, "x").packet;
        Filter::parse(text, &names()).unwrap().holds(&packet)
    }

    #[test]
    fn words_are_conditions() {
        for (text, expected) in [
            ("", true),
            ("tcp", true),
            ("udp or icmp or arp or ip6 or vxlan or esp", false),
            ("ip and host kubia-1", true),
            ("src host kubia-3", false),
            ("dst host kubia-3", true),
            ("host 10.244.9.9", false),
            ("net 10.244.0.0/16", true),
            ("src net 10.244.2.0/24", false),
            ("port 8080", true),
            ("src port 8080", false),
            ("not port 8080", false),
            ("not (udp or port 53) and dst port 8080", true),
            ("udp or tcp and port 8080", true),
            ("(udp or tcp) and port 1", false),
        ] {
            assert_eq!(holds(text), expected, "{text}");
        }
    }

    #[test]
    fn packet_in_a_tunnel_is_found_by_both_headers() {
        let mut packet = seen("node1/eth0 out", 1, "10.244.1.2:40000", "10.244.2.2:8080", 63, "x").packet;
        let (source, target) = ("192.0.2.11:50000".parse().unwrap(), "192.0.2.12:8472".parse().unwrap());
        packet.outer = Some(Outer { vni: 1, source, target, overhead: 50 });
        for text in ["vxlan", "host 192.0.2.12", "host kubia-1", "port 8472", "dst port 8080"] {
            assert!(Filter::parse(text, &names()).unwrap().holds(&packet), "{text}");
        }
        assert!(!Filter::parse("src host 192.0.2.12", &names()).unwrap().holds(&packet));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, words) in [
            ("bogus", "\"bogus\" is not understood · there are: arp, "),
            ("tcp udp", "\"udp\" is not understood"),
            ("src tcp", "\"tcp\" is not understood"),
            ("host nobody", "\"nobody\" is no address, and no pod or node"),
            ("net 10.0.0.0/33", "\"10.0.0.0/33\" is no network"),
            ("port http", "\"http\" is no port"),
            ("(tcp", "a bracket is not closed"),
            ("tcp and", "something is missing"),
            ("src", "host, net or port is missing"),
            ("port", "a port is missing"),
        ] {
            let refused = Filter::parse(text, &names()).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
