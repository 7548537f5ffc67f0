//! ADD and DEL of one attachment by any peer: the calls, one after the other, and the sum of their times.

use std::fs;

use anyhow::{Context, Result, bail};
use kernel::IpNetwork;
use kernel::netns::Netns;
use serde_json::{Value, json};

use crate::node::{self, Node};
use crate::peer::Kind;
use crate::shape::{BRIDGE, GATEWAY, Link, NETWORK, PARENT, Shape};
use crate::spawn::{Call, run};

/// An attachment, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) id: String,
    pub(crate) ifname: String,
    /// The result of the last plugin.
    pub(crate) result: Option<Value>,
    /// The addresses that the pod is to have.
    pub(crate) nets: Vec<IpNetwork>,
    /// The link on the node: its name where the floor chose it, its index as the verification found it.
    pub(crate) near_name: String,
    pub(crate) near: Option<u32>,
    /// netavark's own configuration, which its `teardown` takes.
    stdin: Vec<u8>,
}

/// How an operation went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Sum of the times of its processes, in microseconds.
    pub(crate) micros: f64,
    /// The largest peak of memory of its processes in KiB, 0 when it was not noted.
    pub(crate) peak: f64,
}

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

impl Node {
    /// A fresh attachment. The addresses of a CNI plugin are known only from its result.
    pub(crate) fn attachment(&mut self, shape: &Shape, ifname: &str) -> Attachment {
        let number = self.number();
        let nets = match self.peer.kind {
            Kind::Plugins => Vec::new(),
            _ if shape.link == Link::Loopback => Vec::new(),
            _ => node::addresses(number, shape),
        };
        Attachment {
            // As long as a container runtime's.
            id: format!("{number:08x}{:056x}", u128::from(number) * 0x9e37_79b9_7f4a_7c15),
            ifname: ifname.to_owned(),
            result: None,
            nets,
            near_name: format!("vf{number:08x}"),
            near: None,
            stdin: Vec::new(),
        }
    }

    /// ADD into a pod.
    pub(crate) fn add(&mut self, shape: &Shape, pod: &Netns, ifname: &str) -> Result<(Attachment, Cost)> {
        let mut attachment = self.attachment(shape, ifname);
        let mut cost = Cost::default();
        match self.peer.kind {
            Kind::Plugins => {
                for configuration in shape.configurations(&self.peer, &self.data()) {
                    let call = self.plugin("ADD", configuration, pod, &attachment);
                    let stdout = self.step(call, &mut cost)?;
                    attachment.took(&stdout)?;
                }
            }
            Kind::Netavark => {
                attachment.stdin = netavark(&attachment)?;
                self.step(self.netavark_call("setup", pod, &attachment), &mut cost)?;
            }
            Kind::Floor => {
                self.step(self.floor_add(shape, pod, &attachment), &mut cost)?;
            }
        }
        Ok((attachment, cost))
    }

    /// DEL of what an ADD made.
    pub(crate) fn del(&self, shape: &Shape, pod: &Netns, attachment: &Attachment) -> Result<Cost> {
        let mut cost = Cost::default();
        match self.peer.kind {
            Kind::Plugins => {
                for configuration in shape.configurations(&self.peer, &self.data()).into_iter().rev() {
                    self.step(self.plugin("DEL", configuration, pod, attachment), &mut cost)?;
                }
            }
            Kind::Netavark => {
                self.step(self.netavark_call("teardown", pod, attachment), &mut cost)?;
            }
            Kind::Floor => {
                self.step(self.floor_del(shape, pod, attachment), &mut cost)?;
            }
        }
        Ok(cost)
    }

    /// The one call that ADDs a shape of one plugin.
    pub(crate) fn single_add(&self, shape: &Shape, pod: &Netns, attachment: &Attachment) -> Result<Call> {
        match self.peer.kind {
            Kind::Plugins => {
                let mut configurations = shape.configurations(&self.peer, &self.data());
                let (Some(only), true) = (configurations.pop(), configurations.is_empty()) else {
                    bail!("a chain is no single call");
                };
                Ok(self.plugin("ADD", only, pod, attachment))
            }
            Kind::Floor => Ok(self.floor_add(shape, pod, attachment)),
            Kind::Netavark => bail!("netavark does not take part"),
        }
    }

    /// Runs one process, and adds what it cost.
    fn step(&self, call: Call, cost: &mut Cost) -> Result<Vec<u8>> {
        let file = self.directory.join("peak");
        let call = match &self.memory {
            Some(floor) => call.with_memory(floor, &file),
            None => call,
        };
        let ended = run(&self.netns, &call)?;
        cost.micros += ended.micros;
        if self.memory.is_some() {
            let peak = fs::read_to_string(&file).context("read the peak of memory")?;
            cost.peak = cost.peak.max(peak.parse().context("the peak of memory")?);
        }
        if !ended.success {
            bail!("{}: {}", call.program.display(), ended.words());
        }
        Ok(ended.stdout)
    }

