//! What the controllers of a finished cluster keep up: the objects that every cluster has, and how these answer to changes.
//! It is brought up to date whenever somebody asks.

use std::sync::Arc;

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
    absent(scene, "configs.imageregistry.operator.openshift.io", "", "cluster", registry.clone());
    if let Some(configs) = Resource::named("configs.imageregistry.operator.openshift.io") {
        let silent = scene.kube.get(configs.plural, "", "cluster").is_some_and(|one| one["status"].is_null());
        if silent {
            scene.kube.update(configs, "", "cluster", |one| one["status"] = registry["status"].clone());
        }
    }
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

fn condition_of(object: &mut Value, kind: &str, status: &str, message: &str) {
    let fresh = condition(kind, status, "", message, &now());
    if let Some(all) = object["status"]["conditions"].as_array_mut() {
        match all.iter_mut().find(|one| one["type"] == kind) {
            Some(one) => *one = fresh,
            None => all.push(fresh),
        }
    }
}

/// What the version operator does with a release that it was told to go to: the lab's own, or one that it cannot have.
pub fn upgrade(scene: &Arc<Scene>, image: &str) {
    let Some(versions) = Resource::named("clusterversions") else { return };
    if !image.ends_with(&scene.payload.release.digest) {
        let why = format!("Retrieving payload failed version=\"\" image={image:?} failure=Unable to download");
        scene.kube.update(versions, "", "version", |version| {
            condition_of(version, "ReleaseAccepted", "False", &why);
        });
        return;
    }
    let (to, image) = (scene.payload.version.clone(), image.to_owned());
    let step = move |scene: &Scene, done: u64| {
        let (to, image) = (to.clone(), image.clone());
        scene.kube.update(versions, "", "version", |version| {
            let finished = done >= 901;
            let state = if finished { "Completed" } else { "Partial" };
            let newest = json!({ "state": state, "version": to, "image": image, "startedTime": now() });
            version["status"]["desired"] = json!({ "version": to, "image": image });
            if let Some(history) = version["status"]["history"].as_array_mut() {
                history.retain(|one| one["image"] != image);
                history.insert(0, newest);
            }
            let message = match finished {
                true => format!("Cluster version is {to}"),
                false => format!("Working towards {to}: {done} of 901 done ({}% complete)", done * 100 / 901),
            };
            condition_of(version, "Progressing", if finished { "False" } else { "True" }, &message);
        });
    };
    let pools = |scene: &Scene, updated: &str| {
        let Some(pools) = Resource::named("machineconfigpools") else { return };
        for pool in ["master", "worker"] {
            scene.kube.update(pools, "", pool, |pool| condition_of(pool, "Updated", updated, ""));
        }
    };
    step(scene, 12);
    let scene = scene.clone();
    tokio::spawn(async move {
        for done in [106, 623, 870, 901] {
            scene.sleep(60).await;
            pools(&scene, if done < 901 { "False" } else { "True" });
            step(&scene, done);
        }
    });
}
