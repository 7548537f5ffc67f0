//! kubectl's columns.

use serde_json::Value;

use super::Kind;
use super::time::age;
use crate::labels::{self, Labels};

/// Which columns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Those of `-o wide` too.
    pub(super) wide: bool,
    /// One more with the labels.
    pub(super) labels: bool,
    /// No heads.
    pub(super) headless: bool,
    /// Names with their kind, as when several kinds are listed.
    pub(super) kinds: bool,
}

/// A value as a cell: `<none>` where there is nothing.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) if text.is_empty() => "<none>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The labels at a place of an object.
pub(super) fn labels_of(value: &Value) -> Labels {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

/// The values of one key of a list, with commas.
pub(super) fn listed(list: &Value, key: &str) -> String {
    let all: Vec<String> = list.as_array().into_iter().flatten().map(|item| cell(&item[key])).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

/// Words with commas.
pub(super) fn words(list: &Value) -> String {
    let all: Vec<String> = list.as_array().into_iter().flatten().map(cell).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

/// `8080/TCP`, `8080:30080/TCP`.
fn ports(list: &Value) -> String {
    let port = |port: &Value| {
        let own = cell(&port["port"]);
        let number = port["nodePort"].as_u64().map_or(own.clone(), |node_port| format!("{own}:{node_port}"));
        format!("{number}/{}", cell(&port["protocol"]))
    };
    let all: Vec<String> = list.as_array().into_iter().flatten().map(port).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

/// The columns of a kind: those that are always there, and those of `-o wide`.
fn columns(kind: Kind) -> (&'static [&'static str], &'static [&'static str]) {
    match kind {
        Kind::Pod => (
            &["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
            &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
        ),
        Kind::ReplicationController => {
            (&["NAME", "DESIRED", "CURRENT", "READY", "AGE"], &["CONTAINERS", "IMAGES", "SELECTOR"])
        }
        Kind::Service => (&["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"], &["SELECTOR"]),
        Kind::Endpoints => (&["NAME", "ENDPOINTS", "AGE"], &[]),
        Kind::Node => (&["NAME", "STATUS", "ROLES", "AGE", "VERSION"], &["INTERNAL-IP", "EXTERNAL-IP"]),
        Kind::Namespace => (&["NAME", "STATUS", "AGE"], &[]),
    }
}

fn cells(kind: Kind, item: &Value) -> (Vec<String>, Vec<String>) {
    let name = cell(&item["metadata"]["name"]);
    let old = age(item["podlab"]["age"].as_u64().unwrap_or(0));
    let (spec, status) = (&item["spec"], &item["status"]);
    match kind {
        Kind::Pod => {
            let states = status["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
            let ready = states.iter().filter(|state| state["ready"] == true).count();
            let restarts: u64 = states.iter().filter_map(|state| state["restartCount"].as_u64()).sum();
            let ready = format!("{ready}/{}", states.len());
            (
                vec![name, ready, cell(&status["phase"]), restarts.to_string(), old],
                vec![cell(&status["podIP"]), cell(&spec["nodeName"]), cell(&Value::Null), cell(&Value::Null)],
            )
        }
        Kind::ReplicationController => {
            let containers = &spec["template"]["spec"]["containers"];
            let (now, ready) = (cell(&status["replicas"]), cell(&status["readyReplicas"]));
            (
                vec![name, cell(&spec["replicas"]), now, ready, old],
                vec![
                    listed(containers, "name"),
                    listed(containers, "image"),
                    labels::joined(&labels_of(&spec["selector"])),
                ],
            )
        }
        Kind::Service => {
            let ingress = listed(&status["loadBalancer"]["ingress"], "ip");
            let external = spec["externalName"].as_str().map_or(ingress, str::to_owned);
            let ports = ports(&spec["ports"]);
            (
                vec![name, cell(&spec["type"]), cell(&spec["clusterIP"]), external, ports, old],
                vec![labels::joined(&labels_of(&spec["selector"]))],
            )
        }
        Kind::Endpoints => (vec![name, words(&item["podlab"]["endpoints"]), old], Vec::new()),
        Kind::Node => {
            let version = cell(&status["nodeInfo"]["kubeletVersion"]);
            (
                vec![name, "Ready".to_owned(), cell(&Value::Null), old, version],
                vec![cell(&status["addresses"][0]["address"]), cell(&Value::Null)],
            )
        }
        Kind::Namespace => (vec![name, cell(&status["phase"]), old], Vec::new()),
    }
}

/// Objects of one kind, one a line.
pub(super) fn table(kind: Kind, items: &[Value], look: Look) -> String {
    let (always, wide) = columns(kind);
    let mut head: Vec<String> = always.iter().map(|&column| column.to_owned()).collect();
    if look.wide {
        head.extend(wide.iter().map(|&column| column.to_owned()));
    }
    if look.labels {
        head.push("LABELS".to_owned());
    }
    let row = |item: &Value| {
        let (mut cells, wide) = cells(kind, item);
        if look.kinds {
            cells[0] = format!("{kind}/{}", cells[0]);
        }
        if look.wide {
            cells.extend(wide);
        }
        if look.labels {
            cells.push(labels::joined(&labels_of(&item["metadata"]["labels"])));
        }
        cells
    };
    let heads = (!look.headless).then_some(head);
    aligned(&heads.into_iter().chain(items.iter().map(row)).collect::<Vec<_>>())
}

/// Rows with three blanks between columns, as kubectl prints them.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": { "name": "kubia-dbfj2", "labels": { "run": "kubia" } },
            "spec": { "nodeName": "node1" },
            "status": {
                "phase": "Running", "podIP": "10.244.1.2",
                "containerStatuses": [{ "ready": true, "restartCount": 0 }, { "ready": true, "restartCount": 0 }],
            },
            "podlab": { "age": 5 },
        })
    }

    #[test]
    fn pods_have_kubectls_columns() {
        let text = "NAME          READY   STATUS    RESTARTS   AGE\n\
                    kubia-dbfj2   2/2     Running   0          5s\n";
        assert_eq!(table(Kind::Pod, &[pod()], Look::default()), text);
        let wide = table(Kind::Pod, &[pod()], Look { wide: true, ..Look::default() });
        let head = "NAME          READY   STATUS    RESTARTS   AGE   IP           NODE    NOMINATED NODE   READINESS GATES";
        assert_eq!(wide.lines().next(), Some(head));
        assert!(wide.ends_with("5s    10.244.1.2   node1   <none>           <none>\n"), "{wide}");
        let named =
            table(Kind::Pod, &[pod()], Look { kinds: true, labels: true, headless: true, ..Look::default() });
        assert_eq!(named, "pod/kubia-dbfj2   2/2   Running   0   5s   run=kubia\n");
    }
}
