//! The rest of a cluster's programs: controllers and the scheduler, and how kube-proxy is started. Each is started only where
//! a test asks.

use anyhow::Result;

use crate::control_plane::{ADMIN, ControlPlane, SERVICES};

/// The addresses of all pods, of which each node gets a part.
pub const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

impl ControlPlane {
    /// Starts the controllers, beside kube-apiserver: from now on Nodes get PodCIDRs, Deployments get pods, Namespaces get
    /// their service account, and so on.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_controller_manager(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig("system:kube-controller-manager", Some(ADMIN))?;
        let mut arguments = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={}", self.primary_first(PODS).join(",")),
            format!(
                "--service-cluster-ip-range={}",
                self.primary_first(SERVICES.map(|(range, _)| range)).join(",")
            ),
            "--node-cidr-mask-size-ipv4=24".to_owned(),
            "--node-cidr-mask-size-ipv6=64".to_owned(),
            format!("--root-ca-file={}", self.file("ca.crt")),
            format!("--service-account-private-key-file={}", self.file("tokens.key")),
        ];
        arguments.extend(self.gates());
        self.start_program("kube-controller-manager", &arguments)
    }

    /// Starts the scheduler, beside kube-apiserver.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_scheduler(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig("system:kube-scheduler", Some(ADMIN))?;
        let mut arguments =
            vec![format!("--kubeconfig={}", kubeconfig.display()), "--leader-elect=false".to_owned()];
        arguments.extend(self.gates());
        self.start_program("kube-scheduler", &arguments)
    }

    /// kube-proxy's arguments on a node: it works with iptables, and leaves alone what is one for the whole kernel.
    ///
    /// # Errors
    /// Its certificate cannot be made.
    pub fn kube_proxy(&self, node: &str) -> Result<Vec<String>> {
        let kubeconfig = self.kubeconfig("system:kube-proxy", Some(ADMIN))?;
        let mut arguments = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={node}"),
            "--proxy-mode=iptables".to_owned(),
            format!("--cluster-cidr={}", self.primary_first(PODS).join(",")),
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        ];
        arguments.extend(self.gates());
        Ok(arguments)
    }

    /// Two ranges, that of the API's own version of IP first, as Kubernetes wants it.
    pub fn primary_first<T>(&self, mut ranges: [T; 2]) -> [T; 2] {
        if self.address.is_ipv6() {
            ranges.reverse();
        }
        ranges
    }
}
