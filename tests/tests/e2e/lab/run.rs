//! `podlab run` and `podlab verify` as a test runner: TAP read, TAP and JUnit written, evidence of what failed. What is
//! written is read by others: Perl's TAP::Parser and Python's xml.etree.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Lab, command, contract, podlab, text};

/// A script in a directory of its own, where evidence is kept too.
struct Script {
    dir: tempfile::TempDir,
    path: String,
}

impl Script {
    fn new(body: &str) -> Result<Script> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("t.sh");
        fs::write(&path, body)?;
        Ok(Script { path: path.to_string_lossy().into_owned(), dir })
    }

    fn run(&self, options: &[&str]) -> Result<Output> {
        let evidence = self.dir.path().to_string_lossy().into_owned();
        podlab(&[&["run", "--evidence", &evidence], options, &[&self.path]].concat())
    }

    /// The directories of evidence that there are.
    fn evidence(&self) -> Result<Vec<std::path::PathBuf>> {
        let entries = fs::read_dir(self.dir.path())?.map(|entry| Ok(entry?.path()));
        let all: Vec<_> = entries.collect::<Result<_>>()?;
        Ok(all.into_iter().filter(|path| path.is_dir()).collect())
    }
}

/// What a program makes of a text on its standard input.
fn through(program: &str, args: &[&str], input: &[u8]) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    // The exit code tells more than a pipe that was closed.
    let _ = writer.join();
    ensure!(output.status.success(), "{program}: {}", text(&output));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `planned passed failed skipped todo errors`, as Perl reads TAP.
fn perl(tap: &[u8]) -> Result<String> {
    let program = "local $/; my $p = TAP::Parser->new({tap => <STDIN>}); $p->run; \
        print join ' ', $p->tests_planned // '-', scalar $p->passed, scalar $p->failed, scalar $p->skipped, \
        scalar $p->todo, scalar $p->parse_errors";
    through("perl", &["-MTAP::Parser", "-e", program], tap)
}

/// `tests failures errors skipped`, from the attributes, after they were compared with the elements.
fn python(junit: &[u8]) -> Result<String> {
    let program = "
import sys, xml.etree.ElementTree as E
root = E.fromstring(sys.stdin.buffer.read())
assert root.tag == 'testsuites', root.tag
count = lambda e, tag: sum(1 for _ in e.iter(tag))
for e in [root] + root.findall('testsuite'):
    for key, tag in [('tests', 'testcase'), ('failures', 'failure'), ('errors', 'error'), ('skipped', 'skipped')]:
        assert int(e.get(key)) == count(e, tag), (e.attrib, key, count(e, tag))
for case in root.iter('testcase'):
    assert case.get('classname') and case.get('name') is not None, case.attrib
print(*(root.get(key) for key in ('tests', 'failures', 'errors', 'skipped')))
";
    through("/usr/bin/python3", &["-c", program], junit)
}

const MIXED: &str = "echo 'TAP version 14'; echo 1..5; echo 'ok 1 - <a> & \"b\"'; echo 'not ok 2 - broken'
echo '  ---'; echo '  got: 1'; echo '  ...'; echo 'ok 3 - c # SKIP no netem'; echo 'not ok 4 - d # TODO later'; echo noise; echo 'ok 5'";

#[test]
fn a_script_that_tells_of_a_failed_test_fails_though_it_exits_with_0() -> Result<()> {
    for (body, code, words) in [
        ("echo 1..2; echo ok 1; echo ok 2", 0, ""),
        ("echo ok 1; echo 'not ok 2 # TODO later'; echo 'ok 3 # skip'; echo 1..3", 0, ""),
        ("echo '1..0 # SKIP no root'", 0, ""),
        ("echo 1..2; echo ok 1; echo not ok 2", 1, "evidence of t.sh is kept in "),
        ("echo 1..2; echo ok 1", 1, "error: t.sh: 2 tests planned, 1 run"),
        ("echo 1..2; echo ok 1; echo 'Bail out! no device'", 1, "error: t.sh gave up: no device"),
        ("echo TAP version 14; echo ok 1", 1, "there is no plan"),
        ("echo 1..1; echo ok 1; exit 7", 7, "evidence of t.sh is kept in "),
        ("echo 1..1; echo not ok 1; exit 7", 7, "evidence of t.sh is kept in "),
        ("echo not ok, but no TAP", 0, ""),
        ("echo hello; exit 3", 3, "evidence of t.sh is kept in "),
        // What is left running does not hold the runner up.
        ("sleep 600 & echo 1..1; echo ok 1", 0, ""),
    ] {
        let script = Script::new(body)?;
        let output = script.run(&[])?;
        ensure!(output.status.code() == Some(code), "{body}: {}", text(&output));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(told.contains(words) && told.is_empty() == words.is_empty(), "{body}: {}", text(&output));
        assert_eq!(script.evidence()?.len(), usize::from(code != 0), "{body}");
    }
    Ok(())
}

