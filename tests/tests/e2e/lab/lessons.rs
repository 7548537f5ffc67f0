//! Lessons, headless: every one is played from beginning to end, in a lab of its own, without anybody's progress.
//!
//! ```text
//!  start --look   the lesson's commands, each with its exit code and its words
//!  start          broken: red │ solve: green │ reset: red as before
//! ```

use std::ffi::OsString;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use podnet_tests::workers::workers;
use serde_json::Value;

use super::{command, contract, podlab, text, without_settings};

/// A student with a file for progress and a lab, which ends with this value.
struct Student {
    dir: tempfile::TempDir,
    lab: String,
    lessons: Option<OsString>,
}

impl Student {
    fn new(name: &str) -> Result<Student> {
        let lab = format!("e2e-lesson-{name}-{}", std::process::id());
        Ok(Student { dir: tempfile::tempdir()?, lab, lessons: None })
    }

    /// `podlab lesson …`; a document that it prints is as its schema says.
    fn lesson(&self, args: &[&str]) -> Result<Output> {
        self.run(&[&["lesson"], args].concat())
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = command(args)?;
        command
            .env("PODLAB_LESSON_STATE", self.dir.path().join("lessons.json"))
            .env("PODLAB_LESSON_LAB", &self.lab)
            .env("PODLAB_LESSON_LANG", "en")
            .env("PODLAB_NAME", &self.lab)
            .env_remove("LC_ALL")
            .stdin(Stdio::null());
        if let Some(dir) = &self.lessons {
            command.env("PODLAB_LESSONS", dir);
        }
        let output = command.output().context("start podlab")?;
        let words: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        contract::check(&words, &output)?;
        Ok(output)
    }

    /// The document that a verb prints, and its exit code.
    fn document(&self, args: &[&str]) -> Result<(i32, Value)> {
        let output = self.lesson(&[args, &["-o", "json"]].concat())?;
        let document = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        Ok((output.status.code().unwrap_or(-1), document))
    }

    /// A verb that has to work.
    fn ok(&self, args: &[&str]) -> Result<Value> {
        let (code, document) = self.document(args)?;
        ensure!(code == 0, "{args:?}: {document:#}");
        Ok(document)
    }

    /// A verb that has to fail with that code and those words.
    fn refused(&self, args: &[&str], code: i32, words: &str) -> Result<()> {
        let output = self.run(args)?;
        ensure!(output.status.code() == Some(code), "{args:?}: {}", text(&output));
        ensure!(text(&output).contains(words), "{args:?}: {}", text(&output));
        Ok(())
    }
}

impl Drop for Student {
    fn drop(&mut self) {
        // It may be down already.
        let _ = podlab(&["down", "-q", "--name", &self.lab]);
    }
}

/// The checks of an attempt that are red, each with what was observed.
fn reds(attempt: &Value) -> Vec<&Value> {
    let checks = attempt["checks"].as_array().into_iter().flatten();
    checks.filter(|check| check["passed"] == false).collect()
}

#[test]
fn every_lesson_is_played_from_beginning_to_end() -> Result<()> {
    let all = Student::new("list")?.ok(&["list"])?;
    let numbers: Vec<u64> = all["lessons"]
        .as_array()
        .context("no lessons")?
        .iter()
        .filter_map(|lesson| lesson["number"].as_u64())
        .collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<u64>>());
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    workers(6, || {
        while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let number = number.to_string();
            let student = Student::new(&number)?;
            let (code, rehearsal) = student.document(&["rehearse", &number])?;
            let steps = rehearsal["steps"].as_array().context("no steps")?;
            if code != 0 || steps.len() < 6 {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("lesson {number}: {rehearsal:#}");
            }
        }
        Ok(())
    })?;
    assert_eq!(failed.into_inner(), 0, "lessons that do not do as they say");
    Ok(())
}

