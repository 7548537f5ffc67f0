//! The command line: what can be said, and which module does it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use k8s_openapi::api::core::v1 as core;
use kernel::{Nfnl, Rtnl};
use kube::api::ListParams;
use kube::{Api, Client};

use crate::export::{self, Export, Format};
use crate::install::{conflist, uninstall};
use crate::model::Node;
use crate::places::{self, Places};
use crate::policy::explain_cli::Explain;
use crate::run::{self, Settings};
use crate::{api, doctor, masquerade, policy, routing, wire};

/// The node agent of podnet: makes it the network of a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "podnetd", version, max_term_width = 110, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 all good, 1 a check failed, a connection is not allowed or something could \
    not be done, 2 wrong use; doctor also: 3 warnings only, 4 something could not be looked at."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Be the agent of this node, until a signal ends it. What the node has goes on then.
    Run(RunArgs),
    /// Say whether a connection is allowed, and by which policy and rule.
    Explain {
        #[command(flatten)]
        explain: Explain,
        #[command(flatten)]
        way: Way,
    },
    /// Print or make the routes by which other machines reach the cluster's pods.
    Routes {
        #[command(flatten)]
        routes: export::Routes,
        #[command(flatten)]
        way: Way,
    },
    /// Look for causes of trouble on this node.
    Doctor(doctor::Args),
    /// Take podnet off this node.
    Uninstall(uninstall::Args),
}

/// How the API is reached.
#[derive(Debug, Args)]
struct Way {
    /// The way to the API; without it the pod's service account, at the API's address in the cluster or, before
    /// kube-proxy, at the one that the kubelet uses
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Way {
    async fn connect(&self) -> Result<Client> {
        api::connect(self.kubeconfig.as_deref()).await
    }
}

/// How the agent runs.
#[derive(Debug, Args)]
struct RunArgs {
    /// The Node's name.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: String,
    #[command(flatten)]
    way: Way,
    /// The executable with the plugins.
    #[arg(long, value_name = "FILE", default_value = places::PLUGIN)]
    plugin: PathBuf,
    /// Below which the node's directories are.
    #[arg(long, value_name = "DIR", default_value = "/", env = "PODNETD_ROOT")]
    root: PathBuf,
}

/// Runs the command line.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match verb(cli.verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("podnetd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn verb(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Run(args) => {
            let settings = Settings {
                node: args.node,
                kubeconfig: args.way.kubeconfig,
                plugin: args.plugin,
                places: Places::below(&args.root),
            };
            kernel::sysctl::use_mount(&settings.places.proc());
            runtime()?.block_on(run::run(settings))?;
            Ok(0)
        }
        Verb::Explain { explain, way } => {
            let cluster = match explain.manifests()? {
                Some(cluster) => cluster,
                None => runtime()?.block_on(async { api::snapshot(&way.connect().await?).await })?,
            };
            Ok(u8::from(!explain.run(&cluster, &mut std::io::stdout())?))
        }
        Verb::Routes { routes, way } => {
            let export = runtime()?.block_on(async { exported(&way.connect().await?).await })?;
            for skipped in &export.skipped {
                eprintln!("podnetd: {skipped}");
            }
            if routes.apply {
                let changed = export::apply(&mut Rtnl::open()?, &export, routes.remove)?;
                println!("{} routes made, {} removed", changed.made, changed.deleted);
            } else {
                match routes.format {
                    Format::Ip => print!("{}", export.commands(routes.remove)),
                    Format::Json => println!("{}", export.json()?),
                }
            }
            Ok(0)
        }
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Uninstall(args) => {
            let hooks = hooks(&Places::below(&args.root));
            uninstall::run(&args, hooks)
        }
    }
}

/// The routes to a cluster's pods, with the UID of its namespace kube-system as what tells it from others.
async fn exported(client: &Client) -> Result<Export> {
    let all = ListParams::default();
    let nodes = Api::<core::Node>::all(client.clone()).list(&all).await.context("list nodes")?;
    let nodes: Vec<_> = nodes.items.into_iter().map(wire::node).collect();
    let namespaces =
        Api::<core::Namespace>::all(client.clone()).list(&all).await.context("list namespaces")?;
    let system = namespaces.items.into_iter().find(|it| it.metadata.name.as_deref() == Some("kube-system"));
    let identity =
        system.and_then(|it| it.metadata.uid).context("the cluster has no namespace kube-system")?;
    Ok(Export::of(&nodes, &identity))
}

/// What the kernel holds, in the order in which it goes: policies last, so that no pod is open for a moment.
fn hooks(places: &Places) -> Vec<uninstall::Hook<'static>> {
    // The node's own PodCIDRs, as long as the configuration tells them.
    let in_use = conflist::read(places).ok().flatten();
    let own = in_use.map(|it| Node { pod_cidrs: it.subnets, ..Node::default() });
    let routes = move || {
        let removed = routing::remove_all(&mut Rtnl::open()?, own.as_ref())?;
        anyhow::ensure!(removed.trouble.is_empty(), "{}", removed.trouble.join("; "));
        Ok((removed.changes > 0).then(|| format!("{} removed", removed.changes)))
    };
    let table = |table: kernel::nft::Table<'static>| {
        move || {
            let removed = kernel::nft::remove(&mut Nfnl::open()?, table)?;
            Ok(removed.then(|| format!("removed table {table}")))
        }
    };
    let (masquerade, policies) = (table(masquerade::TABLE), table(policy::apply::OURS));
    vec![("routes", Box::new(routes)), ("masquerade", Box::new(masquerade)), ("policies", Box::new(policies))]
}

/// One thread: what the kernel is asked is answered at once, and so is waited for in place.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}
