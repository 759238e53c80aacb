//! Known failures are recognised, clean runs are not accused, and hostile text changes nothing.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod corpus;
mod kept;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use bartizan::diagnose::checklist::{Expect, judge};
use bartizan::diagnose::offline::{self, Limits};
use bartizan::diagnose::proof::{self, Fault};
use bartizan::diagnose::recovery::{Because, Danger, Fix, Resume};
use bartizan::diagnose::signature::{Catalogue, Example};
use bartizan::diagnose::{Checklists, Matcher, Recovery};
use bartizan::host::{Cmd, Host, HostError, Output, Stdin, StreamItem, Tunnel};
use bartizan::model::cause::UNKNOWN;
use bartizan::model::event::{
    BootStage, CheckState, CsrState, Data, Finding, ImageState, Level, LogLine, Observed, SyncEvent,
};
use bartizan::record::sink::{Entry, Sink};
use futures::stream::BoxStream;
use jiff::Timestamp;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_740_823_200 + second).expect("a time of 2025")
}

fn line(unit: &str, second: i64, text: &str) -> LogLine {
    LogLine { at: at(second), unit: unit.into(), level: Level::Info, text: text.into(), cursor: None }
}

fn opened(told: &[Data]) -> Vec<Finding> {
    let finding = |data: &Data| match data {
        Data::FindingOpened { finding } => Some(finding.clone()),
        _ => None,
    };
    told.iter().filter_map(finding).collect()
}

/// The signatures as they are in the folder, so that they can be tuned without building.
fn catalogue() -> Catalogue {
    static READ: std::sync::OnceLock<Catalogue> = std::sync::OnceLock::new();
    let read = || {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/signatures");
        let names = bartizan::diagnose::signature::FILES.iter().map(|(name, _)| *name);
        let texts: Vec<(&str, String)> = names
            .map(|name| (name, std::fs::read_to_string(folder.join(format!("{name}.toml"))).expect("a signature file")))
            .collect();
        let files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
        Catalogue::parse(&files).unwrap_or_else(|error| panic!("{error}"))
    };
    READ.get_or_init(read).clone()
}

