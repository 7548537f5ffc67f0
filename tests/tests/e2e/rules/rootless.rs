//! Rules in a user namespace: root there, nobody outside.

use std::process::Command;

use anyhow::{Result, ensure};
use podnet_tests::{Side, World};

use super::BOTH;

/// The node and the pod are namespaces of a user namespace, made by the script itself.
const SCRIPT: &str = r#"
set -e
mount -t sysfs none /sys 2>/dev/null || true
unshare -n sleep 600 &
pod=$!
trap 'kill $pod' EXIT
until [ "$(readlink /proc/$pod/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
ip link set lo up
call() { CNI_COMMAND=$1 CNI_CONTAINERID=c0 CNI_IFNAME=eth0 CNI_NETNS=$2 CNI_PATH=$PLUGINS "$PLUGINS/bridge" <<<"$CONFIG"; }
call STATUS ""
call ADD /proc/$pod/ns/net >/dev/null
nft list ruleset
echo ----
call DEL ""
nft list ruleset
"#;

#[test]
fn rules_work_in_a_user_namespace() -> Result<()> {
    let world = World::new(Side::Podnet, 0)?;
    let config = world.config("bridge", "1.1.0", BOTH);
    let out = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "bash", "-c", SCRIPT])
        .env("PLUGINS", world.plugins())
        .env("CONFIG", config)
        .output()?;
    let shown = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "{shown}{}", String::from_utf8_lossy(&out.stderr));
    let (during, after) = shown.split_once("----\n").unwrap_or_default();
    ensure!(during.contains("masquerade comment") && during.contains("macspoofchk-c0-eth0"), "{shown}");
    assert_eq!(after, "", "{shown}");
    Ok(())
}
