//! The life of the bootstrap machine: its units in their order, the stages of bootkube.sh with what each prints, the
//! service records, and the loops in which things are tried again. From openshift/installer `data/data/bootstrap`.

mod bootkube;
mod cluster_bootstrap;

use std::sync::Arc;

use super::OcpError;
use super::cluster::{Cluster, Scene};
use super::first_boot::Console;
use super::journal::{Pen, Records};
use super::payload::Payload;
use super::scenario::Moment;

/// Seconds until a machine that was reset is up again.
const REBOOT: u64 = 50;

struct Node {
    scene: Arc<Scene>,
    cluster: Arc<Cluster>,
    pen: Pen,
    minor: u32,
}

pub async fn run(scene: Arc<Scene>, cluster: Arc<Cluster>) -> Result<(), OcpError> {
    let Some(plan) = cluster.node("bootstrap").cloned() else { return Ok(()) };
    let known = scene.machines.machine("bootstrap").is_some();
    if !known {
        scene.sleep(35).await;
        Console::boot(&scene, &plan.instance).up(&plan.node)?;
    }
    let machine = scene.boot(&cluster, &plan).await?;
    let minor = cluster.assets.version.split('.').nth(1).and_then(|text| text.parse().ok()).unwrap_or(18);
    let mut node = Node { pen: Pen::new(machine, minor <= 20), scene, cluster, minor };
    loop {
        node.files()?;
        tokio::select! {
            () = node.live() => return Ok(()),
            () = node.cluster.reset.notified() => {}
        }
        node.scene.machines.reset("bootstrap").await.map_err(|why| OcpError::Machine(why.to_string()))?;
        node.scene.sleep(REBOOT).await;
        let machine = node.scene.boot(&node.cluster, &plan).await?;
        node.pen = node.pen.after_reboot(machine);
        node.forget_boot()?;
    }
}

impl Node {
    /// One boot of the machine.
    async fn live(&self) {
        self.boot().await;
        self.release_image().await;
        self.container_runtime().await;
        // Both follow bootkube and go on after it.
        tokio::join!(self.kubelet(), self.approve_csr(), async {
            self.bootkube().await;
            self.progress().await;
        });
    }

    async fn sleep(&self, seconds: u64) {
        self.scene.sleep(seconds).await;
    }

    /// What was running before a reboot has to start again; pulled images are still there.
    fn forget_boot(&self) -> Result<(), OcpError> {
        let fs = self.pen.machine.fs();
        for marker in [".booted", ".crio.done", ".release-image.done"].into_iter().filter(|marker| self.has(marker)) {
            fs.remove(&format!("/opt/openshift/{marker}"))?;
        }
        Ok(())
    }

    fn has(&self, marker: &str) -> bool {
        self.pen.machine.fs().exists(&format!("/opt/openshift/{marker}"))
    }

    fn touch(&self, marker: &str) {
        // A marker that is not there makes the stage run again; that is all.
        let _ = self.pen.machine.fs().write(&format!("/opt/openshift/{marker}"), b"");
    }

    /// What Ignition writes.
    fn files(&self) -> Result<(), OcpError> {
        let fs = self.pen.machine.fs();
        let assets = &self.cluster.assets;
        let mut rules = String::new();
        for (source, mirrors) in &assets.pull.mirrors {
            rules.push_str(&format!(
                "[[registry]]\n  prefix = \"\"\n  location = \"{source}\"\n  mirror-by-digest-only = true\n\n"
            ));
            for mirror in mirrors {
                rules.push_str(&format!("  [[registry.mirror]]\n    location = \"{mirror}\"\n\n"));
            }
        }
        fs.write("/etc/containers/registries.conf", rules.as_bytes())?;
        fs.write("/root/.docker/config.json", assets.pull.pull_secret.as_bytes())?;
        fs.set_mode("/root/.docker/config.json", 0o600)?;
        fs.write("/etc/pki/ca-trust/source/anchors/ca.crt", assets.pull.trust.as_bytes())?;
        for name in ["kubeconfig", "kubeconfig-loopback", "kubeconfig-kubelet"] {
            fs.write(&format!("/opt/openshift/auth/{name}"), assets.kubeconfig.as_bytes())?;
        }
        fs.write(
            "/etc/hostname",
            format!("{}\n", self.cluster.node("bootstrap").map_or("localhost", |node| &node.node)).as_bytes(),
        )?;
        fs.mkdir_p("/etc/kubernetes/manifests")?;
        fs.mkdir_p("/var/log/openshift")?;
        Ok(())
    }