/// What every example is taken for: a signature on the left, what its examples were taken for on the right. It has to be
/// a diagonal.
#[test]
fn the_confusion_matrix_is_a_diagonal() {
    let catalogue = catalogue();
    let mut matrix: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for signature in catalogue.signatures() {
        let faults = proof::faults(&catalogue, signature);
        let taken_by = |fault: &Fault| match fault {
            Fault::Taken { by, line } => Some((by.clone(), line.clone())),
            Fault::Missed(line) => Some(("nothing".to_owned(), line.clone())),
            _ => None,
        };
        let beside: Vec<(String, String)> = faults.iter().filter_map(taken_by).collect();
        *matrix.entry((&signature.id, signature.id.clone())).or_default() += signature.examples.len() - beside.len();
        for (by, line) in beside {
            println!("beside the diagonal: {} {by} {line}", signature.id);
            *matrix.entry((&signature.id, by)).or_default() += 1;
        }
        wrong.extend(faults.into_iter().map(|fault| format!("{}: {fault}", signature.id)));
    }
    for ((own, taken), count) in &matrix {
        println!("{own:<22} {taken:<22} {count}");
    }
    let beside = matrix.keys().filter(|(own, taken)| own != taken).count();
    println!("{} signatures, {beside} beside the diagonal", catalogue.signatures().len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A file's reader takes lines apart before they are held against the catalogue, and does not know who speaks: others may
/// understand a line too, but somebody has to.
#[test]
fn every_example_is_known_in_a_file_too() {
    let catalogue = catalogue();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.log");
    let mut missed = Vec::new();
    for signature in catalogue.signatures().iter().filter(|known| known.severity != Level::Debug) {
        for example in &signature.examples {
            std::fs::write(&path, &example.line).expect("written");
            let report = offline::diagnose_with(&catalogue, &path, Limits::default()).expect("a report");
            if report.findings.iter().all(|located| located.finding.signature == UNKNOWN) {
                missed.push(format!("{}: {}", signature.id, example.line));
            }
        }
    }
    assert!(missed.is_empty(), "{} examples are missed: {missed:#?}", missed.len());
}

#[test]
fn every_signature_says_what_a_person_needs() {
    let catalogue = catalogue();
    assert!(catalogue.signatures().len() >= 130);
    let stages: Vec<String> =
        bartizan::stages::plan().expect("the plan").stages.iter().map(|stage| stage.id.to_string()).collect();
    for signature in catalogue.signatures() {
        let id = &signature.id;
        assert!(signature.checklist.is_some() || signature.severity == Level::Debug, "{id} has no checklist");
        assert!(signature.resume == "live" || stages.contains(&signature.resume), "{id}: {}", signature.resume);
        // Error codes of AWS have one form and one table of advice.
        if signature.area == "aws" {
            continue;
        }
        assert!(signature.examples.len() >= 2, "{id} has one example");
        assert!(!signature.counter_examples.is_empty(), "{id} has no line that looks alike");
        assert!(!signature.fix.is_empty() && !signature.refs.is_empty(), "{id} has no fix or no reference");
        let lines: Vec<&str> = signature.examples.iter().map(|example| example.line.as_str()).collect();
        assert!(
            lines.iter().all(|line| lines.iter().filter(|other| *other == line).count() == 1),
            "{id} twice the same"
        );
    }
}

#[test]
fn every_data_file_is_read_and_every_entry_is_used() {
    let catalogue = catalogue();
    let folder = |name: &str, listed: Vec<&str>| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name);
        let mut found: Vec<String> = std::fs::read_dir(path)
            .expect("the folder of the data")
            .map(|entry| entry.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        let mut listed: Vec<String> = listed.into_iter().map(str::to_owned).collect();
        found.sort();
        listed.sort();
        assert_eq!(found, listed);
    };
    folder("signatures", bartizan::diagnose::signature::FILES.iter().map(|(name, _)| *name).collect());
    folder("checklists", bartizan::diagnose::checklist::FILES.iter().map(|(name, _)| *name).collect());
    let checklists = Checklists::builtin().expect("the built-in checklists are valid");
    checklists.check(&catalogue).expect("checklists and signatures fit");
    assert_eq!(Recovery::check(&catalogue).expect("the built-in recoveries are valid"), 19);
    for id in ["aws", "ssh", "registry", "sync", "config", "bootstrap", "bootkube", "nodes", "operators"] {
        assert!(catalogue.signatures().iter().filter(|known| known.area == id).count() >= 5, "{id}");
    }
}

const DIGEST: &str = "sha256:70bae4a1f2fde3da6a39a8b1cdfcf1a3cd9b1d2de6bb0b7b4c8e8e0b6d9a1c11";

/// An installation without trouble, with the noise that every installation makes: `source unit second text`.
fn happy() -> Vec<(&'static str, &'static str, i64, String)> {
    let mut lines: Vec<(&str, &str, i64, String)> = Vec::new();
    let boot = "journal:bootstrap";
    for (unit, second, text) in [
        ("node-image-pull", 0, "Currently on CoreOS version 9.6.20250523-0"),
        ("node-image-pull", 5, "Failed to query release image; retrying..."),
        ("node-image-pull", 40, "Checking out node image content"),
        ("release-image", 90, "Pulling quay.io/openshift-release-dev/ocp-release@sha256:70ba..."),
        ("release-image", 100, "Finished Download the OpenShift Release Image."),
        (
            "kubelet",
            105,
            r#"E0301 1 kubelet_node_status.go:96] "Unable to register node with API server" err="Post \"https://localhost:6443/api/v1/nodes\": dial tcp [::1]:6443: connect: connection refused""#,
        ),
        (
            "kubelet",
            106,
            r#"Readiness probe failed: Get "https://10.128.0.5:8443/healthz": dial tcp 10.128.0.5:8443: connect: connection refused"#,
        ),
        ("bootkube", 110, "Moving OpenShift manifests in with the rest of them"),
        ("bootkube", 115, "Rendering api manifests..."),
        ("bootkube", 130, "Rendering CEO Manifests..."),
        ("bootkube", 170, "Rendering MCO manifests..."),
        ("bootkube", 180, "Check if API URL is resolvable during bootstrap"),
        ("bootkube", 181, "Successfully resolved API_URL api.c1.ex.com"),
        ("bootkube", 190, "https://localhost:2379 is unhealthy: failed to commit proposal: context deadline exceeded"),
        (
            "bootkube",
            190,
            r#"{"level":"warn","msg":"retrying of unary invoker failed","error":"rpc error: dial tcp [::1]:2379: connect: connection refused"}"#,
        ),
        ("bootkube", 190, "Error: unhealthy cluster"),
        ("bootkube", 190, "etcdctl failed. Retrying in 5 seconds..."),
        ("bootkube", 230, "https://localhost:2379 is healthy: successfully committed proposal: took = 8ms"),
        ("bootkube", 231, "Starting cluster-bootstrap..."),
        ("bootkube", 232, "Waiting up to 20m0s for the Kubernetes API"),
        (
            "bootkube",
            233,
            r#"Still waiting for the Kubernetes API: Get "https://localhost:6443/readyz": dial tcp [::1]:6443: connect: connection refused"#,
        ),
        ("bootkube", 260, "API is up"),
        ("bootkube", 300, "\tPod Status:openshift-kube-apiserver/kube-apiserver\tDoesNotExist"),
        ("bootkube", 700, "\tPod Status:openshift-kube-apiserver/kube-apiserver\tReady"),
        ("bootkube", 900, "All self-hosted control plane components successfully started"),
        (
            "bootkube",
            905,
            "polling will continue, last status: kubeapiservers/cluster NodeStatuses:  [ip-10-0-1-5 at Current: 0, Traget: 5]",
        ),
        ("bootkube", 1000, "Sending bootstrap-finished event.Tearing down temporary bootstrap control plane..."),
        ("bootkube", 1010, "Waiting for CEO to finish..."),
        ("bootkube", 1011, "waiting on condition EtcdRunningInCluster in etcd CR /cluster to be True."),
        ("bootkube", 1100, "Cluster etcd operator bootstrapped successfully"),
        ("bootkube", 1110, "bootkube.service complete"),
        ("progress", 1115, "Got the following nodes with revision rolled out: ip-10-0-1-5"),
        ("progress", 1125, "Got at least 2 nodes with successful revision rolled out"),
    ] {
        lines.push((boot, unit, second, text.to_owned()));
    }
    for round in 0..800 {
        let second = 265 + round / 5;
        let made = format!("Created \"{round:03}-crd.yaml\" customresourcedefinitions.v1.apiextensions.k8s.io/x -n");
        lines.push((boot, "bootkube", second, made));
        lines.push((
            boot,
            "bootkube",
            second,
            format!("[#{round}] failed to fetch discovery: the server is currently unable"),
        ));
        lines.push((boot, "bootkube", second, format!("[#{round}] failed to create some manifests:")));
        lines.push((boot, "bootkube", second, "\"99.yaml\": unable to get REST mapping for \"99.yaml\": no matches for kind \"MachineConfig\" in version \"v1\"".into()));
    }
    for minute in 0..8 {
        let text = r#"[ 88.0] ignition[754]: GET error: Get "https://api-int.c1.ex.com:22623/config/master": EOF"#;
        lines.push(("serial:master-0", "console", 60 + minute * 60, text.into()));
        let text = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: No CNI configuration file in /etc/kubernetes/cni/net.d/. Has your network provider started?";
        lines.push(("journal:master-0", "kubelet", 600 + minute * 30, text.into()));
    }
    for (second, text) in [
        (10, "Consuming Install Config from target directory"),
        (20, "Waiting up to 15m0s (until 10:27AM UTC) for network infrastructure to become ready..."),
        (30, "Machine c1-x7k2p-master-0 has not yet provisioned: Pending"),
        (60, "Waiting up to 20m0s (until 10:47AM UTC) for the Kubernetes API at https://api.c1.ex.com:6443..."),
        (
            61,
            r#"Still waiting for the Kubernetes API: Get "https://api.c1.ex.com:6443/version": dial tcp 10.0.5.9:6443: i/o timeout"#,
        ),
        (200, r#"Still waiting for the Kubernetes API: Get "https://api.c1.ex.com:6443/version": EOF"#),
        (270, "API v1.33.5 up"),
        (1130, "Bootstrap status: complete"),
        (
            1200,
            "Still waiting for the cluster to initialize: Working towards 4.20.3: 731 of 959 done (76% complete), waiting on authentication, console",
        ),
        (
            1201,
            r#"Unable to retrieve available updates: Get "https://api.openshift.com/api/upgrades_info/v1/graph": dial tcp: lookup api.openshift.com on 10.0.0.2:53: no such host"#,
        ),
        (2000, "Cluster is initialized"),
        (2300, "Install complete!"),
    ] {
        lines.push(("installer", "installer", second, text.to_owned()));
    }
    lines.sort_by_key(|(_, _, second, _)| *second);
    lines
}

#[test]
fn a_clean_run_is_not_accused() {
    let mut matcher = Matcher::new(&catalogue());
    for (source, unit, second, text) in happy() {
        let told = matcher.feed(source, &line(unit, second, &text), None);
        let worrying: Vec<_> = opened(&told).into_iter().filter(|finding| finding.severity >= Level::Warn).collect();
        assert!(worrying.is_empty(), "{text}: {worrying:#?}");
    }
    assert!(opened(&matcher.tick(at(8000))).is_empty());
    assert!(matcher.open().is_empty());
}

/// What podman says of an image for which the mirror has `error`.
fn pull(error: &str) -> String {
    format!(
        "Error: unable to pull quay.io/openshift-release-dev/ocp-v4.0-art-dev@{DIGEST}: initializing source docker://quay.io/openshift-release-dev/ocp-v4.0-art-dev@{DIGEST}: (Mirrors also failed: [mirror.c1.ex.com:5000/openshift/release@{DIGEST}: {error}]): quay.io/openshift-release-dev/ocp-v4.0-art-dev@{DIGEST}: pinging container registry quay.io: Get \"https://quay.io/v2/\": dial tcp 34.225.41.113:443: i/o timeout"
    )
}

#[test]
fn a_missing_image_is_the_cause_of_the_stop_and_can_be_copied_again() {
    let mut matcher = Matcher::new(&catalogue());
    let boot = "journal:bootstrap";
    matcher.feed(boot, &line("bootkube", 0, "Rendering CEO Manifests..."), None);
    let missing =
        pull(&format!("reading manifest {DIGEST} in mirror.c1.ex.com:5000/openshift/release: manifest unknown"));
    let cause = opened(&matcher.feed(boot, &line("bootkube", 1, &missing), Some(7))).remove(0);
    assert_eq!((cause.signature.as_str(), cause.line_number), ("MIR-MANIFEST", Some(7)));
    assert_eq!(cause.captures["digest"], DIGEST);
    assert_eq!(cause.captures["registry"], "mirror.c1.ex.com:5000");
    assert_eq!(cause.recovery.as_deref(), Some("resync-image"));
    matcher.feed(boot, &line("bootkube", 2, "something else"), None);
    let stopped = line("bootkube", 3, "bootkube.service: Main process exited, code=exited, status=125/n/a");
    let carrier = opened(&matcher.feed(boot, &stopped, None)).remove(0);
    assert_eq!(carrier.signature, "BK-PULL");
    assert_eq!(carrier.explained_by.as_deref(), Some(cause.id.as_str()));
    let recovery = Recovery::for_finding(&carrier).expect("a recovery by its cause");
    assert_eq!(recovery.fixes, [Fix::ResyncImage { digest: DIGEST.into() }]);
    assert_eq!((recovery.resume, recovery.danger), (Resume::Live, Danger::Change));

    // The same stage starts again: nothing is over. Said again at most every 30 s.
    assert!(matcher.feed(boot, &line("bootkube", 9, "Rendering CEO Manifests..."), None).is_empty());
    assert!(matcher.feed(boot, &line("bootkube", 10, &missing), None).is_empty());
    assert_eq!(opened(&matcher.feed(boot, &line("bootkube", 40, &missing), None))[0].captures["times"], "3");
    // The next stage starts: it is.
    let told = matcher.feed(boot, &line("bootkube", 50, "Rendering Kubernetes API server core manifests..."), None);
    assert_eq!(told.iter().filter(|data| matches!(data, Data::FindingCleared { .. })).count(), 2);
    assert!(matcher.open().is_empty());
}

/// The line that is shown stands where the finding says that it does.
#[test]
fn a_fuller_line_of_another_machine_is_not_put_in_place_of_the_first() {
    let mut matcher = Matcher::new(&catalogue());
    let fuller = "constraints not satisfiable: no operators found in package cert-manager-operator in the catalog";
    matcher.feed("journal:master-0", &line("kubelet", 0, "Reason: ConstraintsNotSatisfiable"), Some(3));
    matcher.feed("journal:master-1", &line("kubelet", 1, fuller), Some(9));
    let shown = |matcher: &Matcher| matcher.open().first().map(|finding| (finding.source.clone(), finding.line_number));
    assert_eq!(shown(&matcher), Some(("journal:master-0".to_owned(), Some(3))));
    matcher.feed("journal:master-0", &line("kubelet", 2, fuller), Some(4));
    assert_eq!(shown(&matcher), Some(("journal:master-0".to_owned(), Some(4))));
    assert!(matcher.open().first().is_some_and(|finding| finding.title.contains("cert-manager-operator")));
}

#[test]
fn without_a_cause_in_its_window_a_carrier_stands_alone() {
    let mut matcher = Matcher::new(&catalogue());
    let stopped = line("bootkube", 3, "bootkube.service: Main process exited, code=exited, status=125/n/a");
    let carrier = opened(&matcher.feed("journal:bootstrap", &stopped, None)).remove(0);
    assert_eq!((carrier.explained_by, carrier.recovery), (None, None));
    // The cause that comes later is still its cause.
    let missing =
        pull(&format!("reading manifest {DIGEST} in mirror.c1.ex.com:5000/openshift/release: manifest unknown"));
    let told = opened(&matcher.feed("journal:bootstrap", &line("bootkube", 9, &missing), None));
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].explained_by.as_ref(), Some(&told[0].id));
    assert_eq!(matcher.open()[0].signature, "MIR-MANIFEST");
}

