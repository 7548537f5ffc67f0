//! The picture as a flowchart of Mermaid, for Markdown.

use super::{Picture, Tie};

pub(super) fn render(picture: &Picture) -> String {
    let mut out = format!("%% lab {}, mode {}\nflowchart LR\n", picture.name, picture.mode);
    for (number, _) in picture.within(None) {
        write_place(&mut out, picture, number, 1);
    }
    for wire in &picture.wires {
        let arrow = match wire.tie {
            Tie::Pair => "<-->",
            Tie::Port | Tie::Below => "---",
            Tie::Tunnel => "-.-|wrapped|",
            Tie::Routed => "-.-",
        };
        out.push_str(&format!("  {} {arrow} {}\n", id(wire.from), id(wire.to)));
    }
    out
}

/// Names have characters that Mermaid reads otherwise; numbers have none.
fn id((place, link): super::End) -> String {
    format!("p{place}i{link}")
}

fn write_place(out: &mut String, picture: &Picture, number: usize, depth: usize) {
    let place = &picture.places[number];
    let indent = "  ".repeat(depth);
    let title =
        if place.note.is_empty() { place.label() } else { format!("{} {}", place.label(), place.note) };
    let inside: Vec<usize> = picture.within(Some(number)).map(|(number, _)| number).collect();
    if place.links.is_empty() && inside.is_empty() {
        out.push_str(&format!("{indent}p{number}[\"{}\"]\n", quoted(&title)));
        return;
    }
    out.push_str(&format!("{indent}subgraph p{number}[\"{}\"]\n", quoted(&title)));
    for (index, link) in place.links.iter().enumerate() {
        let text = link_text(link, "<br>");
        out.push_str(&format!("{indent}  {}[\"{}\"]\n", id((number, index)), quoted(&text)));
    }
    for inner in inside {
        write_place(out, picture, inner, depth + 1);
    }
    out.push_str(&format!("{indent}end\n"));
}

/// Name and addresses of an interface, with `new_line` between.
pub(super) fn link_text(link: &super::Link, new_line: &str) -> String {
    let down = if link.is_down { " DOWN" } else { "" };
    let lines = [format!("{}{down}", link.name)].into_iter().chain(link.addresses.iter().cloned());
    lines.collect::<Vec<_>>().join(new_line)
}

fn quoted(text: &str) -> String {
    text.replace('"', "#quot;")
}
