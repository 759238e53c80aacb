//! The cluster after its temporary control plane answers: masters and workers join, operators become available in their
//! usual order, and the ClusterVersion says how far it is.

mod nodes;
mod operators;
mod workers;

use std::sync::Arc;

use serde_json::{Value, json};

use super::OcpError;
use super::cluster::{Cluster, NodePlan, Scene};
use super::first_boot::fetch_config;
use super::journal::Pen;
use super::kube_store::{Resource, Store, condition, now};
use super::payload::Payload;
use super::scenario::Act;
use operators::OPERATORS;

/// What `/version` says for an OpenShift version: Kubernetes is 13 minor versions ahead.
pub fn kubernetes(version: &str) -> String {
    let minor: u32 = version.split('.').nth(1).and_then(|text| text.parse().ok()).unwrap_or(18);
    format!("v1.{}.7", minor + 13)
}

fn named(plural: &str) -> Result<&'static Resource, OcpError> {
    Resource::named(plural).ok_or_else(|| OcpError::Machine(format!("the lab's API has no {plural}")))
}

pub async fn run(scene: Arc<Scene>, cluster: Arc<Cluster>) -> Result<(), OcpError> {
    let plane = Plane { store: scene.kube.clone(), scene, cluster };
    let masters: Vec<_> = plane.cluster.masters().cloned().collect();
    let workers: Vec<_> = plane.cluster.workers().cloned().collect();
    if !plane.cluster.marks().control_plane {
        plane.scene.sleep(40).await;
        let (scene, cluster) = (&plane.scene, &plane.cluster);
        let configs = masters.iter().map(|node| fetch_config(scene, cluster, node, &node.instance, "master"));
        futures::future::try_join_all(configs).await?;
    }
    plane.scene.sleep(15).await;
    let mut pens = Vec::new();
    for node in &masters {
        let machine = plane.scene.boot(&plane.cluster, node).await?;
        let pen = Pen::new(machine, false);
        // The first boot: machine-config-operator `templates/common/_base/units/machine-config-daemon-pull.service.yaml`.
        let daemon = plane.scene.payload.components.iter().find(|image| image.name == "machine-config-operator");
        let daemon = daemon.map(Payload::pull_spec).unwrap_or_default();
        pen.line("machine-config-daemon-pull", "sh", format!("Trying to pull {daemon}..."));
        pen.line("machine-config-daemon-pull", "sh", "Writing manifest to image destination");
        pen.line("machine-config-daemon-pull", "systemd", "Finished Machine Config Daemon Pull.");
        pen.line(
            "kubelet",
            "kubenswrapper",
            format!(
                "I0301 10:09:11.402118    2411 server.go:491] \"Kubelet version\" kubeletVersion=\"{}\"",
                kubernetes(&plane.cluster.assets.version)
            ),
        );
        pens.push(pen);
    }
    plane.cluster.until(|marks| marks.api).await;
    plane.seed(&masters, &workers)?;
    if !plane.cluster.marks().control_plane {
        plane.scene.sleep(20).await;
    }
    futures::future::try_join_all(masters.iter().map(|node| plane.join(node, false))).await?;
    for pen in &pens {
        pen.line(
            "kubelet",
            "kubenswrapper",
            "I0301 10:11:40.118362    2411 kubelet_node_status.go:78] \"Successfully registered node\"",
        );
        pen.line(
            "crio",
            "crio",
            "time=\"2025-03-01 10:11:42Z\" level=info msg=\"Got pod network &{Name:installer-5-master}\"",
        );
    }
    plane.scene.sleep(15).await;
    plane.cluster.mark(|marks| marks.control_plane = true);
    let stuck = plane.scene.scenario.has(&Act::EtcdStuck);
    tokio::try_join!(plane.etcd(stuck), plane.operators(stuck), plane.workers(&workers))?;
    Ok(())
}

struct Plane {
    scene: Arc<Scene>,
    cluster: Arc<Cluster>,
    store: Arc<Store>,
}

