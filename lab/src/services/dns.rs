//! The cluster's DNS: names of services, answered on every node.
//!
//! [`answer`] is a pure function from a query and a zone to an answer (RFC 1035, over UDP). It forwards nothing, as a lab
//! has no Internet: what is no service has no name, but for the host outside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use super::model::Service;
use crate::cluster::Cluster;

/// The port of DNS.
pub const PORT: u16 = 53;
/// What a name of a service ends with.
const DOMAIN: &str = "default.svc.cluster.local";
/// The name of the first host outside, whatever it is called.
pub const OUTSIDE: &str = "outside.example";
/// What a name of a host outside ends with (RFC 2606 keeps `.example` for such).
const WORLD: &str = "example";
/// What a pod's resolver is to be told, for resolv.conf(5): the search list, whom to ask, how.
const SEARCH: &str = "search default.svc.cluster.local svc.cluster.local cluster.local";
const OPTIONS: &str = "options ndots:5";

/// RFC 1035, section 3.2.2, and RFC 3596.
const A: u16 = 1;
const CNAME: u16 = 5;
const ANY: u16 = 255;
/// Section 3.2.4.
const INTERNET: u16 = 1;
/// Section 4.1.1: no such name; not implemented.
const NO_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
/// How long an answer may be kept, in seconds: services change while somebody looks.
const KEPT: u32 = 1;
/// Length of a header.
const HEADER: usize = 12;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An address.
    Address(Ipv4Addr),
    /// Another name.
    Alias(String),
}

/// All names, in lower case.
pub type Zone = BTreeMap<String, Record>;

/// The zone of a lab, which the controller loop writes and every node reads.
pub type SharedZone = Arc<Mutex<Zone>>;

/// A pod's resolv.conf(5) where the cluster's DNS is at that address.
pub fn resolver(address: Ipv4Addr) -> String {
    format!("{SEARCH}\nnameserver {address}\n{OPTIONS}\n")
}

/// The names of services, and of the hosts outside.
pub fn zone(services: &[Service], outside: &[(&str, Ipv4Addr)]) -> Zone {
    let of_service = |service: &Service| {
        let alias = service.external_name.as_ref().map(|name| Record::Alias(name.to_ascii_lowercase()));
        let record = service.cluster_ip.map(Record::Address).or(alias)?;
        Some((format!("{}.{DOMAIN}", service.name), record))
    };
    let first = outside.first().map(|(_, address)| (OUTSIDE.to_owned(), Record::Address(*address)));
    let own = |(name, address): &(&str, Ipv4Addr)| (format!("{name}.{WORLD}"), Record::Address(*address));
    services.iter().filter_map(of_service).chain(first).chain(outside.iter().map(own)).collect()
}

/// A question: the name in lower case, its type and class, and where it ends in the query.
fn question(query: &[u8]) -> Option<(String, u16, u16, usize)> {
    let mut at = HEADER;
    let mut labels: Vec<String> = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        // A pointer (from 0xc0 on) has nothing to point to in a query.
        if length > 63 {
            return None;
        }
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
    let number = |at: usize| Some(u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]));
    Some((labels.join("."), number(at)?, number(at + 2)?, at + 4))
}

/// A name as labels; what does not fit into labels is cut, which no name of a lab is.
fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// The answer to a query; none to what is no query.
pub fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    // Section 4.1.1: QR is the first bit of the third byte, the opcode the next four.
    let is_query = query.get(2).is_some_and(|flags| flags & 0x80 == 0);
    let asked = (query.get(4..6)? == [0, 1]).then(|| question(query)).flatten();
    let (name, kind, class, end) = asked.filter(|_| is_query)?;
    let standard = query[2] & 0x78 == 0;
    let mut answers = Vec::new();
    let mut owner = name.clone();
    // An alias of an alias and so on is followed as far as there are names.
    for _ in 0..=zone.len() {
        match zone.get(&owner).filter(|_| class == INTERNET && standard) {
            Some(Record::Address(address)) => {
                if kind == A || kind == ANY {
                    answers.push((owner.clone(), A, address.octets().to_vec()));
                }
                break;
            }
            Some(Record::Alias(target)) => {
                answers.push((owner.clone(), CNAME, labels(target)));
                if kind == CNAME {
                    break;
                }
                owner.clone_from(target);
            }
            None => break,
        }
    }
    let code = match (standard, zone.contains_key(&name)) {
        (false, _) => NOT_IMPLEMENTED,
        (true, true) => 0,
        (true, false) => NO_NAME,
    };
    let mut message = query[..2].to_vec();
    // An answer, authoritative; recursion as it was desired, and available, or resolvers would look elsewhere.
    message.extend([0x84 | query[2] & 0x79, 0x80 | code, 0, 1]);
    message.extend((answers.len() as u16).to_be_bytes());
    message.extend([0; 4]);
    message.extend(&query[HEADER..end]);
    for (owner, kind, data) in answers {
        message.extend(labels(&owner));
        message.extend(kind.to_be_bytes());
        message.extend(INTERNET.to_be_bytes());
        message.extend(KEPT.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
    }
    Some(message)
}

