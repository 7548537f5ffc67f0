//! The configuration of `portmap`: as written, and resolved into the mappings with the pod's addresses.
//!
//! Keys and sentences are the reference's. Both of its backends are served by the same rules, so `backend`
//! decides nothing here but which of the two languages the conditions may be in.

use std::net::IpAddr;

use cni::{Call, CniResult, Error};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::conditions::{self, Match};

/// The bit of the packet mark that asks for masquerade when `markMasqBit` is absent. Kubernetes uses 14 and 15.
const MASQUERADE_BIT: i64 = 13;

/// IP protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    runtime_config: RuntimeConfig,
    backend: Option<String>,
    snat: Option<bool>,
    #[serde(rename = "conditionsV4")]
    conditions_v4: Option<Vec<String>>,
    #[serde(rename = "conditionsV6")]
    conditions_v6: Option<Vec<String>>,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeConfig {
    port_mappings: Vec<WrittenMapping>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenMapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mapping {
    pub(super) protocol: Protocol,
    pub(super) host_port: u16,
    pub(super) container_port: u16,
    pub(super) host_ip: HostIp,
}

/// Which of the node's addresses a mapping takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostIp {
    /// All, of both families.
    Any,
    /// All of one family: the unspecified address was given.
    AnyOf { v6: bool },
    /// This one.
    One(IpAddr),
}

impl HostIp {
    /// Whether the mapping is for this family.
    pub(super) fn is_for(self, v6: bool) -> bool {
        match self {
            HostIp::Any => true,
            HostIp::AnyOf { v6: own } => own == v6,
            HostIp::One(ip) => ip.is_ipv6() == v6,
        }
    }
}

/// A transport protocol with ports, by its IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Protocol(pub(super) u8);

impl Protocol {
    /// Conntrack flows of this protocol outlive the sockets on both sides.
    pub(super) fn is_udp(self) -> bool {
        self.0 == UDP
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let number = match name.to_ascii_lowercase().as_str() {
            "tcp" => TCP,
            "udp" => UDP,
            "dccp" => DCCP,
            "sctp" => SCTP,
            "udplite" => UDPLITE,
            _ => return None,
        };
        Some(Self(number))
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            TCP => f.write_str("tcp"),
            UDP => f.write_str("udp"),
            DCCP => f.write_str("dccp"),
            SCTP => f.write_str("sctp"),
            UDPLITE => f.write_str("udplite"),
            other => write!(f, "{other}"),
        }
    }
}

/// The configuration, complete.
#[derive(Debug)]
pub(super) struct PortmapConfig {
    /// What is mapped; empty: nothing is to be done.
    pub(super) mappings: Vec<Mapping>,
    /// Whether connections that would otherwise be answered past the node are masqueraded.
    pub(super) snat: bool,
    /// Whether all mapped connections are.
    pub(super) masquerade_all: bool,
    /// The bit of the packet mark from the mapping to the masquerade.
    pub(super) mark: u32,
    /// For IPv4 and IPv6: any of these lists, each of which holds together.
    pub(super) conditions: [Vec<Vec<Match>>; 2],
}

impl PortmapConfig {
    /// Makes a complete value of the configuration of `call`, or tells what is wrong with it.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 2 for a condition that cannot be expressed, 7 for the rest.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        if written.mark_masq_bit.is_some() && written.external_set_mark_chain.is_some() {
            return Err(Error::invalid("Cannot specify externalSetMarkChain and markMasqBit"));
        }
        let bit = written.mark_masq_bit.unwrap_or(MASQUERADE_BIT);
        if !(0..=31).contains(&bit) {
            return Err(Error::invalid("MasqMarkBit must be between 0 and 31"));
        }
        written.check_backend()?;
        let mappings = written.runtime_config.port_mappings.iter().map(WrittenMapping::resolve);
        Ok(Self {
            mappings: mappings.collect::<Result<_, _>>()?,
            snat: written.snat.unwrap_or(true),
            masquerade_all: written.masq_all,
            mark: 1 << bit,
            conditions: [
                conditions::parse("conditionsV4", written.conditions_v4.as_deref(), false)?,
                conditions::parse("conditionsV6", written.conditions_v6.as_deref(), true)?,
            ],
        })
    }

    /// The mappings that DEL is to forget. `None` when the configuration cannot be read: DEL goes by what
    /// it finds then.
    pub(super) fn for_del(call: &Call) -> Option<Vec<Mapping>> {
        let written: Written = call.conf_as().ok()?;
        written.runtime_config.port_mappings.iter().map(|one| one.resolve().ok()).collect()
    }

    /// The conditions of a family.
    pub(super) fn conditions(&self, v6: bool) -> &[Vec<Match>] {
        &self.conditions[usize::from(v6)]
    }
}

