//! The objects of the new cluster: one store that the timeline changes, and that the API and `oc` read.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::mirror::uuid;

/// Changes that a late watcher can still catch up with.
const HISTORY: usize = 1000;

/// A kind of object that the lab's API serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub short: &'static [&'static str],
    pub namespaced: bool,
}

const fn resource(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
) -> Resource {
    Resource { group, version, plural, kind, short, namespaced }
}

pub const RESOURCES: &[Resource] = &[
    resource("config.openshift.io", "v1", "clusteroperators", "ClusterOperator", &["co"], false),
    resource("config.openshift.io", "v1", "clusterversions", "ClusterVersion", &[], false),
    resource("config.openshift.io", "v1", "imagedigestmirrorsets", "ImageDigestMirrorSet", &["idms"], false),
    resource("", "v1", "nodes", "Node", &["no"], false),
    resource("", "v1", "namespaces", "Namespace", &["ns"], false),
    resource("", "v1", "configmaps", "ConfigMap", &["cm"], true),
    resource("", "v1", "events", "Event", &["ev"], true),
    resource("", "v1", "pods", "Pod", &["po"], true),
    resource("", "v1", "services", "Service", &["svc"], true),
    resource("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", &["csr"], false),
    resource("machine.openshift.io", "v1beta1", "machines", "Machine", &[], true),
    resource("operator.openshift.io", "v1", "etcds", "Etcd", &["etcd"], false),
    resource("imageregistry.operator.openshift.io", "v1", "configs", "Config", &[], false),
    resource("route.openshift.io", "v1", "routes", "Route", &[], true),
    resource("config.openshift.io", "v1", "imagetagmirrorsets", "ImageTagMirrorSet", &["itms"], false),
    resource("config.openshift.io", "v1", "operatorhubs", "OperatorHub", &[], false),
    resource("config.openshift.io", "v1", "images", "Image", &[], false),
    // Another kind of the same plural.
    resource("samples.operator.openshift.io", "v1", "configs.samples", "Config", &[], false),
    resource("machineconfiguration.openshift.io", "v1", "machineconfigpools", "MachineConfigPool", &["mcp"], false),
    resource("operator.openshift.io", "v1", "ingresscontrollers", "IngressController", &[], true),
    resource("operators.coreos.com", "v1alpha1", "catalogsources", "CatalogSource", &["catsrc"], true),
];

impl Resource {
    pub fn named(text: &str) -> Option<&'static Self> {
        let text = text.to_lowercase();
        let plain = text.split('.').next().unwrap_or_default();
        let whole = |known: &&Self| known.plural.contains('.') && text.starts_with(known.plural);
        let named =
            |known: &&Self| known.plural == plain || known.kind.to_lowercase() == plain || known.short.contains(&plain);
        RESOURCES.iter().find(whole).or_else(|| RESOURCES.iter().find(named))
    }

    pub fn at(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|known| known.group == group && known.version == version && known.plural == plural)
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }
}

#[derive(Debug, Clone)]
pub struct Change {
    pub version: u64,
    /// `ADDED`, `MODIFIED`, `DELETED`
    pub kind: &'static str,
    pub plural: String,
    pub object: Arc<Value>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    version: u64,
    /// By `<plural>/<namespace>/<name>`.
    objects: BTreeMap<String, Arc<Value>>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    history: VecDeque<Change>,
}

pub struct Store {
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
    file: PathBuf,
    up: AtomicBool,
}

/// A watch cannot go on from there.
#[derive(Debug)]
pub struct TooOld;

impl Store {
    pub fn open(file: PathBuf) -> Arc<Self> {
        // Without a readable file the cluster has no objects.
        let kept = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let state = Mutex::new(State { kept, history: VecDeque::new() });
        Arc::new(Self { state, changes: broadcast::channel(4096).0, file, up: AtomicBool::new(false) })
    }

    /// Somebody serves the API.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }

    pub fn clear(&self) {
        let mut state = self.lock();
        state.kept.objects.clear();
        state.history.clear();
        state.kept.version += 1;
        self.keep(&state);
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().kept.objects.get(&key(plural, namespace, name)).cloned()
    }

