//! The walks that podlab carries with it, `lab/walks/`: recorded from labs that are up, here. With `PODNET_RECORD_WALKS` set
//! they are written (`scripts/record-walks`); without, they are recorded again and must say the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::contract::judge;
use super::{Lab, podlab, text};

/// A walk: how its lab is made, what is broken in it, which packet, and what it is called.
struct Walk {
    id: &'static str,
    up: &'static [&'static str],
    service: bool,
    fault: Option<&'static str>,
    packet: &'static [&'static str],
    en: &'static str,
    ko: &'static str,
}

const PLAIN: Walk = Walk {
    id: "",
    up: &["--nodes", "2", "--pods", "2"],
    service: false,
    fault: None,
    packet: &["kubia-1", "kubia-3"],
    en: "",
    ko: "",
};

/// In the order in which they are listed.
const WALKS: [Walk; 7] = [
    Walk {
        id: "routed-cross-node", en: "Across nodes without NAT", ko: "NAT 없이 노드 간 통신", ..PLAIN
    },
    Walk {
        id: "masquerade-cross-node",
        up: &["--nodes", "2", "--pods", "2", "--ip-masq"],
        en: "Across nodes, masqueraded: the source is rewritten",
        ko: "마스커레이드된 노드 간 통신: 출발지 주소가 바뀜",
        ..PLAIN
    },
    Walk {
        id: "vxlan-cross-node",
        up: &["--nodes", "2", "--pods", "2", "--mode", "vxlan"],
        en: "The same trip in a tunnel (VXLAN)",
        ko: "터널을 지나는 같은 길: 오버레이(VXLAN)",
        ..PLAIN
    },
    Walk {
        id: "service-cluster-ip",
        service: true,
        packet: &["kubia-1", "10.96.0.88:80"],
        en: "A service: the destination is rewritten",
        ko: "서비스의 클러스터 IP: 목적지 주소가 바뀜",
        ..PLAIN
    },
    Walk {
        id: "same-node",
        packet: &["kubia-1", "kubia-2"],
        en: "Same node: a bridge is a switch",
        ko: "같은 노드: 브리지는 스위치",
        ..PLAIN
    },
    Walk {
        id: "localhost",
        packet: &["kubia-1", "kubia-1"],
        en: "One Pod, one localhost",
        ko: "하나의 Pod, 하나의 localhost",
        ..PLAIN
    },
    Walk {
        id: "route-missing",
        fault: Some("route-missing"),
        en: "A route is missing: the packet is lost",
        ko: "경로가 없음: 패킷이 사라짐",
        ..PLAIN
    },
];

const SERVICE: &str = r#"{"services":[{"name":"kubia-http","selector":{"app":"kubia"},"port":80,"targetPort":8080,"clusterIP":"10.96.0.88"}]}"#;

impl Walk {
    /// Makes the lab, sends the packet and returns what `export` writes of it, with identifier and titles.
    fn record(&self, lab_name: Option<&str>) -> Result<Value> {
        let dir = tempfile::tempdir()?;
        let mut up = self.up.to_vec();
        let service = dir.path().join("service.json");
        std::fs::write(&service, SERVICE)?;
        if self.service {
            up.extend(["--file", service.to_str().context("path")?]);
        }
        let lab = match lab_name {
            None => Lab::up(&format!("walk-{}", self.id), &up)?,
            Some(name) => {
                let lab = Lab { name: name.to_owned() };
                let mut args = vec!["up", "-q", "--detach", "--name", name];
                args.extend(up);
                let output = podlab(&args)?;
                ensure!(output.status.success(), "{}", text(&output));
                lab
            }
        };
        if let Some(fault) = self.fault {
            let output = lab.podlab("break", &["-q", fault])?;
            ensure!(output.status.success(), "{}", text(&output));
        }
        let path = dir.path().join("walk.json");
        let mut args = self.packet.to_vec();
        args.extend(["-q", "--hooks", "--walk", path.to_str().context("path")?]);
        // The first packet finds out the MACs. A service gives its pods turns, in order; the third is on the other node.
        let packets = if self.service { 3 } else { 2 };
        for _ in 0..packets {
            let output = lab.podlab("export", &args)?;
            let code = if self.fault.is_some() { 1 } else { 0 };
            ensure!(output.status.code() == Some(code), "{}: {}", self.id, text(&output));
        }
        let mut walk: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        walk["id"] = self.id.into();
        walk["title"] = self.en.into();
        walk["titles"] = json!({ "en": self.en, "ko": self.ko });
        Ok(walk)
    }
}

/// What of a walk is not another time what it was: times, random numbers, and the names that follow from the lab's.
fn normalised(walk: &Value) -> Result<Value> {
    let mut walk = walk.clone();
    walk.as_object_mut().context("no object")?.remove("pcapng");
    // Who asks for a MAC again depends on when.
    walk["trace"]["arp"] = json!([]);
    walk["lab"]["events"] = json!([]);
    let name = walk["trace"]["lab"].as_str().context("no lab")?.to_owned();
    let mut veths = BTreeMap::new();
    Ok(plain(&walk, &name, &mut veths))
}

fn plain(value: &Value, lab: &str, veths: &mut BTreeMap<String, usize>) -> Value {
    match value {
        Value::Object(map) => {
            let changing = ["stamp_ns", "after_ns", "micros", "nonce", "id", "mac", "state"];
            let kept = map.iter().filter(|(key, value)| {
                // A walk's own identifier is a text.
                !changing.contains(&key.as_str())
                    || (*key == "id" && value.as_str().is_some_and(|id| !id.starts_with("0x")))
            });
            kept.map(|(key, value)| (key.clone(), plain(value, lab, veths))).collect()
        }
        Value::Array(list) => list.iter().map(|value| plain(value, lab, veths)).collect(),
        Value::String(text) => words(&text.replace(lab, "LAB"), veths).into(),
        other => other.clone(),
    }
}

