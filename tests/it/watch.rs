//! What a bootstrap node, the installer and the cluster say, and what is made of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bartizan::cluster::{self, Kind, csr, operators};
use bartizan::host::{Cmd, Host, HostError, Output, Stdin, StreamItem, Tunnel};
use bartizan::model::event::{BootStage, CsrState, Data, Level, LinkState, LogLine, Observed, Tri, Vanished};
use bartizan::record::Sink;
use bartizan::record::sink::Entry as Recorded;
use bartizan::watch::bootkube::{self, Recogniser};
use bartizan::watch::{Out, installer, records};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// One of `samples` with bytes changed, cut, doubled or put in; sometimes bytes of no origin at all.
pub fn mangled(samples: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 0..6);
    let sample = (prop::sample::select(samples), edits).prop_map(|(sample, edits)| {
        let mut bytes = sample.as_bytes().to_vec();
        for (index, byte, how) in edits {
            if bytes.is_empty() {
                break;
            }
            let place = index.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => bytes.truncate(place),
                2 => bytes.insert(place, byte),
                _ => {
                    let again = bytes[..place.min(40)].to_vec();
                    bytes.splice(place..place, again);
                }
            }
        }
        bytes
    });
    prop_oneof![4 => sample, 1 => prop::collection::vec(any::<u8>(), 0..60)]
}

/// A run as `unit: text` lines, five seconds apart, fed to a recogniser; the changes as short text.
fn play(recogniser: &mut Recogniser, run: &str) -> Vec<String> {
    let mut at = Timestamp::from_second(1_740_823_200).unwrap();
    let mut told = Vec::new();
    for line in run.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let (unit, text) = line.split_once(": ").unwrap();
        at += jiff::SignedDuration::from_secs(5);
        let line = LogLine { at, unit: unit.into(), level: Level::Info, text: text.into(), cursor: None };
        told.extend(recogniser.feed(&line).into_iter().map(short));
    }
    told
}

fn short(observed: Observed) -> String {
    match observed {
        Observed::Bootkube { stage, state, .. } => format!("{stage} {state:?}"),
        Observed::Unit { unit, state, restarts, .. } => format!("[{unit}] {state} {restarts}"),
        other => format!("{other:?}"),
    }
}

/// Stages in the order in which they began, and the state in which each was left.
fn ends(told: &[String]) -> Vec<(String, String)> {
    let mut ends: Vec<(String, String)> = Vec::new();
    for (stage, state) in
        told.iter().filter_map(|told| told.split_once(' ')).filter(|(stage, _)| !stage.starts_with('['))
    {
        match ends.iter_mut().find(|(have, _)| have == stage) {
            Some(end) => state.clone_into(&mut end.1),
            None => ends.push((stage.to_owned(), state.to_owned())),
        }
    }
    ends
}

