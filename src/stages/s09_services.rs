//! 09: what runs in the cluster, and the services that people meet first: pods and where their images come from, names and
//! routes, the image registry, catalogs. By the cluster's own word; nothing is changed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::engine::StepError;
use crate::host::Cmd;
use crate::model::event::{Evidence, Level};
use crate::spec::NetworkVariant;

use super::s08_day_two::{not_ready, pairs, rules};
use super::s09_node;
use super::settle::{condition, is, items, live, name};
use super::world::{Cx, exec};

/// Reasons for which a container waits and will not stop waiting by itself.
const STUCK: [&str; 6] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "CrashLoopBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
];

/// What is to be said of all pods.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pods {
    count: usize,
    stuck: Vec<String>,
    /// Images by the repository that they were asked for from.
    images: BTreeMap<String, usize>,
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    lists.into_iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten()
}

fn look(pods: &[Value]) -> Pods {
    let mut found = Pods { count: pods.len(), ..Pods::default() };
    for pod in pods {
        let namespace = pod.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        for container in containers(pod) {
            let reason = container.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default();
            if STUCK.contains(&reason) {
                found.stuck.push(format!("{namespace}/{} ({reason})", name(pod)));
            }
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let repository = image.split('@').next().unwrap_or_default();
            if !repository.is_empty() && !repository.starts_with("sha256:") {
                *found.images.entry(repository.to_owned()).or_default() += 1;
            }
        }
    }
    found.stuck.sort();
    found.stuck.dedup();
    found
}

/// Does a rule, or the mirror itself, stand behind this repository?
fn is_mirrored(repository: &str, registry: &str, sources: &[String]) -> bool {
    let below = |source: &String| {
        repository.strip_prefix(source.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':']))
    };
    repository.starts_with(&format!("{registry}/")) || sources.iter().any(below)
}

pub(super) async fn pods(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let all = items(live(cx, &["pods", "--all-namespaces"]).await?);
    let found = look(&all);
    if !found.stuck.is_empty() {
        let shown = found.stuck.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        return Err(StepError::transient(format!("{} pods do not get on: {shown}", found.stuck.len())));
    }
    let kinds = ["imagedigestmirrorsets", "imagecontentsourcepolicies", "imagetagmirrorsets"];
    let sources: Vec<String> = rules(cx, &kinds).await?.iter().flat_map(pairs).map(|(source, _)| source).collect();
    let registry = cx.world.spec.registry();
    let (ours, others): (Vec<_>, Vec<_>) =
        found.images.iter().partition(|(repository, _)| is_mirrored(repository, &registry, &sources));
    let sum = |list: &[(&String, &usize)]| list.iter().map(|(_, count)| **count).sum::<usize>();
    let asked = "oc get pods --all-namespaces -o json";
    let mut evidence = vec![
        Evidence::new(asked, format!("{} pods, none of them stuck", found.count)),
        Evidence::new(asked, format!("{} containers from {} mirrored repositories", sum(&ours), ours.len())),
    ];
    if !others.is_empty() {
        let list = others.iter().map(|(repository, _)| repository.as_str()).collect::<Vec<_>>().join(", ");
        let text = format!("{} containers have images that no mirror rule covers: {list}", sum(&others));
        if cx.world.spec.network.variant != NetworkVariant::Private {
            cx.note(Level::Warn, format!("{text}; on another node they could not be pulled")).await;
        }
        evidence.push(Evidence::new(asked, text));
    }
    Ok(evidence)
}

/// Is a route admitted by a router?
fn admitted(route: &Value) -> bool {
    let ingress = route.pointer("/status/ingress").and_then(Value::as_array).cloned().unwrap_or_default();
    let yes = |one: &Value| {
        let conditions = one.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Admitted" && one["status"] == "True")
    };
    ingress.iter().any(yes)
}

pub(super) async fn names(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let mut evidence = Vec::new();
    for host in s09_node::names(cx) {
        let cmd = Cmd::new("getent").args(["hosts", &host]);
        let output = exec(cx, &bastion, cmd.clone()).await?;
        let address = output.text().split_whitespace().next().unwrap_or_default().to_owned();
        if address.is_empty() {
            return Err(StepError::transient(format!("{host} does not resolve on the bastion")).saw(evidence));
        }
        evidence.push(Evidence::new(cmd.line(), address));
    }
    let routes = items(live(cx, &["routes.route.openshift.io", "--all-namespaces"]).await?);
    let out: Vec<&str> = routes.iter().filter(|route| !admitted(route)).map(name).collect();
    if !out.is_empty() {
        return Err(StepError::transient(format!("no router admits {}", out.join(", "))).saw(evidence));
    }
    evidence.push(Evidence::new(
        "oc get routes --all-namespaces -o json",
        format!("{} routes, all admitted", routes.len()),
    ));
    let controllers = items(live(cx, &["ingresscontrollers.operator.openshift.io", "--all-namespaces"]).await?);
    for controller in &controllers {
        if is(controller, "Available", "False") {
            let why = condition(controller, "Available").and_then(|one| one.get("message")).and_then(Value::as_str);
            let text =
                format!("the router {} is not available: {}", name(controller), why.unwrap_or("it does not say why"));
            return Err(StepError::transient(text).saw(evidence));
        }
        evidence.push(Evidence::new(format!("oc get ingresscontroller {}", name(controller)), "available"));
    }
    Ok(evidence)
}

