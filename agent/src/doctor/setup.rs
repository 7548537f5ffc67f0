//! Whether podnet itself is whole on this node: agent, kernel, plugins, configuration.

use anyhow::Result;
use kernel::link::{self, LinkKind};
use kernel::nft::{
    Batch, ChainKind, Ct, Element, Expr, Family, Hook, Op, Point, Reg, Rule, Set, Table, Type, Value,
    Verdict, ct_state, priority,
};
use kernel::{Nfnl, Rtnl};
use nix::errno::Errno;

use super::{Host, State, Trouble};
use crate::install::{binaries, conflist as config};

/// The agent's own opinion.
pub(super) fn agent(host: &mut Host) -> Result<Vec<Trouble>> {
    let status = match &host.agent {
        Ok(status) => status,
        Err(why) => {
            return Ok(vec![Trouble::new(
                State::Failed,
                "no podnetd answers on this node; what it has set up holds on, and changes are not followed",
                why.clone(),
                "kubectl -n kube-system get pods -l app=podnet -o wide; kubectl -n kube-system logs ds/podnet",
            )]);
        }
    };
    let states = status["conditions"].as_array().into_iter().flatten();
    let failing = states.filter(|it| it["met"] == false).map(|it| {
        let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
        Trouble::new(
            State::Failed,
            format!("podnetd is not ready: {}", text("condition")),
            text("reason"),
            "see the other findings; curl http://127.0.0.1:10180/status tells the rest",
        )
    });
    Ok(failing.collect())
}

/// A feature of the kernel: its name, who needs it, how it is asked for.
type Feature = (&'static str, &'static str, fn(&mut Batch));

const TABLE: Table<'static> = Table::new(Family::Inet, "podnet-doctor");

/// What rules need, from the bottom up.
const FEATURES: [Feature; 6] = [
    ("nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)", "masquerade and policies", |batch| {
        batch.add_table(TABLE, None).add_chain(TABLE, "forward", Some(&FORWARD));
    }),
    ("connection tracking in rules (CONFIG_NFT_CT)", "policies, as answers pass by it", |batch| {
        batch.add_table(TABLE, None).add_chain(TABLE, "forward", Some(&FORWARD));
        batch.append(
            TABLE,
            "forward",
            &Rule::new().ct_state(ct_state::ESTABLISHED | ct_state::RELATED).accept(),
        );
    }),
    (
        "marks of connections (CONFIG_NF_CONNTRACK_MARK)",
        "ending connections that a new policy forbids",
        |batch| {
            batch.add_table(TABLE, None).add_chain(TABLE, "forward", Some(&FORWARD));
            let marked = Rule::new()
                .expr(Expr::Ct { key: Ct::Mark, dreg: Reg::R1, direction: None })
                .expr(Expr::Cmp { sreg: Reg::R1, op: Op::Eq, data: vec![0; 4] });
            batch.append(TABLE, "forward", &marked.drop());
        },
    ),
    ("verdict maps (nft_lookup)", "policies of many pods at the cost of one", |batch| {
        let map = Set { name: "pods", key: &[Type::Ipv4Addr], value: Some(Value::Verdict), ..Set::default() };
        batch.add_table(TABLE, None).add_chain(TABLE, "of-pod", None).add_set(TABLE, &map);
        let element = Element::key_of(&[&[192, 0, 2, 1]]).to_verdict(Verdict::Goto("of-pod".to_owned()));
        batch.add_elements(TABLE, "pods", &[element]);
    }),
    ("sets of ranges (nft_set_rbtree, nft_set_pipapo)", "ipBlock, ranges of ports", |batch| {
        let set = Set {
            name: "blocks",
            key: &[Type::Ipv4Addr, Type::InetService],
            interval: true,
            ..Set::default()
        };
        batch.add_table(TABLE, None).add_set(TABLE, &set);
    }),
    ("masquerading (CONFIG_NFT_MASQ, CONFIG_NF_NAT)", "pods that reach the world outside", |batch| {
        let hook = Hook::new(ChainKind::Nat, Point::Postrouting, priority::SRCNAT);
        batch.add_table(TABLE, None).add_chain(TABLE, "postrouting", Some(&hook));
        batch.append(TABLE, "postrouting", &Rule::new().masquerade());
    }),
];

const FORWARD: Hook<'static> = Hook::new(ChainKind::Filter, Point::Forward, priority::FILTER);

