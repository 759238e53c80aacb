//! Machines and nodes: how masters and workers join.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use super::super::OcpError;
use super::super::cluster::NodePlan;
use super::super::kube_store::{condition, now};
use super::{Plane, approve, has_condition, is_ready, kubernetes, named};

/// What the kubelet of a node asks to be signed, as the API has it: base64 of PEM.
fn request(node: &str) -> Result<String, OcpError> {
    let wrong = |why: rcgen::Error| OcpError::Machine(format!("a request of {node}: {why}"));
    let mut asked = CertificateParams::new(Vec::new()).map_err(wrong)?;
    asked.distinguished_name = DistinguishedName::new();
    asked.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    asked.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let key = KeyPair::generate().map_err(wrong)?;
    let pem = asked.serialize_request(&key).and_then(|request| request.pem()).map_err(wrong)?;
    Ok(BASE64_STANDARD.encode(pem))
}

impl Plane {
    pub(super) fn machine_name(&self, node: &NodePlan) -> String {
        match node.name.strip_prefix("worker-") {
            Some(number) => format!("{}-worker-{}a-{number}", self.cluster.assets.infra_id, self.cluster.assets.region),
            None => format!("{}-{}", self.cluster.assets.infra_id, node.name),
        }
    }

    pub(super) fn machine(&self, node: &NodePlan, phase: &str) -> Result<(), OcpError> {
        self.machine_as(&self.machine_name(node), node, phase, None)
    }

    /// A machine object under `name`, with what keeps it from being made.
    pub(super) fn machine_as(
        &self,
        name: &str,
        node: &NodePlan,
        phase: &str,
        error: Option<&str>,
    ) -> Result<(), OcpError> {
        let role = if node.name.starts_with("worker") { "worker" } else { "master" };
        let assets = &self.cluster.assets;
        let mut status = json!({ "phase": phase });
        if phase == "Running" {
            status["nodeRef"] = json!({ "kind": "Node", "name": node.node });
        }
        if matches!(phase, "Running" | "Provisioned") {
            status["addresses"] = json!([
                { "type": "InternalIP", "address": node.address },
                { "type": "InternalDNS", "address": node.node },
            ]);
        }
        if let Some(error) = error {
            status["errorReason"] = json!("InvalidConfiguration");
            status["errorMessage"] = json!(error);
        }
        let labels = json!({
            "machine.openshift.io/cluster-api-cluster": assets.infra_id,
            "machine.openshift.io/cluster-api-machine-role": role,
            "machine.openshift.io/cluster-api-machine-type": role,
            "machine.openshift.io/instance-type": if role == "worker" { "m6i.large" } else { "m6i.xlarge" },
            "machine.openshift.io/region": assets.region,
            "machine.openshift.io/zone": format!("{}a", assets.region),
        });
        self.store.put(
            named("machines")?,
            json!({
                "metadata": { "name": name, "namespace": "openshift-machine-api", "labels": labels },
                "spec": {},
                "status": status,
            }),
        );
        Ok(())
    }

    /// A node asks for its two certificates, and is there when it has them. `approver` says whether the cluster's own
    /// machine-approver answers; the bootstrap machine answers the masters.
    pub(super) async fn join(&self, node: &NodePlan, approver: bool) -> Result<(), OcpError> {
        let ready = self.store.get("nodes", "", &node.node).is_some_and(|found| is_ready(&found));
        if ready {
            return Ok(());
        }
        self.certificate(node, "client", approver).await?;
        self.node(node, false)?;
        self.scene.sleep(8).await;
        self.certificate(node, "serving", approver).await?;
        self.scene.sleep(12).await;
        self.node(node, true)
    }

    pub(super) async fn certificate(&self, node: &NodePlan, what: &str, approver: bool) -> Result<(), OcpError> {
        let resource = named("csr")?;
        let hash =
            super::super::payload::digest(format!("{}{}{what}", self.cluster.assets.infra_id, node.name).as_bytes());
        let name = format!("csr-{}", hash.get(7..12).unwrap_or("lab"));
        let (signer, user, usage) = match what {
            "client" => (
                "kubernetes.io/kube-apiserver-client-kubelet",
                "system:serviceaccount:openshift-machine-config-operator:node-bootstrapper".to_owned(),
                "client auth",
            ),
            _ => ("kubernetes.io/kubelet-serving", format!("system:node:{}", node.node), "server auth"),
        };
        if self.store.get(resource.plural, "", &name).is_none() {
            self.store.put(
                resource,
                json!({
                    "metadata": { "name": name, "generateName": "csr-" },
                    "spec": { "signerName": signer, "username": user, "request": request(&node.node)?, "usages": ["digital signature", usage] },
                    "status": {},
                }),
            );
        }
        if approver {
            self.scene.sleep(8).await;
            approve(&self.store, &name);
        }
        loop {
            let approved = self.store.get(resource.plural, "", &name).is_none_or(|csr| has_condition(&csr, "Approved"));
            if approved {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.scene.sleep(1).await;
        self.store.update(resource, "", &name, |csr| csr["status"]["certificate"] = json!("LS0tLS1CRUdJTg=="));
        Ok(())
    }

    pub(super) fn node(&self, node: &NodePlan, ready: bool) -> Result<(), OcpError> {
        let role = if node.name.starts_with("worker") { "worker" } else { "master" };
        let (status, reason, message) = match ready {
            true => ("True", "KubeletReady", "kubelet is posting ready status"),
            false => (
                "False",
                "KubeletNotReady",
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: No CNI configuration file in /etc/kubernetes/cni/net.d/. Has your network provider started?",
            ),
        };
        let mut labels = json!({ "kubernetes.io/hostname": node.node, "kubernetes.io/os": "linux" });
        labels[format!("node-role.kubernetes.io/{role}")] = json!("");
        if role == "master" {
            labels["node-role.kubernetes.io/control-plane"] = json!("");
        }
        self.store.put(
            named("nodes")?,
            json!({
                "metadata": { "name": node.node, "labels": labels },
                "spec": { "providerID": format!("aws:///{}a/{}", self.cluster.assets.region, node.instance) },
                "status": {
                    "addresses": [{ "type": "InternalIP", "address": node.address }],
                    "conditions": [condition("Ready", status, reason, message, &now())],
                    "nodeInfo": {
                        "kubeletVersion": kubernetes(&self.cluster.assets.version),
                        "osImage": "Red Hat Enterprise Linux CoreOS 418.94.202503061016-0",
                        "kernelVersion": "5.14.0-427.61.1.el9_4.x86_64",
                        "containerRuntimeVersion": "cri-o://1.31.6-2.rhaos4.18.git6bae3ab.el9",
                    },
                },
            }),
        );
        Ok(())
    }
}