pub(super) async fn registry(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    const KIND: &str = "configs.imageregistry.operator.openshift.io";
    let asked = format!("oc get {KIND} cluster -o json");
    let Some(config) = live(cx, &[KIND, "cluster"]).await? else {
        return Ok(vec![Evidence::new(asked, "the cluster has no image registry (its capability is off)")]);
    };
    let state = config.pointer("/spec/managementState").and_then(Value::as_str).unwrap_or("Managed");
    if state == "Removed" {
        return Ok(vec![Evidence::new(asked, "Removed, by somebody's decision")]);
    }
    if !is(&config, "Available", "True") {
        let why = condition(&config, "Available").and_then(|one| one.get("message")).and_then(Value::as_str);
        return Err(StepError::transient(format!(
            "the image registry is not available: {}",
            why.unwrap_or("it does not say why")
        ))
        .hint("on AWS it keeps its blobs in S3, and reaches that by the VPC's gateway endpoint"));
    }
    let kind = |storage: &Value| {
        storage.as_object().into_iter().flat_map(|map| map.keys().cloned()).find(|key| key != "managementState")
    };
    let storage = config.pointer("/status/storage").and_then(kind).unwrap_or_else(|| "unknown".into());
    Ok(vec![Evidence::new(asked, format!("{state}, available, storage {storage}"))])
}

pub(super) async fn catalogs(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let sources = items(live(cx, &["catalogsources.operators.coreos.com", "--all-namespaces"]).await?);
    let image = |source: &Value| source.pointer("/spec/image").and_then(Value::as_str).unwrap_or_default().to_owned();
    if cx.world.spec.network.variant != NetworkVariant::Private {
        let theirs: Vec<&str> =
            sources.iter().filter(|source| image(source).starts_with("registry.redhat.io/")).map(name).collect();
        if !theirs.is_empty() {
            return Err(StepError::transient(format!(
                "{} ask registry.redhat.io, which nobody reaches",
                theirs.join(", ")
            )));
        }
    }
    let ill = not_ready(&sources);
    if !ill.is_empty() {
        return Err(StepError::transient(format!("catalogs do not answer: {}", ill.join(", "))));
    }
    let asked = "oc get catalogsources --all-namespaces -o json";
    let mut evidence = vec![Evidence::new(asked, format!("{} catalogs, all of them ready", sources.len()))];
    evidence.extend(sources.iter().map(|source| Evidence::new(format!("catalog {}", name(source)), image(source))));
    Ok(evidence)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_do_not_get_on_and_where_images_come_from() {
        let pod = |name: &str, image: &str, state: Value| json!({ "metadata": { "name": name, "namespace": "n" }, "status": { "containerStatuses": [{ "image": image, "state": state }] } });
        let found = look(&[
            pod("a", "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:aa", json!({ "running": {} })),
            pod("b", "registry.redhat.io/x/y:v1", json!({ "waiting": { "reason": "ImagePullBackOff" } })),
            pod("c", "sha256:0f", json!({ "waiting": { "reason": "ContainerCreating" } })),
        ]);
        assert_eq!((found.count, found.stuck.as_slice()), (3, &["n/b (ImagePullBackOff)".to_owned()][..]));
        let sources = ["quay.io/openshift-release-dev/ocp-v4.0-art-dev".to_owned()];
        let mirrored: Vec<bool> = found.images.keys().map(|image| is_mirrored(image, "reg:5000", &sources)).collect();
        assert_eq!(mirrored, [true, false]);
        assert!(
            is_mirrored("reg:5000/a", "reg:5000", &[]) && !is_mirrored("quay.io/ab", "reg:5000", &["quay.io/a".into()])
        );
        let route = |status: &str| json!({ "status": { "ingress": [{ "conditions": [{ "type": "Admitted", "status": status }] }] } });
        assert!(admitted(&route("True")) && !admitted(&route("False")) && !admitted(&json!({})));
    }
}
