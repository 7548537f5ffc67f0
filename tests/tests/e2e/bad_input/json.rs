//! stdin that is not JSON, not an object, or has keys of the wrong type or value that every plugin has.

use super::{Bad, conf, raw};

pub(super) fn cases() -> Vec<Bad> {
    let mut cases = broken();
    cases.extend(names());
    cases.extend(versions());
    cases.extend(big());
    cases
}

fn broken() -> Vec<Bad> {
    let mut cases = Vec::new();
    for (name, text) in [
        ("empty stdin", ""),
        ("white space", " \n\t"),
        ("an open brace", "{"),
        ("half a configuration", r#"{"cniVersion":"1.0.0","name":"testnet","ipam":{"type":"host-lo"#),
        ("half a word", "nul"),
        ("an array", r#"[{"name":"testnet"}]"#),
        ("a text", r#""testnet""#),
        ("a number", "5"),
        ("true", "true"),
        ("no value", r#"{"name":}"#),
        ("no colon", r#"{"name" "testnet"}"#),
        ("a comma too much", r#"{"name":"testnet",}"#),
        ("single quotes", "{'name':'testnet'}"),
        ("a remark", "{\"name\":\"testnet\" // x\n}"),
        ("two documents", r#"{"name":"testnet"}{"name":"testnet"}"#),
        ("text after the document", r#"{"name":"testnet"} x"#),
        ("a byte order mark", "\u{feff}{\"name\":\"testnet\"}"),
        ("a control character in a text", "{\"name\":\"test\nnet\"}"),
        ("a wrong escape", r#"{"name":"\x41"}"#),
        ("half a unicode escape", r#"{"name":"\u12"}"#),
        ("NaN", r#"{"name":"testnet","mtu":NaN}"#),
        ("a number with a leading zero", r#"{"name":"testnet","mtu":01500}"#),
        ("a number without digits", r#"{"name":"testnet","mtu":-}"#),
        ("an open text", r#"{"name":"testnet"#),
        ("a NUL byte", "\0"),
    ] {
        cases.push(raw("bridge", name, text).says(6, "error unmarshall network config: "));
    }
    for plugin in ["host-local", "static", "loopback"] {
        cases.push(raw(plugin, "an open brace", "{").says(6, "error unmarshall network config: "));
        cases.push(raw(plugin, "an array", "[]").says(6, "error unmarshall network config: "));
    }
    for verb in ["DEL", "CHECK"] {
        cases.push(
            raw("bridge", "an open brace", "{").verb(verb).says(6, "error unmarshall network config: "),
        );
    }
    for verb in ["GC", "STATUS"] {
        cases.push(
            raw("bridge", "an open brace", "{").verb(verb).says(6, "error unmarshall network config: "),
        );
    }
    cases
}

fn names() -> Vec<Bad> {
    let mut cases = vec![
        raw("bridge", "no name", r#"{"cniVersion":"1.0.0"}"#).says(7, "missing network name"),
        raw("bridge", "null for a configuration", "null").says(7, "missing network name"),
        raw("bridge", "an empty name", r#"{"cniVersion":"1.0.0","name":""}"#).says(7, "missing network name"),
        raw("bridge", "null for a name", r#"{"cniVersion":"1.0.0","name":null}"#)
            .says(7, "missing network name"),
    ];
    for name in ["a b", "../x", "a/b", ".x", "é", "-", "a\\u0000b"] {
        cases.push(
            raw(
                "host-local",
                format!("network name {name:?}"),
                format!(r#"{{"cniVersion":"1.0.0","name":"{name}"}}"#),
            )
            .says(7, "invalid characters found in network name"),
        );
    }
    for value in ["5", "true", "[]", "{}", r#"["testnet"]"#] {
        cases.push(
            raw(
                "host-local",
                format!("{value} for a name"),
                format!(r#"{{"cniVersion":"1.0.0","name":{value}}}"#),
            )
            .says(6, "error unmarshall network config: "),
        );
    }
    cases
}

fn versions() -> Vec<Bad> {
    let mut cases = Vec::new();
    let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
    for plugin in ["bridge", "host-local", "static", "loopback"] {
        cases.push(conf(plugin, "version 2.0.0", text).version("2.0.0").says(1, "incompatible CNI versions"));
    }
    for version in ["1.0", "1.0.1", "v1.0.0", "1.1.0.0", " 1.0.0", "1.0.0-rc1", "0.5.0", "abc", "1", "٠.١.٠"]
    {
        for verb in ["ADD", "DEL"] {
            cases.push(
                conf("host-local", format!("version {version:?}"), text)
                    .verb(verb)
                    .version(version)
                    .says(1, "incompatible CNI versions"),
            );
        }
    }
    cases.push(
        conf("bridge", "the details name the versions", text).version("9.9.9").says(
            1,
            r#"config is "9.9.9", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0""#,
        ),
    );
    for value in ["1", "true", "[]", "{}", r#"["1.0.0"]"#] {
        cases.push(
            raw(
                "bridge",
                format!("{value} for a version"),
                format!(r#"{{"name":"testnet","cniVersion":{value}}}"#),
            )
            .says(6, "decod")
            .other_words(),
        );
    }
    for version in ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1"] {
        cases.push(
            conf("host-local", format!("CHECK with version {version:?}"), text)
                .verb("CHECK")
                .version(version)
                .says(1, "config version does not allow CHECK"),
        );
    }
    cases.push(
        conf("bridge", "CHECK with a version to come", text)
            .verb("CHECK")
            .version("9.9.9")
            .says(1, "plugin version does not allow CHECK"),
    );
    cases.push(
        conf("bridge", "CHECK with a version between", text)
            .verb("CHECK")
            .version("0.5.0")
            .says(1, "incompatible CNI versions"),
    );
    for version in ["abc", "1.0.0.0", "1.x"] {
        cases.push(
            conf("bridge", format!("CHECK with version {version:?}"), text)
                .verb("CHECK")
                .version(version)
                .says(6, "")
                .other_words(),
        );
    }
    for verb in ["GC", "STATUS"] {
        for version in ["", "0.4.0", "1.0.0"] {
            cases.push(
                conf("bridge", format!("version {version:?}"), text)
                    .verb(verb)
                    .version(version)
                    .says(1, format!("config version does not allow {verb}"))
                    .other_words(),
            );
        }
        cases.push(
            conf("bridge", "a version to come", text)
                .verb(verb)
                .version("1.2.0")
                .says(1, format!("plugin version does not allow {verb}"))
                .other_words(),
        );
    }
    cases
}

fn big() -> Vec<Bad> {
    let head = r#"{"cniVersion":"1.0.0","name":"testnet","type":"host-local","future":"#;
    vec![
        raw(
            "host-local",
            "two mebibytes without a range",
            format!(r#"{head}"{}","ipam":{{}}}}"#, "x".repeat(2 << 20)),
        )
        .says(7, "no IP ranges specified")
        .same_words(),
        raw("host-local", "two mebibytes cut off", format!("{head}\"{}", "x".repeat(2 << 20)))
            .says(6, "error unmarshall network config: "),
        raw("host-local", "a hundred thousand open arrays", format!("{head}{}", "[".repeat(100_000)))
            .says(6, "error unmarshall network config: "),
        raw(
            "bridge",
            "a hundred thousand nested arrays",
            format!("{head}{}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
        )
        .says(6, "error unmarshall network config: "),
        raw(
            "bridge",
            "twenty thousand nested objects",
            format!("{head}{}1{}}}", "{\"a\":".repeat(20_000), "}".repeat(20_000)),
        )
        .says(6, "error unmarshall network config: "),
    ]
}