#[test]
fn the_specific_one_speaks() {
    let catalogue = catalogue();
    let first = |source: &str, unit: &str, text: &str| {
        proof::taken_for(&catalogue, &Example { source: source.into(), unit: unit.into(), line: text.into() })
            .into_iter()
            .next()
    };
    let x509 = "pinging container registry mirror.c1.ex.com:5000: Get \"https://mirror.c1.ex.com:5000/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority";
    for (source, unit, text, wanted) in [
        ("journal:bootstrap", "release-image", pull(x509), "REG-CA"),
        ("journal:bootstrap", "release-image", pull("Get \"https://mirror.c1.ex.com:5000/v2/\": dial tcp 10.0.0.5:5000: i/o timeout"), "REG-TIMEOUT"),
        ("journal:bootstrap", "release-image", pull("unheard of"), "REL-MIRRORS-FAILED"),
        ("journal:master-0", "kubelet", format!("Failed to pull image \"quay.io/x@{DIGEST}\": {}", pull("manifest unknown")), "MIR-MANIFEST"),
        ("cluster", "machine/w-0", "error launching instance: VcpuLimitExceeded: more".into(), "AWS-VCPU"),
        ("journal:bootstrap", "release-image", "pinging container registry localhost:5000: Get \"https://localhost:5000/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused".into(), "REG-LOCALHOST"),
    ] {
        assert_eq!(first(source, unit, &text).as_deref(), Some(wanted), "{text}");
    }
    // With two mirrors journald gives each part a line of its own.
    let mut matcher = Matcher::new(&catalogue);
    let one = "Error: initializing source docker://quay.io/x@sha256:aa: (Mirrors also failed: [m1.ex.com:5000/x@sha256:aa: unheard of]";
    matcher.feed("journal:bootstrap", &line("release-image", 0, one), None);
    let two = format!(
        "[m2.ex.com:5000/x@{DIGEST}: manifest unknown]): quay.io/x@{DIGEST}: Get \"https://quay.io/v2/\": dial tcp 1.2.3.4:443: i/o timeout"
    );
    let told = opened(&matcher.feed("journal:bootstrap", &line("release-image", 0, &two), None));
    assert_eq!(told[0].signature, "MIR-MANIFEST");
}

