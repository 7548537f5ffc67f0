//! An ADD that fails anywhere leaves nothing.

use anyhow::{Context, Result, ensure};
use podnet_tests::Side;
use podnet_tests::process::Stdout;
use podnet_tests::world::Call;
use serde_json::{Value, json};

use super::bystanders;
use super::{DUAL, Scene, mapping, same};

/// A call of a verb of the plugin under test.
type Make = for<'s> fn(&'s Scene, &str, &Value) -> Call<'s>;

fn portmap<'s>(scene: &'s Scene, verb: &str, prev: &Value) -> Call<'s> {
    let mappings = json!([mapping(8080, 80, "tcp", ""), mapping(5353, 53, "udp", "")]);
    scene.portmap(verb, 0, prev, &mappings, "")
}

fn firewall<'s>(scene: &'s Scene, verb: &str, prev: &Value) -> Call<'s> {
    scene.firewall(verb, 0, prev, r#""backend":"iptables","ingressPolicy":"isolated""#)
}

const PLUGINS: [Make; 2] = [portmap, firewall];

#[test]
fn a_result_that_nobody_reads_is_undone() -> Result<()> {
    for make in PLUGINS {
        let scene = Scene::new(Side::Podnet, 1)?;
        let result = scene.attach(0, DUAL)?;
        bystanders::load(&scene, "DROP")?;
        let (before, world) = (bystanders::picture(&scene)?, scene.world.snapshot()?.facts);
        for stdout in [Stdout::Closed, Stdout::Full] {
            let outcome = make(&scene, "ADD", &result).stdout(stdout).run()?;
            ensure!(outcome.exit == Some(1), "{outcome:?}");
            same(&before, &bystanders::picture(&scene)?)?;
            let changes = world.changes(&scene.world.snapshot()?.facts);
            ensure!(changes.is_empty(), "{changes:?}");
        }
    }
    Ok(())
}

/// Makes the n-th request or file that ADD uses fail, for n from 1 until none is left.
#[test]
fn each_request_that_fails_is_undone() -> Result<()> {
    for make in PLUGINS {
        let scene = Scene::new(Side::Podnet, 1)?;
        let result = scene.attach(0, DUAL)?;
        bystanders::load(&scene, "ACCEPT")?;
        let (before, world) = (bystanders::picture(&scene)?, scene.world.snapshot()?.facts);
        let log = scene.world.dir().join("strace");
        let path = log.to_string_lossy().into_owned();
        let mut failed = 0;
        for (calls, error) in [("sendto", "ENOBUFS"), ("socket", "EMFILE")] {
            for n in 1.. {
                let (trace, fault) =
                    (format!("trace={calls}"), format!("inject={calls}:error={error}:when={n}"));
                let strace = ["strace", "-f", "-o", &path, "-e", &trace, "-e", &fault];
                let outcome = make(&scene, "ADD", &result).through(&strace).run()?;
                let traced = std::fs::read_to_string(&log)?;
                let what = || format!("the {n}th {calls} fails: {outcome:?}\n{traced}");
                ensure!(!outcome.panicked(), "{}", what());
                // A step that ADD can do without: all is there then, and DEL finds it.
                if outcome.exit == Some(0) {
                    make(&scene, "CHECK", &result).run()?.silent().with_context(what)?;
                    make(&scene, "DEL", &result).run()?.silent().with_context(what)?;
                } else {
                    failed += 1;
                }
                same(&before, &bystanders::picture(&scene)?).with_context(what)?;
                let changes = world.changes(&scene.world.snapshot()?.facts);
                ensure!(changes.is_empty(), "{changes:?}: {}", what());
                if !traced.contains("(INJECTED)") {
                    break;
                }
            }
        }
        ensure!(failed >= 6, "only {failed} requests could be made to fail");
    }
    Ok(())
}
