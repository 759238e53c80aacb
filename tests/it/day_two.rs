//! After the installation: the cluster is made ready for a life without internet, verified with a report, and upgraded from
//! the mirror; in the lab, by the program itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use bartizan::lab::ocp::kube_store::Resource;
use bartizan::lab::world::{Lab, LabOptions};
use bartizan::model::plan::StepId;
use bartizan::model::{RunModel, reduce};
use bartizan::record::read_events;
use serde_json::{Value, json};

use crate::whole::ALONE;

struct Site {
    dir: tempfile::TempDir,
    lab: Lab,
}

impl Site {
    async fn bartizan(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command.arg("--state").arg(self.dir.path().join("state")).args(args);
        command.args(["--plain", "--cloud"]).arg(self.lab.cloud_file());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }

    /// Directories of the runs, the oldest first.
    fn runs(&self) -> Vec<PathBuf> {
        let mut runs: Vec<PathBuf> =
            std::fs::read_dir(self.dir.path().join("state/runs")).unwrap().map(|run| run.unwrap().path()).collect();
        runs.sort();
        runs
    }

    fn object(&self, kind: &str, namespace: &str, name: &str) -> Value {
        let plural = Resource::named(kind).unwrap().plural;
        let found = self.lab.scene().kube.get(plural, namespace, name);
        found.as_deref().cloned().unwrap_or_else(|| panic!("{kind} {name} is not there"))
    }

    fn change(&self, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        assert!(self.lab.scene().kube.update(Resource::named(kind).unwrap(), namespace, name, change), "{kind} {name}");
    }
}

fn report(run: &Path) -> (Value, String) {
    let json = std::fs::read(run.join("verify.json")).unwrap();
    (serde_json::from_slice(&json).unwrap(), std::fs::read_to_string(run.join("verify.txt")).unwrap())
}

fn model(run: &Path) -> RunModel {
    let mut model = RunModel::default();
    read_events(&run.join("run.jsonl")).unwrap().iter().for_each(|event| reduce(&mut model, event));
    model
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[test]
fn a_cluster_is_made_ready_verified_and_upgraded() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(from_the_installation_to_the_next_release());
}

