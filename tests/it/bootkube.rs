//! The journal of a bootstrap node as each release writes it, line by line as `journalctl -o json` prints it, with what a
//! person who knows the scripts would say after each line: which stage, in which state, and by which words.

use std::collections::BTreeMap;

use bartizan::model::entry::Entry;
use bartizan::model::event::{BootStage, Observed};
use bartizan::watch::bootkube::{Recogniser, stages};
use serde_json::json;

/// Stages with their state and evidence.
type Picture = BTreeMap<String, (BootStage, String)>;

const BOOTKUBE: &str = "bootkube";

/// A journal that is being written, and the picture after each of its lines.
struct Journal {
    minor: u32,
    lines: Vec<(String, Picture, u32)>,
    picture: Picture,
    /// The open stage of each unit.
    open: BTreeMap<&'static str, String>,
    restarts: u32,
}

impl Journal {
    fn new(minor: u32) -> Self {
        Self { minor, lines: Vec::new(), picture: Picture::new(), open: BTreeMap::new(), restarts: 0 }
    }

    fn write(&mut self, mut fields: serde_json::Value) {
        let at = 1_740_823_200_000_000_u64 + self.lines.len() as u64 * 750_000;
        fields["__CURSOR"] = json!(format!("s=a;i={:x}", self.lines.len() + 1));
        fields["__REALTIME_TIMESTAMP"] = json!(at.to_string());
        fields["_BOOT_ID"] = json!("b");
        fields["PRIORITY"] = json!("6");
        self.lines.push((fields.to_string(), self.picture.clone(), self.restarts));
    }

    /// A line that changes no stage.
    fn say(&mut self, unit: &str, text: &str) {
        let identifier = if unit == BOOTKUBE { "bootkube.sh" } else { unit };
        let service = format!("{unit}.service");
        self.write(
            json!({ "MESSAGE": text, "_PID": "2279", "_SYSTEMD_UNIT": service, "SYSLOG_IDENTIFIER": identifier }),
        );
    }

    /// What a container says: up to 4.20 podman writes it to the journal a second time.
    fn container(&mut self, name: &str, text: &str) {
        self.say(BOOTKUBE, text);
        if self.minor <= 20 {
            self.write(json!({
                "MESSAGE": text, "_PID": "2301", "_SYSTEMD_UNIT": "bootkube.service", "SYSLOG_IDENTIFIER": name,
                "CONTAINER_NAME": name,
            }));
        }
    }

    fn podman(&mut self, verb: &str, name: &str) {
        let text = format!("container {verb} 5c1d0a (image=quay.io/openshift-release-dev/x@sha256:1, name={name})");
        self.write(json!({
            "MESSAGE": text, "_PID": "2302", "_SYSTEMD_UNIT": "bootkube.service", "SYSLOG_IDENTIFIER": "podman",
        }));
    }

    /// systemd about a unit.
    fn systemd(&mut self, unit: &str, text: &str) {
        let service = format!("{unit}.service");
        self.write(json!({
            "MESSAGE": text, "_PID": "1", "_SYSTEMD_UNIT": "init.scope", "UNIT": service, "SYSLOG_IDENTIFIER": "systemd",
        }));
    }

    fn set(&mut self, stage: &str, state: BootStage, evidence: &str) {
        self.picture.insert(stage.to_owned(), (state, evidence.to_owned()));
    }

    /// `stage` begins with `line`, which ends what was open in its unit.
    fn begin(&mut self, unit: &'static str, stage: &str, line: &str) {
        self.opens(unit, stage, line);
        self.say(unit, line);
    }

    fn opens(&mut self, unit: &'static str, stage: &str, line: &str) {
        if let Some(before) = self.open.insert(unit, stage.to_owned()).filter(|before| before != stage)
            && let Some((state, words)) = self.picture.get_mut(&before)
            && matches!(state, BootStage::Running | BootStage::Failed)
        {
            (*state, *words) = (BootStage::Done, format!("next: {line}"));
        }
        self.set(stage, BootStage::Running, line);
    }

    /// A line of the open stage that is worth showing.
    fn step(&mut self, stage: &str, line: &str) {
        self.set(stage, BootStage::Running, line);
        self.say(BOOTKUBE, line);
    }

    fn ends(&mut self, unit: &'static str, stage: &str, state: BootStage, line: &str) {
        self.open.insert(unit, stage.to_owned());
        self.set(stage, state, line);
        self.say(unit, line);
    }

