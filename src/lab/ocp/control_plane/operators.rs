//! The cluster operators in the order in which they become available, and the ClusterVersion that counts them.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::OcpError;
use super::super::credentials;
use super::super::kube_store::{Resource, condition, now};
use super::super::scenario::{Act, Twist};
use super::{Plane, is_ready, named};
use crate::cloud::{Cloud, Create, Kind, Tags};

/// Manifests in the release, as the ClusterVersion counts them.
const MANIFESTS: usize = 901;

/// What an operator waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wave {
    /// Runs on the masters as soon as they are there.
    Early,
    /// After the bootstrap is complete.
    Later,
    /// Needs a worker.
    Workers,
}

/// The reason of an operator that is not only late.
const DEGRADED: &str = "Error";

/// What keeps an operator from becoming available.
pub(super) struct Trouble {
    message: String,
    degraded: bool,
}

/// In the order of becoming available: name, wave, seconds after the one before, what it says until then.
pub(super) const OPERATORS: &[(&str, Wave, u64, &str)] = &[
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

/// The pod of an operator.
fn pod_of(operator: &str) -> String {
    format!("{operator}-operator-5c9d7")
}

impl Plane {
    pub(super) async fn operators(&self, stuck: bool) -> Result<(), OcpError> {
        let total = OPERATORS.len();
        let mut blocked = Vec::new();
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
            if *name == "ingress" {
                self.balancer().await?;
            }
            if !self.is_available(name) {
                if let Some(trouble) = self.blocked(name).await? {
                    // The others do not wait for it.
                    self.tell_of(name, &trouble)?;
                    blocked.push((*name, *seconds));
                    continue;
                }
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
        for (name, seconds) in blocked {
            self.until_unblocked(name).await?;
            self.scene.sleep(seconds).await;
            self.operator(name, "True", "False", None)?;
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
    pub(super) async fn balancer(&self) -> Result<(), OcpError> {
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

    /// What an operator cannot do without: its credentials, its bucket, and the routes whose name nobody resolves yet.
    pub(super) async fn blocked(&self, name: &str) -> Result<Option<Trouble>, OcpError> {
        let assets = &self.cluster.assets;
        if let Some(secret) = assets.secrets.as_ref().and_then(|secrets| credentials::missing(name, secrets)) {
            let message = format!("failed to get credentials: secret \"{secret}\" not found");
            return Ok(Some(Trouble { message, degraded: false }));
        }
        match name {
            "image-registry" => self.no_bucket().await,
            "authentication" => self.no_route("oauth-openshift").await,
            "console" => self.no_route("console-openshift-console").await,
            _ => Ok(None),
        }
    }

    async fn no_route(&self, host: &str) -> Result<Option<Trouble>, OcpError> {
        let assets = &self.cluster.assets;
        let zones = self.scene.cloud.find(Kind::HostedZone, &self.cluster.owned()).await?;
        let wildcard = format!(" *.apps.{}", assets.domain);
        let resolves = zones.iter().any(|zone| zone.properties.keys().any(|record| record.ends_with(&wildcard)));
        let host = format!("{host}.apps.{}", assets.domain);
        let message = format!(
            "RouteHealthAvailable: failed to GET route (https://{host}): Get \"https://{host}\": dial tcp: lookup {host} \
             on 172.30.0.10:53: no such host"
        );
        Ok((!resolves).then_some(Trouble { message, degraded: false }))
    }

    /// The image registry keeps its images in a bucket, unless it is told to keep none.
    async fn no_bucket(&self) -> Result<Option<Trouble>, OcpError> {
        let lost = |twist: &Twist| matches!(&twist.act, Act::EndpointDelete { service } if service == "s3");
        let config = self.store.get("configs", "", "cluster");
        let removed = config.is_some_and(|config| config["spec"]["managementState"] == "Removed");
        if removed || !self.scene.scenario.twists.iter().any(lost) {
            return Ok(None);
        }
        let endpoints = self.scene.cloud.find(Kind::VpcEndpoint, &Tags::new()).await?;
        let usable = endpoints
            .iter()
            .any(|one| one.is_ready() && one.property("ServiceName").is_some_and(|name| name.ends_with(".s3")));
        let (infra_id, region) = (&self.cluster.assets.infra_id, &self.cluster.assets.region);
        let message = format!(
            "Unable to apply resources: unable to sync storage configuration: RequestError: send request failed\ncaused by: \
             Head \"https://{infra_id}-image-registry-{region}-ciop5nrpdzv2f0b2b5wz.s3.dualstack.{region}.amazonaws.com/\": \
             dial tcp 3.5.130.11:443: i/o timeout"
        );
        Ok((!usable).then_some(Trouble { message, degraded: true }))
    }

    fn tell_of(&self, name: &str, trouble: &Trouble) -> Result<(), OcpError> {
        let reason = if trouble.degraded { DEGRADED } else { "_Unavailable" };
        if trouble.degraded {
            self.gives_up(name, &trouble.message);
        }
        self.operator(name, "False", "True", Some((reason, &trouble.message)))
    }

    /// Its pod gives up over it, is started again, and gives up.
    fn gives_up(&self, name: &str, message: &str) {
        let Some(pods) = Resource::named("pods") else { return };
        let namespace = format!("openshift-{name}");
        let container = format!("{name}-operator");
        let said = format!("{} E0301 10:09:02.271833       1 controller.go:1] {}", now(), message.replace('\n', " "));
        let waiting = json!({ "reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container" });
        self.store.put(
            pods,
            json!({
                "metadata": {
                    "name": pod_of(name), "namespace": namespace,
                    "annotations": { format!("lab/previous-log.{container}"): said },
                },
                "spec": { "nodeName": self.cluster.masters().next().map_or("", |master| master.node.as_str()) },
                "status": { "phase": "Running", "containerStatuses": [
                    { "name": container, "ready": false, "restartCount": 3, "state": { "waiting": waiting } },
                ] },
            }),
        );
    }

    async fn until_unblocked(&self, name: &str) -> Result<(), OcpError> {
        while self.blocked(name).await?.is_some() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        if let Some(pods) = Resource::named("pods") {
            self.store.delete(pods, &format!("openshift-{name}"), &pod_of(name));
        }
        Ok(())
    }

    /// Workers are there, or the operators that want them say so.
    pub(super) async fn until_workers(&self) -> Result<(), OcpError> {
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

    pub(super) fn fill(&self, message: &str) -> String {
        message.replace("VERSION", &self.cluster.assets.version).replace("DOMAIN", &self.cluster.assets.domain)
    }

    pub(super) fn is_available(&self, name: &str) -> bool {
        self.store.get("clusteroperators", "", name).is_some_and(|operator| {
            operator["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["type"] == "Available" && one["status"] == "True"))
        })
    }

    pub(super) fn operator(
        &self,
        name: &str,
        available: &str,
        progressing: &str,
        trouble: Option<(&str, &str)>,
    ) -> Result<(), OcpError> {
        let (at, version) = (now(), &self.cluster.assets.version);
        let (reason, message) = trouble.unwrap_or(("AsExpected", "All is well"));
        let degraded = trouble.filter(|(reason, _)| *reason == DEGRADED || reason.contains("Unhealthy"));
        let conditions = json!([
            match degraded {
                Some((reason, message)) => condition("Degraded", "True", reason, message, &at),
                None => condition("Degraded", "False", "AsExpected", "", &at),
            },
            condition("Progressing", progressing, reason, message, &at),
            condition("Available", available, reason, message, &at),
            condition("Upgradeable", "True", "AsExpected", "", &at),
        ]);
        let namespaces = json!([{ "group": "", "resource": "namespaces", "name": format!("openshift-{name}") }]);
        let mut status = json!({ "conditions": conditions, "relatedObjects": namespaces });
        if available == "True" {
            status["versions"] = json!([{ "name": "operator", "version": version }]);
        }
        let operator = json!({ "metadata": { "name": name }, "spec": {}, "status": status });
        self.store.put(named("clusteroperators")?, operator);
        Ok(())
    }

    pub(super) fn version(&self, done: usize, waiting: &[&str]) -> Result<(), OcpError> {
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
                "spec": { "clusterID": super::super::mirror::uuid(), "channel": format!("stable-{}", super::super::payload::minor(version)) },
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
