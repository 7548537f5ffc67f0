//! `plugin::run` without a process: order of checks, codes, sentences, bytes on stdout.

use std::io::{self, Read, Write};
use std::sync::Mutex;

use cni::{Call, CniResult, Conf, Env, Error, Interface, IpConfig, Plugin, Undo, Version, code, parse_cidr};

/// What the plugin was asked to do, and what it answers.
struct Probe {
    versions: &'static [Version],
    answer: fn(&Call) -> Result<CniResult, Error>,
    seen: Mutex<Vec<String>>,
    conf: Mutex<Option<Conf>>,
}

/// Undo steps have no access to the plugin: they note themselves here, per thread.
mod undone {
    use std::cell::RefCell;

    thread_local! { static STEPS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) }; }

    pub(super) fn note(step: &'static str) {
        STEPS.with(|steps| steps.borrow_mut().push(step));
    }

    pub(super) fn take() -> Vec<&'static str> {
        STEPS.with(|steps| steps.take())
    }
}

impl Probe {
    fn new(answer: fn(&Call) -> Result<CniResult, Error>) -> Self {
        Self { versions: Version::ALL, answer, seen: Mutex::default(), conf: Mutex::default() }
    }

    fn note(&self, call: &Call) -> Result<(), Error> {
        self.seen.lock().unwrap().push(format!("{} {}", call.env.command, call.version));
        *self.conf.lock().unwrap() = Some(call.conf.clone());
        (self.answer)(call).map(|_| ())
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Plugin for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn version(&self) -> &'static str {
        "v7"
    }

    fn versions(&self) -> &'static [Version] {
        self.versions
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        undo.push("first", || {
            undone::note("first");
            Ok(())
        });
        undo.push("second", || {
            undone::note("second");
            Err("it is stuck".into())
        });
        self.note(call)?;
        (self.answer)(call)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        self.note(call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        self.note(call)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        self.note(call)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        self.note(call)
    }
}

fn empty(_: &Call) -> Result<CniResult, Error> {
    Ok(CniResult::default())
}

fn one_address(_: &Call) -> Result<CniResult, Error> {
    Ok(CniResult {
        interfaces: vec![Interface { name: "eth0".into(), ..Interface::default() }],
        ips: vec![IpConfig {
            interface: Some(0),
            address: parse_cidr("10.1.2.3/24").unwrap(),
            gateway: None,
        }],
        ..CniResult::default()
    })
}

fn broken(_: &Call) -> Result<CniResult, Error> {
    Err(Error::new(142, "no more of <these>").with_details("d"))
}

fn env(command: &str) -> Env {
    Env {
        command: command.into(),
        container_id: "c1".into(),
        netns: "/run/netns/no-such-netns".into(),
        ifname: "eth0".into(),
        path: "/opt/cni/bin::/usr/lib/cni".into(),
        ..Env::default()
    }
}

#[derive(Debug, PartialEq)]
struct Output {
    exit: u8,
    stdout: String,
    stderr: String,
}

fn run(plugin: &Probe, env: Env, stdin: &str) -> Output {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = cni::plugin::run(plugin, env, &mut stdin.as_bytes(), &mut stdout, &mut stderr);
    Output { exit, stdout: String::from_utf8(stdout).unwrap(), stderr: String::from_utf8(stderr).unwrap() }
}

/// Runs a call that must fail before the handler: code, sentence, details.
#[track_caller]
fn refused(env: Env, stdin: &str) -> (u64, String, String) {
    let probe = Probe::new(empty);
    let output = run(&probe, env, stdin);
    assert_eq!((output.exit, output.stderr.as_str(), probe.seen()), (1, "", vec![]), "{output:?}");
    let error: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    assert!(Version::parse(&text("cniVersion")).is_some(), "{error}");
    (error["code"].as_u64().unwrap(), text("msg"), text("details"))
}

fn conf(version: &str) -> String {
    format!("{{\"cniVersion\":{version:?},\"name\":\"net\",\"type\":\"probe\"}}")
}

/// A stdin that must not be touched.
struct Untouchable;

impl Read for Untouchable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("somebody read stdin"))
    }
}

/// A stdout that takes nothing.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn about_goes_to_stderr_when_there_is_no_command() {
    let expected = "CNI probe plugin v7\n\
        CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n";
    let output = run(&Probe::new(empty), Env { container_id: "//".into(), ..Env::default() }, "{");
    assert_eq!(output, Output { exit: 0, stdout: String::new(), stderr: expected.into() });
}

