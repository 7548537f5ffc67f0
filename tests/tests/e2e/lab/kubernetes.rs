//! The lab's verifier judges a network that podnet's agents have made, by a real kube-apiserver: from packets, and in red
//! where one of its statements is not so.
//!
//! ```text
//!  fabric (etcd, kube-apiserver) ── outside
//!  ├ rack1 ── node1: kubia-1, kubia-2 · node2: kubia-3, kubia-4     routes between them
//!  └ rack2 ── node3: kubia-5, kubia-6                               VXLAN to it
//! ```

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podnet_tests::kube::Client;
use serde_json::{Value, json};

use super::cleanliness::leave_the_machine_as_it_is;
use super::modes::{of, on_wire, reddens, up};
use super::verdicts::{rulings, verdicts};
use super::{Lab, command, eventually, podlab, text};

/// Three nodes in two racks, two pods on each.
const RACKS: [&str; 6] = ["--nodes", "3", "--racks", "2", "--pods", "2"];
/// How long the kernel may take to end all of a lab.
const LIMIT: Duration = Duration::from_secs(20);

/// What every check comes to in a lab of [`RACKS`], for each of so many IP versions.
fn all_pass(versions: usize) -> Vec<(String, String, usize)> {
    let counts = [
        ("unique-address", 6),
        ("container-localhost", 6),
        ("same-node", 6),
        ("cross-node", 24),
        ("ingress", 6),
        ("egress", 6),
    ];
    counts.map(|(check, count)| (check.to_owned(), "PASS".to_owned(), versions * count)).to_vec()
}

/// Sends a signal to the agent of a node.
fn signal(lab: &Lab, node: &str, name: &str) -> Result<()> {
    let script = format!("kill -{name} $(cat /run/podlab/kubernetes/{node}/podnetd.pid)");
    lab.exec(node, &["sh", "-c", &script]).map(drop)
}

/// Waits until everything passes; the report.
fn passes(lab: &Lab, what: &str) -> Result<Value> {
    let mut last = Value::Null;
    eventually(what, || {
        let (code, report) = lab.verify(&[])?;
        last = report;
        Ok(code == 0)
    })
    .with_context(|| format!("{:?}", rulings(&last)))?;
    Ok(last)
}

/// Waits until of these checks those verdicts fail, and no others, whose two ends are such.
fn reddens_where(lab: &Lab, what: &str, checks: &[&str], is_red: impl Fn(&str, &str) -> bool) -> Result<()> {
    let mut last = String::new();
    eventually(what, || {
        let (_, report) = lab.verify(checks)?;
        let mut wrong = Vec::new();
        for check in checks {
            for verdict in verdicts(&report, check)? {
                let subject = verdict["subject"].as_str().unwrap_or_default();
                let (from, to) = subject.split_once(" > ").context("no two ends")?;
                let ruling = if is_red(from, to) { "FAIL" } else { "PASS" };
                if verdict["ruling"] != ruling {
                    wrong.push(format!("{check} {subject}: {}", verdict["evidence"]));
                }
            }
        }
        last = wrong.join("\n");
        Ok(wrong.is_empty())
    })
    .with_context(|| last)
}

/// A command that waits in a lab for as long as the value lives. Its client is in the namespace too.
struct Inside(Child);

impl Inside {
    fn new(lab: &Lab, target: &str) -> Result<Inside> {
        let waiting = ["exec", "--name", &lab.name, target, "--", "sh", "-c", "echo; exec sleep 1000"];
        let mut child = command(&waiting)?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut told = [0];
        let stdout = child.stdout.as_mut().context("no output")?;
        std::io::Read::read_exact(stdout, &mut told).context("the command in the lab")?;
        Ok(Inside(child))
    }

    fn netns(&self) -> Result<Netns> {
        Ok(Netns::open(format!("/proc/{}/ns/net", self.0.id()).as_ref())?)
    }

