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
        ("verify: [c2c]", "no check \"c2c\""),
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
