//! The command line: what can be said, and which file does it. One file a verb below `cli/`.

mod bench;
mod capture;
mod doctor;
mod enter;
mod exam;
mod faults;
mod graph;
mod inspect;
mod labs;
mod lesson;
mod manual;
mod page;
mod prove;
mod run;
mod schema;
mod step;
mod up;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use ipnetwork::{IpNetwork, Ipv4Network};

use crate::exit::{self, Failure};
use crate::modes::{self, Selected};
use crate::output::{Color, Format, Output, Tests};
use crate::stack::{Each, IpFamily, OneFamily};
use crate::{agent, capsule, kubectl, lessons, runner, supervisor};

pub(crate) use enter::{Surroundings, enter_user_namespace, spawn_in};

/// Pod networks out of network namespaces on this machine, proved on captured packets.
#[derive(Debug, Parser)]
#[command(name = "podlab", version, max_term_width = 110, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 all good, 1 a check failed, 2 wrong use or topology, 4 no check ran, \
    5 the kernel or a permission lacks something, 6 time-out, 70 a defect of podlab; exec and run: the command's own.")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t, env = "PODLAB_OUTPUT")]
    output: Output,
    /// No progress.
    #[arg(short, long, global = true, env = "PODLAB_QUIET")]
    quiet: bool,
    /// When colours are used.
    #[arg(long, global = true, value_enum, default_value_t, env = "PODLAB_COLOR")]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build a lab and keep it up.
    Up(UpArgs),
    /// End a lab: everything of it is gone.
    Down(DownArgs),
    /// List the labs that are up.
    Ls,
    /// Check the four needs of pod networking on captured packets.
    Verify(VerifyArgs),
    /// Verify, and keep all evidence in one file: packets, verdicts, state, CNI calls, checksums.
    Report(ReportArgs),
    /// Follow one packet hop by hop.
    #[command(after_help = format!("Orders of --step: {}", step::WORDS))]
    Trace(TraceArgs),
    /// Show packets as they go by, or write them to a file that Wireshark opens.
    Capture(CaptureArgs),
    /// Measure how fast pods reach each other, on one node and across nodes, beside the loopback of one of them.
    #[command(
        after_help = "Loads: tcp-stream (bytes of one connection), tcp-rr (requests of 64 bytes, one after the other), \
        tcp-crr (connections with one request each), udp (datagrams of 1200 bytes). Each is measured in five slices, each beside \
        a slice over loopback; the ratio in the middle is told. Segmentation offload is off on a lab's links."
    )]
    Bench(BenchArgs),
    /// Find what keeps two places from reaching each other: probes, captures, and what the kernels have on the way.
    Why(WhyArgs),
    /// List what can be broken in a lab.
    Faults(FaultsArgs),
    /// Break something in a lab, so that somebody finds it.
    #[command(
        after_help = "podlab faults lists the faults, what they are aimed at and what is seen of them. \
        The targets may be left out: the first of their kind. heal undoes a fault exactly."
    )]
    Break(BreakArgs),
    /// Undo a fault, or all.
    Heal(HealArgs),
    /// Run a command in a pod, node, fabric or outside.
    Exec(ExecArgs),
    /// Run a network-namespace script: `ip netns` sees the lab's nodes and pods, or an empty capsule.
    Run(RunArgs),
    /// Show what the kernel has in a pod, node, fabric or outside.
    Inspect(InspectArgs),
    /// Draw a lab: nodes, bridges, pods and wires.
    Graph(GraphArgs),
    /// Follow one packet, and keep the walk as one file: a page that opens without podlab or a network, or a document.
    Export(ExportArgs),
    /// The packet-walk page, on 127.0.0.1: of a lab that is up, or of walks that were recorded; then without root.
    Serve(ServeArgs),
    /// The kubectl lines of a lesson, on a lab: run, get, exec, scale, expose, delete, describe and others.
    #[command(disable_help_flag = true)]
    Kubectl(KubectlArgs),
    /// Lessons, from "You've hit HOST" to an exam: each with a lab of its own, a fault and a check.
    Lesson(lesson::LessonArgs),
    /// What this machine has and lacks for a lab.
    Doctor,
    /// Print the JSON Schema of a document that podlab reads or prints.
    Schema(SchemaArgs),
    /// Print what a shell needs to complete podlab's command lines.
    Completions(CompletionsArgs),
    /// Write the manual pages, one for each verb, into a directory.
    Man(ManArgs),
}