#[test]
fn a_student_goes_through_a_lesson_verb_by_verb() -> Result<()> {
    let student = Student::new("verbs")?;
    student.refused(&["lesson", "check"], 2, "no lesson has been started")?;
    student.refused(&["lesson", "check", "7"], 2, "lesson 7 is not started")?;
    student.refused(&["lesson", "start", "13"], 2, "no lesson \"13\" · there are: 1 ")?;
    student.refused(&["lesson", "hint", "7"], 2, "lesson 7 is not started")?;

    let step = student.ok(&["start", "7", "--look"])?;
    assert_eq!((&step["state"], &step["lab"]), (&"look".into(), &student.lab.as_str().into()));
    // A whole lab has nothing to be checked: no green without red.
    student.refused(&["lesson", "check"], 4, "nothing is broken in lab")?;

    assert_eq!(student.ok(&["start", "no-nat"])?["state"], "broken");
    student.refused(&["lesson", "start", "7"], 2, "is up already · try: podlab lesson check 7")?;
    let (code, attempt) = student.document(&["check"])?;
    ensure!(code == 1 && reds(&attempt).len() == 3, "{attempt:#}");
    for check in reds(&attempt) {
        ensure!(check["expected"] != "" && check["observed"] != "", "{check:#}");
    }
    let first = student.ok(&["hint"])?["hint"].clone();
    let second = student.ok(&["hint"])?["hint"].clone();
    assert_eq!((&first["number"], &second["number"]), (&1.into(), &2.into()));
    ensure!(first["text"] != second["text"], "{first:#}");

    // Half of the repair is not enough: everything answers, and a node masquerades.
    let route = ["exec", "node1", "--", "ip", "route", "add", "10.244.2.0/24", "via", "192.0.2.12"];
    ensure!(student.run(&route)?.status.success());
    let (code, attempt) = student.document(&["check"])?;
    ensure!(code == 1 && text_of(&attempt).contains("NAT: source"), "{attempt:#}");

    assert_eq!(student.ok(&["reset"])?["state"], "broken");
    let (code, attempt) = student.document(&["check"])?;
    ensure!(code == 1 && reds(&attempt).len() == 3, "{attempt:#}");
    assert_eq!(attempt["attempts"], 1, "reset begins again");
    assert_eq!(student.ok(&["hint"])?["hint"], first);

    ensure!(!student.ok(&["solve"])?["ran"].as_array().context("nothing was run")?.is_empty());
    let (code, attempt) = student.document(&["check"])?;
    ensure!(code == 0 && attempt["passed"] == true, "{attempt:#}");
    let all = student.ok(&["list"])?;
    let own = all["lessons"].as_array().and_then(|all| all.iter().find(|it| it["id"] == "no-nat"));
    assert_eq!(own.context("no lesson")?["passed"], true);

    let next = student.ok(&["next", "--look"])?;
    assert_eq!((&next["number"], &next["state"]), (&8.into(), &"look".into()));
    assert_eq!(student.ok(&["list"])?["current"], next["id"]);
    Ok(())
}

fn text_of(document: &Value) -> String {
    document.to_string()
}

#[test]
fn a_lesson_is_shown_in_both_languages_without_its_solution() -> Result<()> {
    let student = Student::new("show")?;
    let english = student.ok(&["show", "7"])?;
    let korean = student.ok(&["show", "7", "--lang", "ko"])?;
    let kinds = |shown: &Value| -> Vec<Value> {
        shown["blocks"].as_array().into_iter().flatten().map(|block| block["kind"].clone()).collect()
    };
    assert_eq!(kinds(&english), kinds(&korean));
    ensure!(!kinds(&english).contains(&"solution".into()) && !kinds(&english).contains(&"hints".into()));
    ensure!(kinds(&student.ok(&["show", "7", "--all"])?).contains(&"solution".into()));
    for (shown, words) in
        [(&english, "no NAT may stand between the hosts"), (&korean, "어떤 NAT도 통하지 말아야")]
    {
        let text = text_of(shown);
        ensure!(
            text.contains(words) && text.contains("```sh\\npodlab trace kubia-1 kubia-3\\n```"),
            "{shown:#}"
        );
        ensure!(
            !text.contains("```check") && !text.contains("```break") && !text.contains("masq-all"),
            "{shown:#}"
        );
    }
    Ok(())
}

