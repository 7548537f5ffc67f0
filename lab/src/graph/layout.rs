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

use super::{End, Link, Picture, Place, Role, Tie};

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

/// A layout under way.
struct Work<'p> {
    picture: &'p Picture,
    groups: &'p [Group],
    all: Measures,
    places: Vec<Rect>,
    links: Vec<Vec<Rect>>,
}

impl<'p> Work<'p> {
    fn new(picture: &'p Picture, groups: &'p [Group], columns: i32) -> Work<'p> {
        let strips = || groups.iter().flat_map(|group| &group.strips);
        let of = |(place, link): End| size(&picture.places[place], &picture.places[place].links[link]);
        let (mut cell, mut pod, mut port, mut devices) = (0, HEAD, 0, 0);
        let mut rows = 1;
        for strip in strips() {
            for it in &strip.cells {
                let place = &picture.places[it.place];
                let sizes: Vec<(i32, i32)> =
                    (0..place.links.len()).map(|link| of((it.place, link))).collect();
                let links: i32 = sizes.iter().map(|size| size.0 + 4).sum();
                cell = cell.max(width(&short(&place.label()), TITLE) + 12).max(links + 8);
                pod = pod.max(HEAD + sizes.iter().map(|size| size.1).max().unwrap_or(0) + 6);
                if let Some(link) = it.port {
                    let (w, h) = of((strip.node, link));
                    cell = cell.max(w);
                    port = port.max(h);
                }
            }
            cell = cell.max(strip.bridge.map_or(0, |bridge| of((strip.node, bridge)).0));
            let beside = strip.devices.iter().chain(&strip.uplink).map(|link| of((strip.node, *link)).0);
            devices = devices.max(beside.max().unwrap_or(0));
            rows = rows.max((strip.cells.len() as i32 + columns - 1) / columns);
        }
        let gutter = 8 + 4 * ((rows + 1) / 2 - 1);
        let heads = strips().map(|strip| head(&picture.places[strip.node])).max().unwrap_or(0);
        let width = (PAD + columns * (cell + gutter) + SPAN / 2 + devices + PAD).max(heads);
        let all = Measures { columns, cell, gutter, pod, port, devices, width };
        let links = picture.places.iter().map(|place| vec![Rect::default(); place.links.len()]).collect();
        Work { picture, groups, all, places: vec![Rect::default(); picture.places.len()], links }
    }

    fn size(&self, (place, link): End) -> (i32, i32) {
        size(&self.picture.places[place], &self.picture.places[place].links[link])
    }

    /// Puts a link so that its middle is there.
    fn put(&mut self, end: End, (x, y): (i32, i32)) {
        let (w, h) = self.size(end);
        self.links[end.0][end.1] = Rect { x: x - w / 2, y: y - h / 2, w, h };
    }

    fn widest(&self, ends: impl Iterator<Item = End>) -> i32 {
        ends.map(|end| self.size(end).0).max().unwrap_or(0)
    }

    fn run(mut self, both_sides: bool) -> Layout {
        let picture = self.picture;
        let groups = self.groups;
        let racked = groups.iter().any(|group| group.rack.is_some());
        // The groups, or the nodes of the only one, are dealt to the sides.
        let strips: Vec<(usize, &Strip)> = groups
            .iter()
            .enumerate()
            .flat_map(|(number, group)| group.strips.iter().map(move |strip| (number, strip)))
            .collect();
        let unit = |index: usize| if racked { strips[index].0 } else { index };
        let units = if racked { groups.len() } else { strips.len() };
        let is_left = |index: usize| !both_sides || unit(index) < units.div_ceil(2);
        let rack_ports = |group: &Group| {
            let rack = group.rack.unwrap_or_default();
            (0..picture.places[rack].links.len()).map(move |link| (rack, link))
        };
        let rack_width = match racked {
            true => groups.iter().map(|group| self.switch_width(rack_ports(group))).max().unwrap_or(0),
            false => 0,
        };
        let fabric = picture.places.iter().position(|place| place.role == Role::Fabric).unwrap_or(0);
        let own = |end: End| (0..picture.places[end.0].links.len()).map(move |link| (end.0, link));
        let fabric_width = {
            let one = self.switch_width(own((fabric, 0)));
            let port = self.widest(own((fabric, 0)).filter(|end| self.is_wire_down(*end)));
            let inner = if both_sides { one + port + SPAN / 2 } else { one };
            let links = self.widest(own((fabric, 0)));
            inner.max(head(&picture.places[fabric])).max(links + 2 * PAD)
        };
        let side = self.all.width + SPAN + if racked { rack_width + SPAN } else { 0 };
        let fabric_x = MARGIN + side;
        let mut bottoms = [MARGIN, MARGIN];
        let mut last: [Option<usize>; 2] = [None, None];
        for (index, (group, strip)) in strips.iter().enumerate() {
            let left = is_left(index);
            let column = usize::from(!left);
            let gap = match last[column] {
                None => 0,
                Some(before) if before == *group => STRIP_GAP,
                Some(_) => RACK_GAP,
            };
            last[column] = Some(*group);
            let y = bottoms[column] + gap;
            let x = if left { MARGIN } else { fabric_x + fabric_width + side - self.all.width };
            bottoms[column] = y + self.all.height(strip);
            self.strip(strip, x, y, left);
        }
        let bottom = bottoms[0].max(bottoms[1]).max(MARGIN + 80);
        for group in groups.iter().filter(|group| group.rack.is_some()) {
            let Some(rack) = group.rack else { continue };
            let Some(first) = strips.iter().position(|(number, _)| groups[*number].rack == group.rack) else {
                continue;
            };
            let left = is_left(first);
            let x = if left { MARGIN + self.all.width + SPAN } else { fabric_x + fabric_width + SPAN };
            let tops = group.strips.iter().map(|strip| self.places[strip.node]);
            let top = tops.clone().map(|it| it.y).min().unwrap_or(MARGIN);
            let end = tops.map(|it| it.bottom()).max().unwrap_or(top);
            self.switch(rack, Rect { x, y: top, w: rack_width, h: end - top }, None, left);
        }
        // The fabric is a little longer than the nodes: its way out is below.
        let wan = picture.places[fabric].links.iter().position(|link| link.name == crate::fabric::WAN);
        let room = if wan.is_some() { LINE * 2 + 6 + 18 } else { 0 };
        let rect = Rect { x: fabric_x, y: MARGIN, w: fabric_width, h: bottom - MARGIN + room };
        self.switch(fabric, rect, wan, true);
        let outside_bottom = self.outside(rect);
        let right = if both_sides { fabric_x + fabric_width + side } else { rect.right() };
        let legend = outside_bottom.max(rect.bottom()) + 10;
        let wires = self.wires();
        Layout {
            size: (right + MARGIN, legend + LEGEND + 6),
            places: self.places,
            links: self.links,
            wires,
            legend,
        }
    }

    /// Whether a link of a switch leads to a node or rack below it.
    fn is_wire_down(&self, end: End) -> bool {
        let is_inner = |place: usize| self.picture.places[place].role != Role::Outside;
        self.picture.wires.iter().any(|wire| wire.tie == Tie::Pair && wire.to == end && is_inner(wire.from.0))
    }

    /// Ports, the bar between, and the link away.
    fn switch_width(&self, ends: impl Iterator<Item = End> + Clone) -> i32 {
        let picture = self.picture;
        let link = |end: &End| &picture.places[end.0].links[end.1];
        let ports = self.widest(ends.clone().filter(|end| self.is_wire_down(*end)));
        // The way out is below the bar.
        let is_in_bar = |end: &End| link(end).kind == "bridge" || link(end).name == crate::fabric::WAN;
        let bar = self.widest(ends.clone().filter(is_in_bar));
        let away = self.widest(ends.filter(|end| link(end).is_uplink));
        let parts = [ports, bar, away];
        let used = parts.iter().filter(|part| **part > 0).count() as i32;
        parts.iter().sum::<i32>() + (used - 1).max(0) * SPAN / 2 + 2 * PAD
    }

    /// A fabric or rack: its ports at the side of the nodes, the switch upright, the link away on the other side or below.
    fn switch(&mut self, place: usize, rect: Rect, wan: Option<usize>, left: bool) {
        self.places[place] = rect;
        let picture = self.picture;
        let links = &picture.places[place].links;
        let ports: Vec<(usize, End)> = picture
            .wires
            .iter()
            .filter(|wire| wire.tie == Tie::Pair && wire.to.0 == place && Some(wire.to.1) != wan)
            .map(|wire| (wire.to.1, wire.from))
            .collect();
        let ports_width = self.widest(ports.iter().map(|(link, _)| (place, *link)));
        for (link, far) in &ports {
            let (_, y) = self.links[far.0][far.1].center();
            let on_left = self.links[far.0][far.1].x < rect.x;
            let w = self.size((place, *link)).0;
            let x = if on_left { rect.x + PAD + w / 2 } else { rect.right() - PAD - w + w / 2 };
            self.put((place, *link), (x, y));
        }
        let bar = links.iter().position(|link| link.kind == "bridge");
        let both = ports.iter().any(|(link, _)| self.links[place][*link].x > rect.center().0);
        if let Some(bar) = bar {
            let w = self.widest([bar].into_iter().chain(wan).map(|link| (place, link)));
            let x = match (wan.is_some(), left) {
                (true, _) if both => rect.center().0 - w / 2,
                (_, true) => rect.x + PAD + ports_width + SPAN / 2,
                (_, false) => rect.right() - PAD - ports_width - SPAN / 2 - w,
            };
            let foot = if wan.is_some() { LINE * 2 + 6 + 18 } else { 0 };
            self.links[place][bar] = Rect { x, y: rect.y + HEAD, w, h: rect.h - HEAD - PAD - foot };
        }
        let middle = match bar {
            Some(bar) => self.links[place][bar].center().0,
            None if both => rect.center().0,
            None => rect.right(),
        };
        for (link, it) in links.iter().enumerate() {
            if Some(link) == wan {
                let half = self.size((place, link)).0 / 2;
                let x = middle.clamp(rect.x + PAD + half, rect.right() - PAD - half);
                self.put((place, link), (x, rect.bottom() - PAD - (LINE * 2 + 6) / 2));
            } else if it.is_uplink {
                let w = self.size((place, link)).0;
                let x = if left { rect.right() - PAD - w + w / 2 } else { rect.x + PAD + w / 2 };
                self.put((place, link), (x, rect.y + rect.h / 2));
            }
        }
    }

    /// The host outside, below the fabric's way out. Returns its lower edge.
    fn outside(&mut self, fabric: Rect) -> i32 {
        let picture = self.picture;
        let Some(number) = picture.places.iter().position(|place| place.role == Role::Outside) else {
            return fabric.bottom();
        };
        let place = &picture.places[number];
        let above = picture.wires.iter().find(|wire| wire.tie == Tie::Pair && wire.from.0 == number);
        let middle = above.map_or(fabric.center().0, |wire| self.links[wire.to.0][wire.to.1].center().0);
        let w = self.widest((0..place.links.len()).map(|link| (number, link))).max(head(place)) + 2 * PAD;
        let h = HEAD + place.links.len() as i32 * (LINE * 2 + 10) + 4;
        let rect = Rect { x: middle - w / 2, y: fabric.bottom() + 24, w, h };
        self.places[number] = rect;
        for link in 0..place.links.len() {
            let half = (LINE * 2 + 6) / 2;
            // Its interface is at the upper edge, towards the fabric; its name below.
            self.put((number, link), (middle, rect.y + 6 + half + link as i32 * (LINE * 2 + 10)));
        }
        rect.bottom()
    }

    /// A node, its upper left corner at `x`, `y`; mirrored where the fabric is to its left.
    fn strip(&mut self, strip: &Strip, x: i32, y: i32, left: bool) {
        let all = self.all;
        let (above, below) = all.halves(strip);
        let rect = Rect { x, y, w: all.width, h: above + below };
        self.places[strip.node] = rect;
        let mirror = |it: Rect| if left { it } else { Rect { x: 2 * rect.x + rect.w - it.x - it.w, ..it } };
        let (middle, hub) = (y + above, all.hub(strip));
        let cells = all.columns * (all.cell + all.gutter);
        if let Some(bridge) = strip.bridge {
            let bar = Rect { x: x + PAD, y: middle - hub / 2, w: cells, h: hub };
            self.links[strip.node][bridge] = mirror(bar);
        }
        let beside = rect.right() - PAD - all.devices / 2;
        let shift = |link: usize, work: &Work<'_>| {
            let (w, h) = work.size((strip.node, link));
            (w, h)
        };
        if let Some(uplink) = strip.uplink {
            let (w, h) = shift(uplink, self);
            let put = Rect { x: beside - w / 2, y: middle - h / 2, w, h };
            self.links[strip.node][uplink] = mirror(put);
        }
        for (index, device) in strip.devices.iter().enumerate() {
            let (w, h) = shift(*device, self);
            let step = LINE * 2 + 6 + ROW_GAP;
            let y = middle - (index as i32 + 1) * step - h / 2;
            self.links[strip.node][*device] = mirror(Rect { x: beside - w / 2, y, w, h });
        }
        let (upper, _) = all.rows(strip);
        for (index, cell) in strip.cells.iter().enumerate() {
            let (row, column) = (index as i32 / all.columns, index as i32 % all.columns);
            let cell_x = x + PAD + all.gutter + column * (all.cell + all.gutter);
            let is_upper = row < upper;
            // The row next to the hub is the first of its side.
            let nth = if is_upper { upper - 1 - row } else { row - upper };
            let near = hub / 2 + DROP + nth * (all.row() + ROW_GAP);
            let far = near + all.row();
            let pod_y = if is_upper { middle - far } else { middle + far - all.pod };
            let pod = Rect { x: cell_x, y: pod_y, w: all.cell, h: all.pod };
            self.places[cell.place] = mirror(pod);
            if let Some(port) = cell.port {
                let (w, h) = self.size((strip.node, port));
                let port_y = if is_upper { middle - near - h } else { middle + near };
                let put = Rect { x: cell_x + (all.cell - w) / 2, y: port_y, w, h };
                self.links[strip.node][port] = mirror(put);
            }
            let place = &self.picture.places[cell.place];
            let sizes: Vec<(i32, i32)> =
                (0..place.links.len()).map(|link| self.size((cell.place, link))).collect();
            let mut link_x = cell_x + (all.cell - sizes.iter().map(|size| size.0 + 4).sum::<i32>() + 4) / 2;
            for (link, (w, h)) in sizes.into_iter().enumerate() {
                // The interface is at the edge towards the hub.
                let link_y = if is_upper { pod.bottom() - 5 - h } else { pod.y + 5 };
                self.links[cell.place][link] = mirror(Rect { x: link_x, y: link_y, w, h });
                link_x += w + 4;
            }
        }
    }

    fn wires(&self) -> Vec<Vec<(i32, i32)>> {
        let routed = |wire: &super::Wire| wire.tie == Tie::Routed;
        let all = self.picture.wires.iter();
        all.map(|wire| {
            let (a, b) = (self.links[wire.from.0][wire.from.1], self.links[wire.to.0][wire.to.1]);
            let into_node = self.picture.places[wire.to.0].role == Role::Node;
            match wire.tie {
                Tie::Port | Tie::Below if into_node => self.to_hub(wire.from, b, wire.tie == Tie::Below),
                // Without a bridge the routes begin at the pods' pairs.
                _ if routed(wire) && into_node && self.is_port(wire.from) => self.to_hub(wire.from, b, true),
                _ if routed(wire) && into_node && !level_with(a, b) => bent(a, b),
                _ if routed(wire) && !into_node && self.is_port(wire.from) => down_beside(a, b),
                _ => straight(a, b),
            }
        })
        .collect()
    }

    /// Whether a wire to a place below begins there.
    fn is_port(&self, end: End) -> bool {
        self.picture.wires.iter().any(|it| it.tie == Tie::Pair && it.to == end)
    }

    /// From a pod's link or its pair's end to the bridge, or along the rail to the uplink.
    fn to_hub(&self, from: End, hub: Rect, by_rail: bool) -> Vec<(i32, i32)> {
        let a = self.links[from.0][from.1];
        let (x, y) = a.center();
        let rail = hub.center().1;
        let is_upper = y < rail;
        let (start, edge) = match is_upper {
            true => (a.bottom(), if by_rail { rail } else { hub.y }),
            false => (a.y, if by_rail { rail } else { hub.bottom() }),
        };
        let mut line = vec![(x, start)];
        // Rows that are not next to the hub pass the others in a gap, each row in a lane of its own.
        let row = rows_between(self.all, (edge - start).abs());
        if row > 0 {
            let turn = if is_upper { start + 6 } else { start - 6 };
            let lane = self.lane(from, row);
            line.extend([(x, turn), (lane, turn)]);
            line.push((lane, edge));
        } else {
            line.push((x, edge));
        }
        if by_rail {
            let last = line.last().map_or(x, |point| point.0);
            line.push((if last < hub.x { hub.x } else { hub.right() }, rail));
        }
        line
    }

    /// The lane of a row in the gap before its column.
    fn lane(&self, from: End, row: i32) -> i32 {
        let place = match self.picture.places[from.0].role {
            Role::Pod => from.0,
            _ => {
                let pair = self.picture.wires.iter().find(|it| it.tie == Tie::Pair && it.to == from);
                pair.map_or(from.0, |wire| wire.from.0)
            }
        };
        self.places[place].x - 4 - 4 * (row - 1)
    }
}