#[derive(Debug, Args)]
struct KubectlArgs {
    /// kubectl's own command line; `podlab kubectl --help` tells what of it there is.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

#[derive(Debug, Args)]
struct NameArg {
    /// The lab.
    #[arg(short, long, visible_alias = "lab", default_value = "demo", env = "PODLAB_NAME")]
    name: String,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// A topology file in YAML or JSON (`podlab schema topology`); `-` reads standard input. Options here win over it.
    #[arg(
        short,
        long,
        visible_alias = "topology",
        short_alias = 't',
        value_name = "FILE",
        env = "PODLAB_UP_FILE"
    )]
    file: Option<PathBuf>,
    /// The lab's name [default: demo].
    #[arg(short, long, env = "PODLAB_NAME")]
    name: Option<String>,
    /// How many nodes [default: 3].
    #[arg(long, env = "PODLAB_UP_NODES")]
    nodes: Option<u32>,
    /// How many pods on each node [default: 10].
    #[arg(long, env = "PODLAB_UP_PODS")]
    pods: Option<u32>,
    /// How many racks the nodes stand in, each a link with a router of its own [default: 1].
    #[arg(long, env = "PODLAB_UP_RACKS")]
    racks: Option<u32>,
    // The modes are listed by themselves.
    #[arg(long, env = "PODLAB_UP_MODE", value_name = "MODE[:OPTION]", help = modes::help())]
    mode: Option<Selected>,
    /// Which IP versions nodes, pods and the world outside have [default: ipv4, or those of --pod-cidr].
    #[arg(long, value_name = "FAMILY", env = "PODLAB_UP_IP_FAMILY")]
    ip_family: Option<IpFamily>,
    /// The addresses of all pods, a network with room for a PodCIDR of each node; with a comma between, one of each IP
    /// version [default: 10.244.0.0/16, fd00:10:244::/56].
    #[arg(long, value_name = "CIDR[,CIDR]", env = "PODLAB_UP_POD_CIDR")]
    pod_cidr: Option<Each<IpNetwork>>,
    /// The addresses of services [default: 10.96.0.0/16].
    #[arg(long, value_name = "CIDR", env = "PODLAB_UP_SERVICE_CIDR")]
    service_cidr: Option<Ipv4Network>,
    /// A directory of CNI plugins; may be given again [default: the podnet beside podlab].
    #[arg(long, value_name = "DIR", env = "PODLAB_UP_CNI_BIN", value_delimiter = ':')]
    cni_bin: Option<Vec<PathBuf>>,
    /// The network configuration of each node; in it ${NODE}, ${POD_CIDR}, ${FIRST_POD}, ${LAST_POD}, ${CLUSTER_CIDR} and
    /// ${CLUSTER_GATEWAY} are replaced.
    #[arg(long, value_name = "FILE", env = "PODLAB_UP_CNI_CONF")]
    cni_conf: Option<PathBuf>,
    /// Masquerade at each node's bridge, as many tutorials do; `verify` fails such a cluster.
    #[arg(long, env = "PODLAB_UP_IP_MASQ")]
    ip_masq: bool,
    /// What the names of pods made by `podlab kubectl` follow from [default: those of the seed document].
    #[arg(long, env = "PODLAB_UP_SEED")]
    seed: Option<u64>,
    /// Return when the lab is up, and leave it up.
    #[arg(short, long, env = "PODLAB_UP_DETACH")]
    detach: bool,
    /// Print the topology and the network configuration and make nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct DownArgs {
    #[command(flatten)]
    lab: NameArg,
    /// All labs of this user, whatever --name or PODLAB_NAME say.
    #[arg(long)]
    all: bool,
    /// Delete every pod by CNI DEL first; report how many, what failed and what is left.
    #[arg(long, env = "PODLAB_DOWN_GRACEFUL")]
    graceful: bool,
}

