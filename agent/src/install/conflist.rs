//! The network's configuration, as the runtime reads it.
//!
//! While it is there, the kubelet takes the network for ready and starts pods. So it is written last, as a whole, and only
//! when it is other than what stands there; and it is the first to go. The configurations of others are reported and never
//! touched.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cni::runtime::Network;
use ipnetwork::IpNetwork;
use kernel::Family;
use serde_json::{Value, json};

use super::files;
use crate::model::Node;
use crate::places::{CONFLIST, NETWORK, Places};
use crate::routing;

/// The plugins that it names, in its order, the IPAM plugin among them.
pub const PLUGINS: [&str; 5] = ["ptp", "host-local", "podnet-policy", "portmap", "bandwidth"];

/// The version of the specification that it is in: what the runtimes of all nodes know.
pub const VERSION: &str = "1.0.0";

/// The configuration for a node: an address from each of its PodCIDRs for every pod, a default route in each family
/// that it has, an MTU in bytes.
///
/// # Errors
/// The node has no PodCIDR, two of one family, or one that is too small to have pods.
pub fn render(node: &Node, mtu: u32, places: &Places) -> Result<String> {
    ensure!(
        !node.pod_cidrs.is_empty(),
        "node {} has no PodCIDR · try: kube-controller-manager with --allocate-node-cidrs (kubeadm: networking.podSubnet)",
        node.name
    );
    for cidr in &node.pod_cidrs {
        ensure!(routing::gateway(*cidr).is_some(), "node {}: PodCIDR {cidr} has no room for pods", node.name);
        let family = Family::of(cidr.ip());
        let of_family = node.pod_cidrs.iter().filter(|it| Family::of(it.ip()) == family).count();
        ensure!(of_family == 1, "node {}: more than one {} PodCIDR", node.name, routing::word(family));
    }
    let ranges: Vec<Value> = node.pod_cidrs.iter().map(|cidr| json!([{ "subnet": subnet(cidr) }])).collect();
    let routes: Vec<Value> = node
        .pod_cidrs
        .iter()
        .map(|cidr| json!({ "dst": if cidr.is_ipv4() { "0.0.0.0/0" } else { "::/0" } }))
        .collect();
    let data_dir = places.reservations();
    let mut policy = json!({ "type": PLUGINS[2] });
    if *places != Places::default() {
        policy["dataDir"] = json!(places.run());
    }
    let list = json!({
        "cniVersion": VERSION,
        "name": NETWORK,
        "plugins": [
            {
                "type": PLUGINS[0],
                "mtu": mtu,
                "ipam": { "type": PLUGINS[1], "dataDir": data_dir, "ranges": ranges, "routes": routes },
            },
            policy,
            { "type": PLUGINS[3], "capabilities": { "portMappings": true } },
            { "type": PLUGINS[4], "capabilities": { "bandwidth": true } },
        ],
    });
    Ok(format!("{list:#}\n"))
}

fn subnet(cidr: &IpNetwork) -> String {
    format!("{}/{}", cidr.network(), cidr.prefix())
}

/// Puts the configuration in place, unless it is there already. True when it was written.
///
/// # Errors
/// It could not be written; then the old one, or none, is in place.
pub fn write(text: &str, places: &Places) -> Result<bool> {
    let path = places.conflist();
    if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(false);
    }
    let dir = places.configurations();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    files::put(&path, text.as_bytes(), 0o644)?;
    Ok(true)
}

/// Takes the configuration away. True when there was one.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(places: &Places) -> Result<bool> {
    let path = places.conflist();
    let removed = files::unless_absent(fs::remove_file(&path));
    let removed = removed.with_context(|| format!("remove {}", path.display()))?;
    if removed {
        files::flush_parent(&path)?;
    }
    Ok(removed)
}

/// Another network's configuration in the runtime's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its file.
    pub file: String,
    /// The network's name, or why it is none.
    pub network: Result<String, String>,
    /// It sorts before ours, so that the runtime takes it and not ours.
    pub is_first: bool,
}

/// The configurations of others, in the runtime's order: by the name of the file (libcni's ConfFiles).
///
/// # Errors
/// The directory cannot be read.
pub fn others(places: &Places) -> Result<Vec<Other>> {
    let dir = places.configurations();
    let is_read = |name: &str| {
        let extension = Path::new(name).extension().and_then(|it| it.to_str());
        matches!(extension, Some("conf" | "conflist" | "json"))
    };
    let names = files::names(&dir)?.into_iter().filter(|name| name != CONFLIST && is_read(name));
    let others = names.map(|file| Other {
        network: Network::load(&dir.join(&file)).map(|it| it.name).map_err(|err| err.msg),
        is_first: file.as_str() < CONFLIST,
        file,
    });
    Ok(others.collect())
}

