//! The daemon's command line: the reference's flags, written with one dash or two, read as Go's `flag` package does.

use std::time::Duration;

use crate::ipam::dhcp::config::SOCKET;
use crate::ipam::dhcp::timing::{Ms, Timing};

/// What the daemon is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flags {
    /// Where to write the process's number; empty for nowhere.
    pub(super) pidfile: String,
    /// What stands before the paths of socket, namespaces and state.
    pub(super) host_prefix: String,
    pub(super) socket_path: String,
    /// Where leases are kept; empty for the default that goes with the socket.
    pub(super) state_dir: String,
    /// Ask for broadcast answers on every link.
    pub(super) broadcast: bool,
    pub(super) timing: Timing,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            pidfile: String::new(),
            host_prefix: String::new(),
            socket_path: SOCKET.into(),
            state_dir: String::new(),
            broadcast: false,
            timing: Timing::default(),
        }
    }
}

/// Printed on `-help`.
pub(super) const USAGE: &str = "\
usage: podnet dhcp daemon [flags]

  -broadcast                 ask DHCPv4 servers to answer by broadcast, on every link (on ipvlan links always so)
  -hostprefix string         prefix of the paths of socket, network namespaces and state
  -pidfile string            absolute path of a file to write the process's number to
  -resendmax duration        the longest pause before a message is sent again (default 1m2s)
  -resendtimeout duration    after this long there are no more tries (default 3m28s)
  -socketpath string         where to listen (default /run/cni/dhcp.sock)
  -statedir string           where leases are kept over a restart (default /var/lib/cni/dhcp, for another
                             socket a directory in it)
  -timeout duration          how long one exchange may take before a new one begins (default 10s)
";

impl Flags {
    /// Reads the arguments after `daemon`; `None` asks for [`USAGE`].
    ///
    /// # Errors
    /// An unknown flag or a value that is none.
    pub(super) fn parse(args: &[&str]) -> Result<Option<Flags>, String> {
        let mut flags = Flags::default();
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { break };
            if name.is_empty() {
                break;
            }
            let (name, mut value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            if matches!(name, "h" | "help") {
                return Ok(None);
            }
            if name == "broadcast" {
                let text = value.unwrap_or("true");
                flags.broadcast =
                    boolean(text).ok_or_else(|| format!("invalid boolean value {text:?} for -broadcast"))?;
                continue;
            }
            let text = match name {
                "pidfile" => Some(&mut flags.pidfile),
                "hostprefix" => Some(&mut flags.host_prefix),
                "socketpath" => Some(&mut flags.socket_path),
                "statedir" => Some(&mut flags.state_dir),
                _ => None,
            };
            let time = match name {
                "timeout" => Some(&mut flags.timing.timeout),
                "resendmax" => Some(&mut flags.timing.resend_max),
                "resendtimeout" => Some(&mut flags.timing.resend_timeout),
                _ => None,
            };
            if text.is_none() && time.is_none() {
                return Err(format!("flag provided but not defined: -{name}"));
            }
            let value = value.take().or_else(|| args.next());
            let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
            if let Some(text) = text {
                value.clone_into(text);
            }
            if let Some(time) = time {
                *time = duration(value).ok_or_else(|| format!("invalid value {value:?} for flag -{name}"))?;
            }
        }
        if flags.socket_path.is_empty() {
            flags.socket_path = SOCKET.into();
        }
        Ok(Some(flags))
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A duration as Go writes it: `1m2.5s`, `300ms`, `0`. Negative ones make no sense here.
fn duration(text: &str) -> Option<Ms> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (figure, after) = rest.split_at(digits);
        let length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(length);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += figure.parse::<f64>().ok()? * factor;
        rest = after;
    }
    let whole = Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())?;
    Ms::try_from(whole.as_millis()).ok().filter(|ms| *ms <= Ms::from(u32::MAX) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_and_both_ways_of_a_value_are_read() {
        let args = [
            "-pidfile",
            "/p",
            "--hostprefix=/host",
            "-socketpath=/s",
            "--broadcast",
            "-timeout",
            "1m2.5s",
            "--resendmax=300ms",
            "-resendtimeout",
            "1h",
            "--statedir",
            "/d",
            "rest",
            "-unknown",
        ];
        let expected = Flags {
            pidfile: "/p".into(),
            host_prefix: "/host".into(),
            socket_path: "/s".into(),
            state_dir: "/d".into(),
            broadcast: true,
            timing: Timing { timeout: 62_500, resend_max: 300, resend_timeout: 3_600_000 },
        };
        assert_eq!(Flags::parse(&args), Ok(Some(expected)));
        assert_eq!(Flags::parse(&[]), Ok(Some(Flags::default())));
        assert_eq!(Flags::parse(&["-broadcast=false", "-socketpath="]), Ok(Some(Flags::default())));
        assert_eq!(Flags::parse(&["-help"]), Ok(None));
    }

    #[test]
    fn errors_have_gos_sentences() {
        for (args, expected) in [
            (&["-nope"][..], "flag provided but not defined: -nope"),
            (&["-pidfile"], "flag needs an argument: -pidfile"),
            (&["-timeout", "soon"], "invalid value \"soon\" for flag -timeout"),
            (&["-timeout=5"], "invalid value \"5\" for flag -timeout"),
            (&["-timeout=-5s"], "invalid value \"-5s\" for flag -timeout"),
            (&["-timeout="], "invalid value \"\" for flag -timeout"),
            (&["-broadcast=maybe"], "invalid boolean value \"maybe\" for -broadcast"),
        ] {
            assert_eq!(Flags::parse(args), Err(expected.into()));
        }
    }

    #[test]
    fn usage_names_the_defaults() {
        let timing = Timing::default();
        assert_eq!(duration("1m2s"), Some(timing.resend_max));
        assert_eq!(duration("3m28s"), Some(timing.resend_timeout));
        assert_eq!(duration("10s"), Some(timing.timeout));
    }
}