/// What of a lab is verified.
#[derive(Debug, Args)]
struct Selection {
    /// The checks to run; of CHECK:SERVICE only what the pods behind a service answer to [default: those of the topology, or all].
    checks: Vec<String>,
    /// Only pods of this node as clients; may be given again.
    #[arg(long, env = "PODLAB_VERIFY_NODE")]
    node: Vec<String>,
    /// Only so many ordered pairs of pods, half of them on one node and half across nodes, every pod in one if there are
    /// enough; ingress and egress of the same pods.
    #[arg(long, value_name = "PAIRS", env = "PODLAB_VERIFY_SAMPLE")]
    sample: Option<NonZeroUsize>,
    /// Which sample: another number, other pairs.
    #[arg(long, default_value_t = 1, requires = "sample", env = "PODLAB_VERIFY_SEED")]
    seed: u64,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    #[command(flatten)]
    lab: NameArg,
    #[command(flatten)]
    selection: Selection,
    /// Write the packets that the verdicts rest on to a file, as pcapng.
    #[arg(short, long, value_name = "FILE", env = "PODLAB_VERIFY_WRITE")]
    write: Option<PathBuf>,
    /// Judge the bundle of `podlab report` again, from its packets alone: no lab, no root, any machine. Says where the
    /// bundle's own verdicts differ.
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["checks", "node", "sample", "write", "list"])]
    from: Option<PathBuf>,
    /// Also write the verdicts as JUnit's XML into this file.
    #[arg(long, value_name = "FILE", env = "PODLAB_VERIFY_JUNIT")]
    junit: Option<PathBuf>,
    /// List the checks and run none.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Args)]
struct ReportArgs {
    #[command(flatten)]
    lab: NameArg,
    /// Where the evidence goes: report.tgz.
    file: PathBuf,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Args)]
struct TraceArgs {
    #[command(flatten)]
    lab: NameArg,
    /// Where the packet starts: a pod, or `outside`.
    source: String,
    /// Where it goes: a pod, `outside` or an address, with `:PORT` if it is not 8080.
    target: String,
    /// tcp, udp or icmp.
    #[arg(long, default_value = "tcp", env = "PODLAB_TRACE_PROTO")]
    proto: String,
    /// The IP version, where names do not tell it [default: the lab's first].
    #[arg(long, value_name = "FAMILY", env = "PODLAB_TRACE_IP_FAMILY")]
    ip_family: Option<OneFamily>,
    /// Tell what nf_tables did with the packets between the interfaces: hook, chain, rule, verdict.
    #[arg(long, env = "PODLAB_TRACE_HOOKS")]
    hooks: bool,
    /// Hold every frame on the wire of the source's node (from outside: of the target's) until an order lets it go by, or
    /// changes or loses it. Orders are lines of standard input; on a terminal Enter is enough. Once input ends, all go by.
    #[arg(long, conflicts_with = "hooks", env = "PODLAB_TRACE_STEP")]
    step: bool,
    /// Write all packets meanwhile to a file, as pcapng, each with the reason why it was there.
    #[arg(short, long, value_name = "FILE", env = "PODLAB_TRACE_WRITE")]
    write: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CaptureArgs {
    #[command(flatten)]
    lab: NameArg,
    /// Where: a pod, a node, fabric or outside, and perhaps an interface: node1, node1/eth0 [default: everywhere].
    #[arg(value_name = "PLACE[/INTERFACE]")]
    places: Vec<String>,
    #[arg(short, long, value_name = "WORDS", env = "PODLAB_CAPTURE_FILTER",
        help = format!("Which packets: {}", crate::capture::filter::WORDS))]
    filter: Option<String>,
    /// Write pcapng to a file instead of text; `-` is standard output: podlab capture -w - | wireshark -k -i -
    #[arg(short, long, value_name = "FILE", env = "PODLAB_CAPTURE_WRITE")]
    write: Option<PathBuf>,
    /// End after so many packets; a packet counts at each interface where it is seen.
    #[arg(short, long, value_name = "N", env = "PODLAB_CAPTURE_COUNT",
        value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after a time: 10s, 500ms, 2m.
    #[arg(long = "for", value_name = "DURATION", env = "PODLAB_CAPTURE_FOR", value_parser = capture::duration)]
    time: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    #[command(flatten)]
    lab: NameArg,
    /// Measure these modes instead, or `all`, each in a lab of 2 nodes and 4 pods that is made for it.
    #[arg(
        long,
        value_name = "MODE[:OPTION]",
        value_delimiter = ',',
        conflicts_with = "name",
        env = "PODLAB_BENCH_MODES"
    )]
    modes: Vec<String>,
    /// How long each measurement takes between two pods, and as long again over loopback.
    #[arg(long, default_value = "1", value_parser = bench::seconds, env = "PODLAB_BENCH_SECONDS")]
    seconds: f64,
    /// Also draw the ratios into this file, as SVG.
    #[arg(long, value_name = "FILE", env = "PODLAB_BENCH_PLOT")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct WhyArgs {
    #[command(flatten)]
    lab: NameArg,
    /// Where it starts: a pod, or `outside`.
    source: String,
    /// Where it should go: a pod (the same one for its localhost), a service (`svc/NAME`), `outside` or an address.
    target: String,
    /// The port; a service has its own.
    #[arg(long, default_value_t = crate::kubia::PORT, env = "PODLAB_WHY_PORT")]
    port: u16,
    /// The IP version, where names do not tell it [default: the lab's first].
    #[arg(long, value_name = "FAMILY", env = "PODLAB_WHY_IP_FAMILY")]
    ip_family: Option<OneFamily>,
}

