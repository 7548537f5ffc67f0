//! etcd and kube-apiserver in a namespace: the API as a real cluster has it, with authorization of nodes and by roles,
//! service accounts, and IPv4 and IPv6 for pods and services.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kernel::link::{self, Change};
use kernel::{Netns, Rtnl};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::authority::{Authority, Identity};
use crate::client::Client;
use crate::program::Program;

/// The group that may do everything.
pub const ADMIN: &str = "system:masters";
/// How long the API may take until it is ready: about four seconds on a quiet machine of two cores.
const PATIENCE: Duration = Duration::from_secs(180);
/// The addresses of services, and the first of each, which is the API's own.
pub(crate) const SERVICES: [(&str, &str); 2] =
    [("10.96.0.0/16", "10.96.0.1"), ("fd00:10:96::/112", "fd00:10:96::1")];
/// Who issues the tokens of service accounts.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A running control plane. Dropping it ends its programs and removes all that they have written.
#[derive(Debug)]
pub struct ControlPlane {
    /// Where kube-apiserver listens.
    pub address: SocketAddr,
    pub(crate) programs: Vec<Program>,
    pub(crate) assets: PathBuf,
    pub(crate) authority: Authority,
    pub(crate) netns: Netns,
    minor: u32,
    stored: u16,
    peers: u16,
    dir: PathBuf,
    /// What goes with the value.
    own: Option<TempDir>,
}

impl ControlPlane {
    /// Starts both programs in `netns`, whose loopback is taken up, and waits until the API is ready at `address`, which
    /// must be one of the namespace's own. `assets` is from [`crate::assets`].
    ///
    /// # Errors
    /// A program does not start or ends again; the text has what it wrote last.
    pub fn start(netns: &Netns, address: SocketAddr, assets: &Path) -> Result<ControlPlane> {
        let dir = TempDir::with_prefix("podnet-kube-").context("make a control plane's directory")?;
        let path = dir.path().to_owned();
        let mut control = ControlPlane::start_in(&path, netns, address, assets)?;
        control.own = Some(dir);
        Ok(control)
    }

    /// [`ControlPlane::start`] with a directory that is there, and stays.
    ///
    /// # Errors
    /// Likewise.
    pub fn start_in(dir: &Path, netns: &Netns, address: SocketAddr, assets: &Path) -> Result<ControlPlane> {
        let authority = Authority::new(dir)?;
        let mut names = vec![address.ip().to_string(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(SERVICES.map(|(_, first)| first.to_owned()));
        names.extend(
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned),
        );
        authority.files("apiserver", "kube-apiserver", None, &names)?;
        authority.files("apiserver-kubelet", "kube-apiserver", Some(ADMIN), &[])?;
        authority.signer("tokens")?;
        let mut rtnl = Rtnl::open_in(netns)?;
        let lo = link::by_name(&mut rtnl, "lo")?;
        link::set(&mut rtnl, lo.index, &Change { up: Some(true), ..Change::default() })?;
        let free = || TcpListener::bind(("127.0.0.1", 0)).and_then(|it| it.local_addr()).map(|it| it.port());
        let (stored, peers) =
            netns.run(|| free().and_then(|one| Ok((one, free()?))))?.context("find ports for etcd")?;
        let mut control = ControlPlane {
            address,
            programs: Vec::new(),
            assets: assets.to_owned(),
            authority,
            netns: share(netns)?,
            minor: minor(&assets.join("kube-apiserver"))?,
            stored,
            peers,
            dir: dir.to_owned(),
            own: None,
        };
        control.restart()?;
        Ok(control)
    }

    /// Starts what does not run, with the data that is there, and waits until the API is ready.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.programs.retain_mut(Program::runs);
        for (name, arguments) in [("etcd", self.etcd()), ("kube-apiserver", self.kube_apiserver())] {
            if !self.programs.iter().any(|it| it.name() == name) {
                self.start_program(name, &arguments)?;
            }
        }
        let client = self.client()?.patience(Duration::from_secs(10));
        self.wait_until("the API is ready", || client.text("/readyz").map(drop))
    }

    /// Kills both programs (SIGKILL); what the API has promised stays on disk.
    ///
    /// # Errors
    /// They have ended by themselves.
    pub fn kill(&mut self) -> Result<()> {
        for name in ["kube-apiserver", "etcd"] {
            let at = self.programs.iter().position(|it| it.name() == name);
            self.programs.remove(at.with_context(|| format!("{name} does not run"))?).kill()?;
        }
        Ok(())
    }

