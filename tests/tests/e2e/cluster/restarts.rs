//! The agent is killed, and the API is away: the data plane goes on.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::Netns;
use podnet_tests::nodes::{ECHO, seen_as, wait_until};
use serde_json::json;

use super::SOON;
use super::bed::{Cluster, Served};

/// Datagrams of an established flow.
pub(super) struct Flow {
    sent: u32,
    answered: u32,
}

impl Flow {
    /// A flow of datagrams from a namespace to an `Echo` until `stop`, one every 5 ms: each has to be answered.
    pub(super) fn run(from: &Netns, to: IpAddr, stop: &AtomicBool) -> Result<Flow> {
        let socket = from.run(|| UdpSocket::bind(("0.0.0.0", 40_000)))??;
        socket.connect((to, ECHO))?;
        socket.set_read_timeout(Some(SOON))?;
        let (mut sent, mut answered) = (0, 0);
        let mut buffer = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            socket.send(b"?")?;
            sent += 1;
            answered += u32::from(kernel::uninterrupted(|| socket.recv(&mut buffer)).is_ok());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Flow { sent, answered })
    }

    /// It was one, and lost nothing.
    pub(super) fn is_whole(&self, name: &str) -> Result<()> {
        ensure!(self.sent > 500, "{name}: only {} sent", self.sent);
        ensure!(self.sent == self.answered, "{name}: {} of {} lost", self.sent - self.answered, self.sent);
        Ok(())
    }
}

#[test]
fn kill_at_fifty_moments_loses_no_packet_of_an_established_flow() -> Result<()> {
    let mut cluster = Cluster::start(&[0, 0, 1], (true, false))?;
    let here = cluster.pod(0, "default", "here", &[])?;
    let there = cluster.pod(1, "default", "there", &[])?;
    let far = cluster.pod(2, "default", "far", &[])?;
    // An isolated client: its flow is let through by a policy that the agent has to keep in force.
    cluster.client.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "only-echo", "namespace": "default"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "UDP", "port": ECHO}]}],
            "egress": [{"ports": [{"protocol": "UDP", "port": ECHO}]}]},
    }))?;
    let closed = |from: &Served, to: &Served| -> Result<()> {
        ensure!(
            seen_as(&from.pod.netns, to.ip(false)?, Duration::from_millis(300)).is_err(),
            "TCP gets through"
        );
        Ok(())
    };
    wait_until("only UDP is let through", || closed(&here, &there).and_then(|()| closed(&here, &far)))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let near = scope.spawn(|| Flow::run(&here.pod.netns, there.ip(false)?, &stop));
        let distant = scope.spawn(|| Flow::run(&far.pod.netns, here.ip(false)?, &stop));
        let mut killed = 0;
        let kills = (|| -> Result<()> {
            // From the first instruction to long after it has become ready, each moment another one.
            for moment in 0..50u64 {
                cluster.agents[0].kill()?;
                cluster.agents[0] = cluster.agent(0)?;
                std::thread::sleep(Duration::from_millis(moment * moment * 37 % 600));
                killed += 1;
                if moment % 10 == 9 {
                    // Dead or alive, what is forbidden stays so.
                    closed(&here, &there)?;
                }
            }
            Ok(())
        })();
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        kills?;
        ensure!(killed == 50);
        for (name, flow) in [("near", near), ("distant", distant)] {
            flow.join().expect("a flow ends")?.is_whole(name)?;
        }
        Ok(())
    })?;
    // It is whole again, and goes on working.
    cluster.ready()?;
    cluster.client.delete("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/only-echo")?;
    wait_until("the agent hears of the API again", || {
        let seen = seen_as(&here.pod.netns, there.ip(false)?, Duration::from_millis(500))?;
        ensure!(seen == here.ip(false)?, "seen as {seen}");
        Ok(())
    })
}

#[test]
fn api_outage_of_a_minute_harms_nobody_and_is_caught_up_with() -> Result<()> {
    let cluster = Cluster::start(&[0, 0], (true, false))?;
    let one = cluster.pod(0, "default", "one", &[])?;
    let two = cluster.pod(1, "default", "two", &[])?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let flow = scope.spawn(|| Flow::run(&one.pod.netns, two.ip(false)?, &stop));
        cluster.control.pause()?;
        let outage = Instant::now();
        let during = (|| -> Result<()> {
            // New connections, too, and pods that the API has told of before.
            while outage.elapsed() < Duration::from_secs(60) {
                ensure!(seen_as(&two.pod.netns, one.ip(false)?, SOON)? == two.ip(false)?);
                std::thread::sleep(Duration::from_secs(2));
            }
            for number in 0..2 {
                let (code, text) = cluster.nodes.nodes[number].ask_agent("/readyz")?;
                ensure!(code == 200, "an outage of the API makes no node unready: {text}");
                let (code, text) = cluster.nodes.nodes[number].ask_agent("/healthz")?;
                ensure!(code == 200, "{text}");
            }
            Ok(())
        })();
        cluster.control.resume()?;
        stop.store(true, Ordering::Relaxed);
        during?;
        flow.join().expect("a flow ends")?.is_whole("the outage")
    })?;
    let three = cluster.pod(0, "default", "three", &[]).context("a pod after the outage")?;
    wait_until("a pod of after the outage is reached", || {
        let seen = seen_as(&two.pod.netns, three.ip(false)?, Duration::from_millis(500))?;
        ensure!(seen == two.ip(false)?, "seen as {seen}");
        Ok(())
    })
}
