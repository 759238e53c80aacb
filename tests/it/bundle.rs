//! A log bundle in the layout of the installer's own scripts, opened in the panes of a run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use bartizan::model::event::{BootStage, CsrState, Event, RunOutcome};
use bartizan::model::run::Status;
use bartizan::model::{RunModel, reduce};
use bartizan::record::SegmentReader;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

/// What installer-gather.sh (openshift/installer, data/data/bootstrap/files/usr/local/bin) leaves of a 4.20 bootstrap whose
/// mirror lacks an image. Lines are two hours old: `journalctl --output=short` knows no year.
struct Bundle {
    began: Timestamp,
    files: BTreeMap<String, Vec<u8>>,
}

impl Bundle {
    fn at(&self, second: i64) -> Timestamp {
        self.began + SignedDuration::from_secs(second)
    }

    fn short(&self, lines: &[(i64, &str, &str)]) -> Vec<u8> {
        let line = |(second, program, text): &(i64, &str, &str)| {
            format!("{} ip-10-0-0-8 {program}[1234]: {text}\n", self.at(*second).strftime("%b %d %H:%M:%S"))
        };
        let header = "-- Logs begin at Sat 2025-03-01 09:58:01 UTC. --\n".to_owned();
        lines.iter().map(line).fold(header, |all, line| all + &line).into_bytes()
    }

    fn put(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.insert(name.to_owned(), bytes.into());
    }

    fn new() -> Self {
        let began = Timestamp::from_second(Timestamp::now().as_second() - 7200).unwrap();
        let mut bundle = Self { began, files: BTreeMap::new() };
        let missing = "Error: initializing source docker://mirror.ex.com:8443/ocp/release@sha256:6d: reading manifest sha256:6d in mirror.ex.com:8443/ocp/release: manifest unknown";
        let bootkube = bundle.short(&[
            (60, "systemd", "Started Bootstrap a Kubernetes cluster."),
            (61, "bootkube.sh", "Moving OpenShift manifests in with the rest of them"),
            // A message may have a time of its own, of another clock.
            (61, "bootkube.sh", "I0301 09:00:00.000001    1234 render.go:1] a step"),
            (62, "bootkube.sh", "Rendering api manifests..."),
            // podman says it once more, under the container's name.
            (62, "api-render", "Rendering api manifests..."),
            (62, "podman", "container create 3f1c (image=x, name=api-render)"),
            (70, "bootkube.sh", missing),
            (71, "systemd", "bootkube.service: Main process exited, code=exited, status=125/n/a"),
            (76, "systemd", "bootkube.service: Scheduled restart job, restart counter is at 1."),
            (77, "bootkube.sh", "Rendering api manifests..."),
            (80, "bootkube.sh", missing),
        ]);
        bundle.put("bootstrap/journals/bootkube.log", bootkube);
        let release = bundle.short(&[
            (10, "release-image-download.sh", "Pulling mirror.ex.com:8443/ocp/release@sha256:2..."),
            (50, "systemd", "Finished Download the OpenShift Release Image."),
        ]);
        bundle.put("bootstrap/journals/release-image.log", release);
        let kubelet = bundle.short(&[
            (40, "kubenswrapper", "I0301 10:00:40.000001    1234 kubelet.go:1] all is well"),
            (41, "kubenswrapper", "E0301 10:00:41.000001    1234 kubelet.go:2] \"it is not\""),
        ]);
        bundle.put("bootstrap/journals/kubelet.log", kubelet);
        let whole =
            [(1, "node-image-pull", "Pulling mirror.ex.com:8443/ocp@sha256:1"), (62, "bootkube", "Rendering api")]
                .map(|(second, unit, text)| {
                    let at = bundle.at(second).strftime("%a %Y-%m-%d %H:%M:%S UTC");
                    format!("{at} ip-10-0-0-8 {unit}.service[77]: {text}\n")
                })
                .concat();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(whole.as_bytes()).unwrap();
        bundle.put("bootstrap/journals/journal.log.gz", gzip.finish().unwrap());
        let record = json!([
            {"timestamp": bundle.at(60).to_string(), "phase": "service start"},
            {"timestamp": bundle.at(76).to_string(), "phase": "service start"},
            {"timestamp": bundle.at(90).to_string(), "phase": "stage end", "stage": "api-bootstrap", "result": "failure",
             "errorMessage": format!("Rendering\n{missing}")},
        ]);
        bundle.put("bootstrap/services/bootkube.json", record.to_string());
        let request = format!(
            "I{} 1 api.go:65] Pool \"master\" requested by address:\"10.0.1.5:4021\" User-Agent:\"Ignition/2.20.0\" Accept-Header: \"x\"\n",
            bundle.at(75).strftime("%m%d %H:%M:%S.%6f      ")
        );
        bundle.put("bootstrap/containers/machine-config-server-0123456789abcdef0123.log", request);
        bundle.put("bootstrap/pods/0123456789abcdef0123.log", "Rendering api manifests...\n");
        let etcd = format!("no time at all\n{{\"level\":\"warn\",\"ts\":\"{}\",\"msg\":\"slow\"}}\n", bundle.at(65));
        bundle.put("bootstrap/containers/etcd-0123456789abcdef0123.log", etcd);
        let failed = "  UNIT LOAD ACTIVE SUB DESCRIPTION\n● crio-wipe.service loaded failed failed CRI-O Auto Update Script\n\n1 loaded units listed.\n";
        bundle.put("failed-units.txt", failed);
        let wiped = bundle.short(&[(5, "crio", "wiping failed")]);
        bundle.put("unit-status/crio-wipe.service.log", wiped);
        bundle.put("gather.log", "Gathering bootstrap service records ...\n");
        let pull = bundle.short(&[(78, "podman", "Trying to pull mirror.ex.com:8443/ocp@sha256:7")]);
        bundle.put("control-plane/10.0.1.5/journals/machine-config-daemon-host.log", pull);
        bundle.put("control-plane/10.0.1.5/failed-units.txt", "0 loaded units listed.\n");
        let console = "[    4.1] ignition[754]: GET https://api-int.edge.ex.com:22623/config/master: attempt #1\r\n[    5.1] ignition[754]: GET error: Get \"https://api-int.edge.ex.com:22623/config/master\": EOF\r\n";
        bundle.put("serial/edge-x7k2p-master-1-serial.log", console);
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "AsExpected", "message": "m", "lastTransitionTime": bundle.at(85).to_string()});
        let item = |kind: &str, name: &str, status: serde_json::Value| json!({"kind": kind, "apiVersion": "v1", "metadata": {"name": name, "creationTimestamp": bundle.at(85).to_string()}, "spec": {}, "status": status});
        let operators = [
            item("ClusterOperator", "etcd", json!({"conditions": [condition("Available", "False")]})),
            item("ClusterOperator", "dns", json!({"conditions": [condition("Available", "True")]})),
        ];
        let version = item(
            "ClusterVersion",
            "version",
            json!({"desired": {"version": "4.20.3"}, "conditions": [condition("Progressing", "True")]}),
        );
        let node = item(
            "Node",
            "ip-10-0-1-5",
            json!({"conditions": [condition("Ready", "False")], "nodeInfo": {"kubeletVersion": "v1.33.1"}}),
        );
        let mut request = item("CertificateSigningRequest", "csr-1", json!({}));
        request["spec"] = json!({"signerName": "kubernetes.io/kube-apiserver-client-kubelet", "username": "system:serviceaccount:openshift-machine-config-operator:node-bootstrapper"});
        let list =
            |items: &[serde_json::Value]| json!({"kind": "List", "apiVersion": "v1", "items": items}).to_string();
        let resources = [
            ("clusteroperators", list(&operators)),
            ("clusterversion", list(&[version])),
            ("nodes", list(&[node])),
            ("csr", list(&[request])),
        ];
        for (name, text) in resources {
            bundle.put(&format!("resources/{name}.json"), text);
        }
        bundle
    }

    fn write(&self, path: &Path) {
        let mut tar = tar::Builder::new(GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast()));
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("log-bundle-20260301/{name}"), bytes.as_slice()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
    }
}

