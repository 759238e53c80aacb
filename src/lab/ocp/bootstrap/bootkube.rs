//! bootkube.sh: its stages in their order, with what each prints.

use super::super::breakage::GIVEN_UP;
use super::super::cluster::Scene;
use super::super::journal::Records;
use super::super::payload::{COMPONENT_REPOSITORY, Payload};
use super::super::scenario::Moment;
use super::Node;

/// A stage of bootkube.sh that renders something in containers.
pub(super) struct Render {
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

/// A command of a script failed; the script ends with this status.
pub(super) struct Died {
    pub status: i32,
    pub message: String,
}

impl Node {
    /// bootkube.service: the script, started again five seconds after it died.
    pub(super) async fn bootkube(&self) {
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
                    if Scene::take_mark(&self.pen.machine, GIVEN_UP) {
                        self.pen.systemd(UNIT, "bootkube.service: Start request repeated too quickly.");
                        self.pen.systemd(UNIT, "bootkube.service: Failed with result 'start-limit-hit'.");
                        self.pen.systemd(UNIT, "Failed to start Bootstrap a Kubernetes cluster.");
                        self.pen.machine.fail_unit("bootkube.service").cancelled().await;
                        restarts = 0;
                        continue;
                    }
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

    pub(super) async fn script(&self, records: &mut Records) -> Result<(), Died> {
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
                if self.pen.machine.fs().exists(GIVEN_UP) {
                    let message = "/usr/local/bin/bootkube.sh: fork: Cannot allocate memory".to_owned();
                    records.stage_end(render.stage, Err(&message));
                    self.pen.line(UNIT, SCRIPT, &message);
                    return Err(Died { status: 1, message });
                }
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
    pub(super) async fn stage<'a, F: Future<Output = Result<(), Died>>>(
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

    pub(super) async fn render(&self, render: &Render) -> Result<(), Died> {
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
    pub(super) async fn pull(&self, name: &str) -> Result<(), Died> {
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
        match self.cluster.assets.pull.pull(&self.pen.machine, &spec).await {
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

    pub(super) async fn need(&self, image: &str, records: &mut Records, stage: &str) -> Result<(), Died> {
        self.pull(image).await.inspect_err(|died| records.stage_end(stage, Err(&died.message)))
    }

    pub(super) async fn url(
        &self,
        records: &mut Records,
        stage: &str,
        marker: &str,
        what: &str,
        host: &str,
        dns: bool,
    ) {
        if self.has(marker) {
            return;
        }
        let kind = if host == "api" { "API_URL" } else { "API_INT_URL" };
        let host = format!("{host}.{}", self.cluster.assets.domain);
        let say = |text: String| self.pen.line(UNIT, SCRIPT, text);
        // What the cloud could not be asked for is taken to be in order.
        let trouble = match dns {
            true => self.scene.lookup(&self.cluster, &host).await.is_ok_and(|address| address.is_none()),
            false => self.scene.in_the_way(&self.cluster, &host, 6443).await.is_ok_and(|why| why.is_some()),
        };
        records.stage_start(stage);
        let told = if dns {
            say(format!("Check if {what} URL is resolvable during bootstrap"));
            say(format!("Checking if {host} of type {kind} is resolvable"));
            say(format!("Starting stage {stage}"));
            self.sleep(2).await;
            match trouble {
                true => format!("Unable to resolve {kind} {host}"),
                false => format!("Successfully resolved {kind} {host}"),
            }
        } else {
            say(format!("Check if {what} URL is reachable during bootstrap"));
            say(format!("Checking if {host} of type {kind} reachable"));
            self.sleep(3).await;
            let path = if self.minor >= 20 { "readyz" } else { "version" };
            let url = format!("https://{host}:6443/{path}");
            match trouble {
                true => format!("Unable to reach {kind}'s https endpoint at {url}"),
                false => format!("Success while trying to reach {kind}'s https endpoint at {url}"),
            }
        };
        say(told.clone());
        if trouble {
            // The script goes on, and checks again when it starts again.
            records.stage_end(stage, Err(&told));
        } else {
            self.touch(marker);
            records.stage_end(stage, Ok(()));
        }
    }

    pub(super) async fn cloud_credentials(&self) -> Result<(), Died> {
        self.pull("cloud-credential-operator").await?;
        self.pen.numbered_container(
            "cco-render",
            "time=\"2025-03-01T10:08:03Z\" level=info msg=\"Rendering files to /assets/cco-bootstrap\"",
        );
        self.sleep(6).await;
        Ok(())
    }

    pub(super) async fn overrides(&self) -> Result<(), Died> {
        self.sleep(3).await;
        self.pen.line(UNIT, SCRIPT, "clusterversion.config.openshift.io/version patched");
        Ok(())
    }
}
