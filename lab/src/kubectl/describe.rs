//! `kubectl describe`: an object in words, with kubectl's keys and alignment.

use serde_json::Value;

use super::Kind;
use super::table::{aligned, cell, labels_of, listed, words};
use super::time::{age, rfc1123};
use crate::labels;

/// Lines `Key:   value`, their values one below the other, from a column on.
struct Lines(String, usize);

impl Lines {
    fn put(&mut self, key: &str, value: &str) {
        let width = self.1;
        self.0.push_str(format!("{:<width$}{value}", format!("{key}:")).trim_end());
        self.0.push('\n');
    }

    /// A value of several lines: `run=kubia` below `app=kubia`.
    fn put_all(&mut self, key: &str, values: &[String]) {
        match values.split_first() {
            None => self.put(key, "<none>"),
            Some((first, rest)) => {
                self.put(key, first);
                let width = self.1;
                rest.iter().for_each(|value| self.0.push_str(&format!("{:width$}{value}\n", "")));
            }
        }
    }

    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }
}

/// The description of an object.
pub(super) fn text(kind: Kind, item: &Value) -> String {
    // As kubectl has them.
    let width = match kind {
        Kind::Pod | Kind::Node => 18,
        Kind::Service => 26,
        Kind::ReplicationController | Kind::Endpoints | Kind::Namespace => 14,
    };
    let mut lines = Lines(String::new(), width);
    lines.put("Name", &cell(&item["metadata"]["name"]));
    if !item["metadata"]["namespace"].is_null() && kind != Kind::Node {
        lines.put("Namespace", &cell(&item["metadata"]["namespace"]));
    }
    match kind {
        Kind::Pod => pod(&mut lines, item),
        Kind::ReplicationController => controller(&mut lines, item),
        Kind::Service => service(&mut lines, item),
        Kind::Endpoints => {
            own_labels(&mut lines, item);
            lines.put("Endpoints", &words(&item["podlab"]["endpoints"]));
        }
        Kind::Node => node(&mut lines, item),
        Kind::Namespace => {
            own_labels(&mut lines, item);
            lines.put("Status", &cell(&item["status"]["phase"]));
            return lines.0;
        }
    }
    events(&mut lines, &item["podlab"]["events"]);
    lines.0
}

fn own_labels(lines: &mut Lines, item: &Value) {
    let labels = labels_of(&item["metadata"]["labels"]);
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    lines.put_all("Labels", &pairs);
    lines.put("Annotations", "<none>");
}

fn pod(lines: &mut Lines, item: &Value) {
    let (spec, status) = (&item["spec"], &item["status"]);
    lines.put("Node", &format!("{}/{}", cell(&spec["nodeName"]), cell(&status["hostIP"])));
    lines.put("Start Time", &rfc1123(item["podlab"]["created"].as_u64().unwrap_or(0)));
    own_labels(lines, item);
    lines.put("Status", &cell(&status["phase"]));
    lines.put("IP", &cell(&status["podIP"]));
    lines.line("IPs:");
    lines.line(&format!("  IP:  {}", listed(&status["podIPs"], "ip")));
    let owner = &item["metadata"]["ownerReferences"][0];
    if !owner.is_null() {
        lines.put("Controlled By", &format!("{}/{}", cell(&owner["kind"]), cell(&owner["name"])));
    }
    lines.line("Containers:");
    let states = status["containerStatuses"].as_array().into_iter().flatten();
    for (container, state) in spec["containers"].as_array().into_iter().flatten().zip(states) {
        let runs = state["ready"] == true;
        lines.line(&format!("  {}:", cell(&container["name"])));
        let mut put = |key: &str, value: &str| lines.line(&format!("    {:<16}{value}", format!("{key}:")));
        put("Container ID", &cell(&state["containerID"]));
        put("Image", &cell(&container["image"]));
        put("Port", &ports(&container["ports"]));
        put("State", if runs { "Running" } else { "Terminated" });
        put("Ready", if runs { "True" } else { "False" });
        put("Restart Count", &cell(&state["restartCount"]));
    }
}

/// `8080/TCP`
fn ports(list: &Value) -> String {
    let port = |port: &Value| format!("{}/{}", cell(&port["containerPort"]), cell(&port["protocol"]));
    let all: Vec<String> = list.as_array().into_iter().flatten().map(port).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(", ") }
}

fn controller(lines: &mut Lines, item: &Value) {
    let (spec, status) = (&item["spec"], &item["status"]);
    lines.put("Selector", &labels::joined(&labels_of(&spec["selector"])));
    own_labels(lines, item);
    let (now, wanted) = (cell(&status["replicas"]), cell(&spec["replicas"]));
    lines.put("Replicas", &format!("{now} current / {wanted} desired"));
    let ready = cell(&status["readyReplicas"]);
    lines.put("Pods Status", &format!("{ready} Running / 0 Waiting / 0 Succeeded / 0 Failed"));
    lines.line("Pod Template:");
    let template = &spec["template"];
    lines.line(&format!("  Labels:  {}", labels::joined(&labels_of(&template["metadata"]["labels"]))));
    lines.line("  Containers:");
    for container in template["spec"]["containers"].as_array().into_iter().flatten() {
        lines.line(&format!("   {}:", cell(&container["name"])));
        lines.line(&format!("    Image:  {}", cell(&container["image"])));
        lines.line(&format!("    Port:   {}", ports(&container["ports"])));
    }
}