    /// What comes before bootkube.
    fn images(&mut self, attempts: usize) {
        if self.minor >= 19 {
            self.begin("node-image-pull", "node-image-pull", "Currently on CoreOS version 9.6.20250101-0");
            self.say("node-image-pull", "Target node image is quay.io/openshift/x@sha256:1");
            self.say("node-image-pull", "Not in live environment");
            for line in ["Pulling quay.io/openshift/x@sha256:1", "Checking out node image content"] {
                self.set("node-image-pull", BootStage::Running, line);
                self.say("node-image-pull", line);
            }
            let finished = "Finished Node Image Pull.";
            self.set("node-image-pull", BootStage::Done, finished);
            self.systemd("node-image-pull", finished);
            self.begin("node-image-overlay", "node-image-overlay", "Overlaying node image content");
            self.set("node-image-overlay", BootStage::Running, "Reloading SELinux policy");
            self.say("node-image-overlay", "Reloading SELinux policy");
            self.set("node-image-overlay", BootStage::Done, "Finished Node Image Overlay.");
            self.systemd("node-image-overlay", "Finished Node Image Overlay.");
            let over = "Node image overlay complete; switching back to multi-user.target";
            self.begin("node-image-finish", "node-image-finish", over);
            self.set("node-image-finish", BootStage::Done, "Finished Node Image Finish.");
            self.systemd("node-image-finish", "Finished Node Image Finish.");
        }
        let pull = "Pulling mirror.example.com:8443/ocp/release@sha256:2...";
        self.begin("release-image", "pull-release-image", pull);
        for attempt in 0..attempts {
            let error =
                "Error: initializing source docker://mirror.example.com:8443/ocp/release@sha256:2: x509: unknown";
            self.say("release-image", error);
            if attempt == 0 {
                self.set("pull-release-image", BootStage::Failed, error);
            }
            self.say("release-image", "Pull failed. Retrying mirror.example.com:8443/ocp/release@sha256:2...");
        }
        let finished = "Finished Download the OpenShift Release Image.";
        self.set("pull-release-image", BootStage::Done, finished);
        self.systemd("release-image", finished);
        self.systemd(BOOTKUBE, "Started Bootstrap a Kubernetes cluster.");
        let approving = "Approving all CSR requests until bootstrapping is complete...";
        self.begin("approve-csr", "approve-csr", approving);
        self.begin("progress", "wait-for-bootstrap-complete", "Waiting for bootstrap to complete...");
    }

    /// The stages that render, from the one called `from` on, up to but without `until`.
    fn renders(&mut self, from: &str, until: &str) {
        let minor = self.minor;
        let render = |stage: &'static str, what: &'static str, container: &'static str| (stage, what, container);
        let config = render("config-bootstrap", "Rendering cluster config manifests...", "config-render");
        let mut all = vec![render("openshift-manifests", "Moving OpenShift manifests in with the rest of them", "")];
        if minor >= 15 {
            all.push(render("api-bootstrap", "Rendering api manifests...", "api-render"));
        }
        if minor >= 19 {
            all.push(render("auth-api-bootstrap", "Rendering auth api manifests...", "auth-api-render"));
        }
        if minor >= 15 {
            all.push(config);
        }
        all.push(render("cvo-bootstrap", "Rendering Cluster Version Operator Manifests...", "cvo-render"));
        all.push(render("etcd-bootstrap", "Rendering CEO Manifests...", "etcd-render"));
        if minor < 15 {
            all.push(config);
        }
        all.extend([
            render(
                "kube-apiserver-bootstrap",
                "Rendering Kubernetes API server core manifests...",
                "kube-apiserver-render",
            ),
            render(
                "kube-controller-manager-bootstrap",
                "Rendering Kubernetes Controller Manager core manifests...",
                "kube-controller-render",
            ),
            render(
                "kube-scheduler-bootstrap",
                "Rendering Kubernetes Scheduler core manifests...",
                "kube-scheduler-render",
            ),
            render("ingress-operator-bootstrap", "Rendering Ingress Operator core manifests...", "ingress-render"),
        ]);
        if minor >= 13 {
            all.push(render("node-tuning-bootstrap", "Rendering Node Tuning core manifests...", "node-tuning-render"));
        }
        all.push(render("mco-bootstrap", "Rendering MCO manifests...", "mco-render"));
        let place = |name: &str| all.iter().position(|(stage, ..)| *stage == name).unwrap_or(all.len());
        for (stage, line, container) in all.get(place(from)..place(until)).unwrap_or_default() {
            self.begin(BOOTKUBE, stage, line);
            if !container.is_empty() {
                self.podman("create", container);
                self.container(
                    container,
                    "I0301 10:06:01.774215       1 render.go:98] Writing asset: /assets/tls/ca.crt",
                );
                self.podman("died", container);
            }
        }
    }