impl Plane {
    /// The objects that are there as soon as the cluster-version-operator runs.
    fn seed(&self, masters: &[NodePlan], workers: &[NodePlan]) -> Result<(), OcpError> {
        let assets = &self.cluster.assets;
        for namespace in ["default", "kube-system", "openshift-config", "openshift-machine-api", "openshift-etcd"] {
            self.store.put(named("namespaces")?, json!({ "metadata": { "name": namespace } }));
        }
        self.version(0, &[])?;
        for (name, ..) in OPERATORS {
            if self.store.get("clusteroperators", "", name).is_none() {
                self.store
                    .put(named("clusteroperators")?, json!({ "metadata": { "name": name }, "spec": {}, "status": {} }));
            }
        }
        if self.store.get("configs", "", "cluster").is_none() {
            let spec = json!({ "managementState": "Managed", "storage": { "s3": { "region": assets.region } } });
            let conditions = [("Available", "True"), ("Degraded", "False")]
                .map(|(kind, is)| condition(kind, is, "AsExpected", "", &now()));
            let storage = json!({ "managementState": "Managed", "s3": { "region": assets.region } });
            let status = json!({ "conditions": conditions, "storage": storage });
            let config = json!({ "metadata": { "name": "cluster" }, "spec": spec, "status": status });
            self.store.put(named("configs")?, config);
        }
        for node in masters {
            self.machine(node, "Running")?;
        }
        for node in workers {
            if self.store.get("machines", "openshift-machine-api", &self.machine_name(node)).is_none() {
                self.machine(node, "")?;
            }
        }
        for (source, mirrors) in &assets.pull.mirrors {
            let name = format!("image-digest-mirror-{}", source.rsplit('/').next().unwrap_or_default());
            let rule = json!({ "source": source, "mirrors": mirrors });
            self.store.put(
                named("imagedigestmirrorsets")?,
                json!({ "metadata": { "name": name }, "spec": { "imageDigestMirrors": [rule] } }),
            );
        }
        Ok(())
    }

    async fn etcd(&self, stuck: bool) -> Result<(), OcpError> {
        let set = |status: &str, reason: &str, message: &str| {
            let running = condition("EtcdRunningInCluster", status, reason, message, &now());
            let cr = json!({ "metadata": { "name": "cluster" }, "spec": {}, "status": { "conditions": [running] } });
            named("etcds").map(|resource| self.store.put(resource, cr))
        };
        if self.cluster.marks().etcd {
            return Ok(());
        }
        set("False", "NotEnoughEtcdMembers", "still waiting for three healthy etcd members")?;
        if stuck {
            let address = self.cluster.masters().last().map_or("", |node| node.address.as_str());
            let message =
                format!("EtcdMembersDegraded: 2 of 3 members are available, NAME-PENDING-{address} has not started");
            self.operator("etcd", "False", "True", Some(("EtcdMembers_UnhealthyMembers", &message)))?;
            return Ok(());
        }
        self.scene.sleep(45).await;
        set("True", "EnoughEtcdMembers", "enough members found")?;
        self.cluster.mark(|marks| marks.etcd = true);
        Ok(())
    }
}

fn is_ready(node: &Value) -> bool {
    node["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

pub fn has_condition(object: &Value, kind: &str) -> bool {
    object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == kind))
}

/// What `oc adm certificate approve` does.
pub fn approve(store: &Store, name: &str) -> bool {
    let Some(resource) = Resource::named("csr") else { return false };
    store.update(resource, "", name, |csr| {
        if !has_condition(csr, "Approved") {
            let mut approved = condition(
                "Approved",
                "True",
                "KubectlApprove",
                "This CSR was approved by kubectl certificate approve.",
                &now(),
            );
            approved["lastUpdateTime"] = json!(now());
            csr["status"]["conditions"] = json!([approved]);
        }
    })
}

/// Approve all that are pending, and tell which.
pub fn approve_pending(store: &Store) -> Vec<String> {
    let (_, csrs) = store.list("certificatesigningrequests", None);
    csrs.iter()
        .filter(|csr| !has_condition(csr, "Approved") && !has_condition(csr, "Denied"))
        .filter_map(|csr| csr["metadata"]["name"].as_str().map(str::to_owned))
        .filter(|name| approve(store, name))
        .collect()
}

pub fn event(store: &Store, namespace: &str, name: &str, message: &str) {
    if let Some(resource) = Resource::named("events") {
        store.put(
            resource,
            json!({
                "metadata": { "name": name, "namespace": namespace },
                "involvedObject": { "kind": "Namespace", "name": namespace },
                "reason": name,
                "message": message,
                "type": "Normal",
                "count": 1,
                "lastTimestamp": now(),
            }),
        );
    }
}

/// The configmap that ends the bootstrap.
pub fn bootstrap_complete(store: &Store) {
    if let Some(resource) = Resource::named("configmaps") {
        let metadata = json!({ "name": "bootstrap", "namespace": "kube-system" });
        store.put(resource, json!({ "metadata": metadata, "data": { "status": "complete" } }));
    }
}
