//! Labs from a topology file: what it says is there, and is the same every time.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Lab, command, podlab, text};

/// A file in a directory of its own.
fn file(name: &str, text: &str) -> Result<(tempfile::TempDir, String)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join(name);
    std::fs::write(&path, text)?;
    Ok((dir, path.to_string_lossy().into_owned()))
}

fn inspect(lab: &Lab, what: &[&str]) -> Result<Value> {
    let output = lab.podlab("inspect", &[what, &["-o", "json"]].concat())?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What must not change from one lab to the next of the same topology: every namespace with the names, MACs and addresses
/// of its interfaces.
fn identity(lab: &Lab) -> Result<Value> {
    let whole = inspect(lab, &[])?;
    let mut spaces = vec!["fabric".to_owned(), "outside".to_owned()];
    for key in ["nodes", "pods"] {
        let names = whole[key].as_array().context("no list")?.iter();
        spaces.extend(names.filter_map(|it| it["name"].as_str()).map(str::to_owned));
    }
    let mut all = json!({});
    for space in spaces {
        let interfaces = inspect(lab, &[&space, "interfaces"])?;
        let listed = interfaces["interfaces"].as_array().context("no interfaces")?.iter();
        all[&space] = listed
            .map(|it| json!([it["name"], it["mac"], it["addresses"], it["mtu"], it["master"], it["alias"]]))
            .collect();
    }
    Ok(all)
}

/// Where one packet was seen, which way, with which MACs and TTL.
fn walk(lab: &Lab, pods: [&str; 2]) -> Result<Vec<Value>> {
    let output = lab.podlab("trace", &[pods[0], pods[1], "-o", "json"])?;
    ensure!(output.status.success(), "{}", text(&output));
    let trace: Value = serde_json::from_slice(&output.stdout)?;
    let walks = trace["walks"].as_array().context("no walks")?;
    let hops = walks.iter().flat_map(|walk| walk["hops"].as_array().into_iter().flatten());
    let keys = ["space", "interface", "direction", "ttl", "source_mac", "target_mac", "changed", "why"];
    Ok(hops.map(|hop| keys.iter().map(|key| hop[*key].clone()).collect()).collect())
}

const SEEDED: &str = "
seed: 7
nodes: 2
pods: 2
workloads: [{name: kubia, replicas: 3}]
services: [{name: kubia-http, selector: {run: kubia}}]
";

#[test]
fn the_same_topology_gives_the_same_lab_every_time() -> Result<()> {
    for mode in ["routed", "ptp", "macvlan", "vxlan"] {
        // Where no node routes for its pods there are no services.
        let without = SEEDED.split("services:").next().unwrap_or(SEEDED);
        let (_dir, path) = file("lab.yaml", if mode == "macvlan" { without } else { SEEDED })?;
        let up = |options: &[&str]| -> Result<(Value, Vec<Value>)> {
            let lab = Lab::up(&format!("same-{mode}"), &[&["-f", &path, "--mode", mode], options].concat())?;
            let identity = identity(&lab)?;
            let walk = walk(&lab, ["kubia-1", "kubia-3"])?;
            ensure!(lab.podlab("down", &[])?.status.success());
            Ok((identity, walk))
        };
        let (first, walked) = up(&[])?;
        let (again, walked_again) = up(&[])?;
        assert_eq!(first, again, "{mode}");
        assert_eq!(walked, walked_again, "{mode}");
        ensure!(walked.len() > 8 && !walked[0][0].is_null(), "{mode}: the walk says nothing: {walked:?}");
        let text = first.to_string();
        ensure!(text.contains("\"kubia-1\"") && text.contains("10.244.2.3"), "{mode}: {first:#}");
        // Readable: node 2, the pod that was made there first.
        ensure!(mode == "ptp" || text.contains("02:01:00:02:00:01"), "{mode}: {first:#}");
        let (other, _) = up(&["--seed", "8"])?;
        ensure!(first != other, "{mode}: another seed gives the same lab");
    }
    Ok(())
}

/// A trace without what no two packets have in common: times, and the numbers that are drawn for a probe.
fn normalised(trace: &Value) -> Result<String> {
    fn without(value: &Value) -> Value {
        let drawn = ["stamp_ns", "after_ns", "micros", "nonce", "id", "lab"];
        match value {
            Value::Object(map) => {
                let kept = map.iter().filter(|(key, _)| !drawn.contains(&key.as_str()));
                kept.map(|(key, value)| (key.clone(), without(value))).collect()
            }
            Value::Array(list) => list.iter().map(without).collect(),
            other => other.clone(),
        }
    }
    let local = trace["outcome"]["local"].as_str().context("no local address")?;
    let (_, port) = local.rsplit_once(':').context("no port")?;
    Ok(without(trace).to_string().replace(&format!(":{port}"), ":PORT"))
}

#[test]
fn twenty_labs_of_one_topology_have_the_same_trace() -> Result<()> {
    let (_dir, path) =
        file("lab.yaml", "{seed: 7, nodes: 2, pods: 0, workloads: [{name: kubia, replicas: 2}]}")?;
    let mut first = None;
    for run in 1..=20 {
        let lab = Lab::up("twenty", &["-f", &path])?;
        let pods = lab.pods("run=kubia")?;
        let output = lab.podlab("trace", &[&pods[0].0, &pods[1].0, "-o", "json"])?;
        let trace: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        ensure!(lab.podlab("down", &[])?.status.success());
        let found = (pods, normalised(&trace)?);
        // What is compared says something: both pods' MACs, and where the packet was.
        for words in ["02:01:00:01:00:01", "02:01:00:02:00:01", "fabric", "HTTP answer", ":PORT"] {
            ensure!(found.1.contains(words), "no {words} in {}", found.1);
        }
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(first, &found, "run {run}"),
        }
    }
    Ok(())
}

