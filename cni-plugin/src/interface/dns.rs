//! The key `dns` of the interface plugins, which replaces the IPAM plugin's when any part of it is written.

use cni::Dns;
use serde::Deserialize;

/// `dns` as it stands in the configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct WrittenDns {
    nameservers: Option<Vec<String>>,
    domain: String,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

impl WrittenDns {
    /// The DNS of the configuration, if any key of it was written; an empty list counts as written.
    pub(crate) fn chosen(self) -> Option<Dns> {
        let any = self.nameservers.is_some()
            || self.search.is_some()
            || self.options.is_some()
            || !self.domain.is_empty();
        any.then(|| Dns {
            nameservers: self.nameservers.unwrap_or_default(),
            domain: self.domain,
            search: self.search.unwrap_or_default(),
            options: self.options.unwrap_or_default(),
        })
    }
}