#[test]
fn outcomes_of_a_script_are_tap_and_junit_for_other_programs() -> Result<()> {
    let script = Script::new(MIXED)?;
    let file = script.dir.path().join("out.xml");
    let output = script.run(&["-o", "tap", "--junit", &file.to_string_lossy()])?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    assert_eq!(perl(&output.stdout)?, "5 4 1 1 1 0", "{}", text(&output));
    assert_eq!(python(&fs::read(&file)?)?, "5 1 0 2");
    let output = script.run(&["-o", "junit"])?;
    assert_eq!(python(&output.stdout)?, "5 1 0 2", "{}", text(&output));
    ensure!(text(&output).contains("&lt;a&gt; &amp; &quot;b&quot;"), "{}", text(&output));
    let output = script.run(&["-o", "json"])?;
    let document: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (&document["exit"], &document["own_exit"], &document["failed"]),
        (&json!(1), &json!(0), &json!(1))
    );
    assert_eq!(document["tap"]["points"][1]["diagnostics"], json!(["  ---", "  got: 1", "  ..."]));
    // What stands in the way of a verdict is a test that failed, for readers who look at tests only.
    for (body, tap, junit) in [
        ("echo 1..3; echo ok 1", "2 1 1 0 0 0", "2 0 1 0"),
        ("echo 1..3; echo ok 1; echo 'Bail out! now'", "2 1 1 0 0 0", "2 0 1 0"),
        ("echo '1..0 # SKIP no root'", "1 1 0 1 0 0", "1 0 0 1"),
        ("exit 4", "1 0 1 0 0 0", "1 1 0 0"),
        ("true", "1 1 0 0 0 0", "1 0 0 0"),
        ("printf '1..1\\nok 1 - a\\001b\\n'; exit 2", "2 1 1 0 0 0", "2 1 0 0"),
    ] {
        let script = Script::new(body)?;
        assert_eq!(perl(&script.run(&["-o", "tap"])?.stdout)?, tap, "{body}");
        assert_eq!(python(&script.run(&["-o", "junit"])?.stdout)?, junit, "{body}");
    }
    let refused = podlab(&["ls", "-o", "tap"])?;
    ensure!(
        refused.status.code() == Some(2) && text(&refused).contains("verify and run only"),
        "{}",
        text(&refused)
    );
    Ok(())
}

#[test]
fn evidence_has_the_output_and_the_state_of_every_namespace() -> Result<()> {
    let script = Script::new(
        "ip netns add a; ip netns add b; ip link add va netns a type veth peer vb netns b
ip -n a addr add 10.9.8.7/24 dev va; ip -n a link set va up
ip netns exec a nft 'add table ip mine; add chain ip mine c; add rule ip mine c counter comment \"seen\"'
echo to stdout; echo to stderr >&2; exit 5",
    )?;
    let output = script.run(&[])?;
    ensure!(output.status.code() == Some(5), "{}", text(&output));
    let kept = script.evidence()?.pop().context("no evidence")?;
    ensure!(
        text(&output).contains(&format!("is kept in {}: its output, 3 namespaces", kept.display())),
        "{}",
        text(&output)
    );
    let read = |name: &str| fs::read_to_string(kept.join(name)).with_context(|| name.to_owned());
    assert_eq!((read("stdout")?.as_str(), read("stderr")?.as_str()), ("to stdout\n", "to stderr\n"));
    ensure!(
        read("a.nft")?.contains("comment \"seen\"") && !read("b.nft")?.contains("mine"),
        "{}",
        read("a.nft")?
    );
    let states: Value = serde_json::from_str(&read("namespaces.json")?)?;
    let links = states["namespaces"]["a"]["interfaces"].as_array().context("no interfaces")?;
    let va = links.iter().find(|link| link["name"] == "va").context("no va")?;
    assert_eq!((&va["addresses"], &va["kind"]), (&json!(["10.9.8.7/24"]), &json!("veth")));
    for name in ["namespaces.json", "run.json"] {
        assert_eq!(contract::judge(&serde_json::from_str(&read(name)?)?)?, "", "{name}");
    }

    let lab = Lab::up("evidence", &["--nodes", "1", "--pods", "1"])?;
    let script = Script::new("ip -n kubia-1 addr add 10.9.8.7/32 dev lo; exit 1")?;
    let output = script.run(&["--name", &lab.name])?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    let kept = script.evidence()?.pop().context("no evidence of the lab")?;
    let states: Value = serde_json::from_str(&fs::read_to_string(kept.join("namespaces.json"))?)?;
    ensure!(states["namespaces"]["kubia-1"].to_string().contains("10.9.8.7/32"), "{states}");
    ensure!(states["namespaces"]["node1"].to_string().contains("cni0"), "{states}");
    Ok(())
}

