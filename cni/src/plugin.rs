//! The plugin side: from environment and stdin to a verb of a [`Plugin`] and its output.
//!
//! [`run`] does what the reference's skel does, in its order and with its codes and sentences, and mends
//! two things: the check that CNI_NETNS is not the plugin's own namespace comes before the verb instead of
//! after it, and an ADD that fails in any way, printing included, is undone. It starts no process, changes
//! no namespace, and catches no panic (see [`report_panics`]).

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::conf::Conf;
use crate::env::{Env, is_identifier};
use crate::error::{Error, code};
use crate::json::{self, Json};
use crate::result::{CniResult, version_text};
use crate::undo::Undo;
use crate::version::{self, Version};

/// What a plugin does for each verb of the specification.
///
/// DEL and GC go on after an error, report all of them in one, and count what is absent as success.
pub trait Plugin: Sync {
    /// The plugin's name, as in `type`.
    fn name(&self) -> &'static str;

    /// The plugin's own version, for the text that is printed when CNI_COMMAND is unset.
    fn version(&self) -> &'static str {
        concat!("v", env!("CARGO_PKG_VERSION"))
    }

    /// The versions of the specification it takes.
    fn versions(&self) -> &'static [Version] {
        Version::ALL
    }

    /// Adds the container to the network. Every step taken is pushed to `undo`.
    ///
    /// # Errors
    /// Whatever kept it from doing so; the caller runs `undo`.
    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error>;

    /// Removes the container from the network.
    ///
    /// # Errors
    /// What is still there and why.
    fn del(&self, call: &Call) -> Result<(), Error>;

    /// Checks that what ADD made is still as it was.
    ///
    /// # Errors
    /// What is missing or changed.
    fn check(&self, call: &Call) -> Result<(), Error>;

    /// Removes what belongs to no attachment in [`Conf::valid_attachments`].
    ///
    /// # Errors
    /// What is still there and why.
    fn gc(&self, call: &Call) -> Result<(), Error>;

    /// Tells whether ADD could be served.
    ///
    /// # Errors
    /// Why not: codes 50 and 51.
    fn status(&self, call: &Call) -> Result<(), Error>;
}

/// One call of a plugin.
#[derive(Clone, Debug)]
pub struct Call {
    /// The variables.
    pub env: Env,
    /// The configuration.
    pub conf: Conf,
    /// stdin as it was received, for delegates.
    pub stdin: Vec<u8>,
    /// The version of the configuration.
    pub version: Version,
}

impl Call {
    /// The call of `env.command` with the configuration in `stdin`.
    ///
    /// # Errors
    /// As [`Conf::parse`].
    pub fn new(env: Env, stdin: Vec<u8>) -> Result<Call, Error> {
        let conf = Conf::parse(&stdin, &env.command)?;
        Ok(Call { version: conf.cni_version, env, conf, stdin })
    }

    /// The directories of CNI_PATH; empty ones are left out.
    pub fn cni_path(&self) -> Vec<PathBuf> {
        self.env.path.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect()
    }

    /// The configuration as `T`, which names the keys of one plugin; see [`Conf::read_as`].
    ///
    /// # Errors
    /// Code 6; the text names the key, what was expected and what stood there.
    pub fn conf_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.conf.read_as()
    }
}

/// Runs one call and returns the exit code of the process: 0, or 1 with the error object on `stdout`.
///
/// `stderr` gets the log, and what the plugin is when CNI_COMMAND is unset.
pub fn run(
    plugin: &dyn Plugin,
    env: Env,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    let mut version = Version::CURRENT;
    let outcome = dispatch(plugin, env, &mut version, stdin, stdout, stderr);
    let Err(error) = outcome else { return 0 };
    // When nobody takes the error object either, the exit code is all that is left to tell.
    let _ = print(stdout, &error.render(version));
    1
}

/// Makes a panic of this process print a CNI error object of code 999 on stdout and exit with 1, as the
/// specification wants of every failure. Meant for the first lines of a plugin's main; undo does not run.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        // Neither stream is worth a second panic.
        let _ = writeln!(std::io::stderr(), "{info}");
        let text = Error::internal(format!("plugin panicked: {info}")).render(Version::CURRENT);
        let _ = print(&mut std::io::stdout(), &text);
        std::process::exit(1);
    }));
}

