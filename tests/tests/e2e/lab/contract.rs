//! The documents that podlab prints have the form that their schemas say. Every `-o json` of these tests is looked at by
//! an independent reader, Debian's python3-jsonschema; here is the reader, and what it must refuse.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Lab, command, podlab, text};

/// As many elements of an array are looked at; a verification has thousands of sightings, which are all made in one place.
const MOST: usize = 24;

/// The reader: one process for all tests, which ends with them.
struct Reader {
    _child: Child,
    documents: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reader {
    fn start() -> Result<Reader> {
        let schemas = command(&["schema", "-o", "json"])?.output()?;
        ensure!(schemas.status.success(), "{}", text(&schemas));
        let schemas: Value = serde_json::from_slice(&schemas.stdout)?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/lab/validate.py");
        let mut child = Command::new("/usr/bin/python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start python3")?;
        let mut documents = child.stdin.take().context("no stdin")?;
        writeln!(documents, "{schemas}")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Reader { _child: child, documents, answers })
    }

    fn read(&mut self, document: &Value) -> Result<String> {
        writeln!(self.documents, "{document}")?;
        let mut answer = String::new();
        let read = self.answers.read_line(&mut answer)?;
        ensure!(read > 0, "the reader of documents is gone · try: apt-get install python3-jsonschema");
        Ok(answer.trim().to_owned())
    }
}

/// What is wrong with a document; empty when nothing is.
pub(super) fn judge(document: &Value) -> Result<String> {
    static READER: OnceLock<Mutex<Option<Reader>>> = OnceLock::new();
    let mut reader = READER.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if reader.is_none() {
        *reader = Some(Reader::start()?);
    }
    reader.as_mut().context("no reader")?.read(&thinned(document))
}

/// The document with long arrays cut: the first elements, and the last.
fn thinned(value: &Value) -> Value {
    match value {
        Value::Array(list) => {
            let is_kept = |index: &usize| *index < MOST || index + 1 == list.len();
            let kept = (0..list.len()).filter(is_kept);
            kept.map(|index| thinned(&list[index])).collect()
        }
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), thinned(value))).collect(),
        other => other.clone(),
    }
}

/// Refuses what `podlab` has printed with `-o json` if it is not as its schema says.
pub(super) fn check(args: &[String], output: &Output) -> Result<()> {
    let asks = args.windows(2).any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json");
    // kubectl's documents are Kubernetes' own.
    if !asks
        || output.stdout.is_empty()
        || args.first().is_some_and(|verb| verb == "kubectl" || verb == "schema")
    {
        return Ok(());
    }
    let mut document: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{args:?}: {}", text(output)))?;
    // Labs of others may be up beside those of these tests.
    let own = format!("-{}", std::process::id());
    if let Some(labs) = document.get_mut("labs").and_then(Value::as_array_mut) {
        labs.retain(|lab| lab["name"].as_str().is_some_and(|name| name.contains(&own)));
    }
    match judge(&document)?.as_str() {
        "" => Ok(()),
        wrong => bail!("podlab {args:?} prints what its schema does not say: {wrong}"),
    }
}

/// One document of each form.
fn documents() -> Result<Vec<Value>> {
    let lab = Lab { name: format!("e2e-contract-{}", std::process::id()) };
    let name = lab.name.as_str();
    let lines: &[&[&str]] = &[
        &["up", "--dry-run", "--nodes", "2"],
        &["up", "-d", "--nodes", "2", "--pods", "2", "--mode", "vxlan"],
        &["ls"],
        &["inspect"],
        &["inspect", "node1"],
        &["inspect", "kubia-1"],
        &["inspect", "fabric"],
        &["inspect", "outside"],
        &["inspect", "node1", "routes"],
        &["inspect", "node1", "events"],
        &["verify"],
        &["verify", "--list"],
        &["trace", "kubia-1", "kubia-3"],
        &["trace", "kubia-1", "kubia-4", "--proto", "icmp"],
        &["why", "kubia-1", "kubia-3"],
        &["bench", "--seconds", "0.1"],
        &["faults"],
        &["break", "route-missing"],
        &["faults", "--active"],
        &["heal", "--all"],
        &["doctor"],
        &["down", "--graceful"],
    ];
    let mut all = Vec::new();
    for line in lines {
        let mut args = vec![line[0]];
        if !matches!(line[0], "ls" | "doctor") {
            args.extend(["--name", name]);
        }
        args.extend(&line[1..]);
        args.extend(["-o", "json"]);
        let output = podlab(&args)?;
        ensure!(output.status.success(), "{args:?}: {}", text(&output));
        let mut document: Value = serde_json::from_slice(&output.stdout)?;
        if let Some(labs) = document.get_mut("labs").and_then(Value::as_array_mut) {
            labs.retain(|lab| lab["name"] == name);
        }
        all.push(document);
    }
    Ok(all)
}