/// Puts lesson 6 into a directory as lesson 13, with something else in the place of a piece of both languages.
fn thirteenth(dir: &std::path::Path, from: &str, to: &str) -> Result<()> {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/lessons");
    for lang in ["en", "ko"] {
        let text = std::fs::read_to_string(own.join(format!("06-bridge.{lang}.md")))?;
        let text = text.replacen("id: bridge\nnumber: 6\n", "id: switch\nnumber: 13\n", 1);
        ensure!(text.contains("number: 13") && text.contains(from), "lesson 6 has changed: no {from:?}");
        std::fs::write(dir.join(format!("13-switch.{lang}.md")), text.replace(from, to))?;
    }
    Ok(())
}

#[test]
fn a_teachers_thirteenth_lesson_works_without_a_word_of_code() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut student = Student::new("thirteenth")?;
    student.lessons = Some(dir.path().as_os_str().to_owned());
    thirteenth(dir.path(), "", "")?;
    ensure!(student.ok(&["lint"])?["problems"] == serde_json::json!([]));
    assert_eq!(student.ok(&["list"])?["lessons"].as_array().map(Vec::len), Some(13));
    let rehearsal = student.ok(&["rehearse", "13"])?;
    assert_eq!((&rehearsal["id"], &rehearsal["passed"]), (&"switch".into(), &true.into()));
    ensure!(!text(&podlab(&["ls", "-q"])?).contains(&student.lab), "the lab of a rehearsal stays");

    // A defect of the text is told by lint, by file and line, and nothing is started.
    thirteenth(dir.path(), "port-detached kubia-1", "port-lost kubia-1")?;
    let (code, linted) = student.document(&["lint"])?;
    let problem = &linted["problems"][0];
    ensure!(code == 1 && problem["line"].as_u64() > Some(1), "{linted:#}");
    ensure!(problem["file"].as_str().is_some_and(|file| file.ends_with("13-switch.en.md")), "{linted:#}");
    student.refused(&["lesson", "start", "13"], 2, "no fault \"port-lost\"")?;
    Ok(())
}

/// What no reader of a text can see, a rehearsal does: the negative controls of the test that plays all lessons.
#[test]
fn a_lesson_that_does_not_do_as_it_says_is_found_by_its_rehearsal() -> Result<()> {
    let (next, cases) = (
        AtomicUsize::new(0),
        [
            // Expected words that nobody prints; a solution that is none; a fault that no check sees; commands that fail.
            ("verdict: no NAT\n", "verdict: all is well\n", "podlab trace kubia-1 kubia-2"),
            ("set \"$veth\" master cni0", "set \"$veth\" up", "green after the solution"),
            ("- fault: port-detached kubia-1", "- fault: cni-missing", "red after start"),
            (
                "podlab verify same-node",
                "podlab verify same-node -n nobody",
                "podlab verify same-node -n nobody",
            ),
        ],
    );
    workers(4, || {
        while let Some((from, to, step)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let dir = tempfile::tempdir()?;
            let name = format!("lies{}", dir.path().display()).replace(['/', '.'], "");
            let mut student = Student::new(&name)?;
            student.lessons = Some(dir.path().as_os_str().to_owned());
            thirteenth(dir.path(), from, to)?;
            let (code, rehearsal) = student.document(&["rehearse", "switch"])?;
            let steps = rehearsal["steps"].as_array().into_iter().flatten();
            let mut red = steps.filter(|step| step["passed"] == false);
            let is_it = |it: &Value| it["step"].as_str().is_some_and(|own| own.contains(step));
            ensure!(code == 1 && red.any(is_it), "{from:?} → {to:?}: {rehearsal:#}");
        }
        Ok(())
    })
}