    /// All of a kind in the order of their names, with the version of the list.
    pub fn list(&self, plural: &str, namespace: Option<&str>) -> (u64, Vec<Arc<Value>>) {
        let state = self.lock();
        let prefix = match namespace {
            Some(namespace) => format!("{plural}/{namespace}/"),
            None => format!("{plural}/"),
        };
        let objects = state.kept.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        (state.kept.version.max(1), objects.map(|(_, object)| object.clone()).collect())
    }

    /// Add or replace an object. An object that did not change makes no change.
    pub fn put(&self, resource: &Resource, mut object: Value) -> Arc<Value> {
        object["apiVersion"] = json!(resource.api_version());
        object["kind"] = json!(resource.kind);
        let text = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = key(resource.plural, &text(&object, "namespace"), &text(&object, "name"));
        let mut state = self.lock();
        let old = state.kept.objects.get(&key).cloned();
        let metadata = old.as_ref().map(|old| old["metadata"].clone()).unwrap_or_default();
        for (field, default) in
            [("uid", json!(uuid())), ("creationTimestamp", json!(now())), ("resourceVersion", json!("1"))]
        {
            let kept = &metadata[field];
            object["metadata"][field] = if kept.is_null() { default } else { kept.clone() };
        }
        if let Some(old) = old.as_ref().filter(|old| ***old == object) {
            return old.clone();
        }
        state.kept.version = state.kept.version.max(1) + 1;
        let version = state.kept.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let object = Arc::new(object);
        state.kept.objects.insert(key, object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(&mut state, Change { version, kind, plural: resource.plural.into(), object: object.clone() });
        object
    }

    /// Change an object that is there.
    pub fn update(&self, resource: &Resource, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> bool {
        let Some(object) = self.get(resource.plural, namespace, name) else { return false };
        let mut object = (*object).clone();
        change(&mut object);
        self.put(resource, object);
        true
    }

    pub fn delete(&self, resource: &Resource, namespace: &str, name: &str) {
        let mut state = self.lock();
        if let Some(object) = state.kept.objects.remove(&key(resource.plural, namespace, name)) {
            state.kept.version += 1;
            let version = state.kept.version;
            self.tell(&mut state, Change { version, kind: "DELETED", plural: resource.plural.into(), object });
        }
    }

    /// What changed since `version`, and what will.
    pub fn watch(&self, since: u64) -> Result<(Vec<Change>, broadcast::Receiver<Change>), TooOld> {
        let state = self.lock();
        let complete = state.history.front().map_or(state.kept.version, |first| first.version - 1);
        if since < complete || since > state.kept.version.max(1) {
            return Err(TooOld);
        }
        let missed = state.history.iter().filter(|change| change.version > since).cloned().collect();
        Ok((missed, self.changes.subscribe()))
    }

    pub fn version(&self) -> u64 {
        self.lock().kept.version.max(1)
    }

    fn tell(&self, state: &mut State, change: Change) {
        state.history.push_back(change.clone());
        if state.history.len() > HISTORY {
            state.history.pop_front();
        }
        self.keep(state);
        // Without watchers nobody hears it.
        let _ = self.changes.send(change);
    }

    fn keep(&self, state: &State) {
        if let Ok(bytes) = serde_json::to_vec(&state.kept) {
            // A store that could not be kept starts empty after a restart; the timeline fills it again.
            let _ = std::fs::write(&self.file, bytes);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(plural: &str, namespace: &str, name: &str) -> String {
    format!("{plural}/{namespace}/{name}")
}

/// What a container of a pod has said, in its present life or the one before: an annotation of the lab's own.
pub fn log(pod: &Value, container: &str, previous: bool) -> Option<String> {
    let life = if previous { "previous-log" } else { "log" };
    let said = pod["metadata"]["annotations"][format!("lab/{life}.{container}")].as_str();
    said.map(|text| text.to_owned() + "\n").or_else(|| (!previous).then(String::new))
}

/// As Kubernetes writes a time: whole seconds.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn condition(kind: &str, status: &str, reason: &str, message: &str, since: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since })
}
