//! The verbs over all plugins of a network.
//!
//! Words and order are libcni's; unlike it, a failed ADD is followed by DEL here, and DEL, GC and STATUS do
//! not stop at the first error.

use serde_json::{Map, Value, json};

use super::call::{Session, Variables};
use super::network::plugin_type;
use super::{Added, Attachment, Network, Report, Runtime, cache};
use crate::conf::ValidAttachment;
use crate::env::{validate_container_id, validate_ifname};
use crate::error::{Error, code};
use crate::result::CniResult;
use crate::version::Version;

impl Runtime {
    /// A runtime that searches plugins in `path`, keeps no cache and waits as long as it takes.
    pub fn new(path: Vec<std::path::PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// ADD: calls every plugin in order, each with the result of the one before it. When one fails, DEL is
    /// called of all of them in reverse order; what DEL could not do is in the error's details.
    pub fn add_list(&self, network: &Network, attachment: &Attachment) -> Report<Added> {
        self.report(|session| {
            validate(attachment)?;
            let added = session.add(network, attachment).and_then(|added| {
                if let Some(dir) = &self.cache {
                    cache::write(dir, network, attachment, &added.json)?;
                }
                Ok(added)
            });
            added.map_err(|error| match session.del(network, attachment, None) {
                Ok(()) => error,
                Err(left) => {
                    let details = [error.details.as_str(), &format!("and DEL after it: {left}")].join(" ");
                    Error { details: details.trim_start().to_owned(), ..error }
                }
            })
        })
    }

    /// DEL: calls every plugin in reverse order. From 0.4.0 on they are given `prev`, or else what the cache
    /// has. Success drops the attachment from the cache.
    pub fn del_list(&self, network: &Network, attachment: &Attachment, prev: Option<&Value>) -> Report<()> {
        self.report(|session| {
            validate(attachment)?;
            // An unreadable entry is as good as none: DEL does what it can.
            let cached =
                prev.is_none().then(|| self.cached_result(network, attachment).ok().flatten()).flatten();
            session.del(network, attachment, prev.or(cached.as_ref()))?;
            self.cache.as_deref().map_or(Ok(()), |dir| cache::remove(dir, network, attachment))
        })
    }

    /// CHECK: calls every plugin in order with `prev`, or else what the cache has; the first error ends it.
    /// Nothing is called when the network disables CHECK.
    pub fn check_list(&self, network: &Network, attachment: &Attachment, prev: Option<&Value>) -> Report<()> {
        self.report(|session| {
            validate(attachment)?;
            if !network.is_at_least(Version::V0_4_0)? {
                let msg = format!("configuration version {:?} does not support CHECK", network.version);
                return Err(Error::new(code::INCOMPATIBLE_VERSION, msg));
            }
            if network.disable_check {
                return Ok(());
            }
            let cached = match prev {
                None => self.cached_result(network, attachment)?,
                Some(_) => None,
            };
            let prev = prev.or(cached.as_ref());
            let variables = Variables::of_attachment(attachment);
            for plugin in &network.plugins {
                let stdin = inject(network, plugin, prev, &attachment.capability_args);
                session.verb(plugin, "CHECK", &variables, &stdin)?;
            }
            Ok(())
        })
    }

    /// GC: `valid` are the attachments that still exist. Those in the cache that do not are deleted, then,
    /// from 1.1.0 on, every plugin is called. `None` gives the plugins no list, so they remove nothing.
    /// Nothing is done when the network disables GC.
    pub fn gc_list(&self, network: &Network, valid: Option<&[ValidAttachment]>) -> Report<()> {
        self.report(|session| {
            if network.disable_gc {
                return Ok(());
            }
            let mut errors = Vec::new();
            if let (Some(dir), Some(valid)) = (&self.cache, valid) {
                session.delete_stale(dir, network, valid, &mut errors);
            }
            if network.is_at_least(Version::V1_1_0)? {
                let list = valid.map(|valid| {
                    let entry = |one: &ValidAttachment| json!({"containerID": one.container_id, "ifname": one.ifname});
                    Value::Array(valid.iter().map(entry).collect())
                });
                for plugin in &network.plugins {
                    let mut conf = injected(network, plugin, None, &Map::new());
                    if let Some(list) = &list {
                        conf.insert("cni.dev/valid-attachments".into(), list.clone());
                        conf.insert("cni.dev/attachments".into(), list.clone());
                    }
                    let stdin = Value::Object(conf).to_string().into_bytes();
                    errors.extend(session.verb(plugin, "GC", &Variables::of_network(), &stdin).err());
                }
            }
            Error::join(errors.into_iter().map(Err))
        })
    }

    /// STATUS: calls every plugin in order; before 1.1.0 there is no such verb and nothing is called.
    pub fn status_list(&self, network: &Network) -> Report<()> {
        self.report(|session| {
            if !network.is_at_least(Version::V1_1_0)? {
                return Ok(());
            }
            let mut errors = Vec::new();
            for plugin in &network.plugins {
                let stdin = inject(network, plugin, None, &Map::new());
                errors.extend(session.verb(plugin, "STATUS", &Variables::of_network(), &stdin).err());
            }
            Error::join(errors.into_iter().map(Err))
        })
    }

    /// VERSION: the versions that the plugin `kind` supports.
    pub fn versions(&self, kind: &str) -> Report<Vec<String>> {
        self.report(|session| {
            let stdin = format!("{{\"cniVersion\":{:?}}}", Version::CURRENT.as_str());
            let stdout = session.call(kind, "VERSION", &Variables::of_version(), stdin.as_bytes())?;
            let refuse =
                |why: &str| Error::new(code::DECODING, format!("decode VERSION of plugin {kind:?}: {why}"));
            let answer: Value =
                serde_json::from_slice(&stdout).map_err(|error| refuse(&error.to_string()))?;
            let versions =
                answer["supportedVersions"].as_array().ok_or_else(|| refuse("no supportedVersions"))?;
            let texts: Option<Vec<String>> = versions.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(|| refuse("supportedVersions holds something else than strings"))
        })
    }

    fn report<T>(&self, verb: impl FnOnce(&mut Session<'_>) -> Result<T, Error>) -> Report<T> {
        let mut session = Session { runtime: self, calls: Vec::new() };
        let outcome = verb(&mut session);
        Report { outcome, calls: session.calls }
    }

    fn cached_result(&self, network: &Network, attachment: &Attachment) -> Result<Option<Value>, Error> {
        self.cache.as_deref().map_or(Ok(None), |dir| cache::read(dir, network, attachment))
    }
}

impl Session<'_> {
    fn add(&mut self, network: &Network, attachment: &Attachment) -> Result<Added, Error> {
        let variables = Variables::of_attachment(attachment);
        let mut last: Option<Added> = None;
        for plugin in &network.plugins {
            let prev = last.as_ref().map(|added| &added.json);
            let stdin = inject(network, plugin, prev, &attachment.capability_args);
            let stdout = self.verb(plugin, "ADD", &variables, &stdin)?;
            last = Some(decode(network, &stdout).map_err(|error| named(plugin, "ADD", error))?);
        }
        last.ok_or_else(|| Error::new(code::INVALID_CONFIG, "no plugins in list"))
    }

    fn del(&mut self, network: &Network, attachment: &Attachment, prev: Option<&Value>) -> Result<(), Error> {
        let prev = if network.is_at_least(Version::V0_4_0)? { prev } else { None };
        let variables = Variables::of_attachment(attachment);
        let mut errors = Vec::new();
        for plugin in network.plugins.iter().rev() {
            let stdin = inject(network, plugin, prev, &attachment.capability_args);
            errors.extend(self.verb(plugin, "DEL", &variables, &stdin).err());
        }
        Error::join(errors.into_iter().map(Err))
    }

    /// DEL of every cached attachment of the network that is not in `valid`.
    fn delete_stale(
        &mut self,
        dir: &std::path::Path,
        network: &Network,
        valid: &[ValidAttachment],
        errors: &mut Vec<Error>,
    ) {
        let cached = match cache::list(dir, network) {
            Ok(cached) => cached,
            Err(error) => return errors.push(error),
        };
        for (attachment, result) in cached {
            let known = |one: &ValidAttachment| {
                one.container_id == attachment.container_id && one.ifname == attachment.ifname
            };
            if valid.iter().any(known) {
                continue;
            }
            let deleted = validate(&attachment)
                .and_then(|()| self.del(network, &attachment, result.as_ref()))
                .and_then(|()| cache::remove(dir, network, &attachment));
            errors.extend(deleted.err());
        }
    }

    fn verb(
        &mut self,
        plugin: &Value,
        command: &str,
        variables: &Variables,
        stdin: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let call = plugin_type(plugin).and_then(|kind| self.call(kind, command, variables, stdin));
        call.map_err(|error| named(plugin, command, error))
    }
}

fn validate(attachment: &Attachment) -> Result<(), Error> {
    validate_container_id(&attachment.container_id)?;
    validate_ifname(&attachment.ifname)
}

/// The error with the plugin's name and the verb before it, in libcni's words.
fn named(plugin: &Value, command: &str, error: Error) -> Error {
    let kind = plugin_type(plugin).unwrap_or_default();
    let verb = match command {
        "DEL" => "delete".to_owned(),
        other => other.to_lowercase(),
    };
    Error { msg: format!("plugin type={kind:?} failed ({verb}): {}", error.msg), ..error }
}

/// What a plugin gets on stdin: its configuration, with what only the runtime knows.
fn inject(
    network: &Network,
    plugin: &Value,
    prev: Option<&Value>,
    capability_args: &Map<String, Value>,
) -> Vec<u8> {
    Value::Object(injected(network, plugin, prev, capability_args)).to_string().into_bytes()
}

fn injected(
    network: &Network,
    plugin: &Value,
    prev: Option<&Value>,
    capability_args: &Map<String, Value>,
) -> Map<String, Value> {
    let mut conf = plugin.as_object().cloned().unwrap_or_default();
    conf.insert("name".into(), network.name.clone().into());
    conf.insert("cniVersion".into(), network.version.clone().into());
    if let Some(prev) = prev {
        conf.insert("prevResult".into(), prev.clone());
    }
    let enabled = |name: &str| plugin.get("capabilities").is_some_and(|all| all[name] == Value::Bool(true));
    let provided: Map<String, Value> = capability_args
        .iter()
        .filter(|(name, _)| enabled(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !provided.is_empty() {
        conf.insert("runtimeConfig".into(), provided.into());
    }
    conf
}

/// The result of ADD, with `cniVersion` where the plugin left it out.
fn decode(network: &Network, stdout: &[u8]) -> Result<Added, Error> {
    let result = CniResult::parse(stdout, network.known_version())?;
    let mut json: Value = serde_json::from_slice(stdout)
        .map_err(|error| Error::new(code::DECODING, format!("decode result: {error}")))?;
    if json.is_null() {
        json = json!({});
    }
    if let Some(object) = json.as_object_mut() {
        object.entry("cniVersion").or_insert_with(|| network.version.clone().into());
    }
    Ok(Added { json, result })
}