/// What bootkube.sh of a release prints when all goes well.
fn clean_run(version: &str) -> String {
    let minor: u32 = version.split('.').nth(1).unwrap().parse().unwrap();
    let mut run = String::new();
    let mut say = |unit: &str, from: u32, until: u32, text: &str| {
        if (from..=until).contains(&minor) {
            run.push_str(&format!("{unit}: {text}\n"));
        }
    };
    let all = (0, u32::MAX);
    say("node-image-pull", 19, all.1, "Currently on CoreOS version 9.6.20250101-0");
    say("node-image-pull", 19, all.1, "Target node image is quay.io/openshift/x@sha256:1");
    say("node-image-pull", 19, all.1, "Pulling quay.io/openshift/x@sha256:1");
    say("node-image-pull", 19, all.1, "Checking out node image content");
    say("node-image-pull", 19, all.1, "Finished Node Image Pull.");
    say("node-image-overlay", 19, all.1, "Overlaying node image content");
    say("node-image-overlay", 19, all.1, "Finished Node Image Overlay.");
    say("node-image-finish", 19, all.1, "Node image overlay complete; switching back to multi-user.target");
    say("node-image-finish", 19, all.1, "Finished Node Image Finish.");
    say("release-image", 0, all.1, "Pulling mirror.example.com:8443/ocp/release@sha256:2...");
    say("release-image", 0, all.1, "Finished Download the OpenShift Release Image.");
    say("bootkube", 0, all.1, "Started Bootstrap a Kubernetes cluster.");
    say("approve-csr", 0, all.1, "Approving all CSR requests until bootstrapping is complete...");
    say("progress", 0, all.1, "Waiting for bootstrap to complete...");
    let mut say = |from: u32, until: u32, text: &str| say("bootkube", from, until, text);
    say(0, all.1, "Moving OpenShift manifests in with the rest of them");
    say(15, all.1, "Rendering api manifests...");
    say(19, all.1, "Rendering auth api manifests...");
    say(15, all.1, "Rendering cluster config manifests...");
    say(0, all.1, "Rendering Cluster Version Operator Manifests...");
    say(0, all.1, "Rendering CEO Manifests...");
    say(0, 14, "Rendering cluster config manifests...");
    say(0, all.1, "Rendering Kubernetes API server core manifests...");
    say(0, all.1, "Rendering Kubernetes Controller Manager core manifests...");
    say(0, all.1, "Rendering Kubernetes Scheduler core manifests...");
    say(0, all.1, "Rendering Ingress Operator core manifests...");
    say(13, all.1, "Rendering Node Tuning core manifests...");
    say(0, all.1, "Rendering MCO manifests...");
    say(12, 12, "Checking validity of api.c1.example.com of type API_URL");
    say(12, 12, "Checking validity of api-int.c1.example.com of type API_INT_URL");
    say(13, 15, "Check if API and API-Int URLs are resolvable during bootstrap");
    say(16, all.1, "Check if API URL is resolvable during bootstrap");
    say(13, all.1, "Checking if api.c1.example.com of type API_URL is resolvable");
    say(13, all.1, "Starting stage resolve-api-url");
    say(13, all.1, "Successfully resolved API_URL api.c1.example.com");
    say(16, all.1, "Check if API-Int URL is resolvable during bootstrap");
    say(13, all.1, "Checking if api-int.c1.example.com of type API_INT_URL is resolvable");
    say(13, all.1, "Successfully resolved API_INT_URL api-int.c1.example.com");
    say(0, all.1, "Rendering CCO manifests...");
    say(0, all.1, "Starting cluster-bootstrap...");
    say(0, all.1, "Starting temporary bootstrap control plane...");
    say(0, all.1, "Waiting up to 20m0s for the Kubernetes API");
    say(0, all.1, "API is up");
    say(0, all.1, r#"[#3] failed to create some manifests:"#);
    say(0, all.1, "Pod Status:openshift-kube-apiserver/kube-apiserver\tReady");
    say(0, all.1, "All self-hosted control plane components successfully started");
    say(
        13,
        17,
        "Waiting for 2 masters to joinSending bootstrap-success event.Waiting for remaining assets to be created.",
    );
    say(18, all.1, "Waiting for self hosted control plane to be available");
    say(18, all.1, "Sending bootstrap-success event.");
    say(0, all.1, "Tearing down temporary bootstrap control plane...");
    say(0, all.1, "Restoring CVO overrides");
    say(0, all.1, "Waiting for CEO to finish...");
    say(0, all.1, "waiting on condition EtcdRunningInCluster in etcd CR /cluster to be True.");
    say(0, all.1, "Cluster etcd operator bootstrapped successfully");
    say(13, 15, "Check if API and API-Int URLs are reachable during bootstrap");
    say(16, all.1, "Check if API URL is reachable during bootstrap");
    say(13, all.1, "Checking if api.c1.example.com of type API_URL reachable");
    say(13, all.1, "Success while trying to reach API_URL's https endpoint at https://api.c1.example.com:6443/readyz");
    say(16, all.1, "Check if API-Int URL is reachable during bootstrap");
    say(13, all.1, "Checking if api-int.c1.example.com of type API_INT_URL reachable");
    say(
        13,
        all.1,
        "Success while trying to reach API_INT_URL's https endpoint at https://api-int.c1.example.com:6443/readyz",
    );
    say(0, all.1, "bootkube.service complete");
    run.push_str("progress: Reporting install progress...\nprogress: configmap/bootstrap created\n");
    run.push_str("approve-csr: approve-csr.service: Deactivated successfully.\n");
    run
}

#[test]
fn a_clean_run_of_each_release_ends_with_every_stage_done() {
    for version in ["4.12.30", "4.14.2", "4.15.1", "4.18.12", "4.20.3", "4.22.0-ec.1", "nightly"] {
        let run = clean_run(if version == "nightly" { "4.99" } else { version });
        let told = play(&mut Recogniser::new(version), &run);
        let ends = ends(&told);
        let undone: Vec<_> = ends.iter().filter(|(_, state)| state != "Done").collect();
        assert!(undone.is_empty(), "{version}: {undone:?}");
        let order: Vec<&str> = ends.iter().map(|(stage, _)| stage.as_str()).collect();
        let seen: BTreeSet<&str> = order.iter().copied().collect();
        // The line that tells of it is printed only when it failed, or only at the very end.
        let silent = ["image-metadata-arches-match", "wait-for-ha-api"];
        let missing: Vec<_> = bootkube::stages(version)
            .into_iter()
            .filter(|(_, stage)| !seen.contains(stage) && !silent.contains(stage))
            .collect();
        assert!(missing.is_empty(), "{version}: {missing:?}");
        assert!(!told.iter().any(|told| told.ends_with("Failed") || told.ends_with("Warned")), "{version}: {told:?}");
        let bootkube: Vec<&str> = bootkube::stages(version)
            .into_iter()
            .filter(|(unit, _)| *unit == "bootkube")
            .map(|(_, stage)| stage)
            .collect();
        let began: Vec<&str> = order.into_iter().filter(|stage| bootkube.contains(stage)).collect();
        assert_eq!(began, bootkube, "{version}");
    }
}

#[test]
fn a_stage_that_dies_and_starts_again_is_counted() {
    let mut recogniser = Recogniser::new("4.18.1");
    let told = play(
        &mut recogniser,
        "bootkube: Started Bootstrap a Kubernetes cluster.
         bootkube: Rendering api manifests...
         bootkube: Error: initializing source docker://mirror:8443/x: manifest unknown
         bootkube: bootkube.service: Main process exited, code=exited, status=125/n/a
         bootkube: bootkube.service: Failed with result 'exit-code'.
         bootkube: bootkube.service: Scheduled restart job, restart counter is at 1.
         bootkube: Started Bootstrap a Kubernetes cluster.
         bootkube: Rendering api manifests...
         bootkube: Rendering cluster config manifests...",
    );
    assert_eq!(
        told,
        [
            "[bootkube] running 0",
            "api-bootstrap Running",
            "api-bootstrap Failed",
            "[bootkube] failed: code=exited, status=125/n/a 0",
            "[bootkube] failed: exit-code 0",
            "[bootkube] restarting 1",
            "[bootkube] running 1",
            "api-bootstrap Running",
            "api-bootstrap Done",
            "config-bootstrap Running",
        ]
    );

    // The words of the error are the evidence, not the line of systemd.
    let mut recogniser = Recogniser::new("4.18.1");
    let line = |text: &str| LogLine {
        at: Timestamp::UNIX_EPOCH,
        unit: "bootkube".into(),
        level: Level::Info,
        text: text.into(),
        cursor: None,
    };
    recogniser.feed(&line("Rendering api manifests..."));
    recogniser.feed(&line("Error: manifest unknown"));
    let died = recogniser.feed(&line("bootkube.service: Main process exited, code=exited, status=125/n/a"));
    assert!(
        matches!(&died[0], Observed::Bootkube { state: BootStage::Failed, evidence, .. } if evidence == "Error: manifest unknown")
    );

    // The unit started again, and its death was in a stretch of the journal that is not there.
    let told = play(&mut recogniser, "bootkube: Rendering api manifests...\nbootkube: Rendering api manifests...");
    assert_eq!(told, ["api-bootstrap Running", "api-bootstrap Failed", "api-bootstrap Running"]);
}

#[test]
fn a_pull_that_fails_in_a_tight_loop_is_told_once() {
    let mut run = "release-image: Pulling mirror:8443/ocp/release@sha256:1...\n".to_owned();
    for _ in 0..50 {
        run.push_str("release-image: Error: x509: certificate signed by unknown authority\n");
        run.push_str("release-image: Pull failed. Retrying mirror:8443/ocp/release@sha256:1...\n");
    }
    run.push_str("release-image: Finished Download the OpenShift Release Image.\n");
    let told = play(&mut Recogniser::new("4.18.1"), &run);
    assert_eq!(
        told,
        [
            "pull-release-image Running",
            "pull-release-image Failed",
            "[release-image] finished 0",
            "pull-release-image Done"
        ]
    );
}

#[test]
fn an_unreachable_url_is_a_warning_and_bootkube_goes_on() {
    let told = play(
        &mut Recogniser::new("4.18.1"),
        "bootkube: Check if API URL is resolvable during bootstrap
         bootkube: Checking if api.c1.example.com of type API_URL is resolvable
         bootkube: Unable to resolve API_URL api.c1.example.com
         bootkube: Rendering CCO manifests...
         bootkube: etcdctl failed. Retrying in 5 seconds...
         bootkube: Starting cluster-bootstrap...
         bootkube: Error: error while checking pod status: timed out waiting for the condition
         bootkube: Tearing down temporary bootstrap control plane...
         bootkube: bootkube.service: Main process exited, code=exited, status=1/FAILURE
         bootkube: Starting cluster-bootstrap...
         bootkube: Restoring CVO overrides",
    );
    let ends = ends(&told);
    let state = |stage: &str| ends.iter().find(|(have, _)| have == stage).map(|(_, state)| state.as_str());
    assert_eq!(state("resolve-api-url"), Some("Warned"));
    assert_eq!(state("wait-for-etcd"), Some("Done"));
    assert_eq!(state("cb-bootstrap"), Some("Done"));
    let cb: Vec<&String> = told.iter().filter(|told| told.starts_with("cb-bootstrap")).collect();
    assert_eq!(cb, ["cb-bootstrap Running", "cb-bootstrap Failed", "cb-bootstrap Running", "cb-bootstrap Done"]);
}

#[test]
fn the_service_record_confirms_and_does_not_contradict() {
    let file = br#"[
      {"timestamp":"2025-03-01T10:00:00Z","phase":"service start"},
      {"timestamp":"2025-03-01T10:00:01Z","phase":"stage start","stage":"openshift-manifests"},
      {"timestamp":"2025-03-01T10:00:02Z","phase":"stage end","stage":"openshift-manifests","result":"success"},
      {"timestamp":"2025-03-01T10:00:03Z","phase":"stage start","stage":"brand-new-bootstrap"},
      {"timestamp":"2025-03-01T10:00:09Z","phase":"stage end","stage":"brand-new-bootstrap","result":"failure","errorLine":"1 main /usr/local/bin/bootkube.sh","errorMessage":"Rendering\nError: manifest unknown\nbye"},
      {"timestamp":"2025-03-01T10:00:09Z","phase":"service end","result":"failure"},
      {"timestamp":"2025-03-01T10:00:14Z","phase":"service start"},
      {"timestamp":"2025-03-01T10:00:15Z","phase":"stage end","stage":"resolve-api-url","result":"failure"}
    ]"#;
    let entries = records::parse(file).unwrap();
    let mut recogniser = Recogniser::new("4.18.1");
    let told = recogniser.confirm("bootkube", &entries);
    assert!(
        told.iter().any(|told| matches!(told, Observed::Bootkube { stage, state: BootStage::Failed, evidence, .. }
        if stage == "brand-new-bootstrap" && evidence == "Error: manifest unknown"))
    );
    let told: Vec<String> = told.into_iter().map(short).collect();
    assert_eq!(
        told,
        [
            "[bootkube] running 1",
            "openshift-manifests Running",
            "openshift-manifests Done",
            "brand-new-bootstrap Running",
            "brand-new-bootstrap Failed",
            "resolve-api-url Warned"
        ]
    );
    assert!(recogniser.confirm("bootkube", &entries).is_empty());
    // A line that came later stands against the record.
    let later = LogLine {
        at: "2025-03-01T10:05:00Z".parse().unwrap(),
        unit: "bootkube".into(),
        level: Level::Info,
        text: "Moving OpenShift manifests in with the rest of them".into(),
        cursor: None,
    };
    assert_eq!(recogniser.feed(&later).len(), 1);
    assert!(recogniser.confirm("bootkube", &entries).is_empty());
    // Lines that come after the record, of a time before it, begin nothing a second time.
    let mut behind = Recogniser::new("4.18.1");
    behind.confirm("bootkube", &entries);
    assert!(behind.feed(&LogLine { at: "2025-03-01T10:00:01.8Z".parse().unwrap(), ..later.clone() }).is_empty());
    assert_eq!(behind.feed(&later).len(), 1);
    let error =
        records::parse(br#"[{"timestamp":"2025-03-01T10:00:00Z"},{"timestamp":"noon","phase":"x"}]"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"entry 2 of a service record: timestamp should be a time such as 2025-03-01T10:00:00Z, found "noon""#
    );
}

