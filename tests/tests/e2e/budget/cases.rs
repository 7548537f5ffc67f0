//! The configurations whose verbs are counted.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use podnet_tests::counts::count;
use podnet_tests::world::{Call, NETWORK};
use podnet_tests::{Side, World};

use super::Table;
use crate::policy;

/// A link to stand on.
const UPLINK: &[&str] = &["link add up0 type veth peer name far0", "link set far0 up", "link set up0 up"];

/// The plugin that needs the agent's table; there is no agent to answer it here.
const POLICY: &str = "podnet-policy";

/// A plugin in a world.
#[derive(Clone, Debug, Default)]
pub(super) struct Case {
    /// One word.
    pub(super) name: &'static str,
    /// The plugin that is counted, and its configuration.
    pub(super) plugin: &'static str,
    pub(super) text: String,
    /// A plugin that ran before it and whose result it gets.
    pub(super) after: Option<(&'static str, String)>,
    /// `ip` commands on the node before.
    pub(super) host: &'static [&'static str],
    /// How many pods are there already.
    pub(super) pods: usize,
    /// How many addresses others have reserved.
    pub(super) reservations: u32,
}

impl Case {
    /// A world for the case, with one pod that is not attached yet: the last.
    pub(super) fn world(&self) -> Result<World> {
        let world = World::new(Side::Podnet, self.pods + 1)?;
        world.host_ip(self.host)?;
        if self.plugin == POLICY {
            policy::make_table(&world)?;
        }
        if self.reservations > 0 {
            reserve(&world, self.reservations)?;
            // Our index is not believed after another has written: that is found out here, once.
            self.settle(&world)?;
        }
        for pod in 0..self.pods {
            self.attach(&world, pod)?;
        }
        Ok(world)
    }

    /// ADD and DEL of the last pod.
    fn settle(&self, world: &World) -> Result<()> {
        let pod = world.pods.len() - 1;
        self.attach(world, pod)?;
        call(world, self.plugin, "DEL", &self.text, pod).run()?.silent()
    }

    /// An ADD that is not counted.
    pub(super) fn attach(&self, world: &World, pod: usize) -> Result<()> {
        call(world, self.plugin, "ADD", &self.text, pod).run()?.result()?;
        Ok(())
    }

    /// ADD, CHECK and DEL of a pod, counted.
    pub(super) fn count(&self, world: &World, pod: usize) -> Result<Table> {
        let mut result = None;
        if let Some((plugin, text)) = &self.after {
            result = Some(call(world, plugin, "ADD", text, pod).run()?.result()?);
        }
        let mut table = Table::new();
        for verb in ["ADD", "CHECK", "DEL"] {
            let call = call(world, self.plugin, verb, &self.text, pod);
            let call = result.as_ref().map_or(call.clone(), |result| call.prev(result));
            let (outcome, counts) = count(&call, world.dir())?;
            if verb == "ADD" {
                result = Some(outcome.result()?);
                if let Some(result) = result.as_ref().filter(|_| self.plugin == POLICY) {
                    policy::arm(world, result)?;
                }
            } else {
                outcome.silent()?;
            }
            table.insert(format!("{} {verb}", self.name), counts);
        }
        Ok(table)
    }

    /// A row for each verb, counted in a world of its own.
    pub(super) fn measure(&self) -> Result<Table> {
        let measure = || self.count(&self.world()?, self.pods);
        measure().with_context(|| self.name)
    }
}

/// A call for a pod, whose container id is as long for each: it is read back.
fn call<'w>(world: &'w World, plugin: &str, verb: &str, text: &str, pod: usize) -> Call<'w> {
    world.call(plugin, verb).config("1.1.0", text).pod(pod).container(&format!("container{pod:03}"))
}

/// Reserves `n` addresses up to 10.8.200.200 as another program does that knows no index. The last one's text is as long
/// whatever their number: it is read back.
pub(super) fn reserve(world: &World, n: u32) -> Result<()> {
    let dir = world.data().join(NETWORK);
    std::fs::create_dir_all(&dir)?;
    let last = Ipv4Addr::new(10, 8, 200, 200);
    for back in 0..n {
        let address = Ipv4Addr::from(u32::from(last) - back).to_string();
        std::fs::write(dir.join(address), format!("other{back}\r\neth0")).context("reserve an address")?;
    }
    std::fs::write(dir.join("last_reserved_ip.0"), last.to_string()).context("tell the last address")
}

/// host-local with one subnet, which is large enough for every case and has addresses of one length: they are read back.
pub(super) fn v4(keys: &str) -> String {
    format!(
        r#"{{{keys}"ipam":{{"type":"host-local","dataDir":"@DATA@","subnet":"10.8.0.0/16","rangeStart":"10.8.100.100"}}}}"#
    )
}

fn portmap(ports: u16) -> String {
    let mappings: Vec<_> = (0..ports)
        .map(|n| format!(r#"{{"hostPort":{},"containerPort":{},"protocol":"tcp"}}"#, 8000 + n, 80 + n))
        .collect();
    format!(r#"{{"runtimeConfig":{{"portMappings":[{}]}}}}"#, mappings.join(","))
}

/// All that have rows in `tests/budget.txt`.
pub(super) fn all() -> Vec<Case> {
    let gateway = v4(r#""isGateway":true,"#);
    let dual = r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
        "ranges":[[{"subnet":"10.8.0.0/16","rangeStart":"10.8.100.100"}],[{"subnet":"2001:db8:1::/64"}]]}}"#;
    let rate = r#"{"ingressRate":8000000,"ingressBurst":800000,"egressRate":8000000,"egressBurst":800000}"#;
    let case = |name, plugin, text: &str| Case { name, plugin, text: text.to_owned(), ..Case::default() };
    let after = |case: Case| Case { after: Some(("bridge", gateway.clone())), ..case };
    vec![
        case("loopback", "loopback", "{}"),
        case("bridge", "bridge", &gateway),
        Case { pods: 1, ..case("bridge-second-pod", "bridge", &gateway) },
        case("bridge-dual-stack", "bridge", dual),
        case("bridge-ipmasq", "bridge", &v4(r#""isGateway":true,"ipMasq":true,"#)),
        after(case("portmap-1", "portmap", &portmap(1))),
        after(case("portmap-10", "portmap", &portmap(10))),
        after(case("bandwidth", "bandwidth", rate)),
        after(case(POLICY, POLICY, r#"{"dataDir":"@DIR@/podnet"}"#)),
        case("ptp", "ptp", &v4("")),
        Case { host: UPLINK, ..case("macvlan", "macvlan", &v4(r#""master":"up0","#)) },
        Case { reservations: 1, ..case("host-local", "host-local", &v4("")) },
        Case { reservations: 2000, ..case("host-local-2000", "host-local", &v4("")) },
    ]
}
