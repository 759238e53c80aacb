//! The shared scene of the lab's OpenShift side, and one cluster in it: what its Ignition configs say, and how far it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::OcpError;
use super::ca::{Ca, Leaf};
use super::kube_store::Store;
use super::payload::Payload;
use super::pull::PullConfig;
use super::scenario::{Happened, Scenario};
use super::tools::podman::Containers;
use super::{bootstrap, control_plane, kube_api};
use crate::cloud::memory::MemoryCloud;
use crate::cloud::{Cloud, Kind, Tags};
use crate::lab::machines::{Clock, MachineSpec, Machines};

/// What all parts of the lab's OpenShift side share.
pub struct Scene {
    pub dir: PathBuf,
    pub clock: Clock,
    pub machines: Arc<Machines>,
    pub scenario: Scenario,
    pub payload: Arc<Payload>,
    pub cloud: MemoryCloud,
    /// Where `quay.io` is.
    pub source: SocketAddr,
    pub source_ca: Ca,
    pub kube: Arc<Store>,
    pub containers: Containers,
    pub cancel: CancellationToken,
    pub(in crate::lab) happened: Mutex<Happened>,
    pub(in crate::lab) clusters: Mutex<BTreeMap<String, Arc<Cluster>>>,
}

/// What `openshift-install create cluster` decided, and what is in the Ignition configs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assets {
    pub infra_id: String,
    pub name: String,
    pub domain: String,
    pub region: String,
    pub version: String,
    /// By digest, as the source is called.
    pub release: String,
    pub pull: PullConfig,
    pub ssh_key: String,
    /// Of the kube API: certificate and key of the CA and of the administrator, PEM.
    pub ca: (String, String),
    pub server: (String, String),
    /// Where workers are made.
    pub subnet: String,
    pub nodes: Vec<NodePlan>,
    pub kubeconfig: String,
    /// Secrets of the manifests, `namespace/name`, when the cluster makes none itself.
    #[serde(default)]
    pub secrets: Option<Vec<String>>,
    /// The DNS manifest has no zones: the ingress operator leaves the records to others.
    #[serde(default)]
    pub no_zones: bool,
}

/// A machine of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodePlan {
    /// `bootstrap`, `master-0`, `worker-1`
    pub name: String,
    /// Of the instance; workers have theirs once the machine API made them.
    pub instance: String,
    pub address: String,
    /// `ip-10-0-1-5.us-east-2.compute.internal`
    pub node: String,
}

/// How far a cluster is. Every mark is set once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The bootstrap machine serves Ignition to the masters.
    pub serves_ignition: bool,
    /// The temporary control plane answers.
    pub api: bool,
    /// The four required pods run on masters.
    pub control_plane: bool,
    /// etcd has three members besides the bootstrap's.
    pub etcd: bool,
    pub bootkube: bool,
    /// `kube-system/bootstrap` says complete.
    pub complete: bool,
    /// The installer took the bootstrap machine away.
    pub bootstrap_gone: bool,
    pub initialized: bool,
    pub stable: bool,
}

pub struct Cluster {
    pub assets: Assets,
    pub marks: watch::Sender<Marks>,
    pub cancel: CancellationToken,
    /// Somebody resets the bootstrap machine.
    pub reset: Notify,
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    assets: Assets,
    marks: Marks,
}

impl Cluster {
    pub fn marks(&self) -> Marks {
        *self.marks.borrow()
    }

    pub fn mark(&self, change: impl FnOnce(&mut Marks)) {
        self.marks.send_modify(change);
        let kept = Kept { assets: self.assets.clone(), marks: self.marks() };
        if let Ok(bytes) = serde_json::to_vec(&kept) {
            // Only a restarted lab needs it.
            let _ = std::fs::write(&self.file, bytes);
        }
    }

    /// Wait until `is` holds.
    pub async fn until(&self, is: impl Fn(&Marks) -> bool) {
        let mut seen = self.marks.subscribe();
        // The sender lives as long as the cluster.
        let _ = seen.wait_for(|marks| is(marks)).await;
    }

    pub fn masters(&self) -> impl Iterator<Item = &NodePlan> {
        self.assets.nodes.iter().filter(|node| node.name.starts_with("master"))
    }

    pub fn workers(&self) -> impl Iterator<Item = &NodePlan> {
        self.assets.nodes.iter().filter(|node| node.name.starts_with("worker"))
    }

    /// The tag that everything of the cluster carries.
    pub fn owned(&self) -> Tags {
        Tags::from([(format!("kubernetes.io/cluster/{}", self.assets.infra_id), "owned".to_owned())])
    }

    pub fn node(&self, name: &str) -> Option<&NodePlan> {
        self.assets.nodes.iter().find(|node| node.name == name)
    }
}

