//! A node's machine: containerd and kubelet in the namespace of a [`Node`], which run real pods, and kube-proxy.
//!
//! ```text
//! unshare: mount and PID namespaces, the node's network namespace
//!   └ 1: a shell that reaps      /run, /var/lib and /var/log are empty and in memory, some of /proc/sys is not the kernel's
//!      ├ containerd, its shims, the pods' processes
//!      └ kubelet, kube-proxy
//! ```
//! When the shell dies the kernel ends all of it, and the mounts go too. Left are control groups, which the value
//! removes; they are below one of its own. A machine that has control groups of version 2 alone will not do.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use apiserver::{ControlPlane, Program};
use kernel::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

use super::image;
use crate::nodes::{Node, wait_until};

/// Where each hierarchy of control groups has its directory.
const CGROUPS: &str = "/sys/fs/cgroup";
/// containerd's socket, in the machine's own /run.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// What process 1 does: it covers what containerd, kubelet and plugins write to, and reaps. kubelet insists on some
/// settings of the whole kernel: it finds them, and finds them writable, in files. Control groups that are made come below
/// the machine's own, whatever their path.
const INIT: &str = "set -e
for dir in /run /var/lib /var/log; do mount -t tmpfs tmpfs $dir; done
mkdir -p /run/netns /run/kernel /run/group /var/lib/cni
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=/run/kernel/$(basename ${setting%=*})
    echo ${setting#*=} >$file
    mount --bind $file /proc/sys/${setting%=*}
done
for hierarchy in /sys/fs/cgroup/*; do
    mkdir $hierarchy/$2
    for file in cpuset.cpus cpuset.mems; do
        [ ! -e $hierarchy/$file ] || cat $hierarchy/$file >$hierarchy/$2/$file
    done
    mount --bind $hierarchy/$2 /run/group
    umount --lazy $hierarchy
    mount --move /run/group $hierarchy
done
touch \"$1\"
while :; do sleep 1000 & wait $!; done";

/// A machine with a container runtime.
#[derive(Debug)]
pub struct Machine {
    programs: Vec<Program>,
    /// How each program was started.
    started: HashMap<String, (PathBuf, Vec<String>)>,
    capsule: Program,
    init: Pid,
    group: String,
    name: String,
    dir: TempDir,
}

impl Machine {
    /// Starts containerd for a node, with the plugins and configurations of the node's directories, and gives it the
    /// image [`super::IMAGE`].
    ///
    /// # Errors
    /// A program is missing (packages `containerd`, `runc`, `busybox-static`) or does not start.
    pub fn start(node: &Node) -> Result<Machine> {
        let dir = TempDir::with_prefix("podnet-machine-").context("make a machine's directory")?;
        let begun = dir.path().join("begun");
        let second = Path::new(CGROUPS).join("cgroup.controllers").exists();
        ensure!(
            !second,
            "{CGROUPS} has control groups of version 2 alone; kubelet needs those of version 1 here"
        );
        // As unique as the directory: one process may have several machines, and their nodes one name.
        let group = dir.path().file_name().context("a directory has a name")?.to_string_lossy().into_owned();
        let arguments =
            ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments
            .extend(["--", "bash", "-c", INIT, "init", &begun.to_string_lossy(), &group].map(str::to_owned));
        let mut capsule = Program::start(&node.netns, dir.path(), Path::new("/usr/bin/unshare"), &arguments)?;
        let init = wait_until("a machine begins", || {
            ensure!(begun.exists() || !capsule.runs(), "not yet");
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", capsule.pid()))?;
            children.split_whitespace().next().context("no process 1")?.parse().context("its number")
        })
        .with_context(|| capsule.last_words())?;
        let mut machine = Machine {
            programs: Vec::new(),
            started: HashMap::new(),
            capsule,
            init: Pid::from_raw(init),
            group,
            name: node.name.clone(),
            dir,
        };
        machine.start_containerd(node)?;
        let archive = machine.dir.path().join("image.tar");
        image::write(&archive)?;
        machine.import(&archive)?;
        Ok(machine)
    }

    /// Gives containerd the image of an archive, as `kind load image-archive` does.
    ///
    /// # Errors
    /// It is refused.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let import = ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import"];
        self.run(&[&import[..], &[&archive.to_string_lossy()]].concat()).map(drop)
    }

    /// Kills one of its programs with SIGKILL; pods' processes go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let at = self.programs.iter().position(|it| it.name() == name);
        let at = at.with_context(|| format!("{name} does not run on node {}", self.name))?;
        self.programs.remove(at).kill()
    }

    /// Starts one of its programs, which was killed, as it was.
    ///
    /// # Errors
    /// It was never started, or does not start.
    pub fn start_again(&mut self, name: &str) -> Result<()> {
        let started = self.started.get(name).cloned();
        let (path, arguments) = started.with_context(|| format!("{name} never ran on node {}", self.name))?;
        self.start_inside(&path, &arguments)?;
        // A kubelet that is started before it answers gives up.
        if name == "containerd" { self.await_containerd() } else { Ok(()) }
    }

    /// Whether one of its programs was started and not killed.
    pub fn has(&self, name: &str) -> bool {
        self.programs.iter().any(|it| it.name() == name)
    }

    /// Starts kube-proxy, with iptables.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_kube_proxy(&mut self, control: &ControlPlane) -> Result<()> {
        let arguments = control.kube_proxy(&self.name)?;
        self.start_inside(&control.assets().join("kube-proxy"), &arguments)
    }

    /// Starts kubelet, which registers the Node of this name.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_kubelet(&mut self, control: &ControlPlane, node: &Node) -> Result<()> {
        let user = format!("system:node:{}", self.name);
        let kubeconfig = control.kubeconfig(&user, Some("system:nodes"))?;
        let mut names = vec![node.name.clone()];
        names.extend(node.addresses().map(|it| it.to_string()));
        let name = format!("kubelet-{}", node.name);
        let [certificate, key] = control.certificate(&name, &user, Some("system:nodes"), &names)?;
        let resolv = self.write("resolv.conf", "nameserver 10.96.0.10\n")?;
        let [ip, other] = control.primary_first(node.addresses());
        let configuration = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": ip.to_string(), "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": false}, "webhook": {"enabled": true},
                "x509": {"clientCAFile": control.dir().join("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": certificate, "tlsPrivateKeyFile": key,
            "cgroupDriver": "cgroupfs", "cgroupsPerQOS": false, "enforceNodeAllocatable": [],
            "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local", "resolvConf": resolv,
            "failSwapOn": false, "oomScoreAdj": 0,
            // Tests are no machine to run out of anything.
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%",
                "nodefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100,
            // What is seconds in a cluster is one here.
            "nodeStatusUpdateFrequency": "1s", "syncFrequency": "1s",
        });
        let configuration = self.write("kubelet.json", &configuration.to_string())?;
        let mut arguments = vec![
            format!("--config={}", configuration.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            "--container-runtime=remote".to_owned(),
            format!("--container-runtime-endpoint=unix://{SOCKET}"),
            format!("--hostname-override={}", node.name),
            format!("--node-ip={ip},{other}"),
            "--volume-plugin-dir=/var/lib/kubelet/volumeplugins".to_owned(),
        ];
        // It has got no default any more, and then no meaning.
        arguments.retain(|it| !it.starts_with("--container-runtime=") || control.minor() < 24);
        arguments.extend(control.gates());
        self.start_inside(&control.assets().join("kubelet"), &arguments)
    }

    /// Runs a command in the machine and returns what it printed.
    ///
    /// # Errors
    /// It fails; the text has what it wrote to stderr.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let output =
            Command::new("nsenter").args(self.door()).args(command).output().context("start nsenter")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "node {}: {}: {stderr}", self.name, command.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The process of a container, as the machine numbers it; `container` is its ID as the status of a pod has it.
    ///
    /// # Errors
    /// There is none.
    pub fn process(&self, container: &str) -> Result<u32> {
        let id = container.trim_start_matches("containerd://");
        let tasks = self.run(&["ctr", "--address", SOCKET, "--namespace", "k8s.io", "tasks", "ls"])?;
        let words = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = words.filter(|words| words.len() > 1).find(|words| words[0] == id);
        let found = found.with_context(|| format!("no container {id} on node {}:\n{tasks}", self.name))?;
        found[1].parse().with_context(|| format!("the process of {id}"))
    }

    /// The network namespace of a container.
    ///
    /// # Errors
    /// There is no such container.
    pub fn netns_of(&self, container: &str) -> Result<Netns> {
        let path = self.path(&format!("/proc/{}/ns/net", self.process(container)?));
        Netns::open(&path).with_context(|| format!("open {}", path.display()))
    }

    /// A path of the machine's own as this process reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.init).into()
    }

    /// The control group of its pods, a name in each hierarchy.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Its directory, with what its programs write: `containerd.log`, `kubelet.log`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What its programs wrote last, for the error of a test that waited in vain.
    pub fn last_words(&self) -> String {
        self.programs.iter().map(Program::last_words).collect::<Vec<_>>().join("\n")
    }

    fn start_containerd(&mut self, node: &Node) -> Result<()> {
        let below = |part: &str| node.root.join(part).to_string_lossy().into_owned();
        let (bin, net_d) = (below("opt/cni/bin"), below("etc/cni/net.d"));
        let image = image::IMAGE;
        // Without CAP_SYS_RESOURCE a process cannot take less to heart than its parent that memory is short.
        let configuration = format!(
            r#"version = 2
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin}"
    conf_dir = "{net_d}"
"#
        );
        let configuration = self.write("containerd.toml", &configuration)?;
        let arguments = ["--config".to_owned(), configuration.to_string_lossy().into_owned()];
        self.start_inside(Path::new("/usr/bin/containerd"), &arguments)?;
        self.await_containerd()
    }

    fn await_containerd(&self) -> Result<()> {
        wait_until("containerd answers", || self.run(&["ctr", "--address", SOCKET, "version"]))
            .map(drop)
            .with_context(|| self.last_words())
    }

    /// Starts a program in the machine's namespaces; it ends with the `nsenter` that has brought it there.
    fn start_inside(&mut self, path: &Path, arguments: &[String]) -> Result<()> {
        let name = path.file_name().context("a program has a name")?.to_string_lossy().into_owned();
        let mut all: Vec<String> = self.door();
        all.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        all.push(path.to_string_lossy().into_owned());
        all.extend_from_slice(arguments);
        let netns = Netns::open(Path::new(&format!("/proc/{}/ns/net", self.init)))?;
        let program = Program::start_as(&name, &netns, self.dir.path(), Path::new("/usr/bin/nsenter"), &all)?;
        self.programs.push(program);
        self.started.insert(name, (path.to_owned(), arguments.to_vec()));
        Ok(())
    }

    /// How `nsenter` gets into the machine.
    fn door(&self) -> Vec<String> {
        ["mount", "pid", "net"]
            .map(|kind| format!("--{kind}=/proc/{}/ns/{}", self.init, kind.replace("mount", "mnt")))
            .into_iter()
            .chain(["--".to_owned()])
            .collect()
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = kill(self.init, Signal::SIGKILL);
        // `unshare` ends when all processes inside have ended.
        let started = Instant::now();
        while self.capsule.runs() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(10));
        }
        for hierarchy in fs::read_dir(CGROUPS).into_iter().flatten().flatten() {
            remove_groups(&hierarchy.path().join(&self.group));
        }
    }
}

/// Removes a control group and those below it.
fn remove_groups(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
