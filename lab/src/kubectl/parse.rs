//! kubectl's command line, as much of it as a lab answers to. Options may stand anywhere, as kubectl's may.

use std::ffi::OsString;
use std::net::Ipv4Addr;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::Kind;
use crate::exit::Failure;
use crate::services::model::{ServiceType, Transport};

/// kubectl's command lines on a lab.
#[derive(Debug, Parser)]
#[command(name = "podlab kubectl", bin_name = "podlab kubectl", max_term_width = 110)]
#[command(disable_help_subcommand = true, disable_version_flag = true)]
pub(super) struct Line {
    #[command(subcommand)]
    pub(super) verb: Verb,
    /// The lab.
    #[arg(long, global = true, default_value = "demo", env = "PODLAB_NAME", value_name = "LAB")]
    pub(super) context: String,
    /// The Kubernetes namespace; a lab has `default` only.
    #[arg(short, long, global = true, default_value = "default")]
    pub(super) namespace: String,
}

/// The command line as a verb of podlab, for completions and manual pages.
pub(crate) fn command() -> clap::Command {
    Line::command().name("kubectl").bin_name("podlab kubectl")
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a pod, or with the old --generator=run/v1 a ReplicationController with one.
    Run(RunArgs),
    /// List objects: pods, rc, svc, endpoints, nodes, namespaces, or several with commas.
    Get(GetArgs),
    /// Run a command in a pod.
    Exec(ExecArgs),
    /// Set how many pods a controller keeps.
    Scale(ScaleArgs),
    /// Make a service for the pods of a controller, or for a pod.
    Expose(ExposeArgs),
    /// Make a service of a type: create service TYPE NAME.
    Create(CreateArgs),
    /// Carry a port of localhost into a pod, until Ctrl-C.
    PortForward(PortForwardArgs),
    /// Change an object's spec in an editor.
    Edit(EditArgs),
    /// Change fields of an object's spec.
    Patch(PatchArgs),
    /// Delete objects.
    Delete(DeleteArgs),
    /// Tell all about objects.
    Describe(DescribeArgs),
    /// Set labels of a pod: KEY=VALUE, or KEY- to take one away.
    Label(LabelArgs),
    /// Show what a pod's app has logged.
    Logs(LogsArgs),
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    pub(super) name: String,
    /// Named in descriptions; every pod runs kubia.
    #[arg(long)]
    pub(super) image: String,
    /// The port that is declared; kubia listens on 8080.
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// KEY=VALUE,… [default: run=NAME]
    #[arg(short, long)]
    pub(super) labels: Option<String>,
    /// run-pod/v1, or run/v1 for a ReplicationController.
    #[arg(long, value_name = "NAME")]
    pub(super) generator: Option<String>,
    /// How many, with run/v1.
    #[arg(short, long)]
    pub(super) replicas: Option<u32>,
    /// Accepted: a lab's pods always run until they are deleted.
    #[arg(long, hide = true)]
    pub(super) restart: Option<String>,
}

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// More columns.
    Wide,
    /// KIND/NAME.
    Name,
    /// Kubernetes' JSON.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// KIND[,KIND…] [NAME…], or KIND/NAME…
    #[arg(required = true, value_name = "WHAT")]
    pub(super) what: Vec<String>,
    /// wide, name or json.
    #[arg(short, long)]
    pub(super) output: Option<Output>,
    /// A label selector: a=b, a!=b, a in (b,c), a notin (b), a, !a.
    #[arg(short = 'l', long)]
    pub(super) selector: Option<String>,
    /// One more column.
    #[arg(long)]
    pub(super) show_labels: bool,
    /// No heads of columns.
    #[arg(long)]
    pub(super) no_headers: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    pub(super) stdin: bool,
    /// Use this terminal, if it is one.
    #[arg(short, long)]
    pub(super) tty: bool,
    /// kubia or sidecar; both are in the pod's namespaces.
    #[arg(short, long)]
    pub(super) container: Option<String>,
    /// The pod.
    pub(super) pod: String,
    /// [--] COMMAND…
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct ScaleArgs {
    /// How many.
    #[arg(long)]
    pub(super) replicas: u32,
    /// Only if there are to be so many now.
    #[arg(long)]
    pub(super) current_replicas: Option<u32>,
    /// rc/NAME, or rc NAME.
    #[arg(required = true, value_name = "WHAT")]
    pub(super) what: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExposeArgs {
    /// rc NAME, pod NAME, rc/NAME or pod/NAME.
    #[arg(required = true, value_name = "WHAT")]
    pub(super) what: Vec<String>,
    /// The service's name [default: the object's].
    #[arg(long)]
    pub(super) name: Option<String>,
    /// How it is reached.
    #[arg(long = "type", value_enum, default_value_t)]
    pub(super) kind: ServiceType,
    /// The port that clients ask for [default: the declared one].
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// The port of the pods [default: the same].
    #[arg(long)]
    pub(super) target_port: Option<u16>,
    /// TCP or UDP.
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    pub(super) protocol: Transport,
    /// Which pods: KEY=VALUE,… [default: those of the object].
    #[arg(long)]
    pub(super) selector: Option<String>,
    /// None, or ClientIP: one client stays with one pod.
    #[arg(long, value_name = "AFFINITY")]
    pub(super) session_affinity: Option<String>,
    /// Its address inside the cluster.
    #[arg(long)]
    pub(super) cluster_ip: Option<Ipv4Addr>,
    /// Its address outside, of 198.51.100.0/24.
    #[arg(long)]
    pub(super) load_balancer_ip: Option<Ipv4Addr>,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// service, or svc.
    #[arg(value_parser = ["service", "svc"])]
    pub(super) what: String,
    /// clusterip, nodeport, loadbalancer or externalname.
    #[arg(value_enum, ignore_case = true)]
    pub(super) kind: ServiceType,
    /// Its name; its pods are those with app=NAME.
    pub(super) name: String,
    /// PORT, or PORT:TARGETPORT.
    #[arg(long)]
    pub(super) tcp: Option<String>,
    /// The port of the nodes.
    #[arg(long)]
    pub(super) node_port: Option<u16>,
    /// What an externalname is a name for.
    #[arg(long)]
    pub(super) external_name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PortForwardArgs {
    /// POD, pod/POD, or svc/NAME or rc/NAME for a pod of it.
    #[arg(value_name = "WHAT")]
    pub(super) what: String,
    /// LOCAL:REMOTE, PORT for both, or :REMOTE for any local one.
    #[arg(required = true, value_name = "PORTS")]
    pub(super) ports: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// svc NAME or rc NAME, or KIND/NAME.
    #[arg(required = true, value_name = "WHAT")]
    pub(super) what: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct PatchArgs {
    /// svc NAME or rc NAME, or KIND/NAME.
    #[arg(required = true, value_name = "WHAT")]
    pub(super) what: Vec<String>,
    /// {"spec":{…}} in JSON.
    #[arg(short, long)]
    pub(super) patch: String,
    /// Accepted: merge, which it is.
    #[arg(long = "type", hide = true)]
    pub(super) kind: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// KIND NAME…, or KIND/NAME…
    #[arg(required = true, value_name = "WHAT")]
    pub(super) what: Vec<String>,
    /// A label selector.
    #[arg(short = 'l', long)]
    pub(super) selector: Option<String>,
    /// All of the kind.
    #[arg(long, conflicts_with = "selector")]
    pub(super) all: bool,
    /// Accepted: pods of a lab end at once.
    #[arg(long, hide = true)]
    pub(super) grace_period: Option<i64>,
    /// Accepted.
    #[arg(long, hide = true)]
    pub(super) force: bool,
    /// Accepted.
    #[arg(long, hide = true)]
    pub(super) now: bool,
}

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// KIND [NAME…], or KIND/NAME…
    #[arg(required = true, value_name = "WHAT")]
    pub(super) what: Vec<String>,
    /// A label selector.
    #[arg(short = 'l', long)]
    pub(super) selector: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LabelArgs {
    /// A label that is there may change.
    #[arg(long)]
    pub(super) overwrite: bool,
    /// pod NAME, or pod/NAME, then KEY=VALUE or KEY- …
    #[arg(required = true, value_name = "WHAT")]
    pub(super) what: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The pod.
    pub(super) pod: String,
}

/// Kinds and names as words: `pods`, `rc kubia`, `pod/a pod/b`, `pods,rc`. No name means all.
pub(super) fn meant(words: &[String]) -> Result<Vec<(Kind, Vec<String>)>, Failure> {
    if words.iter().any(|word| word.contains('/')) {
        let mut all: Vec<(Kind, Vec<String>)> = Vec::new();
        for word in words {
            let (kind, name) = word.split_once('/').ok_or_else(|| {
                Failure::usage(format!("{word:?}: there is no need to name a kind beside KIND/NAME"))
            })?;
            let kind = kind.parse()?;
            match all.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, names)) => names.push(name.to_owned()),
                None => all.push((kind, vec![name.to_owned()])),
            }
        }
        return Ok(all);
    }
    let (kinds, names) = words.split_first().ok_or_else(|| Failure::usage("no kind of object"))?;
    let kinds: &str = if kinds == "all" { ALL } else { kinds };
    kinds.split(',').map(|kind| Ok((kind.parse()?, names.to_vec()))).collect()
}

