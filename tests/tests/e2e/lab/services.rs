//! Services in whole labs: addresses that are nowhere, shares, who is seen as the source, and a fault for each check.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::faults::reds;
use super::verdicts::verdicts;
use super::{Lab, text};

/// Three nodes, a pod on each, behind `kubia-http` at 10.96.0.11:8080.
const ADDRESS: &str = "10.96.0.11:8080";

fn lab(name: &str, replicas: u32) -> Result<Lab> {
    let lab = Lab::up(name, &["--pods", "0"])?;
    lab.k("run kubia --image=luksa/kubia --port=8080 --generator=run/v1")?;
    lab.k(&format!("scale --replicas={replicas} rc/kubia"))?;
    assert_eq!(lab.k("expose rc kubia --type=ClusterIP --name kubia-http")?, "service/kubia-http exposed\n");
    Ok(lab)
}

impl Lab {
    /// Asks an address so many times from a place: how often each host answered.
    fn hits(&self, from: &str, address: &str, times: u32) -> Result<BTreeMap<String, u32>> {
        let script = format!("for i in $(seq {times}); do curl -s -m 2 {address} || echo none; done");
        let mut hits = BTreeMap::new();
        for line in self.exec(from, &["sh", "-c", &script])?.lines() {
            *hits.entry(line.trim_start_matches("You've hit ").to_owned()).or_default() += 1;
        }
        Ok(hits)
    }

    /// The exit code of curl: 7 could not connect, 28 no answer.
    fn curl(&self, from: &str, address: &str) -> Result<i32> {
        let output = self.podlab("exec", &[from, "--", "curl", "-s", "-m", "1", address])?;
        Ok(output.status.code().unwrap_or(-1))
    }

    /// The remote addresses that a pod logged, in order.
    fn remotes(&self, pod: &str) -> Result<Vec<String>> {
        let log = self.k(&format!("logs {pod}"))?;
        let remote =
            |line: &str| Some(line.strip_prefix("Received request from ")?.split(' ').next()?.to_owned());
        Ok(log.lines().filter_map(remote).collect())
    }
}

/// The verdicts of a check that are not PASS: subject, ruling, kinds of findings.
fn bad(report: &Value, check: &str) -> Result<Vec<(String, String, Vec<String>)>> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().context("no checks")?;
    let found = checks.iter().find(|it| it["name"] == check).with_context(|| format!("no check {check}"))?;
    let verdicts = found["verdicts"].as_array().context("no verdicts")?;
    ensure!(!verdicts.is_empty(), "{check} checked nothing");
    let findings = |verdict: &Value| {
        verdict["findings"].as_array().into_iter().flatten().map(|finding| word(&finding["kind"])).collect()
    };
    let is_bad = |verdict: &&Value| verdict["ruling"] != "PASS";
    let seen = |verdict: &Value| (word(&verdict["subject"]), word(&verdict["ruling"]), findings(verdict));
    Ok(verdicts.iter().filter(is_bad).map(seen).collect())
}

#[test]
fn three_pods_share_three_hundred_connections() -> Result<()> {
    let lab = lab("share", 3)?;
    let pods = lab.pods("run=kubia")?;
    for from in [pods[0].0.as_str(), "node2"] {
        let hits = lab.hits(from, ADDRESS, 300)?;
        assert_eq!(hits.len(), 3, "{from}: {hits:?}");
        ensure!(hits.values().all(|count| (75..=126).contains(count)), "{from}: {hits:?}");
    }
    let (code, report) = lab.verify(&["service-state", "service-reach", "service-share"])?;
    ensure!(code == 0, "{report:#}");
    // Three pods, three nodes and outside; one client on each node.
    let counts: Vec<usize> = report["checks"]
        .as_array()
        .context("no checks")?
        .iter()
        .filter_map(|it| it["verdicts"].as_array())
        .map(Vec::len)
        .collect();
    assert_eq!(counts, [1, 7, 3]);
    Ok(())
}