    async fn boot(&self) {
        if self.has(".booted") {
            return;
        }
        self.pen.kernel("Linux version 5.14.0-427.61.1.el9_4.x86_64 (mockbuild@x86-64-03.build.eng.rdu2.redhat.com)");
        self.pen.line("systemd-journald", "systemd-journald", "Journal started");
        self.sleep(6).await;
        if self.minor >= 19 {
            let os = self.scene.payload.component("rhel-coreos").map(Payload::pull_spec).unwrap_or_default();
            let pull = |text: String| self.pen.line("node-image-pull", "node-image-pull.sh", text);
            pull("Currently on CoreOS version 9.6.20250312-0".into());
            pull(format!("Target node image is {os}"));
            pull("Not in live environment".into());
            loop {
                pull(format!("Pulling {os}"));
                match self.cluster.assets.pull.pull(&self.pen.machine, &os).await {
                    Ok(()) => break,
                    Err(why) => {
                        self.sleep(30).await;
                        pull(format!("error: {why}"));
                        pull("Failed to fetch release image; retrying...".into());
                        self.sleep(10).await;
                    }
                }
            }
            self.sleep(20).await;
            pull("Checking out node image content".into());
            self.sleep(10).await;
            self.pen.line("node-image-overlay", "node-image-overlay.sh", "Overlaying node image content");
            self.pen.line("node-image-overlay", "node-image-overlay.sh", "Reloading SELinux policy");
            let done = "Node image overlay complete; switching back to multi-user.target";
            self.pen.line("node-image-finish", "echo", done);
        }
        self.touch(".booted");
    }

    async fn release_image(&self) {
        const SERVICE: &str = "release-image";
        const DOWNLOAD: &str = "release-image-download.sh";
        const PULLED: &str = ".release-image.pulled";
        if self.has(".release-image.done") {
            return;
        }
        let image = &self.cluster.assets.release;
        let mut records = Records::open(self.pen.machine.clone(), SERVICE);
        self.pen.systemd(SERVICE, "Starting Download the OpenShift Release Image...");
        records.service_start();
        if !self.has(PULLED) {
            self.pen.line(SERVICE, DOWNLOAD, format!("Pulling {image}..."));
        }
        while !self.has(PULLED) {
            records.stage_start("pull-release-image");
            match self.cluster.assets.pull.pull(&self.pen.machine, image).await {
                Ok(()) => {
                    self.sleep(12).await;
                    records.stage_end("pull-release-image", Ok(()));
                    self.touch(PULLED);
                    let id = super::payload::digest(image.as_bytes());
                    self.pen.line(SERVICE, DOWNLOAD, id.trim_start_matches("sha256:"));
                }
                Err(why) => {
                    // quay.io is a black hole here: the dial takes its time.
                    self.sleep(30).await;
                    let why = format!("Error: {why}");
                    self.pen.line(SERVICE, DOWNLOAD, &why);
                    records.stage_end("pull-release-image", Err(&why));
                    self.pen.line(SERVICE, DOWNLOAD, format!("Pull failed. Retrying {image}..."));
                }
            }
        }
        records.stage_start("image-metadata-arches-match");
        records.stage_end("image-metadata-arches-match", Ok(()));
        records.service_end(Ok(()));
        self.pen.systemd(SERVICE, "Finished Download the OpenShift Release Image.");
        self.touch(".release-image.done");
    }

    async fn container_runtime(&self) {
        if self.has(".crio.done") {
            return;
        }
        let mut records = Records::open(self.pen.machine.clone(), "crio-configure");
        self.pen.systemd("crio-configure", "Starting Configure CRI-O to use the pause image...");
        records.service_start();
        self.sleep(4).await;
        records.service_end(Ok(()));
        self.pen.systemd("crio-configure", "Finished Configure CRI-O to use the pause image.");
        self.pen.systemd("crio", "Starting Container Runtime Interface for OCI (CRI-O)...");
        self.pen.numbered("crio", "crio", "time=\"2025-03-01 10:04:11Z\" level=info msg=\"Starting CRI-O, version: 1.31.6-2.rhaos4.18.git6bae3ab.el9\"");
        self.pen.systemd("crio", "Started Container Runtime Interface for OCI (CRI-O).");
        let mut records = Records::open(self.pen.machine.clone(), "kubelet");
        records.pre_command("pre-command start", "kubelet-pause-image");
        records.pre_command("pre-command end", "kubelet-pause-image");
        records.service_start();
        self.pen.systemd("kubelet", "Starting Kubernetes Kubelet...");
        self.sleep(3).await;
        self.pen.systemd("kubelet", "Started Kubernetes Kubelet.");
        self.touch(".crio.done");
    }