const INSTALLER_LOG: &str = r#"time="2025-03-01T10:00:00Z" level=debug msg="OpenShift Installer 4.18.12"
time="2025-03-01T10:00:01Z" level=info msg="Consuming Install Config from target directory"
time="2025-03-01T10:00:02Z" level=info msg="Creating infrastructure resources..."
time="2025-03-01T10:01:00Z" level=info msg="Waiting up to 15m0s (until 10:16AM UTC) for network infrastructure to become ready..."
time="2025-03-01T10:03:00Z" level=info msg="Waiting up to 15m0s (until 10:18AM UTC) for machines [c1-abcde-bootstrap c1-abcde-master-0] to provision..."
time="2025-03-01T10:06:00Z" level=info msg="Waiting up to 20m0s (until 10:26AM UTC) for the Kubernetes API at https://api.c1.example.com:6443..."
time="2025-03-01T10:06:10Z" level=debug msg="Still waiting for the Kubernetes API: Get \"https://api.c1.example.com:6443/version\": EOF"
time="2025-03-01T10:09:00Z" level=info msg="API v1.31.7 up"
time="2025-03-01T10:09:01Z" level=info msg="Waiting up to 45m0s (until 10:54AM UTC) for bootstrapping to complete..."
time="2025-03-01T10:30:00Z" level=info msg="Destroying the bootstrap resources..."
time="2025-03-01T10:31:00Z" level=info msg="Waiting up to 40m0s (until 11:11AM UTC) for the cluster at https://api.c1.example.com:6443 to initialize..."
time="2025-03-01T10:32:00Z" level=debug msg="Still waiting for the cluster to initialize: Working towards 4.18.12: 731 of 959 done (76% complete), waiting on console"
time="2025-03-01T10:50:00Z" level=info msg="Waiting up to 30m0s (until 11:20AM UTC) to ensure each cluster operator has finished progressing..."
time="2025-03-01T10:52:00Z" level=info msg="Checking to see if there is a route at openshift-console/console..."
panic: something that is no logrus line
time="2025-03-01T10:53:00Z" level=info msg="Install complete!"
time="2025-03-01T10:53:01Z" level=info msg="To access the cluster as the system:admin user when using 'oc', run\n    export KUBECONFIG=/root/c1/auth/kubeconfig"
time="2025-03-01T10:53:02Z" level=info msg="Login to the console with user: \"kubeadmin\", and password: \"aBcDe-12345-fGhIj-67890\"""#;