async fn from_the_installation_to_the_next_release() {
    let dir = tempfile::tempdir().unwrap();
    let options = LabOptions { dir: dir.path().join("lab"), scenario: "happy".into(), speed: 60.0, payload_mb: 8 };
    let site = Site { lab: Lab::start(options).await.unwrap(), dir };
    let spec = site.lab.spec_file();
    // One more manifest, out of a folder beside the spec.
    let folder = spec.parent().unwrap().join("more");
    std::fs::create_dir(&folder).unwrap();
    let motd = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: motd\n  namespace: openshift\ndata:\n  a: b\n";
    std::fs::write(folder.join("99-motd.yaml"), motd).unwrap();
    let text = std::fs::read_to_string(&spec).unwrap();
    assert!(!text.contains("[install]"));
    std::fs::write(&spec, format!("{text}\n[install]\nmanifests = \"more\"\n")).unwrap();
    let (exit, said) = site.bartizan(&["run", spec.to_str().unwrap()]).await;
    assert_eq!(exit, 0, "{}", last_lines(&said));

    let mirror = site.object("images.config.openshift.io", "", "cluster");
    let trust =
        site.object("configmap", "openshift-config", mirror["spec"]["additionalTrustedCA"]["name"].as_str().unwrap());
    let (key, pem) = trust["data"].as_object().unwrap().iter().next().unwrap();
    assert!(key.starts_with("registry.edge-lab.example.com..") && pem.as_str().unwrap().contains("BEGIN CERTIFICATE"));
    assert_eq!(site.object("operatorhubs", "", "cluster")["spec"]["disableAllDefaultSources"], true);
    let samples = site.object("configs.samples.operator.openshift.io", "", "cluster");
    assert_eq!(samples["spec"]["managementState"], "Removed");

    let run = site.runs().pop().unwrap();
    let step = StepId::new("07-install-config/manifests");
    let evidence = model(&run).step(&step).unwrap().evidence.clone();
    assert!(
        evidence.iter().any(|one| one.asked.ends_with("/manifests/99-motd.yaml") && one.answer == "ConfigMap motd"),
        "{evidence:?}"
    );
    let (json, text) = report(&run);
    let checks: Vec<&str> =
        json["checks"].as_array().unwrap().iter().map(|one| one["check"].as_str().unwrap()).collect();
    assert_eq!(checks, ["version", "nodes", "mirror", "pods", "pull", "names", "registry", "catalogs"]);
    assert!(
        text.contains("every check so far passed") && text.contains("curl --noproxy '*' https://quay.io/v2/"),
        "{text}"
    );
    assert!(text.contains("it came from registry.edge-lab.example.com:"), "{text}");

    // A pod that cannot get its image: the same verification fails, and the report has what was seen.
    let pods = site.lab.scene().kube.list("pods", None).1;
    let (namespace, name) =
        (pods[0]["metadata"]["namespace"].as_str().unwrap(), pods[0]["metadata"]["name"].as_str().unwrap());
    let state = "/status/containerStatuses/0/state";
    site.change("pods", namespace, name, |pod| {
        *pod.pointer_mut(state).unwrap() = json!({ "waiting": { "reason": "ImagePullBackOff" } });
    });
    let again = ["run", spec.to_str().unwrap(), "--resume", run.to_str().unwrap(), "--from", "09"];
    let (exit, said) = site.bartizan(&again).await;
    assert_eq!(exit, 10, "{}", last_lines(&said));
    assert!(report(&run).1.contains(&format!("! 1 pods do not get on: {namespace}/{name} (ImagePullBackOff)")));
    site.change("pods", namespace, name, |pod| *pod.pointer_mut(state).unwrap() = json!({ "running": {} }));
    let (exit, said) = site.bartizan(&again).await;
    assert_eq!(exit, 0, "{}", last_lines(&said));
    assert!(!report(&run).1.contains("FAIL"));

    // As if it had been installed a version earlier.
    let old = format!("quay.io/openshift-release-dev/ocp-release@sha256:{}", "b".repeat(64));
    site.change("clusterversions", "", "version", |version| {
        version["status"]["desired"] = json!({ "version": "4.18.11", "image": old });
        version["status"]["history"] = json!([{ "state": "Completed", "version": "4.18.11", "image": old }]);
    });
    site.change("machineconfigpools", "", "worker", |pool| pool["spec"] = json!({ "paused": true }));
    let upgrade = ["upgrade", "--to", "4.18.12"];
    let (exit, said) = site.bartizan(&upgrade).await;
    assert_eq!(exit, 6, "{}", last_lines(&said));
    assert!(said.contains("the pool worker is paused"), "{}", last_lines(&said));
    site.change("machineconfigpools", "", "worker", |pool| pool["spec"] = json!({ "paused": false }));
    let second = site.runs().pop().unwrap();
    assert_ne!(second, run);
    let kept = second.join("cluster.toml");
    let (exit, said) = site.bartizan(&["run", kept.to_str().unwrap(), "--resume", second.to_str().unwrap()]).await;
    assert_eq!(exit, 0, "{}", last_lines(&said));
    let version = site.object("clusterversions", "", "version");
    assert_eq!(version["status"]["history"][0]["version"], "4.18.12");
    assert_eq!(version["status"]["history"][1]["version"], "4.18.11");
    let model = model(&second);
    assert_eq!(model.plan.stages.len(), 4, "an upgrade has a plan of its own");
    assert!(model.plan.steps().all(|step| model.step(&step.id).is_some()));
    assert_eq!(report(&second).0["version"], "4.18.12");

    // Whoever takes it down by the newest run takes down what the first one made.
    let (exit, said) = site.bartizan(&["cleanup", "last", "--confirm", "edge-lab"]).await;
    assert_eq!(exit, 0, "{}", last_lines(&said));
    site.lab.stop().await;
}
