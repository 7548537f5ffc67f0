//! Chains of plugins: what each is given, what happens when one fails, and the cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cni::runtime::{Attachment, Network, Report, Runtime, Transcript};
use cni::{Error, ValidAttachment, code};
use serde_json::{Map, Value, json};

use crate::scripts::Scripts;

const RESULT_A: &str = r#"echo '{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/8"}]}'"#;
const RESULT_B: &str = r#"echo '{"ips":[{"address":"10.0.0.3/8"}],"extra":1}'"#;

fn network(version: &str) -> Network {
    let text = json!({
        "cniVersion": version,
        "name": "net",
        "plugins": [
            {"type": "a", "capabilities": {"portMappings": true, "mac": false, "ips": "yes"}, "ipam": {"type": "x"}},
            {"type": "b", "name": "overwritten"},
        ],
    });
    Network::parse(text.to_string().as_bytes()).unwrap()
}

fn attachment() -> Attachment {
    let capabilities =
        json!({"portMappings": [{"hostPort": 80}], "mac": "02:00:00:00:00:01", "ips": [], "other": 1});
    Attachment {
        container_id: "c1".into(),
        ifname: "eth0".into(),
        netns: "/run/netns/a".into(),
        args: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), "web".into())],
        capability_args: capabilities.as_object().unwrap().clone(),
    }
}

fn two(scripts: &Scripts) -> Runtime {
    scripts.logging("a", RESULT_A);
    scripts.logging("b", RESULT_B);
    Runtime::new(scripts.path())
}

fn cached(scripts: &Scripts) -> Runtime {
    Runtime { cache: Some(scripts.dir().join("cache")), ..two(scripts) }
}

/// What the plugin got on stdin.
fn stdin(scripts: &Scripts, file: &str) -> Value {
    serde_json::from_str(&scripts.read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[track_caller]
fn error<T: std::fmt::Debug>(report: Report<T>) -> Error {
    report.outcome.unwrap_err()
}

#[test]
fn add_chains_results_and_gives_each_plugin_what_is_its_own() {
    let scripts = Scripts::new();
    let report = two(&scripts).add_list(&network("1.1.0"), &attachment());
    let added = report.outcome.unwrap();
    let last = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.3/8"}], "extra": 1});
    assert_eq!(added.json, last);
    assert_eq!(added.result.ips[0].address.to_string(), "10.0.0.3/8");
    assert_eq!(scripts.log(), ["a ADD", "b ADD"]);
    assert_eq!(
        stdin(&scripts, "a.ADD"),
        json!({
            "cniVersion": "1.1.0", "name": "net", "type": "a", "ipam": {"type": "x"},
            "capabilities": {"portMappings": true, "mac": false, "ips": "yes"},
            "runtimeConfig": {"portMappings": [{"hostPort": 80}]},
        })
    );
    let first = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/8"}]});
    let expected = json!({"cniVersion": "1.1.0", "name": "net", "type": "b", "prevResult": first});
    assert_eq!(stdin(&scripts, "b.ADD"), expected);
}

#[test]
fn every_call_is_recorded() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    scripts.add("b", "cat > /dev/null; echo log >&2; echo '{\"code\":11,\"msg\":\"later\"}'; exit 4");
    let calls = runtime.add_list(&network("1.0.0"), &attachment()).calls;
    let commands: Vec<_> = calls.iter().map(|call| (call.plugin_name(), call.command.as_str())).collect();
    let expected = [("a", "ADD"), ("b", "ADD"), ("b", "DEL"), ("a", "DEL")];
    assert_eq!(commands, expected.map(|(name, command)| (PathBuf::from(name), command)));
    let call = &calls[1];
    assert_eq!(call.plugin, scripts.dir().join("b"));
    assert_eq!((call.exit, call.signal, call.timed_out), (Some(4), None, false));
    assert_eq!((call.stdout.as_str(), call.stderr.as_str()), ("{\"code\":11,\"msg\":\"later\"}\n", "log\n"));
    assert!(call.stdin.contains("prevResult") && call.ms > 0.0);
    let path = format!("{0}/none:{0}", scripts.dir().display());
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"),
        ("CNI_PATH", &path),
    ];
    assert_eq!(call.env, env.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // The last time has more digits than a parser that rounds twice keeps.
    for ms in [call.ms, 2.562_327_000_000_000_2] {
        let call = Transcript { ms, ..call.clone() };
        let text = serde_json::to_string(&call).unwrap();
        assert_eq!(serde_json::from_str::<Transcript>(&text).unwrap(), call);
    }
}

#[test]
fn failed_add_is_followed_by_del_of_all_in_reverse() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    scripts.logging("b", "echo '{\"code\":142,\"msg\":\"no more\"}'; exit 1");
    let error = error(runtime.add_list(&network("1.0.0"), &attachment()));
    assert_eq!(error, Error::new(142, "plugin type=\"b\" failed (add): no more"));
    assert_eq!(scripts.log(), ["a ADD", "b ADD", "b DEL", "a DEL"]);
    assert_eq!(stdin(&scripts, "b.DEL").get("prevResult"), None);
}

