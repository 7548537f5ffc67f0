//! Whole lists, `bridge` and a chained plugin behind it, called by the runtime of the `cni` crate as libcni would:
//! ADD, CHECK of every plugin with the final result right after it, DEL twice.

use anyhow::{Context, Result, ensure};
use cni::runtime::{Attachment, Network, Report, Runtime};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};
use serde_json::Value;

const BRIDGE: &str = r#"{"type":"bridge","isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],"routes":[{"dst":"192.168.0.0/16"}]}}"#;

/// The oldest that CHECK has, and those since.
const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

struct List {
    world: World,
    runtime: Runtime,
    network: Network,
}

impl List {
    fn new(version: &str, chained: &str) -> Result<Self> {
        let world = World::new(Side::Podnet, 1)?;
        let text =
            format!(r#"{{"cniVersion":"{version}","name":"{NETWORK}","plugins":[{BRIDGE},{chained}]}}"#);
        let network = Network::parse(world.fill(&text).as_bytes())?;
        let runtime = Runtime::new(vec![world.plugins().to_path_buf()]);
        Ok(List { world, runtime, network })
    }

    fn attachment(&self, ifname: &str, netns: &str) -> Attachment {
        Attachment {
            container_id: "c0".into(),
            ifname: ifname.into(),
            netns: netns.into(),
            ..Attachment::default()
        }
    }

    fn call<T: Send>(&self, f: impl FnOnce(&Runtime, &Network) -> Report<T> + Send) -> Result<T> {
        let report = self.world.host.run(|| f(&self.runtime, &self.network))?;
        let last = report.calls.last().map(|call| format!("{call:?}")).unwrap_or_default();
        report.outcome.with_context(|| last)
    }

    fn add(&self, ifname: &str) -> Result<Value> {
        let attachment = self.attachment(ifname, &self.world.netns(0));
        Ok(self.call(|runtime, network| runtime.add_list(network, &attachment))?.json)
    }

    fn check(&self, ifname: &str, result: &Value) -> Result<()> {
        let attachment = self.attachment(ifname, &self.world.netns(0));
        self.call(|runtime, network| runtime.check_list(network, &attachment, Some(result)))
    }

    fn del(&self, ifname: &str, netns: &str, result: Option<&Value>) -> Result<()> {
        let attachment = self.attachment(ifname, netns);
        self.call(|runtime, network| runtime.del_list(network, &attachment, result))
    }

    /// What a list has left behind, besides the bridge and the directory of reservations.
    fn left(&self) -> Result<Vec<String>> {
        let snapshot = self.world.snapshot()?;
        let mut left: Vec<String> = snapshot
            .host
            .macs
            .keys()
            .filter(|link| !matches!(link.as_str(), "lo" | "cni0"))
            .cloned()
            .collect();
        left.extend(self.world.reservations(NETWORK)?);
        left.extend(snapshot.pods[0].macs.keys().filter(|link| *link != "lo").cloned());
        let files = std::fs::read_dir(self.world.dir().join("tuning")).into_iter().flatten();
        left.extend(files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()));
        let rules = snapshot.facts.iter().filter(|(path, _)| path.starts_with("pod0/rule/"));
        left.extend(
            rules.filter(|(_, rule)| !rule.contains(r#""src":"all""#)).map(|(_, rule)| rule.to_owned()),
        );
        Ok(left)
    }
}

/// ADD, CHECK, DEL and DEL again; then the same with a DEL that finds no namespace, as `ctr run --cni` calls it.
pub(crate) fn lives(versions: &[&str], chained: &str) -> Result<()> {
    for version in versions {
        let list = List::new(version, chained)?;
        let result = list.add("eth0")?;
        list.check("eth0", &result).with_context(|| format!("CHECK right after ADD of {chained}"))?;
        for _ in 0..2 {
            list.del("eth0", &list.world.netns(0), Some(&result))?;
            ensure!(list.left()?.is_empty(), "{chained}: {:?}", list.left()?);
        }
        for netns in ["", "/nonexistent"] {
            let mut list = List::new(version, chained)?;
            let result = list.add("eth0")?;
            list.world.pods = vec![kernel::Netns::create()?];
            for result in [Some(&result), None] {
                list.del("eth0", netns, result)?;
            }
            // The kernel takes the pod's links down in its own time.
            let reserved = list.world.reservations(NETWORK)?;
            ensure!(reserved.is_empty(), "{chained}: {reserved:?}");
            let files = std::fs::read_dir(list.world.dir().join("tuning")).into_iter().flatten().count();
            ensure!(files == 0, "{chained} without netns: {files} files left");
            ensure!(!std::path::Path::new("/nonexistent").exists());
        }
    }
    Ok(())
}

#[test]
fn bridge_and_tuning() -> Result<()> {
    lives(
        &VERSIONS,
        r#"{"type":"tuning","dataDir":"@DIR@/tuning","mac":"02:00:00:00:00:0A","mtu":1400,"allmulti":true,
            "sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}}"#,
    )
}

#[test]
fn bridge_and_sbr() -> Result<()> {
    lives(&VERSIONS, r#"{"type":"sbr"}"#)?;
    lives(&VERSIONS, r#"{"type":"sbr","addSourceHints":true}"#)
}

#[test]
fn bridge_and_bandwidth() -> Result<()> {
    lives(
        &VERSIONS,
        r#"{"type":"bandwidth","ingressRate":8000000,"ingressBurst":160000,"egressRate":1000000,"egressBurst":160000}"#,
    )
}

#[test]
fn two_attachments_of_one_network_with_bandwidth_do_not_meet() -> Result<()> {
    let rates = r#"{"type":"bandwidth","egressRate":1000000,"egressBurst":160000}"#;
    for order in [["eth0", "net1"], ["net1", "eth0"]] {
        let list = List::new("1.0.0", rates)?;
        let results = [list.add("eth0")?, list.add("net1")?];
        let of = |ifname: &str| if ifname == "eth0" { &results[0] } else { &results[1] };
        for ifname in order {
            list.check(ifname, of(ifname))?;
        }
        let [first, second] = order;
        list.del(first, &list.world.netns(0), Some(of(first)))?;
        list.check(second, of(second))?;
        list.del(second, &list.world.netns(0), Some(of(second)))?;
        ensure!(list.left()?.is_empty(), "{:?}", list.left()?);
    }
    Ok(())
}

#[test]
fn two_attachments_of_one_network_with_sbr_do_not_meet() -> Result<()> {
    let list = List::new("1.0.0", r#"{"type":"sbr"}"#)?;
    let first = list.add("eth0")?;
    let second = list.add("net1")?;
    for (ifname, result) in [("eth0", &first), ("net1", &second)] {
        list.check(ifname, result)?;
    }
    list.del("eth0", &list.world.netns(0), Some(&first))?;
    list.check("net1", &second)?;
    list.del("net1", &list.world.netns(0), Some(&second))?;
    ensure!(list.left()?.is_empty(), "{:?}", list.left()?);
    Ok(())
}
