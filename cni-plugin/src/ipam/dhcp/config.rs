//! The `ipam` object of the configuration: as written, then as a complete value.

use std::path::PathBuf;

use cni::{Call, Error};
use serde::Deserialize;

use super::v4::{Options, code};

/// Where the daemon listens unless told otherwise.
pub(super) const SOCKET: &str = "/run/cni/dhcp.sock";
/// Where leases are kept unless told otherwise.
const STATE_DIR: &str = "/var/lib/cni/dhcp";
/// The longest client id: with the byte before it, it fills an option.
const LONGEST_ID: usize = 254;

/// Which protocols an attachment gets its addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// DHCPv4, as the reference.
    Dhcp4,
    /// DHCPv6.
    Dhcp6,
    /// An address in the prefix that a router advertises.
    Slaac,
    /// DHCPv4, and IPv6 as the router says.
    Dual,
}

impl Mode {
    const ALL: [(&'static str, Mode); 4] =
        [("dhcp4", Mode::Dhcp4), ("dhcp6", Mode::Dhcp6), ("slaac", Mode::Slaac), ("dual", Mode::Dual)];

    /// The word in configurations.
    pub(super) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("dhcp4", |(word, _)| word)
    }

    /// The mode of this word.
    pub(super) fn parse(word: &str) -> Option<Mode> {
        Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode)
    }
}

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    ipam: Option<WrittenIpam>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenIpam {
    daemon_socket_path: String,
    state_dir: String,
    mode: String,
    request: Vec<WrittenRequest>,
    provide: Vec<WrittenProvide>,
    priority: u32,
    dns: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenRequest {
    skip_default: bool,
    option: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenProvide {
    option: String,
    value: String,
    from_arg: String,
}

/// Where the daemon and its files are: all that DEL and GC need, which must work although the rest of the configuration
/// has become wrong meanwhile.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) socket: PathBuf,
    pub(super) state_dir: PathBuf,
}

impl Place {
    /// Reads the two keys.
    ///
    /// # Errors
    /// One of them has the wrong type.
    pub(super) fn of(call: &Call) -> Result<Place, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Keys {
            ipam: Ipam,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Ipam {
            daemon_socket_path: String,
            state_dir: String,
        }
        let keys: Keys = call.conf_as()?;
        Ok(place(keys.ipam.daemon_socket_path, keys.ipam.state_dir))
    }
}

fn place(socket: String, state_dir: String) -> Place {
    let socket = if socket.is_empty() { SOCKET.to_owned() } else { socket };
    let state_dir = if state_dir.is_empty() { state_dir_for(&socket) } else { state_dir.into() };
    Place { socket: socket.into(), state_dir }
}

/// The directory of the daemon that listens at `socket`. Two daemons must not keep each other's leases, so one with a
/// socket of its own has a directory of its own.
pub(super) fn state_dir_for(socket: &str) -> PathBuf {
    if socket == SOCKET {
        return STATE_DIR.into();
    }
    let name: String =
        socket.trim_start_matches('/').chars().map(|c| if c == '/' { '-' } else { c }).collect();
    PathBuf::from(STATE_DIR).join(format!("at-{name}"))
}

/// A complete, valid configuration.
#[derive(Debug)]
pub(super) struct DhcpConfig {
    pub(super) place: Place,
    pub(super) mode: Mode,
    /// What goes into every DHCPv4 message.
    pub(super) options: Options,
    /// Metric of the routes; 0 leaves it to the kernel.
    pub(super) priority: u32,
    /// Whether the result has name resolution.
    pub(super) dns: bool,
}

impl DhcpConfig {
    /// Reads the configuration of one call.
    ///
    /// # Errors
    /// Code 7 with the reference's sentences for options, code 6 for what does not decode.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        let ipam = written.ipam.ok_or_else(|| Error::invalid("IPAM config missing 'ipam' key"))?;
        let mode = match ipam.mode.as_str() {
            "" => Mode::Dhcp4,
            word => Mode::parse(word).ok_or_else(|| {
                let known: Vec<&str> = Mode::ALL.iter().map(|(word, _)| *word).collect();
                Error::invalid(format!("unknown dhcp mode {word:?} (one of {})", known.join(", ")))
            })?,
        };
        let mut options = Options::default();
        options.set(code::CLIENT_ID, client_id(call));
        provide(&ipam.provide, &call.env.args, &mut options)?;
        request(&ipam.request, ipam.dns, &mut options)?;
        Ok(Self {
            place: place(ipam.daemon_socket_path, ipam.state_dir),
            mode,
            options,
            priority: ipam.priority,
            dns: ipam.dns,
        })
    }
}

