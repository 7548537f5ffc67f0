//! Whether podnet itself is whole on this node: agent, kernel, plugins, configuration.

use anyhow::Result;
use kernel::link::{self, LinkKind};
use kernel::nft::Batch;
use kernel::{Family, Nfnl, Rtnl};
use nix::errno::Errno;

use super::{Host, State, Trouble};
use crate::install::{binaries, conflist as config};
use crate::masquerade::{self, Masquerade};
use crate::model::Node;
use crate::policy::probe_kernel;
use crate::routing;

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

/// What of the kernel podnet needs and does not have: who needs it, and what is missing, in the kernel's words. Nothing is
/// made.
fn lacking(rtnl: &mut Rtnl, nfnl: &mut Nfnl) -> Vec<(&'static str, String)> {
    let mut lacking: Vec<_> = probe_kernel(nfnl).into_iter().map(|words| ("policies", words)).collect();
    let own = Node { pod_cidrs: [Family::V4, Family::V6].map(Family::any).to_vec(), ..Node::default() };
    if let Err(err) = masquerade::try_out(nfnl, &Masquerade::of(&own, [&own])) {
        lacking.push(("pods that reach the world outside", err.to_string()));
    }
    let local = std::net::Ipv4Addr::UNSPECIFIED.into();
    if let Err(err) = link::require(rtnl, &LinkKind::Vxlan { vni: routing::VNI, local, port: routing::PORT })
    {
        lacking.push(("peers behind a router", err.to_string()));
    }
    lacking
}

/// Features that the kernel lacks.
///
/// # Errors
/// It does not let us ask.
pub(super) fn kernel(host: &mut Host) -> Result<Vec<Trouble>> {
    let mut batch = Batch::new();
    batch.add_table(masquerade::TABLE, None);
    match host.nfnl.try_out(batch) {
        // Not a lack of the kernel's, but of ours.
        Err(err) if err.errno() == Some(Errno::EPERM as i32) => return Err(err.into()),
        _ => {}
    }
    Ok(lacking(&mut host.rtnl, &mut host.nfnl).into_iter().map(trouble).collect())
}

fn trouble((purpose, words): (&'static str, String)) -> Trouble {
    Trouble::new(
        State::Failed,
        format!("the kernel lacks something for {purpose}"),
        words,
        "load the module, or a kernel that has it; WSL2: wsl --update, or a kernel of one's own",
    )
}

/// What is told of something that no kernel has.
#[cfg(test)]
pub(super) fn lacking_made_up(nfnl: &mut Nfnl) -> Trouble {
    use kernel::nft::{Expr, Rule};
    let mut batch = Batch::new();
    batch.add_table(masquerade::TABLE, None).add_chain(masquerade::TABLE, "made-up", None);
    let rule = Rule::new().expr(Expr::Other { name: "nosuch".to_owned(), data: Vec::new() });
    batch.append(masquerade::TABLE, "made-up", &rule);
    trouble(("this test", nfnl.try_out(batch).unwrap_err().to_string()))
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
