//! Whether what stands in `deploy/` and `scripts/` agrees with the code: manifests, the image, kind.

mod guide;
mod image;
mod kind;
mod manifest;

use std::path::PathBuf;

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap()
}

/// How the image is called.
fn image_name() -> String {
    format!("localhost/podnet:{}", env!("CARGO_PKG_VERSION"))
}