    /// The checks of the two names; `int` says whether api-int resolves.
    fn names(&mut self, int: bool) {
        for (stage, kind, host, good) in
            [("api", "API_URL", "api.c1.example.com", true), ("api-int", "API_INT_URL", "api-int.c1.example.com", int)]
        {
            let answer = match good {
                true => format!("Successfully resolved {kind} {host}"),
                false => format!("Unable to resolve {kind} {host}"),
            };
            let state = if good { BootStage::Done } else { BootStage::Warned };
            if self.minor == 12 {
                let stage = format!("check-{stage}-url");
                self.begin(BOOTKUBE, &stage, &format!("Checking validity of {host} of type {kind}"));
                self.ends(BOOTKUBE, &stage, state, &answer);
                continue;
            }
            let name = format!("resolve-{stage}-url");
            let what = if stage == "api" { "API" } else { "API-Int" };
            let checking = format!("Checking if {host} of type {kind} is resolvable");
            match (self.minor, stage) {
                (13..=15, "api") => {
                    self.begin(BOOTKUBE, &name, "Check if API and API-Int URLs are resolvable during bootstrap");
                    self.say(BOOTKUBE, &checking);
                }
                (13..=15, _) => self.begin(BOOTKUBE, &name, &checking),
                _ => {
                    self.begin(BOOTKUBE, &name, &format!("Check if {what} URL is resolvable during bootstrap"));
                    self.say(BOOTKUBE, &checking);
                }
            }
            self.say(BOOTKUBE, &format!("Starting stage {name}"));
            self.ends(BOOTKUBE, &name, state, &answer);
        }
    }

    /// Whether etcd was waited for shows only when the first question failed.
    fn etcd(&mut self, waits: bool) {
        self.begin(BOOTKUBE, "cco-bootstrap", "Rendering CCO manifests...");
        if waits {
            self.begin(BOOTKUBE, "wait-for-etcd", "etcdctl failed. Retrying in 5 seconds...");
            self.container(
                "etcdctl",
                "https://localhost:2379 is healthy: successfully committed proposal: took = 8.9ms",
            );
        }
    }

    fn starts_cluster_bootstrap(&mut self) {
        let line = "Starting cluster-bootstrap...";
        self.opens(BOOTKUBE, "cb-bootstrap", line);
        if !self.picture.contains_key("wait-for-etcd") {
            self.set("wait-for-etcd", BootStage::Done, &format!("next: {line}"));
        }
        self.say(BOOTKUBE, line);
        for line in ["Starting temporary bootstrap control plane...", "Waiting up to 20m0s for the Kubernetes API"] {
            self.step("cb-bootstrap", line);
        }
    }