    /// The loudest unit; its lines are numbered.
    async fn kubelet(&self) {
        let texts = [
            "kubelet.go:2407] \"SyncLoop (PLEG): event for pod\" pod=\"kube-system/bootstrap-kube-apiserver\"",
            "kubelet_getters.go:187] \"Pod status updated\" pod=\"openshift-etcd/etcd-bootstrap-member\" status=\"Running\"",
            "prober.go:107] \"Probe failed\" probeType=\"Startup\" pod=\"kube-system/bootstrap-kube-scheduler\" probeResult=\"failure\"",
            "kubelet.go:2498] \"SyncLoop (probe)\" probe=\"readiness\" status=\"\" pod=\"kube-system/bootstrap-kube-apiserver\"",
        ];
        for round in 0_usize.. {
            self.sleep(3).await;
            let Some(text) = texts.get(round % texts.len()) else { continue };
            self.pen.numbered("kubelet", "kubelet.sh", &format!("I0301 10:05:{:02}.118362    2279 {text}", round % 60));
            if round % 5 == 0 {
                let line = "time=\"2025-03-01 10:05:12Z\" level=info msg=\"Checking image status: pause\" id=5c1d";
                self.pen.numbered("crio", "crio", line);
            }
        }
    }

    async fn approve_csr(&self) {
        const SERVICE: &str = "approve-csr";
        if self.has(".approve-csr.done") {
            return;
        }
        let mut records = Records::open(self.pen.machine.clone(), SERVICE);
        records.service_start();
        self.pen.line(SERVICE, "approve-csr.sh", "Approving all CSR requests until bootstrapping is complete...");
        while !self.has(".bootkube.done") {
            self.sleep(20).await;
            if self.cluster.marks().api {
                for name in super::control_plane::approve_pending(&self.scene.kube) {
                    let line = format!("certificatesigningrequest.certificates.k8s.io/{name} approved");
                    self.pen.line(SERVICE, "approve-csr.sh", line);
                }
            }
        }
        records.service_end(Ok(()));
        self.pen.systemd(SERVICE, "approve-csr.service: Deactivated successfully.");
        self.touch(".approve-csr.done");
    }

    async fn progress(&self) {
        const SERVICE: &str = "progress";
        const REPORT: &str = "report-progress.sh";
        if self.cluster.marks().complete {
            return;
        }
        let mut records = Records::open(self.pen.machine.clone(), SERVICE);
        records.service_start();
        records.stage_start("wait-for-bootstrap-complete");
        self.pen.line(SERVICE, REPORT, "Waiting for bootstrap to complete...");
        records.stage_end("wait-for-bootstrap-complete", Ok(()));
        let masters: Vec<_> = self.cluster.masters().map(|node| node.node.clone()).collect();
        if self.minor >= 16 && masters.len() > 1 {
            self.pen.line(
                SERVICE,
                REPORT,
                "Waiting for at least 3 available IP addresses for the default/kubernetes service",
            );
            for ready in 1..=2 {
                self.sleep(5).await;
                let names = masters.iter().take(ready).cloned().collect::<Vec<_>>().join(" ");
                self.pen.line(SERVICE, REPORT, format!("Got the following nodes with revision rolled out: {names}"));
            }
            self.pen.line(SERVICE, REPORT, "Got at least 2 nodes with successful revision rolled out");
        } else {
            let line = "topology is not HighlyAvailable, no need to wait for API availability";
            self.pen.line(SERVICE, REPORT, line);
        }
        records.stage_start("report-bootstrap-complete");
        self.pen.line(SERVICE, REPORT, "Reporting install progress...");
        self.sleep(2).await;
        super::control_plane::bootstrap_complete(&self.scene.kube);
        self.pen.line(SERVICE, REPORT, "configmap/bootstrap created");
        records.stage_end("report-bootstrap-complete", Ok(()));
        records.service_end(Ok(()));
        self.cluster.mark(|marks| marks.complete = true);
        self.scene.happens(&Moment::BootstrapComplete).await;
    }
}