/// A probe with the ports of a connection that was led to the same pod a moment ago would get another source port, and be
/// taken for translated.
#[test]
fn probes_of_services_and_of_pods_have_no_port_in_common() -> Result<()> {
    let lab = lab("apart", 3)?;
    let (code, report) = lab.verify(&[])?;
    ensure!(code == 0, "{report:#}");
    let mut ports = std::collections::BTreeMap::from([(false, Vec::new()), (true, Vec::new())]);
    for check in report["checks"].as_array().context("no checks")? {
        let of_services = check["name"].as_str().is_some_and(|name| name.starts_with("service"));
        for verdict in check["verdicts"].as_array().into_iter().flatten() {
            let local = verdict["outcome"]["local"].as_str().and_then(|local| local.rsplit(':').next());
            ports.entry(of_services).or_default().extend(local.and_then(|port| port.parse::<u16>().ok()));
        }
    }
    let (direct, services) = (&ports[&false], &ports[&true]);
    ensure!(direct.len() > 12 && direct.iter().all(|port| (20_000..32_000).contains(port)), "{direct:?}");
    ensure!(services.len() > 5 && services.iter().all(|port| *port >= 32_000), "{services:?}");
    // Nor have two probes of different pods, which a node that masquerades would give one port of its own.
    let different: std::collections::BTreeSet<&u16> = direct.iter().collect();
    assert_eq!(different.len(), direct.len(), "{direct:?}");
    Ok(())
}

#[test]
fn the_address_of_a_service_is_nowhere_and_works_inside_only() -> Result<()> {
    let lab = lab("nowhere", 3)?;
    let pods = lab.pods("run=kubia")?;
    for place in ["node1", "node2", "node3", "fabric", "outside", &pods[0].0] {
        let addresses = lab.exec(place, &["ip", "-br", "addr"])?;
        ensure!(!addresses.contains("10.96.0.11"), "{place}: {addresses}");
    }
    for inside in ["node1", &pods[1].0] {
        assert_eq!(lab.curl(inside, ADDRESS)?, 0, "{inside}");
        assert_eq!(lab.curl(inside, "10.96.0.11:81")?, 7, "another port is refused, {inside}");
    }
    assert_ne!(lab.curl("outside", ADDRESS)?, 0);
    let (_, report) = lab.verify(&["service-reach"])?;
    let dnat = report.to_string();
    ensure!(dnat.contains("DNAT 10.96.0.11:8080 to 10.244."), "{report:#}");
    Ok(())
}

#[test]
fn pods_come_and_go_and_the_service_stays() -> Result<()> {
    let lab = lab("stays", 2)?;
    let before = lab.k("get svc kubia-http --no-headers")?;
    let first = lab.pods("run=kubia")?;
    lab.k(&format!("delete pod {}", first[0].0))?;
    let now = lab.pods("run=kubia")?;
    let hits = lab.hits("node1", ADDRESS, 6)?;
    assert_eq!(hits.keys().collect::<Vec<_>>(), {
        let mut names: Vec<&String> = now.iter().map(|pod| &pod.0).collect();
        names.sort();
        names
    });
    ensure!(before.split_whitespace().nth(2) == Some("10.96.0.11"), "{before}");
    ensure!(lab.k("get svc kubia-http --no-headers")?.contains("10.96.0.11"), "another address");
    let endpoints = lab.k("get endpoints kubia-http")?;
    ensure!(now.iter().all(|pod| endpoints.contains(&format!("{}:8080", pod.2))), "{endpoints}");
    // With the last service the table goes too.
    lab.k("delete svc kubia-http")?;
    assert_eq!(lab.exec("node1", &["nft", "list", "ruleset"])?, "");
    assert_ne!(lab.curl("node1", ADDRESS)?, 0);
    Ok(())
}

#[test]
fn nobody_behind_a_service_is_a_refusal() -> Result<()> {
    let lab = lab("refused", 0)?;
    lab.k("run solo --image=kubia")?;
    for place in ["solo", "node1"] {
        assert_eq!(lab.curl(place, ADDRESS)?, 7, "{place}");
    }
    let (code, report) = lab.verify(&["service-reach"])?;
    ensure!(code == 0, "{report:#}");
    let (code, report) = lab.verify(&["service-state"])?;
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(bad(&report, "service-state")?[0].2, ["no-endpoints"]);
    Ok(())
}

