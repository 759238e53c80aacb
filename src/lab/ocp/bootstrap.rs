//! The life of the bootstrap machine: its units in their order, the stages of bootkube.sh with what each prints, the
//! service records, and the loops in which things are tried again. From openshift/installer `data/data/bootstrap`.

use std::sync::Arc;

use super::OcpError;
use super::cluster::{Cluster, Scene};
use super::journal::{Pen, Records};
use super::payload::{COMPONENT_REPOSITORY, Payload};
use super::scenario::Moment;

/// A stage of bootkube.sh that renders something in containers.
struct Render {
    stage: &'static str,
    says: &'static str,
    images: &'static [&'static str],
    container: &'static str,
    /// First minor version that has it.
    since: u32,
}

const fn render(
    stage: &'static str,
    says: &'static str,
    images: &'static [&'static str],
    container: &'static str,
    since: u32,
) -> Render {
    Render { stage, says, images, container, since }
}

/// In the order of 4.15 and later. `release` is the release image itself.
const RENDERS: &[Render] = &[
    render("openshift-manifests", "Moving OpenShift manifests in with the rest of them", &[], "", 0),
    render("api-bootstrap", "Rendering api manifests...", &["cluster-config-api"], "api-render", 15),
    render(
        "auth-api-bootstrap",
        "Rendering auth api manifests...",
        &["cluster-authentication-operator"],
        "auth-api-render",
        19,
    ),
    render(
        "config-bootstrap",
        "Rendering cluster config manifests...",
        &["cluster-config-operator"],
        "config-render",
        0,
    ),
    render("cvo-bootstrap", "Rendering Cluster Version Operator Manifests...", &["release"], "cvo-render", 0),
    render("etcd-bootstrap", "Rendering CEO Manifests...", &["cluster-etcd-operator", "etcd"], "etcd-render", 0),
    render(
        "kube-apiserver-bootstrap",
        "Rendering Kubernetes API server core manifests...",
        &["cluster-kube-apiserver-operator", "hyperkube"],
        "kube-apiserver-render",
        0,
    ),
    render(
        "kube-controller-manager-bootstrap",
        "Rendering Kubernetes Controller Manager core manifests...",
        &["cluster-kube-controller-manager-operator", "hyperkube", "cluster-policy-controller"],
        "kube-controller-render",
        0,
    ),
    render(
        "kube-scheduler-bootstrap",
        "Rendering Kubernetes Scheduler core manifests...",
        &["cluster-kube-scheduler-operator", "hyperkube"],
        "kube-scheduler-render",
        0,
    ),
    render(
        "ingress-operator-bootstrap",
        "Rendering Ingress Operator core manifests...",
        &["cluster-ingress-operator"],
        "ingress-render",
        0,
    ),
    render(
        "node-tuning-bootstrap",
        "Rendering Node Tuning core manifests...",
        &["cluster-node-tuning-operator"],
        "node-tuning-render",
        13,
    ),
    render("mco-bootstrap", "Rendering MCO manifests...", &["machine-config-operator", "pod"], "mco-render", 0),
];

const UNIT: &str = "bootkube";
const SCRIPT: &str = "bootkube.sh";
const PODS: &[&str] = &[
    "openshift-cluster-version/cluster-version-operator",
    "openshift-kube-apiserver/kube-apiserver",
    "openshift-kube-scheduler/openshift-kube-scheduler",
    "openshift-kube-controller-manager/kube-controller-manager",
];

/// A command of a script failed; the script ends with this status.
struct Died {
    status: i32,
    message: String,
}

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
    }
    let machine = scene.boot(&cluster, &plan).await?;
    let minor = cluster.assets.version.split('.').nth(1).and_then(|text| text.parse().ok()).unwrap_or(18);
    let node = Node { pen: Pen::new(machine, minor <= 20), scene, cluster, minor };
    node.files()?;
    node.boot().await;
    node.release_image().await;
    node.container_runtime().await;
    // Both follow bootkube and go on after it.
    tokio::join!(node.kubelet(), node.approve_csr(), async {
        node.bootkube().await;
        node.progress().await;
    });
    Ok(())
}

