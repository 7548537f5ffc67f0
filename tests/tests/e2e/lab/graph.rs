//! Pictures of labs that are up, read by an independent reader of XML and held against what `inspect` says.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Lab, podlab, text};

/// Reads an SVG with Python's reader of XML, and says what is in it. Fails where a box is not what it should be.
const READER: &str = r#"
import json, sys
import xml.etree.ElementTree as xml
SVG = "{http://www.w3.org/2000/svg}"
root = xml.fromstring(sys.stdin.buffer.read())
assert root.tag == SVG + "svg" and root.get("role") == "list" and root.get("data-schema") == "podlab.picture/1", root.attrib
x, y, w, h = map(float, root.get("viewBox").split())
def box(group):
    rect = group.find(SVG + "rect")
    a, b, c, d = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
    assert x <= a and y <= b and a + c <= x + w and b + d <= y + h, group.attrib
    return a, b, a + c, b + d
def apart(boxes):
    for i, (name, a) in enumerate(boxes):
        for other, b in boxes[i + 1:]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (name, other)
places, ats, wires = [], [], []
for group in root.iter(SVG + "g"):
    if group.get("data-place"):
        assert group.get("role") == "listitem" and group.find(SVG + "title").text and group.find(SVG + "desc").text
        places.append((group.get("data-place"), box(group), group.get("class").split()))
    if group.get("data-at"):
        assert group.get("class").split()[0] == "interface" and group[0].tag == SVG + "rect" and group[1].tag == SVG + "text"
        own = box(group)
        for line in group.findall(SVG + "text"):
            half = len(line.text) * 10 * 0.61 / 2
            assert own[0] <= float(line.get("x")) - half and float(line.get("x")) + half <= own[2], line.text
            assert own[1] < float(line.get("y")) < own[3], line.text
        ats.append((group.get("data-at"), own))
for path in root.iter(SVG + "path"):
    if "wire" in path.get("class").split():
        wires.append([path.get("data-from"), path.get("data-to")])
apart([(n, b) for n, b, c in places if "pod" in c]); apart([(n, b) for n, b, c in places if "pod" not in c]); apart(ats)
known = {at for at, _ in ats}
assert len(known) == len(ats) and all(end in known for wire in wires for end in wire)
assert all(not e.get("style") and e.tag != SVG + "script" for e in root.iter())
json.dump({"ats": sorted(known), "places": sorted(n for n, _, _ in places), "wires": wires}, sys.stdout)
"#;

/// What the reader finds in an SVG.
pub(super) fn read(svg: &[u8]) -> Result<Value> {
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start python3")?;
    python.stdin.take().context("no stdin")?.write_all(svg)?;
    let output = python.wait_with_output()?;
    ensure!(output.status.success(), "the reader of SVG: {}", text(&output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn drawn_as_inspected(lab: &Lab) -> Result<()> {
    let inspected = lab.podlab("inspect", &["-o", "json"])?;
    let document: Value = serde_json::from_slice(&inspected.stdout)?;
    let picture = lab.podlab("graph", &[])?;
    ensure!(picture.status.success(), "{}", text(&picture));
    let found = read(&picture.stdout)?;
    let links = document["links"].as_array().context("no links")?;
    let name = |link: &Value| Some(format!("{}/{}", link["place"].as_str()?, link["name"].as_str()?));
    let mut told: Vec<String> = links.iter().filter_map(name).collect();
    told.sort();
    assert_eq!(strings(&found["ats"]), told);
    // Every link of these labs hangs at another one.
    let wires = found["wires"].as_array().context("no wires")?;
    for at in &told {
        let is_end = |wire: &Value| strings(wire).contains(&at.as_str());
        ensure!(wires.iter().any(is_end), "{at} has no wire: {wires:?}");
    }
    // And a packet's walk goes by interfaces that are drawn.
    let traced = lab.podlab("trace", &["kubia-1", "kubia-3", "-o", "json"])?;
    let trace: Value = serde_json::from_slice(&traced.stdout)?;
    for hop in
        trace["walks"].as_array().into_iter().flatten().filter_map(|walk| walk["hops"].as_array()).flatten()
    {
        let at = format!(
            "{}/{}",
            hop["space"].as_str().unwrap_or_default(),
            hop["interface"].as_str().unwrap_or_default()
        );
        ensure!(told.contains(&at), "{at} of the walk is not drawn");
    }
    for form in ["mermaid", "dot", "d2", "drawio", "ascii"] {
        let output = lab.podlab("graph", &["-f", form])?;
        ensure!(output.status.success() && text(&output).contains("kubia-4"), "{form}: {}", text(&output));
    }
    Ok(())
}

#[test]
fn labs_of_every_mode_are_drawn_as_they_are() -> Result<()> {
    for mode in ["routed", "vxlan", "macvlan", "ptp", "bgp", "mesh"] {
        let lab = Lab::up(&format!("graph-{mode}"), &["--nodes", "2", "--pods", "2", "--mode", mode])?;
        drawn_as_inspected(&lab).with_context(|| format!("mode {mode}"))?;
    }
    let lab = Lab::up("graph-racks", &["--nodes", "3", "--pods", "2", "--racks", "2"])?;
    drawn_as_inspected(&lab).context("racks")
}

#[test]
fn a_recorded_lab_is_drawn_without_one_and_what_is_none_is_refused() -> Result<()> {
    let lab = Lab::up("graph-from", &["--nodes", "2", "--pods", "1"])?;
    let inspected = lab.podlab("inspect", &["-o", "json"])?;
    let live = lab.podlab("graph", &["-f", "ascii"])?;
    drop(lab);
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("lab.json");
    std::fs::write(&path, &inspected.stdout)?;
    let path = path.to_str().context("path")?;
    let again = podlab(&["graph", "-f", "ascii", "--from", path])?;
    ensure!(again.status.success(), "{}", text(&again));
    assert_eq!(text(&again), text(&live));
    std::fs::write(path, "{}")?;
    let refused = podlab(&["graph", "--from", path])?;
    ensure!(
        refused.status.code() == Some(2) && text(&refused).contains("no document of podlab inspect"),
        "{}",
        text(&refused)
    );
    let unknown = podlab(&["graph", "-o", "json", "--from", path])?;
    ensure!(
        unknown.status.code() == Some(2) && text(&unknown).contains("a picture is no JSON"),
        "{}",
        text(&unknown)
    );
    Ok(())
}