#[test]
fn a_client_stays_with_its_pod_while_others_come() -> Result<()> {
    let lab = lab("affinity", 3)?;
    lab.k(r#"patch svc kubia-http -p {"spec":{"sessionAffinity":"ClientIP"}}"#)?;
    let pods = lab.pods("run=kubia")?;
    let first = lab.hits(&pods[0].0, ADDRESS, 20)?;
    assert_eq!(first.len(), 1, "{first:?}");
    lab.k("scale --replicas=6 rc/kubia")?;
    assert_eq!(lab.hits(&pods[0].0, ADDRESS, 20)?, first);
    // Others have pods of their own.
    let all: Vec<BTreeMap<String, u32>> =
        pods.iter().map(|pod| lab.hits(&pod.0, ADDRESS, 5)).collect::<Result<_>>()?;
    ensure!(all.iter().all(|hits| hits.len() == 1), "{all:?}");
    let (code, report) = lab.verify(&["service-share", "service-reach"])?;
    ensure!(code == 0, "{report:#}");
    Ok(())
}

#[test]
fn from_outside_by_every_node_with_the_clients_address_kept_or_not() -> Result<()> {
    let lab = lab("outside", 2)?;
    lab.k("expose rc kubia --type=NodePort --name cluster")?;
    lab.k("expose rc kubia --type=LoadBalancer --name balancer --port=80 --target-port=8080")?;
    lab.k("expose rc kubia --type=NodePort --name local")?;
    lab.k(r#"patch svc local -p {"spec":{"externalTrafficPolicy":"Local"}}"#)?;
    let services = lab.k("get svc")?;
    for words in ["8080:30080/TCP", "198.51.100.1", "80:30081/TCP", "8080:30082/TCP"] {
        ensure!(services.contains(words), "no {words} in {services}");
    }
    let pods = lab.pods("run=kubia")?;
    // Node 3 has no pod: it forwards under its own name, and keeps silent where only its own pods may serve.
    assert_eq!(lab.hits("outside", "192.0.2.13:30080", 2)?.len(), 2);
    for (pod, _, _) in &pods {
        assert_eq!(lab.remotes(pod)?, ["192.0.2.13"], "{pod}");
    }
    assert_eq!(lab.curl("outside", "192.0.2.13:30082")?, 28);
    for (number, (pod, _, _)) in pods.iter().enumerate() {
        let hits = lab.hits("outside", &format!("192.0.2.1{}:30082", number + 1), 3)?;
        assert_eq!(hits, [(pod.clone(), 3)].into());
        assert_eq!(lab.remotes(pod)?[1..], ["203.0.113.9"; 3], "{pod}");
    }
    assert_eq!(lab.hits("outside", "198.51.100.1:80", 4)?.len(), 2);
    let (code, report) = lab.verify(&["service-reach", "service-share"])?;
    ensure!(code == 0, "{report:#}");
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    let lab = lab("hairpin", 1)?;
    let pods = lab.pods("run=kubia")?;
    assert_eq!(lab.hits(&pods[0].0, ADDRESS, 3)?, [(pods[0].0.clone(), 3)].into());
    // It sees its node, as no packet from its own address would be taken.
    assert_eq!(lab.remotes(&pods[0].0)?, ["10.244.1.1"; 3]);
    Ok(())
}

#[test]
fn pods_of_one_node_reach_a_service_though_bridges_do_not_call_netfilter() -> Result<()> {
    let lab = Lab::up("bridged", &["--pods", "0", "--nodes", "1"])?;
    lab.exec("node1", &["sh", "-c", "echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables"])?;
    lab.k("run kubia --image=kubia --port=8080 --generator=run/v1 --replicas=2")?;
    lab.k("expose rc kubia")?;
    let pods = lab.pods("run=kubia")?;
    assert_eq!(lab.hits(&pods[0].0, ADDRESS, 4)?.len(), 2);
    assert_eq!(lab.remotes(&pods[1].0)?, ["10.244.1.1"; 2], "without it the source cannot stay");
    let (code, report) = lab.verify(&["service-reach", "service-share"])?;
    ensure!(code == 0, "{report:#}");
    Ok(())
}

/// A client of one UDP socket: each line on its standard input is a datagram, each answer's first line is printed.
const DATAGRAMS: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.connect(('10.96.0.12', 8080))
for line in sys.stdin:
    s.send(b'x')
    try:
        print(s.recv(2000).decode().splitlines()[0], flush=True)
    except Exception as e:
        print(e, flush=True)
";

#[test]
fn datagrams_of_one_socket_leave_a_pod_that_is_gone() -> Result<()> {
    let lab = lab("udp", 2)?;
    lab.k("expose rc kubia --name datagrams --protocol UDP")?;
    let arguments = ["exec", "--name", &lab.name, "node1", "--", "python3", "-c", DATAGRAMS];
    let mut client = super::command(&arguments)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut ask = client.stdin.take().context("no stdin")?;
    let mut answers = BufReader::new(client.stdout.take().context("no stdout")?).lines();
    let mut hit = || -> Result<String> {
        ask.write_all(b"\n")?;
        let line = answers.next().context("the client has ended")??;
        Ok(line.strip_prefix("You've hit ").with_context(|| format!("no answer: {line}"))?.to_owned())
    };
    let first = hit()?;
    assert_eq!(hit()?, first, "the kernel knows the connection");
    lab.k(&format!("delete pod {first}"))?;
    assert_ne!(hit()?, first);
    drop(ask);
    ensure!(client.wait()?.success(), "the client fails");
    Ok(())
}

/// Spoils a lab with two replicas by a command somewhere, and expects this check to fail, with this kind of finding.
fn fault(name: &str, spoil: impl Fn(&Lab) -> Result<()>, check: &str, kind: &str) -> Result<()> {
    let lab = lab(name, 2)?;
    let (code, report) = lab.verify(&[check])?;
    ensure!(code == 0, "{name}: {check} is red before: {report:#}");
    spoil(&lab)?;
    let (code, report) = lab.verify(&[check])?;
    let bad = bad(&report, check)?;
    let is_found = bad.iter().any(|(_, _, kinds)| kinds.iter().any(|it| it == kind));
    ensure!(code == 1 && is_found, "{name}: {check}: {bad:?}");
    ensure!(bad.iter().all(|(_, ruling, _)| ruling == "FAIL"), "{name}: {check}: {bad:?}");
    Ok(())
}

/// Commands of nft on node 1, on the lab's table.
fn nft(lab: &Lab, commands: &[&str]) -> Result<()> {
    for command in commands {
        let command = format!("nft {command}");
        lab.exec("node1", &["sh", "-c", &command])?;
    }
    Ok(())
}

const SERVICE: &str = "ip podlab service/kubia-http/tcp/8080";

#[test]
fn each_check_of_services_has_a_fault_that_turns_it_red() -> Result<()> {
    let own = |endpoint: &str| format!("ip podlab endpoint/kubia-http/tcp/8080/{endpoint}");
    let patch =
        |lab: &Lab, spec: &str| lab.k(&format!("patch svc kubia-http -p {{\"spec\":{spec}}}")).map(|_| ());
    fault(
        "f-selector",
        |lab| patch(lab, r#"{"selector":{"run":"kubio"}}"#),
        "service-state",
        "no-endpoints",
    )?;
    let take =
        |lab: &Lab| lab.exec("node2", &["ip", "addr", "add", "10.96.0.11/32", "dev", "lo"]).map(|_| ());
    fault("f-owned", take, "service-state", "address-owned")?;
    fault("f-port", |lab| patch(lab, r#"{"ports":[{"targetPort":8081}]}"#), "service-reach", "unreachable")?;
    // A pod that is not behind the service any more still gets its connections.
    let stale = |lab: &Lab| {
        let pods = lab.pods("run=kubia")?;
        lab.k(&format!("label pod {} run-", pods[0].0))?;
        let flush = format!("flush chain {SERVICE}");
        let chain = format!("add chain {}", own("old"));
        let rule = format!("add rule {} meta l4proto tcp dnat to {}:8080", own("old"), pods[0].2);
        let goto = format!("add rule {SERVICE} goto endpoint/kubia-http/tcp/8080/old");
        nft(lab, &[&chain, &rule, &flush, &goto])
    };
    fault("f-stale", stale, "service-reach", "wrong-backend")?;
    let gone = |lab: &Lab| {
        let flush = format!("flush chain {}", own("10.244.2.2"));
        let rule = format!("add rule {} meta l4proto tcp dnat to 10.244.2.99:8080", own("10.244.2.2"));
        nft(lab, &[&flush, &rule])
    };
    fault("f-gone", gone, "service-share", "unreachable")?;
    let hairpin = |lab: &Lab| {
        let flush = format!("flush chain {}", own("10.244.1.2"));
        let rule = format!("add rule {} meta l4proto tcp dnat to 10.244.1.2:8080", own("10.244.1.2"));
        nft(lab, &[&flush, &rule])
    };
    fault("f-hairpin", hairpin, "service-share", "unreachable")?;
    let way = |lab: &Lab| {
        let route = ["ip", "route", "add", "10.96.0.0/16", "via", "192.0.2.11", "table", "100"];
        lab.exec("fabric", &route).map(|_| ())
    };
    fault("f-exposed", way, "service-reach", "exposed")?;
    let uneven = |lab: &Lab| {
        let flush = format!("flush chain {SERVICE}");
        nft(lab, &[&flush, &format!("add rule {SERVICE} goto endpoint/kubia-http/tcp/8080/10.244.2.2")])
    };
    fault("f-uneven", uneven, "service-share", "uneven-share")?;
    let stray = |lab: &Lab| {
        patch(lab, r#"{"sessionAffinity":"ClientIP"}"#)?;
        let (code, report) = lab.verify(&["service-share"])?;
        ensure!(code == 0, "{report:#}");
        let flush = format!("flush chain {SERVICE}");
        let chain = "endpoint/kubia-http/tcp/8080";
        let turns = format!("{{ 0 : goto {chain}/10.244.1.2, 1 : goto {chain}/10.244.2.2 }}");
        nft(lab, &[&flush, &format!("add rule {SERVICE} numgen inc mod 2 vmap '{turns}'")])
    };
    fault("f-stray", stray, "service-share", "strayed")?;
    Ok(())
}

#[test]
fn a_refusal_that_is_taken_away_turns_its_check_red() -> Result<()> {
    let lab = lab("f-refusal", 0)?;
    lab.k("run solo --image=kubia")?;
    nft(&lab, &["flush chain ip podlab refusals"])?;
    let (code, report) = lab.verify(&["service-reach"])?;
    let bad = bad(&report, "service-reach")?;
    ensure!(code == 1 && bad.len() == 1 && bad[0].2 == ["not-refused"], "{bad:?}");
    Ok(())
}

#[test]
fn services_that_cannot_be_are_refused() -> Result<()> {
    let lab = lab("s-wrong", 1)?;
    for (args, words) in [
        (&["expose", "rc", "nobody"][..], "replicationcontrollers \"nobody\" not found"),
        (&["expose", "rc", "kubia", "--name", "kubia-http"], "services \"kubia-http\" already exists"),
        (&["expose", "rc", "kubia", "--cluster-ip", "10.0.0.1"], "spec.clusterIP"),
        (&["expose", "rc", "kubia", "--cluster-ip", "10.96.0.11"], "spec.clusterIP"),
        (&["expose", "rc", "kubia", "--type", "Magic"], "invalid value 'Magic'"),
        (&["expose", "rc", "kubia", "--session-affinity", "Cookie"], "sessionAffinity"),
        (&["create", "service", "nodeport", "x", "--tcp", "80", "--node-port", "80"], "nodePort: 80"),
        (&["create", "service", "clusterip", "x"], "couldn't find port via --port flag or introspection"),
        (&["create", "service", "externalname", "x"], "spec.externalName"),
        (&["patch", "svc", "kubia-http", "-p", r#"{"spec":{"colour":1}}"#], "unknown field `colour`"),
        (&["patch", "svc", "kubia-http", "-p", r#"{"spec":{"type":"ExternalName"}}"#], "spec.type"),
        (&["patch", "svc", "kubia-http", "-p", "{"], "unable to parse"),
    ] {
        let mut line = vec!["kubectl", "--context", &lab.name];
        line.extend(args);
        let output = super::podlab(&line)?;
        ensure!(!output.status.success() && text(&output).contains(words), "{args:?}: {}", text(&output));
    }
    Ok(())
}

#[test]
fn services_work_in_every_mode_whose_nodes_route_and_across_racks() -> Result<()> {
    for mode in ["routed", "ptp", "vxlan", "bgp", "mesh"] {
        for racks in ["1", "2"] {
            let options = ["--nodes", "3", "--pods", "1", "--mode", mode, "--racks", racks];
            let lab = Lab::up(&format!("svc-{mode}-{racks}"), &options)?;
            lab.k("run web --image=kubia --port=8080 --generator=run/v1 --replicas=3")?;
            lab.k("expose rc web --type=LoadBalancer")?;
            // Shares need hundreds of connections at once, and are counted in one mode.
            let (code, report) = lab.verify(&["service-state", "service-reach"])?;
            assert_eq!(code, 0, "{mode}, {racks} racks: {:?}", reds(&report));
            // Three pods of the topology and three of the service, three nodes, and outside by five ways.
            assert_eq!(verdicts(&report, "service-reach")?.len(), 14, "{mode}, {racks} racks");
            // A lost way to the load balancer is red, and nothing else.
            if racks == "2" {
                lab.exec("rack1", &["ip", "route", "del", "198.51.100.1/32"])?;
                let (code, report) = lab.verify(&["service-reach"])?;
                let bad: Vec<_> =
                    verdicts(&report, "service-reach")?.iter().filter(|it| it["ruling"] != "PASS").collect();
                ensure!(code == 1 && bad.len() == 1, "{mode}: {bad:?}");
                assert_eq!(bad[0]["subject"], "outside > svc/web by its load balancer", "{mode}");
            }
        }
    }
    let lab = Lab::up("svc-macvlan", &["--nodes", "1", "--pods", "1", "--mode", "macvlan"])?;
    let refused = lab.k("expose pod kubia-1 --port=80");
    ensure!(refused.is_err_and(|err| format!("{err:#}").contains("mode macvlan has no services")));
    Ok(())
}
