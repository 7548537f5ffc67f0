//! A layout under way: with a number of columns that is given, everything gets its place.

use super::super::{End, Picture, Role, Tie};
use super::LEGEND;
use super::{
    DROP, Group, HEAD, LINE, Layout, MARGIN, Measures, PAD, RACK_GAP, ROW_GAP, Rect, SPAN, STRIP_GAP, Strip,
    TITLE, head, short, size, width,
};
use crate::fabric::is_wan;

/// A layout under way.
pub(super) struct Work<'p> {
    pub(super) picture: &'p Picture,
    groups: &'p [Group],
    pub(super) all: Measures,
    pub(super) places: Vec<Rect>,
    pub(super) links: Vec<Vec<Rect>>,
}

impl<'p> Work<'p> {
    pub(super) fn new(picture: &'p Picture, groups: &'p [Group], columns: i32) -> Work<'p> {
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

    pub(super) fn run(mut self, both_sides: bool) -> Layout {
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
            // Hosts outside stand side by side below it.
            let hosts: i32 = self.hosts().map(|host| self.host_width(host) + SPAN).sum();
            let below = if self.hosts().count() > 1 { hosts + 2 * PAD } else { 0 };
            inner.max(head(&picture.places[fabric])).max(links + 2 * PAD).max(below)
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
            self.switch(rack, Rect { x, y: top, w: rack_width, h: end - top }, &[], left);
        }
        // The fabric is a little longer than the nodes: its way out is below.
        let wans = picture.places[fabric].links.iter().enumerate().filter(|(_, link)| is_wan(&link.name));
        let wans: Vec<usize> = wans.map(|(number, _)| number).collect();
        let room = if wans.is_empty() { 0 } else { LINE * 2 + 6 + 18 };
        let rect = Rect { x: fabric_x, y: MARGIN, w: fabric_width, h: bottom - MARGIN + room };
        self.switch(fabric, rect, &wans, true);
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
        let is_in_bar = |end: &End| link(end).kind == "bridge" || is_wan(&link(end).name);
        let bar = self.widest(ends.clone().filter(is_in_bar));
        let away = self.widest(ends.filter(|end| link(end).is_uplink));
        let parts = [ports, bar, away];
        let used = parts.iter().filter(|part| **part > 0).count() as i32;
        parts.iter().sum::<i32>() + (used - 1).max(0) * SPAN / 2 + 2 * PAD
    }

    /// A fabric or rack: its ports at the side of the nodes, the switch upright, the link away on the other side or below.
    fn switch(&mut self, place: usize, rect: Rect, wans: &[usize], left: bool) {
        self.places[place] = rect;
        let picture = self.picture;
        let links = &picture.places[place].links;
        let ports: Vec<(usize, End)> = picture
            .wires
            .iter()
            .filter(|wire| wire.tie == Tie::Pair && wire.to.0 == place && !wans.contains(&wire.to.1))
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
            let w = self.widest([bar].into_iter().chain(wans.iter().copied()).map(|link| (place, link)));
            let x = match (!wans.is_empty(), left) {
                (true, _) if both => rect.center().0 - w / 2,
                (_, true) => rect.x + PAD + ports_width + SPAN / 2,
                (_, false) => rect.right() - PAD - ports_width - SPAN / 2 - w,
            };
            let foot = if !wans.is_empty() { LINE * 2 + 6 + 18 } else { 0 };
            self.links[place][bar] = Rect { x, y: rect.y + HEAD, w, h: rect.h - HEAD - PAD - foot };
        }
        let middle = match bar {
            Some(bar) => self.links[place][bar].center().0,
            None if both => rect.center().0,
            None => rect.right(),
        };
        for (link, it) in links.iter().enumerate() {
            if wans.contains(&link) {
                let half = self.size((place, link)).0 / 2;
                // Of several each has its host below it.
                let x = match wans {
                    [_] => middle.clamp(rect.x + PAD + half, rect.right() - PAD - half),
                    _ => rect.x + PAD + self.host_middle((place, link)),
                };
                self.put((place, link), (x, rect.bottom() - PAD - (LINE * 2 + 6) / 2));
            } else if it.is_uplink {
                let w = self.size((place, link)).0;
                let x = if left { rect.right() - PAD - w + w / 2 } else { rect.x + PAD + w / 2 };
                self.put((place, link), (x, rect.y + rect.h / 2));
            }
        }
    }

    /// The hosts outside.
    pub(super) fn hosts(&self) -> impl Iterator<Item = usize> + use<'p> {
        let numbered = self.picture.places.iter().enumerate();
        numbered.filter(|(_, place)| place.role == Role::Outside).map(|(number, _)| number)
    }

    /// Where in the row of hosts the one at the other end of that wire has its middle.
    fn host_middle(&self, wan: End) -> i32 {
        let own = self.picture.wires.iter().find(|wire| wire.tie == Tie::Pair && wire.to == wan);
        let own = own.map(|wire| wire.from.0);
        let before = self.hosts().take_while(|host| Some(*host) != own);
        let x: i32 = before.map(|host| self.host_width(host) + SPAN).sum();
        x + own.map_or(0, |host| self.host_width(host) + SPAN) / 2
    }

    fn host_width(&self, number: usize) -> i32 {
        let place = &self.picture.places[number];
        self.widest((0..place.links.len()).map(|link| (number, link))).max(head(place)) + 2 * PAD
    }

    /// The hosts outside, below the fabric's ways out. Returns their lower edge.
    fn outside(&mut self, fabric: Rect) -> i32 {
        let numbers: Vec<usize> = self.hosts().collect();
        numbers.into_iter().map(|number| self.host(number, fabric)).max().unwrap_or(fabric.bottom())
    }

    fn host(&mut self, number: usize, fabric: Rect) -> i32 {
        let picture = self.picture;
        let place = &picture.places[number];
        let above = picture.wires.iter().find(|wire| wire.tie == Tie::Pair && wire.from.0 == number);
        let middle = above.map_or(fabric.center().0, |wire| self.links[wire.to.0][wire.to.1].center().0);
        let w = self.host_width(number);
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
}
