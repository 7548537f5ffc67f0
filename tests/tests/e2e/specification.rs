//! SPECIFICATION.md and docs/differences.md name tests; each must be there. What the tests hold is their own affair.

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
    for room in ["kernel", "cni", "ipam", "cni-plugin", "agent", "apiserver", "lab", "tests"] {
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
            if !matches!(line.trim(), "#[test]" | "#[tokio::test]") {
                continue;
            }
            let name = lines.find_map(|line| {
                let line = line.trim();
                line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?.split('(').next()
            });
            let name = name.with_context(|| format!("{}: a test without a name", file.display()))?;
            let inner = if line.starts_with(' ') { "tests" } else { &module };
            found.insert((inner.to_owned(), name.to_owned()));
        }
    }
    Ok(found)
}

/// What stands between back-ticks and looks like a test.
fn named(text: &str) -> Vec<(String, String)> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    let words = text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::"));
    // An IPv6 address has such a pair of colons too.
    let words = words.filter(|(module, name)| word(module) && word(name) && name.contains('_'));
    words.map(|(module, name)| (module.into(), name.into())).collect()
}

#[test]
fn each_test_that_a_page_names_is_there() -> Result<()> {
    let tests = tests()?;
    ensure!(tests.len() > 300, "only {} tests", tests.len());
    for (page, least) in [("SPECIFICATION.md", 50), ("docs/differences.md", 35)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        let text = fs::read_to_string(path).with_context(|| format!("read {page}"))?;
        let named = named(&text);
        ensure!(named.len() > least, "{page} names {} tests only", named.len());
        let missing: Vec<_> = named.iter().filter(|test| !tests.contains(*test)).collect();
        ensure!(missing.is_empty(), "{page} names what is not there: {missing:?}");
        ensure!(!text.contains("TODO"), "{page}: a figure is not measured yet");
    }
    Ok(())
}

#[test]
fn names_are_read_from_back_ticks() {
    let found = named("| x | `a::b_1`, ipam: `c::d_2` and `e`, `fe80::1`, `module::name` | 5 |");
    assert_eq!(found, [("a".to_owned(), "b_1".to_owned()), ("c".to_owned(), "d_2".to_owned())]);
}
