//! Rules of other programs that packets of pods, tunnels and nodes pass: firewalld, ufw, Docker, a hand-written ruleset.

use anyhow::Result;
use ipnetwork::IpNetwork;
use kernel::link;
use kernel::nft::{Family, Point};

use super::rules::{self, is_about_network, is_about_udp};
use super::{Host, State, Trouble, is_tunnel, read};
use crate::routing::{self, PORT};

/// The families whose chains packets of an IP version pass.
fn families(ipv6: bool) -> [Family; 2] {
    [if ipv6 { Family::Ip6 } else { Family::Ip }, Family::Inet]
}

fn version(ipv6: bool) -> &'static str {
    routing::word(kernel::Family::v6_if(ipv6))
}

/// Rules at the hook `forward`, which each packet between a pod and anyone else passes.
pub(super) fn pods(host: &mut Host) -> Result<Vec<Trouble>> {
    let mut troubles = Vec::new();
    for ipv6 in [false, true] {
        let own: Vec<IpNetwork> = host.subnets().iter().copied().filter(|it| it.is_ipv6() == ipv6).collect();
        if own.is_empty() {
            continue;
        }
        let is_about = |rule: &kernel::nft::RuleInfo| is_about_network(rule, &own);
        for place in rules::dropped(&mut host.nfnl, &families(ipv6), Point::Forward, &is_about)? {
            troubles.push(Trouble::new(
                State::Failed,
                format!("a firewall of the node drops {} packets from and to pods", version(ipv6)),
                place,
                format!(
                    "let its forward chain accept packets from and to the pods' addresses ({}); firewalld: \
                     firewall-cmd --permanent --zone=trusted --add-source=ADDRESSES; iptables: iptables -P FORWARD ACCEPT",
                    own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                ),
            ));
        }
        troubles.extend(legacy(host, ipv6));
    }
    Ok(troubles)
}

/// Rules of iptables-legacy cannot be read over netlink; that there are any can be told.
fn legacy(host: &Host, ipv6: bool) -> Option<Trouble> {
    let (file, program) =
        if ipv6 { ("ip6_tables_names", "ip6tables-legacy") } else { ("ip_tables_names", "iptables-legacy") };
    let path = host.proc.join("thread-self/net").join(file);
    let names = read(&path)?;
    names.lines().any(|it| it == "filter").then(|| {
        Trouble::new(
            State::Warning,
            format!("there may be rules of {program} in force, which podnetd cannot read"),
            format!("{} names the table filter", path.display()),
            format!("look yourself: {program} -S FORWARD; a policy DROP without a rule for pods loses their packets"),
        )
    })
}

/// Rules at the hook `input`, which packets in tunnels pass while they are wrapped.
pub(super) fn vxlan(host: &mut Host) -> Result<Vec<Trouble>> {
    if !link::list(&mut host.rtnl)?.iter().any(is_tunnel) {
        return Ok(Vec::new());
    }
    let mut troubles = Vec::new();
    for ipv6 in [false, true] {
        let is_about = |rule: &kernel::nft::RuleInfo| is_about_udp(rule, PORT);
        for place in rules::dropped(&mut host.nfnl, &families(ipv6), Point::Input, &is_about)? {
            troubles.push(Trouble::new(
                State::Failed,
                format!(
                    "a firewall of the node drops {} packets to it, those of the tunnel among them",
                    version(ipv6)
                ),
                place,
                format!("let its input chain accept UDP to port {PORT} from the other nodes"),
            ));
        }
    }
    // A chain of family inet is asked for both versions.
    troubles.dedup_by(|a, b| a.evidence == b.evidence);
    Ok(troubles)
}

/// Frames between ports of one bridge, such as between kind's nodes, when bridges call netfilter.
pub(super) fn bridged(host: &mut Host) -> Result<Vec<Trouble>> {
    let mut troubles = Vec::new();
    for (ipv6, sysctl) in
        [(false, "net/bridge/bridge-nf-call-iptables"), (true, "net/bridge/bridge-nf-call-ip6tables")]
    {
        if host.sysctl(sysctl).as_deref() != Some("1") {
            continue;
        }
        for place in rules::dropped(&mut host.nfnl, &families(ipv6), Point::Forward, &|_| false)? {
            troubles.push(Trouble::new(
                State::Failed,
                format!("{} packets between nodes on one bridge pass the machine's firewall, which drops them", version(ipv6)),
                format!("{} is 1; {place}", sysctl.replace('/', ".")),
                format!(
                    "let the forward chain accept what comes from and goes to the bridge of the nodes (Docker does for \
                     its own networks), or sysctl -w {}=0",
                    sysctl.replace('/', ".")
                ),
            ));
        }
    }
    Ok(troubles)
}

/// Docker's `--icc=false`, or what does the same.
pub(super) fn icc(host: &mut Host) -> Result<Vec<Trouble>> {
    let families = [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge];
    let found = rules::dropping_within(&mut host.nfnl, &families)?;
    let troubles = found.into_iter().map(|(bridge, place)| {
        Trouble::new(
            State::Failed,
            format!("containers on the bridge {bridge} may not talk to each other, so nodes on it cannot either"),
            format!("{place} drops what comes from {bridge} and goes to {bridge}"),
            "let Docker's network have com.docker.network.bridge.enable_icc=true (the default), and make it anew",
        )
    });
    Ok(troubles.collect())
}