#[test]
fn a_topology_file_brings_up_all_that_it_says() -> Result<()> {
    let (_dir, path) = file(
        "lab.yaml",
        "
schema: podlab.topology/1
name: overridden
seed: 7
nodes: 2
podCIDR: 10.128.0.0/12
serviceCIDR: 172.30.0.0/20
workloads:
  - {name: kubia, replicas: 2, labels: {app: web}}
services:
  - {name: web, selector: {app: web}, port: 80, targetPort: 8080, type: NodePort, nodePort: 30090}
  - {name: balanced, selector: {app: web}, type: LoadBalancer, externalTrafficPolicy: Local, sessionAffinity: ClientIP}
  - {name: elsewhere, type: ExternalName, externalName: outside.example}
verify: [cross-node, service-reach]
",
    )?;
    let lab = Lab::up("file", &["--file", &path])?;
    let pods = lab.pods("app=web")?;
    assert_eq!(pods.len(), 2, "{pods:?}");
    let (pod, _, address) = &pods[0];
    ensure!(address.starts_with("10.128."), "{address}");
    let services = lab.k("get svc --no-headers")?;
    ensure!(services.contains("172.30.0.11") && services.contains("80:30090/TCP"), "{services}");
    let balanced = lab.k("describe svc balanced")?;
    for words in ["ClientIP", "External Traffic Policy:  Local"] {
        ensure!(balanced.contains(words), "no {words:?} in {balanced}");
    }
    for name in ["web", "elsewhere:8080"] {
        let hit = lab.k(&format!("exec {pod} -- curl -s {name}"))?;
        ensure!(hit.starts_with("You've hit "), "{name}: {hit}");
    }
    let (code, report) = lab.verify(&[])?;
    let checks: Vec<&str> = report["checks"]
        .as_array()
        .context("no checks")?
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    assert_eq!((code, checks), (0, vec!["cross-node", "service-reach"]));
    let (code, report) = lab.verify(&["same-node", "service-state"])?;
    assert_eq!((code, report["checks"].as_array().map(Vec::len)), (0, Some(2)), "names win over the file");
    Ok(())
}

