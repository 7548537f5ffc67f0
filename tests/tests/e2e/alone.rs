//! The plugins run no program: not `ip`, not `nft`, not a delegate that is in the same executable.

use anyhow::{Context, Result, ensure};
use podnet_tests::{Side, World};

/// ADD, CHECK, DEL of a plugin under `strace`, which sees each program that is started.
fn starts_no_program(plugin: &str, text: &str, host: &[&str]) -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(host)?;
    let log = world.dir().join("strace").to_string_lossy().into_owned();
    let strace = ["strace", "-f", "-o", &log, "-e", "trace=execve,execveat"];
    let mut result = None;
    for verb in ["ADD", "CHECK", "DEL"] {
        let call = world.call(plugin, verb).config("1.1.0", text).through(&strace);
        let call = result.as_ref().map_or(call.clone(), |result| call.prev(result));
        let outcome = call.run().context("run strace: is it installed?")?;
        ensure!(outcome.exit == Some(0), "{plugin} {verb}: {outcome:?}");
        if verb == "ADD" {
            result = Some(outcome.json()?);
        }
        let log = std::fs::read_to_string(&log).context("read strace's log")?;
        // The first is strace's own, of the plugin.
        ensure!(log.matches("exec").count() == 1, "{plugin} {verb} starts programs:\n{log}");
    }
    Ok(())
}

#[test]
fn no_verb_starts_a_program() -> Result<()> {
    let ipam = r#""ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}"#;
    starts_no_program("ptp", &format!(r#"{{"ipMasq":true,{ipam}}}"#), &[])?;
    starts_no_program("tap", &format!(r#"{{"mac":"02:00:00:00:00:01","owner":1,"group":1,{ipam}}}"#), &[])?;
    starts_no_program("tap", &format!("{{{ipam}}}"), &[])?;
    let device = ["link add dev0 type veth peer name far0"];
    starts_no_program("host-device", &format!(r#"{{"device":"dev0",{ipam}}}"#), &device)
}

/// The negative control: a delegate that is another program is seen.
#[test]
fn a_program_that_is_started_is_seen() -> Result<()> {
    let foreign = r#"{"ipam":{"type":"delegate"}}"#;
    let world = World::new(Side::Podnet, 1)?;
    let debian = Side::Debian.dir()?;
    let log = world.dir().join("strace").to_string_lossy().into_owned();
    std::os::unix::fs::symlink(debian.join("static"), world.dir().join("delegate"))?;
    let strace = ["strace", "-f", "-o", &log, "-e", "trace=execve,execveat"];
    let call = world.call("tap", "ADD").config("1.0.0", foreign).env("CNI_PATH", world.dir());
    call.through(&strace).run()?;
    let log = std::fs::read_to_string(&log)?;
    ensure!(log.matches("exec").count() > 1, "{log}");
    Ok(())
}
