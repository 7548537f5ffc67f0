//! Loading network configurations.

use std::fs;
use std::path::Path;

use cni::runtime::Network;
use cni::{Error, code};

use crate::scripts::Scripts;

fn parse(text: &str) -> Result<Network, Error> {
    Network::parse(text.as_bytes())
}

fn types(network: &Network) -> Vec<&str> {
    network.plugins.iter().map(|plugin| plugin["type"].as_str().unwrap()).collect()
}

#[test]
fn list_and_single_plugin_are_read() {
    let list = parse(
        r#"{"cniVersion":"1.0.0","name":"n","disableCheck":"TRUE","plugins":[{"type":"a","x":1},{"type":"b"}]}"#,
    );
    let list = list.unwrap();
    assert_eq!((list.name.as_str(), list.version.as_str()), ("n", "1.0.0"));
    assert_eq!((list.disable_check, list.disable_gc), (true, false));
    assert_eq!(types(&list), ["a", "b"]);
    assert_eq!(list.plugins[0]["x"], 1);
    let single = parse(r#"{"cniVersion":"0.3.1","name":"n","type":"a","x":1}"#).unwrap();
    assert_eq!(
        (types(&single), single.version.as_str(), &single.plugins[0]["x"]),
        (vec!["a"], "0.3.1", &1.into())
    );
    assert_eq!(parse(r#"{"name":"n","type":"a","disableGC":true}"#).unwrap().version, "");
}

#[test]
fn the_highest_version_that_we_speak_is_chosen() {
    let table = [
        (r#""cniVersion":"1.2.0""#, "1.2.0"),
        (r#""cniVersions":["0.4.0","1.0.0","0.3.1"]"#, "1.0.0"),
        (r#""cniVersions":["0.4.0","1.1.0","1.2.0","2.0.0"]"#, "1.1.0"),
        (r#""cniVersion":"1.1.0","cniVersions":["0.4.0"]"#, "1.1.0"),
        (r#""cniVersion":"0.3.0","cniVersions":["0.4.0"]"#, "0.4.0"),
        (r#""cniVersion":"2.0.0","cniVersions":["0.4.0"]"#, "0.4.0"),
        (r#""cniVersion":"2.0.0","cniVersions":["3.0.0"]"#, "2.0.0"),
        (r#""cniVersions":["0.10.0","0.9.0"]"#, "0.10.0"),
        (r#""cniVersions":[]"#, ""),
    ];
    for (versions, expected) in table {
        let text = format!("{{{versions},\"name\":\"n\",\"plugins\":[{{\"type\":\"a\"}}]}}");
        assert_eq!(parse(&text).unwrap().version, expected, "{versions}");
    }
}

#[test]
fn what_is_no_network_is_refused() {
    let plugins = r#""plugins":[{"type":"a"}]"#;
    let table = [
        ("{".to_owned(), code::DECODING, "parse network configuration: "),
        ("[]".to_owned(), code::DECODING, "parse network configuration: "),
        (format!("{{{plugins}}}"), code::INVALID_CONFIG, "no name"),
        (format!("{{\"name\":\"\",{plugins}}}"), code::INVALID_CONFIG, "missing network name"),
        (
            format!("{{\"name\":\"a/b\",{plugins}}}"),
            code::INVALID_CONFIG,
            "invalid characters found in network name",
        ),
        (
            format!("{{\"name\":5,{plugins}}}"),
            code::INVALID_CONFIG,
            "invalid characters found in network name",
        ),
        (
            format!("{{\"name\":\"n\",\"disableGC\":1,{plugins}}}"),
            code::INVALID_CONFIG,
            "disableGC is neither true nor false: 1",
        ),
        (
            format!("{{\"name\":\"n\",\"cniVersion\":1,{plugins}}}"),
            code::INVALID_CONFIG,
            "cniVersion is no string: 1",
        ),
        (
            format!("{{\"name\":\"n\",\"cniVersions\":\"1.0.0\",{plugins}}}"),
            code::INVALID_CONFIG,
            "cniVersions is no list",
        ),
        (
            format!("{{\"name\":\"n\",\"cniVersions\":[1],{plugins}}}"),
            code::INVALID_CONFIG,
            "cniVersions holds",
        ),
        (
            format!("{{\"name\":\"n\",\"cniVersions\":[\"x\"],{plugins}}}"),
            code::INVALID_CONFIG,
            "version \"x\"",
        ),
        (r#"{"name":"n"}"#.to_owned(), code::INVALID_CONFIG, "no plugin configs found"),
        (r#"{"name":"n","plugins":[]}"#.to_owned(), code::INVALID_CONFIG, "no plugins in list"),
        (r#"{"name":"n","plugins":{}}"#.to_owned(), code::INVALID_CONFIG, "plugins is no list: {}"),
        (
            r#"{"name":"n","plugins":[{"type":"a"},{}]}"#.to_owned(),
            code::INVALID_CONFIG,
            "plugin 1: plugin configuration without a type",
        ),
        (
            r#"{"name":"n","plugins":["a"]}"#.to_owned(),
            code::INVALID_CONFIG,
            "plugin 0: plugin configuration without a type",
        ),
        (r#"{"name":"n","type":5}"#.to_owned(), code::INVALID_CONFIG, "plugin configuration without a type"),
        (
            r#"{"name":"n","loadOnlyInlinedPlugins":true}"#.to_owned(),
            code::INVALID_CONFIG,
            "loadOnlyInlinedPlugins is true, and no plugins key",
        ),
    ];
    for (text, code, msg) in table {
        let error = parse(&text).unwrap_err();
        assert!(error.code == code && error.msg.starts_with(msg), "{text}: {error:?}");
    }
}

#[test]
fn plugins_of_the_networks_directory_come_behind_the_inlined_ones() {
    let dir = Scripts::new();
    let file = dir.dir().join("10-n.conflist");
    let write = |name: &str, text: &str| fs::write(dir.dir().join(name), text).unwrap();
    fs::create_dir(dir.dir().join("n")).unwrap();
    write("n/20-c.conf", r#"{"type":"c"}"#);
    write("n/10-b.conf", r#"{"type":"b"}"#);
    write("n/30-d.json", "no plugin");
    fs::create_dir(dir.dir().join("n/40-e.conf")).unwrap();

    write("10-n.conflist", r#"{"name":"n","plugins":[{"type":"a"}]}"#);
    assert_eq!(types(&Network::load(&file).unwrap()), ["a", "b", "c"]);
    write("10-n.conflist", r#"{"name":"n"}"#);
    assert_eq!(types(&Network::load(&file).unwrap()), ["b", "c"]);
    write("10-n.conflist", r#"{"name":"n","loadOnlyInlinedPlugins":"true","plugins":[{"type":"a"}]}"#);
    assert_eq!(types(&Network::load(&file).unwrap()), ["a"]);
    write("10-n.conflist", r#"{"name":"other","plugins":[{"type":"a"}]}"#);
    assert_eq!(types(&Network::load(&file).unwrap()), ["a"]);

    write("n/50-f.conf", "{}");
    write("10-n.conflist", r#"{"name":"n","plugins":[{"type":"a"}]}"#);
    let error = Network::load(&file).unwrap_err();
    let expected = format!("{}: plugin 3: plugin configuration without a type", file.display());
    assert_eq!((error.code, error.msg), (code::INVALID_CONFIG, expected));
}

#[test]
fn file_that_cannot_be_read_is_named() {
    let error = Network::load(Path::new("/nonexistent/x.conflist")).unwrap_err();
    assert_eq!(error.code, code::IO);
    assert!(error.msg.starts_with("read /nonexistent/x.conflist: No such file"), "{error}");
}