#[test]
fn plugins_and_configuration_of_a_file_are_found_beside_it() -> Result<()> {
    let (dir, path) = file(
        "lab.yaml",
        "{nodes: 1, pods: 1, cni: {dir: bin, conf: net/own.conflist}, verify: [container-localhost]}",
    )?;
    std::fs::create_dir(dir.path().join("net"))?;
    std::os::unix::fs::symlink("/usr/lib/cni", dir.path().join("bin"))?;
    std::fs::write(
        dir.path().join("net/own.conflist"),
        r#"{"cniVersion":"1.0.0","name":"own","plugins":[{"type":"bridge","bridge":"own0","isGateway":true,
            "ipam":{"type":"host-local","dataDir":"/run/podlab/ipam","ranges":[[{"subnet":"${POD_CIDR}"}]]}}]}"#,
    )?;
    let lab = Lab::up("beside", &["--topology", &path])?;
    let links = lab.exec("node1", &["ip", "-br", "link"])?;
    ensure!(links.contains("own0"), "{links}");
    assert_eq!(lab.verify(&[])?.0, 0);
    Ok(())
}

/// The example that the design of the lab gives for a topology, word for word.
const EXAMPLE: &str = "
schema: podlab.topology/1
name: demo
seed: 7
mode: routed            # routed | vxlan | macvlan | ptp
nodes: 3                # or a list with names, uplink addresses
podCIDR: 10.244.0.0/16  # /24 per node
serviceCIDR: 10.96.0.0/16
cni: {dir: /usr/lib/cni, conf: 10-bridge.conflist}   # or builtin
workloads: [{name: kubia, replicas: 3, app: kubia, port: 8080, containers: [app, sidecar]}]
services: [{name: kubia-http, selector: {run: kubia}, port: 8080, type: ClusterIP}]
outside: [{name: client, address: 203.0.113.9/24}]
verify: [c2c, samenode, xnode-nonat, egress, {ingress: kubia-http}]
";

/// The configuration beside it.
const BRIDGE: &str = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,
    "ipam":{"type":"host-local","dataDir":"/run/podlab/ipam/${NODE}","ranges":[[{"subnet":"${POD_CIDR}"}]],
            "routes":[{"dst":"0.0.0.0/0"}]}}]}"#;

#[test]
fn the_example_of_the_design_works_word_for_word() -> Result<()> {
    let (dir, path) = file("lab.yaml", EXAMPLE)?;
    std::fs::write(dir.path().join("10-bridge.conflist"), BRIDGE)?;
    let lab = Lab::up("example", &["-f", &path])?;
    let pods = lab.pods("run=kubia")?;
    assert_eq!(pods.len(), 3, "{pods:?}");
    let (pod, node, address) = &pods[0];
    let (code, report) = lab.verify(&[])?;
    let checks = report["checks"].as_array().context("no checks")?;
    let told: Vec<(&str, usize)> = checks
        .iter()
        .filter_map(|check| Some((check["name"].as_str()?, check["verdicts"].as_array()?.len())))
        .collect();
    // Three pods on three nodes: no two of them share one.
    let expected =
        [("container-localhost", 3), ("same-node", 0), ("cross-node", 6), ("ingress", 3), ("egress", 3)];
    assert_eq!((code, &report["failed"], told.as_slice()), (0, &json!(0), expected.as_slice()), "{report:#}");
    let title = checks[3]["title"].as_str().unwrap_or_default();
    ensure!(title.ends_with(", of svc/kubia-http"), "{title}");
    let subjects: Vec<&str> = checks
        .iter()
        .flat_map(|check| check["verdicts"].as_array().into_iter().flatten())
        .filter_map(|verdict| verdict["subject"].as_str())
        .collect();
    for subject in [format!("{pod} sidecar > app"), format!("client > {pod}"), format!("{pod} > client")] {
        ensure!(subjects.contains(&subject.as_str()), "no {subject} among {subjects:?}");
    }

    let whole = inspect(&lab, &[])?;
    assert_eq!(
        whole["hosts"],
        json!([{ "name": "client", "address": "203.0.113.9", "addresses": ["203.0.113.9"] }])
    );
    let own = inspect(&lab, &[pod])?;
    assert_eq!((&own["containers"], &own["node"]), (&json!(["app", "sidecar"]), &json!(node)));
    assert_eq!(inspect(&lab, &["client"])?["address"], "203.0.113.9");
    let hit = lab.k(&format!("exec {pod} -c app -- curl -s localhost:8080"))?;
    assert_eq!(hit, format!("You've hit {pod}\n"));
    let none = lab.kubectl(&format!("exec {pod} -c kubia -- true"))?;
    ensure!(text(&none).contains("there are: app, sidecar"), "{}", text(&none));
    let walked = walk(&lab, ["client", pod])?;
    assert_eq!((&walked[0][0], &walked[0][1]), (&json!("client"), &json!("eth0")), "{walked:?}");
    ensure!(lab.exec("client", &["curl", "-s", &format!("{address}:8080")])?.contains(pod), "{address}");
    let named = lab.k(&format!("exec {pod} -- curl -s client.example:8080"))?;
    assert_eq!(named, "You've hit client\n");
    let nobody = lab.podlab("inspect", &["outside"])?;
    ensure!(text(&nobody).contains("there are: fabric, client, node1 to node3, "), "{}", text(&nobody));
    let listed = podlab(&["ls", "-q"])?;
    ensure!(text(&listed).contains(&lab.name), "{}", text(&listed));
    Ok(())
}

