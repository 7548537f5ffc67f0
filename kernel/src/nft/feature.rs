//! What a kernel lacks, by the name under which it is switched on.
//!
//! The kernel says ENOENT when it has no expression or chain type of a name, and EAFNOSUPPORT when it has no tables of a
//! family; the extended ack tells at which byte of the request.

use super::decode;
use super::{Family, msg};
use crate::error::Cause;
use crate::wire;

/// `struct nlmsghdr` and `struct nfgenmsg`
const HEADER: usize = 16 + 4;

/// What expressions are built from: their name, the module and the option.
const EXPRESSIONS: [(&str, &str, &str); 16] = [
    ("ct", "nft_ct", "CONFIG_NFT_CT"),
    ("nat", "nft_nat", "CONFIG_NFT_NAT"),
    ("masq", "nft_masq", "CONFIG_NFT_MASQ"),
    ("redir", "nft_redir", "CONFIG_NFT_REDIR"),
    ("fib", "nft_fib", "CONFIG_NFT_FIB_INET"),
    ("limit", "nft_limit", "CONFIG_NFT_LIMIT"),
    ("reject", "nft_reject", "CONFIG_NFT_REJECT"),
    ("queue", "nft_queue", "CONFIG_NFT_QUEUE"),
    ("match", "nft_compat or the match", "CONFIG_NFT_COMPAT"),
    ("target", "nft_compat or the target", "CONFIG_NFT_COMPAT"),
    ("counter", "nft_counter", "CONFIG_NFT_COUNTER"),
    ("meta", "nft_meta", "CONFIG_NF_TABLES"),
    ("payload", "nft_payload", "CONFIG_NF_TABLES"),
    ("cmp", "nft_cmp", "CONFIG_NF_TABLES"),
    ("range", "nft_range", "CONFIG_NF_TABLES"),
    ("bitwise", "nft_bitwise", "CONFIG_NF_TABLES"),
];

/// The cause that names the feature which a refused request needs, when that is why it was refused: by the errno, the
/// request with its header, and the offset in it that the extended ack gives.
pub(crate) fn lacking(errno: i32, request: &[u8], offset: Option<u32>) -> Option<Cause> {
    let kind = wire::Messages(request).next()?.kind;
    let lacks = |name: &str, option: &str| Some(Cause::Lacks(format!("{name} ({option})")));
    match errno {
        libc::EAFNOSUPPORT => match Family::from_number(*request.get(16)?)? {
            Family::Inet => lacks("nf_tables of family inet", "CONFIG_NF_TABLES_INET"),
            Family::Ip => lacks("nf_tables of family ip", "CONFIG_NF_TABLES_IPV4"),
            Family::Arp => lacks("nf_tables of family arp", "CONFIG_NF_TABLES_ARP"),
            Family::Netdev => lacks("nf_tables of family netdev", "CONFIG_NF_TABLES_NETDEV"),
            Family::Bridge => lacks("nf_tables of family bridge", "CONFIG_NF_TABLES_BRIDGE"),
            Family::Ip6 => lacks("nf_tables of family ip6", "CONFIG_NF_TABLES_IPV6"),
        },
        libc::ENOENT if kind == msg::kind(msg::NEWRULE) => {
            let expression = expression(request, offset?)?;
            let (_, name, option) = EXPRESSIONS.into_iter().find(|(name, ..)| *name == expression)?;
            lacks(name, option)
        }
        libc::ENOENT if kind == msg::kind(msg::NEWCHAIN) => match chain_type(request)?.as_str() {
            "nat" => lacks("nft_chain_nat", "CONFIG_NFT_NAT"),
            _ => lacks("the type of chain", "CONFIG_NF_TABLES"),
        },
        _ => None,
    }
}

/// The name of the expression at `offset`. Those that name a chain or a set are not among [`EXPRESSIONS`].
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
    found.map(|e| e.name().to_owned())
}

/// The type of a base chain.
fn chain_type(request: &[u8]) -> Option<String> {
    let mut kind_of = None;
    attributes_at(request, HEADER, |kind, _, value| {
        if kind == 7 {
            kind_of = Some(wire::to_text(value));
        }
    });
    kind_of
}

/// Calls `each` with type, place and value of the attributes from `start` on.
fn attributes_at<'a>(bytes: &'a [u8], start: usize, mut each: impl FnMut(u16, usize, &'a [u8])) {
    let base = bytes.as_ptr() as usize;
    // What was written here can be read; what cannot names no feature.
    let _ = wire::attributes(wire::after(bytes, start), |kind, value| {
        each(kind, value.as_ptr() as usize - base, value);
    });
}