/// How many rows are between a link and its hub, by the distance.
fn rows_between(all: Measures, distance: i32) -> i32 {
    (distance - DROP) / (all.row() + ROW_GAP).max(1)
}

/// The width that a place's head needs.
fn head(place: &Place) -> i32 {
    let note = if place.note.is_empty() { 0 } else { width(&place.note, TEXT) + 10 };
    width(&short(&place.label()), TITLE) + note + 2 * PAD
}

/// From the side of a port of the fabric down to the way out.
fn down_beside(a: Rect, b: Rect) -> Vec<(i32, i32)> {
    let (y, x) = (a.center().1, b.center().0);
    vec![(if x > a.center().0 { a.right() } else { a.x }, y), (x, y), (x, b.y)]
}

fn level_with(a: Rect, b: Rect) -> bool {
    a.y < b.bottom() && b.y < a.bottom()
}

/// From the side of one box to the side of another that is higher or lower, beside the level way to a third.
fn bent(a: Rect, b: Rect) -> Vec<(i32, i32)> {
    let ((ax, ay), (bx, by)) = (a.center(), b.center());
    let y = if by < ay { ay - 6 } else { ay + 6 };
    let (start, end) = if ax < bx { (a.right(), b.x) } else { (a.x, b.right()) };
    let corner = if ax < bx { start + 10 } else { start - 10 };
    vec![(start, y), (corner, y), (corner, by), (end, by)]
}

