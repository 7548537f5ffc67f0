//! What a kernel lacks, by the name under which it is switched on.
//!
//! The kernel says ENOENT when it has no expression or chain type of a name, and EAFNOSUPPORT when it has no tables of a
//! family; the extended ack tells at which byte of the request.

use super::decode;
use super::expr::Expr;
use super::{Family, msg};
use crate::wire;

/// `struct nlmsghdr` and `struct nfgenmsg`
const HEADER: usize = 16 + 4;

/// The feature that a refused request needs, when that is why it was refused: the errno, the request with its header,
/// and the offset in it that the extended ack gives.
pub(crate) fn lacking(errno: i32, request: &[u8], offset: Option<u32>) -> Option<String> {
    let kind = wire::Messages(request).next()?.kind;
    match errno {
        // No message of this family at all.
        libc::EOPNOTSUPP | libc::EINVAL if kind >> 8 != msg::SUBSYSTEM => None,
        libc::EAFNOSUPPORT => {
            let family = Family::from_number(*request.get(16)?)?;
            let option = match family {
                Family::Inet => "CONFIG_NF_TABLES_INET",
                Family::Ip => "CONFIG_NF_TABLES_IPV4",
                Family::Arp => "CONFIG_NF_TABLES_ARP",
                Family::Netdev => "CONFIG_NF_TABLES_NETDEV",
                Family::Bridge => "CONFIG_NF_TABLES_BRIDGE",
                Family::Ip6 => "CONFIG_NF_TABLES_IPV6",
            };
            Some(format!("nf_tables of family {family} ({option})"))
        }
        libc::ENOENT if kind == msg::kind(msg::NEWRULE) => expression(request, offset?),
        libc::ENOENT if kind == msg::kind(msg::NEWCHAIN) => chain_type(request),
        _ => None,
    }
}

/// The expression at `offset`, unless it is one that names something which may be missing instead.
fn expression(request: &[u8], offset: u32) -> Option<String> {
    let mut list = None;
    attributes_at(request, HEADER, |kind, at, value| {
        if kind == 4 {
            list = Some((at, value.len()));
        }
    });
    let (start, len) = list?;
    let mut found = None;
    attributes_at(&request[..start + len], start, |_, at, value| {
        // The kernel points at the list's element or at something within it.
        if (at - 4..at + value.len()).contains(&(offset as usize)) {
            found = decode::expression(value).ok();
        }
    });
    match found? {
        // A chain or a set that is not there.
        Expr::Verdict(_) | Expr::Immediate { .. } | Expr::Lookup { .. } => None,
        Expr::Match { name, .. } => {
            Some(format!("the xtables match {name:?} through nft_compat (CONFIG_NFT_COMPAT)"))
        }
        Expr::Target { name, .. } => {
            Some(format!("the xtables target {name:?} through nft_compat (CONFIG_NFT_COMPAT)"))
        }
        other => Some(format!("nft_{0} (CONFIG_NFT_{1})", other.name(), other.name().to_uppercase())),
    }
}

/// The type of a base chain, which is looked for only when the table is there.
fn chain_type(request: &[u8]) -> Option<String> {
    let mut kind_of = None;
    attributes_at(request, HEADER, |kind, _, value| {
        if kind == 7 {
            kind_of = Some(wire::to_text(value));
        }
    });
    match kind_of?.as_str() {
        "nat" => Some("nft_chain_nat (CONFIG_NFT_NAT)".into()),
        other => Some(format!("chains of type {other:?} in nf_tables")),
    }
}

/// Calls `each` with type, place and value of the attributes from `start` on.
fn attributes_at<'a>(bytes: &'a [u8], start: usize, mut each: impl FnMut(u16, usize, &'a [u8])) {
    let base = bytes.as_ptr() as usize;
    // What was written here can be read; what cannot names no feature.
    let _ = wire::attributes(wire::after(bytes, start), |kind, value| {
        each(kind, value.as_ptr() as usize - base, value);
    });
}