impl Scene {
    pub async fn sleep(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    /// The one cluster that is there, by its infraID.
    pub fn cluster(&self, infra_id: &str) -> Option<Arc<Cluster>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner).get(infra_id).cloned()
    }

    pub fn any_cluster(&self) -> Option<Arc<Cluster>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner).values().next_back().cloned()
    }

    /// Bring the machines of a cluster to life. They go on by themselves from here.
    pub fn launch(self: &Arc<Self>, assets: Assets) -> Result<Arc<Cluster>, OcpError> {
        self.begin(Kept { assets, marks: Marks::default() })
    }

    /// Go on with the clusters of an earlier life of the lab.
    pub fn relaunch(self: &Arc<Self>) -> Result<(), OcpError> {
        let folder = self.dir.join("clusters");
        std::fs::create_dir_all(&folder).map_err(OcpError::file(&folder))?;
        for entry in std::fs::read_dir(&folder).map_err(OcpError::file(&folder))?.flatten() {
            let kept = std::fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
            if let Some(kept) = kept {
                self.begin(kept)?;
            }
        }
        Ok(())
    }

    fn begin(self: &Arc<Self>, kept: Kept) -> Result<Arc<Cluster>, OcpError> {
        let folder = self.dir.join("clusters");
        std::fs::create_dir_all(&folder).map_err(OcpError::file(&folder))?;
        let cluster = Arc::new(Cluster {
            file: folder.join(format!("{}.json", kept.assets.infra_id)),
            assets: kept.assets,
            marks: watch::Sender::new(kept.marks),
            cancel: self.cancel.child_token(),
            reset: Notify::new(),
        });
        cluster.mark(|_| {});
        let id = cluster.assets.infra_id.clone();
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner).insert(id, cluster.clone());
        if !kept.marks.bootstrap_gone {
            self.task(&cluster, bootstrap::run(self.clone(), cluster.clone()));
        }
        self.task(&cluster, control_plane::run(self.clone(), cluster.clone()));
        self.task(&cluster, serve_api(self.clone(), cluster.clone()));
        self.task(&cluster, follow_instances(self.clone(), cluster.clone()));
        Ok(cluster)
    }

    fn task(&self, cluster: &Cluster, work: impl Future<Output = Result<(), OcpError>> + Send + 'static) {
        let cancel = cluster.cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                ended = work => if let Err(why) = ended {
                    tracing::error!("the lab's cluster stopped: {why}");
                }
            }
        });
    }

    /// Take all machines of a cluster away, as `destroy cluster` does.
    pub async fn demolish(&self, infra_id: &str) {
        let cluster = self.clusters.lock().unwrap_or_else(PoisonError::into_inner).remove(infra_id);
        let Some(cluster) = cluster else { return };
        cluster.cancel.cancel();
        let _ = std::fs::remove_file(&cluster.file);
        for node in &cluster.assets.nodes {
            self.machines.unroute(&node.address);
            self.machines.shut_down(&node.name).await;
            self.machines.skew(&node.name).set(0);
        }
        for host in ["api", "api-int"] {
            self.machines.unroute(&format!("{host}.{}", cluster.assets.domain));
        }
        self.kube.set_up(false);
        self.kube.clear();
    }

    /// The machines of another installation had the same names; nothing of theirs is left on the disks of these.
    fn new_disk(&self, cluster: &Cluster, node: &NodePlan) -> Result<(), OcpError> {
        let disk = self.dir.join("machines/hosts").join(&node.name);
        let owner = disk.join("cluster");
        if std::fs::read_to_string(&owner).is_ok_and(|owner| owner == cluster.assets.infra_id) {
            return Ok(());
        }
        if disk.exists() {
            std::fs::remove_dir_all(&disk).map_err(OcpError::file(&disk))?;
        }
        std::fs::create_dir_all(&disk).map_err(OcpError::file(&disk))?;
        std::fs::write(&owner, &cluster.assets.infra_id).map_err(OcpError::file(&owner))
    }

    /// Boot one machine of a cluster, reachable at its address.
    pub async fn boot(
        &self,
        cluster: &Cluster,
        node: &NodePlan,
    ) -> Result<Arc<crate::lab::machines::Machine>, OcpError> {
        if let Some(machine) = self.machines.machine(&node.name) {
            return Ok(machine);
        }
        self.new_disk(cluster, node)?;
        let spec = MachineSpec {
            name: node.name.clone(),
            address: node.address.clone(),
            user: "core".into(),
            authorized_keys: vec![cluster.assets.ssh_key.clone()],
            disk_bytes: 100 << 30,
        };
        let machine = self.machines.boot(spec).await.map_err(|why| OcpError::Machine(why.to_string()))?;
        self.machines.route(&node.address, Some(22), machine.ssh());
        Ok(machine)
    }
}

async fn serve_api(scene: Arc<Scene>, cluster: Arc<Cluster>) -> Result<(), OcpError> {
    cluster.until(|marks| marks.api).await;
    let assets = &cluster.assets;
    let leaf = Leaf { certificate: assets.server.0.clone(), key: assets.server.1.clone() };
    let kubernetes = control_plane::kubernetes(&assets.version);
    let address = kube_api::start(scene.kube.clone(), &leaf, &assets.ca.0, &kubernetes, cluster.cancel.clone())?;
    for host in ["api", "api-int"] {
        scene.machines.route(&format!("{host}.{}", assets.domain), Some(6443), address);
    }
    scene.kube.set_up(true);
    Ok(())
}

/// A machine ends with its instance, whoever terminates it.
async fn follow_instances(scene: Arc<Scene>, cluster: Arc<Cluster>) -> Result<(), OcpError> {
    let mut seen: Vec<String> = Vec::new();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for node in cluster.assets.nodes.iter().filter(|node| !node.instance.is_empty()) {
            let gone = match scene.cloud.get(Kind::Instance, &node.instance).await {
                Ok(instance) => matches!(instance.state.as_str(), "shutting-down" | "terminated"),
                Err(error) if error.is_not_found() => true,
                Err(_) => false,
            };
            if gone && !seen.contains(&node.name) {
                seen.push(node.name.clone());
                scene.machines.unroute(&node.address);
                scene.machines.shut_down(&node.name).await;
                if node.name == "bootstrap" {
                    cluster.mark(|marks| marks.bootstrap_gone = true);
                }
            }
        }
        let masters = cluster.masters().count();
        if masters > 0 && cluster.masters().all(|node| seen.contains(&node.name)) {
            let scene = scene.clone();
            let id = cluster.assets.infra_id.clone();
            // Not from within: demolishing cancels this task.
            tokio::spawn(async move { scene.demolish(&id).await });
            return Ok(());
        }
    }
}
