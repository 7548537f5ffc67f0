//! Steps between a plan and what the kernel holds.

use kernel::neigh::{FdbEntry, Neigh};
use kernel::route;

use super::super::state::State;
use super::super::steps::{Steps, Tunnels};
use super::*;

const TUNNEL: u32 = 9;
const PERMANENT: u16 = 0x80;

fn tunnelled() -> Plan {
    let nodes = [
        own(),
        node("n1", &["10.244.1.0/24"], &["172.18.0.11"]),
        node("n2", &["10.244.2.0/24"], &["172.19.0.12"]),
    ];
    plan(&nodes[0], &nodes, &facts(&[("172.18.0.11", direct()), ("172.19.0.12", behind("172.18.0.1"))]))
}

fn tunnels() -> Tunnels {
    Tunnels::from([(Family::V4, TUNNEL)])
}

/// The kernel as the plan wants it.
fn there() -> State {
    let main = |dst: &str, gateway: &str, oif, tunnel: bool| route::Route {
        dst: Some(dst.parse().unwrap()),
        family: Some(Family::V4),
        gateway: Some(ip(gateway)),
        oif: Some(oif),
        src: Some(ip("172.18.0.10")),
        table: Some(route::TABLE_MAIN),
        scope: Some(0),
        mtu: tunnel.then_some(1450),
        protocol: PROTOCOL,
        onlink: tunnel,
        ..route::Route::default()
    };
    let node =
        route::Route { src: None, table: Some(TABLE), ..main("172.19.0.12/32", "10.244.2.0", TUNNEL, true) };
    State {
        routes: vec![
            main("10.244.1.0/24", "172.18.0.11", 2, false),
            main("10.244.2.0/24", "10.244.2.0", TUNNEL, true),
            node,
        ],
        neighs: vec![Neigh {
            index: TUNNEL,
            addr: ip("10.244.2.0"),
            mac: Some(tunnel_mac("n2")),
            state: PERMANENT,
        }],
        fdb: vec![FdbEntry {
            index: TUNNEL,
            master: None,
            mac: tunnel_mac("n2"),
            vlan: None,
            dst: Some(ip("172.19.0.12")),
            vni: None,
            state: PERMANENT,
        }],
        rules: vec![kernel::rule::Rule {
            family: Family::V4,
            priority: TABLE,
            src: Some("10.244.0.0/24".parse().unwrap()),
            dst: None,
            iif: None,
            oif: None,
            mark: None,
            action: kernel::rule::ACTION_TABLE,
            table: TABLE,
        }],
        loopback: 1,
        gateways: vec![
            (1, "127.0.0.1/8".parse().unwrap(), false),
            (1, "10.244.0.1/32".parse().unwrap(), true),
            (TUNNEL, "10.244.0.1/32".parse().unwrap(), true),
            (1, "fd00:10:244::1/128".parse().unwrap(), true),
        ],
    }
}

fn steps(state: &State) -> Steps {
    Steps::between(&tunnelled(), &tunnels(), state)
}

#[test]
fn a_kernel_as_planned_is_left_alone() {
    assert!(steps(&there()).is_empty());
    let all = Steps::between(&tunnelled(), &tunnels(), &State::default());
    // Three routes, neighbour and forwarding entry, a rule, two gateways and that of the tunnel.
    assert_eq!(all.len(), 9);
}

#[test]
fn each_thing_that_is_missing_or_other_is_one_step() {
    let changes: [&dyn Fn(&mut State); 11] = [
        &|it| it.routes.retain(|it| it.oif != Some(2)),
        &|it| it.routes[0].gateway = Some(ip("172.18.0.99")),
        &|it| it.routes[0].src = None,
        &|it| it.routes[1].mtu = Some(1400),
        &|it| it.neighs[0].mac = Some(tunnel_mac("n9")),
        &|it| it.neighs[0].state = 0x20,
        &|it| it.fdb[0].dst = Some(ip("172.19.0.99")),
        &|it| it.fdb[0].vni = Some(7),
        &|it| it.rules.clear(),
        &|it| it.gateways.truncate(3),
        &|it| it.gateways.retain(|it| it.0 != TUNNEL),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut state = there();
        change(&mut state);
        assert_eq!(steps(&state).len(), 1, "change {number}");
    }
}

#[test]
fn what_is_ours_and_not_planned_goes_and_what_is_not_ours_stays() {
    let mut state = there();
    let stale = route::Route { dst: Some("10.244.7.0/24".parse().unwrap()), ..state.routes[0].clone() };
    state.routes.push(route::Route { protocol: 4, ..stale.clone() });
    state.gateways.push((1, "10.9.9.1/32".parse().unwrap(), false));
    state.neighs.push(Neigh { state: 0x40, addr: ip("10.1.1.1"), ..state.neighs[0].clone() });
    assert!(steps(&state).is_empty(), "of others");
    state.routes.push(stale);
    state.gateways.push((1, "10.9.8.1/32".parse().unwrap(), true));
    state.neighs.push(Neigh { addr: ip("10.244.7.0"), ..state.neighs[0].clone() });
    state.fdb.push(FdbEntry { mac: tunnel_mac("n7"), ..state.fdb[0].clone() });
    state.rules.push(kernel::rule::Rule { priority: 5, ..state.rules[0].clone() });
    assert_eq!(steps(&state).len(), 5);
}

#[test]
fn a_route_of_another_program_is_told_and_ours_is_put_in_front_of_it() {
    let mut state = there();
    state.routes[0].protocol = 3;
    let found = steps(&state);
    assert_eq!(found.len(), 1);
    let words =
        "10.244.1.0/24 via 172.18.0.11 dev 2 proto 3 is another program's and stays beside the agent's";
    assert_eq!(found.foreign, [words]);
    let mut both = there();
    both.routes.push(state.routes[0].clone());
    let found = steps(&both);
    assert_eq!((found.len(), found.foreign.len()), (0, 1));
}

#[test]
fn without_a_tunnel_its_routes_wait() {
    let state = State::default();
    let found = Steps::between(&tunnelled(), &Tunnels::new(), &state);
    assert_eq!(found.batch.len(), 1, "the direct route alone");
}