impl Written {
    /// Refuses a backend that is none, and options of one backend under the other's name.
    fn check_backend(&self) -> Result<(), Error> {
        let Some(backend) = self.backend.as_deref() else { return Ok(()) };
        let other = match backend {
            "iptables" => "nftables",
            "nftables" => "iptables",
            _ => return Err(Error::invalid(format!("unrecognized backend {backend:?}"))),
        };
        let mut foreign = Vec::new();
        if other == "iptables" && self.external_set_mark_chain.is_some() {
            foreign.push("externalSetMarkChain");
        }
        for (key, list) in [("conditionsV4", &self.conditions_v4), ("conditionsV6", &self.conditions_v6)] {
            let language = list.as_deref().and_then(conditions::language);
            if language.is_some_and(|language| language.backend() == other) {
                foreign.push(key);
            }
        }
        if foreign.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{backend} backend was requested but configuration contains {other}-specific options [{}]",
            foreign.join(" ")
        )))
    }
}

impl WrittenMapping {
    fn resolve(&self) -> Result<Mapping, Error> {
        let port = |side: &str, number: i64| match u16::try_from(number) {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(Error::invalid(format!("Invalid {side} port number: {number}"))),
        };
        let container_port = port("container", self.container_port)?;
        let host_port = port("host", self.host_port)?;
        let protocol = Protocol::parse(&self.protocol).ok_or_else(|| {
            Error::invalid(format!(
                "port mapping {host_port}: protocol {:?} is none of tcp, udp, sctp, dccp, udplite",
                self.protocol
            ))
        })?;
        Ok(Mapping { protocol, host_port, container_port, host_ip: self.host_ip()? })
    }

    fn host_ip(&self) -> Result<HostIp, Error> {
        if self.host_ip.is_empty() {
            return Ok(HostIp::Any);
        }
        let ip: IpAddr = self.host_ip.parse().map_err(|_| {
            Error::invalid(format!(
                "port mapping {}: hostIP {:?} is no address",
                self.host_port, self.host_ip
            ))
        })?;
        let ip = ip.to_canonical();
        Ok(if ip.is_unspecified() { HostIp::AnyOf { v6: ip.is_ipv6() } } else { HostIp::One(ip) })
    }
}

