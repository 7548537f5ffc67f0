//! Finds the modes and the faults: every file of `src/modes` and `src/faults` but `mod.rs` is one, or a family of them,
//! under its own name. Nothing else lists them.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let modes = |name: &str| format!("({name:?}, &{name}::MODE), ");
    find("modes", "&[(&str, &dyn Mode)]", modes);
    find("faults", "&[&[Fault]]", |name| format!("{name}::FAULTS, "));
    walks();
}

/// Writes `walks.rs`: the texts of the recorded walks, every file of `walks`, by their names.
fn walks() {
    let dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("walks");
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .expect("the folder")
        .map(|entry| entry.expect("an entry of the folder").path())
        .collect();
    files.sort();
    let text: String = files.iter().map(|file| format!("include_str!({file:?}),\n")).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("walks.rs");
    fs::write(out, format!("static ALL: &[&str] = &[\n{text}];\n")).expect("write the list");
}

/// Writes `FOLDER.rs`: a module for each file of the folder, and `ALL`, of the type `of`, with an item for each.
fn find(folder: &str, of: &str, item: impl Fn(&str) -> String) {
    let dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("src").join(folder);
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut names: Vec<String> = fs::read_dir(&dir)
        .expect("the folder")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "mod")
        .collect();
    names.sort();
    let (mut modules, mut list) = (String::new(), String::new());
    for name in &names {
        modules += &format!("#[path = {:?}]\nmod {name};\n", dir.join(format!("{name}.rs")));
        list += &item(name);
    }
    let text = format!("{modules}\nstatic ALL: {of} = &[{list}];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join(format!("{folder}.rs"));
    fs::write(out, text).expect("write the list");
}
