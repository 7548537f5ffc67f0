//! `tap`: a TAP device in the pod, for a program there (a virtual machine) to attach to.
//!
//! Made by /dev/net/tun in this process, straight in the pod under its final name. Order of ADD: configuration,
//! namespace, device, its MAC, MTU and bridge, addresses (IPAM), addresses and routes of the pod. DEL and GC are those
//! of every plugin with one link in the pod and nothing on the node.

use cni::plugin::Plugin;
use cni::{Call, CniResult, Dns, Error, Interface, Undo, code};
use kernel::link::{self, Change, Link};
use kernel::tap::Tap as Device;
use kernel::{Mac, Rtnl, tap};
use serde::Deserialize;

use super::attach::{self, Announce, Options, failed};
use super::dns::WrittenDns;
use super::{mac, one_link};
use crate::ipam::Ipam;

/// The plugin.
pub(crate) struct Tap;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    multi_queue: bool,
    mtu: i64,
    mac: String,
    owner: Option<u32>,
    group: Option<u32>,
    selinux_context: String,
    bridge: String,
    dns: WrittenDns,
    runtime_config: RuntimeConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    mac: String,
}

/// A complete, valid configuration of one attachment.
#[derive(Debug)]
struct TapConfig {
    multi_queue: bool,
    /// In bytes, 0 the kernel's default.
    mtu: u32,
    /// `mac`, over it CNI_ARGS `MAC`, over it `runtimeConfig.mac`.
    mac: Option<Mac>,
    /// Who may attach without privileges; `None` is nobody.
    owner: Option<u32>,
    group: Option<u32>,
    /// The SELinux context to create the device in.
    context: Option<String>,
    /// Name of the bridge in the pod that it becomes a port of.
    bridge: Option<String>,
    /// DNS of the configuration; replaces the IPAM's when any key of it was written.
    dns: Option<Dns>,
}

impl TapConfig {
    /// Reads and checks the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 for what is not valid, 4 for CNI_ARGS.
    fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        // The kernel reads the greatest number as nobody.
        if let Some((key, _)) = [("owner", written.owner), ("group", written.group)]
            .into_iter()
            .find(|(_, id)| *id == Some(u32::MAX))
        {
            return Err(Error::invalid(format!("{key} {} is the id of nobody", u32::MAX)));
        }
        Ok(Self {
            multi_queue: written.multi_queue,
            mtu: attach::mtu(written.mtu)?,
            mac: mac::first(&[&written.runtime_config.mac, &mac::of_args(call)?, &written.mac])?,
            owner: written.owner,
            group: written.group,
            context: some(&written.selinux_context),
            bridge: some(&written.bridge),
            dns: written.dns.chosen(),
        })
    }
}

impl Plugin for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = TapConfig::resolve(call)?;
        let (netns, mut pod) = attach::open_pod(call)?;
        let ipam = call.conf.ipam_type().is_some().then(|| Ipam::find(call)).transpose()?;
        let master = config.bridge.as_deref().map(|name| find_bridge(&mut pod, name)).transpose()?;

        if let Some(context) = config.context.as_deref().filter(|_| !tap::takes_labels()) {
            return Err(Error::new(
                code::UNSUPPORTED_FIELD,
                format!(
                    "unsupported field \"selinuxContext\" with value {context:?}: SELinux does not run here"
                ),
            ));
        }
        let ifname = call.env.ifname.as_str();
        let device = Device {
            name: ifname,
            multi_queue: config.multi_queue,
            owner: config.owner,
            group: config.group,
            label: config.context.as_deref(),
        };
        let mut again = Rtnl::open_in(&netns).map_err(failed("netlink in the pod"))?;
        tap::add(&netns, &device).map_err(|err| match err.is_exists() {
            true => Error::internal(format!("interface name {ifname:?} already exists in the pod")),
            false => failed(format!("create tap {ifname:?} in the pod"))(err),
        })?;
        let name = ifname.to_owned();
        undo.push("delete the tap", move || {
            match link::by_name(&mut again, &name).and_then(|link| link::delete(&mut again, link.index)) {
                Err(err) if !err.is_not_found() => Err(err.to_string()),
                _ => Ok(()),
            }
        });
        let link = link::by_name(&mut pod, ifname);
        let link = link.map_err(failed(format!("find {ifname:?} in the pod")))?;
        let change = Change {
            mac: config.mac,
            mtu: (config.mtu != 0).then_some(config.mtu),
            master: master.map(|bridge| bridge.index),
            ..Change::default()
        };
        link::set(&mut pod, link.index, &change)
            .map_err(failed(format!("set MAC, MTU or bridge of {ifname:?}")))?;

        let mut result = CniResult::default();
        if let Some(ipam) = ipam {
            result = ipam.add(call, undo)?;
            if result.ips.is_empty() {
                return Err(Error::internal("IPAM plugin returned missing IP config"));
            }
        }
        for ip in &mut result.ips {
            ip.interface = Some(0);
        }
        if result.ips.is_empty() {
            link::set(&mut pod, link.index, &Change { up: Some(true), ..Change::default() })
                .map_err(failed(format!("set {ifname:?} up")))?;
        } else {
            // No duplicate address detection: a tap carries nothing until a program attaches, so it would not end.
            let options = Options { announce: Announce::WhenUp, ..Options::default() };
            attach::configure(&netns, &mut pod, (ifname, link.index), &result, options)?;
        }
        result.interfaces = vec![Interface {
            name: ifname.to_owned(),
            mac: config.mac.or(link.mac).map(|mac| mac.to_string()).unwrap_or_default(),
            sandbox: call.env.netns.clone(),
            ..Interface::default()
        }];
        if let Some(dns) = config.dns {
            result.dns = dns;
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        one_link::del(call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = TapConfig::resolve(call)?;
        let mut pod = attach::open_pod(call)?.1;
        if call.conf.ipam_type().is_some() {
            Ipam::find(call)?.check(call)?;
        }
        let previous = attach::prev_result(call)?;
        let (position, recorded) = attach::pod_interface(call, previous)?;
        let ifname = call.env.ifname.as_str();
        let link = attach::check_link(&mut pod, ifname, recorded)?;
        check_device(&mut pod, &config, &link)?;
        attach::check_addresses(&mut pod, (ifname, link.index), previous, position)?;
        attach::check_routes(&mut pod, previous)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        one_link::gc(call)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        TapConfig::resolve(call)?;
        tap::require().map_err(|err| Error::new(code::UNAVAILABLE, err.to_string()))?;
        match call.conf.ipam_type() {
            Some(_) => Ipam::find_for_status(call)?.status(call),
            None => Ok(()),
        }
    }
}

