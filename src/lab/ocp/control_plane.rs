//! The cluster after its temporary control plane answers: masters and workers join, operators become available in their
//! usual order, and the ClusterVersion says how far it is.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::OcpError;
use super::cluster::{Cluster, NodePlan, Scene};
use super::credentials;
use super::journal::Pen;
use super::kube_store::{Resource, Store, condition, now};
use super::scenario::Act;
use crate::cloud::{Cloud, Create, Kind};

/// Manifests in the release, as the ClusterVersion counts them.
const MANIFESTS: usize = 901;

/// What an operator waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wave {
    /// Runs on the masters as soon as they are there.
    Early,
    /// After the bootstrap is complete.
    Later,
    /// Needs a worker.
    Workers,
}

/// In the order of becoming available: name, wave, seconds after the one before, what it says until then.
const OPERATORS: &[(&str, Wave, u64, &str)] = &[
    ("cloud-credential", Wave::Early, 4, ""),
    ("config-operator", Wave::Early, 3, ""),
    ("etcd", Wave::Early, 10, "StaticPodsAvailable: 0 nodes are active; 3 nodes are at revision 0"),
    (
        "kube-apiserver",
        Wave::Early,
        8,
        "StaticPodsAvailable: 0 nodes are active; 1 node is at revision 0; 2 nodes are at revision 5",
    ),
    ("kube-controller-manager", Wave::Early, 5, "StaticPodsAvailable: 0 nodes are active; 3 nodes are at revision 0"),
    ("kube-scheduler", Wave::Early, 5, "StaticPodsAvailable: 0 nodes are active; 3 nodes are at revision 0"),
    ("network", Wave::Early, 6, "The network is starting up"),
    ("dns", Wave::Later, 6, "DNS \"default\" is unavailable."),
    ("cloud-controller-manager", Wave::Later, 3, ""),
    ("cluster-autoscaler", Wave::Later, 3, ""),
    ("machine-approver", Wave::Later, 3, ""),
    ("machine-api", Wave::Later, 8, "Operator is initializing"),
    ("control-plane-machine-set", Wave::Later, 4, ""),
    ("baremetal", Wave::Later, 2, ""),
    ("machine-config", Wave::Later, 10, "Unable to apply VERSION: error during waitForControllerConfigToBeCompleted"),
    ("service-ca", Wave::Later, 4, ""),
    ("kube-storage-version-migrator", Wave::Later, 4, "KubeStorageVersionMigratorAvailable: Waiting for Deployment"),
    ("csi-snapshot-controller", Wave::Later, 3, ""),
    (
        "storage",
        Wave::Later,
        8,
        "AWSEBSCSIDriverOperatorCRAvailable: AWSEBSDriverControllerServiceControllerAvailable: Waiting for Deployment",
    ),
    ("openshift-apiserver", Wave::Later, 12, "APIServicesAvailable: PreconditionNotReady"),
    ("openshift-controller-manager", Wave::Later, 6, "Available: no pods available on any node."),
    ("node-tuning", Wave::Later, 5, "DaemonSet \"tuned\" has no available Pod(s)"),
    ("marketplace", Wave::Later, 4, ""),
    ("operator-lifecycle-manager", Wave::Later, 4, ""),
    ("operator-lifecycle-manager-catalog", Wave::Later, 2, ""),
    (
        "operator-lifecycle-manager-packageserver",
        Wave::Later,
        4,
        "ClusterServiceVersion openshift-operator-lifecycle-manager/packageserver observed in phase Failed",
    ),
    ("olm", Wave::Later, 3, ""),
    ("insights", Wave::Later, 3, ""),
    ("openshift-samples", Wave::Workers, 4, ""),
    ("image-registry", Wave::Workers, 10, "Available: The deployment does not have available replicas"),
    (
        "ingress",
        Wave::Workers,
        18,
        "The \"default\" ingress controller reports Available=False: IngressControllerUnavailable: One or more status conditions indicate unavailable: DeploymentAvailable=False (DeploymentUnavailable: The deployment has Available status condition set to False (reason: MinimumReplicasUnavailable) with message: Deployment does not have minimum availability.)",
    ),
    (
        "monitoring",
        Wave::Workers,
        16,
        "UpdatingPrometheusOperator: reconciling Prometheus Operator Admission Webhook Deployment failed: got 2 unavailable replicas",
    ),
    (
        "authentication",
        Wave::Workers,
        14,
        "OAuthServerRouteEndpointAccessibleControllerAvailable: route \"openshift-authentication/oauth-openshift\": status does not have a valid host address",
    ),
    (
        "console",
        Wave::Workers,
        12,
        "RouteHealthAvailable: failed to GET route (https://console-openshift-console.apps.DOMAIN): EOF",
    ),
];

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
    plane.scene.sleep(0).await;
    plane.cluster.until(|marks| marks.serves_ignition).await;
    let masters: Vec<_> = plane.cluster.masters().cloned().collect();
    let workers: Vec<_> = plane.cluster.workers().cloned().collect();
    plane.scene.sleep(15).await;
    let mut pens = Vec::new();
    for node in &masters {
        let machine = plane.scene.boot(&plane.cluster, node).await?;
        let pen = Pen::new(machine, false);
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

    fn machine_name(&self, node: &NodePlan) -> String {
        match node.name.strip_prefix("worker-") {
            Some(number) => format!("{}-worker-{}a-{number}", self.cluster.assets.infra_id, self.cluster.assets.region),
            None => format!("{}-{}", self.cluster.assets.infra_id, node.name),
        }
    }

    fn machine(&self, node: &NodePlan, phase: &str) -> Result<(), OcpError> {
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
        let labels = json!({
            "machine.openshift.io/cluster-api-cluster": assets.infra_id,
            "machine.openshift.io/cluster-api-machine-role": role,
            "machine.openshift.io/cluster-api-machine-type": role,
            "machine.openshift.io/instance-type": if role == "worker" { "m6i.large" } else { "m6i.xlarge" },
            "machine.openshift.io/region": assets.region,
            "machine.openshift.io/zone": format!("{}a", assets.region),
        });
        let name = self.machine_name(node);
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
    async fn join(&self, node: &NodePlan, approver: bool) -> Result<(), OcpError> {
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

    async fn certificate(&self, node: &NodePlan, what: &str, approver: bool) -> Result<(), OcpError> {
        let resource = named("csr")?;
        let hash = super::payload::digest(format!("{}{}{what}", self.cluster.assets.infra_id, node.name).as_bytes());
        let name = format!("csr-{}", hash.get(7..12).unwrap_or("lab"));
        let (signer, user) = match what {
            "client" => (
                "kubernetes.io/kube-apiserver-client-kubelet",
                "system:serviceaccount:openshift-machine-config-operator:node-bootstrapper".to_owned(),
            ),
            _ => ("kubernetes.io/kubelet-serving", format!("system:node:{}", node.node)),
        };
        if self.store.get(resource.plural, "", &name).is_none() {
            self.store.put(
                resource,
                json!({
                    "metadata": { "name": name, "generateName": "csr-" },
                    "spec": { "signerName": signer, "username": user, "request": "TFMwdExTMUM=", "usages": ["digital signature", "client auth"] },
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

    fn node(&self, node: &NodePlan, ready: bool) -> Result<(), OcpError> {
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

    async fn workers(&self, workers: &[NodePlan]) -> Result<(), OcpError> {
        self.cluster.until(|marks| marks.complete).await;
        for node in workers {
            self.machine(node, "Provisioning")?;
        }
        self.scene.sleep(40).await;
        let held = self.scene.scenario.has(&Act::CsrHold);
        for node in workers {
            let create = Create {
                kind: Kind::Instance,
                tags: [
                    ("Name".to_owned(), self.machine_name(node)),
                    (format!("kubernetes.io/cluster/{}", self.cluster.assets.infra_id), "owned".to_owned()),
                ]
                .into(),
                properties: [
                    ("InstanceType".to_owned(), "m6i.large".to_owned()),
                    ("SubnetId".to_owned(), self.cluster.assets.subnet.clone()),
                ]
                .into(),
                token: self.machine_name(node),
            };
            self.scene.cloud.create(&create).await?;
            self.machine(node, "Provisioned")?;
        }
        self.scene.sleep(30).await;
        futures::future::try_join_all(workers.iter().map(|node| async move {
            self.join(node, !held).await?;
            self.machine(node, "Running")
        }))
        .await?;
        Ok(())
    }

    async fn operators(&self, stuck: bool) -> Result<(), OcpError> {
        let total = OPERATORS.len();
        let mut waiting: Vec<&str> = OPERATORS.iter().map(|(name, ..)| *name).collect();
        for (index, (name, wave, seconds, message)) in OPERATORS.iter().enumerate() {
            if *wave >= Wave::Later {
                self.cluster.until(|marks| marks.complete).await;
            }
            if *wave == Wave::Workers {
                self.until_workers().await?;
            }
            if stuck && *name == "etcd" {
                continue;
            }
            if !self.is_available(name) {
                if *name == "ingress" {
                    self.balancer().await?;
                }
                self.until_unblocked(name).await?;
                if !message.is_empty() {
                    let message = self.fill(message);
                    self.operator(name, "False", "True", Some(("_Unavailable", &message)))?;
                }
                self.scene.sleep(*seconds).await;
                self.operator(name, "True", "False", None)?;
            }
            waiting.retain(|other| other != name);
            let done = MANIFESTS * (index + 1) / (total + 1);
            let next: Vec<&str> = waiting.iter().take(3).copied().collect();
            self.version(done, &next)?;
        }
        self.scene.sleep(6).await;
        self.version(MANIFESTS, &[])?;
        self.store.put(
            named("routes")?,
            json!({
                "metadata": { "name": "console", "namespace": "openshift-console" },
                "spec": { "host": format!("console-openshift-console.apps.{}", self.cluster.assets.domain) },
            }),
        );
        self.cluster.mark(|marks| marks.initialized = true);
        self.scene.sleep(35).await;
        self.cluster.mark(|marks| marks.stable = true);
        Ok(())
    }

    /// The router's load balancer, and its record where the ingress operator writes it.
    async fn balancer(&self) -> Result<(), OcpError> {
        let assets = &self.cluster.assets;
        let (infra_id, region) = (&assets.infra_id, &assets.region);
        let owned = (format!("kubernetes.io/cluster/{infra_id}"), "owned".to_owned());
        let host = format!("internal-a0b1c2d3e4f5-1203040506.{region}.elb.amazonaws.com");
        let create = Create {
            kind: Kind::LoadBalancer,
            tags: [
                owned.clone(),
                ("kubernetes.io/service-name".to_owned(), "openshift-ingress/router-default".to_owned()),
            ]
            .into(),
            properties: [
                ("DNSName".to_owned(), host.clone()),
                ("CanonicalHostedZoneId".to_owned(), "Z3AADJGX6KTTL2".to_owned()),
                ("SubnetId".to_owned(), assets.subnet.clone()),
            ]
            .into(),
            token: format!("{infra_id}-router"),
        };
        let known = self.scene.cloud.find(Kind::LoadBalancer, &create.tags).await?;
        if known.is_empty() {
            self.scene.cloud.create(&create).await?;
        }
        self.scene.sleep(5).await;
        self.store.put(
            named("services")?,
            json!({
                "metadata": { "name": "router-default", "namespace": "openshift-ingress" },
                "spec": { "type": "LoadBalancer", "ports": [{ "name": "https", "port": 443 }] },
                "status": { "loadBalancer": { "ingress": [{ "hostname": host }] } },
            }),
        );
        if !assets.no_zones {
            for zone in self.scene.cloud.find(Kind::HostedZone, &[owned].into()).await? {
                let name = crate::cloud::alias(&format!("*.apps.{}", assets.domain));
                let record = [(name, format!("Z3AADJGX6KTTL2 {host}"))].into();
                self.scene.cloud.modify(Kind::HostedZone, &zone.id, &record).await?;
            }
        }
        Ok(())
    }

    /// What an operator cannot do without: its credentials, and the routes whose name nobody resolves yet.
    async fn blocked(&self, name: &str) -> Result<Option<String>, OcpError> {
        let assets = &self.cluster.assets;
        if let Some(secret) = assets.secrets.as_ref().and_then(|secrets| credentials::missing(name, secrets)) {
            return Ok(Some(format!("failed to get credentials: secret \"{secret}\" not found")));
        }
        if !matches!(name, "authentication" | "console") {
            return Ok(None);
        }
        let tags = [(format!("kubernetes.io/cluster/{}", assets.infra_id), "owned".to_owned())].into();
        let zones = self.scene.cloud.find(Kind::HostedZone, &tags).await?;
        let wildcard = format!(" *.apps.{}", assets.domain);
        let resolves = zones.iter().any(|zone| zone.properties.keys().any(|record| record.ends_with(&wildcard)));
        let host = if name == "console" { "console-openshift-console" } else { "oauth-openshift" };
        Ok((!resolves).then(|| {
            let host = format!("{host}.apps.{}", assets.domain);
            format!(
                "RouteHealthAvailable: failed to GET route (https://{host}): Get \"https://{host}\": dial tcp: lookup {host} \
                 on 172.30.0.10:53: no such host"
            )
        }))
    }

    async fn until_unblocked(&self, name: &str) -> Result<(), OcpError> {
        let mut told = false;
        while let Some(message) = self.blocked(name).await? {
            if !told {
                told = true;
                self.operator(name, "False", "True", Some(("_Unavailable", &message)))?;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Workers are there, or the operators that want them say so.
    async fn until_workers(&self) -> Result<(), OcpError> {
        let ready = || {
            self.cluster.workers().count() == 0
                || self
                    .cluster
                    .workers()
                    .any(|worker| self.store.get("nodes", "", &worker.node).is_some_and(|node| is_ready(&node)))
        };
        let mut told = false;
        while !ready() {
            if !told {
                told = true;
                let missing = "Got 0 worker nodes, 3 master nodes, 0 custom target nodes (none are schedulable or ready for ingress pods).";
                let message = format!(
                    "ReadyIngressNodesAvailable: Authentication requires functional ingress which requires at least one schedulable and ready node. {missing}"
                );
                self.operator(
                    "authentication",
                    "False",
                    "True",
                    Some(("ReadyIngressNodes_NoReadyIngressNodes", &message)),
                )?;
                for (name, wave, _, message) in OPERATORS {
                    if *wave == Wave::Workers && !message.is_empty() && *name != "authentication" {
                        let message = self.fill(message);
                        self.operator(name, "False", "True", Some(("_Unavailable", &message)))?;
                    }
                }
                self.version(
                    MANIFESTS * 9 / 10,
                    &["authentication", "console", "image-registry", "ingress", "monitoring"],
                )?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn fill(&self, message: &str) -> String {
        message.replace("VERSION", &self.cluster.assets.version).replace("DOMAIN", &self.cluster.assets.domain)
    }

    fn is_available(&self, name: &str) -> bool {
        self.store.get("clusteroperators", "", name).is_some_and(|operator| {
            operator["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["type"] == "Available" && one["status"] == "True"))
        })
    }

    fn operator(
        &self,
        name: &str,
        available: &str,
        progressing: &str,
        trouble: Option<(&str, &str)>,
    ) -> Result<(), OcpError> {
        let (at, version) = (now(), &self.cluster.assets.version);
        let (reason, message) = trouble.unwrap_or(("AsExpected", "All is well"));
        let degraded = trouble.filter(|(reason, _)| reason.contains("Unhealthy"));
        let conditions = json!([
            match degraded {
                Some((reason, message)) => condition("Degraded", "True", reason, message, &at),
                None => condition("Degraded", "False", "AsExpected", "", &at),
            },
            condition("Progressing", progressing, reason, message, &at),
            condition("Available", available, reason, message, &at),
            condition("Upgradeable", "True", "AsExpected", "", &at),
        ]);
        let mut status = json!({ "conditions": conditions });
        if available == "True" {
            status["versions"] = json!([{ "name": "operator", "version": version }]);
        }
        let operator = json!({ "metadata": { "name": name }, "spec": {}, "status": status });
        self.store.put(named("clusteroperators")?, operator);
        Ok(())
    }

    fn version(&self, done: usize, waiting: &[&str]) -> Result<(), OcpError> {
        let assets = &self.cluster.assets;
        let (at, version) = (now(), &assets.version);
        let finished = done >= MANIFESTS;
        let message = match (finished, waiting) {
            (true, _) => format!("Cluster version is {version}"),
            (false, []) => {
                format!("Working towards {version}: {done} of {MANIFESTS} done ({}% complete)", done * 100 / MANIFESTS)
            }
            (false, names) => format!(
                "Working towards {version}: {done} of {MANIFESTS} done ({}% complete), waiting on {}",
                done * 100 / MANIFESTS,
                names.join(", ")
            ),
        };
        let yes = |is: bool| if is { "True" } else { "False" };
        let old = self.store.get("clusterversions", "", "version");
        let started = old
            .as_ref()
            .and_then(|old| old["status"]["history"][0]["startedTime"].as_str().map(str::to_owned))
            .unwrap_or_else(|| at.clone());
        let history = json!([{
            "state": if finished { "Completed" } else { "Partial" },
            "startedTime": started,
            "completionTime": if finished { json!(at) } else { Value::Null },
            "version": version,
            "image": assets.release,
            "verified": false,
        }]);
        let done_message = if finished { format!("Done applying {version}") } else { String::new() };
        let updates = "Unable to retrieve available updates: Get \"https://api.openshift.com/api/upgrades_info/v1/graph\": dial tcp: i/o timeout";
        self.store.put(
            named("clusterversions")?,
            json!({
                "metadata": { "name": "version" },
                "spec": { "clusterID": super::mirror::uuid(), "channel": format!("stable-{}", super::payload::minor(version)) },
                "status": {
                    "desired": { "version": version, "image": assets.release },
                    "history": history,
                    "conditions": [
                        condition("RetrievedUpdates", "False", "RemoteFailed", updates, &started),
                        condition("Available", yes(finished), "", &done_message, &at),
                        condition("Failing", "False", "", "", &at),
                        condition("Progressing", yes(!finished), "", &message, &at),
                    ],
                },
            }),
        );
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
