//! The exam: faults that follow from a seed, told by their symptoms only, repaired by the student's own hands.
//!
//! Every exam of so many faults has as many of each group, so that seeds differ and hardness does not. The lab is sealed by its
//! supervisor: `why`, `heal`, `break` and the list of active faults are off. It ends with a full verification and a look at
//! what was done besides. What the signed result proves is said in it; it is no more than that.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::Lang;
use super::questions::faults;
use super::{Classroom, checking, play, seal};
use crate::control::{Client, Request};
use crate::exit::{self, Failure};
use crate::output::document;
use crate::topology::Written;

/// The lab's name, unless another one is wanted.
const LAB: &str = "exam";
/// What is examined on: two nodes with two pods each, and a service in front of all of them.
const TOPOLOGY: &str = "
nodes: 2
pods: 2
services:
  - {name: web, selector: {app: kubia}, port: 80, targetPort: 8080, type: NodePort, nodePort: 30080}
";
/// The rules that a lab keeps by itself.
const OWN_TABLE: &str = "ip podlab";
/// What a result says of itself.
const PROVES: &str = "a lab that this podlab broke by the seed passed or failed a full verification, as told by the machine \
    that it ran on; the file was not changed since. Who is root there and has podlab can make another one.";

/// An exam that is going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sitting {
    lab: String,
    seed: u64,
    faults: usize,
    student: String,
    began: u64,
    attempts: usize,
    pods: Vec<String>,
    rules: Vec<String>,
}

/// What an examinee is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paper {
    /// `podlab.exam/1`
    pub schema: String,
    /// The name of the lab.
    pub lab: String,
    /// Which exam.
    pub seed: u64,
    /// How many faults there are.
    pub faults: usize,
    /// Who takes it.
    pub student: String,
    /// What is seen of them, in no order.
    pub symptoms: Vec<String>,
    /// What to do now.
    pub then: String,
}

/// What came of an exam.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExamResult {
    /// `podlab.result/1`
    pub schema: String,
    /// Who took it.
    pub student: String,
    /// Which exam.
    pub seed: u64,
    /// How many faults there were.
    pub faults: usize,
    /// Which, once it is passed.
    pub were: Vec<String>,
    /// Everything is green, and nothing forbidden was done.
    pub passed: bool,
    /// What the verification came to.
    pub verification: String,
    /// What was done that is no repair.
    pub forbidden: Vec<String>,
    /// How often it was checked.
    pub attempts: usize,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// The version of podlab.
    pub podlab: String,
    /// What this file proves.
    pub proves: String,
    /// HMAC-SHA256 (RFC 2104) over all else, as JSON with sorted keys; the key follows from the seed.
    pub signature: String,
}

/// Results of a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// `podlab.results/1`
    pub schema: String,
    /// In the order of the files.
    pub results: Vec<Mark>,
}

/// A file that should be a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The file.
    pub file: String,
    /// It is as podlab has written it.
    pub genuine: bool,
    /// What is in it, if that could be read.
    pub result: Option<ExamResult>,
}

impl Classroom {
    /// Brings the exam's lab up, breaks it and seals it. A lab of an exam before is replaced.
    ///
    /// # Errors
    /// What kept it from coming up: then nothing of it is left.
    pub fn sit(&self, seed: u64, count: usize, student: &str) -> Result<Paper, Failure> {
        let lab = self.lab.clone().unwrap_or_else(|| LAB.to_owned());
        let named = Written { name: Some(lab.clone()), ..Written::default() };
        let topology = Written::parse(TOPOLOGY, "of the exam")?.overridden_by(named).resolve()?;
        play::down(&lab)?;
        play::up(&topology)?;
        let chosen = faults(seed, count, self.lang);
        let prepare = || -> Result<(Vec<String>, Vec<String>), Failure> {
            let before = (pods(&lab)?, rules(&lab)?);
            chosen.iter().try_for_each(|(fault, _)| play::inject(&lab, fault))?;
            Client::connect(&lab)?.ask(&Request::Seal, &mut |_, _| {})?;
            Ok(before)
        };
        let (pods, rules) = match prepare() {
            Ok(before) => before,
            Err(failure) => {
                play::down(&lab)?;
                return Err(failure);
            }
        };
        let student = student.to_owned();
        let sitting = Sitting {
            lab: lab.clone(),
            seed,
            faults: count,
            student: student.clone(),
            began: now(),
            attempts: 0,
            pods,
            rules,
        };
        self.progress()?.change(|all| all.exam = Some(sitting))?;
        let symptoms: BTreeSet<&str> = chosen.iter().map(|(_, seen)| *seen).collect();
        let then = match self.lang {
            Lang::En => format!("export PODLAB_NAME={lab}; repair everything · podlab lesson exam --check"),
            Lang::Ko => format!("export PODLAB_NAME={lab} 후 모두 고치세요 · podlab lesson exam --check"),
        };
        Ok(Paper {
            schema: "podlab.exam/1".to_owned(),
            lab,
            seed,
            faults: count,
            student,
            symptoms: symptoms.into_iter().map(str::to_owned).collect(),
            then,
        })
    }

