//! What happens to the nodes' links and routes while a lab runs, as the kernel announces it: one rtnetlink
//! subscription per node, awaited by the supervisor. A lab whose wires were cut says so without being asked
//! to verify anything.
//!
//! Pods' own namespaces are not watched; `verify` looks at those.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use kernel::Rtnl;
use kernel::route::{self, Family};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, State};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use serde::{Deserialize, Serialize};

use crate::cluster::Node;

/// How many changes are remembered.
const REMEMBERED: usize = 200;
/// The links whose state is the node's own: its uplink and its bridge.
const WATCHED: [&str; 2] = ["eth0", "cni0"];

/// A change of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Milliseconds since the lab was up.
    pub ms: u64,
    /// The node.
    pub node: String,
    /// What changed, in words.
    pub what: String,
}

/// What is known: the latest changes, and what is wrong now.
#[derive(Debug, Default)]
struct Known {
    changes: VecDeque<Change>,
    /// How many changes there have been, those included that are not remembered any more.
    total: u64,
    /// The nodes' routes at the time when the lab was up; one that came later is nothing to miss.
    routes: BTreeSet<String>,
    troubles: BTreeMap<String, String>,
}

/// The changes since the lab was up; a handle that may be cloned.
#[derive(Debug, Clone)]
pub struct Events {
    since: Instant,
    known: Arc<Mutex<Known>>,
}

impl Events {
    /// Subscribes to every node's links and IPv4 routes. Called inside the runtime that is to await them.
    ///
    /// # Errors
    /// The kernel refuses a subscription.
    pub fn watch(nodes: &[Node]) -> Result<Self> {
        let events = Self { since: Instant::now(), known: Arc::default() };
        for node in nodes {
            let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
            // The socket belongs to the namespace it was made in, wherever it is read.
            let (connection, _handle, mut messages) = node
                .space
                .netns
                .run(|| new_multicast_connection(&groups))?
                .with_context(|| format!("subscribe to changes of {}", node.space.name))?;
            let mut rtnl = Rtnl::open_in(&node.space.netns)?;
            let routes = [route::list(&mut rtnl, Family::V4)?, route::list(&mut rtnl, Family::V6)?].concat();
            let there = routes.iter().filter_map(|route| Some((route.destination(), route.gateway?)));
            let there = there.map(|(to, via)| format!("{} {}", node.space.name, words(to, via)));
            events.known().routes.extend(there);
            tokio::spawn(connection);
            let (events, name) = (events.clone(), node.space.name.clone());
            tokio::spawn(async move {
                // The handle lives as long as the task: without it the connection would end.
                let _handle = _handle;
                while let Some((message, _)) = messages.next().await {
                    if let NetlinkPayload::InnerMessage(message) = message.payload {
                        events.note(&name, &message);
                    }
                }
            });
        }
        Ok(events)
    }

    /// The latest changes of one node, or of all, oldest first.
    pub fn changes(&self, node: Option<&str>) -> Vec<Change> {
        let known = self.known();
        known.changes.iter().filter(|change| node.is_none_or(|node| node == change.node)).cloned().collect()
    }

    /// The changes after the first `seen`, as far as they are remembered, and how many there have been in all.
    pub fn changes_after(&self, seen: u64) -> (Vec<Change>, u64) {
        let known = self.known();
        let new = usize::try_from(known.total.saturating_sub(seen)).unwrap_or(usize::MAX);
        let old = known.changes.len().saturating_sub(new);
        (known.changes.iter().skip(old).cloned().collect(), known.total)
    }