    /// Stops kube-apiserver for a while (SIGSTOP): connections stay, and nobody answers.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> Result<()> {
        self.program("kube-apiserver")?.pause()
    }

    /// Lets kube-apiserver go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> Result<()> {
        self.program("kube-apiserver")?.resume()
    }

    /// One of its programs.
    ///
    /// # Errors
    /// It was not started.
    pub fn program(&self, name: &str) -> Result<&Program> {
        self.programs.iter().find(|it| it.name() == name).with_context(|| format!("{name} does not run"))
    }

    /// A client in the control plane's namespace that may do everything.
    ///
    /// # Errors
    /// Its certificate cannot be made.
    pub fn client(&self) -> Result<Client> {
        self.client_of(&self.netns, &self.kubeconfig("admin", Some(ADMIN))?)
    }

    /// A client in another namespace, as the user of a kubeconfig.
    ///
    /// # Errors
    /// The file cannot be understood.
    pub fn client_of(&self, netns: &Netns, kubeconfig: &Path) -> Result<Client> {
        Client::new(netns, kubeconfig)
    }

    /// A kubeconfig for any user, known by a certificate; whoever it is can reach the API at
    /// [`ControlPlane::address`] from there.
    ///
    /// # Errors
    /// The certificate cannot be made, or the file not be written.
    pub fn kubeconfig(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let Identity { certificate, key } = self.authority.identity(user, group, &[])?;
        let known_by = json!({
            "client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(key),
        });
        self.write_kubeconfig(user, &known_by)
    }

    /// A kubeconfig for a service account, known by a token that the API has given for it.
    ///
    /// # Errors
    /// There is no such account, or the file cannot be written.
    pub fn kubeconfig_of_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.client()?.token_of(namespace, name)?;
        self.write_kubeconfig(&format!("{namespace}-{name}"), &json!({ "token": token }))
    }

    /// A certificate of its authority in two files of its directory, `NAME.crt` and `NAME.key`: for a server with these
    /// names and addresses, which as a client is `user` in `group`.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn certificate(
        &self,
        name: &str,
        user: &str,
        group: Option<&str>,
        servers: &[String],
    ) -> Result<[PathBuf; 2]> {
        self.authority.files(name, user, group, servers)
    }

    /// The folder with its programs.
    pub fn assets(&self) -> &Path {
        &self.assets
    }

    /// The authority's certificate, in PEM, as pods have it at their service account's `ca.crt`.
    pub fn ca(&self) -> String {
        self.authority.pem()
    }

    /// Its directory: `ca.crt`, kubeconfigs, data, and of each program `NAME.log`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn start_program(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        let program = Program::start(&self.netns, &self.dir, &self.assets.join(name), arguments)?;
        self.programs.push(program);
        Ok(())
    }

    /// Waits until `ready` succeeds. A program that ends meanwhile will never be: it is an error at once.
    pub(crate) fn wait_until<T>(&mut self, what: &str, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        loop {
            let error = match ready() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let ended = !self.programs.iter_mut().all(Program::runs);
            if ended || started.elapsed() > PATIENCE {
                let words: Vec<String> = self.programs.iter().map(Program::last_words).collect();
                let why = if ended { "a program has ended" } else { "not in time" };
                bail!("{what}: {why}: {error:#}\n{}", words.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Flags for what a Kubernetes before 1.21 does only when asked: tokens of pods that no controller has to make, and
    /// two addresses for each pod.
    pub fn gates(&self) -> Vec<String> {
        if self.minor >= 21 {
            return Vec::new();
        }
        vec!["--feature-gates=BoundServiceAccountTokenVolume=true,IPv6DualStack=true".to_owned()]
    }

    /// The second number of kube-apiserver's version.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// A file of its directory, as an argument.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    fn write_kubeconfig(&self, user: &str, known_by: &Value) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority-data": STANDARD.encode(self.ca()),
            }}],
            "users": [{"name": user, "user": known_by}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": user}}],
        });
        let path = self.dir.join(format!("{}.kubeconfig", user.replace([':', '/'], "-")));
        // Whoever reads the earlier one of the name sees it whole.
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).context("write a kubeconfig")?;
        std::io::Write::write_all(&mut file, config.to_string().as_bytes()).context("write a kubeconfig")?;
        file.persist(&path).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// etcd 3.4's and 3.5's arguments: alone, on loopback; a killed process loses nothing without fsync.
    fn etcd(&self) -> Vec<String> {
        let [clients, peers] = [self.stored, self.peers].map(|port| format!("http://127.0.0.1:{port}"));
        vec![
            format!("--data-dir={}", self.file("data")),
            "--name=it".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=it={peers}"),
            "--log-level=warn".to_owned(),
        ]
    }

    fn kube_apiserver(&self) -> Vec<String> {
        let services = self.primary_first(SERVICES.map(|(range, _)| range));
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.stored),
            format!("--bind-address={}", self.address.ip()),
            format!("--advertise-address={}", self.address.ip()),
            format!("--secure-port={}", self.address.port()),
            format!("--cert-dir={}", self.file("")),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            format!("--client-ca-file={}", self.file("ca.crt")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-account-key-file={}", self.file("tokens.pub")),
            format!("--service-account-signing-key-file={}", self.file("tokens.key")),
            format!("--service-cluster-ip-range={}", services.join(",")),
            format!("--kubelet-client-certificate={}", self.file("apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", self.file("apiserver-kubelet.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--allow-privileged=true".to_owned(),
        ];
        arguments.extend(self.gates());
        arguments
    }
}

/// The second number of a program's version.
fn minor(program: &Path) -> Result<u32> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("start {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} --version: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let minor = text.trim().strip_prefix("Kubernetes v").and_then(|it| it.split('.').nth(1)?.parse().ok());
    minor.with_context(|| format!("{}: no version: {text:?}", program.display()))
}

fn share(netns: &Netns) -> Result<Netns> {
    let fd = std::os::fd::AsFd::as_fd(netns).try_clone_to_owned().context("share a namespace")?;
    Ok(Netns::from(fd))
}
