//! The lines of wires, from box to box.

use super::super::{End, Role, Tie, Wire};
use super::work::Work;
use super::{DROP, Measures, ROW_GAP, Rect};

impl Work<'_> {
    pub(super) fn wires(&self) -> Vec<Vec<(i32, i32)>> {
        let routed = |wire: &Wire| wire.tie == Tie::Routed;
        let all = self.picture.wires.iter();
        all.map(|wire| {
            let (a, b) = (self.links[wire.from.0][wire.from.1], self.links[wire.to.0][wire.to.1]);
            let into_node = self.picture.places[wire.to.0].role == Role::Node;
            match wire.tie {
                Tie::Port | Tie::Below if into_node => self.to_hub(wire.from, b, wire.tie == Tie::Below),
                // Without a bridge the routes begin at the pods' pairs.
                _ if routed(wire) && into_node && self.is_port(wire.from) => self.to_hub(wire.from, b, true),
                _ if routed(wire) && into_node && !level_with(a, b) => bent(a, b),
                // One way out of several: by the middle, where no port is, and along above the ways out.
                _ if routed(wire) && !into_node && self.is_port(wire.from) && self.hosts().count() > 1 => {
                    let mut line = down_beside(a, self.places[wire.to.0]);
                    line.pop();
                    let (x, y) = (line.last().map_or(a.x, |last| last.0), b.y - 9);
                    line.extend([(x, y), (b.center().0, y), (b.center().0, b.y)]);
                    line
                }
                _ if routed(wire) && !into_node && self.is_port(wire.from) => down_beside(a, b),
                _ if routed(wire)
                    && !into_node
                    && (b.right() < a.x || b.x > a.right())
                    && b.y > a.bottom() =>
                {
                    over_the_ways_out(a, b)
                }
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

/// From the fabric's switch down, along above the ways out and to one of them.
fn over_the_ways_out(a: Rect, b: Rect) -> Vec<(i32, i32)> {
    let ((from, _), (to, _)) = (a.center(), b.center());
    let y = (a.bottom() + b.y) / 2;
    vec![(from, a.bottom()), (from, y), (to, y), (to, b.y)]
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
