//! `kubectl exec`: a command in a pod's namespaces, on this terminal, with the command's own exit code.

use std::io::IsTerminal;

use super::Kind;
use super::client::Lab;
use super::parse::ExecArgs;
use crate::cli::{Surroundings, spawn_in};
use crate::control::Request;
use crate::exit::{self, Failure};
use crate::services::dns;
use crate::topology::Ranges;

pub(super) fn exec(lab: &Lab, args: &ExecArgs, with_dashes: bool) -> Result<u8, Failure> {
    let pod = args.pod.strip_prefix("pod/").unwrap_or(&args.pod);
    let found = lab.get(Kind::Pod, &[pod.to_owned()], None)?;
    let all = found.iter().flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten());
    let names: Vec<&str> = all.filter_map(|container| container["name"].as_str()).collect();
    if let Some(container) = args.container.as_deref().filter(|name| !names.contains(name)) {
        let there = names.join(", ");
        return Err(Failure::new(
            exit::FAILED,
            format!("container {container} not found in pod {pod}_default · there are: {there}"),
        ));
    }
    if !with_dashes {
        eprintln!(
            "kubectl exec [POD] [COMMAND] is DEPRECATED and will be removed in a future version. \
             Use kubectl exec [POD] -- [COMMAND] instead."
        );
    }
    if args.tty && !std::io::stdin().is_terminal() {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let mut client = lab.connect()?;
    let summary = client.ask(&Request::Summary, &mut |_, _| {})?;
    let services = summary["serviceCIDR"].as_str().and_then(|text| text.parse().ok());
    let ranges = Ranges { services: services.unwrap_or(Ranges::default().services), ..Ranges::default() };
    let resolver = dns::resolver(ranges.dns());
    let namespaces = client.enter(Some(pod))?;
    let around = Surroundings { is_deaf: !args.stdin, resolver: Some(&resolver) };
    let code = spawn_in(&namespaces, &args.command, around)?;
    if code != exit::OK {
        eprintln!("command terminated with exit code {code}");
    }
    Ok(code)
}