#[tokio::test]
async fn the_installer_s_log_gives_phases_with_deadlines_and_no_password() {
    let (sink, mut records) = Sink::channel(1000);
    let mut offset = 0;
    let lines: Vec<Result<(u64, String), std::io::Error>> = INSTALLER_LOG
        .lines()
        .map(|line| {
            offset += line.len() as u64 + 1;
            Ok((offset, line.to_owned()))
        })
        .collect();
    let out = Out::new(sink, CancellationToken::new());
    installer::follow(futures::stream::iter(lines), installer::Phases::new(), "/home/core/install-1", &out)
        .await
        .unwrap();
    drop(out);
    let (mut phases, mut texts, mut last) = (Vec::new(), Vec::new(), None);
    while let Some(record) = records.recv().await {
        match record {
            Recorded::Lines { source, lines } => {
                assert_eq!(source, "installer");
                last = lines.last().and_then(|line| line.cursor.clone());
                texts.extend(lines.into_iter().map(|line| line.text));
            }
            Recorded::Event(data, _) => match *data {
                Data::Observed(Observed::Installer { phase, message, deadline, .. }) => {
                    phases.push((phase, message, deadline))
                }
                other => panic!("{other:?}"),
            },
            Recorded::Model(_) | Recorded::Finish => {}
        }
    }
    assert_eq!(texts.len(), INSTALLER_LOG.lines().count());
    assert_eq!(last, Some(format!("/home/core/install-1#{offset}")));
    assert!(!texts.iter().any(|text| text.contains("aBcDe")), "{texts:?}");
    assert_eq!(texts[17], r#"Login to the console with user: "kubeadmin", and password: "[redacted]""#);
    assert!(texts[16].ends_with("run     export KUBECONFIG=/root/c1/auth/kubeconfig"), "{}", texts[16]);
    let mut names: Vec<&str> = phases.iter().map(|(phase, _, _)| phase.as_str()).collect();
    names.dedup();
    assert_eq!(
        names,
        [
            "prepare",
            "infrastructure",
            "network",
            "machines",
            "kubernetes-api",
            "bootstrap",
            "bootstrap-destroy",
            "initialize",
            "stable",
            "console",
            "complete"
        ]
    );
    let deadline =
        |phase: &str| phases.iter().find(|(have, _, _)| have == phase).and_then(|(_, _, deadline)| *deadline);
    assert_eq!(deadline("bootstrap"), Some("2025-03-01T10:54:01Z".parse().unwrap()));
    assert!(phases.iter().any(|(phase, message, _)| phase == "initialize" && message.contains("731 of 959")));
    // The password is a secret from now on, wherever it turns up.
    assert_eq!(bartizan::spec::secret::redact("x aBcDe-12345-fGhIj-67890"), "x [redacted]");
}

#[test]
fn an_operator_row_is_what_oc_get_co_shows() {
    let object = |conditions: serde_json::Value| {
        json!({"metadata": {"name": "ingress"}, "status": {
            "versions": [{"name": "router", "version": "x"}, {"name": "operator", "version": "4.18.12"}],
            "conditions": conditions}})
    };
    let condition = |kind: &str, status: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": format!("{kind}Reason"), "message": message,
               "lastTransitionTime": "2025-03-01T10:00:00Z"})
    };
    let row = operators::operator(&object(json!([
        condition("Available", "False", "The \u{1b}[31mdefault\u{1b}[0m ingress controller\nis not ready"),
        condition("Degraded", "True", "worse"),
        condition("Progressing", "True", "slow"),
    ])))
    .unwrap();
    assert_eq!((row.available, row.progressing, row.degraded), (Tri::False, Tri::True, Tri::True));
    assert_eq!(
        (row.version.as_deref(), row.message.as_str()),
        (Some("4.18.12"), "The default ingress controller\nis not ready")
    );
    assert_eq!(row.since, Some("2025-03-01T10:00:00Z".parse().unwrap()));
    let row = operators::operator(&object(json!([
        condition("Available", "True", "fine"),
        condition("Degraded", "True", "")
    ])));
    assert_eq!(row.unwrap().message, "DegradedReason");
    let early = operators::operator(&json!({"metadata": {"name": "console"}})).unwrap();
    assert_eq!((early.available, early.message.as_str()), (Tri::Absent, ""));
    assert_eq!(operators::health(&early), operators::Health::Pending);
    let error =
        operators::operator(&json!({"metadata": {"name": "console"}, "status": {"conditions": 5}})).unwrap_err();
    assert!(error.to_string().starts_with(r#"clusteroperator "console": "#), "{error}");
}

/// A request of a kubelet as it is in the API, with a subject of our choice.
fn signing_request(name: &str, group: &str, signer: &str, requester: &str) -> serde_json::Value {
    use base64::Engine;
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let request = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({"metadata": {"name": "csr-8vnps", "creationTimestamp": "2025-03-01T10:00:00Z"}, "spec": {
        "request": request, "signerName": signer, "username": requester,
        "usages": ["digital signature", "client auth"]}})
}

#[test]
fn a_signing_request_of_a_joining_node_raises_no_doubt_and_a_strange_one_does() {
    let bootstrapper = "system:serviceaccount:openshift-machine-config-operator:node-bootstrapper";
    let now = "2025-03-01T10:10:00Z".parse().unwrap();
    let nodes = ["ip-10-0-1-5".to_owned()];
    let good = signing_request("system:node:ip-10-0-1-5", "system:nodes", csr::CLIENT, bootstrapper);
    let good = csr::Request::parse(&good).unwrap();
    assert_eq!((good.state, good.node()), (CsrState::Pending, Some("ip-10-0-1-5")));
    assert!(good.hesitations(now, &nodes).is_empty(), "{:?}", good.hesitations(now, &nodes));
    let bad = signing_request("admin", "system:masters", "kubernetes.io/kube-apiserver-client", "system:anonymous");
    let doubts = csr::Request::parse(&bad).unwrap().hesitations("2025-03-01T13:00:00Z".parse().unwrap(), &nodes);
    assert_eq!(doubts.len(), 3, "{doubts:?}");
    let other = signing_request("system:node:evil", "system:nodes", csr::SERVING, "system:node:ip-10-0-1-5");
    let doubts = csr::Request::parse(&other).unwrap().hesitations(now, &nodes);
    assert!(doubts.iter().any(|doubt| doubt.contains("who is not that node")), "{doubts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_installer_line_is_an_entry_or_an_error_with_a_place(line in mangled(&[
        r#"time="2025-03-01T10:00:00Z" level=info msg="a \"b\" \x41 \u00e4 \n c" key=value"#,
        r#"time="2025-03-01T10:00:00Z" level=warning msg=bare"#,
    ])) {
        match installer::parse(&String::from_utf8_lossy(&line)) {
            Ok(entry) => prop_assert!(!entry.message.chars().any(char::is_control)),
            Err(error) => prop_assert!(error.to_string().contains("column")),
        }
    }

    #[test]
    fn any_service_record_is_read_or_an_error_with_a_place(file in mangled(&[
        r#"[{"timestamp":"2025-03-01T10:00:00Z","phase":"service start"},{"timestamp":"2025-03-01T10:00:02Z","phase":"stage end","stage":"etcd-bootstrap","result":"failure","errorMessage":"a\nb"}]"#,
    ])) {
        match records::parse(&file) {
            Ok(entries) => drop(Recogniser::new("4.18").confirm("bootkube", &entries)),
            Err(error) => {
                let text = error.to_string();
                prop_assert!(text.contains("line ") || text.contains("entry "), "{}", text);
            }
        }
    }

    #[test]
    fn any_list_of_objects_is_read_or_an_error_with_a_place(file in mangled(&[
        r#"{"items":[{"metadata":{"name":"etcd","labels":{"node-role.kubernetes.io/master":""},"creationTimestamp":"x"},"spec":{"request":"LS0t","username":"u","usages":["a"],"signerName":"s","unschedulable":true},"status":{"versions":[{"name":"operator","version":"4"}],"conditions":[{"type":"Available","status":"True","lastTransitionTime":"2025-03-01T10:00:00Z","message":"m"}],"desired":{"version":"4"},"phase":"Running","errorMessage":null,"certificate":""}}]}"#,
    ])) {
        match cluster::list(&file) {
            Ok(objects) => for object in &objects {
                for kind in Kind::ALL {
                    if let Err(error) = kind.observe(object) {
                        prop_assert!(!error.to_string().is_empty());
                    }
                }
            },
            Err(error) => prop_assert!(error.to_string().contains("line ")),
        }
    }

    #[test]
    fn any_line_can_be_fed(lines in prop::collection::vec((0_usize..4, mangled(&[
        "bootkube.service: Main process exited, code=exited, status=1/FAILURE", "Starting cluster-bootstrap...",
        "Rendering MCO manifests...", "Pull failed. Retrying x...", "bootkube.service: Scheduled restart job, restart counter is at 7.",
    ])), 0..6)) {
        let mut recogniser = Recogniser::new("4.18");
        for (unit, text) in lines {
            let unit = ["bootkube", "release-image", "progress", ""][unit].to_owned();
            let text = String::from_utf8_lossy(&text).into_owned();
            recogniser.feed(&LogLine { at: Timestamp::UNIX_EPOCH, unit, level: Level::Info, text, cursor: None });
        }
    }
}