#[test]
fn the_mirrors_ca_is_put_right_only_where_nodes_miss_it() {
    let catalogue = catalogue();
    let text = "error sending request for url (https://mirror.c1.ex.com:5000/v2/): client error (Connect): invalid peer certificate: UnknownIssuer";
    let mut matcher = Matcher::new(&catalogue);
    let ours = opened(&matcher.feed_error("05-mirror-registry/prove", &["prove".into(), text.into()], at(0))).remove(0);
    assert_eq!((ours.signature.as_str(), ours.recovery.as_deref()), ("REG-CA", Some("registry-certificate")));
    assert_eq!(ours.captures["registry"], "mirror.c1.ex.com:5000");
    assert_eq!(matcher.feed_step_done("05-mirror-registry/prove").len(), 1);
    let x509 = pull("Get \"https://mirror.c1.ex.com:5000/v2/\": x509: certificate signed by unknown authority");
    let theirs = opened(&matcher.feed("journal:bootstrap", &line("release-image", 1, &x509), None)).remove(0);
    let offered = |finding: &Finding| Recovery::all_for(finding).into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(offered(&ours), ["registry-certificate"]);
    // The cheapest first.
    assert_eq!(offered(&theirs), ["registry-certificate", "trust-mirror-ca"]);
    let recovery = Recovery::all_for(&theirs).pop().expect("a recovery");
    assert_eq!(recovery.danger, Danger::Destroy);
    assert_eq!(
        recovery.fixes,
        [Fix::FetchMirrorCa, Fix::DestroyCluster { because: Because::ConfigChanged }, Fix::NewInstallDir]
    );
    let disk = matcher.feed_error("06-image-sync/copy", &["HTTP 500: no space left on device".into()], at(2));
    assert_eq!(opened(&disk)[0].recovery.as_deref(), Some("disk-prune"));

    let mut matcher = Matcher::new(&catalogue);
    let image = |state| SyncEvent::ImageState { image: "etcd".into(), state, attempt: 1 };
    let why = "PATCH https://mirror.c1.ex.com:5000/v2/x: HTTP 500 write /srv/x: no space left on device".into();
    let failed = ImageState::Failed { side: "mirror".into(), class: "server".into(), why };
    let full = opened(&matcher.feed_sync(&image(failed), at(3))).remove(0);
    assert_eq!((full.signature.as_str(), full.recovery.as_deref()), ("REG-DISK", Some("disk-prune")));
    assert_eq!(matcher.feed_sync(&image(ImageState::Done), at(4)).len(), 1);
}