impl Node {
    async fn sleep(&self, seconds: u64) {
        self.scene.sleep(seconds).await;
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
                match self.cluster.assets.pull.pull(&self.scene.machines, &os).await {
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
        if self.has(".release-image.done") {
            return;
        }
        let image = &self.cluster.assets.release;
        let mut records = Records::open(self.pen.machine.clone(), SERVICE);
        self.pen.systemd(SERVICE, "Starting Download the OpenShift Release Image...");
        records.service_start();
        self.pen.line(SERVICE, DOWNLOAD, format!("Pulling {image}..."));
        loop {
            records.stage_start("pull-release-image");
            match self.cluster.assets.pull.pull(&self.scene.machines, image).await {
                Ok(()) => break,
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
        self.sleep(12).await;
        records.stage_end("pull-release-image", Ok(()));
        self.pen.line(SERVICE, DOWNLOAD, super::payload::digest(image.as_bytes()).trim_start_matches("sha256:"));
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

    /// bootkube.service: the script, started again five seconds after it died.
    async fn bootkube(&self) {
        let mut records = Records::open(self.pen.machine.clone(), UNIT);
        let mut restarts = 0_u32;
        while !self.has(".bootkube.done") {
            if restarts == 0 {
                self.pen.systemd(UNIT, "Started Bootstrap a Kubernetes cluster.");
            }
            records.service_start();
            match self.script(&mut records).await {
                Ok(()) => {
                    self.touch(".bootkube.done");
                    self.pen.line(UNIT, SCRIPT, "bootkube.service complete");
                    records.service_end(Ok(()));
                    self.pen.systemd(UNIT, "bootkube.service: Deactivated successfully.");
                    self.pen.systemd(UNIT, "bootkube.service: Consumed 41.206s CPU time.");
                    self.cluster.mark(|marks| marks.bootkube = true);
                }
                Err(died) => {
                    records.service_end(Err(&died.message));
                    let code = died.status;
                    let meaning = if code == 1 { "FAILURE" } else { "n/a" };
                    self.pen.systemd(
                        UNIT,
                        format!("bootkube.service: Main process exited, code=exited, status={code}/{meaning}"),
                    );
                    self.pen.systemd(UNIT, "bootkube.service: Failed with result 'exit-code'.");
                    self.sleep(5).await;
                    restarts += 1;
                    self.pen.systemd(
                        UNIT,
                        format!("bootkube.service: Scheduled restart job, restart counter is at {restarts}."),
                    );
                    self.pen.systemd(UNIT, "Stopped Bootstrap a Kubernetes cluster.");
                    self.pen.systemd(UNIT, "Started Bootstrap a Kubernetes cluster.");
                }
            }
        }
    }

    async fn script(&self, records: &mut Records) -> Result<(), Died> {
        for _ in 0..3 {
            self.pen.podman("create", &self.cluster.assets.release, "hopeful_bhabha");
            self.pen.podman("died", &self.cluster.assets.release, "hopeful_bhabha");
            self.sleep(2).await;
        }
        for render in RENDERS.iter().filter(|render| self.minor >= render.since) {
            if self.has(&format!("{}.done", render.stage)) {
                continue;
            }
            records.stage_start(render.stage);
            self.pen.line(UNIT, SCRIPT, render.says);
            if render.stage == "etcd-bootstrap" {
                self.scene.happens(&Moment::EtcdBootstrap).await;
            }
            if let Err(died) = self.render(render).await {
                records.stage_end(render.stage, Err(&died.message));
                return Err(died);
            }
            self.touch(&format!("{}.done", render.stage));
            records.stage_end(render.stage, Ok(()));
        }
        self.cluster.mark(|marks| marks.serves_ignition = true);
        self.url(records, "resolve-api-url", "api-dns-resolved.done", "API", "api", true).await;
        self.url(records, "resolve-api-int-url", "api-int-dns-resolved.done", "API-Int", "api-int", true).await;
        self.stage(records, "cco-bootstrap", "Rendering CCO manifests...", Self::cloud_credentials).await?;
        records.stage_start("wait-for-etcd");
        self.need("etcd", records, "wait-for-etcd").await?;
        self.sleep(8).await;
        self.pen.line(UNIT, SCRIPT, "etcdctl failed. Retrying in 5 seconds...");
        self.sleep(5).await;
        let health = "https://localhost:2379 is healthy: successfully committed proposal: took = 8.911ms";
        self.pen.container("etcdctl", health);
        records.stage_end("wait-for-etcd", Ok(()));
        self.stage(records, "cb-bootstrap", "Starting cluster-bootstrap...", Self::cluster_bootstrap).await?;
        self.stage(records, "cvo-overrides", "Restoring CVO overrides", Self::overrides).await?;
        records.stage_start("wait-for-ceo");
        self.pen.line(UNIT, SCRIPT, "Waiting for CEO to finish...");
        self.need("cluster-etcd-operator", records, "wait-for-ceo").await?;
        loop {
            let waiting = "I0301 10:15:22.403415       1 waitforceo.go:84] waiting on condition EtcdRunningInCluster in etcd CR /cluster to be True.";
            self.pen.container("wait-for-ceo", waiting);
            self.sleep(15).await;
            if self.cluster.marks().etcd {
                break;
            }
        }
        self.pen.container(
            "wait-for-ceo",
            "I0301 10:16:04.118362       1 waitforceo.go:64] Cluster etcd operator bootstrapped successfully",
        );
        self.pen.container(
            "wait-for-ceo",
            "I0301 10:16:04.118400       1 waitforceo.go:58] cluster-etcd-operator bootstrap etcd",
        );
        records.stage_end("wait-for-ceo", Ok(()));
        self.url(records, "check-api-url", "api-dns-check.done", "API", "api", false).await;
        self.url(records, "check-api-int-url", "api-int-dns-check.done", "API-Int", "api-int", false).await;
        Ok(())
    }

    /// A stage with a marker.
    async fn stage<'a, F: Future<Output = Result<(), Died>>>(
        &'a self,
        records: &mut Records,
        stage: &str,
        says: &str,
        work: impl FnOnce(&'a Self) -> F,
    ) -> Result<(), Died> {
        if self.has(&format!("{stage}.done")) {
            return Ok(());
        }
        records.stage_start(stage);
        self.pen.line(UNIT, SCRIPT, says);
        match work(self).await {
            Ok(()) => {
                self.touch(&format!("{stage}.done"));
                records.stage_end(stage, Ok(()));
                Ok(())
            }
            Err(died) => {
                records.stage_end(stage, Err(&died.message));
                Err(died)
            }
        }
    }

    async fn render(&self, render: &Render) -> Result<(), Died> {
        for image in render.images {
            self.pull(image).await?;
        }
        if let Some(image) = render.images.first().and_then(|name| self.scene.payload.component(name)) {
            let image = Payload::pull_spec(image);
            for verb in ["create", "init", "start", "attach"] {
                self.pen.podman(verb, &image, render.container);
            }
            for part in ["assets/tls/ca.crt", "manifests/00_namespace.yaml", "manifests/99_bindings.yaml"] {
                let line = format!(
                    "I0301 10:06:01.774215       1 render.go:98] Writing asset: /assets/{}/{part}",
                    render.container
                );
                self.pen.numbered_container(render.container, &line);
                self.sleep(3).await;
            }
            self.pen.podman("died", &image, render.container);
            self.pen.podman("remove", &image, render.container);
        } else {
            self.sleep(3).await;
        }
        Ok(())
    }

    /// `podman run --quiet` of an image of the release.
    async fn pull(&self, name: &str) -> Result<(), Died> {
        let Some(image) = self.scene.payload.component(name) else {
            let message = format!(
                "F0301 10:06:00.875723       1 image.go:32] error: error: Unknown name requested, could not find {name} in UpdatePayload"
            );
            self.pen.line(UNIT, SCRIPT, &message);
            return Err(Died { status: 1, message });
        };
        let spec = Payload::pull_spec(image);
        debug_assert!(name == "release" || spec.contains(COMPONENT_REPOSITORY));
        self.pen.line(UNIT, SCRIPT, format!("Trying to pull {spec}..."));
        match self.cluster.assets.pull.pull(&self.scene.machines, &spec).await {
            Ok(()) => {
                self.sleep(2).await;
                Ok(())
            }
            Err(why) => {
                self.sleep(30).await;
                let message = format!("Error: {why}");
                self.pen.line(UNIT, SCRIPT, &message);
                Err(Died { status: 125, message })
            }
        }
    }

    async fn need(&self, image: &str, records: &mut Records, stage: &str) -> Result<(), Died> {
        self.pull(image).await.inspect_err(|died| records.stage_end(stage, Err(&died.message)))
    }

    async fn url(&self, records: &mut Records, stage: &str, marker: &str, what: &str, host: &str, dns: bool) {
        if self.has(marker) {
            return;
        }
        let kind = if host == "api" { "API_URL" } else { "API_INT_URL" };
        let host = format!("{host}.{}", self.cluster.assets.domain);
        records.stage_start(stage);
        if dns {
            self.pen.line(UNIT, SCRIPT, format!("Check if {what} URL is resolvable during bootstrap"));
            self.pen.line(UNIT, SCRIPT, format!("Checking if {host} of type {kind} is resolvable"));
            self.pen.line(UNIT, SCRIPT, format!("Starting stage {stage}"));
            self.sleep(2).await;
            self.pen.line(UNIT, SCRIPT, format!("Successfully resolved {kind} {host}"));
        } else {
            self.pen.line(UNIT, SCRIPT, format!("Check if {what} URL is reachable during bootstrap"));
            self.pen.line(UNIT, SCRIPT, format!("Checking if {host} of type {kind} reachable"));
            self.sleep(3).await;
            let path = if self.minor >= 20 { "readyz" } else { "version" };
            let line = format!("Success while trying to reach {kind}'s https endpoint at https://{host}:6443/{path}");
            self.pen.line(UNIT, SCRIPT, line);
        }
        self.touch(marker);
        records.stage_end(stage, Ok(()));
    }

    async fn cloud_credentials(&self) -> Result<(), Died> {
        self.pull("cloud-credential-operator").await?;
        self.pen.numbered_container(
            "cco-render",
            "time=\"2025-03-01T10:08:03Z\" level=info msg=\"Rendering files to /assets/cco-bootstrap\"",
        );
        self.sleep(6).await;
        Ok(())
    }

    async fn overrides(&self) -> Result<(), Died> {
        self.sleep(3).await;
        self.pen.line(UNIT, SCRIPT, "clusterversion.config.openshift.io/version patched");
        Ok(())
    }

    /// What the cluster-bootstrap container prints (openshift/cluster-bootstrap `pkg/start`).
    async fn cluster_bootstrap(&self) -> Result<(), Died> {
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

    fn event(&self, name: &str) {
        super::control_plane::event(
            &self.scene.kube,
            "kube-system",
            name,
            "Required control plane pods have been created",
        );
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
