//! What others change is put right because the kernel tells of it, and what the agent changes itself leads to an end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agent::drift::{Interest, Watch};
use agent::masquerade::{self, Masquerade};
use agent::model::Node as Model;
use agent::routing::{self, Facts, Plan};
use anyhow::{Result, ensure};
use kernel::{Nfnl, Rtnl};
use podnet_tests::nodes::{Node, wait_until};

use super::{configure, differences, model, models, nodes, picture, run, settle};

/// The agent's loop for routes and masquerade, without an API: looks when it is told to.
struct Keeper<'a> {
    own: Model,
    all: &'a [Model],
    looks: AtomicUsize,
    ended: AtomicBool,
}

impl Keeper<'_> {
    fn look(&self) -> Result<Plan> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let mut rtnl = Rtnl::open()?;
        let facts = Facts::gather(&mut rtnl, &self.own, self.all)?;
        let plan = routing::plan(&self.own, self.all, &facts);
        let applied = routing::apply(&mut rtnl, &plan)?;
        ensure!(applied.trouble.is_empty(), "{applied:?}");
        masquerade::apply(&mut Nfnl::open()?, &Masquerade::of(&self.own, self.all))?;
        Ok(plan)
    }

    /// Runs in the calling thread's namespace until it is ended.
    fn keep(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut watch = Watch::open(Interest::default())?;
            watch.set_interest(Interest::of(&self.own, &self.look()?));
            while !self.ended.load(Ordering::SeqCst) {
                if let Ok(look) = tokio::time::timeout(Duration::from_millis(20), watch.next()).await {
                    ensure!(look?.is_any());
                    watch.set_interest(Interest::of(&self.own, &self.look()?));
                }
            }
            Ok(())
        })
    }

    /// Waits until it looks no more, and gives how often it has.
    fn quiet(&self) -> Result<usize> {
        let mut last = usize::MAX;
        wait_until("the agent comes to rest", || {
            let looks = self.looks.load(Ordering::SeqCst);
            let still = looks == last;
            last = looks;
            // Longer than a look takes, also on a slow machine.
            std::thread::sleep(Duration::from_millis(300));
            ensure!(still, "{looks} looks and more");
            Ok(looks)
        })
    }
}

/// Runs `test` while the node's state is being kept.
fn kept<T>(node: &Node, all: &[Model], test: impl FnOnce(&Keeper<'_>) -> Result<T>) -> Result<T> {
    let (looks, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let keeper = Keeper { own: model(node), all, looks, ended };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| node.run(|| keeper.keep()));
        let outcome = test(&keeper);
        keeper.ended.store(true, Ordering::SeqCst);
        let kept = running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        kept.and_then(|it| it).and(outcome)
    })
}

#[test]
fn what_others_change_is_put_right_and_then_it_is_quiet() -> Result<()> {
    let nodes = nodes(&[0, 0, 1])?;
    let all = models(&nodes);
    let n0 = &nodes.nodes[0];
    settle(n0, &all)?;
    let right = picture(n0)?;
    let other_network =
        format!("bridge fdb replace {} dev podnet-vxlan dst 172.19.0.12 vni 7", routing::tunnel_mac("n2"));
    let changes = [
        other_network.as_str(),
        "ip route del 10.244.1.0/24",
        "ip -6 route del fd00:10:244:1::/64",
        "ip route replace 10.244.1.0/24 via 172.18.0.11 proto 80 mtu 900",
        "ip route del 10.244.2.0/24",
        "ip route del 172.19.0.12 table 10180",
        "ip rule del pref 10180",
        "ip link set podnet-vxlan address 02:00:00:00:00:99",
        "ip link set podnet-vxlan6 down",
        "ip link set podnet-vxlan mtu 1400",
        "ip link set podnet-vxlan type vxlan learning",
        "ip link set podnet-vxlan6 type vxlan learning",
        "ip link del podnet-vxlan",
        "ip neigh flush dev podnet-vxlan nud permanent",
        "ip addr del 10.244.0.1/32 dev lo",
        "ip addr del 10.244.0.1/32 dev podnet-vxlan",
        "sysctl -qw net.ipv4.conf.podnet-vxlan.rp_filter=1",
        "sysctl -qw net.ipv4.conf.podnet-vxlan.rp_filter=0",
        "sysctl -qw net.ipv4.ip_forward=0",
        "nft flush chain inet podnet-masq postrouting",
        "nft delete table inet podnet-masq",
        "nft flush ruleset",
    ];
    kept(n0, &all, |keeper| {
        let mut before = keeper.quiet()?;
        for change in changes {
            let words: Vec<&str> = change.split(' ').collect();
            run(&n0.netns, &words)?;
            wait_until(change, || {
                let other = differences(&right, &picture(n0)?);
                ensure!(other.is_empty(), "{}", other.join("\n"));
                let forwards = run(&n0.netns, &["sysctl", "-n", "net.ipv4.ip_forward"])?;
                let filter = run(&n0.netns, &["sysctl", "-n", "net.ipv4.conf.podnet-vxlan.rp_filter"])?;
                ensure!((forwards.trim(), filter.trim()) == ("1", "2"), "{forwards} {filter}");
                Ok(())
            })?;
            let looks = keeper.quiet()?;
            ensure!(looks > before, "{change}: it was put right without a look");
            // A change may be announced in several pieces, and so is its repair.
            ensure!(looks < before + 40, "{change}: {} looks", looks - before);
            before = looks;
        }
        Ok(())
    })
}

#[test]
fn pods_that_come_and_go_are_not_looked_at() -> Result<()> {
    let nodes = nodes(&[0, 0])?;
    let all = models(&nodes);
    let n0 = &nodes.nodes[0];
    configure(n0, &settle(n0, &all)?)?;
    kept(n0, &all, |keeper| {
        let before = keeper.quiet()?;
        for number in 0..3 {
            let pod = n0.add_pod("default", &format!("p{number}"))?;
            n0.del_pod(&pod)?;
        }
        let looks = keeper.quiet()?;
        ensure!(looks == before, "{} looks", looks - before);
        Ok(())
    })
}
