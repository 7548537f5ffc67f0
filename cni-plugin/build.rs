//! Hands the linker a layout of the executable, where scripts/build-static names one.

fn main() {
    println!("cargo:rerun-if-env-changed=PODNET_LAYOUT");
    if let Ok(path) = std::env::var("PODNET_LAYOUT") {
        println!("cargo:rerun-if-changed={path}");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{path}");
    }
}
