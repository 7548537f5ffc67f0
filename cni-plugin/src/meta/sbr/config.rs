//! The configuration of `sbr`: as written (`Written`), and resolved (`SbrConfig`).

use std::net::IpAddr;

use cni::{Call, Error};
use kernel::Family;
use serde::Deserialize;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    table: Option<i64>,
    gateways: Vec<String>,
    add_source_hints: bool,
}

/// A complete, valid configuration of one attachment.
#[derive(Debug, Default)]
pub(super) struct SbrConfig {
    /// The table to look in, whose routes are somebody else's affair; `None` has each address get a table of
    /// its own, with routes.
    pub(super) table: Option<u32>,
    /// The main table keeps a route to each subnet, with the address as its source.
    pub(super) source_hints: bool,
    /// The gateway of every IPv4 address.
    pub(super) v4: Option<IpAddr>,
    /// The gateway of every IPv6 address.
    pub(super) v6: Option<IpAddr>,
}

impl SbrConfig {
    /// Reads and checks the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 with the reference's sentence for gateways that cannot be meant.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        if written.gateways.len() > 2 {
            return Err(Error::invalid(
                "gateways list cannot contain more than 2 entries (one IPv4, one IPv6)",
            ));
        }
        let mut config = Self { source_hints: written.add_source_hints, ..Self::default() };
        config.table = written.table.map(parse_table).transpose()?;
        for text in &written.gateways {
            let gateway: IpAddr = text
                .parse()
                .map(|ip: IpAddr| ip.to_canonical())
                .map_err(|_| Error::invalid(format!("invalid static gateway IP address: {text}")))?;
            let (slot, name) =
                if gateway.is_ipv4() { (&mut config.v4, "IPv4") } else { (&mut config.v6, "IPv6") };
            if let Some(first) = slot.replace(gateway) {
                return Err(Error::invalid(format!(
                    "gateways list contains multiple {name} addresses: {first} and {text}"
                )));
            }
        }
        Ok(config)
    }

    /// The gateway of the configuration for a family.
    pub(super) fn gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

fn parse_table(number: i64) -> Result<u32, Error> {
    u32::try_from(number).ok().filter(|&table| table != 0).ok_or_else(|| {
        Error::invalid(format!("table {number} is not the number of a routing table (1 to {})", u32::MAX))
    })
}

/// `table`, also of a configuration that is otherwise broken: DEL needs no more.
pub(super) fn table(call: &Call) -> Option<u32> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Only {
        table: Option<i64>,
    }
    call.conf_as::<Only>().unwrap_or_default().table.and_then(|number| parse_table(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str) -> Result<SbrConfig, Error> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"sbr"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        SbrConfig::resolve(&Call::new(env, text.into_bytes()).unwrap())
    }

    #[test]
    fn one_gateway_for_each_family() {
        let config = resolve(r#","gateways":["2001:db8::1","10.0.0.1"],"addSourceHints":true"#).unwrap();
        assert_eq!(config.gateway(Family::V4), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(config.gateway(Family::V6), Some("2001:db8::1".parse().unwrap()));
        assert!(config.source_hints && config.table.is_none());
        assert_eq!(resolve(r#","table":5000"#).unwrap().table, Some(5000));
        for (keys, sentence) in [
            (r#","gateways":["1.1.1.1","::1","1.1.1.2"]"#, "cannot contain more than 2 entries"),
            (r#","gateways":["x"]"#, "invalid static gateway IP address: x"),
            (r#","gateways":["1.1.1.1","1.1.1.2"]"#, "multiple IPv4 addresses: 1.1.1.1 and 1.1.1.2"),
            (r#","gateways":["::1","::2"]"#, "multiple IPv6 addresses: ::1 and ::2"),
            (r#","table":0"#, "table 0 is not"),
            (r#","table":-5"#, "table -5 is not"),
        ] {
            let msg = resolve(keys).unwrap_err().msg;
            assert!(msg.contains(sentence), "{keys}: {msg}");
        }
    }
}
