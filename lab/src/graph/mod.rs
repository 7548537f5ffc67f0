//! `podlab graph`: a lab as a picture: its places, their interfaces, and the wires between them.
//!
//! The picture is made of the document of `podlab inspect` alone, so that one that was recorded is drawn as one that is up.
//! Here is what is drawn; where it goes is in `layout`, how it is written in a file a format.

mod ascii;
mod d2;
mod document;
mod dot;
mod drawio;
pub mod heatmap;
mod layout;
mod mermaid;
mod svg;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::fabric::is_wan;
use document::{Document, LinkOf, places};
pub use svg::STYLE;

/// So many pods are drawn; of more, those of a node become one tile with their number.
pub const MOST_PODS: usize = 60;

/// How a picture is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A picture for browsers, in light and dark.
    #[default]
    Svg,
    /// A flowchart for Markdown.
    Mermaid,
    /// Graphviz.
    Dot,
    /// A D2 diagram.
    D2,
    /// A diagram to edit in draw.io.
    Drawio,
    /// Text for a terminal.
    Ascii,
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 6] = [Form::Svg, Form::Mermaid, Form::Dot, Form::D2, Form::Drawio, Form::Ascii];
}

/// What a place stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The router to the world outside.
    Fabric,
    /// The switch and router of a rack.
    Router,
    Node,
    Pod,
    /// Pods that are only counted.
    Pods,
    Outside,
}

impl Role {
    /// The word, which is a class of the SVG too.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Role::Fabric => "fabric",
            Role::Router => "router",
            Role::Node => "node",
            Role::Pod | Role::Pods => "pod",
            Role::Outside => "outside",
        }
    }
}

/// A namespace, or the pods of a node in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Where it is: a pod's node, a node's rack.
    pub(crate) within: Option<usize>,
    /// What else is known of it: a node's PodCIDR.
    pub(crate) note: String,
    /// How many pods it stands for.
    pub(crate) count: usize,
    pub(crate) links: Vec<Link>,
}

impl Place {
    /// What is written on it: `247 pods` of a tile.
    pub(crate) fn label(&self) -> String {
        match self.role {
            Role::Pods if self.count == 1 => "1 pod".to_owned(),
            Role::Pods => format!("{} pods", self.count),
            _ => self.name.clone(),
        }
    }
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    /// The kernel's word; `tun` and such have none there.
    pub(crate) kind: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) mac: String,
    /// It carries no frames.
    pub(crate) is_down: bool,
    /// A node's or a rack's link to what is above.
    pub(crate) is_uplink: bool,
}

/// An end of a wire: a place and a link of it, by their numbers.
pub(crate) type End = (usize, usize);

/// What two interfaces have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// A pair: what goes in at one end comes out at the other.
    Pair,
    /// A port of a bridge.
    Port,
    /// A link that lies on another one: a macvlan.
    Below,
    /// A device whose packets leave wrapped by the uplink.
    Tunnel,
    /// The place's routes lead from one to the other.
    Routed,
}

impl Tie {
    pub(crate) const ALL: [Tie; 5] = [Tie::Pair, Tie::Port, Tie::Below, Tie::Tunnel, Tie::Routed];

    /// The word, which is a class of the SVG too.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Tie::Pair => "pair",
            Tie::Port => "port",
            Tie::Below => "below",
            Tie::Tunnel => "tunnel",
            Tie::Routed => "routed",
        }
    }

    /// What it is, in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Tie::Pair => "veth pair",
            Tie::Port => "bridge port",
            Tie::Below => "macvlan on its link",
            Tie::Tunnel => "tunnel, wrapped",
            Tie::Routed => "routed",
        }
    }
}

/// A wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) tie: Tie,
}

/// What is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub(crate) name: String,
    pub(crate) mode: String,
    pub(crate) places: Vec<Place>,
    pub(crate) wires: Vec<Wire>,
}

impl Picture {
    /// The picture of a lab, with the pods `shown` drawn also where there are too many for all; `kubia-1/lo` is drawn with
    /// its loopback, which is left out else.
    ///
    /// # Errors
    /// What is no document of `podlab inspect` of a lab, or a pod that the lab does not have.
    pub fn of(document: &Value, shown: &[String]) -> Result<Picture, String> {
        let document = Document::deserialize(document)
            .map_err(|err| format!("no document of podlab inspect -o json of a lab: {err}"))?;
        let loopbacks: Vec<&str> = shown.iter().filter_map(|name| name.strip_suffix("/lo")).collect();
        let shown: Vec<String> =
            shown.iter().map(|name| name.strip_suffix("/lo").unwrap_or(name).to_owned()).collect();
        let unknown = shown.iter().find(|name| {
            let of_a_node = document.nodes.iter().any(|node| node.name == **name);
            let is_other =
                of_a_node || name.as_str() == "fabric" || document.hosts().contains(&name.as_str());
            !is_other && !document.pods.iter().any(|pod| pod.name == **name)
        });
        if let Some(name) = unknown {
            return Err(format!("lab {:?} has no node or pod {name:?}", document.name));
        }
        let mut picture = Picture {
            name: document.name.clone(),
            mode: document.mode.clone(),
            places: places(&document, &shown),
            wires: Vec::new(),
        };
        picture.wire(&document);
        for place in picture.places.iter_mut().filter(|place| loopbacks.contains(&place.name.as_str())) {
            place.links.push(Link {
                name: "lo".to_owned(),
                kind: "loopback".to_owned(),
                addresses: vec!["127.0.0.1/8".to_owned()],
                mac: String::new(),
                is_down: false,
                is_uplink: false,
            });
        }
        Ok(picture)
    }