    /// What is wrong now, such as `node2/eth0 is down`.
    pub fn troubles(&self) -> Vec<String> {
        self.known().troubles.values().cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, node: &str, message: &RouteNetlinkMessage) {
        let mut known = self.known();
        let what = match message {
            RouteNetlinkMessage::NewLink(link) => {
                let (name, up) = (link_name(link), is_up(link));
                if WATCHED.contains(&name.as_str()) {
                    let key = format!("{node}/{name}");
                    if up {
                        known.troubles.remove(&key);
                    } else {
                        known.troubles.insert(key.clone(), format!("{key} is down"));
                    }
                }
                format!("link {name} is {}", if up { "up" } else { "down" })
            }
            RouteNetlinkMessage::DelLink(link) => {
                let name = link_name(link);
                if WATCHED.contains(&name.as_str()) {
                    let key = format!("{node}/{name}");
                    known.troubles.insert(key.clone(), format!("{key} is gone"));
                }
                format!("link {name} is gone")
            }
            RouteNetlinkMessage::NewRoute(route) => {
                let Some(route) = route_words(route) else { return };
                known.troubles.remove(&format!("{node} {route}"));
                format!("{route} was added")
            }
            RouteNetlinkMessage::DelRoute(route) => {
                let Some(route) = route_words(route) else { return };
                let key = format!("{node} {route}");
                if known.routes.contains(&key) {
                    known.troubles.insert(key, format!("{node} has lost {route}"));
                }
                format!("{route} was deleted")
            }
            _ => return,
        };
        let ms = self.since.elapsed().as_millis() as u64;
        let same = known.changes.back().is_some_and(|last| last.node == node && last.what == what);
        if !same {
            known.changes.push_back(Change { ms, node: node.to_owned(), what });
            known.total += 1;
        }
        if known.changes.len() > REMEMBERED {
            known.changes.pop_front();
        }
    }
}

fn link_name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_else(|| link.header.index.to_string())
}

fn is_up(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::OperState(State::Up)))
}

/// `route 10.244.2.0/24 via 192.0.2.12`; `None` for what has no gateway, which follows from links and
/// addresses.
fn route_words(route: &RouteMessage) -> Option<String> {
    let is_v6 = route.header.address_family == AddressFamily::Inet6;
    let mut to = if is_v6 { "::" } else { "0.0.0.0" }.to_owned();
    let mut via = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = address.to_string(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => to = address.to_string(),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some(address.to_string()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => via = Some(address.to_string()),
            _ => {}
        }
    }
    let to = format!("{to}/{}", route.header.destination_prefix_length);
    via.map(|via| words(to, via))
}

fn words(to: impl Display, via: impl Display) -> String {
    format!("route {to} via {via}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Events {
        Events { since: Instant::now(), known: Arc::default() }
    }

    fn link(name: &str, state: State) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::OperState(state)];
        link
    }

    #[test]
    fn an_uplink_that_goes_down_is_a_trouble_until_it_is_back() {
        let events = events();
        events.note("node2", &RouteNetlinkMessage::NewLink(link("eth0", State::Down)));
        assert_eq!(events.troubles(), ["node2/eth0 is down"]);
        events.note("node2", &RouteNetlinkMessage::NewLink(link("veth1", State::Down)));
        assert_eq!(events.troubles(), ["node2/eth0 is down"]);
        events.note("node2", &RouteNetlinkMessage::NewLink(link("eth0", State::Up)));
        assert!(events.troubles().is_empty());
        let words: Vec<String> =
            events.changes(Some("node2")).into_iter().map(|change| change.what).collect();
        assert_eq!(words, ["link eth0 is down", "link veth1 is down", "link eth0 is up"]);
        assert!(events.changes(Some("node1")).is_empty());
    }

    #[test]
    fn a_lost_route_is_named_until_it_is_back() {
        let events = events();
        let mut route = RouteMessage::default();
        route.header.destination_prefix_length = 24;
        route.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet([10, 244, 2, 0].into())),
            RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, 12].into())),
        ];
        events.note("node1", &RouteNetlinkMessage::DelRoute(route.clone()));
        assert!(events.troubles().is_empty(), "it was not there when the lab was up");
        events.known().routes.insert("node1 route 10.244.2.0/24 via 192.0.2.12".to_owned());
        events.note("node1", &RouteNetlinkMessage::DelRoute(route.clone()));
        assert_eq!(events.troubles(), ["node1 has lost route 10.244.2.0/24 via 192.0.2.12"]);
        events.note("node1", &RouteNetlinkMessage::NewRoute(route));
        assert!(events.troubles().is_empty());
    }

    #[test]
    fn only_the_latest_changes_are_remembered() {
        let events = events();
        for number in 0..REMEMBERED + 50 {
            events.note("n", &RouteNetlinkMessage::NewLink(link(&format!("v{number}"), State::Up)));
        }
        assert_eq!(events.changes(None).len(), REMEMBERED);
        assert_eq!(events.changes(None)[0].what, "link v50 is up");
        let all = (REMEMBERED + 50) as u64;
        assert_eq!(events.changes_after(0).0.len(), REMEMBERED);
        let (new, total) = events.changes_after(all - 2);
        assert_eq!((new.len(), new[0].what.as_str(), total), (2, "link v248 is up", all));
        assert!(events.changes_after(all).0.is_empty());
    }
}
