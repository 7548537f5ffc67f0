//! An image for pods without a registry: Debian's static busybox, under the names of its applets.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The image's name, in pods and for the sandbox of each. Without a command it waits for its end.
pub const IMAGE: &str = "podnet.test/busybox:1";

/// Where the package `busybox-static` has it.
const BUSYBOX: &str = "/usr/bin/busybox";

/// Writes [`IMAGE`] to a file that `ctr images import` reads (`docker save`'s format).
///
/// # Errors
/// busybox is missing, or the file cannot be written.
pub(super) fn write(path: &Path) -> Result<()> {
    let program = [BUSYBOX, "/bin/busybox"].into_iter().find(|it| Path::new(it).is_file());
    let program = program.context("no busybox: install the package busybox-static")?;
    let listed = Command::new(program).arg("--list").output().context("start busybox")?;
    ensure!(listed.status.success(), "busybox --list: {}", String::from_utf8_lossy(&listed.stderr));
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["bin/", "tmp/", "www/"] {
        add(&mut layer, tar::EntryType::Directory, dir, 0o755, &[])?;
    }
    let content = fs::read(program).with_context(|| format!("read {program}"))?;
    add(&mut layer, tar::EntryType::Regular, "bin/busybox", 0o755, &content)?;
    for applet in String::from_utf8(listed.stdout)?.lines().filter(|name| *name != "busybox") {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    let layer = layer.into_inner()?;
    let digest = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/busybox", "tail", "-f", "/dev/null"]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    let file = fs::File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut image = tar::Builder::new(file);
    for (name, content) in [
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", layer.as_slice()),
        ("manifest.json", manifest.to_string().as_bytes()),
    ] {
        add(&mut image, tar::EntryType::Regular, name, 0o644, content)?;
    }
    image.finish().with_context(|| format!("write {}", path.display()))
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}

fn add(
    archive: &mut tar::Builder<impl std::io::Write>,
    kind: tar::EntryType,
    name: &str,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    archive
        .append_data(&mut header(kind, mode, content.len()), name, content)
        .with_context(|| format!("pack {name}"))
}
