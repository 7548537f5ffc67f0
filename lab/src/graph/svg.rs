//! The picture as SVG (SVG 2), to stand alone and to be part of a page: every place and interface can be found by name
//! (`data-place`, `data-at`), colours are CSS custom properties that a page may set otherwise, and nothing in it runs.

use super::layout::{self, Layout, Rect, TEXT, TITLE};
use super::{Picture, Place, Role, Tie};
use crate::suites::xml as escape;

/// The text of the one style element. A page with a content security policy names it by its digest.
pub const STYLE: &str = include_str!("picture.css");

pub(super) fn render(picture: &Picture) -> String {
    let laid = layout::lay_out(picture);
    let (w, h) = laid.size;
    let title = escape(&format!("Lab {}, mode {}", picture.name, picture.mode));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"list\" class=\"picture\" viewBox=\"0 0 {w} {h}\" \
         width=\"{w}\" height=\"{h}\" data-schema=\"podlab.picture/1\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n<rect class=\"paper\" width=\"{w}\" height=\"{h}\"/>\n"
    );
    for (number, place) in picture.places.iter().enumerate() {
        write_place(&mut out, picture, &laid, number, place);
    }
    out.push_str("<g class=\"wires\" aria-hidden=\"true\">\n");
    for (wire, line) in picture.wires.iter().zip(&laid.wires) {
        let path: String = line
            .iter()
            .enumerate()
            .map(|(index, (x, y))| format!("{}{x} {y}", if index == 0 { "M" } else { "L" }))
            .collect();
        let (from, to) = (escape(&picture.at(wire.from)), escape(&picture.at(wire.to)));
        let word = wire.tie.word();
        out.push_str(&format!(
            "<path class=\"wire {word}\" data-from=\"{from}\" data-to=\"{to}\" d=\"{path}\"/>\n"
        ));
    }
    out.push_str("</g>\n");
    legend(&mut out, picture, &laid);
    out.push_str("</svg>\n");
    out
}

/// What a place is, in words.
fn description(picture: &Picture, place: &Place) -> String {
    let within = place.within.map(|within| picture.places[within].name.as_str());
    let what = match (place.role, within) {
        (Role::Pod, Some(node)) => format!("pod on {node}"),
        (Role::Pods, Some(node)) => format!("pods on {node} that are not drawn"),
        (Role::Pod | Role::Pods, None) => "pods".to_owned(),
        (Role::Node, Some(rack)) => format!("node in {rack}"),
        (Role::Node, None) => "node".to_owned(),
        (Role::Router, _) => "switch and router of a rack".to_owned(),
        (Role::Fabric, _) => "router between the nodes and the world outside".to_owned(),
        (Role::Outside, _) => "host outside the cluster".to_owned(),
    };
    let note = if place.note.is_empty() { String::new() } else { format!(", pods in {}", place.note) };
    let links: Vec<String> = place.links.iter().map(link_words).collect();
    let links = if links.is_empty() { String::new() } else { format!(": {}", links.join("; ")) };
    format!("{what}{note}{links}")
}

fn link_words(link: &super::Link) -> String {
    let mut words = vec![link.name.clone()];
    words.extend(Some(&link.kind).filter(|kind| !kind.is_empty()).map(|kind| format!("({kind})")));
    words.extend(link.addresses.iter().cloned());
    words.extend(link.is_down.then(|| "down".to_owned()));
    words.join(" ")
}

fn write_place(out: &mut String, picture: &Picture, laid: &Layout, number: usize, place: &Place) {
    let rect = laid.places[number];
    let tile = if place.role == Role::Pods { " tile" } else { "" };
    out.push_str(&format!(
        "<g class=\"place {}{tile}\" data-place=\"{}\" role=\"listitem\"><title>{}</title><desc>{}</desc>",
        place.role.word(),
        escape(&place.name),
        escape(&place.label()),
        escape(&description(picture, place)),
    ));
    box_of(out, rect, 6);
    let label = escape(&layout::short(&place.label()));
    // Names are above, but where an interface is at the upper edge.
    let is_below = place.links.iter().enumerate().any(|(link, _)| {
        let it = laid.links[number][link];
        matches!(place.role, Role::Pod | Role::Outside) && it.y - rect.y < 12
    });
    let y = if is_below { rect.bottom() - 8 } else { rect.y + 15 };
    match place.role {
        Role::Pod | Role::Outside => {
            out.push_str(&format!(
                "<text class=\"name middle\" x=\"{}\" y=\"{y}\">{label}</text>",
                rect.center().0
            ));
        }
        Role::Pods => {
            let (x, y) = (rect.center().0, rect.y + rect.h / 2 + 4);
            out.push_str(&format!("<text class=\"name middle\" x=\"{x}\" y=\"{y}\">{label}</text>"));
        }
        Role::Node | Role::Router | Role::Fabric => {
            let x = rect.x + 8;
            out.push_str(&format!("<text class=\"name\" x=\"{x}\" y=\"{y}\">{label}</text>"));
            if !place.note.is_empty() {
                let x = x + layout::width(&label, TITLE) + 8;
                let note = escape(&place.note);
                out.push_str(&format!("<text class=\"note\" x=\"{x}\" y=\"{y}\">{note}</text>"));
            }
        }
    }
    out.push('\n');
    for (index, link) in place.links.iter().enumerate() {
        let rect = laid.links[number][index];
        let mut class = match link.kind.as_str() {
            _ if link.is_uplink || place.role == Role::Outside => "uplink".to_owned(),
            "" => "device".to_owned(),
            kind => kind.chars().filter(char::is_ascii_alphanumeric).collect(),
        };
        if link.is_down {
            class += " down";
        }
        let at = escape(&picture.at((number, index)));
        out.push_str(&format!("<g class=\"interface {class}\" data-at=\"{at}\">"));
        box_of(out, rect, 3);
        let lines = layout::lines(place, link);
        let (x, middle) = rect.center();
        let top = middle - (lines.len() as i32 * layout::LINE) / 2;
        for (row, line) in lines.iter().enumerate() {
            let y = top + row as i32 * layout::LINE + TEXT - 1;
            let class = if row == 0 { "link middle" } else { "address middle" };
            out.push_str(&format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(line)));
        }
        out.push_str(&format!("<title>{}</title></g>\n", escape(&format!("{at}: {}", link_words(link)))));
    }
    out.push_str("</g>\n");
}

fn box_of(out: &mut String, rect: Rect, radius: i32) {
    let Rect { x, y, w, h } = rect;
    out.push_str(&format!("<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"{radius}\"/>"));
}

/// What the kinds of lines mean, of those that there are.
fn legend(out: &mut String, picture: &Picture, laid: &Layout) {
    let y = laid.legend + layout::LEGEND / 2;
    out.push_str("<g class=\"legend\" aria-hidden=\"true\">");
    let mut x = 14;
    for tie in Tie::ALL.into_iter().filter(|tie| picture.wires.iter().any(|wire| wire.tie == *tie)) {
        let (end, text) = (x + 28, tie.words());
        out.push_str(&format!(
            "<path class=\"sample {}\" d=\"M{x} {y}L{end} {y}\"/><text class=\"note\" x=\"{}\" y=\"{}\">{text}</text>",
            tie.word(),
            end + 6,
            y + 3
        ));
        x = end + 6 + layout::width(text, TEXT) + 16;
    }
    out.push_str("</g>\n");
}
