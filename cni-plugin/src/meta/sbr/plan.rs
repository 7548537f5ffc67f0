//! What ADD of `sbr` does, as a pure function of what the pod has: the steps, in order.
//!
//! The tables get copies of the interface's routes before any is deleted from the main one, so that a
//! gateway can always be reached; within the deletions those with a gateway go first, so that taking them
//! back in reverse works too.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use cni::IpConfig;
use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::route::{Route, SCOPE_LINK, TABLE_MAIN};
use kernel::rule::{ACTION_TABLE, Rule};

use super::config::SbrConfig;
use crate::interface::attach::network;

/// The first table that may be chosen.
pub(super) const FIRST_TABLE: u32 = 100;
/// The metric that IPv6 gives to a route without one.
const DEFAULT_METRIC_V6: u32 = 1024;

/// One change in the pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    AddRule(Rule),
    DeleteRule(Rule),
    AddRoute(Route),
    DeleteRoute(Route),
}

impl Step {
    /// What takes it back.
    pub(super) fn reversed(&self) -> Step {
        match self.clone() {
            Step::AddRule(rule) => Step::DeleteRule(rule),
            Step::DeleteRule(rule) => Step::AddRule(rule),
            Step::AddRoute(route) => Step::DeleteRoute(route),
            Step::DeleteRoute(route) => Step::AddRoute(route),
        }
    }
}

/// The steps for `ips`, all on the link `index`, given all rules and all routes of the pod.
pub(super) fn steps(
    config: &SbrConfig,
    ips: &[IpConfig],
    index: u32,
    rules: &[Rule],
    routes: &[Route],
) -> Vec<Step> {
    if let Some(table) = config.table {
        let wanted = ips.iter().map(|ip| rule(ip.address, table));
        // A rule that is there already serves as well; a second one would outlive its DEL.
        let missing = wanted.filter(|rule| !rules.iter().any(|there| is_same(there, rule)));
        return missing.map(Step::AddRule).collect();
    }
    let mut taken: HashSet<u32> = rules.iter().map(|rule| rule.table).collect();
    taken.extend(routes.iter().map(Route::table_id));
    let moved: Vec<&Route> = routes.iter().filter(|route| is_moved(route, index)).collect();

    let mut steps = Vec::new();
    for ip in ips {
        let table = (FIRST_TABLE..).find(|table| !taken.contains(table)).unwrap_or(FIRST_TABLE);
        taken.insert(table);
        steps.push(Step::AddRule(rule(ip.address, table)));
        let copies = copies(config, ip, ips, &moved);
        let default = gateway(config, ip).filter(|_| !copies.iter().any(is_plain_default));
        let route = |gateway| Route {
            family: Some(family(ip.address)),
            gateway: Some(gateway),
            oif: Some(index),
            ..Route::default()
        };
        // Routes without a gateway first: they are what gateways are reached by.
        let mut own: Vec<Route> = default.map(route).into_iter().chain(copies).collect();
        own.sort_by_key(|route| route.gateway.is_some());
        steps.extend(own.into_iter().map(|route| Step::AddRoute(Route { table: Some(table), ..route })));
    }
    steps.extend(leave_main(config, ips, index, &moved));
    steps
}

