//! Runs made by folding events, as a recorder would have written them.

#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests and the bench; neither needs all of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bartizan::model::event::*;
use bartizan::model::plan::{Plan, StageId, StagePlan, StepId, StepPlan};
use bartizan::model::{RunModel, reduce};
use bartizan::record::Recorded;
use bartizan::ui::Logs;
use jiff::{SignedDuration, Timestamp};

const STAGES: [(&str, u8, &[&str]); 10] = [
    ("01-infrastructure", 4, &["vpc", "subnets", "endpoints"]),
    ("02-bastion", 4, &["instance", "reach"]),
    ("03-credentials", 3, &["pull-secret", "aws"]),
    ("04-tools", 3, &["oc", "openshift-install"]),
    ("05-mirror-registry", 9, &["start", "prove"]),
    ("06-image-sync", 9, &["plan", "copy", "prove"]),
    ("07-install-config", 3, &["write", "manifests"]),
    ("08-install", 6, &["network", "machines", "bootstrap", "operators"]),
    ("09-verify", 10, &["nodes", "pull"]),
    ("10-cleanup", 11, &["cluster", "objects"]),
];

/// Events with a clock.
pub struct Builder {
    pub events: Vec<Recorded>,
    pub model: RunModel,
    pub shelf: Shelf,
    now: Timestamp,
}

/// The lines of the logs, for all who read and write them.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<BTreeMap<String, Vec<LogLine>>>>);

impl Shelf {
    pub fn put(&self, source: &str, lines: Vec<LogLine>) {
        self.0.lock().unwrap().insert(source.to_owned(), lines);
    }
}

impl Logs for Shelf {
    fn read(&mut self, source: &str, first: u64, count: usize) -> Vec<LogLine> {
        let logs = self.0.lock().unwrap();
        let lines = logs.get(source).map_or(&[][..], Vec::as_slice);
        lines.iter().skip(first as usize - 1).take(count).cloned().collect()
    }
}

impl Builder {
    pub fn new() -> Self {
        let now = "2026-03-14T09:30:00Z".parse().unwrap();
        let mut builder = Self { events: Vec::new(), model: RunModel::default(), shelf: Shelf::default(), now };
        let stages = STAGES.iter().map(|(id, exit, steps)| StagePlan {
            id: StageId::new(*id),
            goal: format!("{id} is done and proven"),
            exit: *exit,
            steps: steps
                .iter()
                .map(|step| StepPlan {
                    id: StepId::new(format!("{id}/{step}")),
                    title: (*step).to_owned(),
                    attempts: 3,
                    timeout_s: 2700,
                    usual_s: (60, 180),
                    exit: None,
                })
                .collect(),
        });
        builder.add(Data::RunOpened {
            format: FORMAT,
            run: "7f3a".into(),
            bartizan: "0.1.0".into(),
            cluster: ClusterName {
                name: "edge-lab".into(),
                base_domain: "example.com".into(),
                version: "4.18.12".into(),
                region: "us-east-2".into(),
            },
            spec_digest: "sha256:00".into(),
            plan: Plan { stages: stages.collect(), ..Plan::default() },
            operator: "kay".into(),
        });
        builder.link(LinkName::Ssh, LinkState::Up);
        builder.link(LinkName::Aws, LinkState::Up);
        builder
    }

    /// A run that was recorded: all of its events, and its lines.
    pub fn of(events: Vec<Recorded>, shelf: Shelf) -> Self {
        let now = events.last().map_or(Timestamp::UNIX_EPOCH, |event| event.at);
        let mut model = RunModel::default();
        events.iter().for_each(|event| reduce(&mut model, event));
        Self { events, model, shelf, now }
    }

