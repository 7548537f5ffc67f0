//! The configuration of `bandwidth`: as written (`Written`), and resolved (`BandwidthConfig`).
//!
//! Rates and bursts are bits; the kernel counts bytes. What stands at the top level is taken whole and
//! `runtimeConfig` left alone as soon as one of its keys is there, as in the reference.

use cni::{Call, Error, parse_cidr};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::shaper::{Shaper, Subnets};

/// How long a packet waits at most behind a full bucket's worth of others, in milliseconds.
const LATENCY: u64 = 25;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
    shaped_subnets: Option<Vec<String>>,
    unshaped_subnets: Option<Vec<String>>,
    latency: Option<u64>,
    runtime_config: RuntimeConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    bandwidth: Option<Entry>,
}

/// What `runtimeConfig.bandwidth` can hold.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
    shaped_subnets: Vec<String>,
    unshaped_subnets: Vec<String>,
}

impl Written {
    /// The entry that counts.
    fn entry(self) -> Entry {
        let rates = [self.ingress_rate, self.ingress_burst, self.egress_rate, self.egress_burst];
        let [ingress_rate, ingress_burst, egress_rate, egress_burst] = rates.map(Option::unwrap_or_default);
        let own = rates.iter().any(Option::is_some);
        let own_subnets = self.shaped_subnets.is_some() || self.unshaped_subnets.is_some();
        let shaped_subnets = self.shaped_subnets.unwrap_or_default();
        let unshaped_subnets = self.unshaped_subnets.unwrap_or_default();
        match self.runtime_config.bandwidth {
            // The rates are the pod's, and the subnets the network's.
            Some(entry) if !own && own_subnets => Entry { shaped_subnets, unshaped_subnets, ..entry },
            Some(entry) if !own => entry,
            _ => Entry {
                ingress_rate,
                ingress_burst,
                egress_rate,
                egress_burst,
                shaped_subnets,
                unshaped_subnets,
            },
        }
    }
}

/// A complete, valid configuration of one attachment.
#[derive(Debug)]
pub(super) struct BandwidthConfig {
    /// What goes to the pod; `None` is not limited.
    pub(super) ingress: Option<Shaper>,
    /// What comes from the pod; `None` is not limited.
    pub(super) egress: Option<Shaper>,
}

impl BandwidthConfig {
    /// Reads and checks the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 with the reference's sentences for what cannot be meant.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        let latency = written.latency.unwrap_or(LATENCY);
        let entry = written.entry();
        let subnets = subnets(&entry)?;
        let shaper = |rate, burst| shaper(rate, burst, latency, &subnets);
        Ok(Self {
            ingress: shaper(entry.ingress_rate, entry.ingress_burst)?,
            egress: shaper(entry.egress_rate, entry.egress_burst)?,
        })
    }
}

fn shaper(rate: u64, burst: u64, latency: u64, subnets: &Subnets) -> Result<Option<Shaper>, Error> {
    match (rate, burst) {
        (0, 0) => return Ok(None),
        (_, 0) => return Err(Error::invalid("if rate is set, burst must also be set")),
        (0, _) => return Err(Error::invalid("if burst is set, rate must also be set")),
        (1..8, _) => return Err(Error::invalid(format!("rate {rate} is less than a byte a second"))),
        (_, 1..8) => return Err(Error::invalid(format!("burst {burst} is less than a byte"))),
        _ => {}
    }
    match u32::try_from(burst / 8) {
        Ok(bytes) if bytes < u32::MAX => Ok(Some(Shaper::new(rate / 8, bytes, latency, subnets.clone()))),
        _ => Err(Error::invalid("burst cannot be more than 4GB")),
    }
}

fn subnets(entry: &Entry) -> Result<Subnets, Error> {
    let read = |texts: &[String]| {
        let read = |text: &String| {
            parse_cidr(text)
                .map_err(|err| Error::invalid(format!("bad subnet {text:?} provided, details {err}")))
        };
        texts.iter().map(read).collect::<Result<Vec<IpNetwork>, Error>>()
    };
    match (read(&entry.shaped_subnets)?, read(&entry.unshaped_subnets)?) {
        (shaped, unshaped) if shaped.is_empty() && unshaped.is_empty() => Ok(Subnets::All),
        (shaped, unshaped) if unshaped.is_empty() => Ok(Subnets::Only(shaped)),
        (shaped, unshaped) if shaped.is_empty() => Ok(Subnets::Except(unshaped)),
        _ => Err(Error::invalid(
            "unshapedSubnets and shapedSubnets cannot be both specified, one of them should be discarded",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str) -> Result<BandwidthConfig, Error> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"bandwidth"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        BandwidthConfig::resolve(&Call::new(env, text.into_bytes()).unwrap())
    }

    fn rates(keys: &str) -> (Option<u64>, Option<u64>) {
        let config = resolve(keys).unwrap();
        (config.ingress.map(|shaper| shaper.rate()), config.egress.map(|shaper| shaper.rate()))
    }

    #[test]
    fn one_key_of_the_top_level_counts_more_than_the_runtime() {
        let runtime = r#","runtimeConfig":{"bandwidth":{"ingressRate":800,"ingressBurst":800,"egressRate":1600,"egressBurst":800}}"#;
        assert_eq!(rates(runtime), (Some(100), Some(200)));
        assert_eq!(
            rates(&format!(r#"{runtime},"ingressRate":8000,"ingressBurst":8000"#)),
            (Some(1000), None)
        );
        assert_eq!(rates(&format!(r#"{runtime},"egressRate":0"#)), (None, None));
        assert_eq!(rates(""), (None, None));
        let both = resolve(&format!(r#"{runtime},"shapedSubnets":["10.0.0.0/8"]"#)).unwrap();
        assert!(both.ingress.unwrap().has_subnets() && both.egress.unwrap().has_subnets());
    }

    #[test]
    fn capital_keys_and_bursts_of_containerd_are_taken() {
        let keys = r#","runtimeConfig":{"BandWidth":{"IngressRate":1000000,"IngressBurst":4294967295,"EgressRate":0,"EgressBurst":0}}"#;
        assert_eq!(rates(keys), (Some(125_000), None));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (keys, sentence) in [
            (r#","ingressRate":800"#, "if rate is set, burst must also be set"),
            (r#","egressBurst":800"#, "if burst is set, rate must also be set"),
            (r#","egressRate":8,"egressBurst":34359738360"#, "burst cannot be more than 4GB"),
            (r#","egressRate":7,"egressBurst":800"#, "rate 7 is less than a byte a second"),
            (r#","egressRate":800,"egressBurst":7"#, "burst 7 is less than a byte"),
            (r#","shapedSubnets":["10.0.0.0"]"#, "bad subnet \"10.0.0.0\" provided"),
            (
                r#","shapedSubnets":["10.0.0.0/8"],"unshapedSubnets":["10.0.0.0/8"]"#,
                "cannot be both specified",
            ),
        ] {
            let error = resolve(keys).unwrap_err();
            assert!(error.msg.contains(sentence) && error.code == 7, "{keys}: {error:?}");
        }
        assert!(resolve(r#","egressRate":8,"egressBurst":34359738352"#).is_ok());
    }
}
