//! The picture as a graph of Graphviz (the DOT language): a cluster a place, a node an interface.

use super::mermaid::link_text;
use super::{Picture, Tie};

pub(super) fn render(picture: &Picture) -> String {
    let name = quoted(&format!("lab {}, mode {}", picture.name, picture.mode));
    let mut out = format!(
        "graph {name} {{\n  compound=true; rankdir=LR; fontname=\"sans-serif\"; label={name};\n  \
         node [shape=box, fontname=\"sans-serif\", fontsize=10]; edge [fontname=\"sans-serif\", fontsize=9];\n"
    );
    for (number, _) in picture.within(None) {
        write_place(&mut out, picture, number, 1);
    }
    for wire in &picture.wires {
        let style = match wire.tie {
            Tie::Pair => "bold",
            Tie::Port | Tie::Below => "solid",
            Tie::Tunnel => "dashed",
            Tie::Routed => "dotted",
        };
        let (from, to) = (quoted(&picture.at(wire.from)), quoted(&picture.at(wire.to)));
        out.push_str(&format!("  {from} -- {to} [style={style}, tooltip=\"{}\"];\n", wire.tie.words()));
    }
    out.push_str("}\n");
    out
}

fn write_place(out: &mut String, picture: &Picture, number: usize, depth: usize) {
    let place = &picture.places[number];
    let indent = "  ".repeat(depth);
    let title =
        if place.note.is_empty() { place.label() } else { format!("{}\n{}", place.label(), place.note) };
    out.push_str(&format!("{indent}subgraph {} {{\n", quoted(&format!("cluster_{}", place.name))));
    out.push_str(&format!("{indent}  label={};\n", quoted(&title)));
    for (index, link) in place.links.iter().enumerate() {
        let (at, text) = (quoted(&picture.at((number, index))), quoted(&link_text(link, "\n")));
        out.push_str(&format!("{indent}  {at} [label={text}];\n"));
    }
    if place.links.is_empty() {
        // Graphviz draws no cluster that has nothing in it.
        out.push_str(&format!("{indent}  {} [label=\"\", shape=none];\n", quoted(&place.name)));
    }
    for (inner, _) in picture.within(Some(number)) {
        write_place(out, picture, inner, depth + 1);
    }
    out.push_str(&format!("{indent}}}\n"));
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