/// The pod's addresses among those of `result`: the first of each family that is not known to be of another
/// interface.
pub(super) fn pod_addresses(result: &CniResult, ifname: &str) -> [Option<IpNetwork>; 2] {
    let own = |ip: &&cni::IpConfig| {
        let interface = ip.interface.and_then(|index| result.interfaces.get(index));
        interface.is_none_or(|interface| interface.name == ifname && !interface.sandbox.is_empty())
    };
    [false, true].map(|v6| {
        let mut all = result.ips.iter().filter(own).map(|ip| ip.address);
        all.find(|address| address.is_ipv6() == v6)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str) -> Result<PortmapConfig, Error> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"portmap",{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        PortmapConfig::resolve(&Call::new(env, text.into_bytes()).unwrap())
    }

    fn mapped(mapping: &str) -> Result<Vec<Mapping>, Error> {
        let keys = format!(r#""runtimeConfig":{{"portMappings":[{mapping}]}}"#);
        resolve(&keys).map(|config| config.mappings)
    }

    #[test]
    fn capital_keys_of_containerd_are_read() {
        let keys = r#""RuntimeConfig":{"PortMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"TCP","HostIP":""}]}"#;
        let mapping =
            Mapping { protocol: Protocol(TCP), host_port: 8080, container_port: 80, host_ip: HostIp::Any };
        assert_eq!(resolve(keys).unwrap().mappings, [mapping]);
        let keys =
            r#""runtimeConfig":{"portmappings":[{"HOSTPORT":8080,"containerport":80,"PROTOCOL":"tcp"}]}"#;
        assert_eq!(resolve(keys).unwrap().mappings, [mapping]);
    }

    #[test]
    fn host_ip_chooses_the_family() {
        let of = |ip: &str| {
            let text = format!(r#"{{"hostPort":1,"containerPort":1,"protocol":"udp","hostIP":"{ip}"}}"#);
            mapped(&text).map(|all| all[0].host_ip)
        };
        for (text, expected, families) in [
            ("", HostIp::Any, [true, true]),
            ("0.0.0.0", HostIp::AnyOf { v6: false }, [true, false]),
            ("::", HostIp::AnyOf { v6: true }, [false, true]),
            ("10.0.0.1", HostIp::One("10.0.0.1".parse().unwrap()), [true, false]),
            ("::ffff:10.0.0.1", HostIp::One("10.0.0.1".parse().unwrap()), [true, false]),
            ("fd00::1", HostIp::One("fd00::1".parse().unwrap()), [false, true]),
        ] {
            let host_ip = of(text).unwrap();
            assert_eq!(host_ip, expected, "{text}");
            assert_eq!([host_ip.is_for(false), host_ip.is_for(true)], families, "{text}");
        }
        assert!(of("node1").unwrap_err().msg.contains("hostIP \"node1\" is no address"));
    }

    #[test]
    fn sentences_are_the_references() {
        let mapping = |host: i64, container: i64| {
            format!(
                r#""runtimeConfig":{{"portMappings":[{{"hostPort":{host},"containerPort":{container},"protocol":"tcp"}}]}}"#
            )
        };
        for (keys, sentence) in [
            (mapping(0, 80), "Invalid host port number: 0"),
            (mapping(-1, 80), "Invalid host port number: -1"),
            (mapping(65536, 80), "Invalid host port number: 65536"),
            (mapping(80, 0), "Invalid container port number: 0"),
            (r#""backend":"ipset""#.into(), "unrecognized backend \"ipset\""),
            (r#""backend":"""#.into(), "unrecognized backend \"\""),
            (r#""markMasqBit":32"#.into(), "MasqMarkBit must be between 0 and 31"),
            (r#""markMasqBit":-1"#.into(), "MasqMarkBit must be between 0 and 31"),
            (
                r#""markMasqBit":5,"externalSetMarkChain":"KUBE-MARK-MASQ""#.into(),
                "Cannot specify externalSetMarkChain and markMasqBit",
            ),
            (
                r#""backend":"iptables","conditionsV4":["ip saddr 10.0.0.1"]"#.into(),
                "iptables backend was requested but configuration contains nftables-specific options [conditionsV4]",
            ),
            (
                r#""backend":"nftables","externalSetMarkChain":"X","conditionsV4":["-s","10.0.0.1"],"conditionsV6":["!","-s","fd00::1"]"#
                    .into(),
                "nftables backend was requested but configuration contains iptables-specific options \
                 [externalSetMarkChain conditionsV4 conditionsV6]",
            ),
        ] {
            let error = resolve(&keys).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (7, sentence), "{keys}");
        }
    }

    #[test]
    fn every_backend_is_served() {
        for keys in [r#""backend":null"#, r#""backend":"iptables""#, r#""backend":"nftables""#] {
            let config = resolve(keys).unwrap();
            assert!(config.snat && !config.masquerade_all && config.mappings.is_empty());
            assert_eq!(config.mark, 0x2000);
        }
        assert!(!resolve(r#""snat":false"#).unwrap().snat);
        assert_eq!(resolve(r#""markMasqBit":31"#).unwrap().mark, 0x8000_0000);
        resolve(r#""externalSetMarkChain":"KUBE-MARK-MASQ","backend":"iptables""#).unwrap();
        assert!(mapped(r#"{"hostPort":1,"containerPort":1,"protocol":"icmp"}"#).is_err());
    }

    #[test]
    fn addresses_of_other_interfaces_are_not_the_pods() {
        let interface = |name: &str, sandbox: &str| cni::Interface {
            name: name.into(),
            sandbox: sandbox.into(),
            ..cni::Interface::default()
        };
        let ip = |interface: Option<usize>, address: &str| cni::IpConfig {
            interface,
            address: address.parse().unwrap(),
            gateway: None,
        };
        let mut result = CniResult {
            interfaces: vec![interface("cni0", ""), interface("eth1", "/ns"), interface("eth0", "/ns")],
            ips: vec![
                ip(Some(0), "10.0.0.1/24"),
                ip(Some(1), "10.0.1.1/24"),
                ip(Some(2), "10.0.2.2/24"),
                ip(Some(2), "10.0.3.3/24"),
                ip(Some(2), "fd00::2/64"),
            ],
            ..CniResult::default()
        };
        let texts = |result: &CniResult| {
            pod_addresses(result, "eth0").map(|address| address.map(|address| address.to_string()))
        };
        assert_eq!(texts(&result), [Some("10.0.2.2/24".into()), Some("fd00::2/64".into())]);
        // Without a known interface the address is taken.
        result.ips = vec![ip(Some(9), "10.0.9.9/24"), ip(None, "fd00::9/64")];
        assert_eq!(texts(&result), [Some("10.0.9.9/24".into()), Some("fd00::9/64".into())]);
        result.ips = vec![ip(Some(0), "10.0.0.1/24")];
        assert_eq!(texts(&result), [None, None]);
    }
}