/// Option 61: type 0, which is no hardware address, and what names the attachment.
fn client_id(call: &Call) -> Vec<u8> {
    let name = format!("{}/{}/{}", call.env.container_id, call.conf.name, call.env.ifname);
    let name = &name.as_bytes()[..name.len().min(LONGEST_ID)];
    [&[0], name].concat()
}

fn provide(written: &[WrittenProvide], args: &str, options: &mut Options) -> Result<(), Error> {
    // Lenient where other plugins are strict, as in the reference: what is no pair is passed over, the last one counts.
    let arg = |wanted: &str| {
        let pairs = args.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == wanted).map(|(_, value)| value).next_back()
    };
    for entry in written {
        let number = option(&entry.option)?;
        if matches!(number, code::PAD | code::KIND | code::END) {
            return Err(Error::invalid(format!("option {:?} is the client's own", entry.option)));
        }
        let from_arg = arg(&entry.from_arg).filter(|_| !entry.from_arg.is_empty());
        for (value, place) in [(Some(entry.value.as_str()), ""), (from_arg, " from CNI_ARGS")] {
            let Some(value) = value.filter(|value| !value.is_empty() || !place.is_empty()) else { continue };
            if value.len() > 255 {
                return Err(Error::invalid(format!(
                    "value too long for option {:?}{place}: {value:?}",
                    entry.option
                )));
            }
            options.set(number, value);
        }
    }
    Ok(())
}

/// Option 55.
fn request(written: &[WrittenRequest], dns: bool, options: &mut Options) -> Result<(), Error> {
    let mut list = Vec::new();
    for entry in written.iter().filter(|entry| !entry.option.is_empty()) {
        list.push(option(&entry.option)?);
    }
    if !written.iter().any(|entry| entry.skip_default) {
        list.extend([code::ROUTERS, code::SUBNET_MASK]);
    }
    if list.is_empty() {
        // What the reference's library asks for when it is given nothing.
        list.extend([code::SUBNET_MASK, code::ROUTERS, code::DOMAIN, code::DNS]);
    }
    if dns {
        list.extend([code::DNS, code::DOMAIN, code::SEARCH]);
    }
    let mut once = Vec::new();
    for number in list {
        if !once.contains(&number) {
            once.push(number);
        }
    }
    options.set(code::REQUEST_LIST, once);
    Ok(())
}

