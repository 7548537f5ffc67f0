//! Topologies: what is read, completed and refused.

use super::*;

fn resolved(text: &str) -> Topology {
    Written::parse(text, "-").unwrap().resolve().unwrap()
}

#[test]
fn an_empty_topology_is_the_demo() {
    let topology = resolved("{}");
    assert_eq!((topology.name.as_str(), topology.nodes.len(), topology.pods), ("demo", 3, 10));
    assert_eq!((topology.node_name(2), topology.outside[0].name.as_str()), ("node3", "outside"));
    assert_eq!(topology.outside[0].address.to_string(), "203.0.113.9");
    assert_eq!(topology.pod_name(1, 0), "kubia-11");
    assert_eq!(topology.node_address(2).to_string(), "192.0.2.13");
    assert_eq!(topology.pod_cidr(2).to_string(), "10.244.3.0/24");
    assert_eq!(topology.ranges.dns().to_string(), "10.96.0.10");
    assert!(topology.network(1).contains("\"subnet\": \"10.244.2.0/24\""));
    assert!(topology.network(1).contains("/run/podlab/ipam/node2"));
    assert!(!topology.network(1).contains("ipMasq"));
}

/// Everything that can be said, in YAML.
const FULL: &str = "
# What a lesson needs.
schema: podlab.topology/1
name: lesson
seed: 7
mode: vxlan:direct
nodes: 4
racks: 2
podCIDR: 10.128.0.0/12
serviceCIDR: 172.30.0.0/20
cni: {dir: /usr, ipMasq: true}
workloads:
  - {name: kubia, replicas: 3, app: kubia, port: 8080}
  - name: other
    labels: {app: other, tier: 2}
services:
  - {name: kubia-http, selector: {run: kubia}, port: 80, targetPort: 8080, type: NodePort, nodePort: 30090}
  - name: other
    selector: {app: other}
    type: LoadBalancer
    sessionAffinity: ClientIP
    externalTrafficPolicy: Local
    clusterIP: 172.30.1.1
  - {name: out, type: ExternalName, externalName: outside.example}
verify: [same-node, cross-node]
";

#[test]
fn everything_that_can_be_said_is_taken_over() {
    let topology = resolved(FULL);
    assert_eq!((topology.name.as_str(), topology.seed, topology.nodes.len()), ("lesson", Some(7), 4));
    assert_eq!((topology.mode.to_string().as_str(), topology.racks), ("vxlan:direct", 2));
    assert_eq!(topology.pods, 0, "with workloads there are no pods besides");
    assert_eq!(topology.pod_cidr(3).to_string(), "10.128.4.0/24");
    assert_eq!(topology.ranges.dns().to_string(), "172.30.0.10");
    assert_eq!(topology.cni_bin, [PathBuf::from("/usr")]);
    assert!(topology.cni_conf.contains("ipMasq"));
    let [kubia, other] = &topology.workloads[..] else { panic!("{:?}", topology.workloads) };
    assert_eq!((kubia.replicas, kubia.port.0, kubia.labels.len()), (3, 8080, 0));
    assert_eq!((other.replicas, other.labels["tier"].as_str()), (1, "2"));
    let [http, other, out] = &topology.services[..] else { panic!("{:?}", topology.services) };
    assert_eq!((http.port.0, http.target_port, http.node_port), (80, Some(8080), Some(30090)));
    assert_eq!((other.session_affinity, other.port.0), (Affinity::ClientIP, 8080));
    assert_eq!(out.external_name.as_deref(), Some("outside.example"));
    assert_eq!(topology.verify, ["same-node", "cross-node"]);
}

#[test]
fn paths_of_a_file_are_relative_to_it() {
    let written = Written::parse("cni: {dir: [bin, /abs], conf: x.conflist}", "-").unwrap();
    let written = written.relative_to(std::path::Path::new("/lessons"));
    let dirs = ["/lessons/bin", "/abs"].map(PathBuf::from).to_vec();
    assert_eq!(written.cni.dir, Some(OneOrMany::Many(dirs)));
    assert_eq!(written.cni.conf, Some(PathBuf::from("/lessons/x.conflist")));
}