/// Everything that could be wrong with links, routes, neighbours and rules, put right without asking what is. So it does for any
/// seed, as a student would who knows only how the lab has to be.
const REPAIR: &str = r#"
n() { podlab exec "$@"; }
for port in node1 node2; do n fabric -- ip link set $port up; done
for i in 1 2; do
  other=$((3 - i)); node=node$i
  for veth in $(n $node -- ip -o link show type veth | sed -n 's/^[0-9]*: \(veth[^@:]*\).*/\1/p'); do
    n $node -- ip link set $veth master cni0 up
    n $node -- ip link set $veth type bridge_slave hairpin on
  done
  n $node -- ip link set eth0 up
  n $node -- sysctl -q -w net.ipv4.ip_forward=1
  n $node -- ip route replace 10.244.$other.0/24 via 192.0.2.1$other
  n $node -- ip route replace default via 192.0.2.1
  for half in 0 128; do n $node -- ip route del 10.244.$i.$half/25 2> /dev/null || true; done
  n $node -- ip neigh del 192.0.2.1$other dev eth0 2> /dev/null || true
  for table in nat guard; do n $node -- nft delete table ip $table 2> /dev/null || true; done
done
for pod in "kubia-1 1" "kubia-2 1" "kubia-3 2" "kubia-4 2"; do
  set -- $pod
  n $1 -- ip link set lo up
  n $1 -- ip route replace default via 10.244.$2.1
done
podlab kubectl patch svc web -p '{"spec":{"selector":{"app":"kubia"},"ports":[{"port":80,"targetPort":8080,"nodePort":30080}]}}'
"#;

impl Student {
    /// A script with `podlab` on its path and the lab to talk to.
    fn shell(&self, script: &str) -> Result<()> {
        let program = podnet_tests::plugins::podlab()?;
        let dir = program.parent().context("no directory")?;
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = std::process::Command::new("sh");
        let output =
            command.args(["-e", "-c", script]).env("PATH", path).env("PODLAB_NAME", &self.lab).output()?;
        ensure!(output.status.success(), "{}", text(&output));
        Ok(())
    }
}

#[test]
fn an_exam_is_the_same_for_its_seed_and_passed_by_ones_own_hands_only() -> Result<()> {
    let student = Student::new("exam")?;
    let file = student.dir.path().join("result.json").to_string_lossy().into_owned();
    student.refused(&["lesson", "exam", "--check"], 2, "no exam is going on")?;
    let paper = student.ok(&["exam", "--seed", "7", "--faults", "3", "--student", "Kim"])?;
    assert_eq!(paper["symptoms"].as_array().map(Vec::len), Some(3), "{paper:#}");
    assert_eq!(student.ok(&["exam", "--seed", "7"])?["symptoms"], paper["symptoms"]);
    student.ok(&["exam", "--seed", "7", "--student", "Kim"])?;

    // Nothing tells what is broken, and nothing heals it.
    for line in [
        &["heal", "--all"][..],
        &["why", "kubia-1", "kubia-3"],
        &["faults", "--active"],
        &["break", "masq-all"],
    ] {
        student.refused(line, 2, "an exam is going on")?;
    }
    let shown = student.run(&["verify"])?;
    ensure!(
        shown.status.code() == Some(1) && text(&shown).contains("an exam is going on"),
        "{}",
        text(&shown)
    );
    let (code, result) = student.document(&["exam", "--check"])?;
    ensure!(code == 1 && result["passed"] == false && result["were"] == serde_json::json!([]), "{result:#}");

    // Repaired by forbidden means: everything answers, and there is a rule more.
    student.shell(REPAIR)?;
    let table = "podlab exec node1 -- nft 'table ip trick { chain postrouting { type nat hook postrouting priority srcnat; \
        ip daddr 10.244.9.0/24 masquerade; }; }'";
    student.shell(table)?;
    let (code, result) = student.document(&["exam", "--check"])?;
    ensure!(code == 1 && text_of(&result["forbidden"]).contains("node1: ip trick postrouting"), "{result:#}");
    student.shell("podlab exec node1 -- nft delete table ip trick")?;

    let (code, result) = student.document(&["exam", "--check", "--write", &file])?;
    ensure!(code == 0 && result["passed"] == true, "{result:#}");
    assert_eq!((&result["student"], &result["attempts"]), (&"Kim".into(), &3.into()));
    assert_eq!(result["were"].as_array().map(Vec::len), Some(3));

    // What was written is genuine, and what was changed afterwards is not.
    let marks = student.ok(&["exam", "--read", &file])?;
    assert_eq!(marks["results"][0]["result"], result);
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("\"Kim\"", "\"Lee\""))?;
    let (code, marks) = student.document(&["exam", "--read", &file])?;
    ensure!(code == 1 && marks["results"][0]["genuine"] == false, "{marks:#}");

    // A pod that was thrown away is missed.
    student.ok(&["exam", "--seed", "7"])?;
    student.shell(REPAIR)?;
    student.shell("podlab kubectl delete pod kubia-4")?;
    let (code, result) = student.document(&["exam", "--check"])?;
    ensure!(code == 1 && text_of(&result["forbidden"]).contains("and were kubia-1"), "{result:#}");
    Ok(())
}

