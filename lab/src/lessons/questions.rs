//! What exams ask: faults in groups, with what is seen of them, and the choice by a seed.

use super::model::Lang;

/// A fault of exams: what it is, where, and what is seen of it in English and Korean. Of the two places the second is taken when
/// another fault of the group has the first one.
struct Question {
    fault: &'static str,
    targets: [&'static str; 2],
    seen: [&'static str; 2],
}

const fn question(fault: &'static str, targets: [&'static str; 2], seen: [&'static str; 2]) -> Question {
    Question { fault, targets, seen }
}

const NODES: [&str; 2] = ["node1 node2", "node2 node1"];
const NODE: [&str; 2] = ["node1", "node2"];
const POD: [&str; 2] = ["kubia-1", "kubia-4"];
const SERVICE: [&str; 2] = ["web", "web"];

/// The groups: what is plugged in, where packets are sent, what becomes of them on the way.
const GROUPS: [&[Question]; 3] = [
    &[
        question("link-down", NODE, ["a whole node is cut off", "노드 하나가 통째로 끊겼다"]),
        question(
            "veth-down",
            POD,
            ["nobody reaches one of the pods, and it reaches nobody", "Pod 하나와 아무도 통신하지 못한다"],
        ),
        question(
            "port-detached",
            POD,
            [
                "one of the pods is alone, though its interface is up",
                "인터페이스는 켜져 있는데 Pod 하나가 고립되어 있다",
            ],
        ),
        question(
            "no-default-route",
            POD,
            ["one of the pods reaches its own node's pods only", "Pod 하나가 같은 노드의 Pod하고만 통신한다"],
        ),
        question(
            "lo-down",
            POD,
            [
                "curl localhost:8080 fails inside one of the pods",
                "어느 Pod 안에서 curl localhost:8080이 실패한다",
            ],
        ),
    ],
    &[
        question(
            "route-missing",
            NODES,
            [
                "pods of different nodes do not reach each other: unreachable",
                "다른 노드의 Pod끼리 통신하지 못한다: unreachable",
            ],
        ),
        question(
            "route-blackhole",
            NODES,
            [
                "pods of different nodes do not reach each other: silence",
                "다른 노드의 Pod끼리 통신하지 못한다: 아무 응답이 없다",
            ],
        ),
        question(
            "route-loop",
            NODES,
            [
                "packets between nodes go in circles until their TTL is used up",
                "노드 사이의 패킷이 TTL이 다할 때까지 맴돈다",
            ],
        ),
        question(
            "bad-neigh",
            NODES,
            [
                "frames between the nodes are addressed to nobody",
                "노드 사이의 프레임이 없는 상대에게 보내진다",
            ],
        ),
        question(
            "forward-off",
            NODE,
            [
                "a node answers itself and passes nothing on",
                "노드 하나가 자신은 응답하지만 아무것도 넘겨주지 않는다",
            ],
        ),
    ],
    &[
        question(
            "masq-all",
            NODE,
            [
                "everything answers, but servers see a node instead of the pod",
                "모두 응답하지만 서버가 Pod 대신 노드의 주소를 본다",
            ],
        ),
        question(
            "fw-drop",
            NODE,
            [
                "TIMEOUT at port 8080 of some pods from other nodes, while ping works",
                "다른 노드에서 일부 Pod의 8080 포트가 TIMEOUT, ping은 된다",
            ],
        ),
        question(
            "fw-reject",
            NODE,
            [
                "REFUSED at port 8080 of some pods from other nodes, though the app listens",
                "앱은 듣고 있는데 다른 노드에서 일부 Pod의 8080 포트가 REFUSED",
            ],
        ),
        question(
            "svc-selector",
            SERVICE,
            [
                "the service is REFUSED, every pod answers at its own address",
                "서비스는 REFUSED, Pod들은 각자의 주소에서 응답한다",
            ],
        ),
        question(
            "svc-targetport",
            SERVICE,
            [
                "the service has endpoints and is REFUSED all the same",
                "서비스에 엔드포인트가 있는데도 REFUSED",
            ],
        ),
    ],
];

/// The faults of an exam, with the symptoms in a language: the same for the same seed.
pub(super) fn faults(seed: u64, count: usize, lang: Lang) -> Vec<(String, &'static str)> {
    let mut state = seed;
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut number = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ a >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((b ^ b >> 31) % below as u64).unwrap_or(0)
    };
    let mut left: Vec<Vec<&Question>> = GROUPS.iter().map(|group| group.iter().collect()).collect();
    (0..count)
        .map(|n| {
            let group = &mut left[n % GROUPS.len()];
            let question = group.swap_remove(number(group.len()));
            let target = question.targets[n / GROUPS.len() % 2];
            (format!("{} {target}", question.fault), lang.say(question.seen[0], question.seen[1]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_has_the_same_faults_one_of_each_group_and_another_seed_others() {
        assert_eq!(faults(7, 3, Lang::En), faults(7, 3, Lang::En));
        let exams: BTreeSet<Vec<String>> =
            (0..200).map(|seed| faults(seed, 3, Lang::En).into_iter().map(|it| it.0).collect()).collect();
        assert!(exams.len() > 60, "{} exams of 125", exams.len());
        for seed in 0..50 {
            let six = faults(seed, 6, Lang::Ko);
            let names: BTreeSet<&str> = six.iter().filter_map(|it| it.0.split(' ').next()).collect();
            assert_eq!(names.len(), 6, "{six:?}");
            for (n, name) in six.iter().enumerate() {
                let name = name.0.split(' ').next().unwrap();
                assert!(GROUPS[n % 3].iter().any(|question| question.fault == name), "{six:?}");
            }
        }
    }

    #[test]
    fn every_question_is_a_fault_and_says_in_both_languages_what_is_seen() {
        for question in GROUPS.iter().flat_map(|group| group.iter()) {
            assert!(crate::faults::find(question.fault).is_ok(), "{}", question.fault);
            assert!(question.seen[0].is_ascii() && !question.seen[1].is_ascii(), "{}", question.fault);
            assert!(!question.seen.concat().contains(question.fault), "{} is named", question.fault);
        }
    }
}
