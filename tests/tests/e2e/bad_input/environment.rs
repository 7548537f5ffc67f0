//! The CNI_* variables: `facts/upstream.md` 1.1 and 1.2.

use super::{Bad, conf, raw};

const IPAM: &str = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

pub(super) fn cases() -> Vec<Bad> {
    let mut cases = missing();
    cases.extend(invalid());
    cases.extend(commands());
    cases.extend(namespaces());
    cases
}

fn missing() -> Vec<Bad> {
    let mut cases = Vec::new();
    for plugin in ["bridge", "host-local"] {
        for (verb, keys) in [
            ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"][..]),
            ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
            ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ] {
            for key in keys {
                cases.push(
                    conf(plugin, format!("without {key}"), IPAM)
                        .verb(verb)
                        .without(key)
                        .says(4, format!("required env variables [{key}] missing")),
                );
            }
        }
    }
    for verb in ["GC", "STATUS"] {
        cases.push(
            conf("bridge", "without CNI_PATH", IPAM)
                .verb(verb)
                .version("1.1.0")
                .without("CNI_PATH")
                .says(4, "required env variables [CNI_PATH] missing")
                .other_words(),
        );
    }
    cases.push(
        conf("bridge", "without any of the four", IPAM)
            .without("CNI_CONTAINERID")
            .without("CNI_NETNS")
            .without("CNI_IFNAME")
            .without("CNI_PATH")
            .says(4, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"),
    );
    cases.push(
        conf("bridge", "empty counts as missing", IPAM)
            .env("CNI_CONTAINERID", "")
            .env("CNI_NETNS", "")
            .says(4, "required env variables [CNI_CONTAINERID,CNI_NETNS] missing"),
    );
    cases.push(
        conf("loopback", "without CNI_NETNS", "{}")
            .without("CNI_NETNS")
            .says(4, "required env variables [CNI_NETNS] missing"),
    );
    cases
}

fn invalid() -> Vec<Bad> {
    let mut cases = Vec::new();
    for id in ["a b", "../../etc", "-x", ".x", "c0/", "ä", "c0\nc1", "_x"] {
        cases.push(
            conf("host-local", format!("container id {id:?}"), IPAM)
                .env("CNI_CONTAINERID", id)
                .says(4, "invalid characters in containerID"),
        );
    }
    cases.push(
        conf("bridge", "container id on DEL", IPAM)
            .verb("DEL")
            .env("CNI_CONTAINERID", "a/b")
            .says(4, "invalid characters in containerID"),
    );
    for (name, says) in [
        ("sixteen-letters-", "interface name is too long"),
        ("äääääääää", "interface name is too long"),
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        ("a/b", "interface name contains / or : or whitespace characters"),
        ("a:b", "interface name contains / or : or whitespace characters"),
        ("a b", "interface name contains / or : or whitespace characters"),
        ("a\tb", "interface name contains / or : or whitespace characters"),
        ("a\u{a0}b", "interface name contains / or : or whitespace characters"),
        ("a\u{2003}b", "interface name contains / or : or whitespace characters"),
    ] {
        cases.push(
            conf("bridge", format!("interface name {name:?}"), IPAM).env("CNI_IFNAME", name).says(4, says),
        );
    }
    cases.push(
        conf("bridge", "interface name on CHECK", IPAM)
            .verb("CHECK")
            .env("CNI_IFNAME", "a/b")
            .says(4, "interface name contains"),
    );
    cases.push(
        conf("bridge", "a bad container id before a missing interface name", IPAM)
            .env("CNI_CONTAINERID", "a b")
            .without("CNI_IFNAME")
            .says(4, "invalid characters in containerID")
            .other_words(),
    );
    cases.push(
        conf("bridge", "a bad interface name after a missing namespace", IPAM)
            .without("CNI_NETNS")
            .env("CNI_IFNAME", "..")
            .says(4, "interface name is . or ..")
            .other_words(),
    );
    cases
}

fn commands() -> Vec<Bad> {
    let mut cases = Vec::new();
    for command in ["FOO", "add", "ADD ", "VERSION2"] {
        cases.push(
            conf("bridge", format!("command {command:?}"), IPAM)
                .env("CNI_COMMAND", command)
                .says(4, format!("unknown CNI_COMMAND: {command}")),
        );
    }
    cases.push(
        raw("host-local", "broken JSON before an unknown command", "{")
            .env("CNI_COMMAND", "FOO")
            .says(6, "error unmarshall network config"),
    );
    cases.push(
        raw("host-local", "no network name before an unknown command", "{}")
            .env("CNI_COMMAND", "FOO")
            .says(7, "missing network name"),
    );
    cases
}

/// CNI_NETNS that is no network namespace.
fn namespaces() -> Vec<Bad> {
    let mut cases = Vec::new();
    for plugin in ["bridge", "loopback"] {
        let text = if plugin == "bridge" { IPAM } else { "{}" };
        let case = |name: &str| conf(plugin, format!("CNI_NETNS is {name}"), text);
        cases.push(
            case("missing").env("CNI_NETNS", "@DIR@/none").says(8, "no such file or directory").other_words(),
        );
        cases.push(
            case("a plain file")
                .prepare(|world| Ok(std::fs::write(world.dir().join("file"), "x")?))
                .env("CNI_NETNS", "@DIR@/file")
                .says(8, "unknown FS magic on \"@DIR@/file\"")
                .other_words(),
        );
        cases.push(case("a directory").env("CNI_NETNS", "@DIR@").says(8, "unknown FS magic on").same_words());
        cases
            .push(case("a device").env("CNI_NETNS", "/dev/null").says(8, "unknown FS magic on").same_words());
        cases.push(
            case("another kind of namespace")
                .env("CNI_NETNS", "/proc/self/ns/uts")
                .says(8, "netns")
                .other_words(),
        );
        cases.push(case("a file of procfs").env("CNI_NETNS", "/proc/version").says(8, "netns").other_words());
        cases.push(
            case("the plugin's own")
                .env("CNI_NETNS", "@HOST@")
                .says(8, "plugin's netns and netns from CNI_NETNS should not be the same")
                .ours_alone(),
        );
        cases.push(
            case("below a file").env("CNI_NETNS", "/proc/version/x").says(8, "not a directory").other_words(),
        );
    }
    cases.push(
        conf("bridge", "CNI_NETNS is a plain file", r#"{"ipam":{"type":"static"}}"#)
            .verb("CHECK")
            .env("CNI_NETNS", "/etc/hostname")
            .says(8, "unknown FS magic on")
            .other_words(),
    );
    cases
}
