//! Completions and manual pages, read by the programs that they are for: bash on a terminal, man(1).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use podnet_tests::plugins;

use super::{podlab, text};

/// A bash on a pseudo-terminal, in which somebody types a line and the tabulator. Fails if the line does not become what is wanted.
const TYPIST: &str = r#"
import os, pty, select, sys, time
program, typed, wanted = sys.argv[1:4]
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PS1="ready> ", HISTFILE="", PATH=os.path.dirname(program) + ":" + os.environ["PATH"])
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
seen, deadline = "", time.time() + 60
def until(words):
    global seen
    while words not in seen:
        if time.time() > deadline:
            sys.exit("no %r in %r" % (words, seen))
        if select.select([fd], [], [], 0.2)[0]:
            seen += os.read(fd, 4096).decode(errors="replace")
    seen = seen.split(words, 1)[1]
until("ready> ")
os.write(fd, b"bind 'set bell-style none'; source <(podlab completions bash); echo loaded-$((1 + 1))\n")
until("loaded-2")
until("ready> ")
os.write(fd, typed.encode() + b"\t")
until(wanted)
os.close(fd)
"#;

#[test]
fn bash_completes_verbs_options_and_values() -> Result<()> {
    let program = plugins::podlab()?;
    for (typed, wanted) in [
        ("podlab insp", "podlab inspect "),
        ("podlab up --serv", "podlab up --service-cidr "),
        ("podlab -o ju", "podlab -o junit "),
        ("podlab completions zs", "podlab completions zsh "),
        ("podlab kubectl sca", "podlab kubectl scale "),
    ] {
        let mut bash = Command::new("/usr/bin/python3");
        bash.args(["-c", TYPIST]).arg(&program).args([typed, wanted]).stdin(Stdio::null());
        let output = bash.output().context("start python3")?;
        ensure!(output.status.success(), "{typed:?}: {}", text(&output));
    }
    Ok(())
}

#[test]
fn the_other_shells_get_scripts_of_their_own_kind() -> Result<()> {
    for (shell, words) in [
        ("zsh", &["#compdef podlab", "inspect", "port-forward"][..]),
        ("fish", &["complete -c podlab", "inspect", "port-forward"]),
    ] {
        let output = podlab(&["completions", shell])?;
        ensure!(output.status.success(), "{}", text(&output));
        for words in words {
            ensure!(text(&output).contains(words), "{shell}: no {words:?}");
        }
    }
    let unknown = podlab(&["completions", "dos"])?;
    ensure!(unknown.status.code() == Some(2), "{}", text(&unknown));
    Ok(())
}

/// What man(1) shows of a page; a warning is an error.
fn shown(path: &Path) -> Result<String> {
    let shown = Command::new("man")
        .args(["--warnings", "-E", "UTF-8", "-l"])
        .arg(path)
        .env("MANWIDTH", "100")
        .stdin(Stdio::null())
        .output()
        .context("start man")?;
    ensure!(shown.status.success() && shown.stderr.is_empty(), "{}: {}", path.display(), text(&shown));
    // Lines are filled with blanks, from the left and from the right in turn.
    let page = String::from_utf8_lossy(&shown.stdout);
    Ok(page.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn the_manual_page_of_podnet_has_every_command_and_plugin() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man/podnet.8");
    ensure!(shown(&path)?.contains("SYNOPSIS"), "{}", path.display());
    let page = std::fs::read_to_string(&path)?.replace("\\-", "-");
    let help = Command::new(plugins::podnet()?).arg("help").output()?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let version = help.split_once(':').context("no version")?.0;
    ensure!(page.contains(&format!("\"{version}\"")), "the page is not of {version}");
    let names: Vec<&str> = help
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    ensure!(names.len() > 20, "{names:?}");
    let words: BTreeSet<&str> = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).collect();
    for name in names {
        // After a change of font the name has that font's letter before it.
        ensure!(words.contains(name) || page.contains(&format!("\\fB{name}")), "no {name} in the page");
    }
    Ok(())
}

#[test]
fn the_manual_page_of_podnetd_reads_without_a_warning() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man/podnetd.8");
    let page = shown(&path)?;
    for words in
        ["SYNOPSIS", "podnetd doctor", "05-podnet.conflist", concat!("podnet ", env!("CARGO_PKG_VERSION"))]
    {
        ensure!(page.contains(words), "{}: no {words:?}", path.display());
    }
    Ok(())
}

#[test]
fn every_verb_has_a_manual_page_that_man_reads_without_a_warning() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let written = podlab(&["man", &dir.path().to_string_lossy()])?;
    ensure!(written.status.success(), "{}", text(&written));
    let help = podlab(&["--help"])?;
    let verbs = String::from_utf8_lossy(&help.stdout).into_owned();
    let listed =
        verbs.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: BTreeSet<String> = listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    ensure!(verbs.contains("up") && verbs.len() > 10, "{verbs:?}");
    for verb in verbs {
        let page = dir.path().join(format!("podlab-{verb}.1"));
        ensure!(page.is_file(), "no page for {verb}");
    }
    let mut pages = 0;
    for entry in std::fs::read_dir(dir.path())? {
        let path = entry?.path();
        let page = shown(&path)?;
        ensure!(page.contains("SYNOPSIS") && page.contains("podlab"), "{}: {page}", path.display());
        if path.ends_with("podlab-up.1") {
            ensure!(
                page.contains("--service-cidr <CIDR>") && page.contains("PODLAB_UP_SERVICE_CIDR"),
                "{page}"
            );
        }
        if path.ends_with("podlab.1") {
            ensure!(page.contains("Exit codes: 0 all good"), "{page}");
        }
        pages += 1;
    }
    ensure!(pages > 20, "{pages} pages");
    let nowhere = podlab(&["man", "/nowhere"])?;
    ensure!(nowhere.status.code() == Some(1) && text(&nowhere).contains("/nowhere"), "{}", text(&nowhere));
    Ok(())
}
