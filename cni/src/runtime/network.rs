//! Network configurations as libcni loads them: lists (`.conflist`), and the older single plugins (`.conf`).
//!
//! Unlike what plugins read, the keys of a list are matched by exact case, as libcni does. Plugins' own keys
//! are not looked at, but for `type`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::env::is_identifier;
use crate::error::{Error, code};
use crate::version::{self, Version};

/// A network configuration: a list of plugins.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// The network's name.
    pub name: String,
    /// The version that the plugins are given, empty when the list names none.
    pub version: String,
    /// CHECK is not to be called.
    pub disable_check: bool,
    /// GC is not to be called.
    pub disable_gc: bool,
    /// The plugins' configurations as written, in the order of ADD. Each is an object with a `type`.
    pub plugins: Vec<Value>,
    /// The list as written.
    pub(super) bytes: Vec<u8>,
}

impl Network {
    /// Reads a `.conflist`, `.conf` or `.json` file. Unless `loadOnlyInlinedPlugins` is true, every `*.conf`
    /// in the directory beside it that has the network's name is a further plugin, in lexical order.
    ///
    /// # Errors
    /// Code 5 when a file cannot be read, 6 when it is no JSON, 7 when it is no network configuration.
    pub fn load(path: &Path) -> Result<Network, Error> {
        Self::resolve(read(path)?, path.parent())
            .map_err(|error| Error { msg: format!("{}: {}", path.display(), error.msg), ..error })
    }

    /// Reads the network that a container runtime takes: of the files of a directory that may be configurations (`.conf`,
    /// `.conflist`, `.json`) the first by name.
    ///
    /// # Errors
    /// Code 5 when the directory has none or cannot be read, else as [`Network::load`].
    pub fn load_first(dir: &Path) -> Result<Network, Error> {
        let failed = |text: String| Error::new(code::IO, text);
        let entries =
            std::fs::read_dir(dir).map_err(|err| failed(format!("read {}: {err}", dir.display())))?;
        let is_one = |path: &PathBuf| {
            path.extension().is_some_and(|it| ["conf", "conflist", "json"].iter().any(|known| it == *known))
        };
        let first = entries.flatten().map(|entry| entry.path()).filter(is_one).min();
        let none = || failed(format!("no network configuration in {}", dir.display()));
        Network::load(&first.ok_or_else(none)?)
    }

    /// Reads a list, or a single plugin's configuration, which makes a list of one.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn parse(bytes: &[u8]) -> Result<Network, Error> {
        Self::resolve(bytes.to_vec(), None)
    }

    fn resolve(bytes: Vec<u8>, dir: Option<&Path>) -> Result<Network, Error> {
        let list = object(&bytes)?;
        let name = match list.get("name") {
            None => return Err(invalid("no name")),
            Some(Value::String(name)) if name.is_empty() => return Err(invalid("missing network name")),
            Some(Value::String(name)) if is_identifier(name) => name.clone(),
            Some(other) => {
                return Err(
                    invalid("invalid characters found in network name").with_details(other.to_string())
                );
            }
        };
        let version = choose_version(&list)?;
        let disable_check = flag(&list, "disableCheck")?;
        let disable_gc = flag(&list, "disableGC")?;
        let plugins = if list.contains_key("type") && !list.contains_key("plugins") {
            let single = Value::Object(list);
            plugin_type(&single)?;
            vec![single]
        } else {
            plugins(&list, dir.map(|dir| dir.join(&name)))?
        };
        Ok(Network { name, version, disable_check, disable_gc, plugins, bytes })
    }

    /// The version as the library knows it; an unknown one is taken for the newest.
    pub(super) fn known_version(&self) -> Version {
        Version::of_config(&self.version).unwrap_or(Version::CURRENT)
    }

    /// Whether the version is `since` or newer.
    pub(super) fn is_at_least(&self, since: Version) -> Result<bool, Error> {
        let order = version::compare(&self.version, since.as_str());
        order.map(|order| order.is_ge()).map_err(|error| Error::new(code::DECODING, error))
    }
}

fn invalid(msg: impl Into<String>) -> Error {
    Error::new(code::INVALID_CONFIG, msg)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::new(code::IO, format!("read {}: {error}", path.display())))
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::new(code::DECODING, format!("parse network configuration: {error}")))
}

/// `type` of a plugin's configuration.
pub(super) fn plugin_type(plugin: &Value) -> Result<&str, Error> {
    let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() { Err(invalid("plugin configuration without a type")) } else { Ok(kind) }
}

/// All plugins: those in the list, then those in the network's own directory.
fn plugins(list: &Map<String, Value>, dir: Option<PathBuf>) -> Result<Vec<Value>, Error> {
    let only_inlined = flag(list, "loadOnlyInlinedPlugins")?;
    let mut plugins = match list.get("plugins") {
        Some(Value::Array(plugins)) if plugins.is_empty() => return Err(invalid("no plugins in list")),
        Some(Value::Array(plugins)) => plugins.clone(),
        Some(other) => return Err(invalid(format!("plugins is no list: {other}"))),
        None if only_inlined => {
            return Err(invalid("loadOnlyInlinedPlugins is true, and no plugins key"));
        }
        None => Vec::new(),
    };
    if let Some(dir) = dir.filter(|_| !only_inlined) {
        for file in conf_files(&dir)? {
            plugins.push(Value::Object(object(&read(&file)?)?));
        }
    }
    if plugins.is_empty() {
        return Err(invalid("no plugin configs found"));
    }
    for (position, plugin) in plugins.iter().enumerate() {
        plugin_type(plugin).map_err(|error| invalid(format!("plugin {position}: {}", error.msg)))?;
    }
    Ok(plugins)
}

/// The `*.conf` files of a directory in lexical order; none when there is no such directory.
fn conf_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let refuse = |error| Error::new(code::IO, format!("read directory {}: {error}", dir.display()));
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(refuse)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(refuse)?.path();
        if path.extension() == Some(OsStr::new("conf")) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A boolean, or `"true"` or `"false"` in any case.
fn flag(list: &Map<String, Value>, key: &str) -> Result<bool, Error> {
    match list.get(key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(invalid(format!("{key} is neither true nor false: {other}"))),
    }
}

/// With `cniVersions`, the highest of it and `cniVersion` that this library speaks; else `cniVersion` as it
/// stands.
fn choose_version(list: &Map<String, Value>) -> Result<String, Error> {
    let single = match list.get("cniVersion") {
        None => "",
        Some(Value::String(text)) => text,
        Some(other) => return Err(invalid(format!("cniVersion is no string: {other}"))),
    };
    let Some(several) = list.get("cniVersions") else { return Ok(single.to_owned()) };
    let Value::Array(several) = several else {
        return Err(invalid(format!("cniVersions is no list: {several}")));
    };
    let mut best: Option<(&str, [u64; 3])> = None;
    for version in
        several.iter().map(Value::as_str).chain(Some(single).filter(|text| !text.is_empty()).map(Some))
    {
        let text = version.ok_or_else(|| invalid("cniVersions holds something else than strings"))?;
        let numbers = version::numbers(text).map_err(invalid)?;
        let known = version::numbers(Version::CURRENT.as_str()).map_err(invalid)?;
        if numbers <= known && best.is_none_or(|(_, best)| best <= numbers) {
            best = Some((text, numbers));
        }
    }
    Ok(best.map_or(single, |(text, _)| text).to_owned())
}
