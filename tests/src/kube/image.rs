//! Images without a registry: for pods Debian's static busybox, under the names of its applets; for others, programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kernel::Netns;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The image's name, in pods and for the sandbox of each. Without a command it waits for its end.
pub const IMAGE: &str = "podnet.test/busybox:1";

/// The page at which [`super::server`] tells a client's address as it sees it, and the pod's name.
pub const WHO: &str = "/cgi-bin/who";

/// What answers there.
const ANSWER: &str = r#"#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n%s %s\n' "$REMOTE_ADDR" "$(hostname)"
"#;

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
    for dir in ["bin/", "tmp/", "www/", "www/cgi-bin/"] {
        add(&mut layer, tar::EntryType::Directory, dir, 0o755, &[])?;
    }
    let content = fs::read(program).with_context(|| format!("read {program}"))?;
    add(&mut layer, tar::EntryType::Regular, "bin/busybox", 0o755, &content)?;
    add(&mut layer, tar::EntryType::Regular, &format!("www{WHO}"), 0o755, ANSWER.as_bytes())?;
    for applet in String::from_utf8(listed.stdout)?.lines().filter(|name| *name != "busybox") {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    let config = json!({"Env": ["PATH=/bin"], "Cmd": ["/bin/busybox", "tail", "-f", "/dev/null"]});
    pack(path, IMAGE, &layer.into_inner()?, &config)
}

/// Writes an image of programs that stand in its root, with the libraries that each needs, in the same format. The first
/// is what it runs.
///
/// # Errors
/// A program cannot be read, or the file not be written.
pub fn write_programs(path: &Path, name: &str, programs: &[&Path]) -> Result<()> {
    let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for program in programs {
        let file = program.file_name().context("a program has a name")?;
        files.insert(file.into(), program.to_path_buf());
        // A static program has none, and ldd says so by its exit code.
        let listed = Command::new("ldd").arg(program).output().context("start ldd")?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for library in listed.split_whitespace().filter(|it| it.starts_with('/')) {
            files.insert(library.trim_start_matches('/').into(), library.into());
        }
    }
    let mut layer = tar::Builder::new(Vec::new());
    for (inside, outside) in &files {
        let content = fs::read(outside).with_context(|| format!("read {}", outside.display()))?;
        add(&mut layer, tar::EntryType::Regular, &inside.to_string_lossy(), 0o755, &content)?;
    }
    let first = Path::new("/").join(programs[0].file_name().unwrap_or_default());
    pack(path, name, &layer.into_inner()?, &json!({"Entrypoint": [first]}))
}

/// Asks the server of a pod at `to` by HTTP, from `netns`: as whom it sees the client, and what the pod is called.
///
/// # Errors
/// There is no answer within `limit`, or it is no such server's.
pub fn who(netns: &Netns, to: SocketAddr, limit: Duration) -> Result<(IpAddr, String)> {
    let connect = || TcpStream::connect_timeout(&to, limit);
    let mut stream = netns.run(connect)?.with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {WHO} HTTP/1.0\r\n\r\n").with_context(|| format!("ask {to}"))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("read from {to}"))?;
    let answer = || format!("{to} answered {text:?}");
    let (_, body) = text.split_once("\r\n\r\n").with_context(answer)?;
    let (seen, name) = body.trim().split_once(' ').with_context(answer)?;
    let seen: IpAddr = seen.trim_matches(['[', ']']).parse().with_context(answer)?;
    // An IPv4 client of a socket that is for both versions.
    Ok((seen.to_canonical(), name.to_owned()))
}

fn pack(path: &Path, name: &str, layer: &[u8], config: &Value) -> Result<()> {
    let digest = Sha256::digest(layer).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "config": config,
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let file = fs::File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut image = tar::Builder::new(file);
    for (name, content) in [
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", layer),
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