#[test]
fn what_del_after_a_failed_add_could_not_do_is_told() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    scripts.add("b", "echo \"{\\\"code\\\":142,\\\"msg\\\":\\\"no $CNI_COMMAND\\\"}\"; exit 1");
    let error = error(runtime.add_list(&network("1.0.0"), &attachment()));
    assert_eq!((error.code, error.msg.as_str()), (142, "plugin type=\"b\" failed (add): no ADD"));
    assert_eq!(error.details, "and DEL after it: plugin type=\"b\" failed (delete): no DEL");
    assert_eq!(scripts.log(), ["a ADD", "a DEL"]);
}

#[test]
fn add_without_a_result_fails() {
    let bodies = [
        ("exit 0", code::DECODING),
        ("echo nonsense", code::DECODING),
        ("echo '{\"cniVersion\":\"9.9.9\"}'", code::INCOMPATIBLE_VERSION),
        ("echo '{\"ips\":[{\"address\":\"x\"}]}'", code::DECODING),
    ];
    for (body, code) in bodies {
        let scripts = Scripts::new();
        let runtime = two(&scripts);
        scripts.logging("a", body);
        let error = error(runtime.add_list(&network("1.0.0"), &attachment()));
        assert!(
            error.code == code && error.msg.starts_with("plugin type=\"a\" failed (add): decode result: "),
            "{error}"
        );
        assert_eq!(scripts.log(), ["a ADD", "b DEL", "a DEL"], "{body}");
    }
}

#[test]
fn missing_plugin_is_an_error_and_the_others_are_cleaned_up() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    fs::remove_file(scripts.dir().join("b")).unwrap();
    let error = error(runtime.add_list(&network("1.0.0"), &attachment()));
    assert!(
        error.msg.starts_with("plugin type=\"b\" failed (add): failed to find plugin \"b\" in path ["),
        "{error}"
    );
    assert_eq!(scripts.log(), ["a ADD", "a DEL"]);
}

#[test]
fn del_goes_in_reverse_and_past_errors() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    assert_eq!(runtime.del_list(&network("1.0.0"), &attachment(), None).outcome, Ok(()));
    assert_eq!(scripts.log(), ["b DEL", "a DEL"]);
    scripts.add("b", "echo '{\"code\":142,\"msg\":\"one\",\"details\":\"d\"}'; exit 1");
    scripts.add("a", "echo '{\"code\":143,\"msg\":\"two\"}'; exit 1");
    let error = error(runtime.del_list(&network("1.0.0"), &attachment(), None));
    let expected = "plugin type=\"b\" failed (delete): one; d; plugin type=\"a\" failed (delete): two";
    assert_eq!(error, Error::new(142, expected));
}

#[test]
fn prev_result_is_given_to_del_from_0_4_0_on() {
    let prev = json!({"cniVersion": "0.3.1", "ips": []});
    for (version, given) in [("", false), ("0.3.1", false), ("0.4.0", true), ("1.1.0", true)] {
        let scripts = Scripts::new();
        two(&scripts).del_list(&network(version), &attachment(), Some(&prev)).outcome.unwrap();
        for file in ["a.DEL", "b.DEL"] {
            assert_eq!(stdin(&scripts, file).get("prevResult"), given.then_some(&prev), "{version} {file}");
            assert_eq!(stdin(&scripts, file)["cniVersion"], version);
        }
    }
}

#[test]
fn check_needs_0_4_0_and_can_be_disabled() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    let prev = json!({"cniVersion": "1.0.0"});
    let old = error(runtime.check_list(&network("0.3.1"), &attachment(), Some(&prev)));
    assert_eq!(old, Error::new(1, "configuration version \"0.3.1\" does not support CHECK"));
    let mut disabled = network("1.0.0");
    disabled.disable_check = true;
    assert_eq!(runtime.check_list(&disabled, &attachment(), Some(&prev)).outcome, Ok(()));
    assert_eq!(scripts.log(), [""; 0]);
    assert_eq!(runtime.check_list(&network("0.4.0"), &attachment(), Some(&prev)).outcome, Ok(()));
    assert_eq!(scripts.log(), ["a CHECK", "b CHECK"]);
    assert_eq!(stdin(&scripts, "b.CHECK")["prevResult"], prev);
    assert_eq!(stdin(&scripts, "a.CHECK")["runtimeConfig"], json!({"portMappings": [{"hostPort": 80}]}));
    scripts.add("a", "echo '{\"code\":142,\"msg\":\"gone\"}'; exit 1");
    let gone = error(runtime.check_list(&network("1.0.0"), &attachment(), Some(&prev)));
    assert_eq!(gone, Error::new(142, "plugin type=\"a\" failed (check): gone"));
    assert_eq!(scripts.log().len(), 2);
}