    /// The run as a recorder leaves it on disk: a folder of a state directory. Gives its name.
    pub fn keep(&self, state: &std::path::Path) -> String {
        let (name, dir) = bartizan::record::Store::open(Some(state)).unwrap().new_run(self.now);
        let mut recorder = bartizan::record::Recorder::open(&dir).unwrap();
        for event in &self.events {
            match &event.data {
                Data::Lines { source, first, count, .. } => {
                    let lines: Vec<LogLine> = self.shelf.0.lock().unwrap()[source]
                        .iter()
                        .skip(*first as usize - 1)
                        .take(*count as usize)
                        .cloned()
                        .collect();
                    recorder.append_lines(event.at, source, &lines).unwrap();
                }
                data => {
                    recorder.append(event.at, data.clone()).unwrap();
                }
            }
        }
        name
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn wait(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    /// What is added next was earlier.
    pub fn go_back_to(&mut self, at: Timestamp) -> &mut Self {
        self.now = at;
        self
    }

    pub fn add(&mut self, data: Data) -> &mut Self {
        let event = Event { seq: self.model.seq + 1, at: self.now, data };
        reduce(&mut self.model, &event);
        self.events.push(event.into());
        self
    }

    pub fn link(&mut self, link: LinkName, state: LinkState) -> &mut Self {
        self.add(Data::Link { link, state })
    }

    pub fn start(&mut self, step: &str) -> &mut Self {
        self.add(Data::StepStarted { step: StepId::new(step), attempt: 1, host: Some("bastion".into()) })
    }

    pub fn end(&mut self, step: &str, outcome: Outcome) -> &mut Self {
        self.add(Data::StepEnded {
            step: StepId::new(step),
            attempt: 1,
            outcome,
            elapsed_ms: 1000,
            evidence: vec![Evidence::new("test -s auth/kubeconfig", "exit 0")],
        })
    }

    pub fn action(&mut self, step: &str, command: &str) -> &mut Self {
        self.add(Data::StepAction {
            step: StepId::new(step),
            action: Action::Exec { host: "bastion".into(), command: command.into() },
            exit: Some(0),
            elapsed_ms: 1240,
        })
    }

    /// Run and finish all stages before this one.
    pub fn until(&mut self, stage: &str) -> &mut Self {
        for (id, _, steps) in STAGES.iter().take_while(|(id, ..)| *id != stage) {
            for step in *steps {
                let step = format!("{id}/{step}");
                self.start(&step).wait(40).action(&step, "true").end(&step, Outcome::Success);
            }
        }
        self
    }

    pub fn log(&mut self, source: &str, unit: &str, level: Level, text: &str) -> &mut Self {
        let first = {
            let mut logs = self.shelf.0.lock().unwrap();
            let lines = logs.entry(source.to_owned()).or_default();
            lines.push(LogLine { at: self.now, unit: unit.into(), level, text: text.into(), cursor: None });
            lines.len() as u64
        };
        self.add(Data::Lines { source: source.into(), first, count: 1, bytes: text.len() as u64 })
    }

    pub fn sync(&mut self, event: SyncEvent) -> &mut Self {
        self.add(Data::Sync(event))
    }

    pub fn image(&mut self, image: &str, state: ImageState, attempt: u32) -> &mut Self {
        self.sync(SyncEvent::ImageState { image: image.into(), state, attempt })
    }

    pub fn see(&mut self, observed: Observed) -> &mut Self {
        self.add(Data::Observed(observed))
    }

    /// A thing of the run is there, but not ready.
    pub fn make(&mut self, kind: &str, name: &str, id: &str, state: &str, hourly: u64) -> &mut Self {
        let object = Object { kind: kind.into(), name: format!("edge-lab-{name}") };
        self.add(Data::Intent { object: object.clone() }).wait(1);
        self.add(Data::Created { object, id: id.into() });
        self.show(kind, name, id, state, Standing::Making, None, Some(hourly))
    }

    #[allow(clippy::too_many_arguments, reason = "an event in one line")]
    pub fn show(
        &mut self,
        kind: &str,
        name: &str,
        id: &str,
        state: &str,
        standing: Standing,
        waits_for: Option<&str>,
        hourly: Option<u64>,
    ) -> &mut Self {
        self.see(Observed::Resource {
            resource: Object { kind: kind.into(), name: format!("edge-lab-{name}") },
            id: id.into(),
            state: state.into(),
            standing,
            waits_for: waits_for.map(str::to_owned),
            hourly,
        })
    }

    pub fn ready(&mut self, kind: &str, name: &str, id: &str, hourly: u64) -> &mut Self {
        self.make(kind, name, id, "pending", hourly).wait(2);
        self.show(kind, name, id, "available", Standing::Ready, None, None)
    }

    pub fn boot(&mut self, stage: &str, state: BootStage, evidence: &str) -> &mut Self {
        self.see(Observed::Bootkube { stage: stage.into(), state, evidence: evidence.into(), since: None })
    }

    pub fn operator(&mut self, name: &str, tri: [Tri; 3], message: &str) -> &mut Self {
        let [available, progressing, degraded] = tri;
        let since = Some(self.now);
        self.see(Observed::Operator(Operator {
            name: name.into(),
            version: Some("4.18.12".into()),
            available,
            progressing,
            degraded,
            since,
            message: message.into(),
            ..Operator::default()
        }))
    }
}

const IMAGES: [&str; 12] = [
    "release",
    "etcd",
    "cluster-etcd-operator",
    "hyperkube",
    "machine-config-operator",
    "coredns",
    "haproxy-router",
    "console",
    "oauth-server",
    "ovn-kubernetes",
    "prometheus",
    "cli",
];

const RESOURCES: [(&str, &str, &str, u64); 8] = [
    ("vpc", "vpc", "vpc-0f3c1a9e5b7d20486", 0),
    ("internet-gateway", "igw", "igw-0a9c8e7d6f5b41322", 0),
    ("subnet", "public-a", "subnet-04d9e1c7a2b85f360", 0),
    ("subnet", "private-a", "subnet-07b1f4e8c3d92a650", 0),
    ("route-table", "private-table-a", "rtb-0c5e2a7f9b1d83460", 0),
    ("vpc-endpoint", "s3", "vpce-06a4d8e1f2c97b350", 0),
    ("security-group", "endpoints", "sg-0e7b3d5f1a2c98460", 0),
    ("vpc-endpoint", "ec2", "vpce-0b8f6a4c2e1d97350", 10_000),
];

/// In the middle of stage 01: an endpoint is not ready, the next one is only asked for.
pub fn network_making() -> Builder {
    let mut run = Builder::new();
    run.start("01-infrastructure/vpc").wait(2).end("01-infrastructure/vpc", Outcome::Success);
    run.start("01-infrastructure/endpoints");
    for (kind, name, id, hourly) in RESOURCES {
        run.ready(kind, name, id, hourly);
    }
    run.make("vpc-endpoint", "sts", "vpce-0d2c4e6f8a1b97350", "pending", 10_000).wait(48);
    let object = Object { kind: "vpc-endpoint".into(), name: "edge-lab-elasticloadbalancing".into() };
    run.add(Data::Intent { object }).wait(1);
    run
}

/// In the middle of stage 10: the bastion is gone, a subnet waits for what is in it.
pub fn teardown_running() -> Builder {
    let mut run = Builder::new();
    for (kind, name, id, hourly) in RESOURCES {
        run.ready(kind, name, id, hourly);
    }
    run.ready("instance", "bastion", "i-0b1c2d3e4f5a69788", 114_151);
    run.until("10-cleanup").start("10-cleanup/objects");
    for (kind, name, id) in
        [("instance", "bastion", "i-0b1c2d3e4f5a69788"), ("vpc-endpoint", "ec2", "vpce-0b8f6a4c2e1d97350")]
    {
        run.show(kind, name, id, "leaving", Standing::Leaving, None, None).wait(31);
        let object = Object { kind: kind.into(), name: format!("edge-lab-{name}") };
        let proof = format!("ec2:DescribeInstances {id}: terminated");
        run.add(Data::Gone { object, id: id.into(), proof });
    }
    let (sg, subnet) = ("sg-0e7b3d5f1a2c98460", "subnet-07b1f4e8c3d92a650");
    run.show("security-group", "endpoints", sg, "leaving", Standing::Leaving, None, None).wait(3);
    let why = "network interface eni-0c9d8e7f of vpce-0b8f6a4c2e1d97350 is in it";
    run.show("subnet", "private-a", subnet, "in use", Standing::Leaving, Some(why), None).wait(12);
    run
}

/// In the middle of the image sync: one image failed, one copies, one is shared.
pub fn sync_running() -> Builder {
    let mut run = Builder::new();
    run.until("06-image-sync").link(LinkName::Registry, LinkState::Up);
    run.start("06-image-sync/plan").wait(6).end("06-image-sync/plan", Outcome::Success);
    run.start("06-image-sync/copy");
    let images = IMAGES.iter().enumerate().map(|(place, name)| PlannedImage {
        name: (*name).into(),
        digest: format!("sha256:{place:064x}"),
        repository: "openshift/release".into(),
        layers: 4 + place as u32 % 3,
        bytes: 180_000_000 + place as u64 * 31_000_000,
    });
    run.sync(SyncEvent::Planned {
        images: images.collect(),
        blobs: 57,
        bytes: 3_812_345_678,
        present_bytes: 180_000_000,
    });
    run.image("release", ImageState::Present, 1);
    run.image("etcd", ImageState::Copying, 1).wait(20).image("etcd", ImageState::Done, 1);
    run.image("coredns", ImageState::Mounted, 1);
    run.image("console", ImageState::Copying, 2);
    run.image("hyperkube", ImageState::Copying, 1);
    for tick in 0..8u64 {
        run.wait(1);
        for image in ["console", "hyperkube"] {
            run.sync(SyncEvent::Progress { image: image.into(), bytes: tick * 11_000_000, rate: None });
        }
        run.add(Data::StepProgress {
            step: StepId::new("06-image-sync/copy"),
            done: tick * 22_000_000 + 211_000_000,
            total: Some(3_632_345_678),
            unit: Unit::Bytes,
            note: Some("2 of 12 images at work".into()),
        });
    }
    let failed = ImageState::Failed {
        side: "source".into(),
        class: "manifest-unknown".into(),
        why: "404 for sha256:0c0e".into(),
    };
    run.image("cli", failed, 3);
    run.log("sync", "agent", Level::Info, "hyperkube: 4 layers, 242 MB");
    run.log("sync", "agent", Level::Error, "cli: quay.io answered 404 manifest unknown");
    run
}

/// A sync of a whole release, half way: 200 images, 450 blobs.
pub fn sync_large() -> Builder {
    let mut run = Builder::new();
    run.until("06-image-sync").link(LinkName::Registry, LinkState::Up);
    run.start("06-image-sync/copy");
    let images = (0..200u64).map(|place| PlannedImage {
        name: format!("component-{place:03}"),
        digest: format!("sha256:{place:064x}"),
        repository: "openshift/release".into(),
        layers: 5,
        bytes: 90_000_000 + place * 1_100_000,
    });
    run.sync(SyncEvent::Planned { images: images.collect(), blobs: 450, bytes: 21_474_836_480, present_bytes: 0 });
    for place in 0..100 {
        run.image(&format!("component-{place:03}"), ImageState::Done, 1);
    }
    for place in 100..130 {
        run.image(&format!("component-{place:03}"), ImageState::Copying, 1);
    }
    for tick in 0..10 {
        sync_second(run.wait(1), tick);
    }
    run
}

/// What a copier says in a second when it is busy: 50 updates.
pub fn sync_second(run: &mut Builder, tick: u64) {
    for place in 100..130 {
        run.sync(SyncEvent::Progress { image: format!("component-{place:03}"), bytes: tick * 3_000_000, rate: None });
    }
    for step in 0..10 {
        let done = 9_000_000_000 + (tick * 10 + step) * 9_000_000;
        run.sync(SyncEvent::Moved { bytes: done });
        run.add(Data::StepProgress {
            step: StepId::new("06-image-sync/copy"),
            done,
            total: Some(21_474_836_480),
            unit: Unit::Bytes,
            note: None,
        });
    }
}

/// In the middle of a good installation.
pub fn install_running() -> Builder {
    let mut run = Builder::new();
    run.until("08-install").link(LinkName::Registry, LinkState::Up);
    run.link(LinkName::Api, LinkState::Retrying { in_ms: 4000, attempt: 2, why: "connection refused".into() });
    for step in ["network", "machines"] {
        let step = format!("08-install/{step}");
        run.start(&step).wait(95).end(&step, Outcome::Success);
    }
    run.start("08-install/bootstrap");
    run.action("08-install/bootstrap", "openshift-install wait-for bootstrap-complete --dir /var/lib/bartizan/7f3a");
    let deadline = Some(run.now() + SignedDuration::from_mins(45));
    run.see(Observed::Installer {
        phase: "bootstrap".into(),
        message: "Waiting up to 45m0s for bootstrapping to complete...".into(),
        deadline,
        since: None,
    });
    run.see(Observed::Instance {
        name: "bootstrap".into(),
        id: "i-0b".into(),
        state: "running".into(),
        address: Some("10.0.48.17".into()),
    });
    for stage in ["openshift-manifests", "api-bootstrap", "auth-api-bootstrap", "cvo-bootstrap", "mco-bootstrap"] {
        run.boot(stage, BootStage::Running, "").wait(9).boot(stage, BootStage::Done, "rendered");
    }
    run.boot("wait-for-etcd", BootStage::Running, "etcdctl failed. Retrying in 5 seconds...");
    run.see(Observed::Unit {
        host: "bootstrap".into(),
        unit: "release-image.service".into(),
        state: "active".into(),
        restarts: 0,
    });
    run.log("journal:bootstrap", "kubelet", Level::Info, "Started kubelet");
    for _ in 0..31 {
        run.wait(5).log("journal:bootstrap", "bootkube", Level::Warn, "etcdctl failed. Retrying in 5 seconds...");
    }
    run.log("journal:bootstrap", "crio", Level::Error, "pulling image: connection reset by peer");
    run.log(
        "journal:bootstrap",
        "kubelet",
        Level::Info,
        "SyncLoop ADD source=\"file\" pods=[\"kube-system/bootstrap-kube-apiserver\"]",
    );
    run.log("installer", "installer", Level::Info, "Waiting up to 45m0s for bootstrapping to complete...");
    run.see(Observed::ClusterVersion(ClusterVersion {
        desired: "4.18.12".into(),
        available: Tri::False,
        progressing: Tri::True,
        failing: Tri::False,
        message: "Working towards 4.18.12: 690 of 903 done (76% complete)".into(),
        failing_message: String::new(),
        done: Some((690, 903)),
    }));
    run.operator(
        "authentication",
        [Tri::False, Tri::True, Tri::True],
        "OAuthServerRouteEndpointAccessibleControllerDegraded: no such host",
    );
    run.operator("console", [Tri::False, Tri::True, Tri::False], "DeploymentAvailable: 0 replicas available");
    run.operator("dns", [Tri::True, Tri::False, Tri::False], "");
    run.operator("etcd", [Tri::True, Tri::True, Tri::False], "NodeInstallerProgressing: 2 nodes are at revision 6");
    run.operator("ingress", [Tri::Absent, Tri::Absent, Tri::Absent], "");
    for (place, ready) in [(0, true), (1, true), (2, false)] {
        run.see(Observed::Node {
            name: format!("ip-10-0-50-{place}"),
            role: "control-plane".into(),
            ready,
            version: "v1.31.7".into(),
            message: if ready { String::new() } else { "container runtime network not ready".into() },
        });
    }
    run.see(Observed::Csr {
        name: "csr-8x2lp".into(),
        requester: "system:node:ip-10-0-50-2".into(),
        signer: "kubernetes.io/kubelet-serving".into(),
        state: CsrState::Pending,
    });
    run.wait(3);
    run
}

/// The bootstrap failed, and it is known why.
pub fn install_failed() -> Builder {
    let mut run = install_running();
    let line = "x509: certificate signed by unknown authority";
    run.log("journal:bootstrap", "crio", Level::Error, line);
    run.add(Data::FindingOpened {
        finding: Finding {
            id: "REG-CA/registry".into(),
            signature: "REG-CA".into(),
            title: "mirror certificate is not trusted by the node".into(),
            next: None,
            severity: Level::Error,
            captures: BTreeMap::from([("registry".into(), "registry.edge-lab.example.com:5000".into())]),
            source: "journal:bootstrap".into(),
            unit: "crio".into(),
            at: run.now(),
            line: line.into(),
            line_number: Some(35),
            checklist: Some("mirror-ca".into()),
            recovery: Some("trust-mirror-ca".into()),
            rank: 10,
            explained_by: None,
        },
    });
    for (check, state, evidence) in [
        ("registry-answers", CheckState::Passed, "401 from registry.edge-lab.example.com:5000/v2/"),
        ("certificate-chains", CheckState::Failed, "issuer \"edge-lab mirror CA 2\" is not in the bundle"),
        ("node-trusts", CheckState::Unknown, "the node does not answer"),
    ] {
        run.add(Data::CheckResult {
            finding: "REG-CA/registry".into(),
            check: check.into(),
            state,
            action: Some(Action::Exec { host: "bastion".into(), command: format!("bartizan-check {check}") }),
            evidence: evidence.into(),
        });
    }
    run.wait(20);
    let causes = vec!["bootstrap did not complete in 45 minutes".to_owned(), "try: look at the findings".to_owned()];
    run.end("08-install/bootstrap", Outcome::Failed { causes });
    run.wait(2);
    run
}

/// Everything that the remote side can throw at a screen.
pub fn hostile() -> Builder {
    let mut run = install_failed();
    let nasty = [
        "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[31mred\u{9b}5A\rback\u{8}\u{8}".to_owned(),
        "漢字かな交じり文 한국어\u{1112}\u{1161}\u{11ab} ｶﾞｷﾞ".repeat(9),
        "👨‍👩‍👧‍👦 🏳️‍🌈 ✔️ e\u{301}\u{301}\u{301}".repeat(20),
        "\u{202e}evil\u{2066}\u{200b}\u{feff}\ttab\nline".to_owned(),
        "x".repeat(90_000),
        format!("{}漢", "a".repeat(200)),
    ];
    for text in &nasty {
        let short: String = text.chars().take(300).collect();
        run.log("journal:bootstrap", &short, Level::Error, text);
        run.operator(&short, [Tri::Unknown, Tri::True, Tri::True], text);
        run.boot(&short, BootStage::Failed, text);
        run.see(Observed::Node {
            name: short.clone(),
            role: short.clone(),
            ready: false,
            version: short.clone(),
            message: text.clone(),
        });
        run.see(Observed::Csr {
            name: short.clone(),
            requester: text.clone(),
            signer: text.clone(),
            state: CsrState::Pending,
        });
        run.see(Observed::Unit { host: short.clone(), unit: short.clone(), state: text.clone(), restarts: 3 });
        run.add(Data::Note { level: Level::Warn, text: text.clone() });
        run.link(LinkName::Ssh, LinkState::Retrying { in_ms: 1, attempt: 1, why: text.clone() });
        let mut finding = run.model.findings[0].finding.clone();
        finding.id = short.clone();
        finding.title = text.clone();
        finding.line = text.clone();
        finding.unit = short.clone();
        run.add(Data::FindingOpened { finding });
        run.add(Data::CheckResult {
            finding: short.clone(),
            check: short,
            state: CheckState::Failed,
            action: None,
            evidence: text.clone(),
        });
    }
    run
}
