//! VERSION looks at nothing, and a call without a verb says what the program is.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::Result;
use podnet_tests::plugins::{NAMES, podnet};
use podnet_tests::process::{self, Invocation, Stdout};
use podnet_tests::{Side, World};

/// The versions that a plugin speaks: all but a few speak all.
fn versions(plugin: &str) -> &'static [&'static str] {
    let since = match plugin {
        "bandwidth" => 2,
        "vrf" => 3,
        "firewall" => 4,
        _ => 0,
    };
    &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"][since..]
}

fn answer(plugin: &str) -> String {
    let versions = versions(plugin).join("\",\"");
    format!("{{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"{versions}\"]}}\n")
}

#[test]
fn version_answers_podman_which_sends_dummies() -> Result<()> {
    let world = World::new(Side::Podnet, 0)?;
    for plugin in NAMES {
        let call = world.call(plugin, "VERSION").unset("CNI_CONTAINERID").env("CNI_PATH", "dummy");
        let call = call.env("CNI_NETNS", "dummy").env("CNI_IFNAME", "dummy");
        for stdin in [r#"{"cniVersion":"1.0.0"}"#, "", "nonsense"] {
            let outcome = call.clone().stdin(stdin).run()?;
            assert_eq!(
                (outcome.exit, outcome.stdout.as_str(), outcome.stderr.as_str()),
                (Some(0), answer(plugin).as_str(), ""),
                "{plugin}"
            );
        }
        let bare = call.unset("CNI_PATH").unset("CNI_NETNS").unset("CNI_IFNAME").run()?;
        assert_eq!(bare.stdout, answer(plugin), "{plugin}");
    }
    Ok(())
}

#[test]
fn version_does_not_wait_for_stdin() -> Result<()> {
    let dir = Side::Podnet.dir()?;
    let mut child = Command::new(dir.join("bridge"))
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // stdin stays open until the program has ended by itself.
    let stdin = child.stdin.take();
    let output = child.wait_with_output()?;
    drop(stdin);
    assert_eq!(String::from_utf8_lossy(&output.stdout), answer("bridge"));
    Ok(())
}

#[test]
fn a_call_without_a_verb_says_what_the_plugin_is() -> Result<()> {
    let world = World::new(Side::Podnet, 0)?;
    for plugin in NAMES {
        for call in [world.call(plugin, ""), world.call(plugin, "").unset("CNI_COMMAND")] {
            let outcome = call.run()?;
            assert_eq!((outcome.exit, outcome.stdout.as_str()), (Some(0), ""), "{plugin}");
            let (first, second) = outcome.stderr.split_once('\n').unwrap_or_default();
            assert!(first.starts_with(&format!("CNI {plugin} plugin ")), "{first:?}");
            let supported = versions(plugin).join(", ");
            assert_eq!(second, format!("CNI protocol versions supported: {supported}\n"));
        }
    }
    Ok(())
}

#[test]
fn the_first_argument_names_the_plugin_as_a_link_does() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    for plugin in NAMES {
        let output = Command::new(podnet()?).arg(plugin).env("CNI_COMMAND", "VERSION").output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), answer(plugin), "{plugin}");
    }
    let call = world.call("host-local", "ADD").config("1.0.0", super::V4).invocation();
    let env: Vec<(String, OsString)> = call.env.clone();
    let through = vec!["sh".into(), "-c".into(), "exec \"$0\" host-local".into()];
    let outcome = process::run(
        &world.host,
        &Invocation { program: podnet()?, through, env, stdin: call.stdin, stdout: Stdout::Read },
    )?;
    assert_eq!(outcome.result()?["ips"][0]["address"], "10.1.2.2/24");
    Ok(())
}

#[test]
fn install_puts_every_name_in_place_and_list_shows_them() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let dir = world.dir().join("opt/cni/bin");
    for _ in 0..2 {
        let output = Command::new(podnet()?).arg("install").arg(&dir).output()?;
        assert!(output.status.success(), "{output:?}");
    }
    let mut names: Vec<_> = std::fs::read_dir(&dir)?
        .map(|e| e.map(|e| e.file_name().into_string().unwrap_or_default()))
        .collect::<Result<_, _>>()?;
    names.sort();
    for name in NAMES {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with('.')), "temporary files are left: {names:?}");
    let output = Command::new(podnet()?).arg("list").arg(&dir).output()?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in NAMES {
        assert!(shown.contains(name), "{name} is not in {shown}");
    }
    // What was installed works, and finds its delegate as a hard link of itself.
    let call = super::bridge(&world, "ADD", super::V4).env("CNI_PATH", &dir).invocation();
    let outcome = process::run(&world.host, &Invocation { program: dir.join("bridge"), ..call })?;
    outcome.result()?;
    Ok(())
}