/// An option's number: decimal, or one of the reference's names.
fn option(text: &str) -> Result<u8, Error> {
    let named = [
        ("dhcp-client-identifier", code::CLIENT_ID),
        ("subnet-mask", code::SUBNET_MASK),
        ("routers", code::ROUTERS),
        ("host-name", code::HOST_NAME),
        ("user-class", code::USER_CLASS),
        ("vendor-class-identifier", code::VENDOR_CLASS),
    ];
    if let Some((_, number)) = named.iter().find(|(name, _)| *name == text) {
        return Ok(*number);
    }
    let decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if decimal { text.parse().ok() } else { None };
    number.ok_or_else(|| Error::invalid(format!("Can not parse option {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(ipam: &str, args: &str) -> Call {
        let env = cni::Env {
            command: "ADD".into(),
            container_id: "c0".into(),
            ifname: "eth0".into(),
            args: args.into(),
            ..cni::Env::default()
        };
        let text =
            format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"dhcp","ipam":{{"type":"dhcp"{ipam}}}}}"#);
        Call::new(env, text.into_bytes()).unwrap()
    }

    fn resolve(ipam: &str, args: &str) -> Result<DhcpConfig, Error> {
        DhcpConfig::resolve(&call(ipam, args))
    }

    fn requested(ipam: &str) -> Vec<u8> {
        resolve(ipam, "").unwrap().options.get(code::REQUEST_LIST).unwrap().to_vec()
    }

    #[test]
    fn defaults_are_the_references() {
        let config = resolve("", "").unwrap();
        assert_eq!(config.place.socket, PathBuf::from("/run/cni/dhcp.sock"));
        assert_eq!(config.place.state_dir, PathBuf::from("/var/lib/cni/dhcp"));
        assert_eq!((config.mode, config.priority, config.dns), (Mode::Dhcp4, 0, false));
        assert_eq!(config.options.get(code::CLIENT_ID), Some(&b"\0c0/net/eth0"[..]));
        assert_eq!(requested(""), [3, 1]);
    }

    #[test]
    fn a_daemon_of_its_own_has_files_of_its_own() {
        let config = resolve(r#","daemonSocketPath":"/run/lan/d.sock""#, "").unwrap();
        assert_eq!(config.place.state_dir, PathBuf::from("/var/lib/cni/dhcp/at-run-lan-d.sock"));
        let config = resolve(r#","daemonSocketPath":"/run/d.sock","stateDir":"/s""#, "").unwrap();
        assert_eq!(config.place.state_dir, PathBuf::from("/s"));
    }

    #[test]
    fn requested_options_come_first_and_once() {
        assert_eq!(requested(r#","request":[{"option":"42"},{"option":"routers"}]"#), [42, 3, 1]);
        assert_eq!(requested(r#","request":[{"skipDefault":true,"option":"121"}]"#), [121]);
        assert_eq!(requested(r#","request":[{"skipDefault":true}]"#), [1, 3, 15, 6]);
        assert_eq!(requested(r#","dns":true"#), [3, 1, 6, 15, 119]);
    }

    #[test]
    fn values_come_from_the_configuration_and_from_cni_args() {
        let ipam = r#","provide":[{"option":"host-name","fromArg":"K8S_POD_NAME"},
            {"option":"60","value":"podnet"},{"option":"12","value":"unused"}]"#;
        let config = resolve(ipam, "x;IgnoreUnknown=1;K8S_POD_NAME=a;K8S_POD_NAME=web=0").unwrap();
        assert_eq!(config.options.get(code::VENDOR_CLASS), Some(&b"podnet"[..]));
        assert_eq!(config.options.get(code::HOST_NAME), Some(&b"unused"[..]), "the last one counts");
        let ipam = r#","provide":[{"option":"host-name","value":"v","fromArg":"K8S_POD_NAME"}]"#;
        let config = resolve(ipam, "K8S_POD_NAME=web=0").unwrap();
        assert_eq!(config.options.get(code::HOST_NAME), Some(&b"web=0"[..]));
        let own = resolve(r#","provide":[{"option":"dhcp-client-identifier","value":"me"}]"#, "").unwrap();
        assert_eq!(own.options.get(code::CLIENT_ID), Some(&b"me"[..]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let long = "x".repeat(256);
        for (ipam, gist) in [
            (r#","request":[{"option":"256"}]"#.to_owned(), "Can not parse option \"256\""),
            (r#","request":[{"option":"+3"}]"#.to_owned(), "Can not parse option \"+3\""),
            (r#","provide":[{"option":"no-such"}]"#.to_owned(), "Can not parse option \"no-such\""),
            (r#","provide":[{"option":"53","value":"x"}]"#.to_owned(), "the client's own"),
            (
                format!(r#","provide":[{{"option":"12","value":"{long}"}}]"#),
                "value too long for option \"12\"",
            ),
            (r#","mode":"dhcp5""#.to_owned(), "unknown dhcp mode \"dhcp5\""),
        ] {
            let error = resolve(&ipam, "").unwrap_err();
            assert!(error.code == cni::code::INVALID_CONFIG && error.msg.contains(gist), "{error:?}");
        }
    }

    #[test]
    fn a_long_client_id_is_cut() {
        let mut call = call("", "");
        call.env.container_id = "c".repeat(300);
        assert_eq!(client_id(&call).len(), 255);
    }

    #[test]
    fn the_place_is_found_in_a_broken_configuration() {
        let call = call(r#","daemonSocketPath":"/s","request":[{"option":"no-such"}],"mode":"x""#, "");
        assert_eq!(Place::of(&call).unwrap().socket, PathBuf::from("/s"));
    }
}
