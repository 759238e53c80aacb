//! The whole pipeline in the lab, without a screen: every scenario to its expected end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use bartizan::lab::ocp::journal::number;
use bartizan::lab::ocp::scenario::Scenario;
use bartizan::model::event::{CheckState, Data, Event, LogLine, Observed};
use bartizan::model::text::one_line;
use bartizan::watch::journal::{BOOTSTRAP_UNITS, QUIET_UNITS};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::real::canary::{Canaries, Watch, unpacked};

/// `cargo test` runs tests as threads: one installation at a time.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

struct Demo {
    _dir: tempfile::TempDir,
    lab: PathBuf,
    run: PathBuf,
    exit: i32,
    events: Vec<Event>,
    text: String,
}

fn demo(scenario: &str, more: &[&str]) -> Demo {
    demo_at("20", scenario, more)
}

fn demo_at(speed: &str, scenario: &str, more: &[&str]) -> Demo {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let (lab, state) = (dir.path().join("lab"), dir.path().join("state"));
    let output = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(["--state", state.to_str().unwrap(), "demo", "--json", "--scenario", scenario, "--speed", speed])
        .args(["--payload-mb", "60", "--dir", lab.to_str().unwrap()])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let events =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"))).collect();
    let run = std::fs::read_dir(state.join("runs")).unwrap().next().unwrap().unwrap().path();
    let exit = output.status.code().unwrap();
    eprintln!("{scenario} {more:?}: exit {exit}; {}", String::from_utf8_lossy(&output.stderr));
    Demo { _dir: dir, lab, run, exit, events, text }
}