#[derive(Debug, Args)]
struct FaultsArgs {
    #[command(flatten)]
    lab: NameArg,
    /// Those that are active in the lab instead.
    #[arg(long)]
    active: bool,
}

#[derive(Debug, Args)]
struct BreakArgs {
    #[command(flatten)]
    lab: NameArg,
    /// The fault, as `podlab faults` lists it; `FAULT:NUMBER` where it takes a number.
    fault: String,
    /// A node, two nodes, a pod, two pods or a service, as the fault needs [default: the first of their kind].
    targets: Vec<String>,
    /// The IP version that is broken, of a fault that breaks one [default: the lab's first].
    #[arg(long, value_name = "FAMILY", env = "PODLAB_BREAK_IP_FAMILY")]
    ip_family: Option<OneFamily>,
}

#[derive(Debug, Args)]
struct HealArgs {
    #[command(flatten)]
    lab: NameArg,
    /// The fault, or its number in the lab.
    #[arg(required_unless_present = "all")]
    fault: Option<String>,
    /// All faults of the lab, the latest first.
    #[arg(long, conflicts_with = "fault")]
    all: bool,
}

#[derive(Debug, Args)]
struct ExecArgs {
    #[command(flatten)]
    lab: NameArg,
    /// A pod, a node, fabric or outside.
    target: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The lab; without this name an empty capsule of the script's own.
    #[arg(short, long, env = "PODLAB_RUN_NAME")]
    name: Option<String>,
    /// Also write the outcomes of its tests as JUnit's XML into this file.
    #[arg(long, value_name = "FILE", env = "PODLAB_RUN_JUNIT")]
    junit: Option<PathBuf>,
    /// Where evidence is kept when it fails: a directory of its own in this one [default: that of temporary files].
    #[arg(long, value_name = "DIR", env = "PODLAB_RUN_EVIDENCE")]
    evidence: Option<PathBuf>,
    /// The script. When it tells of its tests in TAP, one that fails makes the exit code 1.
    script: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

#[derive(Debug, Args)]
struct InspectArgs {
    #[command(flatten)]
    lab: NameArg,
    /// A pod, a node, fabric or outside [default: the lab].
    target: Option<String>,
    /// One part only: interfaces, routes, rules, neigh, fdb, qdiscs, chains, sysctls or events.
    part: Option<String>,
}

#[derive(Debug, Args)]
struct GraphArgs {
    #[command(flatten)]
    lab: NameArg,
    /// How the picture is written.
    #[arg(short, long, value_enum, default_value_t, env = "PODLAB_GRAPH_FORM")]
    form: graph::Form,
    /// Pods that are drawn also where they are more than 60, when the others become one tile a node; with commas between.
    #[arg(long, value_name = "POD", value_delimiter = ',', env = "PODLAB_GRAPH_SHOW")]
    show: Vec<String>,
    /// Draw a lab from what `podlab inspect -o json` printed of it; `-` reads standard input. No lab, no root, any machine.
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    from: Option<PathBuf>,
    /// Draw instead who reaches whom, from what `podlab verify -o json` printed; `-` reads standard input. As SVG only.
    #[arg(long, value_name = "REPORT", conflicts_with_all = ["name", "from", "show", "form"])]
    heatmap: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("files").required(true).multiple(true))]