#[test]
fn gc_sends_both_lists_or_none() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    assert_eq!(runtime.gc_list(&network("1.0.0"), Some(&[])).outcome, Ok(()));
    let mut disabled = network("1.1.0");
    disabled.disable_gc = true;
    assert_eq!(runtime.gc_list(&disabled, Some(&[])).outcome, Ok(()));
    assert_eq!(scripts.log(), [""; 0]);

    let bare = json!({"cniVersion": "1.1.0", "name": "net", "type": "b"});
    let report = runtime.gc_list(&network("1.1.0"), None);
    assert_eq!((report.outcome, stdin(&scripts, "b.GC")), (Ok(()), bare.clone()));
    let empty: Vec<_> =
        report.calls[0].env.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| name).collect();
    assert_eq!(empty, ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]);

    let valid = [ValidAttachment { container_id: "c1".into(), ifname: "eth0".into() }];
    for valid in [&valid[..], &[]] {
        runtime.gc_list(&network("1.1.0"), Some(valid)).outcome.unwrap();
        let list: Vec<Value> = valid.iter().map(|_| json!({"containerID": "c1", "ifname": "eth0"})).collect();
        let mut expected = bare.clone();
        expected["cni.dev/valid-attachments"] = list.clone().into();
        expected["cni.dev/attachments"] = list.into();
        assert_eq!(stdin(&scripts, "b.GC"), expected);
    }
}

#[test]
fn status_is_asked_from_1_1_0_on_and_of_all() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    assert_eq!(runtime.status_list(&network("1.0.0")).outcome, Ok(()));
    assert_eq!(scripts.log(), [""; 0]);
    scripts.add("a", "echo '{\"code\":50,\"msg\":\"full\"}'; exit 1");
    assert_eq!(
        error(runtime.status_list(&network("1.1.0"))),
        Error::new(50, "plugin type=\"a\" failed (status): full")
    );
    assert_eq!(scripts.log(), ["b STATUS"]);
}

