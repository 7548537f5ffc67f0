//! The picture as text of ASCII alone: a tree of wires, from the host outside inwards.
//!
//! ```text
//! lab demo, mode routed
//!
//! outside  eth0 203.0.113.9/24
//!  `-- fabric  wan0 203.0.113.1/24  lan0 192.0.2.1/24
//!       |-- [node1] -- node1  eth0 192.0.2.11/24  pods 10.244.1.0/24
//!       |    `-- cni0 10.244.1.1/24
//!       |         |-- [vethc2ac42f8] -- kubia-1  eth0 10.244.1.2/24
//! ```

use super::mermaid::link_text;
use super::{End, Picture, Role, Tie};

pub(super) fn render(picture: &Picture) -> String {
    let mut out = format!("lab {}, mode {}\n\n", picture.name, picture.mode);
    let tree = tree(picture);
    write(&mut out, &tree, "");
    out
}

/// A line and what hangs at it.
#[derive(Default)]
struct Branch {
    text: String,
    twigs: Vec<Branch>,
}

fn write(out: &mut String, branch: &Branch, indent: &str) {
    out.push_str(&format!("{}\n", branch.text));
    for (index, twig) in branch.twigs.iter().enumerate() {
        let (arm, rest) = if index + 1 == branch.twigs.len() { ("`-- ", "     ") } else { ("|-- ", "|    ") };
        out.push_str(&format!("{indent} {arm}"));
        write(out, twig, &format!("{indent} {rest}"));
    }
}

fn tree(picture: &Picture) -> Branch {
    let of_role = |role: Role| -> Vec<usize> {
        let all = picture.places.iter().enumerate();
        all.filter(|(_, place)| place.role == role).map(|(number, _)| number).collect()
    };
    let (fabrics, hosts) = (of_role(Role::Fabric), of_role(Role::Outside));
    let Some(&number) = fabrics.first() else { return Branch::default() };
    let mut fabric = switch(picture, number, None);
    let text = |host: usize| format!("{}  {}", picture.places[host].name, own(picture, host, &|_| true));
    match hosts.as_slice() {
        [] => fabric,
        [host] => Branch { text: text(*host), twigs: vec![fabric] },
        // There is no one way in: the fabric comes first, and hosts hang at it as nodes do.
        hosts => {
            let pair = |host: usize| {
                picture.wires.iter().find(move |wire| wire.tie == Tie::Pair && wire.from.0 == host)
            };
            let twig = |host: &usize| {
                let port = pair(*host).map(|wire| wire.to);
                Branch { text: format!("{}{}", by(picture, port), text(*host)), twigs: Vec::new() }
            };
            fabric.twigs.splice(0..0, hosts.iter().map(twig));
            fabric
        }
    }
}

/// The links of a place that are meant, with their addresses.
fn own(picture: &Picture, place: usize, is_meant: &dyn Fn(usize) -> bool) -> String {
    let links = picture.places[place].links.iter().enumerate().filter(|(index, _)| is_meant(*index));
    links.map(|(_, link)| link_text(link, " ")).collect::<Vec<_>>().join("  ")
}

/// The ends below that lead to a link of this place, with the link.
fn wires_down(picture: &Picture, place: usize) -> Vec<(usize, End)> {
    let pairs = picture.wires.iter().filter(|wire| wire.tie == Tie::Pair && wire.to.0 == place);
    let down = pairs.filter(|wire| picture.places[wire.from.0].role != Role::Outside);
    down.map(|wire| (wire.to.1, wire.from)).collect()
}

/// `[rack1] -- ` before what hangs at that link.
fn by(picture: &Picture, end: Option<End>) -> String {
    end.map(|(place, link)| format!("[{}] -- ", picture.places[place].links[link].name)).unwrap_or_default()
}

fn switch(picture: &Picture, place: usize, port: Option<End>) -> Branch {
    let down = wires_down(picture, place);
    let is_port = |link: usize| down.iter().any(|(port, _)| *port == link);
    let text = format!(
        "{}{}  {}",
        by(picture, port),
        picture.places[place].name,
        own(picture, place, &|link| !is_port(link))
    );
    let twig = |(link, (below, _)): &(usize, End)| match picture.places[*below].role {
        Role::Node => node(picture, *below, Some((place, *link))),
        _ => switch(picture, *below, Some((place, *link))),
    };
    Branch { text, twigs: down.iter().map(twig).collect() }
}

fn node(picture: &Picture, place: usize, port: Option<End>) -> Branch {
    let down = wires_down(picture, place);
    let links = &picture.places[place].links;
    let is_port = |link: usize| down.iter().any(|(port, _)| *port == link);
    let is_bridge = |link: usize| links[link].kind == "bridge";
    let shown = own(picture, place, &|link| !is_port(link) && !is_bridge(link));
    let note = &picture.places[place].note;
    let text = format!("{}{}  {shown}  pods {note}", by(picture, port), picture.places[place].name);
    let mut twigs: Vec<Branch> = Vec::new();
    let mut told: Vec<usize> = Vec::new();
    for bridge in (0..links.len()).filter(|link| is_bridge(*link)) {
        let at = |link: usize| {
            let tie = |wire: &&super::Wire| wire.tie == Tie::Port && wire.from == (place, link);
            picture.wires.iter().find(tie).is_some_and(|wire| wire.to == (place, bridge))
        };
        let ports = down.iter().filter(|(link, _)| at(*link));
        let pods = ports.map(|(link, (pod, _))| {
            told.push(*pod);
            pod_at(picture, *pod, Some((place, *link)))
        });
        let twigs_of_bridge = pods.collect();
        twigs.push(Branch { text: link_text(&links[bridge], " "), twigs: twigs_of_bridge });
    }
    for (pod, _) in picture.within(Some(place)).filter(|(pod, _)| !told.contains(pod)) {
        let port = down.iter().find(|(_, (below, _))| *below == pod).map(|(link, _)| (place, *link));
        twigs.push(pod_at(picture, pod, port));
    }
    Branch { text, twigs }
}

fn pod_at(picture: &Picture, pod: usize, port: Option<End>) -> Branch {
    let below = |wire: &&super::Wire| wire.tie == Tie::Below && wire.from.0 == pod;
    let port = port.or(picture.wires.iter().find(below).map(|wire| wire.to));
    let links = own(picture, pod, &|_| true);
    let text = format!("{}{}  {links}", by(picture, port), picture.places[pod].label());
    Branch { text: text.trim_end().to_owned(), twigs: Vec::new() }
}
