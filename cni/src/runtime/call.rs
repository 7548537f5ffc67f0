//! One call of one plugin, recorded.
//!
//! The child inherits this process's environment and the calling thread's network namespace.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::{Attachment, Runtime, Transcript};
use crate::delegate;
use crate::error::Error;
use crate::process;

/// The CNI variables of a call.
pub(super) struct Variables(Vec<(&'static str, String)>);

impl Variables {
    /// For ADD, CHECK and DEL.
    pub(super) fn of_attachment(attachment: &Attachment) -> Self {
        let args: Vec<String> = attachment.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Self(vec![
            ("CNI_CONTAINERID", attachment.container_id.clone()),
            ("CNI_NETNS", attachment.netns.to_string_lossy().into_owned()),
            ("CNI_IFNAME", attachment.ifname.clone()),
            ("CNI_ARGS", args.join(";")),
        ])
    }

    /// For GC and STATUS: all empty, as libcni does.
    pub(super) fn of_network() -> Self {
        Self::of_attachment(&Attachment::default())
    }

    /// For VERSION, which looks at none of them.
    pub(super) fn of_version() -> Self {
        Self(vec![("CNI_NETNS", "dummy".into()), ("CNI_IFNAME", "dummy".into())])
    }
}

/// The calls made so far for one verb of the runtime.
pub(super) struct Session<'r> {
    pub(super) runtime: &'r Runtime,
    pub(super) calls: Vec<Transcript>,
}

impl Session<'_> {
    /// Calls the plugin `kind` and returns its stdout.
    ///
    /// # Errors
    /// It is not found, cannot be started, or failed: then with the code it printed.
    pub(super) fn call(
        &mut self,
        kind: &str,
        command: &str,
        variables: &Variables,
        stdin: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let plugin = delegate::find(kind, &self.runtime.path)?;
        let env = self.environment(command, variables);
        let mut child = Command::new(&plugin);
        child.envs(env.iter().map(|(name, value)| (name, value)));
        let started = Instant::now();
        let outcome = process::run(&mut child, stdin, self.runtime.timeout);
        let mut transcript = Transcript {
            plugin,
            command: command.to_owned(),
            env,
            stdin: String::from_utf8_lossy(stdin).into_owned(),
            stdout: String::new(),
            stderr: String::new(),
            exit: None,
            signal: None,
            timed_out: false,
            // Whole microseconds: such a number is read back from JSON as it was written.
            ms: started.elapsed().as_micros() as f64 / 1000.0,
        };
        let result = match outcome {
            Ok(output) => {
                transcript.record(&output);
                self.judge(output)
            }
            Err(error) => {
                transcript.stderr = error.to_string();
                Err(Error::internal(format!("run plugin {}: {error}", transcript.plugin.display())))
            }
        };
        self.calls.push(transcript);
        result
    }

    fn judge(&self, output: process::Output) -> Result<Vec<u8>, Error> {
        if output.timed_out {
            let timeout = self.runtime.timeout.unwrap_or_default();
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::internal(format!("killed after {timeout:?}")).with_details(log));
        }
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(delegate::failure(output.status, &output.stdout, &output.stderr))
    }

    fn environment(&self, command: &str, variables: &Variables) -> Vec<(String, String)> {
        let dirs: Vec<String> = self.runtime.path.iter().map(|dir| dir.display().to_string()).collect();
        let mut env = vec![("CNI_COMMAND".to_owned(), command.to_owned())];
        env.extend(variables.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        env.push(("CNI_PATH".to_owned(), dirs.join(":")));
        env
    }
}

impl Transcript {
    fn record(&mut self, output: &process::Output) {
        use std::os::unix::process::ExitStatusExt;
        self.stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        self.stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        self.exit = output.status.code();
        self.signal = output.status.signal();
        self.timed_out = output.timed_out;
    }

    /// The file name of the plugin.
    pub fn plugin_name(&self) -> PathBuf {
        self.plugin.file_name().map(PathBuf::from).unwrap_or_default()
    }
}
