//! Where everything of a picture goes: arithmetic over the structure, which is known. No search but for the number of
//! columns, and nothing by chance.
//!
//! ```text
//!  ┌ node1 ──────────────┐         ┌ fabric ────┐
//!  │ pod  pod  pod       │         │            │        A node is a strip: pods above and below what they hang at,
//!  │  │    │    │        │         │       ┌──┐ │        a bridge, or a rail that leads to the uplink. All are read
//!  │ ═╧════╧════╧══ eth0 ┼─────────┤ node1 │  │ │        by `hub`. Of more rows, the outer ones pass the inner ones
//!  │  │    │             │         │       └──┘ │        in the gaps between columns.
//!  │ pod  pod            │         │  wan0      │        More than three nodes are on both sides of the fabric.
//!  └─────────────────────┘         └────┼───────┘
//!                                    outside
//! ```

mod lines;
mod work;

use super::{Link, Picture, Place, Role, Tie};
use work::Work;

/// The size of the text of places and of interfaces, in units of the picture.
pub(crate) const TITLE: i32 = 12;
pub(crate) const TEXT: i32 = 10;
/// From one line of an interface's text to the next.
pub(crate) const LINE: i32 = 12;
/// The longest text; what is longer ends with an ellipsis.
const LONGEST: usize = 22;
const MARGIN: i32 = 14;
/// A place's head, with its name.
const HEAD: i32 = 22;
const PAD: i32 = 8;
/// Between a pod and its node's end of the pair, and between that and the hub.
const DROP: i32 = 12;
const ROW_GAP: i32 = 14;
const STRIP_GAP: i32 = 14;
const RACK_GAP: i32 = 30;
/// The wires between columns.
const SPAN: i32 = 46;
const RAIL: i32 = 12;
pub(crate) const LEGEND: i32 = 18;

/// A rectangle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) x: i32,
    pub(crate) y: i32,
    pub(crate) w: i32,
    pub(crate) h: i32,
}

impl Rect {
    pub(crate) fn right(self) -> i32 {
        self.x + self.w
    }

    pub(crate) fn bottom(self) -> i32 {
        self.y + self.h
    }

    pub(crate) fn center(self) -> (i32, i32) {
        (self.x + self.w / 2, self.y + self.h / 2)
    }

    #[cfg(test)]
    pub(crate) fn holds(self, other: Rect) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && other.right() <= self.right()
            && other.bottom() <= self.bottom()
    }

    #[cfg(test)]
    pub(crate) fn overlaps(self, other: Rect) -> bool {
        self.x < other.right() && other.x < self.right() && self.y < other.bottom() && other.y < self.bottom()
    }
}

/// Where everything goes; lists in the order of the picture's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) size: (i32, i32),
    pub(crate) places: Vec<Rect>,
    pub(crate) links: Vec<Vec<Rect>>,
    /// The corners of each wire's line.
    pub(crate) wires: Vec<Vec<(i32, i32)>>,
    /// The upper edge of the legend.
    pub(crate) legend: i32,
}

/// The lines of text of an interface.
pub(crate) fn lines(place: &Place, link: &Link) -> Vec<String> {
    let address = link.addresses.iter().find(|it| !it.contains(':')).or(link.addresses.first());
    let shown = address.map(|it| match place.role {
        Role::Pod => it.split('/').next().unwrap_or(it),
        _ => it.as_str(),
    });
    let name = if link.is_down { format!("{} DOWN", link.name) } else { link.name.clone() };
    [Some(name), shown.map(str::to_owned)].into_iter().flatten().map(|line| short(&line)).collect()
}

