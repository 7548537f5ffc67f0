//! `scripts/kind-up`, with programs in the place of kind and kubectl that write down what they are asked.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use super::file;

/// What the script itself runs; a PATH with nothing else has no kind, wherever this is tried.
const TOOLS: [&str; 10] = ["bash", "dirname", "realpath", "grep", "mktemp", "date", "cat", "rm", "id", "sed"];

fn program(dir: &Path, name: &str, script: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
}

/// A PATH with the script's tools.
fn path() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for tool in TOOLS {
        let found =
            ["/usr/bin", "/bin"].iter().map(|it| Path::new(it).join(tool)).find(|it| it.exists()).unwrap();
        symlink(found, dir.path().join(tool)).unwrap();
    }
    dir
}

fn kind_up(path: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(path.join("bash"));
    command.arg(file("scripts/kind-up")).args(words).current_dir(path);
    command.env("PATH", path).env_remove("KIND_EXPERIMENTAL_PROVIDER");
    command.output().unwrap()
}

#[test]
fn what_is_missing_is_told_by_name_with_code_5() {
    let dir = path();
    let refused = |word: &str| {
        let output = kind_up(dir.path(), &[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{told}");
        assert!(told.starts_with("error: ") && told.contains(word) && told.contains(" · try: "), "{told}");
    };
    refused("no kind on PATH");
    program(dir.path(), "kind", "exit 0");
    refused("no kubectl on PATH");
    program(dir.path(), "kubectl", "exit 0");
    refused("no container engine on PATH");
    program(dir.path(), "podman", "exit 1");
    refused("podman does not answer");
}

#[test]
fn a_cluster_is_made_in_the_order_that_needs_no_network_before_there_is_one() {
    let dir = path();
    let log = dir.path().join("log");
    fs::write(&log, "").unwrap();
    fs::write(dir.path().join("image.tar"), "").unwrap();
    let note = format!("echo \"${{0##*/}} $*\" >>{}", log.display());
    program(dir.path(), "kind", &format!("{note}\n[ \"$2\" != clusters ] || echo other"));
    program(dir.path(), "kubectl", &note);
    program(dir.path(), "docker", "exit 0");
    let output = kind_up(dir.path(), &["--name", "two", "--dual-stack", "--image", "image.tar"]);
    assert!(output.status.success(), "{output:?}");
    let image = fs::canonicalize(dir.path().join("image.tar")).unwrap();
    let expected = format!(
        "kind get clusters
kind create cluster --name two --config deploy/kind-dual-stack.yaml
kind load image-archive {} --name two
kubectl --context kind-two apply -f deploy/podnet.yaml
kubectl --context kind-two -n kube-system rollout status ds/podnet --timeout 300s
kubectl --context kind-two wait --for=condition=Ready nodes --all --timeout 300s
",
        image.display()
    );
    assert_eq!(fs::read_to_string(&log).unwrap(), expected);

    let output = kind_up(dir.path(), &["--name", "other", "--image", "image.tar"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && told.contains("there is a cluster other already"), "{told}");
    for words in [&["--nam", "x"][..], &["--name"], &["--image", "absent.tar"]] {
        let output = kind_up(dir.path(), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
    }
}
