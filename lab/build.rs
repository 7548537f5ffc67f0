//! Finds the modes: every file of `src/modes` but `mod.rs` is one, under its own name. Nothing else lists them.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("src/modes");
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut names: Vec<String> = fs::read_dir(&dir)
        .expect("src/modes")
        .map(|entry| entry.expect("an entry of src/modes").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "mod")
        .collect();
    names.sort();
    let (mut modules, mut list) = (String::new(), String::new());
    for name in &names {
        modules += &format!("#[path = {:?}]\nmod {name};\n", dir.join(format!("{name}.rs")));
        list += &format!("({name:?}, &{name}::MODE), ");
    }
    let text = format!("{modules}\nstatic ALL: &[(&str, &dyn Mode)] = &[{list}];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("modes.rs");
    fs::write(out, text).expect("write the list of modes");
}