struct ExportArgs {
    #[command(flatten)]
    lab: NameArg,
    /// Where the packet starts: a pod, or `outside`.
    source: String,
    /// Where it goes: a pod, `outside` or an address, with `:PORT` if it is not 8080.
    target: String,
    /// Write one page with the walk, the picture and the packets; any browser opens it, offline.
    #[arg(long, value_name = "FILE", group = "files", env = "PODLAB_EXPORT_HTML")]
    html: Option<PathBuf>,
    /// Write the document of the walk (`podlab schema walk`), for podlab serve --from.
    #[arg(long, value_name = "FILE", group = "files", env = "PODLAB_EXPORT_WALK")]
    walk: Option<PathBuf>,
    /// tcp, udp or icmp.
    #[arg(long, default_value = "tcp", env = "PODLAB_EXPORT_PROTO")]
    proto: String,
    /// The IP version, where names do not tell it [default: the lab's first].
    #[arg(long, value_name = "FAMILY", env = "PODLAB_EXPORT_IP_FAMILY")]
    ip_family: Option<OneFamily>,
    /// Tell what nf_tables did with the packets between the interfaces: hook, chain, rule, verdict.
    #[arg(long, env = "PODLAB_EXPORT_HOOKS")]
    hooks: bool,
    /// What the walk is called [default: where it goes from and to].
    #[arg(long, env = "PODLAB_EXPORT_TITLE")]
    title: Option<String>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    lab: NameArg,
    /// The port on 127.0.0.1; 0 is one that is free.
    #[arg(long, default_value_t = 0, env = "PODLAB_SERVE_PORT")]
    port: u16,
    /// A walk that podlab export --walk wrote, to be opened in the page; may be given again.
    #[arg(long, value_name = "WALK", env = "PODLAB_SERVE_FROM", value_delimiter = ':')]
    from: Vec<PathBuf>,
    /// A directory of lessons of one's own, beside those of podlab.
    #[arg(long, value_name = "DIR", env = "PODLAB_LESSONS")]
    lessons: Option<PathBuf>,
    /// The file that the progress of lessons is kept in, as with podlab lesson --state.
    #[arg(long, value_name = "FILE", env = "PODLAB_LESSON_STATE")]
    lesson_state: Option<PathBuf>,
    /// The name of the labs that lessons start, as with podlab lesson --lab [default: lesson-NUMBER].
    #[arg(long, value_name = "NAME", env = "PODLAB_LESSON_LAB")]
    lesson_lab: Option<String>,
}

