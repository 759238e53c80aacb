//! Waiting for the bootstrap and for the cluster: what is said meanwhile, and at the end when it was in vain.

use std::sync::Arc;

use super::{BOOTSTRAP, Fatal, INSTALL, OPERATORS, Session, quoted};
use crate::lab::ocp::cluster::Cluster;
use crate::lab::ocp::control_plane;

impl Session {
    pub(super) fn until(&self, minutes: i64) -> String {
        let end = self.scene.clock.now() + jiff::SignedDuration::from_mins(minutes);
        end.strftime("%-I:%M%p UTC").to_string()
    }

    pub(super) async fn bootstrap_complete(&mut self, cluster: &Arc<Cluster>) -> Result<(), Fatal> {
        let url = format!("https://api.{}:6443", cluster.assets.domain);
        let until = self.until(20);
        self.info(format!("Waiting up to 20m0s (until {until}) for the Kubernetes API at {url}...")).await;
        let refused = format!(
            "Still waiting for the Kubernetes API: Get \"{url}/version\": dial tcp 10.0.5.9:6443: connect: connection refused"
        );
        if !self.wait(20, Some(&refused), || self.scene.kube.is_up()).await {
            self.say("error", format!("Bootstrap failed to complete: Get \"{url}/version\": dial tcp 10.0.5.9:6443: connect: connection refused")).await;
            self.say("error", "Failed waiting for Kubernetes API. This error usually happens when there is a problem on the bootstrap host that prevents creating a temporary control plane.").await;
            return Err(Fatal(BOOTSTRAP, String::new()));
        }
        self.info(format!("API {} up", control_plane::kubernetes(&cluster.assets.version))).await;
        let minutes = 45;
        let until = self.until(minutes);
        self.info(format!("Waiting up to {minutes}m0s (until {until}) for bootstrapping to complete...")).await;
        if !self.wait(45, None, || cluster.marks().complete).await {
            self.unhappy_operators().await;
            self.say("error", "Bootstrap failed to complete: timed out waiting for the condition").await;
            self.say("error", "Failed to wait for bootstrapping to complete. This error usually happens when there is a problem with control plane hosts that prevents the control plane operators from creating the control plane.").await;
            return Err(Fatal(BOOTSTRAP, String::new()));
        }
        self.debug("Bootstrap status: complete").await;
        self.info("Waiting for the bootstrap etcd member to be removed...").await;
        self.scene.sleep(15).await;
        self.info("Bootstrap etcd member has been removed").await;
        Ok(())
    }

    pub(super) async fn install_complete(&mut self, cluster: &Arc<Cluster>) -> Result<(), Fatal> {
        let domain = cluster.assets.domain.clone();
        let until = self.until(40);
        self.info(format!(
            "Waiting up to 40m0s (until {until}) for the cluster at https://api.{domain}:6443 to initialize..."
        ))
        .await;
        let (mut last, mut waited) = (String::new(), 0);
        while !cluster.marks().initialized {
            if waited >= 40 * 60 {
                let unhappy = self.unhappy_operators().await;
                self.say("error", "Cluster initialization failed because one or more operators are not functioning properly.\nThe cluster should be accessible for troubleshooting as detailed in the documentation linked below,\nhttps://docs.openshift.com/container-platform/latest/support/troubleshooting/troubleshooting-installations.html\nThe 'wait-for install-complete' subcommand can then be used to continue the installation").await;
                return Err(Fatal(
                    INSTALL,
                    format!(
                        "failed to initialize the cluster: Cluster operators {} are not available",
                        unhappy.join(", ")
                    ),
                ));
            }
            let message = self.progress();
            if message != last && !message.is_empty() {
                self.debug(format!("Still waiting for the cluster to initialize: {message}")).await;
                last = message;
            }
            self.scene.sleep(2).await;
            waited += 2;
        }
        self.debug("Cluster is initialized").await;
        let until = self.until(30);
        self.info(format!(
            "Waiting up to 30m0s (until {until}) to ensure each cluster operator has finished progressing..."
        ))
        .await;
        if !self.wait(30, None, || cluster.marks().stable).await {
            return Err(Fatal(OPERATORS, "These cluster operators were not stable: [kube-apiserver]".into()));
        }
        let (_, operators) = self.scene.kube.list("clusteroperators", None);
        for operator in &operators {
            let name = operator["metadata"]["name"].as_str().unwrap_or_default();
            self.debug(format!("Cluster Operator {name} is stable")).await;
        }
        self.info("All cluster operators have completed progressing").await;
        self.info("Checking to see if there is a route at openshift-console/console...").await;
        self.scene.sleep(2).await;
        self.info("Install complete!").await;
        self.info(format!("To access the cluster as the system:admin user when using 'oc', run\n    export KUBECONFIG={}/auth/kubeconfig", self.folder)).await;
        self.info(format!("Access the OpenShift web-console here: https://console-openshift-console.apps.{domain}"))
            .await;
        let password = self.load("auth/kubeadmin-password").unwrap_or_default();
        self.info(format!("Login to the console with user: \"kubeadmin\", and password: \"{password}\"")).await;
        Ok(())
    }