/// What `all` means.
const ALL: &str = "pods,rc,svc";

/// One object of one kind.
pub(super) fn one(words: &[String]) -> Result<(Kind, String), Failure> {
    match meant(words)?.as_slice() {
        [(kind, names)] if names.len() == 1 => Ok((*kind, names[0].clone())),
        _ => Err(Failure::usage(format!("{} is not one KIND/NAME", words.join(" ")))),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn line(text: &str) -> Verb {
        Line::try_parse_from(text.split_whitespace()).unwrap_or_else(|err| panic!("{text}: {err}")).verb
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn lines_of_the_document_are_read() {
        let Verb::Run(run) = line("kubectl run kubia --image=luksa/kubia --port=8080 --generator=run/v1")
        else {
            panic!("run")
        };
        assert_eq!(
            (run.name.as_str(), run.port, run.generator.as_deref()),
            ("kubia", Some(8080), Some("run/v1"))
        );
        let Verb::Exec(exec) = line("kubectl exec -it kubia-dbfj2 /bin/bash") else { panic!("exec") };
        assert!(exec.stdin && exec.tty && exec.pod == "kubia-dbfj2" && exec.command == ["/bin/bash"]);
        let Verb::Exec(exec) = line("kubectl exec kubia-dbfj2 -- ls -l -- x") else { panic!("exec") };
        assert_eq!(exec.command, ["ls", "-l", "--", "x"]);
        let Verb::Scale(scale) = line("kubectl scale --replicas=3 rc/kubia") else { panic!("scale") };
        assert_eq!(
            (scale.replicas, one(&scale.what).unwrap()),
            (3, (Kind::ReplicationController, "kubia".into()))
        );
        let Verb::Get(get) = line("kubectl get pods -o wide") else { panic!("get") };
        assert_eq!((get.what, get.output), (words("pods"), Some(Output::Wide)));
    }

    #[test]
    fn kinds_and_names_are_written_in_two_ways() {
        let names = |text: &str| meant(&words(text)).unwrap();
        assert_eq!(names("pods"), [(Kind::Pod, vec![])]);
        assert_eq!(names("rc kubia"), [(Kind::ReplicationController, vec!["kubia".to_owned()])]);
        assert_eq!(names("pod/a pod/b rc/c").len(), 2);
        assert_eq!(names("po,rc"), [(Kind::Pod, vec![]), (Kind::ReplicationController, vec![])]);
        assert!(meant(&words("pod/a b")).is_err() && meant(&words("gizmos")).is_err());
        assert!(one(&words("rc")).is_err() && one(&words("rc a b")).is_err());
    }
}
