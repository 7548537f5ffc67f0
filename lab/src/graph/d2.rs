//! The picture as a diagram of D2: containers in containers.

use super::mermaid::link_text;
use super::{End, Picture, Tie};

pub(super) fn render(picture: &Picture) -> String {
    let mut out = format!("# lab {}, mode {}\ndirection: right\n", picture.name, picture.mode);
    for (number, _) in picture.within(None) {
        write_place(&mut out, picture, number, 0);
    }
    for wire in &picture.wires {
        let (from, to) = (path(picture, wire.from), path(picture, wire.to));
        let (arrow, style) = match wire.tie {
            Tie::Pair => ("<->", ""),
            Tie::Port | Tie::Below => ("--", ""),
            Tie::Tunnel => ("--", ": wrapped { style.stroke-dash: 5 }"),
            Tie::Routed => ("--", ": { style.stroke-dash: 2 }"),
        };
        out.push_str(&format!("{from} {arrow} {to}{style}\n"));
    }
    out
}

/// The keys of all containers around an interface, and its own.
fn path(picture: &Picture, (place, link): End) -> String {
    let mut keys = vec![quoted(&picture.places[place].links[link].name)];
    let mut at = Some(place);
    while let Some(number) = at {
        keys.push(quoted(&picture.places[number].name));
        at = picture.places[number].within;
    }
    keys.reverse();
    keys.join(".")
}

fn write_place(out: &mut String, picture: &Picture, number: usize, depth: usize) {
    let place = &picture.places[number];
    let indent = "  ".repeat(depth);
    let title =
        if place.note.is_empty() { place.label() } else { format!("{} {}", place.label(), place.note) };
    out.push_str(&format!("{indent}{}: {} {{\n", quoted(&place.name), quoted(&title)));
    for link in &place.links {
        out.push_str(&format!("{indent}  {}: {}\n", quoted(&link.name), quoted(&link_text(link, "\n"))));
    }
    for (inner, _) in picture.within(Some(number)) {
        write_place(out, picture, inner, depth + 1);
    }
    out.push_str(&format!("{indent}}}\n"));
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
