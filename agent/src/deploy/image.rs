//! The archive of scripts/image, read by another reader of archives than the one that wrote it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{file, image_name, text};

/// The beginning of a 64-bit ELF executable with these program headers (elf(5)): their types.
fn elf(headers: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..5].copy_from_slice(b"\x7fELF\x02");
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&(headers.len() as u16).to_le_bytes());
    for kind in headers {
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 52]);
    }
    bytes
}

fn programs(dir: &Path, podnetd: &[u8]) {
    for (name, content) in [("podnet", elf(&[1]).as_slice()), ("podnetd", podnetd)] {
        fs::write(dir.join(name), content).unwrap();
        fs::set_permissions(dir.join(name), Permissions::from_mode(0o755)).unwrap();
    }
}

fn build(dir: &Path, output: &Path) -> Output {
    let mut command = Command::new(file("scripts/image"));
    command.arg("--binaries").arg(dir).arg("--output").arg(output);
    command.output().unwrap()
}

/// Name to mode and content, of an archive whose entries have neither owner nor time.
fn read(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        let (mode, name) = (header.mode().unwrap(), entry.path().unwrap().display().to_string());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(all.insert(name, (mode, content)).is_none());
    }
    all
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[test]
fn the_archive_is_an_oci_layout_and_a_docker_archive_of_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    programs(dir.path(), &elf(&[1, 6]));
    let output = dir.path().join("image.tar");
    let built = build(dir.path(), &output);
    assert!(built.status.success(), "{built:?}");
    let archive = fs::read(&output).unwrap();
    let files = read(&archive);
    let document = |name: &str| -> Value { serde_json::from_slice(&files[name].1).unwrap() };
    // Follows a descriptor of the specification (descriptor.md) to what it describes.
    let described = |descriptor: &Value| -> &Vec<u8> {
        let name = descriptor["digest"].as_str().unwrap().replace(':', "/");
        let content = &files[&format!("blobs/{name}")].1;
        assert_eq!(descriptor["digest"], digest(content));
        assert_eq!(descriptor["size"], content.len());
        content
    };
    assert_eq!(document("oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = document("index.json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(annotations["io.containerd.image.name"], image_name());
    let manifest: Value = serde_json::from_slice(described(&index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(described(&manifest["config"])).unwrap();
    let layer = described(&manifest["layers"][0]);
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!([digest(layer)]));
    assert_eq!((&config["os"], &config["config"]["User"]), (&"linux".into(), &"0".into()));

    let root = read(layer);
    assert_eq!(root.keys().collect::<Vec<_>>(), ["podnet", "podnetd"], "and nothing else");
    assert!(root.values().all(|(mode, _)| *mode == 0o755));
    assert_eq!(root["podnetd"].1, fs::read(dir.path().join("podnetd")).unwrap());
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/podnetd"]));
    assert!(root.contains_key(crate::places::PLUGIN.trim_start_matches('/')));

    let docker = document("manifest.json");
    assert_eq!(docker[0]["RepoTags"], serde_json::json!([image_name()]));
    let path =
        |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
    assert_eq!(docker[0]["Config"], path(&manifest["config"]));
    assert_eq!(docker[0]["Layers"], serde_json::json!([path(&manifest["layers"][0])]));
    assert_eq!(files.len(), 6, "nothing that nobody refers to: {:?}", files.keys());

    // Other times, another place, the same bytes.
    let again = tempfile::tempdir().unwrap();
    programs(again.path(), &elf(&[1, 6]));
    assert!(build(again.path(), &again.path().join("b.tar")).status.success());
    assert!(fs::read(again.path().join("b.tar")).unwrap() == archive);
}

#[test]
fn a_program_that_would_not_run_in_an_empty_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("image.tar");
    for (podnetd, word) in
        [(elf(&[1, 3]), "linked dynamically"), (b"#!/bin/sh".to_vec(), "no 64-bit ELF executable")]
    {
        programs(dir.path(), &podnetd);
        let built = build(dir.path(), &output);
        let told = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(!built.status.success() && told.contains("podnetd") && told.contains(word), "{told}");
    }
    fs::set_permissions(dir.path().join("podnet"), Permissions::from_mode(0o644)).unwrap();
    let told = String::from_utf8_lossy(&build(dir.path(), &output).stderr).into_owned();
    assert!(told.contains("podnet is not executable"), "{told}");
    fs::remove_file(dir.path().join("podnet")).unwrap();
    let told = String::from_utf8_lossy(&build(dir.path(), &output).stderr).into_owned();
    assert!(told.contains("No such file or directory"), "{told}");
    assert!(!output.exists());
}

#[test]
fn the_dockerfile_makes_the_same_image() {
    let dockerfile = text("deploy/Dockerfile");
    assert!(dockerfile.contains(&image_name()), "{dockerfile}");
    for line in ["FROM scratch", "COPY podnet podnetd /", "USER 0", "ENTRYPOINT [\"/podnetd\"]", "ENV PATH=/"]
    {
        assert!(dockerfile.lines().any(|it| it == line), "{line}");
    }
}