/// The machines feel expired certificates, long after the installer has made them.
#[test]
fn expired_certificates_are_over_when_the_api_answers_and_not_before() {
    let mut matcher = Matcher::new(&catalogue());
    let mut say = |second, text| matcher.feed("installer", &line("installer", second, text), None);
    let expired = opened(&say(0, "Bootstrap Ignition-Config Certificate root-ca.crt expired at 2025-03-01T10:00:00Z."));
    assert_eq!(expired[0].signature, "CERT-IGN-EXPIRED");
    let waits = "Waiting up to 20m0s (until 10:28AM UTC) for the Kubernetes API at https://api.c1.ex.com:6443...";
    assert!(say(300, waits).is_empty());
    let told = say(400, "API v1.29.5 up");
    assert!(matches!(told.as_slice(), [Data::FindingCleared { .. }]), "{told:?}");
}

#[test]
fn what_is_normal_for_a_while_is_raised_when_it_lasts() {
    let mut matcher = Matcher::new(&catalogue());
    let pending = |name: &str, state| Observed::Csr {
        name: name.into(),
        requester: "system:node:x".into(),
        signer: "kubernetes.io/kubelet-serving".into(),
        state,
    };
    assert!(matcher.feed_observed(&pending("csr-a", CsrState::Pending), at(0)).is_empty());
    assert!(matcher.feed_observed(&pending("csr-b", CsrState::Pending), at(100)).is_empty());
    assert!(matcher.tick(at(170)).is_empty());
    let finding = opened(&matcher.tick(at(181))).remove(0);
    assert_eq!((finding.signature.as_str(), finding.recovery.as_deref()), ("CSR-PENDING", Some("approve-csrs")));
    assert!(!Recovery::for_finding(&finding).expect("a recovery").automatic);
    matcher.feed_observed(&pending("csr-a", CsrState::Approved), at(190));
    let told = matcher.feed_observed(&pending("csr-b", CsrState::Approved), at(191));
    assert!(matches!(told.as_slice(), [Data::FindingCleared { .. }]), "{told:?}");

    let stage = |state| Observed::Bootkube {
        stage: "wait-for-etcd".into(),
        state,
        evidence: "etcdctl failed".into(),
        since: None,
    };
    assert!(matcher.feed_observed(&stage(BootStage::Running), at(200)).is_empty());
    assert_eq!(opened(&matcher.tick(at(501)))[0].signature, "ETCD-UNHEALTHY");
    assert_eq!(matcher.feed_observed(&stage(BootStage::Done), at(510)).len(), 1);
    // What the installer says at level error it says at the end: nothing to wait for.
    let mut end = line(
        "installer",
        600,
        "Cluster operator authentication Degraded is True with OAuthServerRouteEndpointAccessibleController_SyncError: OAuthServerRouteEndpointAccessibleControllerDegraded: EOF",
    );
    assert!(matcher.feed("installer", &end, None).is_empty());
    end.level = Level::Error;
    assert_eq!(opened(&matcher.feed("installer", &end, None))[0].signature, "CO-AUTH-ROUTE");
    // Short refusals far apart are each normal.
    let refused = "dial tcp 10.0.0.8:22: connect: connection refused";
    for second in [1000, 1010, 3000, 3010] {
        assert!(matcher.feed("installer", &line("installer", second, refused), None).is_empty());
    }
}

