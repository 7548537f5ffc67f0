//! Evidence as files: captures that tshark reads, bundles that are judged again without the lab, and those that lie.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::verdicts::SMALL;
use super::{Lab, command, podlab, text};

/// What tshark reads in a file, one packet a line; an error when it complains.
pub(super) fn tshark(path: &Path, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(path).args(["-d", "udp.port==8472,vxlan", "-T", "fields"]);
    tshark.args(fields.iter().flat_map(|field| ["-e", field]));
    let output = tshark.output().context("start tshark")?;
    ensure!(output.status.success(), "tshark {}: {}", path.display(), text(&output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(lines.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

/// Starts a capture and waits until it listens.
pub(super) fn listening(
    lab: &Lab,
    rest: &[&str],
) -> Result<(std::process::Child, BufReader<std::process::ChildStderr>)> {
    let mut args = vec!["capture", "--name", &lab.name];
    args.extend(rest);
    let mut child =
        command(&args)?.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(child.stderr.take().context("no stderr")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    if !line.starts_with("capturing on ") {
        child.kill()?;
        child.wait()?;
        anyhow::bail!("{line}");
    }
    Ok((child, said))
}

#[test]
fn a_capture_is_a_file_with_every_interface_and_ends_when_it_is_told() -> Result<()> {
    let lab = Lab::up("capture", &SMALL)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("all.pcapng");
    let (mut child, mut said) = listening(&lab, &["-w", path.to_str().context("path")?])?;
    let traced = lab.podlab("trace", &["kubia-1", "kubia-3"])?;
    ensure!(traced.status.success(), "{}", text(&traced));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
    ensure!(child.wait()?.success(), "a capture that is interrupted has not failed");
    let mut total = String::new();
    said.read_to_string(&mut total)?;
    let fields =
        ["frame.interface_name", "frame.packet_flags_direction", "frame.comment", "tcp.flags.syn", "ip.ttl"];
    let packets = tshark(&path, &fields)?;
    ensure!(total.starts_with(&format!("{} packets taken, ", packets.len())), "{total}");
    // The first packet of the connection, at each interface on its way.
    let syn: Vec<&Vec<String>> = packets.iter().filter(|p| p[3] == "1" && !p[2].is_empty()).collect();
    let first = syn[0][2].split([',', ':', ';']).next().unwrap_or_default().to_owned();
    let walk: Vec<&str> = syn
        .iter()
        .filter(|p| p[2].split([',', ':', ';']).next() == Some(&first))
        .map(|p| p[0].as_str())
        .collect();
    ensure!(walk.len() == 10 && walk[0] == "kubia-1/eth0" && walk[9] == "kubia-3/eth0", "{walk:?}");
    ensure!(syn.iter().any(|p| p[2].contains("TTL 64 > 63, MAC ") && p[4] == "63"), "{syn:?}");
    // Names of pods and counts of interfaces are in the file too.
    let whole = fs::read(&path)?;
    let has = |words: &[u8]| whole.windows(words.len()).any(|part| part == words);
    ensure!(has(b"kubia-3\0") && has(b"node; veth; port of cni0"), "names or descriptions are missing");
    Ok(())
}

#[test]
fn a_capture_ends_by_count_by_time_with_its_reader_and_with_the_lab() -> Result<()> {
    let lab = Lab::up("limits", &SMALL)?;
    let (child, _) = listening(&lab, &["node1/eth0", "-f", "icmp and host kubia-3", "--count", "3"])?;
    // An echo and its answer each.
    for _ in 0..2 {
        let traced = lab.podlab("trace", &["kubia-1", "kubia-3", "--proto", "icmp"])?;
        ensure!(traced.status.success(), "{}", text(&traced));
    }
    let counted = child.wait_with_output()?;
    let lines = String::from_utf8_lossy(&counted.stdout).into_owned();
    let is_asked_for = |line: &str| line.contains("node1/eth0 ") && line.contains("10.244.2.2");
    ensure!(lines.lines().count() == 3 && lines.lines().all(is_asked_for), "{lines}");

    // Nothing of that kind: it ends all the same.
    let (child, _) = listening(&lab, &["-f", "port 9", "--for", "300ms", "-o", "json"])?;
    let silent = child.wait_with_output()?;
    ensure!(silent.status.success() && silent.stdout.is_empty(), "{}", text(&silent));

    let (mut child, _) = listening(&lab, &["-w", "-"])?;
    let mut out = child.stdout.take().context("no stdout")?;
    let mut head = [0; 12];
    out.read_exact(&mut head)?;
    ensure!(head[..4] == [0x0a, 0x0d, 0x0d, 0x0a] && head[8..] == [0x4d, 0x3c, 0x2b, 0x1a], "{head:?}");
    drop(out);
    ensure!(child.wait()?.success(), "a capture whose reader has gone has not failed");

    let (mut child, _) = listening(&lab, &["-o", "json"])?;
    ensure!(lab.podlab("down", &["-q"])?.status.success(), "down");
    ensure!(child.wait()?.success(), "a capture whose lab has ended has not failed");
    Ok(())
}

#[test]
fn a_capture_of_what_is_not_there_is_refused() -> Result<()> {
    let lab = Lab::up("nowhere", &["--nodes", "1", "--pods", "1"])?;
    for (rest, words) in [
        (&["node9"][..], "\"node9\" is not in the lab · there are: fabric, outside, node1, kubia-1"),
        (&["node1/eth9"], "node1 has no interface \"eth9\" · there are: lo, "),
        (&["-f", "bogus"], "filter: \"bogus\" is not understood"),
        (&["--count", "0"], "0 is not in 1.."),
        (&["--for", "soon"], "\"soon\" is no time"),
    ] {
        let output = lab.podlab("capture", rest)?;
        ensure!(
            output.status.code() == Some(2) && text(&output).contains(words),
            "{rest:?}: {}",
            text(&output)
        );
    }
    Ok(())
}

#[test]
fn verify_and_trace_write_the_packets_that_they_speak_of() -> Result<()> {
    let lab = Lab::up("write", &[&SMALL[..], &["--mode", "vxlan"]].concat())?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("v.pcapng");
    let path_text = path.to_str().context("path")?;
    let output = lab.podlab("verify", &["-w", path_text, "-o", "json"])?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    let cross = super::verdicts::verdicts(&report, "cross-node")?;
    let points: Vec<&Value> = cross[0]["request"].as_array().into_iter().flatten().collect();
    let packets = tshark(&path, &["frame.time_epoch", "frame.interface_name", "ip.ttl", "ip.id"])?;
    ensure!(points.len() == 12, "{points:?}");
    for point in points {
        let stamp = point["stamp_ns"].as_u64().context("no stamp")?;
        let stamp = format!("{}.{:09}", stamp / 1_000_000_000, stamp % 1_000_000_000);
        let found = packets.iter().find(|p| p[0] == stamp && point["at"] == p[1].as_str());
        let found = found.with_context(|| format!("{point} is not in the file"))?;
        // Of a packet in a tunnel the inner one.
        let inner = |n: usize| found[n].rsplit(',').next().unwrap_or_default().to_owned();
        let id = point["id"].as_u64().context("no id")?;
        assert_eq!((inner(2), inner(3)), (point["ttl"].to_string(), format!("{id:#06x}")), "{point}");
    }
    let output = lab.podlab("trace", &["kubia-1", "kubia-3", "-w", path_text])?;
    ensure!(output.status.success(), "{}", text(&output));
    let comments: Vec<String> =
        tshark(&path, &["frame.comment"])?.into_iter().map(|mut fields| fields.swap_remove(0)).collect();
    for words in
        ["SYN: default via 10.244.1.1", "; in VXLAN 1 192.0.2.11 > 192.0.2.12:8472; ", "HTTP answer: "]
    {
        ensure!(comments.iter().any(|comment| comment.contains(words)), "{words}: {comments:?}");
    }
    Ok(())
}

#[test]
fn a_trace_with_hooks_tells_the_rules_of_a_service_and_leaves_none_of_its_own() -> Result<()> {
    let lab = Lab::up("hooks", &SMALL)?;
    lab.k("run web --image=kubia --port=8080 --generator=run/v1")?;
    lab.k("expose rc web")?;
    // It goes with the next trace, whoever left it.
    lab.exec("node1", &["nft", "add", "table", "inet", "podlab-trace"])?;
    let output = lab.podlab("trace", &["kubia-1", "10.96.0.11", "--hooks", "-o", "json"])?;
    let trace: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    let hops = trace["walks"][0]["hops"].as_array().context("no hops")?;
    let steps: Vec<&Value> =
        hops.iter().flat_map(|hop| hop["hooks"].as_array().into_iter().flatten()).collect();
    let is_nat =
        |step: &&&Value| step["rule"] == "nat" && step["verdict"] == "accept" && step["handle"].is_u64();
    ensure!(steps.iter().filter(is_nat).count() == 1, "{steps:?}");
    let causes: Vec<&str> = hops
        .iter()
        .flat_map(|hop| hop["causes"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    ensure!(causes.iter().any(|cause| cause.contains(" > 10.96.0.11:8080, answers ")), "{causes:?}");
    for place in ["node1", "node2", "fabric", "kubia-1"] {
        let tables = lab.exec(place, &["nft", "list", "tables"])?;
        ensure!(!tables.contains("podlab-trace"), "{place}: {tables}");
    }
    Ok(())
}

/// Probes that are traced with hooks, half of them through a service, half through a node's own rule.
const TRACED: usize = 200;

#[test]
fn rules_are_told_of_99_probes_in_100() -> Result<()> {
    let lab = Lab::up("hooked", &SMALL)?;
    lab.k("run web --image=kubia --port=8080 --generator=run/v1")?;
    lab.k("expose rc web")?;
    let guard = "add table ip guard; add chain ip guard passing { type filter hook forward priority 0; }; \
                 add rule ip guard passing ip daddr 10.244.2.2 counter accept";
    lab.exec("node1", &["nft", guard])?;
    let mut told = 0;
    for number in 0..TRACED {
        let (target, table) = if number % 2 == 0 { ("10.96.0.11", "podlab") } else { ("kubia-3", "guard") };
        let args = ["trace", "--name", &lab.name, "kubia-1", target, "--hooks", "-o", "json"];
        let output = command(&args)?.stdin(Stdio::null()).output()?;
        let trace: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        let hops = trace["walks"][0]["hops"].as_array().context("no hops")?;
        let mut steps = hops.iter().flat_map(|hop| hop["hooks"].as_array().into_iter().flatten());
        // What a policy does has no handle.
        let is_it = |step: &Value| {
            let is_own = step["table"].as_str().is_some_and(|name| name.ends_with(table));
            is_own && step["handle"].is_u64() && step["verdict"] == "accept"
        };
        told += usize::from(steps.any(is_it));
    }
    ensure!(told * 100 >= TRACED * 99, "the rule was told of {told} probes of {TRACED}");
    Ok(())
}

/// A lab's evidence, in a directory of its own.
pub(super) struct Evidence {
    dir: tempfile::TempDir,
    bundle: PathBuf,
}

impl Evidence {
    /// Has the lab report; the exit code too.
    pub(super) fn of(lab: &Lab, rest: &[&str]) -> Result<(Evidence, Output)> {
        let dir = tempfile::tempdir()?;
        let bundle = dir.path().join("report.tgz");
        let output = lab.podlab("report", &[&[bundle.to_str().context("path")?], rest].concat())?;
        ensure!(bundle.is_file(), "{}", text(&output));
        Ok((Evidence { dir, bundle }, output))
    }

    /// Judges it again: the exit code, and what was said.
    pub(super) fn again(&self) -> Result<(i32, Value)> {
        let output = podlab(&["verify", "--from", self.bundle.to_str().context("path")?, "-o", "json"])?;
        let said = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        Ok((output.status.code().unwrap_or(-1), said))
    }

    /// The bytes of a part.
    pub(super) fn part(&self, name: &str) -> Result<Vec<u8>> {
        let output = Command::new("tar").args(["xzOf"]).arg(&self.bundle).arg(name).output()?;
        ensure!(output.status.success(), "{name}: {}", text(&output));
        Ok(output.stdout)
    }

    /// Changes a part of it; with the checksums made again, where the forger is a careful one.
    fn forge(
        &self,
        part: &str,
        is_careful: bool,
        change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let tar = |args: &[&str]| -> Result<()> {
            let output = Command::new("tar").current_dir(self.dir.path()).args(args).output()?;
            ensure!(output.status.success(), "tar {args:?}: {}", text(&output));
            Ok(())
        };
        tar(&["xzf", "report.tgz"])?;
        let path = self.dir.path().join(part);
        fs::write(&path, change(fs::read(&path)?)?)?;
        let manifest = self.dir.path().join("manifest.json");
        let mut document: Value = serde_json::from_slice(&fs::read(&manifest)?)?;
        if is_careful {
            let sum = Command::new("sha256sum").arg(&path).output()?;
            let sum = String::from_utf8_lossy(&sum.stdout).chars().take(64).collect::<String>();
            document["parts"][part] = json!({ "bytes": fs::metadata(&path)?.len(), "sha256": sum });
            fs::write(&manifest, serde_json::to_vec(&document)?)?;
        }
        let parts: Vec<String> =
            document["parts"].as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
        let mut args = vec!["czf", "report.tgz", "--format=ustar", "manifest.json"];
        args.extend(parts.iter().map(String::as_str));
        tar(&args)
    }
}

pub(super) fn differences(said: &Value) -> Vec<&Value> {
    said["differences"].as_array().into_iter().flatten().collect()
}

#[test]
fn a_bundle_is_judged_again_by_anybody_and_says_what_the_lab_said() -> Result<()> {
    let lab = Lab::up("bundle", &["--nodes", "2", "--pods", "2"])?;
    lab.k("run web --image=kubia --port=8080 --generator=run/v1 --replicas=2")?;
    lab.k("expose rc web --type=NodePort")?;
    lab.k("create service clusterip nobody --tcp=80:80")?;
    let (evidence, output) = Evidence::of(&lab, &["-o", "json"])?;
    let claimed: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    drop(lab);
    let (code, said) = evidence.again()?;
    ensure!(differences(&said).is_empty(), "{}", said["differences"]);
    // Nobody is behind one of the services.
    assert_eq!((code, output.status.code()), (1, Some(1)));
    for key in ["passed", "failed", "pairs", "drops", "wire", "frames"] {
        assert_eq!(said["report"][key], claimed[key], "{key}");
    }
    let calls = String::from_utf8(evidence.part("cni.ndjson")?)?;
    let first: Value = serde_json::from_str(calls.lines().next().context("no call")?)?;
    assert_eq!((&first["call"]["command"], &first["call"]["exit"]), (&json!("ADD"), &json!(0)), "{first}");
    assert_eq!(calls.lines().count(), 6, "{calls}");
    // No root, no network, no lab.
    let own = fs::metadata(evidence.dir.path())?.permissions();
    fs::set_permissions(evidence.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let program = evidence.dir.path().join("podlab");
    fs::copy(podnet_tests::plugins::podlab()?, &program)?;
    let alone = Command::new("unshare")
        .args(["-n", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["verify", "--from"])
        .arg(&evidence.bundle)
        .output()?;
    fs::set_permissions(evidence.dir.path(), own)?;
    ensure!(text(&alone).contains("the packets say what the bundle says"), "{}", text(&alone));
    Ok(())
}

#[test]
fn faults_are_found_again_in_the_packets() -> Result<()> {
    let masquerading = Lab::up("masq-again", &[&SMALL[..], &["--ip-masq"]].concat())?;
    let broken = Lab::up("broken-again", &SMALL)?;
    broken.exec("node1", &["ip", "route", "del", "10.244.2.0/24"])?;
    broken.exec("kubia-2", &["ip", "addr", "add", "10.244.2.2/24", "dev", "eth0"])?;
    for lab in [masquerading, broken] {
        let (evidence, output) = Evidence::of(&lab, &["-q"])?;
        let (code, said) = evidence.again()?;
        assert_eq!((output.status.code(), code), (Some(1), 1), "{}", text(&output));
        ensure!(differences(&said).is_empty(), "{}: {}", lab.name, said["differences"]);
        ensure!(said["report"]["failed"].as_u64() > Some(4), "{}", said["report"]);
    }
    Ok(())
}

#[test]
fn a_bundle_that_lies_is_refused_or_contradicted_by_its_packets() -> Result<()> {
    let lab = Lab::up("forged", &[&SMALL[..], &["--ip-masq"]].concat())?;
    let acquit = |bytes: Vec<u8>| -> Result<Vec<u8>> {
        let mut report: Value = serde_json::from_slice(&bytes)?;
        let checks = report["checks"].as_array_mut().context("no checks")?;
        let cross = checks.iter_mut().find(|check| check["name"] == "cross-node").context("no check")?;
        let verdict = &mut cross["verdicts"][0];
        verdict["ruling"] = "PASS".into();
        verdict["findings"] = json!([]);
        Ok(serde_json::to_vec(&report)?)
    };
    let (evidence, _) = Evidence::of(&lab, &["-q", "cross-node"])?;
    evidence.forge("verdicts.json", false, acquit)?;
    let refused = podlab(&["verify", "--from", evidence.bundle.to_str().context("path")?])?;
    ensure!(
        refused.status.code() == Some(2) && text(&refused).contains("verdicts.json was changed: "),
        "{}",
        text(&refused)
    );

    let (evidence, _) = Evidence::of(&lab, &["-q", "cross-node"])?;
    evidence.forge("verdicts.json", true, acquit)?;
    let (code, said) = evidence.again()?;
    let rulings: Vec<&Value> = differences(&said).into_iter().filter(|it| it["field"] == "ruling").collect();
    assert_eq!(code, 1);
    ensure!(
        rulings.len() == 1 && rulings[0]["claimed"] == "PASS" && rulings[0]["found"] == "FAIL",
        "{}",
        said["differences"]
    );
    let told = podlab(&["verify", "--from", evidence.bundle.to_str().context("path")?])?;
    ensure!(text(&told).contains(", ruling: it says \"PASS\", the packets say \"FAIL\""), "{}", text(&told));

    // Packets that were changed do not say what the verdicts say either.
    let (evidence, _) = Evidence::of(&lab, &["-q", "cross-node"])?;
    evidence.forge("packets.pcapng", true, |mut bytes| {
        let words = b"You've hit kubia-3";
        let all: Vec<usize> =
            (0..bytes.len() - words.len()).filter(|&at| bytes[at..].starts_with(words)).collect();
        ensure!(all.len() > 10, "only {} answers", all.len());
        all.into_iter().for_each(|at| bytes[at + words.len() - 1] = b'9');
        Ok(bytes)
    })?;
    let (code, said) = evidence.again()?;
    ensure!(code == 1 && !differences(&said).is_empty(), "{said}");
    evidence.forge("packets.pcapng", true, |bytes| Ok(bytes[..bytes.len() - 3].to_vec()))?;
    let refused = podlab(&["verify", "--from", evidence.bundle.to_str().context("path")?])?;
    ensure!(
        refused.status.code() == Some(2) && text(&refused).contains("pcapng, byte "),
        "{}",
        text(&refused)
    );
    Ok(())
}
