//! Finds the modes and the faults: every file of `src/modes` and `src/faults` but `mod.rs` is one, or a family of them,
//! under its own name; one that is a cargo feature which is off is left out. And the lessons: every `.md` of `lessons`. Nothing
//! else lists them.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Modes that are a cargo feature of the same name.
const FEATURES: [&str; 1] = ["kubernetes"];

fn main() {
    let modes = |name: &str| format!("({name:?}, &{name}::MODE), ");
    find("modes", "&[(&str, &dyn Mode)]", modes);
    find("faults", "&[&[Fault]]", |name| format!("{name}::FAULTS, "));
    walks();
    lessons();
}

/// Writes `walks.rs`: `ALL`, the texts of the recorded walks, every file of `walks`, by their names.
fn walks() {
    let dir = folder("walks");
    let text = |stem: &String| format!("include_str!({:?}),\n", dir.join(format!("{stem}.json")));
    let list: String = stems(&dir, "json").iter().map(text).collect();
    write("walks", &format!("static ALL: &[&str] = &[\n{list}];\n"));
}

/// Writes `lessons.rs`: `EMBEDDED`, the name and the text of each file of `lessons`.
fn lessons() {
    let dir = folder("lessons");
    let text = |stem: &String| {
        let file = format!("{stem}.md");
        format!("({file:?}, include_str!({:?})),\n", dir.join(&file))
    };
    let list: String = stems(&dir, "md").iter().map(text).collect();
    write("lessons", &format!("static EMBEDDED: &[(&str, &str)] = &[\n{list}];\n"));
}

/// A folder of this package, which is looked at again when something in it has changed.
fn folder(path: &str) -> PathBuf {
    let dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join(path);
    println!("cargo::rerun-if-changed={}", dir.display());
    dir
}

/// Writes `NAME.rs`.
fn write(name: &str, text: &str) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join(format!("{name}.rs"));
    fs::write(out, text).expect("write the list");
}

/// The files of a folder that end so, without that, sorted.
fn stems(dir: &Path, end: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("the folder")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == end))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Writes `FOLDER.rs`: a module for each file of the folder, and `ALL`, of the type `of`, with an item for each. Of modes,
/// which may be left out, `LEFT_OUT`, too.
fn find(name: &str, of: &str, item: impl Fn(&str) -> String) {
    let dir = folder(&format!("src/{name}"));
    let is_off = |name: &String| {
        let variable = format!("CARGO_FEATURE_{}", name.to_uppercase());
        FEATURES.contains(&name.as_str()) && env::var_os(variable).is_none()
    };
    let names = stems(&dir, "rs").into_iter().filter(|name| name != "mod");
    let (off, on): (Vec<String>, Vec<String>) = names.partition(is_off);
    let (mut modules, mut list) = (String::new(), String::new());
    for name in &on {
        modules += &format!("#[path = {:?}]\nmod {name};\n", dir.join(format!("{name}.rs")));
        list += &item(name);
    }
    if name == "modes" {
        modules += &format!("const LEFT_OUT: &[&str] = &{off:?};\n");
    }
    write(name, &format!("{modules}\nstatic ALL: {of} = &[{list}];\n"));
}