/// A host that only knows `oc`, whose API has no Machines yet.
struct OcHost(std::sync::atomic::AtomicUsize);

#[async_trait::async_trait]
impl Host for OcHost {
    fn name(&self) -> &str {
        "bastion"
    }
    async fn exec(&self, cmd: &Cmd) -> Result<Output, HostError> {
        let line = cmd.line();
        assert!(line.starts_with("oc --kubeconfig /c1/auth/kubeconfig --request-timeout=10s get "), "{line}");
        let round = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) / Kind::ALL.len();
        let items = if line.contains("get clusterversions.") {
            json!([{"metadata": {"name": "version"}, "status": {"desired": {"version": "4.18.12"}, "conditions": [
                {"type": "Progressing", "status": "True", "message": "Working towards 4.18.12: 7 of 9 done (77% complete)"}]}}])
        } else if line.contains("get nodes ") && round == 0 {
            json!([{"metadata": {"name": "m0", "labels": {"node-role.kubernetes.io/master": "", "node-role.kubernetes.io/control-plane": ""}},
                "status": {"conditions": [{"type": "Ready", "status": "False", "message": "no CNI"}]}}])
        } else if line.contains("get machines.") {
            let stderr = b"error: the server doesn't have a resource type \"machines\"".to_vec();
            return Ok(Output { status: 1, stdout: Vec::new(), stderr });
        } else {
            json!([])
        };
        Ok(Output { status: 0, stdout: json!({ "items": items }).to_string().into_bytes(), stderr: Vec::new() })
    }
    async fn stream(&self, _: &Cmd) -> Result<BoxStream<'static, Result<StreamItem, HostError>>, HostError> {
        Ok(futures::stream::empty().boxed())
    }
    async fn put(&self, _: &str, _: Stdin, _: u32) -> Result<(), HostError> {
        Ok(())
    }
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }
    async fn tunnel(&self, _: &str, _: u16) -> Result<Box<dyn Tunnel>, HostError> {
        Err(HostError::Link { host: "bastion".into(), why: "no tunnels here".into() })
    }
}