/// The text with its end cut off where it is too long.
pub(crate) fn short(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// How wide a text of that size is at most, in a font whose letters are all of one width.
pub(crate) fn width(text: &str, size: i32) -> i32 {
    let letters = text.chars().count() as i32;
    (letters * size * 63 + 99) / 100
}

/// The size of an interface's box.
fn size(place: &Place, link: &Link) -> (i32, i32) {
    let lines = lines(place, link);
    let widest = lines.iter().map(|line| width(line, TEXT)).max().unwrap_or(0);
    (widest + 10, LINE * lines.len() as i32 + 6)
}

/// A pod, or the tile of many, with its node's end of its pair.
struct Cell {
    place: usize,
    port: Option<usize>,
}

/// A node's parts.
struct Strip {
    node: usize,
    cells: Vec<Cell>,
    /// The bridge that most pods are at.
    bridge: Option<usize>,
    uplink: Option<usize>,
    /// What is beside: tunnels, further bridges.
    devices: Vec<usize>,
}

/// What all strips have in common.
#[derive(Clone, Copy)]
struct Measures {
    columns: i32,
    cell: i32,
    gutter: i32,
    pod: i32,
    port: i32,
    devices: i32,
    width: i32,
}

impl Measures {
    fn rows(&self, strip: &Strip) -> (i32, i32) {
        let rows = (strip.cells.len() as i32 + self.columns - 1) / self.columns;
        ((rows + 1) / 2, rows / 2)
    }

    fn row(&self) -> i32 {
        self.pod + if self.port > 0 { DROP + self.port } else { 0 }
    }

    /// From the hub's middle to the strip's upper and lower edge.
    fn halves(&self, strip: &Strip) -> (i32, i32) {
        let (upper, lower) = self.rows(strip);
        let side = |rows: i32| if rows == 0 { 6 } else { DROP + rows * self.row() + (rows - 1) * ROW_GAP };
        let hub = self.hub(strip) / 2;
        let beside = strip.devices.len() as i32 * (LINE * 2 + 6 + ROW_GAP);
        (HEAD + hub + side(upper).max(beside), hub + side(lower) + PAD)
    }

    fn hub(&self, strip: &Strip) -> i32 {
        if strip.bridge.is_some() { LINE * 2 + 6 } else { RAIL }
    }

    fn height(&self, strip: &Strip) -> i32 {
        let (above, below) = self.halves(strip);
        above + below
    }
}

/// The nodes that share a switch: those of a rack, or all.
struct Group {
    rack: Option<usize>,
    strips: Vec<Strip>,
}

/// Lays a picture out.
pub(crate) fn lay_out(picture: &Picture) -> Layout {
    let groups = groups(picture);
    let nodes: usize = groups.iter().map(|group| group.strips.len()).sum();
    let most =
        groups.iter().flat_map(|group| &group.strips).map(|strip| strip.cells.len()).max().unwrap_or(0);
    let mut best: Option<(i32, Layout)> = None;
    for both_sides in [false, true] {
        if both_sides && nodes < 4 {
            continue;
        }
        for columns in 1..=most.clamp(1, 24) {
            let laid = Work::new(picture, &groups, columns as i32).run(both_sides);
            // What fits best into a page half as wide again as it is high.
            let cost = (laid.size.0 * 10 / 14).max(laid.size.1);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, laid));
            }
        }
    }
    best.map_or_else(|| Work::new(picture, &groups, 1).run(false), |(_, laid)| laid)
}

fn groups(picture: &Picture) -> Vec<Group> {
    let racks: Vec<Option<usize>> = picture
        .places
        .iter()
        .enumerate()
        .filter(|(_, place)| place.role == Role::Router)
        .map(|(number, _)| Some(number))
        .collect();
    let racks = if racks.is_empty() { vec![None] } else { racks };
    let nodes = |rack: Option<usize>| {
        let of_rack = picture.within(rack).filter(|(_, place)| place.role == Role::Node);
        of_rack.map(|(node, _)| strip(picture, node)).collect()
    };
    racks.into_iter().map(|rack| Group { rack, strips: nodes(rack) }).collect()
}

fn strip(picture: &Picture, node: usize) -> Strip {
    let links = &picture.places[node].links;
    let port = |pod: usize| {
        let own = picture
            .wires
            .iter()
            .find(|wire| wire.tie == Tie::Pair && wire.from.0 == pod && wire.to.0 == node);
        own.map(|wire| wire.to.1)
    };
    let cells: Vec<Cell> =
        picture.within(Some(node)).map(|(place, _)| Cell { place, port: port(place) }).collect();
    let is_port = |link: usize| cells.iter().any(|cell| cell.port == Some(link));
    let uplink = links.iter().position(|link| link.is_uplink);
    let ports = |bridge: usize| {
        picture.wires.iter().filter(|it| it.tie == Tie::Port && it.to == (node, bridge)).count()
    };
    let bridges = links.iter().enumerate().filter(|(_, link)| link.kind == "bridge").map(|(index, _)| index);
    let bridge = bridges.rev().max_by_key(|bridge| ports(*bridge));
    let devices = (0..links.len())
        .filter(|link| !is_port(*link) && Some(*link) != uplink && Some(*link) != bridge)
        .collect();
    Strip { node, cells, bridge, uplink, devices }
}

/// The width that a place's head needs.
fn head(place: &Place) -> i32 {
    let note = if place.note.is_empty() { 0 } else { width(&place.note, TEXT) + 10 };
    width(&short(&place.label()), TITLE) + note + 2 * PAD
}
