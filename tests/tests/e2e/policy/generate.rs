//! Policies by chance, the same for the same seed.

use serde_json::{Value, json};

use super::cases::policy;

/// Numbers by chance (xorshift64*).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    /// One in `n` times.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn some(&mut self, all: &[&str]) -> Vec<String> {
        let mut some: Vec<String> =
            all.iter().filter(|_| self.one_in(2)).map(|it| (*it).to_owned()).collect();
        if some.is_empty() {
            some.push(self.of(all).to_owned());
        }
        some
    }

    fn selector(&mut self, key: &str, values: &[&str]) -> Value {
        match self.below(7) {
            0 => json!({}),
            1 | 2 => json!({"matchLabels": {key: self.of(values)}}),
            3 => json!({"matchExpressions": [{"key": key, "operator": "In", "values": self.some(values)}]}),
            4 => {
                json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": self.some(values)}]})
            }
            5 => {
                let operator = self.of(&["Exists", "DoesNotExist"]);
                let key = if self.one_in(2) { key } else { "tier" };
                json!({"matchExpressions": [{"key": key, "operator": operator}]})
            }
            _ => json!({"matchLabels": {key: self.of(values)},
                "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}),
        }
    }

    fn pods(&mut self) -> Value {
        self.selector("pod", &["a", "b", "c"])
    }

    fn namespaces(&mut self) -> Value {
        self.selector("ns", &["x", "y", "z"])
    }

    fn block(&mut self) -> Value {
        if self.one_in(2) {
            let node = self.below(2);
            let length = self.of(&[8, 16, 23, 24, 28, 30, 31, 32]);
            let host = self.below(8);
            let mut block = json!({"cidr": format!("10.244.{node}.{host}/{length}")});
            if length <= 24 && self.one_in(2) {
                let except = (0..1 + self.below(3))
                    .map(|_| format!("10.244.{node}.{}/{}", self.below(8), self.of(&[29, 30, 31, 32])));
                block["except"] = except.collect();
            }
            return block;
        }
        match self.below(4) {
            0 => json!({"cidr": "0.0.0.0/0"}),
            1 => json!({"cidr": "172.18.0.0/16", "except": ["172.18.0.11/32"]}),
            2 => json!({"cidr": "::/0", "except": [format!("fd00:10:244:{}::/64", self.below(2))]}),
            _ => {
                json!({"cidr": format!("fd00:10:244:{}::{}/{}", self.below(2), self.below(8), self.of(&[48, 64, 126, 128]))})
            }
        }
    }

    fn peer(&mut self) -> Value {
        match self.below(5) {
            0 => json!({"podSelector": self.pods()}),
            1 => json!({"namespaceSelector": self.namespaces()}),
            2 => json!({"namespaceSelector": self.namespaces(), "podSelector": self.pods()}),
            _ => json!({"ipBlock": self.block()}),
        }
    }

    fn port(&mut self) -> Value {
        let protocol = self.of(&["TCP", "UDP", "SCTP"]);
        let mut port = if self.one_in(3) { json!({}) } else { json!({"protocol": protocol}) };
        match self.below(6) {
            0 => {}
            1 => {
                let first = self.of(&[1, 79, 80, 81]);
                (port["port"], port["endPort"]) = (json!(first), json!(first + self.of(&[0, 1, 2, 1000])));
            }
            2 => {
                let named = protocol.to_lowercase();
                port["port"] = json!(format!("serve-{}-{named}", self.of(&[80, 81, 82])));
            }
            _ => port["port"] = json!(self.of(&[80, 81, 443])),
        }
        port
    }

    fn rules(&mut self, peers: &str) -> Value {
        let rule = |dice: &mut Dice| {
            let mut rule = json!({});
            if !dice.one_in(5) {
                rule[peers] = (0..1 + dice.below(3)).map(|_| dice.peer()).collect();
            }
            if !dice.one_in(3) {
                rule["ports"] = (0..1 + dice.below(3)).map(|_| dice.port()).collect();
            }
            rule
        };
        (0..self.below(3)).map(|_| rule(self)).collect()
    }

    /// A few policies.
    pub(super) fn policies(&mut self) -> Vec<Value> {
        let one = |dice: &mut Dice, n: usize| {
            let mut spec = json!({"podSelector": dice.pods()});
            if !dice.one_in(4) {
                spec["policyTypes"] =
                    dice.of(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]).into();
            }
            if !dice.one_in(4) {
                spec["ingress"] = dice.rules("from");
            }
            if !dice.one_in(4) {
                spec["egress"] = dice.rules("to");
            }
            policy(dice.of(&["x", "y", "z"]), &format!("p{n}"), spec)
        };
        (0..1 + self.below(5)).map(|n| one(self, n)).collect()
    }
}