fn watch(state: &Path, path: &Path, more: &[&str]) -> (Option<i32>, RunModel, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(["--state", &state.to_string_lossy(), "watch", "--json", "--bundle", &path.to_string_lossy()])
        .args(more)
        .output()
        .unwrap();
    let mut model = RunModel::default();
    let text = String::from_utf8(output.stdout).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Event>(line).expect("an event"));
    events.for_each(|event| reduce(&mut model, &event));
    (output.status.code(), model, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_log_bundle_is_the_run_that_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let path = dir.path().join("log-bundle-20260301.tar.gz");
    let bundle = Bundle::new();
    bundle.write(&path);
    let (code, model, errors) = watch(&state, &path, &[]);
    assert_eq!(code, Some(0), "{errors}");

    // Times are those of the lines.
    assert_eq!(model.opened, Some(bundle.at(1)));
    assert_eq!(model.cluster.version, "4.20.3");
    let stages: Vec<_> = model
        .bootkube
        .iter()
        .map(|record| (record.stage.as_str(), record.state, record.starts, record.started))
        .collect();
    let stage = |name, state, starts, second| (name, state, starts, bundle.at(second));
    assert_eq!(
        stages,
        [
            stage("node-image-pull", BootStage::Running, 1, 1),
            stage("pull-release-image", BootStage::Done, 1, 10),
            stage("openshift-manifests", BootStage::Done, 1, 61),
            // It died, began again, and its record says how that ended.
            stage("api-bootstrap", BootStage::Failed, 2, 77),
        ]
    );
    assert_eq!(model.bootkube[1].ended, Some(bundle.at(50)));
    assert!(model.bootkube[3].evidence.contains("manifest unknown"), "{}", model.bootkube[3].evidence);
    let unit =
        |host: &str, unit: &str| model.units.get(&(host.to_owned(), unit.to_owned())).map(|unit| unit.state.clone());
    assert_eq!(model.units[&("bootstrap".to_owned(), "bootkube".to_owned())].restarts, 1);
    assert_eq!(unit("bootstrap", "crio-wipe").as_deref(), Some("failed"));
    assert_eq!(unit("10.0.1.5", "config/master").as_deref(), Some("finished: fetched by Ignition/2.20.0"));
    assert!(unit("edge-x7k2p-master-1", "ignition").is_some_and(|state| state.contains("EOF")));

    // Each line once, whoever has kept it twice; kubelet below a warning is left out.
    let lines: BTreeMap<&str, u64> = model.logs.iter().map(|(source, log)| (source.as_str(), log.lines)).collect();
    let wanted = [("journal:bootstrap", 9 + 2 + 1 + 1 + 1 + 2), ("journal:10.0.1.5", 1), ("containers:bootstrap", 1)];
    for (source, count) in wanted {
        assert_eq!(lines.get(source), Some(&count), "{source}: {lines:?}");
    }
    assert_eq!(lines.len(), 4, "{lines:?}");

    let journal = SegmentReader::new(&state.join("runs").join(&model.run)).read("journal:bootstrap", 1, 100).unwrap();
    let etcd: Vec<_> = journal.iter().filter(|line| line.unit == "etcd").map(|line| line.at).collect();
    assert_eq!(etcd, [bundle.at(65), bundle.at(65)]);

    // The cluster at its end, and what is wrong, at the line that says so.
    let cluster = &model.cluster_state;
    assert_eq!(cluster.operators.keys().collect::<Vec<_>>(), ["dns", "etcd"]);
    assert!(!cluster.nodes["ip-10-0-1-5"].ready && cluster.csrs["csr-1"].state == CsrState::Pending);
    let found = model.open_findings();
    let first = &found.first().expect("a finding").finding;
    assert_eq!(first.signature, "MIR-MANIFEST", "{found:#?}");
    let number = first.line_number.expect("its line is in the record");
    let run = state.join("runs").join(&model.run);
    let line = SegmentReader::new(&run).read(&first.source, number, 1).unwrap();
    assert_eq!((first.source.as_str(), line[0].text.as_str()), ("journal:bootstrap", first.line.as_str()));
    let statuses: Vec<Status> = model.plan.steps().map(|step| model.steps[&step.id].status).collect();
    assert_eq!(statuses, [Status::Done, Status::Failed, Status::Waiting]);
    assert_eq!(model.closed.as_ref().unwrap().0, RunOutcome::Stopped);

    // With every line, out of an install directory that holds the bundle and the installer's log.
    let install = dir.path().join("install");
    std::fs::create_dir(&install).unwrap();
    bundle.write(&install.join("log-bundle-20260301.tar.gz"));
    let metadata = json!({"clusterName": "edge", "clusterID": "c", "infraID": "edge-x7k2p", "aws": {"region": "us-east-2", "clusterDomain": "edge.ex.com"}});
    std::fs::write(install.join("metadata.json"), metadata.to_string()).unwrap();
    let log = [
        (0, "debug", "OpenShift Installer 4.20.3"),
        (0, "info", "Creating infrastructure resources..."),
        (9, "info", "Waiting up to 45m0s (until 10:45AM UTC) for bootstrapping to complete..."),
        (95, "error", "Bootstrap failed to complete: timed out waiting for the condition"),
    ]
    .map(|(second, level, text)| format!("time=\"{}\" level={level} msg=\"{text}\"\n", bundle.at(second)))
    .concat();
    std::fs::write(install.join(".openshift_install.log"), log).unwrap();
    let (code, model, errors) = watch(&state, &install, &["--every-line"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!((model.cluster.name.as_str(), model.cluster.base_domain.as_str()), ("edge", "ex.com"));
    assert_eq!(model.logs["journal:bootstrap"].lines, 17);
    assert_eq!(model.installer.phases.last().unwrap().name, "bootstrap");
    assert_eq!(model.closed.as_ref().map(|(outcome, exit, _)| (*outcome, *exit)), Some((RunOutcome::Failed, 5)));

    let nothing = dir.path().join("notes.txt");
    std::fs::write(&nothing, "nothing of ours\n").unwrap();
    let (code, _, errors) = watch(&state, &nothing, &[]);
    assert!(code == Some(2) && errors.contains("tells of an installation"), "{errors}");
    assert_eq!(std::fs::read_dir(state.join("runs")).unwrap().count(), 2);
}
