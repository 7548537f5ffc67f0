//! The lines of the document that the lab teaches, as they are written there, and what lies behind them: port-forward,
//! names of services, edit.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use podnet_tests::plugins;

use super::{Lab, command, text};

/// A shell for which `kubectl` is podlab under another name, and the lab the one to talk to.
struct Shell {
    dir: tempfile::TempDir,
    lab: Lab,
}

impl Shell {
    fn new(lab: Lab) -> Result<Shell> {
        let dir = tempfile::tempdir()?;
        symlink(plugins::podlab()?, dir.path().join("kubectl"))?;
        Ok(Shell { dir, lab })
    }

    fn command(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", format!("{}:{path}", self.dir.path().display()));
        command.env("PODLAB_NAME", &self.lab.name);
        command
    }

    /// A line, with something on its standard input.
    fn run(&self, line: &str, input: &str) -> Result<Output> {
        let mut child =
            self.command(line).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    }

    /// What a line prints; another exit code than 0 is an error.
    fn ok(&self, line: &str) -> Result<String> {
        let output = self.run(line, "")?;
        ensure!(output.status.success(), "{line}: {}", text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A program that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_lines_of_the_document_run_word_for_word() -> Result<()> {
    let shell = Shell::new(Lab::up("document", &["--pods", "0"])?)?;
    let made = shell.ok("kubectl run kubia --image=luksa/kubia --port=8080 --generator=run/v1")?;
    assert_eq!(made, "replicationcontroller/kubia created\n");
    let pods = shell.ok("kubectl get pods")?;
    ensure!(pods.contains("\nkubia-dbfj2   2/2     Running   0 "), "{pods}");

    // The document's own slip of the pen: there is no such pod, here as there.
    let slip = shell.run("kubectl exec -it kubia-kubia-dbfj2 /bin/bash", "")?;
    ensure!(slip.status.code() == Some(1), "{}", text(&slip));
    let inside = shell.run("kubectl exec -it kubia-dbfj2 /bin/bash", "curl -s localhost:8080\n")?;
    assert_eq!(String::from_utf8_lossy(&inside.stdout), "You've hit kubia-dbfj2\n", "{}", text(&inside));

    let forwarding =
        shell.command("exec kubectl port-forward kubia-dbfj2 8888:8080").stdout(Stdio::piped()).spawn()?;
    let mut forwarding = Running(forwarding);
    let mut told = String::new();
    BufReader::new(forwarding.0.stdout.as_mut().context("no stdout")?).read_line(&mut told)?;
    assert_eq!(told, "Forwarding from 127.0.0.1:8888 -> 8080\n");
    assert_eq!(shell.ok("curl -s localhost:8888")?, "You've hit kubia-dbfj2\n");
    drop(forwarding);

    assert_eq!(shell.ok("kubectl delete pod kubia-dbfj2")?, "pod \"kubia-dbfj2\" deleted\n");
    assert_eq!(shell.ok("kubectl scale --replicas=3 rc/kubia")?, "replicationcontroller/kubia scaled\n");
    let wide = shell.ok("kubectl get pods -o wide")?;
    ensure!(
        wide.lines().count() == 4 && wide.contains("kubia-j7cct") && wide.contains("10.244.3.2"),
        "{wide}"
    );
    let exposed = shell.ok("kubectl expose rc kubia --type=ClusterIP --name kubia-http")?;
    assert_eq!(exposed, "service/kubia-http exposed\n");
    let services = shell.ok("kubectl get svc")?;
    ensure!(services.contains("kubia-http   ClusterIP   10.96.0.11   <none>        8080/TCP"), "{services}");
    for (line, words) in [
        ("kubectl describe pod kubia-j7cct", "Controlled By:    ReplicationController/kubia"),
        ("kubectl describe svc kubia-http", "Endpoints:                10.244."),
        ("kubectl describe rc kubia", "Replicas:     3 current / 3 desired"),
        ("kubectl get namespaces", "default   Active"),
        ("EDITOR=true kubectl edit rc kubia", "Edit cancelled, no changes made."),
    ] {
        let told = shell.ok(line)?;
        ensure!(told.contains(words), "{line}: {told}");
    }
    Ok(())
}

#[test]
fn a_forwarded_port_is_a_stream_into_the_pod_and_ends_with_it() -> Result<()> {
    let lab = Lab::up("forward", &["--pods", "0", "--nodes", "1"])?;
    lab.k("run kubia --image=luksa/kubia --port=8080 --generator=run/v1")?;
    let (pod, _, address) = lab.pods("run=kubia")?.swap_remove(0);
    let count = "nft add table ip t; nft add chain ip t in '{ type filter hook input priority 0; }'; \
                 nft add rule ip t in iifname eth0 counter";
    lab.exec(&pod, &["sh", "-c", count])?;
    let is_untouched = || -> Result<bool> {
        Ok(lab.exec(&pod, &["nft", "list", "table", "ip", "t"])?.contains("counter packets 0 "))
    };
    let mut forwarding = Running(
        command(&["kubectl", "--context", &lab.name, "port-forward", &pod, ":8080"])?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?,
    );
    let mut lines = BufReader::new(forwarding.0.stdout.take().context("no stdout")?).lines();
    let told = lines.next().context("it says nothing")??;
    let port = told.trim_start_matches("Forwarding from 127.0.0.1:").trim_end_matches(" -> 8080").to_owned();
    let curl = || -> Result<Output> {
        Ok(Command::new("curl").args(["-s", "-m", "5", &format!("http://127.0.0.1:{port}/")]).output()?)
    };
    for _ in 0..3 {
        assert_eq!(String::from_utf8_lossy(&curl()?.stdout), format!("You've hit {pod}\n"), "{told}");
    }
    // The app sees the pod's own localhost, and nothing came by the pod's interface.
    let log = lab.k(&format!("logs {pod}"))?;
    assert_eq!(log.matches("Received request from 127.0.0.1 ").count(), 3, "{log}");
    ensure!(is_untouched()?, "something came by eth0");
    lab.exec("node1", &["curl", "-s", &format!("{address}:8080")])?;
    ensure!(!is_untouched()?, "what comes by eth0 is not counted");

    lab.k(&format!("delete pod {pod}"))?;
    ensure!(!curl()?.status.success(), "the new pod has inherited the forwarding");
    let ended = forwarding.0.wait()?;
    let mut words = String::new();
    BufReader::new(forwarding.0.stderr.take().context("no stderr")?).read_line(&mut words)?;
    assert_eq!((ended.code(), words.as_str()), (Some(1), "error: lost connection to pod\n"));
    Ok(())
}

#[test]
fn a_port_of_a_service_is_forwarded_to_a_pod_behind_it() -> Result<()> {
    let lab = Lab::up("forward-svc", &["--pods", "0", "--nodes", "1"])?;
    lab.k("run kubia --image=kubia --port=8080 --generator=run/v1")?;
    lab.k("expose rc kubia --port=80 --target-port=8080")?;
    let mut forwarding = Running(
        command(&["kubectl", "--context", &lab.name, "port-forward", "svc/kubia", ":80"])?
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut told = String::new();
    BufReader::new(forwarding.0.stdout.as_mut().context("no stdout")?).read_line(&mut told)?;
    ensure!(told.ends_with(" -> 8080\n"), "{told}");
    let nobody = lab.podlab("kubectl", &[])?;
    ensure!(!nobody.status.success(), "{}", text(&nobody));
    lab.k("scale --replicas=0 rc/kubia")?;
    let none = super::podlab(&["kubectl", "--context", &lab.name, "port-forward", "svc/kubia", ":80"])?;
    ensure!(text(&none).contains("error: no pod behind service/kubia"), "{}", text(&none));
    Ok(())
}

#[test]
fn services_have_names_and_an_external_name_is_another_name() -> Result<()> {
    let lab = Lab::up("names", &["--pods", "0", "--nodes", "2"])?;
    lab.k("run kubia --image=kubia --port=8080 --generator=run/v1 --replicas=2")?;
    let pod = lab.pods("run=kubia")?[1].0.clone();
    lab.k("create service externalname out --external-name outside.example")?;
    // A name alone has rules for its look-up only.
    assert_eq!(lab.k(&format!("exec {pod} -- curl -s http://out:8080"))?, "You've hit outside\n");
    lab.k("expose rc kubia --name kubia-http")?;
    for name in ["kubia-http", "kubia-http.default", "kubia-http.default.svc.cluster.local"] {
        let hit = lab.k(&format!("exec {pod} -- curl -s http://{name}:8080"))?;
        ensure!(hit.starts_with("You've hit kubia-"), "{name}: {hit}");
        let found = lab.k(&format!("exec {pod} -- getent ahostsv4 {name}"))?;
        ensure!(found.starts_with("10.96.0.11 "), "{name}: {found}");
    }
    let unknown =
        super::podlab(&["kubectl", "--context", &lab.name, "exec", &pod, "--", "curl", "-s", "nobody"])?;
    ensure!(unknown.status.code() == Some(6), "curl resolves a name that there is not: {}", text(&unknown));
    let services = lab.k("get svc out --no-headers")?;
    ensure!(services.contains("ExternalName   <none>   outside.example   <none>"), "{services}");
    lab.k("delete svc kubia-http")?;
    let gone = super::podlab(&[
        "kubectl",
        "--context",
        &lab.name,
        "exec",
        &pod,
        "--",
        "getent",
        "hosts",
        "kubia-http",
    ])?;
    ensure!(gone.status.code() == Some(2), "the name outlives its service: {}", text(&gone));
    // The machine's own resolver is not touched.
    let own = lab.exec(&pod, &["cat", "/etc/resolv.conf"])?;
    ensure!(!own.contains("10.96.0.10"), "{own}");
    Ok(())
}

#[test]
fn what_is_edited_is_done() -> Result<()> {
    let shell = Shell::new(Lab::up("edit", &["--pods", "0", "--nodes", "1"])?)?;
    shell.ok("kubectl run kubia --image=kubia --port=8080 --generator=run/v1")?;
    let edit = |script: &str, what: &str| -> Result<Output> {
        let path = shell.dir.path().join("script.sed");
        std::fs::write(&path, script)?;
        shell.run(&format!("EDITOR='sed -i -f {}' kubectl edit {what}", path.display()), "")
    };
    // The number is in the status too, which is not to be changed.
    let failed = edit("s/\"replicas\": 1/\"replicas\": 3/", "rc kubia")?;
    ensure!(text(&failed).contains("a lab changes what is in spec only"), "{}", text(&failed));
    let edited = edit("/\"spec\"/,/\"status\"/s/\"replicas\": 1/\"replicas\": 3/", "rc kubia")?;
    assert_eq!(
        String::from_utf8_lossy(&edited.stdout),
        "replicationcontroller/kubia edited\n",
        "{}",
        text(&edited)
    );
    assert_eq!(shell.lab.pods("run=kubia")?.len(), 3);
    shell.ok("kubectl expose rc kubia --type=NodePort")?;
    let edited = edit("s/\"port\": 8080/\"port\": 80/", "svc kubia")?;
    assert_eq!(String::from_utf8_lossy(&edited.stdout), "service/kubia edited\n", "{}", text(&edited));
    let ports = shell.ok("kubectl get svc kubia --no-headers")?;
    ensure!(ports.contains("80:30080/TCP"), "{ports}");
    let broken = edit("s/{//", "svc kubia")?;
    ensure!(text(&broken).contains("the edited file: "), "{}", text(&broken));
    let unhappy = shell.run("EDITOR=false kubectl edit svc kubia", "")?;
    ensure!(unhappy.status.code() == Some(1), "{}", text(&unhappy));
    Ok(())
}
