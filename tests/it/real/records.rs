//! Service records that are replaced while they are read, an installation that is watched from its own host, and a cluster
//! of which there is only a kubeconfig.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bartizan::model::event::{BootStage, Data, Event, Observed, RunOutcome};
use bartizan::model::run::Status;
use serde_json::{Value, json};

use super::attach::{Place, phase, stage};
use crate::host::user;

/// As `add_service_record_entry` does it (openshift/installer, bootstrap-service-record.sh): the whole array into a file of
/// its own, which takes the place of the other.
fn add_entry(directory: &Path, service: &str, entry: Value) {
    let path = directory.join(format!("{service}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "[]".into());
    let mut entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    entries.push(entry);
    let new = directory.join(format!("{service}.json.tmp"));
    std::fs::write(&new, serde_json::to_string_pretty(&entries).unwrap()).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn entry(second: i64, phase: &str, more: Value) -> Value {
    let at = jiff::Timestamp::from_second(1_740_823_200 + second).unwrap();
    let mut entry = json!({"timestamp": at.to_string(), "phase": phase});
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    entry
}

#[test]
fn records_that_are_replaced_by_renaming_are_seen_from_the_installations_own_host() {
    let place = Place::new();
    let records = place.path("records");
    std::fs::copy(place.bootstrap.identity(), place.path("key")).unwrap();
    place.installer("info", "Waiting up to 45m0s (until 10:45AM UTC) for bootstrapping to complete...");
    place.journal(1, "Moving OpenShift manifests in with the rest of them");
    add_entry(&records, "bootkube", entry(0, "service start", json!({})));
    // A stage that no journal tells of: what a newer release may have.
    add_entry(&records, "bootkube", entry(1, "stage start", json!({"stage": "brand-new"})));

    let node = format!("{}@127.0.0.1:{}", user(), place.bootstrap.port());
    let mut watching = place.watch_here(&["--bootstrap", &node]);
    watching.until("the bootstrap phase", |events| phase(events, "bootstrap"));
    watching.until("what only the record tells", |events| stage(events, "brand-new", BootStage::Running));

    // While it is looked at, it is replaced many times; its last words are in the record when the unit is started again.
    for second in 2..300 {
        add_entry(&records, "bootkube", entry(second, "service start", json!({})));
    }
    let words = "Rendering\nError: manifest unknown";
    let failed = json!({"stage": "brand-new", "result": "failure", "errorMessage": words});
    add_entry(&records, "bootkube", entry(300, "stage end", failed));
    place.journal(400_000_000, "bootkube.service: Scheduled restart job, restart counter is at 298.");
    watching.until("how the stage ended", |events| stage(events, "brand-new", BootStage::Failed));
    watching.until("how often it started", |events| {
        events.iter().any(|event| {
            matches!(&event.data, Data::Observed(Observed::Unit { unit, restarts: 298, .. }) if unit == "bootkube")
        })
    });
    let (code, model) = watching.end();
    assert_eq!(code, Some(0));
    let record = model.bootkube.iter().find(|record| record.stage == "brand-new").unwrap();
    assert_eq!(record.evidence, "Error: manifest unknown");
    assert_eq!(record.started, jiff::Timestamp::from_second(1_740_823_201).unwrap());
    assert_eq!(model.links.len(), 0, "nobody is between us and the installation");
    let broken = model.activity.iter().find(|activity| activity.text.contains("no JSON"));
    assert_eq!(broken, None, "a record was read half");
}

#[cfg(feature = "lab")]
mod cluster {
    use std::sync::Arc;

    use bartizan::lab::ocp::ca::Ca;
    use bartizan::lab::ocp::kube_api;
    use bartizan::lab::ocp::kube_store::{Resource, Store, condition, now};
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use tokio_util::sync::CancellationToken;

    use super::super::attach::Watching;
    use super::*;

    fn put(store: &Arc<Store>, plural: &str, object: Value) {
        store.put(Resource::named(plural).unwrap(), object);
    }

    fn operator(store: &Arc<Store>, available: &str) {
        let conditions = ["Available", "Progressing", "Degraded"].map(|kind| {
            let status = if kind == "Available" { available } else { "False" };
            condition(kind, status, "SyncFailed", "the router does not start", &now())
        });
        let related = json!([{"group": "", "resource": "namespaces", "name": "openshift-ingress"}]);
        let status = json!({"conditions": conditions, "relatedObjects": related});
        put(store, "clusteroperators", json!({"metadata": {"name": "ingress"}, "spec": {}, "status": status}));
    }

    fn version(store: &Arc<Store>, done: bool) {
        let of = |kind: &str, is: bool| {
            condition(
                kind,
                if is { "True" } else { "False" },
                "R",
                "Working towards 4.18.12: 700 of 901 done (77% complete), waiting on ingress",
                &now(),
            )
        };
        let conditions = json!([of("Available", done), of("Progressing", !done), of("Failing", false)]);
        let status = json!({"desired": {"version": "4.18.12"}, "conditions": conditions});
        put(store, "clusterversions", json!({"metadata": {"name": "version"}, "spec": {}, "status": status}));
    }

    fn pod(waiting: Value) -> Value {
        let crash = "2025-03-01T10:00:00.5Z F0301 10:00:00.500000       1 main.go:77] cannot bind 0.0.0.0:443\n2025-03-01T10:00:01.5Z bye";
        json!({"metadata": {"name": "router-default-1", "namespace": "openshift-ingress", "annotations": {
                "lab/previous-log.router": crash, "lab/log.router": "2025-03-01T10:01:00Z starting"}},
            "spec": {"nodeName": "m0"},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "router", "ready": false, "restartCount": 4, "state": waiting}]}})
    }

    fn pods(events: &[Event]) -> Vec<&bartizan::model::event::Pod> {
        let told = events.iter().filter_map(|event| match &event.data {
            Data::Observed(Observed::Pod(pod)) => Some(pod),
            _ => None,
        });
        told.collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cluster_is_watched_with_nothing_but_its_kubeconfig() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, cancel) = (Ca::make("kube-apiserver-lb-signer").unwrap(), CancellationToken::new());
        let store = Store::open(dir.path().join("objects.json"));
        let leaf = ca.server(&["localhost", "127.0.0.1"]).unwrap();
        let api = kube_api::start(store.clone(), &leaf, ca.pem(), "v1.31.6", cancel.clone()).unwrap();
        version(&store, false);
        operator(&store, "False");
        put(&store, "pods", pod(json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}})));
        store.set_up(true);
        let admin = ca.client("system:admin", "system:masters").unwrap();
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        let kubeconfig = format!(
            "clusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://127.0.0.1:{}\n  name: c\ncontexts:\n- context:\n    cluster: c\n    user: admin\n  name: admin\ncurrent-context: admin\nkind: Config\napiVersion: v1\nusers:\n- name: admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
            encoded(ca.pem()),
            api.port(),
            encoded(&admin.certificate),
            encoded(&admin.key),
        );
        let file = dir.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig).unwrap();
        let output = dir.path().join("output");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        let state = dir.path().join("state").to_string_lossy().into_owned();
        command.args(["--state", &state, "watch", "--json", "--kubeconfig", &file.to_string_lossy()]);
        let mut watching = Watching::start(command, &output);

        // The operator that is not well is known, and its pod with the last words of the life before.
        let said = |events: &[Event]| {
            pods(events).iter().any(|pod| {
                pod.reason == "CrashLoopBackOff" && pod.tail.iter().any(|line| line.contains("cannot bind 0.0.0.0:443"))
            })
        };
        tokio::task::block_in_place(|| watching.until("what the pod said", said));
        operator(&store, "True");
        put(&store, "pods", pod(json!({"running": {"startedAt": now()}})));
        version(&store, true);
        // The cluster says itself that it is complete.
        let code = tokio::task::block_in_place(|| watching.wait(Duration::from_secs(60)));
        let model = watching.model();
        cancel.cancel();
        assert_eq!(code, Some(0));
        assert_eq!(model.closed.as_ref().unwrap().0, RunOutcome::Done);
        let log = &model.logs["pods:openshift-ingress"];
        assert_eq!(log.lines, 2);
        assert_eq!(model.cluster_state.operators["ingress"].operator.namespaces, ["openshift-ingress"]);
        assert!(model.plan.steps().all(|step| model.steps[&step.id].status == Status::Done));
    }
}
