//! Where the device is missing: STATUS and ADD say which, and which option of the kernel has it. Where it is not, STATUS is
//! silent. So these tests hold on every kernel.

use anyhow::{Result, ensure};
use podnet_tests::devices;
use podnet_tests::process::Stdout;

use super::node::{call, world};
use crate::rollback::add_fails_without_a_trace;

#[test]
fn status_and_add_name_the_device_that_the_kernel_lacks() -> Result<()> {
    for (device, plugin, text, words) in [
        ("ipvlan", "ipvlan", r#"{"master":"up0"}"#, "kernel lacks ipvlan (CONFIG_IPVLAN)"),
        ("vlan", "vlan", r#"{"master":"up0","vlanId":5}"#, "kernel lacks vlan (CONFIG_VLAN_8021Q)"),
        ("dummy", "dummy", "{}", "kernel lacks dummy (CONFIG_DUMMY)"),
        ("macvlan", "macvlan", "{}", "kernel lacks macvlan (CONFIG_MACVLAN)"),
        (
            "bridge-vlan",
            "bridge",
            r#"{"vlan":5}"#,
            "kernel lacks VLAN filtering of bridges (CONFIG_BRIDGE_VLAN_FILTERING)",
        ),
    ] {
        let world = world(1)?;
        let status = call(&world, plugin, "STATUS", text).run()?;
        if devices::present(device)? {
            status.silent()?;
            continue;
        }
        let error = status.error()?;
        ensure!(error.code == 50 && error.msg.ends_with(words), "{plugin}: {error:?}");
        let error = add_fails_without_a_trace(&world, plugin, text, "1.0.0", Stdout::Read)?.error()?;
        ensure!(error.code == 999 && error.msg.ends_with(words), "{plugin}: {error:?}");
    }
    Ok(())
}