    /// Verifies the exam's lab, whole, and looks for what was done that is no repair.
    ///
    /// # Errors
    /// There is no exam, or its lab is gone.
    pub fn mark(&self) -> Result<ExamResult, Failure> {
        let none = || Failure::usage("no exam is going on · try: podlab lesson exam --seed 7 --faults 3");
        let sitting = self.progress()?.read()?.exam.ok_or_else(none)?;
        let lab = &sitting.lab;
        let sealed: bool = checking::answer(lab, &Request::Sealed)?;
        if !sealed {
            return Err(none());
        }
        let judged = checking::judged(&checking::report(lab, &[])?);
        let forbidden = sitting.forbidden()?;
        let passed = judged.is_ok() && forbidden.is_empty();
        let attempts = self.progress()?.change(|all| {
            all.exam.as_mut().map_or(0, |sitting| {
                sitting.attempts += 1;
                sitting.attempts
            })
        })?;
        let were = faults(sitting.seed, sitting.faults, self.lang).into_iter().map(|(fault, _)| fault);
        let result = ExamResult {
            schema: "podlab.result/1".to_owned(),
            student: sitting.student.clone(),
            seed: sitting.seed,
            faults: sitting.faults,
            were: if passed { were.collect() } else { Vec::new() },
            passed,
            verification: judged.unwrap_or_else(|red| red),
            forbidden,
            attempts,
            began: sitting.began,
            seconds: now().saturating_sub(sitting.began),
            podlab: env!("CARGO_PKG_VERSION").to_owned(),
            proves: PROVES.to_owned(),
            signature: String::new(),
        };
        result.signed()
    }
}

impl Sitting {
    fn forbidden(&self) -> Result<Vec<String>, Failure> {
        let mut found = Vec::new();
        let is = pods(&self.lab)?;
        if is != self.pods {
            found.push(format!("the pods are {}, and were {}", is.join(", "), self.pods.join(", ")));
        }
        let new = rules(&self.lab)?.into_iter().filter(|rule| !self.rules.contains(rule));
        found.extend(new.map(|chain| format!("rules that were not there before: {chain}")));
        Ok(found)
    }
}

impl ExamResult {
    /// Over everything but the signature.
    fn signature(&self) -> Result<String, Failure> {
        let mut value = document(self)?;
        if let Some(all) = value.as_object_mut() {
            all.remove("signature");
        }
        let key = format!("podlab.result/1 seed {}", self.seed);
        let code = seal::hmac_sha256(key.as_bytes(), value.to_string().as_bytes());
        code.map_err(|err| Failure::new(exit::BUG, format!("sign a result: {err}")))
    }

    fn signed(mut self) -> Result<ExamResult, Failure> {
        self.signature = self.signature()?;
        Ok(self)
    }

    /// It is as podlab has written it.
    pub fn is_genuine(&self) -> bool {
        self.signature().is_ok_and(|signature| signature == self.signature)
    }
}

/// Reads results and looks whether they are genuine.
///
/// # Errors
/// A file that cannot be read at all.
pub fn read(files: &[impl AsRef<Path>]) -> Result<Marks, Failure> {
    let mut results = Vec::new();
    for file in files.iter().map(AsRef::as_ref) {
        let text = std::fs::read_to_string(file)
            .map_err(|err| Failure::usage(format!("{}: {err}", file.display())))?;
        let result: Option<ExamResult> = serde_json::from_str(&text).ok();
        let genuine = result.as_ref().is_some_and(ExamResult::is_genuine);
        results.push(Mark { file: file.display().to_string(), genuine, result });
    }
    Ok(Marks { schema: "podlab.results/1".to_owned(), results })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn inspect(lab: &str, what: Option<&str>) -> Result<Value, Failure> {
    Client::connect(lab)?.ask(&Request::Inspect { what: what.map(str::to_owned) }, &mut |_, _| {})
}

fn names(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|entry| entry["name"].as_str().map(str::to_owned)).collect()
}

fn pods(lab: &str) -> Result<Vec<String>, Failure> {
    Ok(names(&inspect(lab, None)?["pods"]))
}

/// The chains with rules in them, everywhere, but for those that the lab keeps by itself: `node1: ip nat postrouting`.
fn rules(lab: &str) -> Result<Vec<String>, Failure> {
    let all = inspect(lab, None)?;
    let hosts = names(&all["hosts"]).into_iter().chain(names(&all["nodes"]));
    let places = ["fabric".to_owned()].into_iter().chain(hosts);
    let mut found = Vec::new();
    for place in places.chain(names(&all["pods"])) {
        let state = inspect(lab, Some(&place))?;
        for chain in state["chains"].as_array().into_iter().flatten() {
            let text = |key: &str| chain[key].as_str().unwrap_or_default();
            if text("table") != OWN_TABLE && chain["rules"].as_u64() != Some(0) {
                found.push(format!("{place}: {} {}", text("table"), text("chain")));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_was_changed_is_not_genuine() {
        let result = ExamResult {
            schema: "podlab.result/1".to_owned(),
            student: "Kim".to_owned(),
            seed: 7,
            faults: 3,
            were: vec!["route-missing node1 node2".to_owned()],
            passed: false,
            verification: "40 passed, 1 failed".to_owned(),
            forbidden: Vec::new(),
            attempts: 2,
            began: 1,
            seconds: 600,
            podlab: "0.1.0".to_owned(),
            proves: PROVES.to_owned(),
            signature: String::new(),
        };
        let signed = result.signed().unwrap();
        assert!(signed.is_genuine());
        for changed in [
            ExamResult { passed: true, ..signed.clone() },
            ExamResult { student: "Lee".to_owned(), ..signed.clone() },
            ExamResult { seed: 8, ..signed.clone() },
            ExamResult { signature: String::new(), ..signed.clone() },
        ] {
            assert!(!changed.is_genuine(), "{changed:?}");
        }
    }
}