    /// All processes of the lab: number and command line.
    fn processes(&self) -> Result<Vec<(i32, String)>> {
        let own = fs::metadata(format!("/proc/{}/ns/pid_for_children", self.0.id()))?.ino();
        Ok(processes_of(own))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The processes of a PID namespace.
fn processes_of(namespace: u64) -> Vec<(i32, String)> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_of_it =
        |pid: &i32| fs::metadata(format!("/proc/{pid}/ns/pid")).is_ok_and(|it| it.ino() == namespace);
    let line = |pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = |pid| (pid, String::from_utf8_lossy(&line(pid)).replace('\0', " "));
    pids.filter(is_of_it).map(words).collect()
}

/// The administrator's client of a lab's API, from inside.
fn administrator(lab: &Lab, inside: &Inside) -> Result<Client> {
    let mut file = tempfile::NamedTempFile::new()?;
    let text = lab.exec("node1", &["cat", "/run/podlab/kubernetes/admin.kubeconfig"])?;
    file.write_all(text.as_bytes())?;
    Client::new(&inside.netns()?, file.path())
}

#[test]
fn the_agents_network_passes_the_labs_checks_and_what_spoils_it_is_red() -> Result<()> {
    let lab = up("k8s", "kubernetes", &[&RACKS[..], &["--ip-family", "dual"]].concat())?;
    let (code, report) = lab.verify(&[])?;
    assert_eq!((code, rulings(&report)), (0, all_pass(2)));
    // Direct in the rack, VXLAN across, each with as many packets as pairs ask for: 8 and 16, there and back.
    let wire = on_wire(&report);
    let packets = |words: &str, bytes: &str| {
        let found = wire.iter().filter(|(looks, _)| looks.starts_with(words) && looks.contains(bytes));
        found.map(|(_, packets)| *packets).sum::<u64>()
    };
    assert_eq!(
        (
            wire.len(),
            packets("the pods' own packets", ""),
            packets("VXLAN, VNI 7368548", " 50 bytes"),
            packets("VXLAN, VNI 7368548", " 70 bytes")
        ),
        (3, 32, 32, 32),
        "{wire:?}"
    );
    // What leaves the cluster has its node's address, on the node's uplink and not before.
    for (subject, node) in
        [("kubia-1", "198.18.1.11 at node1/eth0"), ("kubia-5", "198.18.2.13 at node3/eth0")]
    {
        let verdict = of(&report, "egress", &format!("{subject} > outside IPv4"))?;
        ensure!(
            verdict["evidence"].as_str().is_some_and(|it| it.contains(&format!("SNAT to {node} only"))),
            "{verdict}"
        );
    }
    let trace = |to: &str| Ok::<_, anyhow::Error>(text(&lab.podlab("trace", &["kubia-1", to])?));
    let (near, far) = (trace("kubia-3")?, trace("kubia-5")?);
    ensure!(near.contains("route 10.244.2.0/24 via 198.18.1.12") && near.contains("no NAT"), "{near}");
    ensure!(far.contains("198.18.1.11 > 198.18.2.13:4789") && far.contains("by podnet-vxlan"), "{far}");

    // A node that masquerades what stays in the cluster, too: red for its pods as clients, whichever the way.
    let masquerade = "nft add table ip spoiled; nft add chain ip spoiled out '{ type nat hook postrouting priority 90; }'; \
                      nft add rule ip spoiled out oifname '{ eth0, podnet-vxlan }' ip saddr 10.244.0.0/16 masquerade";
    lab.exec("node1", &["sh", "-ec", masquerade])?;
    let report = reddens(&lab, "cross-node", "source-rewritten", &[])?;
    let is_red = |verdict: &&Value| verdict["ruling"] == "FAIL";
    let red: Vec<&str> = verdicts(&report, "cross-node")?
        .iter()
        .filter(is_red)
        .filter_map(|verdict| verdict["subject"].as_str())
        .collect();
    ensure!(
        red.len() == 8 && red.iter().all(|it| it.ends_with(" IPv4") && (it.starts_with("kubia-1 ") || it.starts_with("kubia-2 "))),
        "{red:?}"
    );
    lab.exec("node1", &["nft", "delete", "table", "ip", "spoiled"])?;
    passes(&lab, "without the rule")?;

    // A route that is deleted while the agent cannot see it is missed by packets, until it goes on.
    signal(&lab, "node1", "STOP")?;
    for route in ["10.244.2.0/24", "10.244.3.0/24"] {
        lab.exec("node1", &["ip", "route", "del", route])?;
    }
    let report = reddens(&lab, "cross-node", "unreachable", &[])?;
    for (subject, ruling) in [
        ("kubia-1 > kubia-3 IPv4", "FAIL"),
        ("kubia-1 > kubia-5 IPv4", "FAIL"),
        ("kubia-1 > kubia-5 IPv6", "PASS"),
        ("kubia-3 > kubia-5 IPv4", "PASS"),
    ] {
        assert_eq!(of(&report, "cross-node", subject)?["ruling"], ruling, "{subject}");
    }
    signal(&lab, "node1", "CONT")?;
    passes(&lab, "after the agent has put its routes right").map(drop)
}

#[test]
fn what_the_api_says_of_nodes_pods_and_policies_is_seen_in_the_labs_packets() -> Result<()> {
    let lab = up("k8s-api", "kubernetes", &RACKS)?;
    let inside = Inside::new(&lab, "fabric")?;
    let client = administrator(&lab, &inside)?;
    let (code, report) = lab.verify(&[])?;
    assert_eq!((code, rulings(&report)), (0, all_pass(1)));

    // A node that leaves is not reached any more; when it joins again it is.
    let node = client.get("/api/v1/nodes/node3")?;
    client.delete("/api/v1/nodes/node3")?;
    eventually("node3 is forgotten", || Ok(!lab.exec("node1", &["ip", "route"])?.contains("10.244.3.0/24")))?;
    let is_of_node3 = |end: &str| ["kubia-5", "kubia-6"].contains(&end);
    reddens_where(&lab, "node3 has left", &["cross-node"], |from, to| is_of_node3(from) || is_of_node3(to))?;
    let part = |pointer: &str| node.pointer(pointer).cloned().unwrap_or_default();
    client.create(&json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node3", "labels": part("/metadata/labels")},
        "spec": {"podCIDR": part("/spec/podCIDR"), "podCIDRs": part("/spec/podCIDRs")},
        "status": {"addresses": part("/status/addresses")},
    }))?;
    passes(&lab, "node3 has joined again")?;

    // Pods that come later are told of before they are made and closed to nobody; they go from the API when they go.
    let kubectl = |words: &[&str]| -> Result<()> {
        let output = podlab(&[&["kubectl", "--context", &lab.name][..], words].concat())?;
        ensure!(output.status.success(), "{words:?}: {}", text(&output));
        Ok(())
    };
    kubectl(&["run", "web", "--image=kubia", "--replicas=3", "--generator=run/v1"])?;
    kubectl(&["expose", "rc", "web", "--port=80", "--target-port=8080"])?;
    let of_web = || -> Result<Vec<Value>> {
        let pods = client.get("/api/v1/namespaces/default/pods?labelSelector=run%3Dweb")?;
        Ok(pods["items"].as_array().cloned().unwrap_or_default())
    };
    let pods = of_web()?;
    ensure!(pods.len() == 3 && pods.iter().all(|it| it["status"]["podIP"].is_string()), "{pods:?}");
    let report = passes(&lab, "three pods more and a service")?;
    ensure!(!verdicts(&report, "service-reach")?.is_empty(), "{:?}", rulings(&report));
    kubectl(&["scale", "rc", "web", "--replicas=1"])?;
    assert_eq!(of_web()?.len(), 1);

    // A policy closes the lab's pods, and only those that it chooses.
    client.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "shut", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"run": "web"}}, "policyTypes": ["Ingress"]},
    }))?;
    let web = of_web()?[0]["metadata"]["name"].as_str().context("no name")?.to_owned();
    reddens_where(&lab, "the policy is in force", &["ingress", "cross-node"], |_, to| to == web)?;
    client.delete("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/shut")?;
    passes(&lab, "without the policy")?;

    // A pod whose agent does not open it is told.
    let nodes = ["node1", "node2", "node3"];
    nodes.iter().try_for_each(|node| signal(&lab, node, "STOP"))?;
    let late = text(&podlab(&["kubectl", "--context", &lab.name, "run", "late", "--image=kubia"])?);
    ensure!(late.contains("pod late is closed: podnetd of node"), "{late}");
    nodes.iter().try_for_each(|node| signal(&lab, node, "CONT"))?;
    let report = passes(&lab, "the late pod is open")?;
    assert_eq!(of(&report, "ingress", "outside > late")?["ruling"], "PASS");

    // With the supervisor goes everything.
    let all = inside.processes()?;
    for (program, count) in [("etcd", 1), ("kube-apiserver", 1), ("podnetd", 3)] {
        let is_it = |(_, line): &&(i32, String)| {
            line.split(' ').next().is_some_and(|it| it.ends_with(&format!("/{program}")))
        };
        assert_eq!(all.iter().filter(is_it).count(), count, "{program}: {all:?}");
    }
    let supervisor = all.iter().find(|(_, line)| line.contains("__supervisor")).context("no supervisor")?;
    let namespace = fs::metadata(format!("/proc/{}/ns/pid", supervisor.0))?.ino();
    kill(Pid::from_raw(supervisor.0), Signal::SIGKILL)?;
    let deadline = Instant::now() + LIMIT;
    while !processes_of(namespace).is_empty() {
        ensure!(Instant::now() < deadline, "left after {LIMIT:?}: {:?}", processes_of(namespace));
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn the_machine_is_the_same_while_agents_make_a_labs_network() -> Result<()> {
    let small = ["--nodes", "2", "--pods", "1"];
    leave_the_machine_as_it_is(std::iter::once_with(|| up("k8s-same", "kubernetes", &small)))
}

#[test]
fn what_the_mode_cannot_be_is_refused_before_anything_is_made() -> Result<()> {
    let conf = tempfile::NamedTempFile::new()?;
    fs::write(conf.path(), r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "ptp"}]}"#)?;
    let path = conf.path().to_string_lossy();
    for (options, words) in [
        (vec!["--ip-masq"], "agents say what is masqueraded"),
        (vec!["--cni-conf", &path], "without --cni-conf"),
        (vec!["--cni-bin", "/"], "without --cni-bin"),
    ] {
        let output = podlab(&[&["up", "--mode", "kubernetes", "--dry-run"][..], &options].concat())?;
        ensure!(
            output.status.code() == Some(2) && text(&output).contains(words),
            "{options:?}: {}",
            text(&output)
        );
    }
    let plan = text(&podlab(&["up", "--mode", "kubernetes", "--dry-run"])?);
    ensure!(plan.contains("written by the node's agent, below /run/podlab/kubernetes/node1"), "{plan}");
    // Without the programs of a control plane nothing is begun.
    let name = format!("e2e-no-api-{}", std::process::id());
    let mut without = command(&["up", "-d", "--name", &name, "--mode", "kubernetes"])?;
    let output = without.env("PODNET_KUBE_ASSETS", "/nowhere").stdin(Stdio::null()).output()?;
    ensure!(
        output.status.code() == Some(5) && text(&output).contains("scripts/kube-assets"),
        "{}",
        text(&output)
    );
    ensure!(!text(&podlab(&["ls", "-q"])?).contains(&name));
    Ok(())
}