fn dispatch(
    plugin: &dyn Plugin,
    env: Env,
    version: &mut Version,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), Error> {
    if env.command.is_empty() {
        about(plugin, stderr);
        return Ok(());
    }
    env.validate()?;
    if env.command == "VERSION" {
        return print_version(plugin, stdout);
    }
    // Room for most configurations, or it would be read in pieces of 32 bytes and more.
    let mut bytes = Vec::with_capacity(4096);
    stdin
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(code::IO, format!("error reading from stdin: {error}")))?;
    let document = validate_name(&bytes)?;
    let verb = env.command.clone();
    match verb.as_str() {
        "ADD" => add(plugin, &prepare(plugin, env, document, bytes, version)?, stdout, stderr),
        "DEL" => {
            let call = prepare(plugin, env, document, bytes, version)?;
            if let Some(error) = &call.conf.prev_result_error {
                // The log is best effort.
                let _ = writeln!(stderr, "DEL goes on without prevResult: {error}");
            }
            plugin.del(&call)
        }
        "CHECK" => {
            allowed(plugin, &document, "CHECK", Version::V0_4_0)?;
            plugin.check(&prepare(plugin, env, document, bytes, version)?)
        }
        "GC" => {
            allowed(plugin, &document, "GC", Version::V1_1_0)?;
            plugin.gc(&prepare(plugin, env, document, bytes, version)?)
        }
        "STATUS" => {
            allowed(plugin, &document, "STATUS", Version::V1_1_0)?;
            plugin.status(&prepare(plugin, env, document, bytes, version)?)
        }
        _ => Err(Error::new(code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {verb}"))),
    }
}

/// The last checks, which all verbs share, and the call that the plugin gets. `version` is set as soon as
/// it is known, so that errors are printed in it.
fn prepare(
    plugin: &dyn Plugin,
    env: Env,
    document: Json,
    stdin: Vec<u8>,
    version: &mut Version,
) -> Result<Call, Error> {
    *version = supported(plugin, &config_version(&document)?)?;
    if matches!(env.command.as_str(), "ADD" | "DEL") {
        refuse_own_netns(&env)?;
    }
    let conf = Conf::from_document(document, &env.command)?;
    Ok(Call { version: *version, env, conf, stdin })
}

/// ADD up to the last byte printed; whatever goes wrong, the plugin's steps are taken back.
fn add(
    plugin: &dyn Plugin,
    call: &Call,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), Error> {
    let mut undo = Undo::new();
    let printed = plugin
        .add(call, &mut undo)
        .and_then(|result| result.render(call.version))
        .and_then(|text| print(stdout, &text));
    if printed.is_err() {
        undo.run(stderr);
    }
    printed
}

fn list(versions: &[Version], separator: &str, quote: &str) -> String {
    let texts: Vec<String> = versions.iter().map(|version| format!("{quote}{version}{quote}")).collect();
    texts.join(separator)
}

fn about(plugin: &dyn Plugin, stderr: &mut dyn Write) {
    let supported = list(plugin.versions(), ", ", "");
    // Written for people; when stderr is closed there is nobody to tell.
    let _ = write!(
        stderr,
        "CNI {} plugin {}\nCNI protocol versions supported: {supported}\n",
        plugin.name(),
        plugin.version()
    );
}

fn print(stdout: &mut dyn Write, text: &str) -> Result<(), Error> {
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::new(code::IO, format!("error writing to stdout: {error}")))
}

fn print_version(plugin: &dyn Plugin, stdout: &mut dyn Write) -> Result<(), Error> {
    let supported = plugin.versions().iter().map(|version| Json::from(version.as_str())).collect();
    let json = Json::Object(vec![
        ("cniVersion".to_owned(), Json::from(Version::CURRENT.as_str())),
        ("supportedVersions".to_owned(), Json::Array(supported)),
    ]);
    print(stdout, &(json.to_compact() + "\n"))
}

/// Parses stdin and checks the network's name, for every verb.
fn validate_name(bytes: &[u8]) -> Result<Json, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Named {
        name: String,
    }
    let refuse =
        |error: json::Error| Error::new(code::DECODING, format!("error unmarshall network config: {error}"));
    let document = Json::parse(bytes).map_err(refuse)?;
    let name = json::from_json::<Named>(&document).map_err(refuse)?.name;
    if name.is_empty() {
        return Err(Error::new(code::INVALID_CONFIG, "missing network name"));
    }
    if !is_identifier(&name) {
        let msg = "invalid characters found in network name";
        return Err(Error::new(code::INVALID_CONFIG, msg).with_details(name));
    }
    Ok(document)
}

/// The text of `cniVersion`; without one, 0.1.0.
fn config_version(document: &Json) -> Result<String, Error> {
    let text = version_text(document).map_err(|error| {
        Error::new(code::DECODING, format!("decoding version from network config: {error}"))
    })?;
    Ok(if text.is_empty() { Version::V0_1_0.as_str().to_owned() } else { text })
}

/// The version with exactly this text in the plugin's list.
fn supported(plugin: &dyn Plugin, text: &str) -> Result<Version, Error> {
    let found = plugin.versions().iter().copied().find(|version| version.as_str() == text);
    found.ok_or_else(|| {
        let known = list(plugin.versions(), " ", "\"");
        Error::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions")
            .with_details(format!("config is {text:?}, plugin supports [{known}]"))
    })
}

/// Checks that configuration and plugin are new enough for `verb`, which came with version `since`.
fn allowed(plugin: &dyn Plugin, document: &Json, verb: &str, since: Version) -> Result<(), Error> {
    let text = config_version(document)?;
    let compare =
        |a: &str, b: &str| version::compare(a, b).map_err(|error| Error::new(code::DECODING, error));
    let refuse =
        |who: &str| Error::new(code::INCOMPATIBLE_VERSION, format!("{who} version does not allow {verb}"));
    if compare(&text, since.as_str())?.is_lt() {
        return Err(refuse("config"));
    }
    for version in plugin.versions() {
        if compare(version.as_str(), &text)?.is_ge() {
            return Ok(());
        }
    }
    Err(refuse("plugin"))
}

/// Refuses a CNI_NETNS that is the namespace this thread is in: the plugin would work on the host's own
/// interfaces. A path that cannot be looked at is left to the plugin.
fn refuse_own_netns(env: &Env) -> Result<(), Error> {
    if env.netns.is_empty() || env.overrides_netns() {
        return Ok(());
    }
    let identity = |path: &str| std::fs::metadata(Path::new(path)).map(|meta| (meta.dev(), meta.ino()));
    let Ok(theirs) = identity(&env.netns) else { return Ok(()) };
    let own = identity("/proc/thread-self/ns/net")
        .map_err(|error| Error::new(code::INVALID_NETNS, format!("get plugin's netns: {error}")))?;
    if theirs == own {
        let msg = "plugin's netns and netns from CNI_NETNS should not be the same";
        return Err(Error::new(code::INVALID_NETNS, msg));
    }
    Ok(())
}
