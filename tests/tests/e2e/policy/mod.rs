//! NetworkPolicies: two judges, the kernel and the plugin, compared on packets.

mod bed;
mod cases;
mod flows;
mod forged;
mod frames;
mod generate;
mod node;
mod oracle;
mod plugin;
mod rules;
mod table;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use podnet_tests::World;
use serde_json::Value;

fn nft(world: &World, command: &str) -> Result<()> {
    let run = || Command::new("nft").args(command.split_whitespace()).output();
    let output = world.host.run(run)?.context("start nft")?;
    ensure!(output.status.success(), "nft {command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The agent's table in a world without an agent, as far as the plugin knows it.
pub(crate) fn make_table(world: &World) -> Result<()> {
    nft(world, "add table inet podnet-policy")?;
    for (version, kind) in [(4, "ipv4_addr"), (6, "ipv6_addr")] {
        for direction in ["egress", "ingress"] {
            let map = format!("{direction}{version} {{ type {kind} : verdict ; }}");
            nft(world, &format!("add map inet podnet-policy {map}"))?;
        }
    }
    Ok(())
}

/// Opens the addresses of a result, as an agent would.
pub(crate) fn arm(world: &World, result: &Value) -> Result<()> {
    for ip in result["ips"].as_array().context("addresses")? {
        let address = ip["address"].as_str().and_then(|it| it.split('/').next()).context("an address")?;
        let version = if address.contains(':') { 6 } else { 4 };
        for direction in ["egress", "ingress"] {
            let element = format!("{direction}{version} {{ {address} : accept }}");
            nft(world, &format!("add element inet podnet-policy {element}"))?;
        }
    }
    Ok(())
}
