//! The environment variables of a call, and which of them a verb needs (upstream's skel, in its order).
//!
//! CNI_ARGS is kept as one text: each plugin has keys of its own, see [`crate::args`].

use crate::error::{Error, code};

/// The CNI variables; an empty text and an unset variable are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// CNI_COMMAND: the verb.
    pub command: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS: path of the container's network namespace.
    pub netns: String,
    /// CNI_IFNAME: name of the interface in the container.
    pub ifname: String,
    /// CNI_ARGS: `KEY=VALUE;KEY=VALUE`.
    pub args: String,
    /// CNI_PATH: directories of plugins, separated by `:`.
    pub path: String,
    /// CNI_NETNS_OVERRIDE: `1` or `true` allows CNI_NETNS to be the plugin's own.
    pub netns_override: String,
}

impl Env {
    /// The variables of this process. What is not UTF-8 has U+FFFD in its place.
    pub fn from_process() -> Self {
        let read = |name| std::env::var_os(name).unwrap_or_default().to_string_lossy().into_owned();
        Self {
            command: read("CNI_COMMAND"),
            container_id: read("CNI_CONTAINERID"),
            netns: read("CNI_NETNS"),
            ifname: read("CNI_IFNAME"),
            args: read("CNI_ARGS"),
            path: read("CNI_PATH"),
            netns_override: read("CNI_NETNS_OVERRIDE"),
        }
    }

    /// Names and values, in the order of the specification.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 7] {
        [
            ("CNI_COMMAND", &self.command),
            ("CNI_CONTAINERID", &self.container_id),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", &self.ifname),
            ("CNI_ARGS", &self.args),
            ("CNI_PATH", &self.path),
            ("CNI_NETNS_OVERRIDE", &self.netns_override),
        ]
    }

    /// Checks what the verb needs. An invalid value is reported at once, missing ones together.
    ///
    /// # Errors
    /// Code 4.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let attachment = matches!(self.command.as_str(), "ADD" | "CHECK" | "DEL");
        let plugins = attachment || matches!(self.command.as_str(), "GC" | "STATUS");
        let netns = matches!(self.command.as_str(), "ADD" | "CHECK");
        let mut missing = Vec::new();
        for (name, value) in self.variables() {
            let required = match name {
                "CNI_COMMAND" => true,
                "CNI_CONTAINERID" | "CNI_IFNAME" => attachment,
                "CNI_NETNS" => netns,
                "CNI_PATH" => plugins,
                _ => false,
            };
            match name {
                _ if !required => {}
                _ if value.is_empty() => missing.push(name),
                "CNI_CONTAINERID" => validate_container_id(value)?,
                "CNI_IFNAME" => validate_ifname(value)?,
                _ => {}
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.join(",");
        Err(Error::new(code::INVALID_ENVIRONMENT, format!("required env variables [{names}] missing")))
    }

    /// Whether CNI_NETNS may be the plugin's own namespace.
    pub(crate) fn overrides_netns(&self) -> bool {
        self.netns_override == "1" || self.netns_override.eq_ignore_ascii_case("true")
    }
}

/// The form of container ids and network names: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Checks the form of a container id.
pub(crate) fn validate_container_id(id: &str) -> Result<(), Error> {
    if is_identifier(id) {
        return Ok(());
    }
    Err(Error::new(code::INVALID_ENVIRONMENT, "invalid characters in containerID").with_details(id))
}

/// Checks the form of an interface name, as the kernel does.
pub(crate) fn validate_ifname(name: &str) -> Result<(), Error> {
    let refuse = |msg: &str| Error::new(code::INVALID_ENVIRONMENT, msg);
    if name.is_empty() {
        return Err(refuse("interface name is empty"));
    }
    if name.len() > 15 {
        return Err(refuse("interface name is too long")
            .with_details("interface name should be less than 16 characters"));
    }
    if name == "." || name == ".." {
        return Err(refuse("interface name is . or .."));
    }
    if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Err(refuse("interface name contains / or : or whitespace characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(command: &str) -> Env {
        Env {
            command: command.into(),
            container_id: "c1".into(),
            netns: "/proc/1/ns/net".into(),
            ifname: "eth0".into(),
            path: "/opt/cni/bin".into(),
            ..Env::default()
        }
    }

    #[test]
    fn missing_variables_are_reported_together_and_in_order() {
        let table = [
            ("", "CNI_COMMAND"),
            ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
            ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
            ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
            ("GC", "CNI_PATH"),
            ("STATUS", "CNI_PATH"),
        ];
        for (command, names) in table {
            let error = Env { command: command.into(), ..Env::default() }.validate().unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT);
            assert_eq!(error.msg, format!("required env variables [{names}] missing"), "{command}");
        }
        for command in ["VERSION", "JUMP"] {
            Env { command: command.into(), ..Env::default() }.validate().unwrap();
        }
        for command in ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"] {
            full(command).validate().unwrap();
        }
    }

    #[test]
    fn an_invalid_value_wins_over_missing_ones() {
        let cases = [
            (
                Env { container_id: "a b".into(), ifname: String::new(), ..full("ADD") },
                "invalid characters in containerID",
            ),
            (
                Env { netns: String::new(), ifname: "a/b".into(), ..full("ADD") },
                "interface name contains / or : or whitespace characters",
            ),
        ];
        for (env, msg) in cases {
            assert_eq!(env.validate().unwrap_err().msg, msg);
        }
    }

    #[test]
    fn values_that_a_verb_does_not_need_are_not_looked_at() {
        for command in ["GC", "STATUS", "VERSION", "JUMP"] {
            let env = Env { container_id: "/".into(), ifname: "a b".into(), ..full(command) };
            env.validate().unwrap();
        }
    }

    #[test]
    fn container_ids_have_the_form_of_the_reference() {
        for good in ["a", "0", "A_b.c-d", "cnitool-77383ca0a0715733ca6f", &"x".repeat(300)] {
            validate_container_id(good).unwrap();
        }
        for bad in ["", "_a", ".a", "-a", "a/b", "a b", "a\n", "é", "a;b", "..", "\u{212A}"] {
            let error = validate_container_id(bad).unwrap_err();
            assert_eq!((error.code, error.details.as_str()), (code::INVALID_ENVIRONMENT, bad));
        }
    }

    #[test]
    fn interface_names_have_the_form_of_the_kernel() {
        for good in ["eth0", "a", "...", "123456789012345", "é"] {
            validate_ifname(good).unwrap();
        }
        let table = [
            ("1234567890123456", "interface name is too long"),
            ("éééééééé", "interface name is too long"),
            (".", "interface name is . or .."),
            ("..", "interface name is . or .."),
            ("a:1", "interface name contains / or : or whitespace characters"),
            ("a\u{2003}b", "interface name contains / or : or whitespace characters"),
            ("a\n", "interface name contains / or : or whitespace characters"),
        ];
        for (name, msg) in table {
            assert_eq!(validate_ifname(name).unwrap_err().msg, msg, "{name:?}");
        }
    }

    #[test]
    fn netns_override_is_one_or_true() {
        for (text, allowed) in
            [("1", true), ("true", true), ("TRUE", true), ("", false), ("0", false), ("yes", false)]
        {
            assert_eq!(Env { netns_override: text.into(), ..Env::default() }.overrides_netns(), allowed);
        }
    }
}