/// What of the kernel podnet needs and does not have: the feature, who needs it, and the kernel's words. Nothing is made.
pub fn lacking(rtnl: &mut Rtnl, nfnl: &mut Nfnl) -> Vec<(String, &'static str, String)> {
    let mut lacking = of_rules(nfnl, &FEATURES);
    let local = std::net::Ipv4Addr::UNSPECIFIED.into();
    if let Err(err) = link::require(rtnl, &LinkKind::Vxlan { vni: 1, local, port: crate::routing::PORT }) {
        lacking.push(("vxlan (CONFIG_VXLAN)".to_owned(), "peers behind a router", err.to_string()));
    }
    let filter = kernel::conntrack::Filter {
        family: kernel::Family::V4,
        protocol: 6,
        // No flow need be read to know that they can be.
        port: Some(0),
        destination: None,
        server: None,
    };
    if let Err(err) = kernel::conntrack::list(nfnl, &filter) {
        let name = "connections over netlink (CONFIG_NF_CT_NETLINK)".to_owned();
        lacking.push((name, "ending connections that a new policy forbids", err.to_string()));
    }
    lacking
}

fn of_rules(nfnl: &mut Nfnl, features: &[Feature]) -> Vec<(String, &'static str, String)> {
    let tried = features.iter().filter_map(|(name, purpose, put)| {
        let mut batch = Batch::new();
        put(&mut batch);
        let err = nfnl.try_out(batch).err()?;
        Some(((*name).to_owned(), *purpose, err.to_string()))
    });
    tried.collect()
}

/// Features that the kernel lacks.
///
/// # Errors
/// It does not let us ask.
pub(super) fn kernel(host: &mut Host) -> Result<Vec<Trouble>> {
    let mut batch = Batch::new();
    batch.add_table(TABLE, None);
    match host.nfnl.try_out(batch) {
        // Not a lack of the kernel's, but of ours.
        Err(err) if err.errno() == Some(Errno::EPERM as i32) => return Err(err.into()),
        _ => {}
    }
    Ok(lacking(&mut host.rtnl, &mut host.nfnl).into_iter().map(trouble).collect())
}

fn trouble((name, purpose, words): (String, &'static str, String)) -> Trouble {
    Trouble::new(
        State::Failed,
        format!("the kernel lacks {name}, for {purpose}"),
        words,
        "load the module, or a kernel that has it; WSL2: wsl --update, or a kernel of one's own",
    )
}

#[cfg(test)]
pub(super) fn lacking_made_up(nfnl: &mut Nfnl) -> Vec<Trouble> {
    let made_up: Feature = ("something made up", "this test", |batch| {
        batch.add_table(TABLE, None).add_chain(TABLE, "forward", Some(&FORWARD));
        let rule = Rule::new().expr(Expr::Other { name: "nosuch".to_owned(), data: Vec::new() });
        batch.append(TABLE, "forward", &rule);
    });
    of_rules(nfnl, &[FEATURES[0], made_up]).into_iter().map(trouble).collect()
}

/// Plugins that are missing or do not run.
pub(super) fn plugins(host: &mut Host) -> Result<Vec<Trouble>> {
    let dir = host.places.plugins();
    let names: Vec<String> = match &host.conflist {
        Some(conflist) => conflist.plugins.clone(),
        None => config::PLUGINS.iter().map(|it| (*it).to_owned()).collect(),
    };
    let failed = names.iter().filter_map(|name| {
        let err = binaries::check(&dir, [name.as_str()]).err()?;
        Some(Trouble::new(
            State::Failed,
            format!("the plugin {name:?} is missing or does not run, so no pod can start"),
            format!("{err:#}"),
            format!(
                "restart podnetd, which puts it into {} again; a directory mounted noexec does not do",
                dir.display()
            ),
        ))
    });
    Ok(failed.collect())
}

/// A configuration that is missing, broken, or behind another network's.
pub(super) fn conflist(host: &mut Host) -> Result<Vec<Trouble>> {
    let mut troubles = Vec::new();
    let file = host.places.conflist();
    match config::read(&host.places) {
        Ok(Some(_)) => {}
        Ok(None) => troubles.push(Trouble::new(
            State::Failed,
            "the network's configuration is not there, so the node is not Ready",
            format!("{} does not exist", file.display()),
            "podnetd writes it when the plugins run and the Node has a PodCIDR; its log says what it waits for",
        )),
        Err(err) => troubles.push(Trouble::new(
            State::Failed,
            "the network's configuration cannot be read",
            format!("{err:#}"),
            "restart podnetd, which writes it anew",
        )),
    }
    for other in config::others(&host.places)?.iter().filter(|it| it.is_first) {
        let network = other.network.as_ref().map_or("no network", String::as_str);
        troubles.push(Trouble::new(
            State::Failed,
            format!("pods get another network ({network}), as its configuration sorts before podnet's"),
            format!(
                "{} is before {}",
                host.places.configurations().join(&other.file).display(),
                file.display()
            ),
            "remove it, and uninstall that network; podnetd leaves what others wrote",
        ));
    }
    Ok(troubles)
}
