//! The delegated IPAM plugin: missing, not a program, crashing, or answering nonsense. The delegates are shell scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use podnet_tests::World;

use super::{Bad, conf};

pub(super) fn cases() -> Vec<Bad> {
    let mut cases = finding();
    cases.extend(answers());
    cases
}

fn finding() -> Vec<Bad> {
    let text = |name: &str| format!(r#"{{"ipam":{{"type":{name:?}}}}}"#);
    let missing = r#"failed to find plugin "nope" in path [@PLUGINS@]"#;
    let mut cases = vec![
        conf("bridge", "no such delegate", text("nope")).says(999, missing),
        conf("bridge", "no such delegate on DEL", text("nope")).verb("DEL").says(999, missing),
        conf("bridge", "no such delegate on CHECK", text("nope")).verb("CHECK").says(999, missing),
        conf("bridge", "no such delegate on STATUS", text("nope"))
            .verb("STATUS")
            .version("1.1.0")
            .says(50, missing)
            .other_words(),
        conf("bridge", "no such delegate on GC", text("nope"))
            .verb("GC")
            .version("1.1.0")
            .says(999, missing)
            .other_words(),
        conf("bridge", "a delegate with a slash", text("a/b"))
            .says(7, "invalid plugin name: a/b")
            .same_words(),
        conf("bridge", "a delegate above the path", text("../cni/host-local"))
            .says(7, "invalid plugin name: ../cni/host-local")
            .same_words(),
        conf("bridge", "CNI_PATH without directories", text("host-local"))
            .env("CNI_PATH", "@DIR@/none:@DIR@/nil")
            .says(999, r#"failed to find plugin "host-local" in path [@DIR@/none @DIR@/nil]"#),
        conf("bridge", "the delegate is a directory", text("dir"))
            .prepare(|world| Ok(fs::create_dir(world.dir().join("dir"))?))
            .env("CNI_PATH", "@DIR@")
            .says(999, r#"failed to find plugin "dir" in path [@DIR@]"#),
        conf("bridge", "the delegate is no IPAM plugin", text("loopback")).says(7, "loopback").other_words(),
        conf("bridge", "the delegate is bridge itself", text("bridge")).says(7, "bridge").other_words(),
    ];
    cases.push(
        conf("bridge", "the delegate must not be executed", text("delegate"))
            .prepare(|world| script(world, "exit 0", 0o644))
            .env("CNI_PATH", "@DIR@")
            .says(999, "ermission denied")
            .other_words(),
    );
    cases.push(
        conf("bridge", "the delegate is no program", text("delegate"))
            .prepare(|world| plain(world, &[0x7f, b'E', b'L', b'F', 0, 0, 0, 0]))
            .env("CNI_PATH", "@DIR@")
            .says(999, "xec format error")
            .other_words(),
    );
    cases
}

/// A delegate that does this on ADD and succeeds silently otherwise.
fn on_add(world: &World, add: &str) -> Result<()> {
    script(world, &format!("cat >/dev/null\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n{add}"), 0o755)
}

fn script(world: &World, body: &str, mode: u32) -> Result<()> {
    let path = world.dir().join("delegate");
    fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("set the mode of the delegate")
}

fn plain(world: &World, bytes: &[u8]) -> Result<()> {
    let path = world.dir().join("delegate");
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("set the mode of the delegate")
}

fn answers() -> Vec<Bad> {
    let case = |name: &str, prepare: fn(&World) -> Result<()>| {
        conf("bridge", format!("the delegate {name}"), r#"{"isGateway":true,"ipam":{"type":"delegate"}}"#)
            .env("CNI_PATH", "@DIR@")
            .prepare(prepare)
    };
    vec![
        case("prints nothing and fails", |w| on_add(w, "exit 3"))
            .says(999, "netplugin failed with no error message")
            .other_words(),
        case("is killed", |w| on_add(w, "kill -9 $$")).says(999, "netplugin failed with no error message").other_words(),
        case("only writes to stderr", |w| on_add(w, "echo boom >&2; exit 1")).says(999, "boom").other_words(),
        case("prints nonsense and fails", |w| on_add(w, "echo nonsense; exit 1"))
            .says(999, "netplugin failed but error parsing its diagnostic message")
            .other_words(),
        case("prints its error", |w| on_add(w, r#"echo '{"cniVersion":"1.0.0","code":142,"msg":"no more of these","details":"d"}'; exit 1"#))
            .says(142, "no more of these"),
        case("prints its error with exit code 7", |w| on_add(w, r#"echo '{"code":11,"msg":"come again"}'; exit 7"#))
            .says(11, "come again"),
        case("succeeds without a word", |w| on_add(w, "exit 0")).says(6, "").other_words(),
        case("succeeds with nonsense", |w| on_add(w, "echo nonsense")).says(6, "").other_words(),
        case("answers null", |w| on_add(w, "echo null")).says(999, "IPAM plugin returned missing IP config"),
        case("answers {}", |w| on_add(w, "echo {}")).says(999, "IPAM plugin returned missing IP config"),
        case("answers in an unknown version", |w| on_add(w, r#"echo '{"cniVersion":"9.9.9","ips":[]}'"#))
            .says(1, "9.9.9")
            .other_words(),
        case("answers with a broken address", |w| {
            on_add(w, r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.300/24"}]}'"#)
        })
        .says(6, "10.1.2.300/24")
        .other_words(),
        case("answers with ips of a wrong type", |w| on_add(w, r#"echo '{"cniVersion":"1.0.0","ips":"10.1.2.3/24"}'"#))
            .says(6, "ips")
            .other_words(),
        case("answers with a gateway elsewhere and a route by it", |w| {
            on_add(
                w,
                r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24","gateway":"10.7.7.7"}],"routes":[{"dst":"0.0.0.0/0"}]}'"#,
            )
        })
        .says(999, "0.0.0.0/0")
        .other_words(),
    ]
}