/// From box to box: level or upright where they face each other, else with a corner or two.
fn straight(a: Rect, b: Rect) -> Vec<(i32, i32)> {
    let ((ax, ay), (bx, by)) = (a.center(), b.center());
    let level = |a: Rect, b: Rect, y: i32| {
        if a.right() <= b.x { vec![(a.right(), y), (b.x, y)] } else { vec![(a.x, y), (b.right(), y)] }
    };
    let beside = a.right() <= b.x || b.right() <= a.x;
    let (top, bottom) = (a.y.max(b.y), a.bottom().min(b.bottom()));
    if beside && top < bottom {
        // At the height of the smaller one.
        let y = if a.h < b.h { ay } else { by };
        return level(a, b, y.clamp(top, bottom));
    }
    if a.x.max(b.x) < a.right().min(b.right()) {
        let x = if a.w < b.w { ax } else { bx };
        return if ay < by { vec![(x, a.bottom()), (x, b.y)] } else { vec![(x, a.y), (x, b.bottom())] };
    }
    // From the side of the one to the other's side or edge.
    let start = if ax < bx { a.right() } else { a.x };
    if b.h < a.h || (by - ay).abs() < 40 {
        let end = if ax < bx { b.x } else { b.right() };
        let corner = (start + end) / 2;
        return vec![(start, ay), (corner, ay), (corner, by), (end, by)];
    }
    vec![(start, ay), (bx, ay), (bx, if by > ay { b.y } else { b.bottom() })]
}