#[test]
fn version_looks_at_nothing_else_and_reads_no_stdin() {
    let env =
        Env { command: "VERSION".into(), ifname: "a/b".into(), container_id: "//".into(), ..Env::default() };
    let mut stdout = Vec::new();
    let exit = cni::plugin::run(&Probe::new(empty), env, &mut Untouchable, &mut stdout, &mut Vec::new());
    let expected = "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\
        \"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";
    assert_eq!((exit, String::from_utf8(stdout).unwrap().as_str()), (0, expected));
}

#[test]
fn version_that_cannot_be_printed_is_an_io_error() {
    let exit =
        cni::plugin::run(&Probe::new(empty), env("VERSION"), &mut Untouchable, &mut Full, &mut Vec::new());
    assert_eq!(exit, 1);
}

#[test]
fn environment_is_checked_before_stdin_is_read() {
    let mut stdout = Vec::new();
    let missing = Env { netns: String::new(), path: String::new(), ..env("ADD") };
    let exit = cni::plugin::run(&Probe::new(empty), missing, &mut Untouchable, &mut stdout, &mut Vec::new());
    let expected = "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 4,\n    \
        \"msg\": \"required env variables [CNI_NETNS,CNI_PATH] missing\"\n}";
    assert_eq!((exit, String::from_utf8(stdout).unwrap().as_str()), (1, expected));
}

#[test]
fn stdin_that_cannot_be_read_is_an_io_error() {
    let mut stdout = Vec::new();
    cni::plugin::run(&Probe::new(empty), env("ADD"), &mut Untouchable, &mut stdout, &mut Vec::new());
    let expected = "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 5,\n    \
        \"msg\": \"error reading from stdin: somebody read stdin\"\n}";
    assert_eq!(String::from_utf8(stdout).unwrap(), expected);
}