/// The words of a text, without the names, addresses and ports that are made anew each time.
fn words(text: &str, veths: &mut BTreeMap<String, usize>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '_');
    let mut out = String::new();
    for piece in text.split_inclusive(|c| !is_word(c)) {
        let end = piece.find(|c| !is_word(c)).unwrap_or(piece.len());
        let (word, rest) = piece.split_at(piece[..end].trim_end_matches(':').len());
        let is_veth = word.len() == 12 && word.starts_with("veth");
        // A rule's name has a digest of the container in it, which is called as the lab.
        let is_digest = word.len() == 16 && word.chars().all(|c| c.is_ascii_hexdigit());
        let is_mac = word.len() == 17 && word.matches(':').count() == 5;
        let port =
            word.rsplit_once(':').and_then(|(address, port)| Some((address, port.parse::<u16>().ok()?)));
        match port {
            _ if is_veth => {
                let next = veths.len();
                out += &format!("veth{}", veths.entry(word.to_owned()).or_insert(next));
            }
            _ if is_mac => out += "MAC",
            _ if is_digest => out += "DIGEST",
            Some((address, port)) if port >= 10_000 => out += &format!("{address}:PORT"),
            _ if word.starts_with("0x") => out += "ID",
            _ => out += word,
        }
        out += rest;
    }
    out
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/walks")
}

fn file(index: usize, walk: &Walk) -> PathBuf {
    folder().join(format!("{}-{}.json", index + 1, walk.id))
}

#[test]
fn carried_walks_are_what_labs_do() -> Result<()> {
    let writes = std::env::var_os("PODNET_RECORD_WALKS").is_some();
    for (index, walk) in WALKS.iter().enumerate() {
        let path = file(index, walk);
        let recorded = walk.record(writes.then_some("demo"))?;
        assert_eq!(judge(&recorded)?, "", "{}", walk.id);
        for part in ["lab", "trace"] {
            assert_eq!(judge(&recorded[part])?, "", "{part} of {}", walk.id);
        }
        if writes {
            std::fs::write(&path, format!("{recorded}\n"))?;
            continue;
        }
        let carried: Value =
            serde_json::from_slice(&std::fs::read(&path).with_context(|| path.display().to_string())?)?;
        let (was, is) = (normalised(&carried)?, normalised(&recorded)?);
        ensure!(was == is, "{} is not what it was: {}", walk.id, difference("", &was, &is));
    }
    let files = std::fs::read_dir(folder())?.count();
    assert_eq!(files, WALKS.len(), "files that nobody records");
    Ok(())
}

/// The first place where two documents differ.
fn difference(at: &str, a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) if x.keys().eq(y.keys()) => {
            let found = x.iter().find(|(key, value)| y[*key] != **value);
            found.map(|(key, value)| difference(&format!("{at}/{key}"), value, &y[key])).unwrap_or_default()
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            let found = x.iter().zip(y).enumerate().find(|(_, (a, b))| a != b);
            found.map(|(index, (a, b))| difference(&format!("{at}/{index}"), a, b)).unwrap_or_default()
        }
        (a, b) => {
            // Of long texts only where they part.
            let (a, b) = (a.to_string(), b.to_string());
            let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
            let part = |text: &str| text.chars().skip(same.saturating_sub(60)).take(200).collect::<String>();
            format!("{at}: {} became {}", part(&a), part(&b))
        }
    }
}

#[test]
fn the_carried_walks_show_what_they_are_called() -> Result<()> {
    let fields = |walk: &Value| -> Vec<String> {
        let walks = walk["trace"]["walks"].as_array().into_iter().flatten();
        let requests = walks.filter(|walk| walk["way"] == "request");
        let hops = requests.flat_map(|walk| walk["hops"].as_array().into_iter().flatten());
        let changes = hops.flat_map(|hop| hop["changed"].as_array().into_iter().flatten());
        changes.filter_map(|change| change["field"].as_str().map(str::to_owned)).collect()
    };
    for (index, walk) in WALKS.iter().enumerate() {
        let carried: Value = serde_json::from_slice(&std::fs::read(file(index, walk))?)?;
        let has = |field: &str| fields(&carried).iter().any(|own| own == field);
        let found = (has("TTL"), has("SRC"), has("DST"), has("OUTER"), carried["trace"]["lost"].is_object());
        let wanted = match walk.id {
            "routed-cross-node" => (true, false, false, false, false),
            "masquerade-cross-node" => (true, true, false, false, false),
            "vxlan-cross-node" => (true, false, false, true, false),
            "service-cluster-ip" => (true, false, true, false, false),
            "same-node" | "localhost" => (false, false, false, false, false),
            "route-missing" => (true, false, false, false, true),
            other => anyhow::bail!("nobody says what {other} shows"),
        };
        assert_eq!(found, wanted, "{}: TTL, SRC, DST, OUTER, lost", walk.id);
        // Every place of the walk is in the picture.
        let picture = carried["picture"].as_str().context("no picture")?;
        let drawn = super::graph::read(picture.as_bytes())?;
        let ats: Vec<&str> =
            drawn["ats"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let walks = carried["trace"]["walks"].as_array().into_iter().flatten();
        for hop in walks.flat_map(|walk| walk["hops"].as_array().into_iter().flatten()) {
            let at = format!(
                "{}/{}",
                hop["space"].as_str().context("space")?,
                hop["interface"].as_str().context("interface")?
            );
            ensure!(ats.contains(&at.as_str()), "{}: {at} is not in the picture", walk.id);
        }
    }
    Ok(())
}