#[test]
fn racks_share_the_nodes_evenly_and_have_a_link_each() {
    let topology = resolved(r#"{"nodes":5,"racks":2,"mode":"vxlan:direct"}"#);
    assert_eq!(
        (topology.mode.to_string().as_str(), topology.pod_cidr(4).to_string().as_str()),
        ("vxlan:direct", "10.244.5.0/24")
    );
    let racks: Vec<usize> = (0..5).map(|node| topology.rack(node)).collect();
    assert_eq!(racks, [0, 0, 0, 1, 1]);
    assert_eq!(topology.node_address(0).to_string(), "198.18.1.11");
    assert_eq!(topology.node_address(4).to_string(), "198.18.2.15");
    let (above, own) = topology.rack_uplink(1);
    assert_eq!((above.to_string().as_str(), own.to_string().as_str()), ("198.18.0.5/30", "198.18.0.6/30"));
}

#[test]
fn what_cannot_be_is_refused_with_the_key_and_the_limit() {
    for (text, words) in [
        ("nodes: 0", "nodes: 0 is not from 1 to 200"),
        ("nodes: 201", "nodes: 201 is not from 1 to 200"),
        ("pods: 1024", "pods on a node (a Linux bridge has 1023 ports): 1024 is not from 0 to 1023"),
        ("{pods: 251, nodes: 32}", "32 is not from 1 to 31"),
        ("racks: 0", "racks: 0 is not from 1 to 3"),
        ("racks: 4", "racks: 4 is not from 1 to 3"),
        ("name: a/b", "lab name \"a/b\""),
        ("name: ''", "lab name \"\""),
        ("cni: {dir: /nowhere}", "plugin directory /nowhere is not there"),
        ("cni: {conf: /nowhere}", "network configuration /nowhere"),
        ("cni: {conf: /dev/null}", "network configuration"),
        ("cni: {conf: /dev/null, ipMasq: true}", "ipMasq goes with the built-in"),
        ("podCIDR: 10.1.2.0/16", "podCIDR: 10.1.2.0/16 has host bits · try: 10.1.0.0/16"),
        ("podCIDR: 10.0.0.0/7", "podCIDR: prefix length: 7 is not from 8 to 22"),
        ("serviceCIDR: 10.96.0.0/27", "serviceCIDR: prefix length: 27 is not from 8 to 26"),
        ("{podCIDR: 10.1.0.0/22, nodes: 4}", "10.1.0.0/22 has no room for 4 PodCIDRs of /24"),
        (
            "{podCIDR: 10.1.0.0/16, nodes: 31, pods: 300, serviceCIDR: 10.1.0.0/20}",
            "podCIDR: 10.1.0.0/16 overlaps",
        ),
        ("serviceCIDR: 192.0.2.0/26", "serviceCIDR: 192.0.2.0/26 overlaps 192.0.2.0/24, the nodes' link"),
        ("podCIDR: 192.0.0.0/8", "overlaps 192.0.2.0/24"),
        ("serviceCIDR: 127.1.0.0/16", "overlaps 127.0.0.0/8, loopback"),
        ("workloads: [{name: Kubia}]", "workloads[0] \"Kubia\": "),
        ("workloads: [{name: a}, {name: a}]", "workloads[1] \"a\": there is one of this name before it"),
        ("workloads: [{name: a, port: 0}]", "workloads[0] \"a\": a port is 1 to 65535"),
        ("{nodes: 1, workloads: [{name: a, replicas: 251}]}", "251 replicas, and room for 250"),
        ("services: [{name: a}]", "services[0] \"a\": it needs a selector"),
        ("services: [{name: a, selector: {a: b}, targetPort: 0}]", "services[0] \"a\": "),
        (
            "services: [{name: a, selector: {a: b}, type: NodePort, nodePort: 80}]",
            "nodePort: 80 is taken, or not from",
        ),
        (
            "services: [{name: a, selector: {a: b}, clusterIP: 10.97.0.1}]",
            "10.97.0.1 is taken, or not of 10.96.0.0/16",
        ),
        ("services: [{name: a, selector: {a: b}}, {name: a, selector: {a: b}}]", "services[1] \"a\": "),
        ("services: [{name: a, type: ExternalName}]", "externalName"),
        ("verify: [c3c]", "no check \"c3c\" · there are: "),
        ("verify: [{ingress: web}]", "verify: ingress:web: there is no service \"web\" in the file"),
        ("verify: ['ingress:web']", "verify: ingress:web: there is no service \"web\" in the file"),
        (
            "verify: [{egress: web}]",
            "check \"egress:web\": no service goes with it · those of one: container-",
        ),
        ("nodes: []", "nodes: 0 is not from 1 to 200"),
        ("outside: []", "hosts outside: 0 is not from 1 to 50"),
        ("nodes: [a, b, a]", "nodes[2] \"a\": nodes[0] \"a\" has this name"),
        ("{nodes: [a, b], outside: [b]}", "outside[0] \"b\": nodes[1] \"b\" has this name"),
        ("nodes: [Alpha]", "nodes[0] \"Alpha\": a name has 1 to 15 lower-case letters"),
        ("nodes: [a234567890123456]", "a name has 1 to 15 lower-case letters"),
        ("nodes: ['1a']", "and begins with a letter"),
        ("outside: [a-]", "outside[0] \"a-\": a name has 1 to 15"),
        ("nodes: [fabric]", "nodes[0] \"fabric\": that is the name of something else in a lab"),
        ("nodes: [kubia-7]", "that is the name of something else"),
        ("outside: [wan1]", "that is the name of something else"),
        ("nodes: [rack2]", "that is the name of something else"),
        (
            "nodes: [{name: a, address: 192.0.3.11}]",
            "nodes[0] \"a\": 192.0.3.11 is not in 192.0.2.0/24, its link",
        ),
        ("nodes: [{name: a, address: 192.0.2.21/16}]", "192.0.2.21/16: the prefix length of its link is 24"),
        ("nodes: [{name: a, address: 192.0.2.1}]", "192.0.2.1 is the network's, its router's or for all"),
        ("nodes: [{name: a, address: 192.0.2.255}]", "192.0.2.255 is the network's"),
        (
            "nodes: [a, {name: b, address: 192.0.2.11}]",
            "nodes[1] \"b\": 192.0.2.11 is that of nodes[0] \"a\" too",
        ),
        (
            "outside: [{name: a, address: 203.0.113.9}, {name: b, address: 203.0.113.9/24}]",
            "outside[1] \"b\": 203.0.113.9 is that of outside[0] \"a\" too",
        ),
        ("outside: [{name: a, address: 198.51.100.9/24}]", "198.51.100.9 is not in 203.0.113.0/24, its link"),
        ("outside: [{name: a, address: '2001:db8:203:113::7'}]", "is IPv6, which the lab does not have"),
        ("{racks: 2, nodes: [a, {name: b, address: 198.18.1.7}]}", "198.18.1.7 is not in 198.18.2.0/24"),
        (
            "workloads: [{name: a, containers: [web, sidecar]}]",
            "workloads[0] \"a\": containers: a pod has an app, called app or kubia, and then a sidecar",
        ),
        ("workloads: [{name: a, containers: [app, app]}]", "containers: a pod has an app"),
    ] {
        let failure = Written::parse(text, "-").unwrap().resolve().unwrap_err();
        assert!(failure.text.contains(words), "{text}: {}", failure.text);
        assert_eq!(failure.code, 2);
    }
    // The largest that still fit.
    assert_eq!(resolved("{podCIDR: 10.1.0.0/22, nodes: 3}").pod_cidr(2).to_string(), "10.1.3.0/24");
    assert_eq!(resolved("{nodes: 1, workloads: [{name: a, replicas: 250}]}").pods, 0);
}

#[test]
fn what_is_no_topology_is_refused_with_its_place() {
    for (text, words) in [
        ("{\n  \"node\": 3\n}", "unknown field `node`"),
        ("{\n  \"node\": 3\n}", "at line 2, column 3"),
        (
            "nodes: 3\ncni:\n  dirs: x\n",
            "unknown field `dirs`, expected one of dir, conf, ipMasq at line 3, column 3",
        ),
        ("workloads:\n  - name: a\n    image: x\n", "unknown field `image`"),
        ("workloads:\n  - name: a\n    image: x\n", "at line 3, column 5"),
        ("services:\n  - {name: a, ports: [80]}\n", "unknown field `ports`"),
        ("workloads:\n  - replicas: 1\n", "missing field `name` at line 2"),
        ("workloads: [{name: a, app: nginx}]", "nginx"),
        ("nodes: many", "at line 1, column 8"),
        ("nodes: -1", "at line 1, column 8"),
        (
            "nodes:\n  - {name: a, addres: 192.0.2.7}\n",
            "unknown field `addres`, expected one of name, address at line 2",
        ),
        ("nodes:\n  - {name: a, addres: 192.0.2.7}\n", "at line 2, column 15"),
        ("nodes:\n  - {address: 192.0.2.7}\n", "missing field `name` at line 2"),
        ("nodes: [{name: a, address: 192.0.2.7/33}]", "at line 1, column 28"),
        ("nodes: {a: b}", "expected how many nodes, or a list of them at line 1, column 8"),
        ("outside: 2", "at line 1, column 10"),
        ("cni: built-in", "expected builtin, or dir, conf and ipMasq at line 1, column 6"),
        (
            "verify: [{ingress: a, egress: b}]",
            "one check an entry, and not \"egress\" too at line 1, column 1",
        ),
        ("verify: [{}]", "expected the name of a check, or {CHECK: SERVICE}"),
        ("workloads: [{name: a, containers: [app]}]", "at line 1, column 23"),
        ("seed: 1\nnodes: 3\nnodes: 4\n", "duplicate mapping key: nodes at line 3, column 1"),
        ("nodes: [", "line 1"),
        ("a: &a [*a]", "unknown field `a`"),
        ("nodes: 3\n---\nnodes: 4\n", "multiple YAML documents"),
        (
            "schema: podlab.topology/9",
            "schema is \"podlab.topology/9\", this podlab reads \"podlab.topology/1\"",
        ),
        ("mode: teleport", "no mode \"teleport\""),
        ("mode: teleport", "line 1"),
        ("podCIDR: 10.x", "line 1, column 10"),
        ("3", "topology x: "),
        (" \n", "topology x: there is nothing in it"),
    ] {
        let failure = Written::parse(text, "x").unwrap_err();
        assert!(failure.text.contains(words), "{text}: {}", failure.text);
        assert_eq!(failure.code, 2);
    }
}

#[test]
fn a_node_full_of_pods_has_a_larger_prefix() {
    let full = resolved("{nodes: 31, pods: 1023}");
    assert_eq!(full.pod_cidr(0).to_string(), "10.244.8.0/21");
    assert_eq!(full.pod_cidr(30).to_string(), "10.244.248.0/21");
    // The bridge has an address of it too.
    assert!(full.most_pods() as u32 == PORTS && 1 << (32 - full.pod_cidr(0).first.prefix()) > PORTS + 2);
    assert!(full.network(1).contains("\"subnet\": \"10.244.16.0/21\""));
}

#[test]
fn nodes_and_hosts_outside_are_called_and_numbered_as_the_file_says() {
    let topology = resolved(
        "
nodes: [{name: alpha, address: 192.0.2.21/24}, {name: beta, address: 192.0.2.22}, gamma]
outside: [{name: client, address: 203.0.113.9/24}, {name: other, address: 203.0.113.77}]
cni: builtin
ipFamily: ipv4
workloads: [{name: web, containers: [app, sidecar]}]
services: [{name: web, selector: {run: web}}]
verify: [c2c, samenode, xnode-nonat, egress, {ingress: web}]
",
    );
    let told = |hosts: &[Host]| -> Vec<String> {
        hosts.iter().map(|host| format!("{} {}", host.name, host.address)).collect()
    };
    assert_eq!(told(&topology.nodes), ["alpha 192.0.2.21", "beta 192.0.2.22", "gamma 192.0.2.13"]);
    assert_eq!(told(&topology.outside), ["client 203.0.113.9", "other 203.0.113.77"]);
    assert!(topology.network(1).contains("/run/podlab/ipam/beta"));
    assert_eq!(topology.workloads[0].containers, Some(["app", "sidecar"].map(str::to_owned)));
    assert_eq!(topology.verify, ["container-localhost", "same-node", "cross-node", "egress", "ingress:web"]);
    // Of each version what is written, else what is counted.
    let dual = resolved(
        "{ipFamily: dual, nodes: [{name: a, address: ['fd00:192:0:2::77', 192.0.2.70]}, {name: b, address: 192.0.2.71}]}",
    );
    assert_eq!(told(&dual.nodes), ["a 192.0.2.70,fd00:192:0:2::77", "b 192.0.2.71,fd00:192:0:2::12"]);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let count = Nodes::Count;
    let file = Written { nodes: Some(count(2)), pods: Some(1), seed: Some(1), ..Written::default() };
    let line = Written { pods: Some(5), ..Written::default() };
    let both = file.overridden_by(line);
    assert_eq!((both.nodes, both.pods, both.seed), (Some(count(2)), Some(5), Some(1)));
}

#[test]
fn the_example_of_the_documentation_is_a_topology() {
    let page = include_str!("../../../docs/topology.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let named = page.split("```yaml\n").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(resolved(named).node_name(0), "alpha");
    let topology = resolved(example);
    assert_eq!((topology.name.as_str(), topology.workloads.len(), topology.services.len()), ("lesson", 1, 1));
    // Its table has every key that there is.
    let refusal = Written::parse("none: 1", "x").unwrap_err().text;
    let keys =
        refusal.split("expected one of ").nth(1).and_then(|rest| rest.split(" at line").next()).unwrap();
    for key in keys.split(", ").filter(|key| *key != "cni") {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
}