#[test]
fn name_is_checked_for_every_verb_and_before_it() {
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "JUMP"] {
        let table = [
            ("{", 6, "error unmarshall network config: unexpected end of JSON input", ""),
            (
                r#"{"name":5}"#,
                6,
                "error unmarshall network config: key \"name\": expected a string, found number 5",
                "",
            ),
            ("[]", 6, "error unmarshall network config: expected an object, found an array", ""),
            ("{}", 7, "missing network name", ""),
            ("null", 7, "missing network name", ""),
            (r#"{"cniVersion":5}"#, 7, "missing network name", ""),
            (r#"{"name":"a/b","cniVersion":"9"}"#, 7, "invalid characters found in network name", "a/b"),
        ];
        for (stdin, code, msg, details) in table {
            assert_eq!(refused(env(command), stdin), (code, msg.into(), details.into()), "{command} {stdin}");
        }
    }
}

#[test]
fn unknown_command_is_refused_after_the_name() {
    for command in ["JUMP", "add", "ADD "] {
        let expected = (4, format!("unknown CNI_COMMAND: {command}"), String::new());
        assert_eq!(refused(env(command), &conf("1.0.0")), expected);
        // Its variables are not looked at.
        let bare = Env { command: command.into(), ..Env::default() };
        assert_eq!(refused(bare, &conf("9.9.9")), expected);
    }
}

#[test]
fn versions_are_members_by_exact_text() {
    let list = r#"["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#;
    for command in ["ADD", "DEL"] {
        for version in ["1.0", "v1.0.0", "1.2.0", "abc", "1.0.0.0", " 1.0.0"] {
            let details = format!("config is {version:?}, plugin supports {list}");
            assert_eq!(
                refused(env(command), &conf(version)),
                (1, "incompatible CNI versions".into(), details),
                "{version}"
            );
        }
        let expected =
            "decoding version from network config: key \"cniVersion\": expected a string, found number 1";
        assert_eq!(
            refused(env(command), r#"{"name":"n","cniVersion":1}"#),
            (6, expected.into(), String::new())
        );
    }
}

#[test]
fn check_gc_and_status_need_their_version() {
    for (command, since, before) in
        [("CHECK", "0.4.0", "0.3.1"), ("GC", "1.1.0", "1.0.0"), ("STATUS", "1.1.0", "1.0.0")]
    {
        for version in ["", "0.1.0", before] {
            let expected = format!("config version does not allow {command}");
            assert_eq!(refused(env(command), &conf(version)), (1, expected, String::new()));
        }
        let expected = format!("plugin version does not allow {command}");
        assert_eq!(refused(env(command), &conf("1.1.1")), (1, expected, String::new()));
        for version in ["abc", "1.0.0.0", "1.x"] {
            assert_eq!(refused(env(command), &conf(version)).0, 6, "{command} {version}");
        }
        let probe = Probe::new(empty);
        assert_eq!(run(&probe, env(command), &conf(since)).exit, 0);
        assert_eq!(probe.seen(), [format!("{command} {since}")]);
    }
    assert_eq!(refused(env("CHECK"), &conf("0.5.0")).1, "incompatible CNI versions");
    let old = Probe { versions: &[Version::V0_3_1, Version::V0_4_0], ..Probe::new(empty) };
    assert!(run(&old, env("CHECK"), &conf("1.0.0")).stdout.contains("plugin version does not allow CHECK"));
}

#[test]
fn own_netns_is_refused_before_the_handler() {
    for command in ["ADD", "DEL"] {
        let own = Env { netns: "/proc/thread-self/ns/net".into(), ..env(command) };
        let expected = "plugin's netns and netns from CNI_NETNS should not be the same";
        assert_eq!(refused(own.clone(), &conf("1.0.0")), (8, expected.into(), String::new()));
        for (text, allowed) in [("1", true), ("TRUE", true), ("0", false), ("yes", false)] {
            let probe = Probe::new(empty);
            let exit = run(&probe, Env { netns_override: text.into(), ..own.clone() }, &conf("1.0.0")).exit;
            assert_eq!((exit == 0, probe.seen().len() == 1), (allowed, allowed), "{text}");
        }
    }
    // CHECK has no such guard, and another namespace is not the own one.
    for (command, netns) in [("CHECK", "/proc/thread-self/ns/net"), ("ADD", "/proc/thread-self/ns/uts")] {
        let probe = Probe::new(empty);
        assert_eq!(run(&probe, Env { netns: netns.into(), ..env(command) }, &conf("1.0.0")).exit, 0);
    }
    let incompatible = Env { netns: "/proc/thread-self/ns/net".into(), ..env("ADD") };
    assert_eq!(refused(incompatible, &conf("9.9.9")).0, 1);
}

#[test]
fn del_needs_no_netns() {
    let probe = Probe::new(empty);
    let output = run(&probe, Env { netns: String::new(), ..env("DEL") }, &conf("1.0.0"));
    assert_eq!(output, Output { exit: 0, stdout: String::new(), stderr: String::new() });
    assert_eq!(probe.seen(), ["DEL 1.0.0"]);
}

#[test]
fn add_prints_the_result_in_the_version_of_the_configuration() {
    let single = "{\n    \"cniVersion\": \"0.1.0\",\n    \"ip4\": {\n        \"ip\": \"10.1.2.3/24\"\n    },\n    \"dns\": {}\n}";
    let listed = "{\n    \"cniVersion\": \"0.3.1\",\n    \"interfaces\": [\n        {\n            \"name\": \"eth0\"\n        \
        }\n    ],\n    \"ips\": [\n        {\n            \"version\": \"4\",\n            \"interface\": 0,\n            \
        \"address\": \"10.1.2.3/24\"\n        }\n    ],\n    \"dns\": {}\n}";
    let stable = "{\n    \"cniVersion\": \"1.1.0\",\n    \"interfaces\": [\n        {\n            \"name\": \"eth0\"\n        \
        }\n    ],\n    \"ips\": [\n        {\n            \"address\": \"10.1.2.3/24\",\n            \"interface\": 0\n        \
        }\n    ]\n}";
    for (version, expected) in [("", single), ("0.1.0", single), ("0.3.1", listed), ("1.1.0", stable)] {
        let output = run(&Probe::new(one_address), env("ADD"), &conf(version));
        assert_eq!(output, Output { exit: 0, stdout: expected.into(), stderr: String::new() }, "{version:?}");
        assert_eq!(undone::take(), [""; 0]);
    }
}

#[test]
fn failed_add_is_undone_in_reverse_and_its_error_printed() {
    let output = run(&Probe::new(broken), env("ADD"), &conf("0.4.0"));
    let expected = "{\n    \"cniVersion\": \"0.4.0\",\n    \"code\": 142,\n    \
        \"msg\": \"no more of \\u003cthese\\u003e\",\n    \"details\": \"d\"\n}";
    assert_eq!(
        output,
        Output { exit: 1, stdout: expected.into(), stderr: "undo: second: it is stuck\n".into() }
    );
    assert_eq!(undone::take(), ["second", "first"]);
}

#[test]
fn result_that_cannot_be_rendered_is_undone_and_not_printed() {
    let output = run(&Probe::new(empty), env("ADD"), &conf("0.2.0"));
    let expected = "{\n    \"cniVersion\": \"0.2.0\",\n    \"code\": 999,\n    \
        \"msg\": \"cannot convert: no valid IP addresses\"\n}";
    assert_eq!((output.exit, output.stdout.as_str()), (1, expected));
    assert_eq!(undone::take(), ["second", "first"]);
}

#[test]
fn result_that_cannot_be_written_is_undone() {
    let stdin = conf("1.0.0");
    let exit = cni::plugin::run(
        &Probe::new(one_address),
        env("ADD"),
        &mut stdin.as_bytes(),
        &mut Full,
        &mut Vec::new(),
    );
    assert_eq!((exit, undone::take()), (1, vec!["second", "first"]));
}

#[test]
fn errors_of_the_other_verbs_are_printed_as_they_are() {
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        let output = run(&Probe::new(broken), env(command), &conf("1.1.0"));
        let expected = "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 142,\n    \
            \"msg\": \"no more of \\u003cthese\\u003e\",\n    \"details\": \"d\"\n}";
        assert_eq!(output, Output { exit: 1, stdout: expected.into(), stderr: String::new() });
    }
}

#[test]
fn handler_gets_the_bytes_and_the_directories() {
    fn look(call: &Call) -> Result<CniResult, Error> {
        assert_eq!(call.stdin, b" {\"NAME\":\"n\", \"x\":1 }\n");
        let dirs: Vec<_> = call.cni_path().iter().map(|dir| dir.display().to_string()).collect();
        assert_eq!(dirs, ["/opt/cni/bin", "/usr/lib/cni"]);
        Ok(CniResult::default())
    }
    assert_eq!(run(&Probe::new(look), env("DEL"), " {\"NAME\":\"n\", \"x\":1 }\n").exit, 0);
}

#[test]
fn gc_tells_an_absent_list_from_an_empty_one() {
    let seen = |extra: &str| {
        let probe = Probe::new(empty);
        let stdin = format!("{{\"cniVersion\":\"1.1.0\",\"name\":\"n\"{extra}}}");
        assert_eq!(
            run(&probe, Env { command: "GC".into(), path: "/x".into(), ..Env::default() }, &stdin).exit,
            0
        );
        let conf = probe.conf.into_inner().unwrap().unwrap();
        conf.valid_attachments.map(|list| list.len())
    };
    assert_eq!(seen(""), None);
    assert_eq!(seen(r#","cni.dev/valid-attachments":[]"#), Some(0));
    assert_eq!(seen(r#","cni.dev/attachments":[{"containerID":"c","ifname":"eth0"}]"#), Some(1));
}

#[test]
fn prev_result_that_cannot_be_read_stops_add_but_not_del() {
    let stdin = r#"{"cniVersion":"1.0.0","name":"n","prevResult":{"cniVersion":"0.3.1"}}"#;
    let (code, msg, _) = refused(env("ADD"), stdin);
    assert_eq!((code, msg.starts_with("could not parse prevResult: ")), (u64::from(code::DECODING), true));
    let probe = Probe::new(empty);
    let output = run(&probe, env("DEL"), stdin);
    assert_eq!((output.exit, output.stdout.as_str(), probe.seen().len()), (0, "", 1));
    assert!(output.stderr.starts_with("DEL goes on without prevResult: could not parse prevResult: "));
}

#[test]
fn wrong_types_are_decoding_errors_that_name_the_key() {
    let (code, msg, _) = refused(env("DEL"), r#"{"name":"n","IPAM":{"Type":[]}}"#);
    let expected = "decode network config: key \"ipam.type\": expected a string, found an array";
    assert_eq!((code, msg.as_str()), (6, expected));
}