#[test]
fn a_probe_takes_captures_as_words_only() {
    let checklists = Checklists::builtin().expect("the built-in checklists are valid");
    let mut matcher = Matcher::new(&catalogue());
    let missing =
        pull(&format!("reading manifest {DIGEST} in mirror.c1.ex.com:5000/openshift/release: manifest unknown"));
    let mut finding = opened(&matcher.feed("journal:bootstrap", &line("bootkube", 1, &missing), None)).remove(0);
    let mut facts = BTreeMap::new();
    let plan = checklists.plan(&finding, &facts);
    assert_eq!(plan[0].cmd.as_ref().expect_err("a fact is missing"), "the run does not know workdir yet");
    facts.insert("workdir".to_owned(), "/home/u/bartizan".to_owned());
    facts.insert("component_repository".to_owned(), "openshift/release".to_owned());
    finding.captures.insert("registry".into(), "x;$(reboot)`'\"".into());
    let plan = checklists.plan(&finding, &facts);
    let cmd = plan[0].cmd.as_ref().expect("a command");
    assert!(cmd.args.contains(&"x;$(reboot)`'\"".to_owned()));
    let words = format!("'x;$(reboot)`'\\''\"' /home/u/bartizan openshift/release {DIGEST}");
    assert!(cmd.line().ends_with(&words), "{}", cmd.line());

    let expect = Expect {
        exit: Some(0),
        lacks: regex::Regex::new("Pending").ok(),
        fails: "approve".into(),
        ..Expect::default()
    };
    let answer = |status, text: &str| Output { status, stdout: text.into(), stderr: Vec::new() };
    assert_eq!(judge(&expect, &answer(0, "csr-a Issued")).0, CheckState::Passed);
    assert_eq!(
        judge(&expect, &answer(0, "csr-a Issued\ncsr-b Pending")),
        (CheckState::Failed, "csr-b Pending. approve".into())
    );
    assert_eq!(judge(&expect, &answer(127, "")).0, CheckState::Unknown);
}

