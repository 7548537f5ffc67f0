//! Rules of the bridge: masquerade and MAC spoof check, by what packets do and by what `nft` lists.

mod foreign;
mod masquerade;
mod migration;
mod rootless;
mod spoof;

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kernel::Netns;
use podnet_tests::World;
use podnet_tests::world::Call;
use serde_json::Value;

/// A gateway network of both families, masqueraded.
const MASQ: &str = r#"{"isDefaultGateway":true,"ipMasq":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#;
/// The same without masquerade.
const PLAIN: &str = r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#;
/// Masquerade and MAC spoof check, IPv4.
const BOTH: &str = r#"{"isGateway":true,"ipMasq":true,"macspoofchk":true,
    "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.0.0/16"}}"#;

/// A call of `bridge` in the newest version.
fn bridge<'w>(world: &'w World, verb: &str, text: &str) -> Call<'w> {
    world.call("bridge", verb).config("1.1.0", text)
}

/// What a program prints in a namespace.
fn print_of(netns: &Netns, program: &str, args: &[&str], stdin: &str) -> Result<String> {
    let mut child = netns
        .run(|| {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn()
        })?
        .with_context(|| format!("start {program}"))?;
    child.stdin.take().context("stdin")?.write_all(stdin.as_bytes())?;
    let out = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program} {args:?}: {text}");
    Ok(String::from_utf8(out.stdout)?)
}

/// The whole ruleset of the node with its handles, without counters.
pub(crate) fn ruleset(world: &World) -> Result<String> {
    print_of(&world.host, "nft", &["-a", "-s", "list", "ruleset"], "")
}

/// One table as `nft` shows it.
fn table(world: &World, name: &[&str]) -> Result<String> {
    print_of(&world.host, "nft", &[&["-s", "list", "table"], name].concat(), "")
}

/// The lines of the ruleset that hold `word`.
fn lines_with(world: &World, word: &str) -> Result<usize> {
    Ok(ruleset(world)?.lines().filter(|line| line.contains(word)).count())
}

/// A socket of a pod that waits no longer than a test may.
fn socket(netns: &Netns, address: &str) -> Result<UdpSocket> {
    let socket = netns.run(|| UdpSocket::bind(address))?.with_context(|| format!("bind {address}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket)
}

/// Sends a datagram from `from` to `to`, where it must come in; gives the source that is seen there.
fn source_seen(from: &UdpSocket, to: &UdpSocket, at: SocketAddr) -> Result<String> {
    from.send_to(b"probe", at)?;
    let mut buffer = [0; 16];
    let (_, source) = kernel::uninterrupted(|| to.recv_from(&mut buffer))
        .with_context(|| format!("nothing came to {at}"))?;
    Ok(source.ip().to_string())
}

/// GC of the bridge, as libcni calls it.
fn gc(world: &World, text: &str, valid: &str) -> Result<()> {
    let call =
        bridge(world, "GC", text).env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "");
    call.with("cni.dev/valid-attachments", valid).run()?.silent()
}

/// The pod's address of one family in a result, without its prefix length.
fn address(result: &Value, v6: bool) -> Result<String> {
    let ips = result["ips"].as_array().context("no ips")?;
    let texts = ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next());
    texts.into_iter().find(|ip| ip.contains(':') == v6).map(str::to_owned).context("no such address")
}
