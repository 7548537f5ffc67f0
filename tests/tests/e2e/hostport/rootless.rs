//! Rules in a user namespace: root there, nobody outside.

use std::process::Command;

use anyhow::{Result, ensure};
use podnet_tests::{Side, World};

/// The node is a namespace of a user namespace; for rules a pod needs only addresses.
const SCRIPT: &str = r#"
set -e
ip link set lo up
ip link add cni0 type bridge
ip addr add 10.1.2.1/24 dev cni0
ip link set cni0 up
call() {
    CNI_COMMAND=$1 CNI_CONTAINERID=c0 CNI_IFNAME=eth0 CNI_NETNS=/nonexistent CNI_PATH=$PLUGINS "$PLUGINS/$2" <<<"$3"
}
for verb in STATUS ADD CHECK; do
    call $verb portmap "$PORTMAP" >/dev/null
    call $verb firewall "$FIREWALL" >/dev/null
done
nft list ruleset
cat /proc/sys/net/ipv4/conf/cni0/route_localnet
echo ----
call DEL portmap "$PORTMAP"
call DEL firewall "$FIREWALL"
nft list ruleset
"#;

const PREV: &str = r#"{"cniVersion":"1.0.0","ips":[{"interface":2,"address":"10.1.2.3/24"}],
    "interfaces":[{"name":"cni0"},{"name":"veth1"},{"name":"eth0","sandbox":"/nonexistent"}]}"#;

#[test]
fn mappings_and_policies_work_in_a_user_namespace() -> Result<()> {
    let world = World::new(Side::Podnet, 0)?;
    let config = |plugin: &str, keys: &str| {
        world.config(plugin, "1.1.0", &format!(r#"{{"prevResult":{PREV},{keys}}}"#))
    };
    let mappings =
        r#""runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#;
    let out = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "bash", "-c", SCRIPT])
        .env("PLUGINS", world.plugins())
        .env("PORTMAP", config("portmap", mappings))
        .env("FIREWALL", config("firewall", r#""backend":"nftables","ingressPolicy":"isolated""#))
        .output()?;
    let shown = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "{shown}{}", String::from_utf8_lossy(&out.stderr));
    let (during, after) = shown.split_once("----\n").unwrap_or_default();
    for part in ["dnat to 10.1.2.3:80", "chain CNI-FORWARD", "elements = { \"veth1\" }", "\n1\n"] {
        ensure!(during.contains(part), "{part:?} is not in {during}");
    }
    ensure!(after.is_empty(), "{after}");
    Ok(())
}
