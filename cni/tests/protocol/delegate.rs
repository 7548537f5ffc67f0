//! Finding and running a delegate.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cni::{CniResult, Env, Error, delegate};

use crate::scripts::Scripts;

fn env(scripts: &Scripts) -> Env {
    Env {
        command: "ADD".into(),
        container_id: "c1".into(),
        netns: "/run/netns/a".into(),
        ifname: "eth0".into(),
        args: "IP=10.0.0.9".into(),
        path: scripts.dir().display().to_string(),
        ..Env::default()
    }
}

fn exec(scripts: &Scripts, body: &str, command: &str) -> Result<Option<CniResult>, Error> {
    let path = scripts.add("delegate", body);
    delegate::exec(&path, command, br#"{"cniVersion":"0.3.1","name":"n"}"#, &env(scripts))
}

fn error(body: &str) -> Error {
    exec(&Scripts::new(), body, "ADD").unwrap_err()
}

#[test]
fn the_first_regular_file_of_the_path_is_found() {
    let scripts = Scripts::new();
    let plugin = scripts.add("host-local", "exit 0");
    let (one, two) = (scripts.dir().join("one"), scripts.dir().join("two"));
    fs::create_dir_all(one.join("host-local")).unwrap();
    fs::create_dir(&two).unwrap();
    symlink(&plugin, two.join("host-local")).unwrap();
    let path = [one.clone(), scripts.dir().join("none"), two.clone(), scripts.dir().to_owned()];
    assert_eq!(delegate::find("host-local", &path), Ok(two.join("host-local")));

    let refused = |name: &str, path: &[PathBuf]| delegate::find(name, path).unwrap_err();
    assert_eq!(refused("", &path), Error::invalid("no plugin name provided"));
    assert_eq!(refused("a/b", &path), Error::invalid("invalid plugin name: a/b"));
    assert_eq!(refused("x", &[]), Error::internal("no paths provided"));
    let expected = format!("failed to find plugin \"x\" in path [{} {}]", one.display(), two.display());
    assert_eq!(refused("x", &[one.clone(), two.clone()]), Error::internal(expected));
    for name in [".", "..", "a\0b"] {
        assert!(delegate::find(name, std::slice::from_ref(&one)).is_err(), "{name:?}");
    }
}

#[test]
fn our_own_executable_is_known_under_any_name() {
    let scripts = Scripts::new();
    let link = scripts.dir().join("bridge");
    symlink(std::env::current_exe().unwrap(), &link).unwrap();
    assert!(delegate::is_self(&link));
    assert!(!delegate::is_self(Path::new("/bin/sh")));
    assert!(!delegate::is_self(Path::new("/nonexistent")));
}

#[test]
fn delegate_gets_the_same_bytes_and_another_command() {
    let scripts = Scripts::new();
    let body = "cat > $DIR/stdin; env | grep ^CNI_ | sort > $DIR/env; echo noise >&2; echo '{}'";
    assert_eq!(exec(&scripts, body, "DEL"), Ok(None));
    assert_eq!(scripts.read("stdin"), r#"{"cniVersion":"0.3.1","name":"n"}"#);
    let expected = format!(
        "CNI_ARGS=IP=10.0.0.9\nCNI_COMMAND=DEL\nCNI_CONTAINERID=c1\nCNI_IFNAME=eth0\nCNI_NETNS=/run/netns/a\nCNI_PATH={}\n",
        scripts.dir().display()
    );
    assert_eq!(scripts.read("env"), expected);
}

#[test]
fn result_of_add_has_the_version_of_the_configuration_when_it_names_none() {
    let scripts = Scripts::new();
    let body = r#"echo '{"ips":[{"version":"4","address":"10.0.0.2/8","gateway":"10.0.0.1"}]}'"#;
    let result = exec(&scripts, body, "ADD").unwrap().unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.0.0.2/8");
    let old = r#"echo '{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.3/8"}}'"#;
    assert_eq!(exec(&scripts, old, "ADD").unwrap().unwrap().ips[0].address.to_string(), "10.0.0.3/8");
    assert_eq!(exec(&scripts, "echo null", "ADD"), Ok(Some(CniResult::default())));
}

#[test]
fn failures_are_decoded_and_keep_their_code() {
    let full = r#"echo '{"cniVersion":"1.0.0","Code":142,"msg":"no more","details":"d"}'; exit 3"#;
    assert_eq!(error(full), Error::new(142, "no more").with_details("d"));
    assert_eq!(error("exit 3"), Error::internal("netplugin failed with no error message: exit status 3"));
    assert_eq!(error("kill -9 $$"), Error::internal("netplugin failed with no error message: signal: 9"));
    assert_eq!(
        error("echo boom >&2; exit 1"),
        Error::internal(r#"netplugin failed: "boom\n""#).with_details("exit status 1")
    );
    let nonsense = error("echo nonsense; exit 1").to_string();
    let expected =
        "netplugin failed but error parsing its diagnostic message \"nonsense\\n\": invalid character";
    assert!(nonsense.starts_with(expected), "{nonsense}");
    assert_eq!(error("echo '{\"msg\":\"m\"}'; exit 1"), Error::internal("m"));
    assert_eq!(error("echo '{}'; exit 1").code, 999);
}

#[test]
fn success_without_a_result_is_an_error_of_add_only() {
    assert_eq!(error("exit 0"), Error::new(6, "decode result: unexpected end of JSON input"));
    assert_eq!(error("echo '{\"cniVersion\":\"9.9.9\"}'").code, 1);
    assert_eq!(exec(&Scripts::new(), "exit 0", "CHECK"), Ok(None));
}

#[test]
fn program_that_cannot_be_started_is_named() {
    let scripts = Scripts::new();
    let path = scripts.dir().join("none");
    let error = delegate::exec(&path, "ADD", b"{}", &env(&scripts)).unwrap_err();
    assert!(error.msg.starts_with(&format!("run plugin {}: No such file", path.display())), "{error}");
}

#[test]
fn program_that_is_being_written_is_tried_again() {
    let scripts = Scripts::new();
    let path = scripts.add("delegate", "exit 0");
    let mut writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            writer.write_all(b"# done\n").unwrap();
        });
        assert_eq!(delegate::exec(&path, "DEL", b"{}", &env(&scripts)), Ok(None));
    });
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
}