/// The bridge of this name in the pod.
fn find_bridge(pod: &mut Rtnl, name: &str) -> Result<Link, Error> {
    let bridge = link::by_name(pod, name).map_err(failed(format!("find bridge {name:?} in the pod")))?;
    if bridge.kind.as_deref() != Some("bridge") {
        return Err(Error::internal(format!("{name:?} in the pod is not a bridge")));
    }
    Ok(bridge)
}

/// CHECK of what makes it the tap that was asked for.
fn check_device(pod: &mut Rtnl, config: &TapConfig, link: &Link) -> Result<(), Error> {
    let name = &link.name;
    let Some(tun) = link.tun.filter(|tun| tun.tap) else {
        return Err(Error::internal(format!("{name:?} in the pod is not a tap")));
    };
    let shown = |id: Option<u32>| id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
    for (property, wanted, is) in [
        ("multiQueue", config.multi_queue.to_string(), tun.multi_queue.to_string()),
        ("owner", shown(config.owner), shown(tun.owner)),
        ("group", shown(config.group), shown(tun.group)),
    ] {
        if wanted != is {
            return Err(Error::internal(format!("{name:?} in the pod: {property} is {is}, not {wanted}")));
        }
    }
    if config.mtu != 0 && config.mtu != link.mtu {
        return Err(Error::internal(format!("{name:?} in the pod has MTU {}, not {}", link.mtu, config.mtu)));
    }
    if let Some(bridge) = &config.bridge {
        let index = find_bridge(pod, bridge)?.index;
        if link.master != Some(index) {
            return Err(Error::internal(format!("{name:?} in the pod is not on bridge {bridge:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str, cni_args: &str) -> Result<TapConfig, Error> {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"tap"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), args: cni_args.into(), ..cni::Env::default() };
        TapConfig::resolve(&Call::new(env, text.into_bytes())?)
    }

    #[test]
    fn defaults_are_the_references() {
        let config = resolve("", "").unwrap();
        assert!(!config.multi_queue && config.mtu == 0 && config.mac.is_none());
        assert!(config.owner.is_none() && config.group.is_none());
        assert!(config.context.is_none() && config.bridge.is_none() && config.dns.is_none());
    }

    #[test]
    fn owner_0_is_root_and_not_nobody() {
        let config = resolve(r#","owner":0,"Group":107,"MULTIQUEUE":true"#, "").unwrap();
        assert_eq!((config.owner, config.group, config.multi_queue), (Some(0), Some(107), true));
    }

    #[test]
    fn the_runtimes_mac_wins_over_that_of_cni_args_and_of_the_configuration() {
        let (mac, args) = (r#","mac":"02:00:00:00:00:01""#, "MAC=02:00:00:00:00:02");
        let runtime = format!(r#"{mac},"runtimeConfig":{{"mac":"02:00:00:00:00:03"}}"#);
        for (keys, args, last) in [(mac, "", 1), (mac, args, 2), (&runtime, args, 3)] {
            assert_eq!(resolve(keys, args).unwrap().mac, Some(Mac([2, 0, 0, 0, 0, last])));
        }
    }

    #[test]
    fn what_is_no_mtu_owner_or_mac_is_refused() {
        for (keys, code, words) in [
            (r#","mtu":-1"#, 7, "mtu -1"),
            (r#","owner":-1"#, 6, "owner"),
            (r#","group":4294967296"#, 6, "group"),
            (r#","owner":4294967295"#, 7, "owner 4294967295"),
            (r#","mac":"nonsense""#, 7, "nonsense"),
        ] {
            let error = resolve(keys, "").unwrap_err();
            assert!(error.code == code && error.msg.contains(words), "{keys}: {error:?}");
        }
    }
}
