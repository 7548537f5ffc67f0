//! What can be wrong, one value for each kind: with the place where it was first seen and what was seen there.
//!
//! A finding is either a failure of the network or a lack of evidence; see [`Finding::is_failure`].

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// One of the two walks of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the client to the server.
    Request,
    /// Back.
    Reply,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Request => "request",
            Way::Reply => "reply",
        })
    }
}

/// Why a verdict is not PASS. Places are written `node1/eth0 out`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Finding {
    /// ERROR: not one packet of the probe was seen, so nothing is known of the network.
    NoPacket {
        /// How the probe ended all the same.
        probe: String,
    },
    /// ERROR: the kernel dropped frames of the capture.
    CaptureDropped {
        /// How many, over the namespaces of the path.
        frames: u64,
    },
    /// ERROR: the packet arrived, but places that it must have passed did not show it.
    TooFewPoints {
        /// Which walk.
        way: Way,
        /// At how many of the places it was seen.
        seen: usize,
        /// How many there are.
        needed: usize,
        /// The others.
        missing: Vec<String>,
    },
    /// ERROR: the packet arrived, but no encrypted one was seen that could have carried it.
    NotSealed {
        /// Which walk.
        way: Way,
        /// Where none was seen at the time.
        missing: Vec<String>,
    },
    /// ERROR: the server's log does not mention the request.
    NotLogged {
        /// Whose log.
        server: String,
    },
    /// ERROR: the check could not be carried out.
    NotProbed {
        /// Why.
        reason: String,
    },
    /// FAIL: the probe got no answer.
    Unreachable {
        /// How it ended.
        probe: String,
        /// What was seen last, and where.
        last: String,
    },
    /// FAIL: another host answered.
    WrongHost {
        /// Who was asked.
        expected: String,
        /// Who answered.
        found: String,
    },
    /// FAIL: the source address was rewritten on the way.
    SourceRewritten {
        /// Where it was first seen.
        at: String,
        /// The address and port before.
        from: String,
        /// The address and port after.
        to: String,
    },
    /// FAIL: the source port was rewritten, the address not.
    SourcePortRewritten {
        /// Where it was first seen.
        at: String,
        /// The port before.
        from: u16,
        /// The port after.
        to: u16,
    },
    /// FAIL: the destination address was rewritten on the way.
    DestinationRewritten {
        /// Where it was first seen.
        at: String,
        /// The address and port before.
        from: String,
        /// The address and port after.
        to: String,
    },
    /// FAIL: the destination port was rewritten, the address not.
    DestinationPortRewritten {
        /// Where it was first seen.
        at: String,
        /// The port before.
        from: u16,
        /// The port after.
        to: u16,
    },
    /// FAIL: the reply does not carry the request's addresses and ports the other way round.
    ReplyAsymmetric {
        /// Where it was first seen.
        at: String,
        /// What the request promises.
        expected: String,
        /// What the reply carries.
        found: String,
    },
    /// FAIL: the payload is not the one that was sent.
    PayloadDiffers {
        /// Which walk.
        way: Way,
        /// Where it was first seen.
        at: String,
    },
    /// FAIL: the IP identification changed, so this is not the packet that was sent.
    IdDiffers {
        /// Which walk.
        way: Way,
        /// Where it was first seen.
        at: String,
        /// As sent.
        from: u16,
        /// As seen there.
        to: u16,
    },
    /// FAIL: IPv6's flow label changed, which nobody on the way may do.
    FlowLabelDiffers {
        /// Which walk.
        way: Way,
        /// Where it was first seen.
        at: String,
        /// As sent.
        from: u32,
        /// As seen there.
        to: u32,
    },
    /// FAIL: the packet was cut into fragments.
    Fragmented {
        /// Which walk.
        way: Way,
        /// Where a fragment was first seen.
        at: String,
    },
    /// FAIL: the TTL does not tell the number of routers passed.
    TtlWrong {
        /// Which walk.
        way: Way,
        /// Where it was first seen.
        at: String,
        /// What it should be.
        expected: u8,
        /// What it is.
        found: u8,
    },
    /// FAIL: between nodes the packet does not look as the mode says.
    WireDiffers {
        /// Which walk.
        way: Way,
        /// Where it was first seen.
        at: String,
        /// How it should look.
        expected: String,
        /// How it does.
        found: String,
    },
    /// FAIL: on a path without a router, a MAC address is not the pod's own.
    MacRewritten {
        /// Which walk.
        way: Way,
        /// Where it was first seen.
        at: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// FAIL: the server logged another address than the client's own.
    LoggedAddress {
        /// Whose log.
        server: String,
        /// The client's address.
        expected: IpAddr,
        /// What was logged.
        found: IpAddr,
    },
    /// FAIL: a pod that is not behind the service got the request.
    WrongBackend {
        /// Where it arrived.
        at: String,
        /// What it was addressed to.
        found: String,
    },
    /// FAIL: the node that should have rewritten the destination let it pass.
    DestinationKept {
        /// Where it was seen with the service's address.
        at: String,
    },
    /// FAIL: the source should have become a node's address, and did not.
    SourceKept {
        /// Where it was seen.
        at: String,
        /// The source.
        source: String,
    },
    /// FAIL: nobody is behind the service, and the client was not told so at once.
    NotRefused {
        /// How the probe ended.
        probe: String,
    },
    /// FAIL: the service is reached from where it should not be.
    Exposed {
        /// Who answered, or where the packet arrived.
        by: String,
    },
    /// FAIL: a pod behind the service gets too many connections, or too few.
    UnevenShare {
        /// The pod.
        pod: String,
        /// Its connections.
        found: usize,
        /// The least that it should have.
        least: usize,
        /// The most.
        most: usize,
        /// All connections.
        of: usize,
    },
    /// FAIL: one client, which should stay with one pod, was served by several.
    Strayed {
        /// The pods.
        pods: Vec<String>,
    },
    /// FAIL: the service's selector chooses no pod.
    NoEndpoints {
        /// The selector.
        selector: String,
    },
    /// FAIL: an interface has the service's address, which should be nowhere.
    AddressOwned {
        /// The address.
        address: IpAddr,
        /// The interface.
        by: String,
    },
    /// FAIL: a packet between two containers of one pod left the loopback interface.
    LeftLoopback {
        /// Where to.
        at: String,
    },
    /// FAIL: the containers of a pod are not in one network namespace.
    NamespacesDiffer {
        /// The process that is elsewhere.
        container: String,
    },
    /// FAIL: the pod has no address.
    NoAddress,
    /// FAIL: the pod's interface does not have the address that the plugin told.
    AddressDiffers {
        /// What the CNI result says.
        told: String,
        /// What the kernel says.
        found: String,
    },
    /// FAIL: someone else in the cluster has the same address.
    AddressShared {
        /// The address.
        address: IpAddr,
        /// Who.
        with: String,
    },
}

