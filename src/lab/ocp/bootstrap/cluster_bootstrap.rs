//! What the cluster-bootstrap container prints (openshift/cluster-bootstrap `pkg/start`).

use super::Node;
use super::bootkube::Died;

const PODS: &[&str] = &[
    "openshift-cluster-version/cluster-version-operator",
    "openshift-kube-apiserver/kube-apiserver",
    "openshift-kube-scheduler/openshift-kube-scheduler",
    "openshift-kube-controller-manager/kube-controller-manager",
];

impl Node {
    /// What the cluster-bootstrap container prints (openshift/cluster-bootstrap `pkg/start`).
    pub(super) async fn cluster_bootstrap(&self) -> Result<(), Died> {
        self.pull("cluster-bootstrap").await?;
        let say = |text: &str| self.pen.container("cluster-bootstrap", text);
        if self.minor >= 18 {
            let host = format!("https://api-int.{}:6443", self.cluster.assets.domain);
            say(&format!("rest.Config.Host={host}, cloning to create local loopback"));
        }
        say("Starting temporary bootstrap control plane...");
        say("Copying static manifests from: /assets/bootstrap-manifests to: /etc/kubernetes/manifests");
        say(
            "Successfully copied static pod manifests: [bootstrap-pod.yaml cluster-version-operator.yaml etcd-member-pod.yaml kube-apiserver-pod.yaml kube-controller-manager-pod.yaml kube-scheduler-pod.yaml]",
        );
        say("Waiting up to 20m0s for the Kubernetes API");
        self.sleep(5).await;
        say(
            "Still waiting for the Kubernetes API: Get \"https://localhost:6443/readyz\": dial tcp [::1]:6443: connect: connection refused",
        );
        self.sleep(20).await;
        self.cluster.mark(|marks| marks.api = true);
        say("API is up");
        for (index, (file, resource, name)) in MANIFESTS.iter().enumerate() {
            let line = format!("Created \"{file}\" {resource}/{name}");
            self.pen.numbered_container("cluster-bootstrap", &line);
            if index == 3 {
                say("[#1] failed to create some manifests:");
                say(
                    "\"99_openshift-machineconfig_99-master-ssh.yaml\": unable to get REST mapping for \"99_openshift-machineconfig_99-master-ssh.yaml\": no matches for kind \"MachineConfig\" in version \"machineconfiguration.openshift.io/v1\"",
                );
            }
            self.sleep(2).await;
        }
        for state in ["DoesNotExist", "Pending", "RunningNotReady", "Ready"] {
            for pod in PODS {
                say(&format!("\tPod Status:{pod:<24}\t{state}"));
            }
            match state {
                "DoesNotExist" => self.sleep(45).await,
                "Pending" => {
                    self.cluster.until(|marks| marks.control_plane).await;
                    self.sleep(5).await;
                }
                _ => self.sleep(15).await,
            }
        }
        say("All self-hosted control plane components successfully started");
        if self.minor >= 18 {
            say("Waiting for self hosted control plane to be available");
            for (what, operand) in
                [("API", "kubeapiservers"), ("scheduler", "kubeschedulers"), ("kcm", "kubecontrollermanagers")]
            {
                say(&format!(
                    "Waiting up to 30m0s for condition: {what} should be available on at least two master nodes"
                ));
                let nodes: Vec<_> =
                    self.cluster.masters().map(|node| format!("[{} at Current: 0, Traget: 5]", node.node)).collect();
                say(&format!(
                    "polling will continue, last status: {operand}/cluster NodeStatuses:  {}",
                    nodes.join(" ")
                ));
                self.sleep(14).await;
                say(&format!(
                    "condition \"{what} should be available on at least two master nodes\" has been satisfied, reason: {operand}/cluster has 2 nodes at revision 5"
                ));
            }
            say("Waiting 30s to give load-balancers time to observe the self-hosted control-plane");
            self.sleep(30).await;
        } else {
            say("Waiting for 2 masters to join");
            self.sleep(20).await;
        }
        say("Sending bootstrap-success event.Waiting for remaining assets to be created.");
        self.event("bootstrap-success");
        self.sleep(8).await;
        say("Sending bootstrap-finished event.");
        self.event("bootstrap-finished");
        say("Tearing down temporary bootstrap control plane...");
        self.sleep(4).await;
        Ok(())
    }

    pub(super) fn event(&self, name: &str) {
        super::super::control_plane::event(
            &self.scene.kube,
            "kube-system",
            name,
            "Required control plane pods have been created",
        );
    }
}

/// File, resource and name of some of the manifests that cluster-bootstrap applies.
const MANIFESTS: &[(&str, &str, &str)] = &[
    ("0000_00_cluster-version-operator_00_namespace.yaml", "namespaces.v1.", "openshift-cluster-version -n "),
    (
        "0000_10_config-operator_01_apiservers.crd.yaml",
        "customresourcedefinitions.v1.apiextensions.k8s.io",
        "apiservers.config.openshift.io -n ",
    ),
    ("cluster-infrastructure-02-config.yml", "infrastructures.v1.config.openshift.io", "cluster -n "),
    ("cluster-ingress-02-config.yml", "ingresses.v1.config.openshift.io", "cluster -n "),
    ("cluster-network-02-config.yml", "networks.v1.config.openshift.io", "cluster -n "),
    ("image-digest-mirror-set.yaml", "imagedigestmirrorsets.v1.config.openshift.io", "image-digest-mirror -n "),
    ("kube-cloud-config.yaml", "secrets.v1.", "kube-cloud-cfg -n kube-system"),
    (
        "machine-config-server-tls-secret.yaml",
        "secrets.v1.",
        "machine-config-server-tls -n openshift-machine-config-operator",
    ),
    ("openshift-config-secret-pull-secret.yaml", "secrets.v1.", "pull-secret -n openshift-config"),
    (
        "99_openshift-cluster-api_master-machines-0.yaml",
        "machines.v1beta1.machine.openshift.io",
        "master-0 -n openshift-machine-api",
    ),
    (
        "99_openshift-cluster-api_worker-machineset-0.yaml",
        "machinesets.v1beta1.machine.openshift.io",
        "worker-us-east-2a -n openshift-machine-api",
    ),
    (
        "99_openshift-machineconfig_99-master-ssh.yaml",
        "machineconfigs.v1.machineconfiguration.openshift.io",
        "99-master-ssh -n ",
    ),
];