/// The steps in the main table, which loses the interface's routes; with hints it keeps, or gets, a route to
/// each subnet that has one of its addresses as source.
///
/// Nothing is replaced: the kernel would take the first route of that destination and metric, which may be
/// another interface's.
fn leave_main(config: &SbrConfig, ips: &[IpConfig], index: u32, moved: &[&Route]) -> Vec<Step> {
    let hints = config.source_hints;
    let is_hint = |route: &Route, ip: &IpConfig| {
        let of_ours = route.src.is_some_and(|src| ips.iter().any(|ip| ip.address.ip() == src));
        of_ours && route.gateway.is_none() && network(route.destination()) == network(ip.address)
    };
    let mut steps = Vec::new();
    let mut hinted: Vec<Route> = Vec::new();
    for ip in ips.iter().filter(|_| hints) {
        if moved.iter().copied().chain(&hinted).any(|route| is_hint(route, ip)) {
            continue;
        }
        hinted.push(Route {
            dst: Some(network(ip.address)),
            family: Some(family(ip.address)),
            oif: Some(index),
            src: Some(ip.address.ip()),
            // Written out, or taking it back would take the first of any metric.
            priority: ip.address.is_ipv6().then_some(DEFAULT_METRIC_V6),
            table: Some(TABLE_MAIN),
            scope: ip.address.is_ipv4().then_some(SCOPE_LINK),
            ..Route::default()
        });
    }
    steps.extend(hinted.into_iter().map(Step::AddRoute));
    let on_link = |route: &Route| route.scope == Some(SCOPE_LINK) && route.gateway.is_none();
    let stays = |route: &Route| hints && (on_link(route) || ips.iter().any(|ip| is_hint(route, ip)));
    let mut gone: Vec<&Route> = moved.iter().copied().filter(|route| !stays(route)).collect();
    gone.sort_by_key(|route| route.gateway.is_none());
    steps.extend(gone.into_iter().cloned().map(Step::DeleteRoute));
    steps
}

/// Whether a route is in the main table and leads out of the interface. Link-local ones stay: no rule is for
/// link-local sources, and the kernel finds its neighbours by them.
fn is_moved(route: &Route, index: u32) -> bool {
    route.table_id() == TABLE_MAIN && route.oif == Some(index) && !is_link_local(route.destination())
}

fn is_link_local(net: IpNetwork) -> bool {
    let IpNetwork::V6(v6) = net else { return false };
    const MASK: u128 = 0xffc0 << 112;
    v6.prefix() >= 10 && u128::from(v6.ip()) & MASK == u128::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))
}

/// The routes that the address's table gets: those of its family that belong to its subnet by source or
/// gateway, or to no address at all. A default route of the configuration is the only one.
fn copies(config: &SbrConfig, ip: &IpConfig, ips: &[IpConfig], moved: &[&Route]) -> Vec<Route> {
    let inside = |ip: &IpConfig, address: Option<IpAddr>| address.is_some_and(|a| ip.address.contains(a));
    let belongs = |route: &&&Route| {
        let to_any = ips.iter().any(|ip| inside(ip, route.src) || inside(ip, route.gateway));
        inside(ip, route.src) || inside(ip, route.gateway) || !to_any
    };
    let family = family(ip.address);
    let replaced = |route: &&&Route| route.dst.is_none() && config.gateway(family).is_some();
    let own = moved.iter().filter(|route| route.family() == family && !replaced(route)).filter(belongs);
    own.map(|route| (*route).clone()).collect()
}

/// Whether a route is a default route of the metric that one without a metric gets.
fn is_plain_default(route: &Route) -> bool {
    let metric = match route.family() {
        Family::V4 => 0,
        Family::V6 => DEFAULT_METRIC_V6,
    };
    route.dst.is_none() && route.priority.unwrap_or(metric) == metric
}

/// The gateway of the table's default route: the configuration's, else the address's own.
pub(super) fn gateway(config: &SbrConfig, ip: &IpConfig) -> Option<IpAddr> {
    config.gateway(family(ip.address)).or(ip.gateway)
}

pub(super) fn family(net: IpNetwork) -> Family {
    Family::of(net.ip())
}

/// The rule that has packets from an address looked up in `table`.
fn rule(address: IpNetwork, table: u32) -> Rule {
    Rule {
        family: family(address),
        priority: 0,
        src: Some(IpNetwork::from(address.ip())),
        dst: None,
        iif: None,
        oif: None,
        mark: None,
        action: ACTION_TABLE,
        table,
    }
}

/// Whether two rules differ at most in their priority.
fn is_same(a: &Rule, b: &Rule) -> bool {
    *a == Rule { priority: a.priority, ..b.clone() }
}