/// What there is to say about the configurations of others; none when ours is the only one.
pub fn about(others: &[Other]) -> Option<String> {
    let told = others.iter().map(|other| {
        let network = match &other.network {
            Ok(name) => format!("network {name:?}"),
            Err(why) => format!("no network: {why}"),
        };
        let place =
            if other.is_first { "before ours, so the runtime takes it" } else { "after ours, not in use" };
        format!("{} ({network}; {place})", other.file)
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// What our own configuration says, as far as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The plugins, the IPAM plugin among them.
    pub plugins: Vec<String>,
    /// The pods' MTU in bytes.
    pub mtu: u32,
    /// Where pods get addresses from.
    pub subnets: Vec<IpNetwork>,
}

/// Reads our own configuration; none when there is none.
///
/// # Errors
/// It cannot be read, or is not as [`render`] writes it.
pub fn read(places: &Places) -> Result<Option<InUse>> {
    let path = places.conflist();
    let bytes = match fs::read(&path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("read {}", path.display()))?,
    };
    let about = || format!("{} is not as podnetd writes it · try: let podnetd write it anew", path.display());
    let network = Network::parse(&bytes).map_err(|err| anyhow::anyhow!(err.msg)).with_context(about)?;
    let ptp = network.plugins.first().with_context(about)?;
    let kinds = network.plugins.iter().filter_map(|plugin| plugin["type"].as_str());
    let plugins = kinds.chain(ptp["ipam"]["type"].as_str()).map(str::to_owned).collect();
    let ranges = ptp["ipam"]["ranges"].as_array().with_context(about)?;
    let subnets = ranges.iter().map(|set| {
        let subnet = set[0]["subnet"].as_str().with_context(about)?;
        subnet.parse().with_context(about)
    });
    Ok(Some(InUse {
        plugins,
        mtu: ptp["mtu"].as_u64().and_then(|it| u32::try_from(it).ok()).with_context(about)?,
        subnets: subnets.collect::<Result<_>>()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cidrs: &[&str]) -> Node {
        let pod_cidrs = cidrs.iter().map(|it| it.parse().unwrap()).collect();
        Node { name: "kind-worker".to_owned(), pod_cidrs, addresses: Vec::new(), ready: true }
    }

    #[test]
    fn a_dual_stack_node_gets_an_address_and_a_default_route_of_each_family() {
        let node = node(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
        insta::assert_snapshot!(render(&node, 1450, &Places::default()).unwrap());
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(dir.path());
        assert_eq!(read(&places).unwrap(), None);
        let text = render(&node(&["10.244.1.0/24", "fd00:1::/64"]), 1450, &places).unwrap();
        assert!(write(&text, &places).unwrap());
        assert!(!write(&text, &places).unwrap(), "the same is not written again");
        let mut in_use = read(&places).unwrap().unwrap();
        in_use.plugins.sort();
        let mut plugins: Vec<String> = PLUGINS.iter().map(|it| (*it).to_owned()).collect();
        plugins.sort();
        let subnets = vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        assert_eq!(in_use, InUse { plugins, mtu: 1450, subnets });
        assert!(remove(&places).unwrap());
        assert!(!remove(&places).unwrap());
        assert_eq!(files::names(&places.configurations()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_node_without_a_usable_pod_cidr_is_refused_by_name() {
        for (cidrs, word) in [
            (&[][..], "no PodCIDR"),
            (&["10.244.1.0/31"][..], "no room"),
            (&["fd00::/127"][..], "no room"),
            (&["10.244.1.0/24", "10.244.2.0/24"][..], "more than one IPv4"),
        ] {
            let err = render(&node(cidrs), 1500, &Places::default()).unwrap_err().to_string();
            assert!(err.contains("kind-worker") && err.contains(word), "{err}");
        }
    }

    #[test]
    fn other_networks_are_told_in_the_runtimes_order_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(dir.path());
        fs::create_dir_all(places.configurations()).unwrap();
        let kindnet = r#"{"cniVersion":"0.3.1","name":"kindnet","plugins":[{"type":"ptp"}]}"#;
        for (file, content) in [
            ("10-kindnet.conflist", kindnet),
            ("00-first.conf", "{"),
            ("README", "x"),
            ("10-old.conflist.bak", kindnet),
        ] {
            fs::write(places.configurations().join(file), content).unwrap();
        }
        write(&render(&node(&["10.244.1.0/24"]), 1500, &places).unwrap(), &places).unwrap();
        let others = others(&places).unwrap();
        let told: Vec<_> =
            others.iter().map(|it| (it.file.as_str(), it.network.is_ok(), it.is_first)).collect();
        assert_eq!(told, [("00-first.conf", false, true), ("10-kindnet.conflist", true, false)]);
        let about = about(&others).unwrap();
        assert!(
            about.contains("00-first.conf") && about.contains("network \"kindnet\"; after ours"),
            "{about}"
        );
    }
}