/// Answers on every node, at the node's own address. Called inside the runtime that is to await the queries.
///
/// # Errors
/// The port is taken.
pub fn serve(cluster: &Cluster, zone: &SharedZone) -> Result<()> {
    for node in &cluster.nodes {
        let Some((address, _)) = node.v4() else { continue };
        let bind = || std::net::UdpSocket::bind(SocketAddr::new(address.into(), PORT));
        // The socket belongs to the namespace that it was made in, wherever it is read.
        let socket = node.space.netns.run(bind)?.with_context(|| format!("DNS on {}", node.space.name))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let zone = Arc::clone(zone);
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                // An ICMP error about an earlier answer is reported here; the next query is not concerned.
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let message = answer(&buffer[..length], &zone.lock().unwrap_or_else(PoisonError::into_inner));
                if let Some(message) = message {
                    // Whoever asked may have gone.
                    let _ = socket.send_to(&message, from).await;
                }
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Zone {
        let address = |last: u8| Record::Address([10, 96, 0, last].into());
        [
            ("kubia-http.default.svc.cluster.local".to_owned(), address(11)),
            ("out.default.svc.cluster.local".to_owned(), Record::Alias(OUTSIDE.into())),
            (
                "loop.default.svc.cluster.local".to_owned(),
                Record::Alias("loop.default.svc.cluster.local".into()),
            ),
            (OUTSIDE.to_owned(), Record::Address([203, 0, 113, 9].into())),
        ]
        .into()
    }

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(labels(name));
        query.extend([0, kind as u8, 0, 1]);
        query
    }

    #[test]
    fn a_name_is_answered_with_these_bytes() {
        let mut expected = vec![0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        let name = b"\x0akubia-http\x07default\x03svc\x07cluster\x05local\0";
        expected.extend(
            [&name[..], &[0, 1, 0, 1], &name[..], &[0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 96, 0, 11]].concat(),
        );
        assert_eq!(
            answer(&query("Kubia-HTTP.default.svc.cluster.local", 1), &names())
                .map(|bytes| bytes.to_ascii_lowercase()),
            Some(expected.to_ascii_lowercase())
        );
    }

    /// The code, and how many answers.
    fn counts(name: &str, kind: u16) -> (u8, u8) {
        let message = answer(&query(name, kind), &names()).unwrap();
        (message[3] & 15, message[7])
    }

    #[test]
    fn an_external_name_is_an_alias_and_what_it_leads_to() {
        assert_eq!(counts("out.default.svc.cluster.local", A), (0, 2));
        assert_eq!(counts("out.default.svc.cluster.local", CNAME), (0, 1));
        let message = answer(&query("out.default.svc.cluster.local", A), &names()).unwrap();
        assert!(message.windows(17).any(|bytes| bytes == b"\x07outside\x07example\0"), "{message:?}");
        assert!(message.ends_with(&[203, 0, 113, 9]));
    }

    #[test]
    fn what_there_is_not_is_told() {
        assert_eq!(counts("nobody.default.svc.cluster.local", A), (NO_NAME, 0));
        assert_eq!(
            counts("kubia-http.default.svc.cluster.local", 28),
            (0, 0),
            "no IPv6 address, but the name"
        );
        assert!(counts("loop.default.svc.cluster.local", A).1 < 10, "an alias of itself ends");
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        let good = query("kubia-http.default.svc.cluster.local", A);
        for length in 0..good.len() {
            assert_eq!(answer(&good[..length], &names()), None, "{length} bytes");
        }
        let mut reply = good.clone();
        reply[2] |= 0x80;
        assert_eq!(answer(&reply, &names()), None);
        let mut pointer = good.clone();
        pointer[HEADER] = 0xc0;
        assert_eq!(answer(&pointer, &names()), None);
        let mut update = good;
        update[2] = 0x28;
        assert_eq!(answer(&update, &names()).map(|message| message[3] & 15), Some(NOT_IMPLEMENTED));
    }
}