/// Whether a rule is for packets from this address and nothing else.
pub(super) fn is_rule_of(there: &Rule, address: IpNetwork) -> bool {
    is_same(there, &rule(address, there.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: u32 = 2;

    fn ip(address: &str, gateway: &str) -> IpConfig {
        IpConfig { interface: None, address: address.parse().unwrap(), gateway: gateway.parse().ok() }
    }

    fn route(dst: &str, gateway: &str, src: &str) -> Route {
        let dst: IpNetwork = dst.parse().unwrap();
        Route {
            dst: Some(dst).filter(|dst| dst.prefix() != 0),
            family: Some(family(dst)),
            gateway: gateway.parse().ok(),
            oif: Some(LINK),
            src: src.parse().ok(),
            table: Some(TABLE_MAIN),
            scope: Some(if gateway.is_empty() && dst.is_ipv4() { SCOPE_LINK } else { 0 }),
            ..Route::default()
        }
    }

    /// The steps, one line each, in the words of `ip`.
    fn told(config: &SbrConfig, ips: &[IpConfig], rules: &[Rule], routes: &[Route]) -> Vec<String> {
        let route = |verb: &str, route: &Route| {
            let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            let src = route.src.map(|src| format!(" src {src}")).unwrap_or_default();
            format!("route {verb} {}{via}{src} table {}", route.destination(), route.table_id())
        };
        let rule = |rule: &Rule| format!("rule add from {} table {}", rule.src.unwrap(), rule.table);
        let told = |step: &Step| match step {
            Step::AddRule(one) => rule(one),
            Step::AddRoute(one) => route("add", one),
            Step::DeleteRoute(one) => route("del", one),
            Step::DeleteRule(_) => unreachable!("ADD deletes no rule"),
        };
        steps(config, ips, LINK, rules, routes).iter().map(told).collect()
    }

    fn v4() -> Vec<Route> {
        vec![
            route("0.0.0.0/0", "10.1.2.1", ""),
            route("10.1.2.0/24", "", "10.1.2.2"),
            route("192.168.0.0/16", "10.1.2.9", ""),
        ]
    }

    #[test]
    fn the_routes_of_the_interface_move_to_a_table_of_its_own() {
        let expected = [
            "rule add from 10.1.2.2/32 table 100",
            "route add 10.1.2.0/24 src 10.1.2.2 table 100",
            "route add 0.0.0.0/0 via 10.1.2.1 table 100",
            "route add 192.168.0.0/16 via 10.1.2.9 table 100",
            "route del 0.0.0.0/0 via 10.1.2.1 table 254",
            "route del 192.168.0.0/16 via 10.1.2.9 table 254",
            "route del 10.1.2.0/24 src 10.1.2.2 table 254",
        ];
        assert_eq!(told(&SbrConfig::default(), &[ip("10.1.2.2/24", "10.1.2.1")], &[], &v4()), expected);
    }

    #[test]
    fn a_default_route_is_made_where_an_earlier_plugin_made_none() {
        let routes = [route("10.1.2.0/24", "", "10.1.2.2")];
        let steps = told(&SbrConfig::default(), &[ip("10.1.2.2/24", "10.1.2.1")], &[], &routes);
        assert!(steps.contains(&"route add 0.0.0.0/0 via 10.1.2.1 table 100".to_owned()), "{steps:?}");
        let none = told(&SbrConfig::default(), &[ip("10.1.2.2/24", "")], &[], &routes);
        assert!(!none.iter().any(|step| step.contains("0.0.0.0/0")), "{none:?}");
    }

    #[test]
    fn tables_that_any_rule_or_any_route_uses_are_passed_over() {
        let rules = [rule("10.9.9.9/32".parse().unwrap(), 100)];
        // Another interface's routes, in tables that no rule leads to, one of them IPv6.
        let foreign = |dst: &str, table| Route { table: Some(table), oif: Some(9), ..route(dst, "", "") };
        let routes = [foreign("10.0.0.0/8", 101), foreign("fd00::/8", 103)];
        let ips = [ip("10.1.2.2/24", ""), ip("10.1.3.2/24", "")];
        let expected = ["rule add from 10.1.2.2/32 table 102", "rule add from 10.1.3.2/32 table 104"];
        assert_eq!(told(&SbrConfig::default(), &ips, &rules, &routes), expected);
    }

    #[test]
    fn each_table_gets_what_belongs_to_its_address_and_what_belongs_to_none() {
        let routes = [
            route("10.1.2.0/24", "", "10.1.2.2"),
            route("10.7.0.0/24", "", "10.7.0.2"),
            route("172.16.0.0/12", "10.7.0.1", ""),
            route("192.168.0.0/16", "", ""),
            route("198.51.100.0/24", "203.0.113.1", ""),
            route("2001:db8::/64", "", ""),
        ];
        let ips = [ip("10.1.2.2/24", ""), ip("10.7.0.2/24", ""), ip("2001:db8::2/64", "")];
        let steps = told(&SbrConfig::default(), &ips, &[], &routes);
        let of = |table: &str| {
            let end = format!("table {table}");
            let own = steps.iter().filter(|step| step.starts_with("route add") && step.ends_with(&end));
            own.map(|step| step.split(' ').nth(2).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of("100"), ["10.1.2.0/24", "192.168.0.0/16", "198.51.100.0/24"]);
        assert_eq!(of("101"), ["10.7.0.0/24", "192.168.0.0/16", "172.16.0.0/12", "198.51.100.0/24"]);
        assert_eq!(of("102"), ["2001:db8::/64"]);
        assert_eq!(steps.iter().filter(|step| step.starts_with("route del")).count(), routes.len());
    }

    #[test]
    fn link_local_routes_and_other_interfaces_stay() {
        let other = Route { oif: Some(3), ..route("10.1.2.0/24", "", "10.1.2.7") };
        let routes = [route("fe80::/64", "", ""), other];
        let expected = ["rule add from 2001:db8::2/128 table 100"];
        assert_eq!(told(&SbrConfig::default(), &[ip("2001:db8::2/64", "")], &[], &routes), expected);
    }

    #[test]
    fn the_gateway_of_the_configuration_is_the_only_default_route() {
        let text = r#"{"cniVersion":"1.0.0","name":"n","type":"sbr","gateways":["10.1.2.7"]}"#;
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        let config = SbrConfig::resolve(&cni::Call::new(env, text.into()).unwrap()).unwrap();
        let steps = told(&config, &[ip("10.1.2.2/24", "10.1.2.1")], &[], &v4());
        let defaults: Vec<_> = steps.iter().filter(|step| step.starts_with("route add 0.0.0.0/0")).collect();
        assert_eq!(defaults, ["route add 0.0.0.0/0 via 10.1.2.7 table 100"]);
    }

    #[test]
    fn hints_keep_the_subnets_in_the_main_table() {
        let config = SbrConfig { source_hints: true, ..SbrConfig::default() };
        let ips = [ip("10.1.2.2/24", "10.1.2.1"), ip("2001:db8::2/64", "")];
        let routes = [v4(), vec![route("2001:db8::/64", "", "")]].concat();
        let steps = told(&config, &ips, &[], &routes);
        let main: Vec<_> = steps.iter().filter(|step| step.ends_with("table 254")).collect();
        let expected = [
            "route add 2001:db8::/64 src 2001:db8::2 table 254",
            "route del 0.0.0.0/0 via 10.1.2.1 table 254",
            "route del 192.168.0.0/16 via 10.1.2.9 table 254",
            "route del 2001:db8::/64 table 254",
        ];
        assert_eq!(main, expected);
    }

    #[test]
    fn a_given_table_gets_rules_only_and_no_second_one() {
        let config = SbrConfig { table: Some(50), ..SbrConfig::default() };
        let ips = [ip("10.1.2.2/24", "10.1.2.1"), ip("2001:db8::2/64", "")];
        let there = Rule { priority: 77, ..rule(ips[0].address, 50) };
        assert_eq!(
            told(&config, &ips, &[], &v4()),
            ["rule add from 10.1.2.2/32 table 50", "rule add from 2001:db8::2/128 table 50"]
        );
        assert_eq!(told(&config, &ips, &[there], &v4()), ["rule add from 2001:db8::2/128 table 50"]);
    }
}
