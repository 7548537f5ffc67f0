//! The picture as a diagram of draw.io (an uncompressed `mxfile`), where everything can be moved and wires follow.

use super::layout::{self, Rect};
use super::mermaid::link_text;
use super::{Picture, Role, Tie};
use crate::suites::xml as escape;

pub(super) fn render(picture: &Picture) -> String {
    let laid = layout::lay_out(picture);
    let name = escape(&format!("{} {}", picture.name, picture.mode));
    let mut out = format!(
        "<mxfile host=\"podlab\"><diagram id=\"lab\" name=\"{name}\"><mxGraphModel grid=\"0\" page=\"0\"><root>\n\
         <mxCell id=\"0\"/>\n<mxCell id=\"1\" parent=\"0\"/>\n"
    );
    for (number, place) in picture.places.iter().enumerate() {
        let fill = match place.role {
            Role::Node => "#eef3f9",
            Role::Pod | Role::Pods => "#fff8e5",
            Role::Outside => "#f3edfb",
            Role::Fabric | Role::Router => "#edf5ee",
        };
        let style =
            format!("rounded=1;arcSize=4;whiteSpace=wrap;verticalAlign=top;fontStyle=1;fillColor={fill};");
        cell(&mut out, &format!("p{number}"), &place.label(), &style, laid.places[number]);
    }
    for (number, place) in picture.places.iter().enumerate() {
        for (index, link) in place.links.iter().enumerate() {
            let id = format!("p{number}i{index}");
            let dashed = if link.is_down { "dashed=1;strokeColor=#b42318;" } else { "" };
            let style = format!("rounded=1;arcSize=8;whiteSpace=wrap;fontSize=9;{dashed}");
            cell(&mut out, &id, &link_text(link, "\n"), &style, laid.links[number][index]);
        }
    }
    for (number, wire) in picture.wires.iter().enumerate() {
        let dash = match wire.tie {
            Tie::Pair | Tie::Port | Tie::Below => "",
            Tie::Tunnel => "dashed=1;strokeColor=#8250df;",
            Tie::Routed => "dashed=1;dashPattern=1 3;",
        };
        let ((from, near), (to, far)) = (wire.from, wire.to);
        out.push_str(&format!(
            "<mxCell id=\"w{number}\" style=\"endArrow=none;{dash}\" edge=\"1\" parent=\"1\" source=\"p{from}i{near}\" \
             target=\"p{to}i{far}\"><mxGeometry relative=\"1\" as=\"geometry\"/></mxCell>\n"
        ));
    }
    out.push_str("</root></mxGraphModel></diagram></mxfile>\n");
    out
}

fn cell(out: &mut String, id: &str, text: &str, style: &str, rect: Rect) {
    let Rect { x, y, w, h } = rect;
    let text = escape(text);
    out.push_str(&format!(
        "<mxCell id=\"{id}\" value=\"{text}\" style=\"{style}\" vertex=\"1\" parent=\"1\">\
         <mxGeometry x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" as=\"geometry\"/></mxCell>\n"
    ));
}