#[test]
fn files_and_bundles_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join(".openshift_install.log");
    let text = "time=\"2025-03-01T10:00:00Z\" level=debug msg=\"OpenShift Installer 4.18.1\"\ntime=\"2025-03-01T10:01:00Z\" level=error msg=\"Bootstrap failed to complete: timed out waiting for the condition\"\n";
    std::fs::write(&log, text).expect("a log");
    let report = offline::diagnose(&log).expect("a report");
    assert_eq!((report.findings[0].finding.signature.as_str(), report.findings[0].line), ("BOOTSTRAP-TIMEOUT", 2));

    let bundle = dir.path().join("log-bundle-20250301.tar.gz");
    let file = std::fs::File::create(&bundle).expect("a bundle");
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    let mut add = |name: &str, text: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        // Written as it is: a hostile name is no reason to stop.
        let bytes = name.as_bytes();
        header.as_gnu_mut().expect("a header").name[..bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        archive.append(&header, text).expect("an entry");
    };
    let missing =
        pull(&format!("reading manifest {DIGEST} in mirror.c1.ex.com:5000/openshift/release: manifest unknown"));
    let journal = format!(
        "Mar 01 10:00:00 ip-10-0-0-8 bootkube.sh[123]: Rendering CEO Manifests...\nMar 01 10:00:01 ip-10-0-0-8 bootkube.sh[123]: {missing}\nMar 01 10:00:02 ip-10-0-0-8 systemd[1]: bootkube.service: Main process exited, code=exited, status=125/n/a\n"
    );
    add("log-bundle-20250301/bootstrap/journals/bootkube.log", journal.as_bytes());
    add(
        "log-bundle-20250301/serial/master-0-serial.log",
        b"\x1b[31mIgnition has failed. Please ensure your config is valid\n",
    );
    add("../../../../etc/evil.log", &[0xff; 10_000]);
    add(".openshift_install.log", text.as_bytes());
    archive.into_inner().and_then(flate2::write::GzEncoder::finish).and_then(|mut file| file.flush()).expect("written");
    let report = offline::diagnose(&bundle).expect("a report");
    let first = &report.findings[0];
    assert_eq!((first.finding.signature.as_str(), first.line), ("MIR-MANIFEST", 2));
    assert!(first.file.ends_with("bootstrap/journals/bootkube.log"), "{}", first.file);
    let timeout = report.findings.iter().find(|found| found.finding.signature == "BOOTSTRAP-TIMEOUT").expect("found");
    assert_eq!(timeout.finding.explained_by.as_ref(), Some(&first.finding.id));
    assert!(report.findings.iter().any(|found| found.finding.source == "serial:master-0"));
    assert!(!dir.path().join("etc").exists());
    let small = Limits { bytes: 2000, ..Limits::default() };
    let report = offline::diagnose_with(&catalogue(), &bundle, small).expect("a report");
    assert!(!report.skipped.is_empty());
    std::fs::write(&bundle, b"\x1f\x8bno gzip").expect("written");
    assert!(offline::diagnose(&bundle).is_err() || !offline::diagnose(&bundle).expect("a report").skipped.is_empty());
}

/// Text that looks like what the matcher takes apart.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("(Mirrors also failed: [".to_owned()),
        Just("])".to_owned()),
        Just("]): ".to_owned()),
        Just("[".to_owned()),
        Just("] [".to_owned()),
        Just(format!("reading manifest {DIGEST} in m:5000/x: manifest unknown")),
        Just("Pull failed. Retrying é...".to_owned()),
        Just("bootkube.service: Scheduled restart job, restart counter is at 99999999999999999999".to_owned()),
        Just("Rendering \u{202e}manifests...".to_owned()),
        Just("{\"MESSAGE\":[255,27,1e99,null]}".to_owned()),
        ".{0,40}",
        "\\PC{0,40}",
    ];
    proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