    /// What cluster-bootstrap prints until its pods run.
    fn pods(&mut self) {
        let stage = "cb-bootstrap";
        self.starts_cluster_bootstrap();
        self.step(stage, r#"Still waiting for the Kubernetes API: Get "https://localhost:6443/readyz": EOF"#);
        self.step(stage, "API is up");
        self.say(BOOTKUBE, r#"Created "0000_00_namespace.yaml" namespaces.v1./openshift-cluster-version -n "#);
        self.say(BOOTKUBE, "[#3] failed to create some manifests:");
        self.say(BOOTKUBE, r#""99_x.yaml": unable to get REST mapping for "99_x.yaml": no matches for kind "X""#);
        let pods = ["cluster-version-operator", "kube-apiserver", "kube-controller-manager"];
        for (count, pod) in pods.iter().enumerate() {
            let (known, mine): (Vec<_>, _) = (pods.iter().take(count).collect(), format!("{pod} Pending"));
            let mut states: Vec<String> = known.iter().map(|pod| format!("{pod} Pending")).collect();
            states.push(mine);
            self.set(stage, BootStage::Running, &format!("Pod Status: {}", states.join(", ")));
            self.say(BOOTKUBE, &format!("\tPod Status:openshift-x/{pod:<12}\tPending"));
        }
        let words =
            "Pod Status: cluster-version-operator Pending, kube-apiserver Ready, kube-controller-manager Pending";
        self.set(stage, BootStage::Running, words);
        self.container("cluster-bootstrap", "\tPod Status:openshift-x/kube-apiserver\tReady");
    }

    /// From the pods to the end, with lines that have no end of their own glued to the next.
    fn finishes(&mut self) {
        let stage = "cb-bootstrap";
        self.step(stage, "All self-hosted control plane components successfully started");
        if self.minor >= 18 {
            self.step(stage, "Waiting for self hosted control plane to be available");
            self.step(
                stage,
                "polling will continue, last status: kubeapiservers/cluster NodeStatuses:  [a at Current: 0, Traget: 5]",
            );
            self.step(stage, "Waiting 30s to give load-balancers time to observe the self-hosted control-plane");
            self.step(stage, "Sending bootstrap-success event.Waiting for remaining assets to be created.");
        } else {
            self.step(
                stage,
                "Waiting for 2 masters to joinSending bootstrap-success event.Waiting for remaining assets to be created.",
            );
        }
        self.begin(
            BOOTKUBE,
            "cvo-overrides",
            "Sending bootstrap-finished event.Tearing down temporary bootstrap control plane...Restoring CVO overrides",
        );
        self.begin(BOOTKUBE, "wait-for-ceo", "Waiting for CEO to finish...");
        let klog = "I0301 10:15:22.403415       1 waitforceo.go:84] ";
        self.set(
            "wait-for-ceo",
            BootStage::Running,
            &format!("{klog}waiting on condition EtcdRunningInCluster in etcd CR /cluster to be True."),
        );
        self.container(
            "wait-for-ceo",
            &format!("{klog}waiting on condition EtcdRunningInCluster in etcd CR /cluster to be True."),
        );
        let done = format!("{klog}Cluster etcd operator bootstrapped successfully");
        self.set("wait-for-ceo", BootStage::Done, &done);
        self.container("wait-for-ceo", &done);
        if self.minor >= 13 {
            let path = if self.minor >= 20 { "readyz" } else { "version" };
            for (stage, kind, what, host) in
                [("api", "API_URL", "API", "api"), ("api-int", "API_INT_URL", "API-Int", "api-int")]
            {
                let name = format!("check-{stage}-url");
                let checking = format!("Checking if {host}.c1.example.com of type {kind} reachable");
                match (self.minor, stage) {
                    (13..=15, "api") => {
                        self.begin(BOOTKUBE, &name, "Check if API and API-Int URLs are reachable during bootstrap");
                        self.say(BOOTKUBE, &checking);
                    }
                    (13..=15, _) => self.begin(BOOTKUBE, &name, &checking),
                    _ => {
                        self.begin(BOOTKUBE, &name, &format!("Check if {what} URL is reachable during bootstrap"));
                        self.say(BOOTKUBE, &checking);
                    }
                }
                let url = format!("https://{host}.c1.example.com:6443/{path}");
                let answer = format!("Success while trying to reach {kind}'s https endpoint at {url}");
                self.ends(BOOTKUBE, &name, BootStage::Done, &answer);
            }
        }
        self.ends(BOOTKUBE, "bootkube-complete", BootStage::Done, "bootkube.service complete");
        if self.minor >= 16 {
            let waits = "Waiting for at least 3 available IP addresses for the default/kubernetes service";
            self.begin("progress", "wait-for-ha-api", waits);
            let nodes = "Got the following nodes with revision rolled out: a";
            self.set("wait-for-ha-api", BootStage::Running, nodes);
            self.say("progress", nodes);
            let enough = "Got at least 2 nodes with successful revision rolled out";
            self.ends("progress", "wait-for-ha-api", BootStage::Done, enough);
        }
        self.begin("progress", "report-bootstrap-complete", "Reporting install progress...");
        self.ends("progress", "report-bootstrap-complete", BootStage::Done, "configmap/bootstrap created");
        let over = "approve-csr.service: Deactivated successfully.";
        self.set("approve-csr", BootStage::Done, over);
        self.systemd("approve-csr", over);
    }

    /// The open stage of bootkube ends the script with `error`; systemd starts it again.
    fn dies(&mut self, error: &str, status: &str) {
        if !error.is_empty() {
            self.say(BOOTKUBE, error);
        }
        let exited = format!("bootkube.service: Main process exited, code=exited, status={status}");
        if let Some((state, words)) = self.open.get(BOOTKUBE).and_then(|stage| self.picture.get_mut(stage))
            && *state == BootStage::Running
        {
            (*state, *words) = (BootStage::Failed, if error.is_empty() { exited.clone() } else { error.to_owned() });
        }
        self.systemd(BOOTKUBE, &exited);
        self.systemd(BOOTKUBE, "bootkube.service: Failed with result 'exit-code'.");
        self.restarts += 1;
        let restart = format!("bootkube.service: Scheduled restart job, restart counter is at {}.", self.restarts);
        self.systemd(BOOTKUBE, &restart);
        self.systemd(BOOTKUBE, "Started Bootstrap a Kubernetes cluster.");
    }

    /// Hold the recogniser against the picture after every line.
    fn check(self, what: &str) {
        let version = format!("4.{}.7", self.minor);
        let mut recogniser = Recogniser::new(&version);
        let (mut seen, mut restarts) = (Picture::new(), 0);
        for (number, (line, picture, restarted)) in self.lines.iter().enumerate() {
            let entry = Entry::parse(line.as_bytes()).unwrap();
            if entry.is_duplicate() {
                continue;
            }
            for change in recogniser.feed(&entry.into_line()) {
                match change {
                    Observed::Bootkube { stage, state, evidence, .. } => {
                        seen.insert(stage, (state, evidence));
                    }
                    Observed::Unit { unit, restarts: count, .. } if unit == BOOTKUBE => restarts = count,
                    _ => {}
                }
            }
            let wanted: Vec<_> = picture.iter().filter(|(stage, now)| seen.get(*stage) != Some(now)).collect();
            let wrong: Vec<_> = seen.iter().filter(|(stage, now)| picture.get(*stage) != Some(now)).collect();
            assert!(
                wanted.is_empty() && wrong.is_empty(),
                "{what} of {version}, line {}: {line}\nshould be {wanted:#?}\nis {wrong:#?}",
                number + 1
            );
            assert_eq!(restarts, *restarted, "{what} of {version}, line {}: {line}", number + 1);
        }
        let silent = "image-metadata-arches-match";
        for (_, stage) in stages(&version).into_iter().filter(|(_, stage)| *stage != silent) {
            let (state, words) = &seen[stage];
            assert!(matches!(state, BootStage::Done | BootStage::Warned), "{what} of {version}: {stage} {words}");
        }
    }
}

const MINORS: [u32; 5] = [12, 15, 18, 20, 21];

#[test]
fn all_goes_well() {
    for minor in MINORS {
        let mut journal = Journal::new(minor);
        journal.images(0);
        journal.renders("openshift-manifests", "");
        journal.names(true);
        journal.etcd(false);
        journal.pods();
        journal.finishes();
        journal.check("a clean run");
    }
}

#[test]
fn an_image_is_missing_for_a_while_and_api_int_does_not_resolve() {
    for minor in MINORS {
        let mut journal = Journal::new(minor);
        journal.images(3);
        journal.renders("openshift-manifests", "etcd-bootstrap");
        // Finished stages have their markers: the script comes back to the one that failed.
        for _ in 0..4 {
            journal.renders("etcd-bootstrap", if minor < 15 { "config-bootstrap" } else { "kube-apiserver-bootstrap" });
            let error =
                "Error: initializing source docker://quay.io/x@sha256:1: (Mirrors also failed: [m: manifest unknown])";
            journal.dies(error, "125/n/a");
        }
        journal.renders("etcd-bootstrap", "");
        journal.names(false);
        journal.etcd(true);
        journal.pods();
        journal.finishes();
        journal.check("a crash loop");
    }
}

#[test]
fn cluster_bootstrap_gives_up_once() {
    for minor in MINORS {
        let mut journal = Journal::new(minor);
        journal.images(0);
        journal.renders("openshift-manifests", "");
        journal.names(true);
        journal.etcd(true);
        journal.pods();
        let gave_up = "Error: error while checking pod status: context deadline exceeded";
        journal.ends(BOOTKUBE, "cb-bootstrap", BootStage::Failed, gave_up);
        journal.say(BOOTKUBE, "Tearing down temporary bootstrap control plane...");
        journal.say(BOOTKUBE, "Using /opt/openshift/auth/kubeconfig as KUBECONFIG");
        journal.dies("", "1/FAILURE");
        journal.pods();
        journal.finishes();
        journal.check("pods that were late");
    }
}
