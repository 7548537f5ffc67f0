//! Finds the modes and the faults: every file of `src/modes` and `src/faults` but `mod.rs` is one, or a family of them,
//! under its own name. And the lessons: every `.md` of `lessons`. Nothing else lists them.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let modes = |name: &str| format!("({name:?}, &{name}::MODE), ");
    find("modes", "&[(&str, &dyn Mode)]", modes);
    find("faults", "&[&[Fault]]", |name| format!("{name}::FAULTS, "));
    walks();
    lessons();
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

/// Writes `lessons.rs`: `EMBEDDED`, the name and the text of each file of `lessons`.
fn lessons() {
    let dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("lessons");
    println!("cargo::rerun-if-changed={}", dir.display());
    let list: String = stems(&dir, "md")
        .iter()
        .map(|stem| {
            format!("({:?}, include_str!({:?})),\n", format!("{stem}.md"), dir.join(format!("{stem}.md")))
        })
        .collect();
    let text = format!("static EMBEDDED: &[(&str, &str)] = &[\n{list}];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("lessons.rs");
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

/// Writes `FOLDER.rs`: a module for each file of the folder, and `ALL`, of the type `of`, with an item for each.
fn find(folder: &str, of: &str, item: impl Fn(&str) -> String) {
    let dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("src").join(folder);
    println!("cargo::rerun-if-changed={}", dir.display());
    let names: Vec<String> = stems(&dir, "rs").into_iter().filter(|name| name != "mod").collect();
    let (mut modules, mut list) = (String::new(), String::new());
    for name in &names {
        modules += &format!("#[path = {:?}]\nmod {name};\n", dir.join(format!("{name}.rs")));
        list += &item(name);
    }
    let text = format!("{modules}\nstatic ALL: {of} = &[{list}];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join(format!("{folder}.rs"));
    fs::write(out, text).expect("write the list");
}
