//! What goes into a client's state machine and what comes out, the same for DHCPv4 and IPv6.

use std::net::Ipv6Addr;

use super::frame::Packet;

/// What happens to a machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'e> {
    /// The time that the machine's deadline named has come.
    Timer,
    /// A packet arrived on the pod's link.
    Packet(&'e Packet<'e>),
    /// The link has this link-local address, ready for use.
    LinkLocal(Ipv6Addr),
    /// Give the lease back.
    Release,
}

/// What a machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Send this frame on the pod's link.
    Send(Vec<u8>),
    /// There is a lease, new or renewed.
    Bound,
    /// There is no lease and will be none. The text says why.
    Failed(String),
    /// The lease is over: its address must no longer be used.
    Expired,
    /// For the log.
    Note(String),
}