#[test]
fn nodes_and_hosts_outside_have_the_names_and_addresses_of_the_file() -> Result<()> {
    let (_dir, path) = file(
        "lab.yaml",
        "
ipFamily: dual
nodes: [{name: alpha, address: 198.18.1.21/24}, {name: beta}, {name: gamma, address: 'fd00:198:18:2::7'}]
racks: 2
pods: 1
outside: [{name: client, address: 203.0.113.20/24}, {name: other, address: 203.0.113.77}]
",
    )?;
    let lab = Lab::up("named", &["-f", &path])?;
    let (code, report) = lab.verify(&[])?;
    let checks = report["checks"].as_array().context("no checks")?.iter();
    let count = |name: &str| -> Option<usize> {
        let check = checks.clone().find(|check| check["name"] == name)?;
        check["verdicts"].as_array().map(Vec::len)
    };
    assert_eq!((code, &report["failed"]), (0, &json!(0)), "{report:#}");
    // Three pods, two hosts, two IP versions.
    assert_eq!((count("egress"), count("ingress")), (Some(12), Some(12)));
    let whole = inspect(&lab, &[])?;
    let told: Vec<(&Value, &Value)> = ["nodes", "hosts"]
        .iter()
        .flat_map(|key| whole[*key].as_array().into_iter().flatten())
        .map(|it| (&it["name"], &it["addresses"]))
        .collect();
    let expected = [
        ("alpha", ["198.18.1.21", "fd00:198:18:1::11"]),
        ("beta", ["198.18.1.12", "fd00:198:18:1::12"]),
        ("gamma", ["198.18.2.13", "fd00:198:18:2::7"]),
        ("client", ["203.0.113.20", "2001:db8:203:113::9"]),
        ("other", ["203.0.113.77", "2001:db8:203:113::10"]),
    ]
    .map(|(name, addresses)| (json!(name), json!(addresses)));
    assert_eq!(told, expected.iter().map(|(name, addresses)| (name, addresses)).collect::<Vec<_>>());
    let walked = walk(&lab, ["other", "kubia-3"])?;
    let way: Vec<String> = walked
        .iter()
        .map(|hop| format!("{}/{}", hop[0].as_str().unwrap_or(""), hop[1].as_str().unwrap_or("")))
        .collect();
    ensure!(
        way[0] == "other/eth0" && way[1] == "fabric/wan1" && way.contains(&"gamma/eth0".to_owned()),
        "{way:?}"
    );
    // They reach each other too, by the router: one less of the TTL.
    for target in ["203.0.113.77", "[2001:db8:203:113::10]"] {
        let walked = walk(&lab, ["client", target])?;
        let ttls: Vec<u64> = walked.iter().take(4).filter_map(|hop| hop[3].as_u64()).collect();
        assert_eq!((ttls, &walked[3][0]), (vec![64, 64, 63, 63], &json!("other")), "{walked:?}");
    }
    let output = lab.podlab("verify", &["--node", "delta"])?;
    ensure!(text(&output).contains("there are: alpha, beta, gamma"), "{}", text(&output));
    let output = lab.podlab("break", &["link-down", "gamma"])?;
    ensure!(output.status.success() && text(&output).contains("gamma"), "{}", text(&output));
    let why = lab.podlab("why", &["kubia-1", "kubia-3", "-o", "json"])?;
    let why: Value = serde_json::from_slice(&why.stdout)?;
    assert_eq!(why["suspects"][0]["part"], "gamma", "the port of that name: {why:#}");
    ensure!(lab.podlab("heal", &["--all"])?.status.success());
    let why = lab.podlab("why", &["client", "kubia-1", "-o", "json"])?;
    ensure!(why.status.success() && text(&why).contains("nothing is broken"), "{}", text(&why));
    for form in ["svg", "ascii"] {
        let drawn = lab.podlab("graph", &["-f", form])?;
        let drawn = text(&drawn);
        for name in ["client", "other", "wan1", "alpha", "gamma"] {
            ensure!(drawn.contains(name), "no {name} in {drawn}");
        }
    }
    Ok(())
}

