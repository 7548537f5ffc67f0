//! xfrm and WireGuard, as far as the running kernel has them: what it lacks is told by name, what it has is read by `ip`.

use std::process::Command;

use kernel::link::{self, LinkKind, NewLink};
use kernel::wireguard::{Peer, WireGuard};
use kernel::xfrm::{self, Association, Direction, Policy, Xfrm};
use kernel::{Family, Netns, Rtnl};

fn shown(ns: &Netns, args: &[&str]) -> String {
    let output = ns.run(|| Command::new("ip").args(args).output()).unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn policies_are_read_by_ip_as_they_were_asked_for() {
    let ns = Netns::create().unwrap();
    let mut xfrm = Xfrm::open_in(&ns).unwrap();
    let v4 = ["10.244.1.0/24", "10.244.2.0/24", "192.0.2.11", "192.0.2.12"];
    let v6 = ["fd00:10:244:1::/64", "fd00:10:244:2::/64", "fd00:192:0:2::11", "fd00:192:0:2::12"];
    for ends in [v4, v6] {
        each_direction(&ns, &mut xfrm, ends);
    }
}

fn each_direction(ns: &Netns, xfrm: &mut Xfrm, [from_text, to_text, source_text, target_text]: [&str; 4]) {
    let (from, to) = (from_text.parse().unwrap(), to_text.parse().unwrap());
    let (source, target) = (source_text.parse().unwrap(), target_text.parse().unwrap());
    let family = if from_text.contains(':') { "-6" } else { "-4" };
    for (direction, word) in [(Direction::In, "in"), (Direction::Out, "out"), (Direction::Forward, "fwd")] {
        let policy = Policy { direction, from, to, source, target };
        xfrm.add_policy(&policy).unwrap();
        assert!(xfrm.add_policy(&policy).unwrap_err().is_exists());
        let text = shown(ns, &[family, "xfrm", "policy", "list", "dir", word]);
        // Shown where the kernel has policies of another type too (CONFIG_XFRM_SUB_POLICY).
        let text = text.replace(" ptype main", "");
        let expected = format!(
            "src {from_text} dst {to_text} dir {word} priority 0 tmpl src {source_text} dst {target_text} proto esp reqid 0 mode tunnel"
        );
        assert_eq!(text, expected);
    }
}

#[test]
fn associations_are_made_or_what_lacks_is_named() {
    let ns = Netns::create().unwrap();
    let mut xfrm = Xfrm::open_in(&ns).unwrap();
    let (source, target) = ([192, 0, 2, 11].into(), [192, 0, 2, 12].into());
    let association = Association { source, target, spi: 0x1234, key: &[7; 36] };
    match (xfrm::require(Family::V4), xfrm.add_association(&association)) {
        (Ok(()), Ok(())) => {
            let text = shown(&ns, &["xfrm", "state"]);
            assert!(text.starts_with("src 192.0.2.11 dst 192.0.2.12 proto esp spi 0x00001234"), "{text}");
            assert!(xfrm.add_association(&association).unwrap_err().is_exists());
        }
        (Err(asked), Err(refused)) => {
            assert!(asked.lacks().is_some() && asked.lacks() == refused.lacks(), "{asked}, {refused}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn wireguard_is_set_up_or_named_as_lacking() {
    let ns = Netns::create().unwrap();
    let mut rtnl = Rtnl::open_in(&ns).unwrap();
    if let Err(lacks) = link::require(&mut rtnl, &LinkKind::Wireguard) {
        assert_eq!(lacks.lacks(), Some("wireguard (CONFIG_WIREGUARD)"));
        assert_eq!(WireGuard::open_in(&ns).unwrap_err().lacks(), Some("wireguard (CONFIG_WIREGUARD)"));
        return;
    }
    link::add(&mut rtnl, &NewLink::new("wg0", LinkKind::Wireguard)).unwrap();
    let mut wireguard = WireGuard::open_in(&ns).unwrap();
    let public = wireguard.set_device("wg0", &[7; 32], 51820).unwrap();
    assert_ne!(public, [0; 32]);
    let peer = Peer {
        key: [9; 32],
        endpoint: "192.0.2.12:51820".parse().unwrap(),
        allowed: &["10.244.2.0/24".parse().unwrap(), "fd00:10:244:2::/64".parse().unwrap()],
    };
    wireguard.add_peer("wg0", &peer).unwrap();
    assert!(wireguard.add_peer("wg1", &peer).unwrap_err().is_not_found());
}
