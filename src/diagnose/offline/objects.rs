//! Objects of the cluster's API as a bundle or a must-gather keeps them (JSON or YAML, alone or in lists): operators,
//! nodes, machines, certificate requests, pods that do not start, pools, events, and whatever else says in its conditions
//! that something is wrong.

use jiff::Timestamp;
use serde_json::Value;

use crate::cluster::Kind;
use crate::cluster::pods::trouble;
use crate::diagnose::Matcher;
use crate::model::event::{Data, Observed};

/// Nested lists and objects that are looked through for a time.
const DEPTH: usize = 12;

/// Whether a file of a bundle holds objects that say how an installation goes.
pub(super) fn is_objects(path: &str) -> bool {
    let Some(stem) = path.strip_suffix(".json").or_else(|| path.strip_suffix(".yaml")) else { return false };
    const HOLDERS: &[&str] = &[
        "clusteroperators",
        "clusterversion",
        "clusterversions",
        "nodes",
        "csr",
        "certificatesigningrequests",
        "machines",
        "machineconfigpools",
        "pods",
        "events",
        // Of these the conditions.
        "apiservices",
        "baremetalhosts",
        "catalogsources",
        "clustercatalogs",
        "clusterextensions",
        "clusterserviceversions",
        "configs",
        "controllerconfigs",
        "credentialsrequests",
        "daemonsets",
        "deployments",
        "dnses",
        "etcds",
        "ingresscontrollers",
        "installplans",
        "jobs",
        "kubeapiservers",
        "kubecontrollermanagers",
        "kubeschedulers",
        "machineconfignodes",
        "networks",
        "openshiftapiservers",
        "persistentvolumeclaims",
        "subscriptions",
    ];
    let mut parts = stem.rsplit('/');
    let file = parts.next().unwrap_or(stem);
    // must-gather: .../clusteroperators/ingress.yaml, .../core/nodes/ip-10-0-1-5.yaml
    let folder = parts.next().unwrap_or("");
    HOLDERS.contains(&file) || HOLDERS.contains(&folder) && folder != "pods" && folder != "events"
}

/// The objects in a file; nothing when it holds something else.
pub fn parse(path: &str, text: &[u8]) -> Vec<Value> {
    let parsed: Option<Value> = match path.ends_with(".json") {
        true => serde_json::from_slice(text).ok(),
        false => yaml_serde::from_slice(text).ok(),
    };
    let Some(object) = parsed else { return Vec::new() };
    match object.get("items").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => vec![object],
    }
}

/// Everything that is known of an object's state, as the matcher takes it.
pub(super) fn feed(matcher: &mut Matcher, object: &Value) -> Vec<Data> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("");
    let at = newest(object, 0).unwrap_or(Timestamp::UNIX_EPOCH);
    // Of a bundle's warnings nothing newer is known: they are looked at below.
    let live = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Warnings);
    let kind = live.into_iter().find(|kind| kind.resource().2 == text("/kind"));
    if let Some(kind) = kind {
        let Ok(observed) = kind.observe(object) else { return Vec::new() };
        let since = match &observed {
            Observed::Operator(operator) => operator.since,
            _ => None,
        };
        let mut told = matcher.feed_observed(&observed, since.unwrap_or(at));
        if matches!(observed, Observed::ClusterVersion(_)) {
            told.extend(complaints(matcher, object, at));
        }
        return told;
    }
    match text("/kind") {
        "Pod" => match trouble(object, at) {
            Some(ill) => matcher.feed_observed(&Observed::Pod(ill.pod), at),
            None => Vec::new(),
        },
        "Event" if text("/type") == "Warning" => {
            let told = format!("{} {}", text("/reason"), text("/message"));
            matcher.feed_state(
                &format!("event/{}/{}", text("/involvedObject/namespace"), text("/involvedObject/name")),
                &told,
                at,
            )
        }
        _ => complaints(matcher, object, at),
    }
}

/// Whether a condition of this type says, with this status, that something is wrong. Types are named by their ends
/// (`NodeInstallerDegraded`, `LoadBalancerReady`, `CatalogSourcesUnhealthy`).
fn is_wrong(kind: &str, status: &str) -> bool {
    const BAD: &[&str] = &["Degraded", "Failing", "Failed", "Failure", "Unhealthy", "Invalid"];
    const GOOD: &[&str] = &[
        "Accepted",
        "Admitted",
        "Available",
        "Healthy",
        "Installed",
        "Ready",
        "RetrievedUpdates",
        "Scheduled",
        "Succeeded",
        "Succeeding",
        "Upgradeable",
    ];
    let ends = |with: &[&str]| with.iter().any(|end| kind.ends_with(end));
    match status {
        "True" => ends(BAD),
        "False" => ends(GOOD) && !ends(BAD),
        _ => false,
    }
}

/// What an object of any kind says of itself that is wrong: in conditions (the operators', OLM's, of deployments), in the
/// state of a catalog's connection, in the error of a bare-metal host. Worded as `oc adm upgrade` and the operators do.
fn complaints(matcher: &mut Matcher, object: &Value, at: Timestamp) -> Vec<Data> {
    let text = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("").to_owned();
    let place =
        [text(object, "/kind").to_lowercase(), text(object, "/metadata/namespace"), text(object, "/metadata/name")];
    let unit = place.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let mut told = Vec::new();
    for condition in object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
        let (kind, status) = (text(condition, "/type"), text(condition, "/status"));
        let (reason, message) = (text(condition, "/reason"), text(condition, "/message"));
        if !is_wrong(&kind, &status) && reason != "ProgressDeadlineExceeded" {
            continue;
        }
        let words = match kind.ends_with("Degraded") {
            true => format!("{kind}: {message}"),
            false => format!("{kind}={status} ({reason}: {message})"),
        };
        let since = text(condition, "/lastTransitionTime").parse().unwrap_or(at);
        told.extend(matcher.feed_state(&format!("{unit}/{kind}"), &words, since));
    }
    let state = text(object, "/status/connectionState/lastObservedState");
    if !matches!(state.as_str(), "" | "READY") {
        told.extend(matcher.feed_state(&unit, &format!("catalog {unit}: lastObservedState: {state}"), at));
    }
    let (phase, error) = (text(object, "/status/phase"), text(object, "/status/errorMessage"));
    let message = if phase == "Failed" { text(object, "/status/message") } else { error };
    if !message.is_empty() {
        let words = format!("{unit} {phase}: {}: {message}", text(object, "/status/reason"));
        told.extend(matcher.feed_state(&format!("{unit}/phase"), &words, at));
    }
    told
}

/// The newest time that an object speaks of.
pub fn newest(value: &Value, depth: usize) -> Option<Timestamp> {
    if depth > DEPTH {
        return None;
    }
    match value {
        Value::String(text) if text.len() >= 20 && text.len() <= 35 && text.contains('T') => text.parse().ok(),
        Value::Array(parts) => parts.iter().filter_map(|part| newest(part, depth + 1)).max(),
        Value::Object(fields) => fields.values().filter_map(|part| newest(part, depth + 1)).max(),
        _ => None,
    }
}