#[test]
fn every_document_is_as_its_schema_says_and_a_changed_one_is_not() -> Result<()> {
    let documents = documents()?;
    let forms: std::collections::BTreeSet<&str> =
        documents.iter().filter_map(|it| it["schema"].as_str()).collect();
    assert_eq!(forms.len(), 12, "{forms:?}");
    for document in &documents {
        held_strictly(document)?;
    }
    // Deep inside as well.
    let verdict = documents.iter().find(|it| it["schema"] == "podlab.verdict/1").context("no verdict")?;
    let check =
        verdict["checks"].as_array().context("no checks")?.iter().position(|it| it["name"] == "cross-node");
    let point = format!("/checks/{}/verdicts/0/request/0", check.context("no check")?);
    for (key, value) in [
        ("source_mac", json!("02:01")),
        ("ttl", json!(256)),
        ("source", json!("10.244.1.2")),
        ("direction", json!("up")),
        ("outer", json!({ "vni": 1 })),
        ("unheard", json!("of")),
    ] {
        let mut changed = verdict.clone();
        changed.pointer_mut(&point).context("no point")?[key] = value;
        ensure!(!judge(&changed)?.is_empty(), "{point} with another {key} passes");
    }
    Ok(())
}

/// Refuses a document that is not as its schema says, or whose schema lets a key be missing, be something else or be added.
fn held_strictly(document: &Value) -> Result<()> {
    assert_eq!(judge(document)?, "", "{}", document["schema"]);
    let keys: Vec<String> = document.as_object().context("no object")?.keys().cloned().collect();
    for key in &keys {
        let mut without = document.clone();
        without.as_object_mut().context("no object")?.remove(key);
        ensure!(!judge(&without)?.is_empty(), "{} without {key} passes", document["schema"]);
        let mut other = document.clone();
        other[key] = json!({ "another": ["thing"] });
        ensure!(!judge(&other)?.is_empty(), "{} with another {key} passes", document["schema"]);
    }
    let mut more = document.clone();
    more["unheard"] = json!("of");
    ensure!(!judge(&more)?.is_empty(), "{} with another key passes", document["schema"]);
    Ok(())
}

#[test]
fn each_part_of_a_bundle_is_as_its_schema_says_and_a_changed_one_is_not() -> Result<()> {
    // Services of each kind, both ways to look at a packet, groups, a pod that cannot be reached.
    let lab = Lab::up("parts", &["--nodes", "2", "--pods", "2", "--mode", "vxlan", "--seed", "7"])?;
    lab.k("run web --image=kubia --port=8080 --generator=run/v1 --replicas=2")?;
    lab.k("expose rc web --type=NodePort")?;
    lab.k("create service clusterip nobody --tcp=80:80")?;
    lab.exec("kubia-2", &["ip", "addr", "flush", "dev", "eth0"])?;
    let (evidence, _) = super::evidence::Evidence::of(&lab, &["-q"])?;
    let part = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&evidence.part(name)?)?) };
    let mut forms = std::collections::BTreeSet::new();
    let mut hold = |document: &Value| -> Result<()> {
        forms.insert(document["schema"].as_str().unwrap_or_default().to_owned());
        held_strictly(document)
    };
    for name in ["manifest.json", "versions.json", "topology.json", "plan.json", "verdicts.json"] {
        hold(&part(name)?).context(name)?;
    }
    let calls = String::from_utf8(evidence.part("cni.ndjson")?)?;
    assert_eq!(calls.lines().count(), 6, "{calls}");
    for line in calls.lines() {
        hold(&serde_json::from_str(line)?)?;
    }
    for name in ["state-before.json", "state-after.json"] {
        let state = part(name)?;
        hold(&state)?;
        let spaces = state["spaces"].as_object().context("no spaces")?;
        assert_eq!(spaces.len(), 10, "{:?}", spaces.keys());
        for document in spaces.values().chain([&state["lab"]]) {
            assert_eq!(judge(document)?, "", "{}", document["name"]);
        }
    }
    let expected = ["bundle", "call", "probes", "resolved", "state", "verdict", "versions"];
    assert_eq!(forms.into_iter().collect::<Vec<_>>(), expected.map(|name| format!("podlab.{name}/1")));
    // Deep inside as well: every aim that there is, and what is in it.
    let plan = part("plan.json")?;
    let probes = plan["probes"].as_array().context("no probes")?;
    for (aim, key) in [
        ("journey", "/journey/there/0/hops"),
        ("journey", "/journey/there/0/interface"),
        ("journey", "/journey/server"),
        ("localhost", "/localhost/1"),
        ("service", "/service/front"),
        ("service", "/service/promise"),
        ("impossible", "/impossible"),
    ] {
        let found = probes.iter().find(|probe| probe["aim"][aim] != Value::Null);
        let mut probe = found.with_context(|| format!("no probe with the aim {aim}"))?.clone();
        *probe["aim"].pointer_mut(key).with_context(|| key.to_owned())? = json!({ "another": ["thing"] });
        let mut changed = plan.clone();
        changed["probes"] = json!([probe]);
        ensure!(!judge(&changed)?.is_empty(), "a plan with another {key} passes");
    }
    for chunk in probes.chunks(MOST) {
        let mut part = plan.clone();
        part["probes"] = json!(chunk);
        assert_eq!(judge(&part)?, "");
    }
    let mut changed = part("manifest.json")?;
    changed["parts"]["plan.json"]["sha256"] = json!("0");
    ensure!(!judge(&changed)?.is_empty(), "a manifest with another checksum passes");
    Ok(())
}

