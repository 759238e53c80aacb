//! What the controllers of a finished cluster keep up: the objects that every cluster has, and how these answer to changes.
//! It is brought up to date whenever somebody asks.

use serde_json::{Value, json};

use super::cluster::{Cluster, Scene};
use super::kube_store::{Resource, condition, now};
use super::payload::Payload;

const MARKETPLACE: &str = "openshift-marketplace";
/// The catalogs that a cluster brings along.
const DEFAULTS: [&str; 4] = ["certified-operators", "community-operators", "redhat-marketplace", "redhat-operators"];

/// Bring the objects up to date.
pub fn settle(scene: &Scene, cluster: &Cluster) {
    if !cluster.marks().initialized {
        return;
    }
    seed(scene, cluster);
    catalogs(scene);
    if let Some(routes) = Resource::named("routes") {
        for route in scene.kube.list(routes.plural, None).1 {
            let text = |field: &str| route["metadata"][field].as_str().unwrap_or_default().to_owned();
            if route["status"].is_null() {
                let host = route["spec"]["host"].clone();
                scene.kube.update(routes, &text("namespace"), &text("name"), |route| {
                    let admitted = condition("Admitted", "True", "", "", &now());
                    route["status"] = json!({ "ingress": [{ "host": host, "conditions": [admitted] }] });
                });
            }
        }
    }
}

fn absent(scene: &Scene, kind: &str, namespace: &str, name: &str, object: Value) {
    let Some(resource) = Resource::named(kind) else { return };
    if scene.kube.get(resource.plural, namespace, name).is_none() {
        let mut object = object;
        object["metadata"] = json!({ "name": name });
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        scene.kube.put(resource, object);
    }
}

fn seed(scene: &Scene, cluster: &Cluster) {
    let at = now();
    let yes = |kind: &str| condition(kind, "True", "AsExpected", "", &at);
    let no = |kind: &str| condition(kind, "False", "AsExpected", "", &at);
    absent(scene, "operatorhubs", "", "cluster", json!({ "spec": {} }));
    absent(scene, "images", "", "cluster", json!({ "spec": {} }));
    let samples = json!({ "spec": { "managementState": "Managed" } });
    absent(scene, "configs.samples.operator.openshift.io", "", "cluster", samples);
    let registry = json!({
        "spec": { "managementState": "Managed" },
        "status": {
            "conditions": [yes("Available"), no("Degraded")],
            "storage": { "managementState": "Managed", "s3": { "region": cluster.assets.region } },
        },
    });
    absent(scene, "configs.imageregistry.operator.openshift.io", "", "cluster", registry);
    for pool in ["master", "worker"] {
        let status = json!({ "conditions": [yes("Updated"), no("Updating"), no("Degraded")] });
        absent(scene, "machineconfigpools", "", pool, json!({ "status": status }));
    }
    let router = json!({ "status": { "conditions": [yes("Available"), no("Degraded")] } });
    absent(scene, "ingresscontrollers", "openshift-ingress-operator", "default", router);
    for image in scene.payload.components.iter().take(12) {
        let running = json!([{ "name": image.name, "image": Payload::pull_spec(image), "state": { "running": {} } }]);
        let pod = json!({ "status": { "phase": "Running", "containerStatuses": running } });
        absent(scene, "pods", &format!("openshift-{}", image.name), &format!("{}-7d9f8", image.name), pod);
    }
}

/// Default catalogs come and go with the switch; they never answer, because nobody reaches them. Others do.
fn catalogs(scene: &Scene) {
    let Some(sources) = Resource::named("catalogsources") else { return };
    let hub = scene.kube.get("operatorhubs", "", "cluster");
    let off = hub.is_some_and(|hub| hub["spec"]["disableAllDefaultSources"] == true);
    for name in DEFAULTS {
        if off {
            if scene.kube.get(sources.plural, MARKETPLACE, name).is_some() {
                scene.kube.delete(sources, MARKETPLACE, name);
            }
        } else {
            let image = format!("registry.redhat.io/redhat/{name}-index:v4.18");
            let state = json!({ "connectionState": { "lastObservedState": "TRANSIENT_FAILURE" } });
            let object = json!({ "spec": { "sourceType": "grpc", "image": image }, "status": state });
            absent(scene, "catalogsources", MARKETPLACE, name, object);
        }
    }
    for source in scene.kube.list(sources.plural, Some(MARKETPLACE)).1 {
        let name = source["metadata"]["name"].as_str().unwrap_or_default();
        if source["status"].is_null() {
            scene.kube.update(sources, MARKETPLACE, name, |source| {
                source["status"] = json!({ "connectionState": { "lastObservedState": "READY" } });
            });
        }
    }
}