#[derive(Debug, Args)]
struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Args)]
struct ManArgs {
    /// The directory, which is there: /usr/local/share/man/man1.
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct SchemaArgs {
    /// The document [default: list them, with -o json all of them].
    name: Option<String>,
}

/// The verb, and the name of the program, that is `podlab kubectl`.
const KUBECTL: &str = "kubectl";

/// How a verb prints.
#[derive(Debug, Clone, Copy)]
struct Style {
    format: Format,
    /// Outcomes of tests are asked for.
    tests: Option<Tests>,
    quiet: bool,
    color: bool,
}

/// Runs podlab with the arguments after its name; returns the exit code.
///
/// The processes of a lab are this executable too. They are told apart here before the command line is
/// read.
pub fn main(args: Vec<OsString>) -> u8 {
    // Under the name kubectl it is `podlab kubectl`, so that lines of a lesson run as they are written.
    let called = args.first().and_then(|name| std::path::Path::new(name).file_name());
    if called == Some(std::ffi::OsStr::new(KUBECTL)) {
        return kubectl::main(&args[1..]);
    }
    let words: Vec<&str> = args.iter().skip(1).take(2).filter_map(|arg| arg.to_str()).collect();
    match words.as_slice() {
        [agent::AGENT] => return agent::run(),
        [modes::PROCESS, name] => return modes::run(name),
        [runner::RUNNER, ..] => return runner::run(&args[2..]),
        [capsule::INIT, ..] => return capsule::init(&args[2..]),
        // kubectl's options are its own, those of the same names of ours included.
        [KUBECTL, ..] => return kubectl::main(&args[2..]),
        [capsule::SUPERVISOR] => return supervisor::run(),
        [lessons::UP] => return lessons::bring_up(),
        _ => {}
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(err) => {
            // Help and version are errors to clap; what cannot be printed has no reader.
            let _ = err.print();
            return if err.use_stderr() { exit::USAGE } else { exit::OK };
        }
    };
    let (format, tests) = cli.output.split();
    if tests.is_some() && !matches!(cli.verb, Verb::Verify(_) | Verb::Run(_)) {
        eprintln!("error: there are outcomes of tests from verify and run only · try: -o json");
        return exit::USAGE;
    }
    let style = Style { format, tests, quiet: cli.quiet, color: cli.color.wanted() };
    match dispatch(cli.verb, style) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code
        }
    }
}

fn dispatch(verb: Verb, style: Style) -> Result<u8, Failure> {
    match verb {
        Verb::Up(args) => up::up(args, style),
        Verb::Down(args) => labs::down(&args, style),
        Verb::Ls => labs::ls(style),
        Verb::Verify(args) => prove::verify(args, style),
        Verb::Report(args) => prove::report(args, style),
        Verb::Trace(args) => prove::trace(&args, style),
        Verb::Bench(args) => bench::bench(&args, style),
        Verb::Why(args) => prove::why(args, style),
        Verb::Faults(args) => faults::faults(&args, style),
        Verb::Break(args) => faults::inject(args, style),
        Verb::Heal(args) => faults::heal(args, style),
        Verb::Capture(args) => capture::capture(&args, style),
        Verb::Exec(args) => enter::exec(&args),
        Verb::Run(args) => run::run(&args, style),
        Verb::Inspect(args) => inspect::inspect(&args, style),
        Verb::Graph(args) => graph::graph(&args, style),
        Verb::Export(args) => page::export(&args, style),
        Verb::Serve(args) => page::serve(args),
        Verb::Kubectl(args) => Ok(kubectl::main(&args.args)),
        Verb::Lesson(args) => lesson::lesson(args, style),
        Verb::Doctor => doctor::doctor(style),
        Verb::Completions(args) => manual::completions(&args),
        Verb::Man(args) => manual::man(&args, style),
        Verb::Schema(args) => schema::schema(&args, style),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exec_takes_everything_after_the_dashes() {
        let cli = Cli::try_parse_from(["podlab", "exec", "kubia-1", "--", "ls", "-l"]).unwrap();
        let Verb::Exec(args) = cli.verb else { panic!("exec") };
        assert_eq!((args.target.as_str(), args.command.len()), ("kubia-1", 2));
        assert!(Cli::try_parse_from(["podlab", "exec", "kubia-1"]).is_err());
    }

    #[test]
    fn run_hands_options_to_the_script() {
        let cli = Cli::try_parse_from(["podlab", "run", "t.sh", "-v", "--name", "x"]).unwrap();
        let Verb::Run(args) = cli.verb else { panic!("run") };
        assert_eq!((args.args.len(), args.name), (3, None));
    }
}