#[tokio::test]
async fn without_a_tunnel_oc_is_asked_and_only_changes_are_told() {
    let (sink, mut records) = Sink::channel(64);
    let out = Out::new(sink, CancellationToken::new());
    let host = Arc::new(OcHost(Default::default()));
    let changes = cluster::Changes::new();
    for _round in 0..2 {
        let asked = bartizan::watch::cluster::follow_by_oc(host.clone(), "/c1/auth/kubeconfig", &changes, &out);
        assert!(tokio::time::timeout(Duration::from_millis(500), asked).await.is_err());
    }
    drop(out);
    let mut told = Vec::new();
    while let Some(Recorded::Event(data, _)) = records.recv().await {
        told.push(*data);
    }
    let [Data::Observed(Observed::ClusterVersion(version)), Data::Observed(node), rest @ ..] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(
        matches!(
            rest,
            [
                Data::Link { state: LinkState::Up, .. },
                Data::Observed(Observed::Gone { what: Vanished::Node, name }),
                Data::Link { state: LinkState::Up, .. },
            ] if name == "m0"
        ),
        "{rest:?}"
    );
    assert_eq!((version.done, version.progressing), (Some((7, 9)), Tri::True));
    let Observed::Node { role, ready, message, .. } = node else { panic!("{node:?}") };
    assert_eq!((role.as_str(), *ready, message.as_str()), ("control-plane,master", false, "no CNI"));
}

