//! Objects of the cluster's API as a bundle or a must-gather keeps them (JSON or YAML, alone or in lists): operators,
//! nodes, machines, certificate requests, pods that do not start, pools, events.

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
        return matcher.feed_observed(&observed, since.unwrap_or(at));
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
        _ => Vec::new(),
    }
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
