//! SPECIFICATION.md names tests; each must be there. What the tests hold is their own affair.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

fn sources(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// `module::name` of every test below the workspace; the module is the file's, or its folder's for a `mod.rs`, or `tests`.
fn tests() -> Result<BTreeSet<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for room in ["kernel", "cni", "ipam", "cni-plugin", "lab", "tests"] {
        sources(&root.join(room), &mut files)?;
    }
    let mut found = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let module = if stem == "mod" { folder.into_owned() } else { stem };
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.trim() != "#[test]" {
                continue;
            }
            let name = lines.find_map(|line| line.trim().strip_prefix("fn ")?.split('(').next());
            let name = name.with_context(|| format!("{}: a test without a name", file.display()))?;
            let inner = if line.starts_with(' ') { "tests" } else { &module };
            found.insert((inner.to_owned(), name.to_owned()));
        }
    }
    Ok(found)
}

/// What stands between back-ticks and looks like a test.
fn named(text: &str) -> Vec<(String, String)> {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|word| !word.contains(' '))
        .filter_map(|word| word.split_once("::"))
        .map(|(module, name)| (module.into(), name.into()))
        .collect()
}

#[test]
fn each_test_that_the_specification_names_is_there() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SPECIFICATION.md");
    let text = fs::read_to_string(page).context("read SPECIFICATION.md")?;
    let (tests, named) = (tests()?, named(&text));
    ensure!(tests.len() > 300 && named.len() > 25, "{} tests, {} named", tests.len(), named.len());
    let missing: Vec<_> = named.iter().filter(|test| !tests.contains(*test)).collect();
    ensure!(missing.is_empty(), "named and not there: {missing:?}");
    ensure!(!text.contains("TODO"), "a figure is not measured yet");
    Ok(())
}

#[test]
fn names_are_read_from_back_ticks() {
    let found = named("| x | `a::b`, ipam: `c::d` and `e` | 5 |");
    assert_eq!(found, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())]);
}