    /// The document in one of the forms.
    pub fn render(&self, form: Form) -> String {
        match form {
            Form::Svg => svg::render(self),
            Form::Mermaid => mermaid::render(self),
            Form::Dot => dot::render(self),
            Form::D2 => d2::render(self),
            Form::Drawio => drawio::render(self),
            Form::Ascii => ascii::render(self),
        }
    }

    /// `node1/eth0`
    pub(crate) fn at(&self, (place, link): End) -> String {
        let place = &self.places[place];
        format!("{}/{}", place.name, place.links[link].name)
    }

    /// The places directly within `within`, with their numbers.
    pub(crate) fn within(&self, within: Option<usize>) -> impl Iterator<Item = (usize, &Place)> {
        self.places.iter().enumerate().filter(move |(_, place)| place.within == within)
    }

    /// Puts the links into their places, and the wires between them.
    fn wire(&mut self, document: &Document) {
        let numbers: HashMap<String, usize> =
            self.places.iter().map(|place| place.name.clone()).zip(0..).collect();
        let hidden: std::collections::HashSet<&str> = document
            .pods
            .iter()
            .map(|pod| pod.name.as_str())
            .filter(|name| !numbers.contains_key(*name))
            .collect();
        let hosts = document.hosts();
        let leads_to_hidden = |link: &LinkOf| {
            let far = link.peer.as_deref().and_then(|at| at.split_once('/'));
            far.is_some_and(|(place, _)| hidden.contains(place))
        };
        let mut ends: HashMap<String, End> = HashMap::new();
        for link in document.links.iter().filter(|link| !leads_to_hidden(link)) {
            let Some(&number) = numbers.get(&link.place) else { continue };
            let place = &mut self.places[number];
            ends.insert(format!("{}/{}", link.place, link.name), (number, place.links.len()));
            let to_above =
                link.peer.as_deref().and_then(|at| at.split_once('/')).is_some_and(|(far, own)| {
                    (own == link.place || is_wan(own)) && place.role != Role::Pod && !hosts.contains(&far)
                });
            place.links.push(Link {
                name: link.name.clone(),
                kind: link.kind.clone().unwrap_or_default(),
                addresses: link.addresses.clone(),
                mac: link.mac.clone().unwrap_or_default(),
                is_down: !link.up || link.state == "lowerlayerdown",
                is_uplink: to_above,
            });
        }
        for link in document.links.iter() {
            let Some(&from) = ends.get(&format!("{}/{}", link.place, link.name)) else { continue };
            let far = |at: &Option<String>| at.as_ref().and_then(|at| ends.get(at)).copied();
            // A pair is found from both ends.
            if let Some(to) = far(&link.peer).filter(|to| is_lower(&self.places, from, *to)) {
                self.wires.push(Wire { from, to, tie: Tie::Pair });
            }
            let master = link.master.as_ref().and_then(|name| ends.get(&format!("{}/{name}", link.place)));
            self.wires.extend(master.map(|&to| Wire { from, to, tie: Tie::Port }));
            self.wires.extend(far(&link.below).map(|to| Wire { from, to, tie: Tie::Below }));
        }
        for number in 0..self.places.len() {
            self.route(number);
        }
    }

    /// The ways that a router has inside: from what leads to pods or nodes to what leads away.
    fn route(&mut self, number: usize) {
        let place = &self.places[number];
        if !matches!(place.role, Role::Node | Role::Fabric | Role::Router) {
            return;
        }
        let is_port = |link: usize| {
            let own = |wire: &&Wire| wire.from == (number, link);
            self.wires.iter().filter(own).any(|wire| wire.tie == Tie::Port)
        };
        let is_plain = |link: &Link| matches!(link.kind.as_str(), "veth" | "bridge");
        let numbered = || place.links.iter().enumerate();
        let away: Vec<usize> = match place.role {
            Role::Fabric => numbered().filter(|(_, link)| is_wan(&link.name)).map(|it| it.0).collect(),
            _ => numbered().filter(|(_, link)| link.is_uplink).map(|it| it.0).collect(),
        };
        let devices: Vec<usize> = numbered()
            .filter(|(_, link)| !is_plain(link) && !link.kind.is_empty() && link.kind != "macvlan")
            .map(|it| it.0)
            .collect();
        let inner: Vec<usize> = numbered()
            .filter(|(index, link)| is_plain(link) && !away.contains(index) && !is_port(*index))
            .map(|it| it.0)
            .collect();
        let mut wires = Vec::new();
        for &link in &inner {
            let from = (number, link);
            wires.extend(devices.iter().map(|&device| Wire { from, to: (number, device), tie: Tie::Routed }));
            wires.extend(away.iter().map(|&link| Wire { from, to: (number, link), tie: Tie::Routed }));
        }
        let wrapped = |&device: &usize| {
            away.iter().map(move |&link| Wire {
                from: (number, device),
                to: (number, link),
                tie: Tie::Tunnel,
            })
        };
        wires.extend(devices.iter().flat_map(wrapped));
        self.wires.extend(wires);
    }
}

/// Whether the end `a` of a pair is the one below: a pair is drawn once.
fn is_lower(places: &[Place], a: End, b: End) -> bool {
    let rank = |end: End| match places[end.0].role {
        Role::Pod | Role::Pods | Role::Outside => 0,
        Role::Node => 1,
        Role::Router => 2,
        Role::Fabric => 3,
    };
    (rank(a), a) < (rank(b), b)
}