#[test]
fn a_topology_that_is_none_is_refused_with_line_and_column() -> Result<()> {
    for (written, words) in [
        (
            "nodes: 2\ncni:\n  conff: x\n",
            "unknown field `conff`, expected one of dir, conf, ipMasq at line 3, column 3",
        ),
        ("nodes: 2\nservices:\n  - {name: a, selector: {a: b}, typ: x}\n", "at line 3, column 33"),
        ("{\"nodes\": 2,\n \"node\": 3}", "unknown field `node`"),
        ("nodes: 2\npods: many\n", "at line 2, column 7"),
        ("services: [{name: a}]", "services[0] \"a\": it needs a selector"),
        ("verify: [c3c]", "no check \"c3c\""),
        ("nodes: [a, {name: a}]", "nodes[1] \"a\": nodes[0] \"a\" has this name"),
        ("outside:\n  - {name: a, adress: 203.0.113.7}\n", "at line 2, column 15"),
    ] {
        let (_dir, path) = file("lab.yaml", written)?;
        let output = podlab(&["up", "-d", "-f", &path, "--name", "e2e-refused"])?;
        ensure!(output.status.code() == Some(2), "{written}: {}", text(&output));
        ensure!(
            text(&output).contains(words) && text(&output).contains("error: "),
            "{written}: {}",
            text(&output)
        );
    }
    let listed = podlab(&["ls", "-q"])?;
    ensure!(!text(&listed).contains("e2e-refused"), "{}", text(&listed));
    Ok(())
}

#[test]
fn standard_input_can_be_the_file_and_options_win_over_it() -> Result<()> {
    let mut child =
        command(&["up", "--dry-run", "-o", "json", "-f", "-", "--nodes", "2", "--pod-cidr", "10.1.0.0/16"])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(b"{nodes: 5, pods: 1, seed: 3}")?;
    let output = child.wait_with_output()?;
    let plan: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((plan["nodes"].as_array().map(Vec::len), &plan["pods"]), (Some(2), &json!(1)));
    assert_eq!(
        (&plan["podCIDR"], &plan["nodes"][1]["podCIDR"]),
        (&json!("10.1.0.0/16"), &json!("10.1.2.0/24"))
    );
    ensure!(!Path::new("-").exists());
    Ok(())
}