impl Demo {
    fn finding(&self, signature: &str) -> &bartizan::model::event::Finding {
        self.events
            .iter()
            .find_map(|event| match &event.data {
                Data::FindingOpened { finding } if finding.signature == signature => Some(finding),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no finding {signature} in {}", self.last_words()))
    }

    fn last_words(&self) -> String {
        self.text.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    fn lines(&self, source: &str) -> Vec<LogLine> {
        let text = std::fs::read_to_string(self.run.join("logs").join(format!("{source}.log"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Failing: its class, its finding with the line that proves it, its checklist run.
    fn fails_with(&self, exit: u8, signature: &str, evidence: &str) {
        assert_eq!(self.exit, i32::from(exit), "{}", self.last_words());
        let finding = self.finding(signature);
        assert!(finding.line.contains(evidence), "{:?} does not hold {evidence:?}", finding.line);
        let checked = self.events.iter().any(|event| {
            matches!(&event.data, Data::CheckResult { finding: id, state, .. } if *id == finding.id && *state != CheckState::Running)
        });
        assert!(checked, "no probe of {signature} answered");
    }

    fn succeeds(&self) {
        assert_eq!(self.exit, 0, "{}", self.last_words());
        assert!(matches!(self.events.last().unwrap().data, Data::RunClosed { exit: 0, .. }));
        let open: Vec<String> = self.model().open_findings().iter().map(|open| open.finding.id.clone()).collect();
        assert!(open.is_empty(), "still open: {open:?}");
    }

    fn model(&self) -> bartizan::model::RunModel {
        let mut model = bartizan::model::RunModel::default();
        self.events.iter().for_each(|event| bartizan::model::reduce(&mut model, event));
        model
    }
}

fn expected(scenario: &str, recover: bool) -> u8 {
    Scenario::named(scenario).unwrap().exit(recover)
}

/// What the bootstrap node's own journal holds of a unit, as a follower has to show it.
pub(crate) fn journal_of_the_node(lab: &Path) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(lab.join("machines/hosts/bootstrap/journal/entries.jsonl")).unwrap();
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let entry = &entry["entry"];
        let duplicate = !entry["container"].is_null() || entry["identifier"] == "podman";
        let unit = entry["about_unit"].as_str().or(entry["unit"].as_str()).unwrap().trim_end_matches(".service");
        // Other units are not followed, and crio and kubelet are kept from warnings on.
        if duplicate || !BOOTSTRAP_UNITS.contains(&unit) || QUIET_UNITS.contains(&unit) {
            continue;
        }
        let bytes: Vec<u8> = entry["message"]
            .as_array()
            .unwrap()
            .iter()
            .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
            .collect();
        let text = one_line(&String::from_utf8_lossy(&bytes), 16 * 1024);
        lines.entry(unit.to_owned()).or_default().push(text);
    }
    lines
}

/// Nothing lost, nothing twice: unit by unit the record holds what the node holds.
fn the_journal_is_whole(demo: &Demo) {
    let node = journal_of_the_node(&demo.lab);
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in demo.lines("journal_bootstrap") {
        seen.entry(line.unit).or_default().push(line.text);
    }
    for (unit, lines) in &node {
        assert_eq!(seen.get(unit).map(Vec::as_slice).unwrap_or_default(), lines, "journal of {unit}");
    }
    let numbers: Vec<u64> = seen["bootkube"].iter().filter_map(|line| number(line)).collect();
    assert!(numbers.len() > 20 && numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}

#[test]
fn happy_installs_verifies_and_takes_everything_down() {
    let demo = demo("happy", &[]);
    demo.succeeds();
    let model = demo.model();
    for stage in &model.plan.stages {
        let status = model.stage_status(&stage.id);
        assert_eq!(status.done, status.total, "{} {:?}", stage.id, status.status);
    }
    assert!(model.standing_objects().is_empty(), "{:?}", model.standing_objects());
    assert!(
        model.findings.iter().all(|record| record.finding.severity < bartizan::model::event::Level::Warn),
        "{:?}",
        model.findings
    );
    the_journal_is_whole(&demo);
}

/// Of a run whose cluster stands, so that all secrets of an installation are where the nodes and the installer have them.
fn no_secret_is_told(demo: &Demo, argvs: BTreeSet<String>) {
    let home = demo.lab.join("machines/hosts/bastion/root/home/ec2-user/bartizan");
    let mut canaries = Canaries::default();
    let kubeadmin = std::fs::read_to_string(home.join("install-1/auth/kubeadmin-password")).unwrap();
    canaries.add("kubeadmin", kubeadmin.trim());
    // The key of a user that was made for one of the cluster's operators.
    let key = home.join("identities/openshift-machine-api-aws-cloud-credentials-credentials.yaml");
    let key = std::fs::read_to_string(key).unwrap();
    let key = key.lines().find_map(|line| line.split("aws_secret_access_key: ").nth(1)).unwrap();
    canaries.add("user", key.trim_matches('"'));
    for (file, host) in [(home.join("auth.json"), "registry."), (demo.lab.join("pull-secret.json"), "quay.io")] {
        let auths: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let auth = auths["auths"].as_object().unwrap().iter().find(|(name, _)| name.starts_with(host)).unwrap().1;
        let pair = BASE64_STANDARD.decode(auth["auth"].as_str().unwrap()).unwrap();
        canaries.add(host, String::from_utf8(pair).unwrap().split_once(':').unwrap().1);
    }
    let bundle = demo.lab.join("bundle.tar.gz");
    let run = demo.run.file_name().unwrap().to_str().unwrap();
    let state = demo.run.parent().unwrap().parent().unwrap();
    let export = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .arg("--state")
        .arg(state)
        .args(["export", run, "--output"])
        .arg(&bundle)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(export.success());

    let finder = canaries.finder();
    // Where it was told, it is known to have been taken out.
    let said = demo.lines("installer").into_iter().find(|line| line.text.contains("Login to the console")).unwrap();
    assert!(said.text.contains("[redacted]"), "{said:?}");
    assert!(
        finder.is_match(std::fs::read_to_string(home.join("install-1/.openshift_install.log")).unwrap().as_bytes())
    );
    assert_eq!(canaries.files(&demo.run), Vec::<PathBuf>::new());
    assert!(!finder.is_match(demo.text.as_bytes()) && !finder.is_match(&unpacked(&bundle)));
    assert!(argvs.iter().any(|argv| argv.starts_with("ssh\0")), "{argvs:?}");
    let leaks: Vec<&String> = argvs.iter().filter(|argv| finder.is_match(argv.as_bytes())).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
}

#[test]
fn link_drop_loses_no_line_repeats_none_and_tells_no_secret() {
    let watch = Watch::start();
    let demo = demo("link-drop", &["--until", "09"]);
    let argvs = watch.end();
    demo.succeeds();
    no_secret_is_told(&demo, argvs);
    let drops = demo
        .events
        .iter()
        .filter(|event| {
            matches!(
                &event.data,
                Data::Link {
                    link: bartizan::model::event::LinkName::Ssh,
                    state: bartizan::model::event::LinkState::Retrying { .. }
                        | bartizan::model::event::LinkState::Down { .. }
                }
            )
        })
        .count();
    assert!(drops >= 1, "the link never went down");
    the_journal_is_whole(&demo);
}

#[test]
fn missing_image_is_found_and_left_alone_it_fails_the_bootstrap() {
    demo("missing-image", &[]).fails_with(expected("missing-image", false), "MIR-MANIFEST", "manifest unknown");
}

#[test]
fn missing_image_is_synced_and_the_unit_goes_on() {
    let demo = demo("missing-image", &["--recover"]);
    demo.finding("MIR-MANIFEST");
    demo.succeeds();
}

#[test]
fn mirror_ca_is_found_and_left_alone_it_fails_the_bootstrap() {
    demo("mirror-ca", &[]).fails_with(expected("mirror-ca", false), "REG-CA", "x509");
}

#[test]
fn mirror_ca_is_put_into_the_bundle_and_a_new_install_succeeds() {
    let demo = demo("mirror-ca", &["--recover"]);
    demo.finding("REG-CA");
    demo.succeeds();
    let clusters: Vec<_> = demo.model().objects.into_iter().filter(|(object, _)| object.kind == "cluster").collect();
    assert_eq!(clusters.len(), 2, "the old cluster and the new one: {clusters:?}");
    assert!(clusters.iter().all(|(_, record)| record.gone.is_some()));
}

#[test]
fn disk_full_is_found_and_left_alone_it_fails_the_sync() {
    demo("disk-full", &[]).fails_with(expected("disk-full", false), "REG-DISK", "no space left on device");
}

#[test]
fn disk_full_grows_and_the_sync_goes_on() {
    let demo = demo("disk-full", &["--recover"]);
    demo.finding("REG-DISK");
    demo.succeeds();
}

#[test]
fn etcd_stuck_fails_the_bootstrap_with_its_finding() {
    let demo = demo_at("60", "etcd-stuck", &[]);
    assert_eq!(demo.exit, i32::from(expected("etcd-stuck", false)), "{}", demo.last_words());
    let finding = demo.finding("CEO-WAIT");
    assert!(finding.line.contains("EtcdRunningInCluster"), "{}", finding.line);

    // Who fetched a config was seen, and from then on what the masters write.
    let model = demo.model();
    let masters = model.units.iter().filter(|((_, unit), _)| unit == "config/master");
    assert_eq!(masters.filter(|(_, unit)| unit.state.starts_with("finished: fetched by Ignition/")).count(), 3);
    assert!(model.logs.get("journal:master-0").is_some_and(|log| log.lines > 0), "{:?}", model.logs.keys());

    // The log bundle is with the run, and opens as what it was.
    let bundle = model.fact("install.log-bundle").expect("a bundle");
    let state = demo.run.parent().unwrap().parent().unwrap();
    let opened = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .arg("--state")
        .arg(state)
        .args(["watch", "--json", "--bundle", bundle])
        .output()
        .unwrap();
    let text = String::from_utf8(opened.stdout).unwrap();
    assert_eq!(opened.status.code(), Some(0), "{}", String::from_utf8_lossy(&opened.stderr));
    let mut past = bartizan::model::RunModel::default();
    let events = text.lines().map(|line| serde_json::from_str::<Event>(line).unwrap());
    events.for_each(|event| bartizan::model::reduce(&mut past, &event));
    let stages = |model: &bartizan::model::RunModel| {
        let of_bootkube = model.bootkube.iter().filter(|record| !record.stage.starts_with("node-image"));
        of_bootkube.map(|record| (record.stage.clone(), record.state)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(stages(&past), stages(&model));
    assert!(past.open_findings().iter().any(|open| open.finding.signature == "CEO-WAIT"), "{:?}", past.findings);
    assert_eq!(past.cluster_state.nodes.len(), model.cluster_state.nodes.len());
}

#[test]
fn csr_pending_fails_the_install_and_is_the_cause_that_is_shown_first() {
    let demo = demo_at("60", "csr-pending", &[]);
    assert_eq!(demo.exit, i32::from(expected("csr-pending", false)), "{}", demo.last_words());
    demo.finding("CSR-PENDING");
    let model = demo.model();
    let first = model.open_findings().first().map(|open| open.finding.signature.clone());
    assert_eq!(first.as_deref(), Some("CSR-PENDING"));
}

/// Left alone, up to the stage in which it breaks: exit code, finding and the line that proves it.
fn breaks(scenario: &str, signature: &str, evidence: &str) -> Demo {
    let demo = demo_at("80", scenario, &["--until", "08"]);
    demo.fails_with(expected(scenario, false), signature, evidence);
    demo
}

fn first_open(demo: &Demo) -> String {
    demo.model().open_findings().first().map(|open| open.finding.signature.clone()).unwrap_or_default()
}

#[test]
fn mcs_unreachable_is_seen_on_the_masters_consoles() {
    let demo = breaks("mcs-unreachable", "MCS-22623", ":22623/config/master\": dial tcp 10.0.5.9:22623: i/o timeout");
    assert!(demo.finding("MCS-22623").source.starts_with("serial:master-"));
    assert_eq!(first_open(&demo), "MCS-22623");
    let units = demo.model().units;
    let ignition = &units[&("master-2".to_owned(), "ignition".to_owned())].state;
    assert_eq!(ignition, "waits for its config: dial tcp 10.0.5.9:22623: i/o timeout");
    // Every line of a console once, in its order.
    let stamps: Vec<String> =
        demo.lines("serial_master-0").iter().filter_map(|line| Some(line.text.split_once(']')?.0.to_owned())).collect();
    assert!(stamps.len() > 20 && stamps.windows(2).all(|pair| pair[0] <= pair[1]), "{stamps:?}");
}

#[test]
fn dns_api_int_is_named_by_bootkube_and_explains_the_masters() {
    let demo = breaks("dns-api-int", "DNS-API", "Unable to resolve API_INT_URL api-int.edge-lab.example.com");
    let cause = demo.finding("DNS-API").id.clone();
    assert_eq!(demo.finding("MCS-22623").explained_by.as_ref(), Some(&cause));
    assert_eq!(first_open(&demo), "DNS-API");
}

#[test]
fn clock_skew_is_found_in_what_the_node_says_of_the_mirror() {
    let demo = breaks("clock-skew", "TIME-CERT", "x509: certificate has expired or is not yet valid: current time ");
    assert_eq!(first_open(&demo), "TIME-CERT");
}

#[test]
fn operator_degraded_names_what_the_operator_cannot_reach() {
    let demo = breaks("operator-degraded", "CO-REGISTRY-STORE", "unable to sync storage configuration");
    assert_eq!(demo.finding("CO-REGISTRY-STORE").unit, "operator/image-registry");
    // What its pod said before it gave up, without anybody asking.
    let pod = |event: &&Event| {
        matches!(&event.data, Data::Observed(Observed::Pod(pod)) if pod.namespace == "openshift-image-registry"
            && pod.tail.iter().any(|line| line.contains("unable to sync storage configuration")))
    };
    assert!(demo.events.iter().any(|event| pod(&event)));
    assert_eq!(first_open(&demo), "CO-REGISTRY-STORE");
}

#[test]
fn worker_never_joins_because_its_machine_has_failed() {
    let demo = breaks("worker-never-joins", "WORKERS-MACHINE", "You have requested more vCPU capacity");
    assert_eq!(first_open(&demo), "WORKERS-MACHINE");
    let cause = demo.finding("WORKERS-MACHINE").id.clone();
    assert_eq!(demo.finding("WORKERS-NONE").explained_by, Some(cause));
}

#[test]
fn installer_killed_is_taken_further_by_the_commands_that_wait() {
    let demo = demo_at("60", "installer-killed", &[]);
    demo.succeeds();
    let noted = |text: &str| {
        demo.events.iter().any(|event| matches!(&event.data, Data::Note { text: note, .. } if note.contains(text)))
    };
    assert!(noted("signal 9 ended it"));
    for part in ["wait-for bootstrap-complete", "destroy bootstrap", "wait-for install-complete"] {
        assert!(noted(&format!("going on with {part}")), "{part}");
    }
    assert!(demo.model().standing_objects().is_empty());
}

#[test]
fn bootstrap_reboot_loses_no_line_and_shows_the_stage_twice() {
    let demo = demo_at("60", "bootstrap-reboot", &["--until", "08"]);
    demo.succeeds();
    the_journal_is_whole(&demo);
    let model = demo.model();
    let starts = |name: &str| model.bootkube.iter().find(|stage| stage.stage == name).map(|stage| stage.starts);
    let told = |event: &&Event| matches!(&event.data, Data::Observed(Observed::Bootkube { .. }));
    let told: Vec<_> = demo.events.iter().filter(told).take(20).map(|event| (event.at, &event.data)).collect();
    assert_eq!((starts("config-bootstrap"), starts("etcd-bootstrap")), (Some(1), Some(2)), "{told:#?}");
    let rebooted = |event: &Event| matches!(&event.data, Data::Gap { why, .. } if why.contains("rebooted"));
    assert_eq!(demo.events.iter().filter(|event| rebooted(event)).count(), 1);
}