#[test]
fn a_place_that_only_the_capsule_has_is_refused() -> Result<()> {
    let script = Script::new("true")?;
    for (options, words) in [
        (
            &["--junit", "/run/out.xml"][..],
            "/run/out.xml: what is written below /run in a capsule is gone with it",
        ),
        (&["--junit", "/nowhere/out.xml"], "/nowhere/out.xml: No such file"),
        (&["--evidence", "/var/lib"], "below /var/lib in a capsule"),
    ] {
        let output = podlab(&[&["run"], options, &[&script.path]].concat())?;
        ensure!(
            output.status.code() == Some(2) && text(&output).contains(words),
            "{options:?}: {}",
            text(&output)
        );
    }
    ensure!(!Path::new("/run/out.xml").exists());
    Ok(())
}

#[test]
fn four_runs_at_once_do_not_meet() -> Result<()> {
    // Each makes the same names and addresses, and waits until all four have.
    let meeting = tempfile::tempdir()?;
    let script = Script::new(&format!(
        "set -e
ip netns add node1; ip netns add node2; ip link add v1 netns node1 type veth peer v2 netns node2
ip -n node1 addr add 10.0.0.1/24 dev v1; ip -n node2 addr add 10.0.0.2/24 dev v2
ip -n node1 link set v1 up; ip -n node2 link set v2 up
touch {0}/$1; mkdir -p /var/lib/cni/$1
for i in $(seq 1200); do [ $(ls {0} | wc -l) -lt 4 ] || break; sleep 0.05; done
echo 1..2
[ $(ls {0} | wc -l) -eq 4 ] && [ $(ip netns list | wc -l) -eq 2 ] && [ \"$(ls /var/lib/cni | grep '^run-')\" = $1 ] && echo ok 1 - alone || echo not ok 1 - alone
[ \"$(ip -n node1 -br addr show v1 | tr -s ' ' | cut -d ' ' -f 3)\" = 10.0.0.1/24 ] && echo ok 2 - address || echo not ok 2 - address
",
        meeting.path().display()
    ))?;
    let start = |number: usize| {
        let name = format!("run-{number}");
        let mut command = command(&["run", &script.path, &name])?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start podlab")
    };
    let running = (0..4).map(start).collect::<Result<Vec<_>>>()?;
    for child in running {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", text(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1..2\nok 1 - alone\nok 2 - address\n");
    }
    Ok(())
}

#[test]
fn verdicts_are_tap_and_junit_for_other_programs() -> Result<()> {
    let lab = Lab::up("tap", &["--nodes", "2", "--pods", "1"])?;
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().to_string_lossy().into_owned();
    let checks = ["container-localhost", "cross-node"];
    let run =
        |format: &str| lab.podlab("verify", &[&["-q", "-o", format, "--junit", &path], &checks[..]].concat());
    let output = run("tap")?;
    ensure!(output.status.success(), "{}", text(&output));
    assert_eq!(perl(&output.stdout)?, "4 4 0 0 0 0", "{}", text(&output));
    assert_eq!(python(&fs::read(&path)?)?, "4 0 0 0");
    ensure!(text(&output).contains("- cross-node: kubia-1 > kubia-2\n"), "{}", text(&output));

    lab.exec(
        "node1",
        &[
            "nft",
            "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; \
        add rule ip t c oifname eth0 ip saddr 10.244.0.0/16 masquerade",
        ],
    )?;
    let output = run("tap")?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    assert_eq!(perl(&output.stdout)?, "4 3 1 0 0 0", "{}", text(&output));
    ensure!(text(&output).contains("  severity: fail\n"), "{}", text(&output));
    let output = run("junit")?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    assert_eq!(python(&output.stdout)?, "4 1 0 0", "{}", text(&output));
    assert_eq!(python(&fs::read(&path)?)?, "4 1 0 0");
    Ok(())
}