#[test]
fn every_fault_of_exams_can_be_repaired_by_hand() -> Result<()> {
    let (seeds, met) = ([1_u64, 14, 19], std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let next = AtomicUsize::new(0);
    workers(3, || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let seed = seed.to_string();
            let student = Student::new(&format!("exam{seed}"))?;
            student.ok(&["exam", "--seed", &seed, "--faults", "6"])?;
            student.shell(REPAIR)?;
            let (code, result) = student.document(&["exam", "--check"])?;
            ensure!(code == 0, "seed {seed}: {result:#}");
            let were = result["were"].as_array().into_iter().flatten().filter_map(Value::as_str);
            met.lock().unwrap().extend(were.filter_map(|it| Some(it.split_once(' ')?.0.to_owned())));
        }
        Ok(())
    })?;
    let met = met.into_inner().unwrap();
    assert_eq!(met.len(), 15, "faults that these seeds have: {met:?}");
    Ok(())
}

/// The ```` ```sh ```` blocks of a page, each with its exit code.
fn blocks(page: &str) -> Result<Vec<(String, i32)>> {
    let mut blocks = Vec::new();
    for piece in page.split("\n```sh").skip(1) {
        let (info, rest) = piece.split_once('\n').context("a block without lines")?;
        let (lines, _) = rest.split_once("```").context("a block without an end")?;
        let code = info.trim().strip_prefix("exit=").map_or(Ok(0), str::parse)?;
        blocks.push((lines.to_owned(), code));
    }
    Ok(blocks)
}

/// The guides' commands, one after the other in one shell, as somebody would who reads them: in a network namespace of its own,
/// where labs may have the names that the guides say, and with a home of its own.
#[test]
fn the_commands_of_the_guides_do_what_the_guides_say() -> Result<()> {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let (guides, next) = (["guide-student", "guide-teacher"], AtomicUsize::new(0));
    workers(2, || {
        while let Some(guide) = guides.get(next.fetch_add(1, Ordering::Relaxed)) {
            let page = |lang: &str| std::fs::read_to_string(docs.join(format!("{guide}.{lang}.md")));
            let all = blocks(&page("en")?)?;
            assert_eq!(all, blocks(&page("ko")?)?, "{guide}: other commands in the other language");
            ensure!(all.len() > 4, "{guide}: {} blocks", all.len());
            let mut script = String::new();
            for (lines, code) in &all {
                match code {
                    0 => script += lines,
                    code => {
                        script +=
                            &format!("set +e\n(set -e\n{lines})\ncode=$?\nset -e\ntest $code = {code}\n")
                    }
                }
            }
            let home = tempfile::tempdir()?;
            let program = podnet_tests::plugins::podlab()?;
            let dir = program.parent().context("no directory")?;
            let mut command = std::process::Command::new("unshare");
            without_settings(&mut command);
            let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
            command.args(["--net", "sh", "-e", "-x", "-c", &script]).current_dir(home.path());
            command
                .env("PATH", path)
                .env("HOME", home.path())
                .env_remove("XDG_STATE_HOME")
                .env("LC_ALL", "C.UTF-8");
            let output = command.stdin(Stdio::null()).output().context("start unshare")?;
            ensure!(output.status.success(), "{guide}: {}", text(&output));
            ensure!(home.path().join(".local/state/podlab/lessons.json").is_file(), "{guide}: no progress");
        }
        Ok(())
    })
}