impl Finding {
    /// The network is at fault; else the evidence is not good enough.
    pub fn is_failure(&self) -> bool {
        !matches!(
            self,
            Finding::NoPacket { .. }
                | Finding::CaptureDropped { .. }
                | Finding::TooFewPoints { .. }
                | Finding::NotSealed { .. }
                | Finding::NotLogged { .. }
                | Finding::NotProbed { .. }
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::NoPacket { probe } => {
                write!(f, "no packet of the probe was seen; the probe says {probe}")
            }
            Finding::CaptureDropped { frames } => write!(f, "the capture lost {frames} frames"),
            Finding::TooFewPoints { way, seen, needed, missing } => {
                write!(f, "{way} seen at {seen} of {needed} points, not at {}", missing.join(", "))
            }
            Finding::NotSealed { way, missing } => {
                write!(f, "no encrypted packet for the {way} was seen at {}", missing.join(", "))
            }
            Finding::NotLogged { server } => write!(f, "{server} did not log the request"),
            Finding::NotProbed { reason } => write!(f, "not probed: {reason}"),
            Finding::Unreachable { probe, last } => write!(f, "reachability: {probe}, {last}"),
            Finding::WrongHost { expected, found } => write!(f, "{found:?} answered instead of {expected:?}"),
            Finding::SourceRewritten { at, from, to } => {
                write!(f, "NAT: source {from} became {to} at {at}")
            }
            Finding::SourcePortRewritten { at, from, to } => {
                write!(f, "NAT: source port {from} became {to} at {at}")
            }
            Finding::DestinationRewritten { at, from, to } => {
                write!(f, "NAT: destination {from} became {to} at {at}")
            }
            Finding::DestinationPortRewritten { at, from, to } => {
                write!(f, "NAT: destination port {from} became {to} at {at}")
            }
            Finding::ReplyAsymmetric { at, expected, found } => {
                write!(f, "NAT: the reply is {found} at {at}, not {expected}")
            }
            Finding::PayloadDiffers { way, at } => write!(f, "the payload of the {way} differs at {at}"),
            Finding::IdDiffers { way, at, from, to } => {
                write!(f, "the IP id of the {way} {from:#06x} became {to:#06x} at {at}")
            }
            Finding::FlowLabelDiffers { way, at, from, to } => {
                write!(f, "the flow label of the {way} {from:#07x} became {to:#07x} at {at}")
            }
            Finding::Fragmented { way, at } => write!(f, "the {way} is in fragments at {at}"),
            Finding::TtlWrong { way, at, expected, found } => {
                write!(f, "the TTL of the {way} is {found} at {at}, not {expected}")
            }
            Finding::WireDiffers { way, at, expected, found } => {
                write!(f, "the {way} is {found} at {at}, not {expected}")
            }
            Finding::MacRewritten { way, at, expected, found } => {
                write!(f, "the {way} has MAC addresses {found} at {at}, not {expected}")
            }
            Finding::LoggedAddress { server, expected, found } => {
                write!(f, "{server} logged {found}, not the client's own {expected}")
            }
            Finding::WrongBackend { at, found } => {
                write!(f, "{found} got the request at {at}, which is not behind the service")
            }
            Finding::DestinationKept { at } => {
                write!(f, "the service's address is still the destination at {at}")
            }
            Finding::SourceKept { at, source } => {
                write!(f, "the source {source} was not rewritten to a node's address by {at}")
            }
            Finding::NotRefused { probe } => write!(f, "nobody is behind it, but the probe says {probe}"),
            Finding::Exposed { by } => write!(f, "reached from where it should not be: {by}"),
            Finding::UnevenShare { pod, found, least, most, of } => {
                write!(f, "{pod} got {found} of {of} connections, not {least} to {most}")
            }
            Finding::Strayed { pods } => {
                write!(f, "one client was served by {} pods: {}", pods.len(), pods.join(", "))
            }
            Finding::NoEndpoints { selector } => write!(f, "no endpoints: no pod has {selector}"),
            Finding::AddressOwned { address, by } => write!(f, "{address} is an address of {by}"),
            Finding::LeftLoopback { at } => write!(f, "a packet for localhost was seen at {at}"),
            Finding::NamespacesDiffer { container } => {
                write!(f, "container {container:?} is not in the pod's network namespace")
            }
            Finding::NoAddress => f.write_str("the pod has no address"),
            Finding::AddressDiffers { told, found } => {
                write!(f, "the plugin told {told}, the interface has {found}")
            }
            Finding::AddressShared { address, with } => write!(f, "{address} is {with}'s as well"),
        }
    }
}
