//! What a kernel lacks of what policies need: each expression tried out, nothing made.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kernel::{Nfnl, conntrack};

use super::Direction;
use super::apply;
use super::program::{Addresses, Chain, Line, Ports, Program, SOURCES, Set, Target, Verdicts};
use crate::model::Protocol;

/// What is missing, each as a sentence for the Node's event: without any of these policies are not enforced, or, of the
/// last, connections that a policy forbids later are not cut. An empty list: nothing.
pub fn probe_kernel(nfnl: &mut Nfnl) -> Vec<String> {
    let mut missing = Vec::new();
    let mut note = |what: &str, outcome: kernel::Result<()>| {
        if let Err(error) = outcome {
            let why =
                error.lacks().map_or_else(|| error.to_string(), |lacks| format!("kernel lacks {lacks}"));
            missing.push(format!("{what}: {why}"));
        }
    };
    for (what, program) in programs() {
        note(&what, nfnl.try_out(apply::whole(&program)));
    }
    let all = conntrack::all(nfnl).map(drop);
    note(CUT, all);
    missing
}

/// What is asked for, by name, in the order in which it is: with each of these a sentence of [`probe_kernel`] begins.
pub fn asked() -> Vec<String> {
    programs().into_iter().map(|it| it.0).chain([CUT.to_owned()]).collect()
}

const CUT: &str = "cut connections that are there";

/// A table for each thing that can be missing, so that each is named.
fn programs() -> Vec<(String, Program)> {
    let with = |lines: Vec<Line>| {
        let mut program = Program::default();
        for direction in Direction::ALL {
            let chain = Chain { about: String::new(), lines: Vec::new() };
            program.chains.insert(direction.name().into(), Arc::new(chain));
        }
        let chain = Chain { about: String::new(), lines };
        program.chains.insert("probe".into(), Arc::new(chain));
        program
    };
    let accept = |ipv6, peers: Option<&str>, ports| Line::Accept {
        direction: Direction::Ingress,
        ipv6,
        peers: peers.map(str::to_owned),
        ports,
    };
    let mut all = [
        ("tables of family inet with chains at the forward hook", with(Vec::new())),
        ("tell connections by their state (ct state)", with(vec![Line::Established])),
        ("tell connections by their mark (ct mark)", with(vec![Line::Cut])),
        ("ranges of ports", with(vec![accept(None, None, Ports::Range(Protocol::Tcp, 1, 9))])),
        ("device groups of links", with(vec![Line::Unmarked(IpAddr::from(Ipv4Addr::LOCALHOST).into())])),
    ]
    .map(|(what, program)| (what.to_owned(), program))
    .to_vec();
    let mut sources = with(Vec::new());
    let chain = Chain { about: String::new(), lines: vec![Line::Forged] };
    sources.chains.insert(SOURCES.into(), Arc::new(chain));
    all.push(("the way back to a packet's source (fib)".to_owned(), sources));
    for ipv6 in [false, true] {
        let pods = vec![Line::Itself { ipv6 }, Line::Pods { direction: Direction::Egress, ipv6 }, Line::Drop];
        let mut maps = with(pods);
        let address: IpAddr = if ipv6 { [0u16; 8].into() } else { [0u8; 4].into() };
        let verdicts = Verdicts { egress: Target::Chain("probe".into()), ingress: Target::Open };
        maps.pods.insert(address, verdicts);
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        all.push((format!("maps from {family} addresses to chains"), maps));
        let mut sets = with(vec![
            accept(Some(ipv6), Some("pods"), Ports::All),
            accept(Some(ipv6), Some("block"), Ports::Set(Protocol::Sctp, "ports".into())),
            accept(Some(ipv6), None, Ports::Named("named".into())),
        ]);
        let addresses: Addresses = [(address, 1)].into();
        sets.sets = [
            ("pods".to_owned(), Set::Pods { ipv6, addresses: Arc::new(addresses) }),
            ("block".to_owned(), Set::Block { ipv6, intervals: vec![(1, 9), (20, 30)] }),
            ("ports".to_owned(), Set::Ports(vec![(1, 9), (20, 65535)])),
            ("named".to_owned(), Set::Named { ipv6, ports: Arc::new([(address, Protocol::Udp, 53)].into()) }),
        ]
        .into();
        all.push((format!("sets of {family} addresses, ranges and ports"), sets));
    }
    all
}