#[test]
fn hostile_lines_change_nothing() {
    let mut matcher = Matcher::new(&catalogue());
    let config = ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let matcher = std::cell::RefCell::new(&mut matcher);
    let case = (hostile(), hostile(), any::<i32>(), 0..5usize);
    runner
        .run(&case, |(text, unit, second, place)| {
            let source = ["journal:bootstrap", "installer", "sync", "serial:x", "file"][place];
            let mut matcher = matcher.borrow_mut();
            for data in matcher.feed(source, &line(&unit, second.into(), &text), None) {
                if let Data::FindingOpened { finding } = data {
                    let _offered = Recovery::for_finding(&finding);
                }
            }
            matcher.feed_error(&unit, &[text], at(0));
            Ok(())
        })
        .expect("no panic");
}

#[test]
fn a_hostile_file_is_only_text() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("some.log");
    let mut file = std::fs::File::create(&path).expect("a file");
    let config = ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
    let file = std::cell::RefCell::new(&mut file);
    proptest::test_runner::TestRunner::new(config)
        .run(&hostile(), |text| {
            writeln!(file.borrow_mut(), "{text}").expect("written");
            Ok(())
        })
        .expect("written");
    assert!(offline::diagnose(&path).expect("a report").lines >= 1000);
}

/// A machine that answers every command with the same words.
struct Parrot(&'static str);

#[async_trait::async_trait]
impl Host for Parrot {
    fn name(&self) -> &str {
        "bastion"
    }
    async fn exec(&self, _: &Cmd) -> Result<Output, HostError> {
        Ok(Output { status: 0, stdout: self.0.into(), stderr: Vec::new() })
    }
    async fn stream(&self, _: &Cmd) -> Result<BoxStream<'static, Result<StreamItem, HostError>>, HostError> {
        Ok(Box::pin(futures::stream::empty()))
    }
    async fn put(&self, _: &str, _: Stdin, _: u32) -> Result<(), HostError> {
        Ok(())
    }
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }
    async fn tunnel(&self, host: &str, _: u16) -> Result<Box<dyn Tunnel>, HostError> {
        Err(HostError::Link { host: host.into(), why: "no way".into() })
    }
}

#[tokio::test]
async fn a_checklist_runs_where_it_can() {
    let checklists = Checklists::builtin().expect("the built-in checklists are valid");
    let mut matcher = Matcher::new(&catalogue());
    let text = "csr-8vnps 15m kubernetes.io/kube-apiserver-client-kubelet system:node:x <none> Pending";
    let finding = opened(&matcher.feed_error("08-install/csr", &[text.into()], at(0))).remove(0);
    let facts = BTreeMap::from([("install_dir".to_owned(), "/home/ec2-user/bartizan/c1".to_owned())]);
    let (sink, mut told) = Sink::channel(100);
    let bastion: Arc<dyn Host> = Arc::new(Parrot(text));
    checklists.run(&finding, &facts, &|name| (name == "bastion").then(|| bastion.clone()), &sink).await;
    drop(sink);
    let mut results = Vec::new();
    while let Some(entry) = told.recv().await {
        if let Entry::Event(data, _) = entry
            && let Data::CheckResult { check, state, action, .. } = *data
        {
            results.push((check, state, action.is_some()));
        }
    }
    let wanted = [
        ("pending", CheckState::Running, true),
        ("pending", CheckState::Failed, true),
        ("approver", CheckState::Unknown, true),
        ("machine-approver", CheckState::Running, true),
        ("machine-approver", CheckState::Passed, true),
    ];
    assert_eq!(results, wanted.map(|(check, state, action)| (check.to_owned(), state, action)));
}

#[test]
fn of_two_that_override_each_other_one_speaks() {
    let signature = |id: &str, rank: u32, overrides: &str| {
        format!(
            "[[signature]]\nid = '{id}'\ntitle = 't'\npatterns = ['moonlight']\nrank = {rank}\noverrides = ['{overrides}']\n\
             examples = ['moonlight']\n"
        )
    };
    let taken = |signatures: &[String]| {
        let text = format!("{}{}", signatures.concat(), signature("CLASS", 89, "NONE-*"));
        let text = format!("{text}{}", signature("NONE-1", 99, "NONE-*"));
        let catalogue = Catalogue::parse(&[("test", &text)]).expect("a catalogue");
        let example = Example { source: "sync".into(), unit: "unit".into(), line: "moonlight".into() };
        proof::taken_for(&catalogue, &example)
    };
    // The one nearer to the cause, unless the other one names it and is named only among others.
    assert_eq!(taken(&[signature("ONE-A", 20, "TWO-B"), signature("TWO-B", 10, "ONE-A")]), ["TWO-B"]);
    assert_eq!(taken(&[signature("ONE-A", 20, "TWO-B"), signature("TWO-B", 10, "ONE-*")]), ["ONE-A"]);
}