#[test]
fn versions_are_asked_with_dummy_variables() {
    let scripts = Scripts::new();
    scripts.add("v", "echo '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.4.0\",\"1.0.0\"]}'");
    let runtime = Runtime::new(scripts.path());
    let report = runtime.versions("v");
    assert_eq!(report.outcome, Ok(vec!["0.4.0".to_owned(), "1.0.0".to_owned()]));
    assert_eq!(report.calls[0].stdin, r#"{"cniVersion":"1.1.0"}"#);
    scripts.add("v", "echo '{}'");
    assert_eq!(
        error(runtime.versions("v")),
        Error::new(6, "decode VERSION of plugin \"v\": no supportedVersions")
    );
}

#[test]
fn bad_attachments_are_refused_before_any_call() {
    let scripts = Scripts::new();
    let runtime = two(&scripts);
    for (id, ifname) in [("", "eth0"), ("../x", "eth0"), ("c1", ""), ("c1", "a/b")] {
        let bad = Attachment { container_id: id.into(), ifname: ifname.into(), ..attachment() };
        assert_eq!(error(runtime.add_list(&network("1.0.0"), &bad)).code, code::INVALID_ENVIRONMENT);
        assert_eq!(error(runtime.del_list(&network("1.0.0"), &bad, None)).code, code::INVALID_ENVIRONMENT);
    }
    assert_eq!(scripts.log(), [""; 0]);
}

#[test]
fn plugin_that_hangs_is_killed() {
    let scripts = Scripts::new();
    let mut runtime = two(&scripts);
    scripts.add("a", "echo begun >&2; [ $CNI_COMMAND = DEL ] || sleep 1000");
    runtime.timeout = Some(Duration::from_millis(1500));
    let started = Instant::now();
    let report = runtime.add_list(&network("1.0.0"), &attachment());
    assert!(started.elapsed() < Duration::from_secs(60));
    let call = &report.calls[0];
    assert_eq!(
        (call.exit, call.signal, call.timed_out, call.stderr.as_str()),
        (None, Some(9), true, "begun\n")
    );
    let expected =
        Error::internal("plugin type=\"a\" failed (add): killed after 1.5s").with_details("begun\n");
    assert_eq!(report.outcome.unwrap_err(), expected);
}

#[test]
fn cache_has_the_place_and_format_of_libcni() {
    let scripts = Scripts::new();
    let runtime = cached(&scripts);
    runtime.add_list(&network("1.0.0"), &attachment()).outcome.unwrap();
    let dir = scripts.dir().join("cache/results");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let file = dir.join("net-c1-eth0");
    assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    let mut entry: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let config = entry.as_object_mut().unwrap().remove("config").unwrap();
    // The beginning of {"cniVersion":"1.0.0","name":"net"…
    assert!(
        config.as_str().unwrap().starts_with("eyJjbmlWZXJzaW9uIjoiMS4wLjAiLCJuYW1lIjoibmV0Ii"),
        "{config}"
    );
    let expected = json!({
        "kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "net", "netns": "/run/netns/a",
        "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAME", "web"]],
        "capabilityArgs": attachment().capability_args,
        "result": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.3/8"}], "extra": 1},
    });
    assert_eq!(entry, expected);

    runtime.check_list(&network("1.0.0"), &attachment(), None).outcome.unwrap();
    assert_eq!(stdin(&scripts, "a.CHECK")["prevResult"], expected["result"]);
    runtime.del_list(&network("1.0.0"), &attachment(), None).outcome.unwrap();
    assert_eq!(stdin(&scripts, "a.DEL")["prevResult"], expected["result"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    runtime.del_list(&network("1.0.0"), &attachment(), None).outcome.unwrap();
    assert_eq!(stdin(&scripts, "a.DEL").get("prevResult"), None);
}

#[test]
fn failed_del_keeps_the_cache_and_a_broken_entry_does_not_stop_it() {
    let scripts = Scripts::new();
    let runtime = cached(&scripts);
    runtime.add_list(&network("1.0.0"), &attachment()).outcome.unwrap();
    let file = scripts.dir().join("cache/results/net-c1-eth0");
    scripts.add("b", "exit 1");
    error(runtime.del_list(&network("1.0.0"), &attachment(), None));
    assert!(file.exists());
    scripts.logging("b", RESULT_B);
    fs::write(&file, "{").unwrap();
    assert_eq!(error(runtime.check_list(&network("1.0.0"), &attachment(), None)).code, code::DECODING);
    runtime.del_list(&network("1.0.0"), &attachment(), None).outcome.unwrap();
    assert!(!file.exists());
}

#[test]
fn cache_that_cannot_be_written_fails_the_add() {
    let scripts = Scripts::new();
    let runtime = cached(&scripts);
    fs::write(scripts.dir().join("cache"), "in the way").unwrap();
    let error = error(runtime.add_list(&network("1.0.0"), &attachment()));
    assert!(error.code == code::IO && error.msg.starts_with("cache result in "), "{error}");
    assert_eq!(scripts.log(), ["a ADD", "b ADD", "b DEL", "a DEL"]);
}

#[test]
fn gc_deletes_cached_attachments_that_are_not_valid() {
    let scripts = Scripts::new();
    let runtime = cached(&scripts);
    for id in ["c1", "c2", "c3"] {
        let attachment = Attachment { container_id: id.into(), ..attachment() };
        runtime.add_list(&network("1.0.0"), &attachment).outcome.unwrap();
    }
    let results = scripts.dir().join("cache/results");
    fs::write(results.join("no-entry"), "x").unwrap();
    let other = fs::read_to_string(results.join("net-c1-eth0")).unwrap().replace("\"net\"", "\"other\"");
    fs::write(results.join("other-c1-eth0"), other).unwrap();
    fs::remove_file(scripts.dir().join("log")).unwrap();

    runtime.gc_list(&network("1.0.0"), None).outcome.unwrap();
    assert_eq!(scripts.log(), [""; 0]);
    let valid = [
        ValidAttachment { container_id: "c2".into(), ifname: "eth0".into() },
        ValidAttachment { container_id: "c3".into(), ifname: "eth1".into() },
    ];
    let calls = runtime.gc_list(&network("1.0.0"), Some(&valid)).calls;
    let deleted: Vec<_> = calls.iter().map(|call| call.env[1].1.as_str()).collect();
    assert_eq!(deleted, ["c1", "c1", "c3", "c3"]);
    assert!(calls[0].env.contains(&("CNI_ARGS".into(), "IgnoreUnknown=1;K8S_POD_NAME=web".into())));
    let mut left: Vec<_> = fs::read_dir(&results).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["net-c2-eth0", "no-entry", "other-c1-eth0"]);
}

#[test]
fn null_result_and_empty_attachment_fields_are_taken() {
    let scripts = Scripts::new();
    scripts.logging("a", "echo null");
    let network = Network::parse(br#"{"cniVersion":"0.4.0","name":"net","type":"a"}"#).unwrap();
    let bare =
        Attachment { args: vec![], capability_args: Map::new(), netns: PathBuf::new(), ..attachment() };
    let added = Runtime::new(scripts.path()).add_list(&network, &bare).outcome.unwrap();
    assert_eq!(added.json, json!({"cniVersion": "0.4.0"}));
    assert_eq!(stdin(&scripts, "a.ADD"), json!({"cniVersion": "0.4.0", "name": "net", "type": "a"}));
}