#[cfg(feature = "lab")]
mod kube_api {
    use std::sync::Mutex;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::{Path, Query, State};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;
    use bartizan::cluster::{Changes, ClusterApi, api, follow};
    use bartizan::model::event::LinkName;
    use serde_json::Value;
    use tokio::sync::broadcast;

    use super::*;

    /// Lists of objects by plural, and a channel of watch events.
    #[derive(Clone)]
    struct Double {
        objects: Arc<Mutex<std::collections::BTreeMap<String, Vec<Value>>>>,
        events: broadcast::Sender<(String, Value)>,
        approved: Arc<Mutex<Vec<Value>>>,
    }

    async fn objects(
        State(double): State<Double>,
        Path(plural): Path<String>,
        Query(query): Query<std::collections::BTreeMap<String, String>>,
    ) -> Response {
        if query.contains_key("watch") {
            let events = double.events.subscribe();
            let lines = futures::stream::unfold((events, plural), |(mut events, plural)| async move {
                loop {
                    let (of, event) = events.recv().await.ok()?;
                    if of == plural {
                        return Some((Ok::<_, std::io::Error>(format!("{event}\n")), (events, plural)));
                    }
                }
            });
            return Body::from_stream(lines).into_response();
        }
        match double.objects.lock().unwrap().get(&plural) {
            Some(items) => {
                let list =
                    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
                axum::Json(list).into_response()
            }
            None => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "the server could not find the requested resource"});
                (StatusCode::NOT_FOUND, axum::Json(status)).into_response()
            }
        }
    }

    async fn approve(State(double): State<Double>, axum::Json(patch): axum::Json<Value>) -> Response {
        double.approved.lock().unwrap().push(patch);
        axum::Json(json!({"metadata": {"name": "csr-1"}, "spec": {"request": "", "signerName": "s"}})).into_response()
    }

    fn operator(name: &str, available: &str, version: &str) -> Value {
        json!({"apiVersion": "config.openshift.io/v1", "kind": "ClusterOperator",
            "metadata": {"name": name, "resourceVersion": version},
            "status": {"conditions": [{"type": "Available", "status": available, "message": format!("{name} says so")}]}})
    }

    async fn next(records: &mut tokio::sync::mpsc::Receiver<Recorded>) -> Data {
        match tokio::time::timeout(Duration::from_secs(20), records.recv()).await {
            Ok(Some(Recorded::Event(data, _))) => *data,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_watch_tells_changes_and_only_changes() {
        let double = Double { objects: Arc::default(), events: broadcast::channel(16).0, approved: Arc::default() };
        double
            .objects
            .lock()
            .unwrap()
            .insert("clusteroperators".into(), vec![operator("etcd", "True", "1"), operator("dns", "False", "1")]);
        let router = Router::new()
            .route(
                "/version",
                get(|| async {
                    axum::Json(json!({"major": "1", "minor": "31", "gitVersion": "v1.31.7",
                "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}))
                }),
            )
            .route(
                "/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}/approval",
                axum::routing::patch(approve),
            )
            .route(
                "/apis/{group}/{version}/{plural}",
                get(|state: State<Double>, Path((_, _, plural)): Path<(String, String, String)>, query| async move {
                    objects(state, Path(plural), query).await
                }),
            )
            .route("/api/v1/{plural}", get(objects))
            .with_state(double.clone());

        // TLS with the cluster's own CA, for the cluster's own name, on a loopback port.
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer_cert = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["api-int.c1.example.com".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let tls =
            axum_server::tls_rustls::RustlsConfig::from_pem(leaf.pem().into_bytes(), key.serialize_pem().into_bytes());
        let tls = tls.await.unwrap();
        let handle = axum_server::Handle::new();
        let server = axum_server::bind_rustls("127.0.0.1:0".parse().unwrap(), tls).handle(handle.clone());
        let serving = tokio::spawn(server.serve(router.into_make_service()));
        let local = handle.listening().await.unwrap();

        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(issuer_cert.pem());
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: admin\n\
             clusters:\n- name: c1\n  cluster:\n    server: https://api-int.c1.example.com:6443\n    certificate-authority-data: {ca}\n\
             contexts:\n- name: admin\n  context: {{cluster: c1, user: admin}}\n\
             users:\n- name: admin\n  user: {{token: secret-token}}\n"
        );
        assert_eq!(api::server(kubeconfig.as_bytes()).unwrap(), ("api-int.c1.example.com".to_owned(), 6443));
        let client = ClusterApi::new(kubeconfig.as_bytes(), local).await.unwrap();
        assert_eq!(client.version().await.unwrap(), "v1.31.7");

        let (sink, mut records) = Sink::channel(64);
        let cancel = CancellationToken::new();
        let task = {
            let (client, cancel) = (client.clone(), cancel.clone());
            tokio::spawn(async move { follow(&client, &Changes::new(), &sink, &cancel).await })
        };
        assert!(matches!(next(&mut records).await, Data::Link { link: LinkName::Api, state: LinkState::Up }));
        let mut names = Vec::new();
        for _ in 0..2 {
            let Data::Observed(Observed::Operator(operator)) = next(&mut records).await else { panic!("no operator") };
            names.push((operator.name, operator.available));
        }
        assert_eq!(names, [("etcd".to_owned(), Tri::True), ("dns".to_owned(), Tri::False)]);

        while double.events.receiver_count() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let tell = |kind: &str, object: Value| {
            double.events.send(("clusteroperators".into(), json!({"type": kind, "object": object}))).unwrap();
        };
        tell("MODIFIED", operator("etcd", "True", "2"));
        tell("MODIFIED", operator("dns", "True", "3"));
        tell("DELETED", operator("etcd", "True", "4"));
        let Data::Observed(Observed::Operator(dns)) = next(&mut records).await else { panic!("no operator") };
        assert_eq!((dns.name.as_str(), dns.available), ("dns", Tri::True));
        assert!(matches!(next(&mut records).await, Data::Observed(Observed::OperatorGone { name }) if name == "etcd"));

        // The API has forgotten where the watch was: all is listed again, and what went meanwhile is cleared.
        let now = vec![operator("console", "True", "9")];
        double.objects.lock().unwrap().insert("clusteroperators".into(), now);
        let expired = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
            "message": "too old resource version: 4 (9)"});
        tell("ERROR", expired);
        let Data::Observed(Observed::Operator(console)) = next(&mut records).await else { panic!("no operator") };
        assert_eq!(console.name, "console");
        assert!(matches!(next(&mut records).await, Data::Observed(Observed::OperatorGone { name }) if name == "dns"));

        client.approve("csr-1", "checked by the test").await.unwrap();
        assert_eq!(double.approved.lock().unwrap()[0]["status"]["conditions"][0]["type"], "Approved");

        // The way to the API goes away: the link says so, once per attempt, with the reason.
        handle.shutdown();
        serving.await.unwrap().unwrap();
        let down = next(&mut records).await;
        assert!(
            matches!(&down, Data::Link { link: LinkName::Api, state: LinkState::Retrying { attempt: 1, .. } }),
            "{down:?}"
        );
        cancel.cancel();
        task.await.unwrap();
        assert!(client.version().await.is_err());
    }

    #[tokio::test]
    async fn a_kubeconfig_from_afar_runs_nothing_here() {
        for user in ["{exec: {command: touch, apiVersion: v1, args: [/tmp/x]}}", "{tokenFile: /etc/shadow}"] {
            let kubeconfig = format!(
                "clusters:\n- name: c\n  cluster: {{server: 'https://h:6443'}}\n\
                 users:\n- name: u\n  user: {user}\n"
            );
            let error = ClusterApi::new(kubeconfig.as_bytes(), "127.0.0.1:1".parse().unwrap()).await.err().unwrap();
            assert!(error.to_string().contains("must be embedded"), "{error}");
        }
    }
}