fn service(lines: &mut Lines, item: &Value) {
    let spec = &item["spec"];
    own_labels(lines, item);
    lines.put("Selector", &labels::joined(&labels_of(&spec["selector"])));
    lines.put("Type", &cell(&spec["type"]));
    if let Some(name) = spec["externalName"].as_str() {
        lines.put("External Name", name);
    }
    if !spec["clusterIP"].is_null() {
        lines.put("IP Family Policy", &cell(&spec["ipFamilyPolicy"]));
        lines.put("IP Families", &words(&spec["ipFamilies"]));
        lines.put("IP", &cell(&spec["clusterIP"]));
        lines.put("IPs", &words(&spec["clusterIPs"]));
    }
    let ingress = &item["status"]["loadBalancer"]["ingress"];
    if ingress.as_array().is_some_and(|list| !list.is_empty()) {
        lines.put("LoadBalancer Ingress", &format!("{} (VIP)", listed(ingress, "ip")));
    }
    for port in spec["ports"].as_array().into_iter().flatten() {
        let protocol = cell(&port["protocol"]);
        lines.put("Port", &format!("<unset>  {}/{protocol}", cell(&port["port"])));
        lines.put("TargetPort", &format!("{}/{protocol}", cell(&port["targetPort"])));
        if !port["nodePort"].is_null() {
            lines.put("NodePort", &format!("<unset>  {}/{protocol}", cell(&port["nodePort"])));
        }
        lines.put("Endpoints", &words(&item["podlab"]["endpoints"]));
    }
    lines.put("Session Affinity", &cell(&spec["sessionAffinity"]));
    if let Some(policy) = spec["externalTrafficPolicy"].as_str() {
        lines.put("External Traffic Policy", policy);
    }
}

fn node(lines: &mut Lines, item: &Value) {
    own_labels(lines, item);
    lines.put("CreationTimestamp", &format!(" {}", rfc1123(item["podlab"]["created"].as_u64().unwrap_or(0))));
    lines.line("Addresses:");
    for address in item["status"]["addresses"].as_array().into_iter().flatten() {
        lines.line(&format!("  {:<12}{}", format!("{}:", cell(&address["type"])), cell(&address["address"])));
    }
    lines.put("PodCIDR", &cell(&item["spec"]["podCIDR"]));
}

fn events(lines: &mut Lines, events: &Value) {
    let list = events.as_array().map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        lines.put("Events", "<none>");
        return;
    }
    let word = |text: &str| format!("  {text}");
    let head = ["Type", "Reason", "Age", "From", "Message"];
    let line = ["----", "------", "----", "----", "-------"];
    let row = |cells: [&str; 5]| {
        let mut row: Vec<String> = cells.iter().map(|&cell| cell.to_owned()).collect();
        row[0] = word(cells[0]);
        row
    };
    let mut rows = vec![row(head), row(line)];
    for event in list {
        let mut cells: Vec<String> =
            ["type", "reason", "age", "from", "message"].map(|key| cell(&event[key])).to_vec();
        cells[0] = word(&cells[0]);
        cells[2] = age(event["age"].as_u64().unwrap_or(0));
        rows.push(cells);
    }
    lines.line("Events:");
    lines.0.push_str(&aligned(&rows));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_controller_in_words() {
        let item = json!({
            "metadata": { "name": "kubia", "namespace": "default", "labels": { "run": "kubia", "tier": "web" } },
            "spec": {
                "replicas": 3, "selector": { "run": "kubia" },
                "template": {
                    "metadata": { "labels": { "run": "kubia" } },
                    "spec": { "containers": [{
                        "name": "kubia", "image": "luksa/kubia",
                        "ports": [{ "containerPort": 8080, "protocol": "TCP" }],
                    }] },
                },
            },
            "status": { "replicas": 2, "readyReplicas": 2 },
            "podlab": { "age": 9, "events": [{
                "type": "Normal", "reason": "SuccessfulCreate", "age": 9, "from": "replication-controller",
                "message": "Created pod: kubia-dbfj2",
            }] },
        });
        let expected = "\
Name:         kubia
Namespace:    default
Selector:     run=kubia
Labels:       run=kubia
              tier=web
Annotations:  <none>
Replicas:     2 current / 3 desired
Pods Status:  2 Running / 0 Waiting / 0 Succeeded / 0 Failed
Pod Template:
  Labels:  run=kubia
  Containers:
   kubia:
    Image:  luksa/kubia
    Port:   8080/TCP
Events:
  Type     Reason             Age    From                     Message
  ----     ------             ----   ----                     -------
  Normal   SuccessfulCreate   9s     replication-controller   Created pod: kubia-dbfj2
";
        assert_eq!(text(Kind::ReplicationController, &item), expected);
    }
}