/// What the schema of topologies says of a document is what `up` says.
#[test]
fn the_schema_of_topologies_takes_and_refuses_what_up_does() -> Result<()> {
    for (document, is_one) in [
        (json!({}), true),
        (json!({ "name": "a", "nodes": 2, "pods": 0, "racks": 2, "mode": "bgp", "seed": 7 }), true),
        (json!({ "cni": { "dir": ["/usr/lib/cni"], "ipMasq": true }, "podCIDR": "10.1.0.0/16" }), true),
        (
            json!({ "cni": { "dir": "/usr/lib/cni" }, "serviceCIDR": "10.97.0.0/20", "verify": ["egress"] }),
            true,
        ),
        (
            json!({ "workloads": [{ "name": "a", "replicas": 2, "app": "kubia", "port": 80, "labels": { "a": "b" } }] }),
            true,
        ),
        (
            json!({ "services": [{ "name": "a", "selector": { "a": "b" }, "type": "NodePort", "port": 80, "targetPort": 8080,
                "nodePort": 30090, "protocol": "UDP", "clusterIP": "10.96.0.99", "sessionAffinity": "ClientIP",
                "externalTrafficPolicy": "Local" }] }),
            true,
        ),
        (json!({ "nodes": ["a", { "name": "b", "address": "192.0.2.77/24" }], "cni": "builtin" }), true),
        (
            json!({ "ipFamily": "dual", "outside": [{ "name": "c", "address": ["203.0.113.7", "2001:db8:203:113::7/64"] }] }),
            true,
        ),
        (
            json!({ "workloads": [{ "name": "a", "containers": ["app", "sidecar"] }], "services": [{ "name": "a", "selector": { "a": "b" } }],
                "verify": ["c2c", { "ingress": "a" }] }),
            true,
        ),
        (json!({ "nodes": [] }), false),
        (json!({ "nodes": [{ "address": "192.0.2.77" }] }), false),
        (json!({ "nodes": ["Alpha"] }), false),
        (json!({ "outside": [{ "name": "a", "adress": "203.0.113.7" }] }), false),
        (json!({ "outside": 2 }), false),
        (json!({ "cni": "built-in" }), false),
        (json!({ "workloads": [{ "name": "a", "containers": ["web", "sidecar"] }] }), false),
        (json!({ "workloads": [{ "name": "a", "containers": ["app"] }] }), false),
        (json!({ "verify": [{ "ingress": "a", "egress": "a" }] }), false),
        (json!({ "node": 2 }), false),
        (json!({ "nodes": "two" }), false),
        (json!({ "nodes": 0 }), false),
        (json!({ "pods": 1024 }), false),
        (json!({ "schema": "podlab.topology/2" }), false),
        (json!({ "name": "a/b" }), false),
        (json!({ "cni": { "dirs": "/usr/lib/cni" } }), false),
        (json!({ "workloads": [{ "replicas": 2 }] }), false),
        (json!({ "workloads": [{ "name": "a", "app": "nginx" }] }), false),
        (json!({ "services": [{ "name": "a", "selector": { "a": "b" }, "type": "nodeport" }] }), false),
        (
            json!({ "services": [{ "name": "a", "selector": { "a": "b" }, "nodePort": 80, "type": "NodePort" }] }),
            false,
        ),
    ] {
        let mut told = document.clone();
        if told["schema"].is_null() {
            told["schema"] = json!("podlab.topology/1");
        }
        let wrong = judge(&told)?;
        assert_eq!(wrong.is_empty(), is_one, "{document}: {wrong}");
        let mut child = command(&["up", "--dry-run", "-q", "-f", "-"])?
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(document.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        assert_eq!(output.status.code(), Some(if is_one { 0 } else { 2 }), "{document}: {}", text(&output));
    }
    Ok(())
}

#[test]
fn schemas_are_listed_and_printed_by_name() -> Result<()> {
    let listed = podlab(&["schema"])?;
    ensure!(
        listed.status.success() && text(&listed).contains("What podlab verify prints.\n"),
        "{}",
        text(&listed)
    );
    let printed = podlab(&["schema", "podlab.trace/1"])?;
    let schema: Value = serde_json::from_slice(&printed.stdout)?;
    assert_eq!(schema["$id"], "urn:podlab:trace:1");
    let unknown = podlab(&["schema", "nothing"])?;
    ensure!(
        unknown.status.code() == Some(2) && text(&unknown).contains("there are: again, attempt, "),
        "{}",
        text(&unknown)
    );
    Ok(())
}
