//! Services of every kind in labs of both IP versions, in every mode whose packets pass a node.
//!
//! ```text
//!  node1, node2 ─ a pod each, behind svc/inside, svc/port, svc/balancer, svc/sticky ; svc/nobody has none
//! ```

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::faults::reds;
use super::verdicts::verdicts;
use super::{Lab, text};

fn lab(mode: &str) -> Result<Lab> {
    let name = format!("svc-both-{}", mode.replace(':', "-"));
    let lab = Lab::up(&name, &["--mode", mode, "--ip-family", "dual", "--nodes", "2", "--pods", "0"])?;
    lab.k("run web --image=kubia --port=8080 --generator=run/v1")?;
    lab.k("scale --replicas=2 rc/web")?;
    lab.k("expose rc web --name=inside")?;
    lab.k("expose rc web --type=NodePort --name=port")?;
    lab.k("expose rc web --type=LoadBalancer --name=balancer")?;
    lab.k("expose rc web --session-affinity=ClientIP --name=sticky")?;
    Ok(lab)
}

#[test]
fn services_of_every_kind_pass_in_dual_labs_of_every_mode_that_has_them() -> Result<()> {
    for mode in ["routed", "ptp", "vxlan", "bgp", "mesh:process"] {
        in_one(mode).with_context(|| mode.to_owned())?;
    }
    Ok(())
}

fn in_one(mode: &str) -> Result<()> {
    let lab = lab(mode)?;
    let (code, report) = lab.verify(&["service-state", "service-reach"])?;
    ensure!(code == 0, "{:?}", reds(&report));
    // Two pods and two nodes ask each of the four, outside those that have a port or an address there.
    let asked: Vec<&str> = verdicts(&report, "service-reach")?
        .iter()
        .filter_map(|verdict| verdict["subject"].as_str())
        .collect();
    for service in ["inside", "port", "balancer", "sticky"] {
        let own = asked.iter().filter(|subject| subject.ends_with(&format!(" > svc/{service}"))).count();
        ensure!(own >= 4, "{service}: {asked:?}");
    }
    ensure!(asked.iter().filter(|subject| subject.starts_with("outside > ")).count() >= 2, "{asked:?}");
    // By name, and of a service without a pod the refusal.
    let pod = lab.pods("run=web")?.remove(0).0;
    let answer = lab.k(&format!("exec {pod} -- curl -s -m 20 http://inside:8080"))?;
    ensure!(answer.starts_with("You've hit web-"), "{answer}");
    lab.k("create service clusterip nobody --tcp=80:80")?;
    let refused = lab.kubectl(&format!("exec {pod} -- curl -s -m 20 http://nobody"))?;
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused));
    // What breaks one is seen in this mode too.
    ensure!(lab.podlab("break", &["svc-targetport"])?.status.success());
    let (code, report) = lab.verify(&["service-reach"])?;
    ensure!(code == 1 && !reds(&report).is_empty(), "{report:#}");
    ensure!(lab.podlab("heal", &["--all"])?.status.success());
    let wrong: Value = lab.verify(&["service-state"])?.1;
    ensure!(reds(&wrong).iter().all(|(subject, _)| *subject == "svc/nobody"), "{:?}", reds(&wrong));
    Ok(())
}