    /// A call of a CNI plugin.
    pub(crate) fn plugin(&self, verb: &str, mut configuration: Value, pod: &Netns, of: &Attachment) -> Call {
        if let Some(result) = &of.result {
            configuration["prevResult"] = result.clone();
        }
        let program = self.peer.path.join(configuration["type"].as_str().unwrap_or_default());
        Call {
            program,
            arguments: Vec::new(),
            environment: vec![
                ("CNI_COMMAND", verb.to_owned()),
                ("CNI_CONTAINERID", of.id.clone()),
                ("CNI_NETNS", node::path(pod)),
                ("CNI_IFNAME", of.ifname.clone()),
                ("CNI_PATH", self.peer.path.to_string_lossy().into_owned()),
                ("PATH", PATH.to_owned()),
            ],
            stdin: configuration.to_string().into_bytes(),
        }
    }

    fn netavark_call(&self, verb: &str, pod: &Netns, attachment: &Attachment) -> Call {
        let config = self.directory.to_string_lossy().into_owned();
        Call {
            program: self.peer.path.clone(),
            arguments: ["--config", &config, verb, &node::path(pod)].map(str::to_owned).to_vec(),
            environment: vec![("PATH", PATH.to_owned())],
            stdin: attachment.stdin.clone(),
        }
    }

    fn floor(&self, arguments: &[&str]) -> Call {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Call { program: self.peer.path.clone(), arguments, ..Call::default() }
    }

    fn floor_add(&self, shape: &Shape, pod: &Netns, attachment: &Attachment) -> Call {
        let list = |items: Vec<String>| items.join(",");
        let gateways = list(shape.gateways().iter().map(ToString::to_string).collect());
        let nets = list(attachment.nets.iter().map(ToString::to_string).collect());
        let (pod, ifname, near) = (node::path(pod), &attachment.ifname, &attachment.near_name);
        match shape.link {
            Link::Loopback => self.floor(&["loopback", &pod, "up"]),
            Link::Ptp => self.floor(&["ptp", &pod, ifname, near, &gateways, &nets]),
            Link::Macvlan => self.floor(&["macvlan", &pod, ifname, PARENT, &gateways, &nets]),
            Link::Bridge => match rules(shape, attachment) {
                None => self.floor(&["bridge", &pod, ifname, near, BRIDGE, &gateways, &nets]),
                Some(rules) => self.floor(&["bridge", &pod, ifname, near, BRIDGE, &gateways, &nets, &rules]),
            },
        }
    }

    fn floor_del(&self, shape: &Shape, pod: &Netns, attachment: &Attachment) -> Call {
        let pod = node::path(pod);
        let near = &attachment.near_name;
        match shape.link {
            Link::Loopback => self.floor(&["loopback", &pod, "down"]),
            Link::Macvlan => self.floor(&["delete-in", &pod, &attachment.ifname]),
            _ if self.peer.announces() => self.floor(&["announce", near]),
            _ => match rules(shape, attachment) {
                None => self.floor(&["delete", near]),
                Some(rules) => self.floor(&["delete", near, &rules]),
            },
        }
    }
}

impl Attachment {
    /// Takes a plugin's result.
    pub(crate) fn took(&mut self, stdout: &[u8]) -> Result<()> {
        let result: Value = serde_json::from_slice(stdout).context("decode the result")?;
        let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        let address = |ip: &Value| ip["address"].as_str().unwrap_or_default().parse();
        self.nets = ips.iter().map(address).collect::<Result<_, _>>().context("an address of the result")?;
        self.result = Some(result);
        Ok(())
    }
}

/// The floor's RULES of an attachment.
fn rules(shape: &Shape, attachment: &Attachment) -> Option<String> {
    let ip = attachment.nets.first()?.ip();
    match shape.ports {
        _ if shape.bandwidth => Some("bandwidth".into()),
        0 if shape.masquerade => Some(format!("masquerade={ip}")),
        0 => None,
        count => Some(format!("ports={count}@{ip}")),
    }
}

/// What Podman would write for a pod on a bridge.
fn netavark(attachment: &Attachment) -> Result<Vec<u8>> {
    let ip = attachment.nets.first().context("an address")?.ip();
    let network = json!({
        "dns_enabled": false, "driver": "bridge", "internal": false, "ipv6_enabled": false, "name": NETWORK,
        "id": "5f0c1d6e8b2a49378c4de1f05a7b69c2d3e4f5061728394a5b6c7d8e9fa0b1c2", "network_interface": BRIDGE,
        "subnets": [{"gateway": GATEWAY, "subnet": "10.88.0.0/16"}], "ipam_options": {"driver": "host-local"},
    });
    let configuration = json!({
        "container_id": attachment.id, "container_name": format!("c{}", &attachment.id[..8]),
        "networks": {NETWORK: {"interface_name": attachment.ifname, "static_ips": [ip]}},
        "network_info": {NETWORK: network},
    });
    Ok(configuration.to_string().into_bytes())
}
