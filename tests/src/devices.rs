//! What a kernel may lack: a test of such a device asks first, and skips in public where the device is missing.
//!
//! Every skip is one line `skipped: TEST: REASON`, printed and appended to the file that PODNET_SKIPS names; `scripts/test`
//! compares these lines with `tests/skips.txt` and runs every test of them in a virtual machine that has the device.
//! There PODNET_DEVICES=all makes an absent device a failure. The answer comes from `ip` and `bridge`, which make the
//! device in a namespace of their own, never from our own encoder.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use kernel::netns::Netns;

/// A feature, the kernel option that has it, and commands that make one.
struct Feature {
    name: &'static str,
    option: &'static str,
    commands: &'static [&'static str],
}

const PARENT: &str = "ip link add parent type veth peer name far";

const FEATURES: [Feature; 8] = [
    Feature {
        name: "vlan",
        option: "CONFIG_VLAN_8021Q",
        commands: &[PARENT, "ip link add probe link parent type vlan id 7"],
    },
    Feature {
        name: "macvlan",
        option: "CONFIG_MACVLAN",
        commands: &[PARENT, "ip link add probe link parent type macvlan mode bridge"],
    },
    Feature {
        name: "ipvlan",
        option: "CONFIG_IPVLAN",
        commands: &[PARENT, "ip link add probe link parent type ipvlan mode l2"],
    },
    Feature { name: "dummy", option: "CONFIG_DUMMY", commands: &["ip link add probe type dummy"] },
    Feature { name: "vrf", option: "CONFIG_NET_VRF", commands: &["ip link add probe type vrf table 10"] },
    Feature {
        name: "wireguard",
        option: "CONFIG_WIREGUARD",
        commands: &["ip link add probe type wireguard"],
    },
    Feature {
        name: "esp",
        option: "CONFIG_INET_ESP, CONFIG_CRYPTO_GCM",
        commands: &["ip xfrm state add src 127.0.0.1 dst 127.0.0.2 proto esp spi 0x100 mode tunnel \
                     aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128"],
    },
    Feature {
        name: "bridge-vlan",
        option: "CONFIG_BRIDGE_VLAN_FILTERING",
        commands: &["ip link add probe type bridge vlan_filtering 1", "bridge vlan add vid 7 dev probe self"],
    },
];

/// Whether this kernel has a device: one of `vlan`, `macvlan`, `ipvlan`, `dummy`, `vrf`, `wireguard`, `esp`, `bridge-vlan`. Where it has not,
/// the skip of the calling test is reported, and the test is to return.
///
/// # Errors
/// There is no such feature, the kernel refuses for another reason, the skip cannot be reported, or PODNET_DEVICES is
/// `all` and the device is missing.
#[must_use = "a test without its device must return"]
pub fn require(name: &str) -> Result<bool> {
    let feature = feature(name)?;
    if present(name)? {
        return Ok(true);
    }
    let reason = format!("kernel lacks {name} ({})", feature.option);
    ensure!(std::env::var_os("PODNET_DEVICES").is_none_or(|v| v != "all"), "{reason}");
    report(&reason)?;
    Ok(false)
}

/// Whether this kernel has a device, for tests that hold either way.
///
/// # Errors
/// There is no such feature, or the kernel refuses for another reason.
pub fn present(name: &str) -> Result<bool> {
    has(feature(name)?).with_context(|| format!("ask the kernel for {name}"))
}

fn feature(name: &str) -> Result<&'static Feature> {
    FEATURES.iter().find(|f| f.name == name).with_context(|| format!("no feature {name:?}"))
}

/// Makes the device in a new namespace.
fn has(feature: &Feature) -> Result<bool> {
    let netns = Netns::create()?;
    for command in feature.commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let output = netns
            .run(|| Command::new(words[0]).args(&words[1..]).output())?
            .with_context(|| format!("start {}", words[0]))?;
        if output.status.success() {
            continue;
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lacking = [
            "Unknown device type",
            "Operation not supported",
            "Requested type not found",
            "Requested AEAD algorithm not found",
        ];
        if lacking.iter().any(|words| stderr.contains(words)) {
            return Ok(false);
        }
        bail!("{command}: {stderr}");
    }
    Ok(true)
}

/// Says that the calling test is skipped, or a part of it. The line is one write, so that tests in parallel do not mix
/// theirs.
///
/// # Errors
/// The test's name is not to be had, or the file of skips cannot be written.
pub fn report(reason: &str) -> Result<()> {
    let thread = std::thread::current();
    // The runner names the thread after the test, except where there is one test thread only.
    let test = thread.name().filter(|name| *name != "main");
    let test = test.context("a skip needs the test's name: run with --test-threads 2 or more")?;
    let line = format!("skipped: {test}: {reason}\n");
    print!("{line}");
    if let Some(path) = std::env::var_os("PODNET_SKIPS") {
        let mut file =
            OpenOptions::new().append(true).create(true).open(&path).context("open PODNET_SKIPS")?;
        file.write_all(line.as_bytes()).context("write PODNET_SKIPS")?;
    }
    Ok(())
}
