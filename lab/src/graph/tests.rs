//! Pictures of labs that were recorded, one in each mode.

use std::collections::BTreeSet;

use serde_json::Value;

use super::layout::{self, Layout, Rect, TEXT};
use super::{Form, Picture, Role};
use crate::modes;

fn recorded(name: &str) -> Value {
    let path = format!("{}/src/graph/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn every_recorded() -> Vec<(&'static str, Picture)> {
    let names = modes::names().chain(["racks"]);
    names.map(|name| (name, Picture::of(&recorded(name), &[]).unwrap())).collect()
}

/// A lab as it was never up, of any size, in the way of the recorded one.
fn made_up(mode: &str, nodes: usize, pods: usize) -> Value {
    let recorded = recorded(mode);
    let links = recorded["links"].as_array().unwrap();
    let text = |value: &Value, from: &str, to: &str| {
        let whole = format!("\"{from}\"");
        let with_link = format!("\"{from}/");
        let text =
            value.to_string().replace(&whole, &format!("\"{to}\"")).replace(&with_link, &format!("\"{to}/"));
        text.replace(&format!("fabric/{from}\""), &format!("fabric/{to}\""))
    };
    let mut document = recorded.clone();
    let of =
        |place: &str| links.iter().filter(move |link| link["place"] == place).cloned().collect::<Vec<_>>();
    let mut all = of("outside");
    all.extend(of("fabric").into_iter().filter(|link| !link["name"].as_str().unwrap().starts_with("node")));
    let port = of("fabric").into_iter().find(|link| link["name"] == "node1").unwrap();
    let (mut named_nodes, mut named_pods) = (Vec::new(), Vec::new());
    for node in 1..=nodes {
        let name = format!("node{node}");
        all.push(serde_json::from_str(&text(&port, "node1", &name)).unwrap());
        let mut it = recorded["nodes"][0].clone();
        it["name"] = name.as_str().into();
        named_nodes.push(it);
        let is_of_pod = |link: &Value| link["peer"].as_str().is_some_and(|peer| peer.starts_with("kubia"));
        let own = of("node1").into_iter().filter(|link| !is_of_pod(link));
        all.extend(own.map(|link| serde_json::from_str(&text(&link, "node1", &name)).unwrap()));
        for pod in 0..pods {
            let pod = format!("kubia-{}", (node - 1) * pods + pod + 1);
            let mut it = recorded["pods"][0].clone();
            (it["name"], it["node"]) = (pod.as_str().into(), name.as_str().into());
            named_pods.push(it);
            let veth = format!("veth{pod}");
            let mut near = of("kubia-1").remove(0);
            near["place"] = pod.as_str().into();
            if near["peer"].is_string() {
                near["peer"] = format!("{name}/{veth}").into();
                let mut far = of("node1").into_iter().find(is_of_pod).unwrap();
                far["place"] = name.as_str().into();
                far["name"] = veth.into();
                far["peer"] = format!("{pod}/eth0").into();
                all.push(far);
            } else {
                near["below"] = format!("{name}/eth0").into();
            }
            all.push(near);
        }
    }
    document["nodes"] = named_nodes.into();
    document["pods"] = named_pods.into();
    document["links"] = all.into();
    document
}

#[test]
fn pictures_of_every_mode_in_every_form() {
    for (name, picture) in every_recorded() {
        for form in Form::ALL {
            let form_name = format!("{form:?}").to_lowercase();
            insta::assert_snapshot!(format!("{name}-{form_name}"), picture.render(form));
        }
    }
}

/// Several hosts outside, each at a wire of its own.
fn with_hosts(mut document: Value, hosts: usize) -> Value {
    let own = |link: &Value| link["place"] == "outside" || link["name"] == "wan0";
    let all = document["links"].as_array_mut().unwrap();
    let recorded: Vec<Value> = all.iter().filter(|link| own(link)).cloned().collect();
    for number in 1..hosts {
        all.extend(recorded.iter().map(|link| {
            let text = link.to_string().replace("\"outside", &format!("\"host{number}"));
            serde_json::from_str(&text.replace("wan0\"", &format!("wan{number}\""))).unwrap()
        }));
    }
    let host = |number: usize| serde_json::json!({ "name": format!("host{number}") });
    let first = serde_json::json!({ "name": "outside" });
    document["hosts"] = [first].into_iter().chain((1..hosts).map(host)).collect();
    document
}

#[test]
fn several_hosts_outside_are_drawn_side_by_side() {
    for hosts in 1..=6 {
        let racks = Picture::of(&with_hosts(recorded("racks"), hosts), &[]).unwrap();
        check(&racks, &layout::lay_out(&racks), &format!("{hosts} hosts and racks"));
        let picture = Picture::of(&with_hosts(made_up("routed", 3, 2), hosts), &[]).unwrap();
        check(&picture, &layout::lay_out(&picture), &format!("{hosts} hosts"));
        let drawn = picture.places.iter().filter(|place| place.role == Role::Outside).count();
        assert_eq!(drawn, hosts);
        let text = picture.render(Form::Ascii);
        assert_eq!(text.contains("[wan1] -- host1  eth0 203.0.113.9/24"), hosts > 1, "{text}");
    }
}

/// No box lies over another, and what is inside is inside.
fn check(picture: &Picture, laid: &Layout, what: &str) {
    let all = Rect { x: 0, y: 0, w: laid.size.0, h: laid.size.1 };
    let apart = |boxes: &[(String, Rect)]| {
        for (index, (name, a)) in boxes.iter().enumerate() {
            assert!(all.holds(*a), "{what}: {name} is outside the picture");
            for (other, b) in &boxes[index + 1..] {
                assert!(!a.overlaps(*b), "{what}: {name} {a:?} lies over {other} {b:?}");
            }
        }
    };
    let rects = |is: &dyn Fn(Role) -> bool| -> Vec<(String, Rect)> {
        let places = picture.places.iter().zip(&laid.places);
        places.filter(|(place, _)| is(place.role)).map(|(place, rect)| (place.name.clone(), *rect)).collect()
    };
    let is_pod = |role: Role| matches!(role, Role::Pod | Role::Pods);
    apart(&rects(&|role| !is_pod(role)));
    apart(&rects(&is_pod));
    let mut links = Vec::new();
    for (number, place) in picture.places.iter().enumerate() {
        let rect = laid.places[number];
        if is_pod(place.role) {
            assert!(
                laid.places[place.within.unwrap()].holds(rect),
                "{what}: {} is not in its node",
                place.name
            );
        }
        for (index, link) in place.links.iter().enumerate() {
            let own = laid.links[number][index];
            let at = picture.at((number, index));
            assert!(rect.holds(own), "{what}: {at} {own:?} is not in {rect:?}");
            for line in layout::lines(place, link) {
                assert!(layout::width(&line, TEXT) <= own.w, "{what}: {line} is wider than {at}");
            }
            // Only a pod's own interfaces are over the pod.
            for (pod, other) in rects(&is_pod) {
                assert!(pod == place.name || !other.overlaps(own), "{what}: {at} lies over {pod}");
            }
            links.push((at, own));
        }
    }
    apart(&links);
    for (wire, line) in picture.wires.iter().zip(&laid.wires) {
        let name = format!("{what}: {} to {}", picture.at(wire.from), picture.at(wire.to));
        let on_edge = |rect: Rect, (x, y): (i32, i32)| {
            let (level, upright) = (rect.x <= x && x <= rect.right(), rect.y <= y && y <= rect.bottom());
            level && (y == rect.y || y == rect.bottom()) || upright && (x == rect.x || x == rect.right())
        };
        let (a, b) = (laid.links[wire.from.0][wire.from.1], laid.links[wire.to.0][wire.to.1]);
        assert!(on_edge(a, line[0]) && on_edge(b, *line.last().unwrap()), "{name} {line:?} {a:?} {b:?}");
        for piece in line.windows(2) {
            let ((ax, ay), (bx, by)) = (piece[0], piece[1]);
            let slim = Rect { x: ax.min(bx), y: ay.min(by), w: (ax - bx).abs(), h: (ay - by).abs() };
            for (at, other) in &links {
                assert!(
                    !slim.overlaps(*other) || *other == a || *other == b,
                    "{name} {line:?} crosses {at} {other:?}"
                );
            }
        }
    }
}

#[test]
fn no_box_lies_over_another_and_no_wire_crosses_one() {
    for (name, picture) in every_recorded() {
        check(&picture, &layout::lay_out(&picture), name);
    }
    for mode in modes::names() {
        for (nodes, pods) in
            [(1, 0), (1, 1), (1, 60), (2, 30), (3, 10), (3, 20), (4, 3), (5, 12), (12, 5), (20, 3)]
        {
            let picture = Picture::of(&made_up(mode, nodes, pods), &[]).unwrap();
            check(&picture, &layout::lay_out(&picture), &format!("{mode}, {nodes} nodes of {pods} pods"));
        }
    }
}

#[test]
fn sixty_pods_are_drawn_and_more_are_counted_but_for_those_that_are_named() {
    let drawn = |document: &Value, shown: &[String]| {
        let picture = Picture::of(document, shown).unwrap();
        check(&picture, &layout::lay_out(&picture), "a crowd");
        let pods = picture.places.iter().filter(|place| place.role == Role::Pod).count();
        let tiles: Vec<String> =
            picture.places.iter().filter(|it| it.role == Role::Pods).map(|it| it.label()).collect();
        (pods, tiles.join(", "), picture.places.iter().map(|place| place.links.len()).sum::<usize>())
    };
    assert_eq!(drawn(&made_up("routed", 3, 20), &[]), (60, String::new(), 2 + 2 + 3 + 3 * 2 + 60 * 2 - 1));
    let crowd = made_up("routed", 3, 40);
    assert_eq!(drawn(&crowd, &[]), (0, "40 pods, 40 pods, 40 pods".to_owned(), 1 + 2 + 3 + 3 * 2));
    let shown = ["kubia-1", "kubia-2", "kubia-41"].map(str::to_owned);
    assert_eq!(drawn(&crowd, &shown), (3, "38 pods, 39 pods, 40 pods".to_owned(), 1 + 2 + 3 + 3 * 2 + 3 * 2));
    let refused = Picture::of(&crowd, &["kubia-999".to_owned()]).unwrap_err();
    assert_eq!(refused, "lab \"pic\" has no node or pod \"kubia-999\"");
    assert!(Picture::of(&serde_json::json!({ "name": "x" }), &[]).is_err());
}

#[test]
fn every_interface_of_the_document_is_in_the_svg_once() {
    for name in modes::names().chain(["racks"]) {
        let document = recorded(name);
        let text = Picture::of(&document, &[]).unwrap().render(Form::Svg);
        let drawn: Vec<&str> =
            text.split("data-at=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let word = |link: &Value, key: &str| link[key].as_str().unwrap().to_owned();
        let told: BTreeSet<String> = document["links"]
            .as_array()
            .unwrap()
            .iter()
            .map(|link| format!("{}/{}", word(link, "place"), word(link, "name")))
            .collect();
        assert_eq!(drawn.len(), told.len(), "{name}");
        assert_eq!(drawn.iter().map(|at| (*at).to_owned()).collect::<BTreeSet<_>>(), told, "{name}");
        assert!(!text.contains("style=\"") && !text.contains("<script"), "{name}");
    }
}

#[test]
fn names_are_no_markup() {
    let mut document = recorded("routed");
    document["name"] = "<a>&\"".into();
    document["pods"][0]["name"] = "<b>&'\"".into();
    let picture = Picture::of(&document, &[]).unwrap();
    let svg = picture.render(Form::Svg);
    assert!(!svg.contains("<a>") && !svg.contains("<b>") && svg.contains("&lt;a&gt;&amp;&quot;"), "{svg}");
    assert!(picture.render(Form::Dot).contains(r#"graph "lab <a>&\", mode routed""#));
}

#[test]
fn a_link_that_is_down_says_so() {
    let mut document = recorded("routed");
    let links = document["links"].as_array_mut().unwrap();
    let uplink = links.iter_mut().find(|link| link["place"] == "node1" && link["name"] == "eth0").unwrap();
    uplink["up"] = false.into();
    let picture = Picture::of(&document, &[]).unwrap();
    assert!(picture.render(Form::Svg).contains("uplink down\" data-at=\"node1/eth0\""));
    assert!(picture.render(Form::Ascii).contains("node1  eth0 DOWN 192.0.2.11/24"));
}