    pub(super) fn progress(&self) -> String {
        let version = self.scene.kube.get("clusterversions", "", "version");
        version
            .and_then(|version| {
                version["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == "Progressing")?["message"]
                    .as_str()
                    .map(str::to_owned)
            })
            .unwrap_or_default()
    }

    /// Say what is wrong with the operators; gives those that are not available.
    pub(super) async fn unhappy_operators(&mut self) -> Vec<String> {
        let (_, operators) = self.scene.kube.list("clusteroperators", None);
        let mut unavailable = Vec::new();
        for operator in &operators {
            let name = operator["metadata"]["name"].as_str().unwrap_or_default();
            for one in operator["status"]["conditions"].as_array().into_iter().flatten() {
                let (kind, status) =
                    (one["type"].as_str().unwrap_or_default(), one["status"].as_str().unwrap_or_default());
                let bad = matches!((kind, status), ("Available", "False") | ("Degraded", "True"));
                if bad {
                    let text = |field: &str| one[field].as_str().unwrap_or_default();
                    self.say(
                        "error",
                        format!(
                            "Cluster operator {name} {kind} is {status} with {}: {}",
                            text("reason"),
                            text("message")
                        ),
                    )
                    .await;
                }
                if bad && kind == "Available" {
                    unavailable.push(name.to_owned());
                }
            }
        }
        unavailable
    }

    /// Whether `is` came true within so many minutes of the lab. `still` is said at first, and every 15th time after.
    pub(super) async fn wait(&self, minutes: u64, still: Option<&str>, is: impl Fn() -> bool) -> bool {
        let at = || self.scene.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        for poll in 0..minutes * 30 {
            if is() {
                return true;
            }
            if let Some(still) = still.filter(|_| poll % 15 == 0) {
                let line = format!("time=\"{}\" level=debug msg={}\n", at(), quoted(still));
                let _ = self.log.machine.fs().append(&self.log.path, line.as_bytes());
            }
            self.scene.sleep(2).await;
        }
        is()
    }

    pub(super) async fn wait_bootstrap(&mut self) -> Result<(), Fatal> {
        let cluster = self.cluster()?;
        if let Err(why) = self.bootstrap_complete(&cluster).await {
            // It gathers nothing by itself.
            self.info("Use the following commands to gather logs from the cluster").await;
            self.info("openshift-install gather bootstrap --help").await;
            return Err(why);
        }
        self.info("It is now safe to remove the bootstrap resources").await;
        Ok(())
    }

    pub(super) async fn wait_install(&mut self) -> Result<(), Fatal> {
        let cluster = self.cluster()?;
        self.install_complete(&cluster).await
    }
}
