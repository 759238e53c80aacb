//! Objects of a cluster as they should be: what is asked of each, whether it holds, and how it is brought about. Whatever
//! else such an object has stays as it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::{Probe, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, Evidence, Unit};

use super::repair::oc;
use super::world::{Cx, action, bytes, exec, fact, must, put, wait_for};

/// How an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It is made when it is not there.
    Apply,
    /// It is there in every cluster; only these fields change.
    Patch,
}

/// What has to hold of one object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Desired {
    /// As `oc` knows it, unmistakably: `images.config.openshift.io`.
    pub kind: String,
    /// Empty for what belongs to the whole cluster.
    pub namespace: String,
    pub name: String,
    pub how: How,
    /// The whole object, or the part of it to be merged.
    pub want: Value,
}

impl Desired {
    pub fn patch(kind: &str, name: &str, want: Value) -> Self {
        Self { kind: kind.into(), namespace: String::new(), name: name.into(), how: How::Patch, want }
    }

    /// An object as it stands in a file.
    pub fn whole(object: Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, api) = (text("/kind").to_lowercase(), text("/apiVersion"));
        let kind = api.split_once('/').map_or(kind.clone(), |(group, version)| format!("{kind}.{version}.{group}"));
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        Self { kind, namespace, name, how: How::Apply, want: object }
    }

    fn place(&self) -> Vec<&str> {
        let mut words = vec![self.kind.as_str(), self.name.as_str()];
        if !self.namespace.is_empty() {
            words.extend(["--namespace", &self.namespace]);
        }
        words
    }

    pub fn shown(&self) -> String {
        let kind = self.kind.split('.').next().unwrap_or_default();
        if self.namespace.is_empty() {
            format!("{kind}/{}", self.name)
        } else {
            format!("{kind}/{} in {}", self.name, self.namespace)
        }
    }

    /// As a plan shows it.
    pub fn preview(&self) -> Action {
        match self.how {
            How::Apply => {
                action("bastion", &Cmd::new("oc").args(["apply", "--filename", &format!("<{}>", self.shown())]))
            }
            How::Patch => action("bastion", &patch(Cmd::new("oc"), self)),
        }
    }
}

fn patch(oc: Cmd, one: &Desired) -> Cmd {
    oc.arg("patch").args(one.place()).args(["--type", "merge", "--patch", &one.want.to_string()])
}

/// The server has no such kind: the capability is not installed, or the operator is not.
pub(super) fn unknown_kind(said: &str) -> bool {
    said.contains("the server doesn't have a resource type") || said.contains("no matches for kind")
}

/// What `oc get … -o json` gives; `None` when neither object nor kind is there.
///
/// # Errors
/// When the API does not answer.
pub(super) async fn live(cx: &Cx, words: &[&str]) -> Result<Option<Value>, StepError> {
    let cmd = oc(cx, &["get"])?.args(words.iter().copied()).args(["--output", "json", "--ignore-not-found"]);
    let line = cmd.line();
    let output = exec(cx, &cx.world.bastion(cx)?, cmd).await?;
    if !output.ok() {
        let said = output.error_text();
        return match unknown_kind(&said) {
            true => Ok(None),
            false => {
                Err(StepError::transient(format!("`{line}` ended with status {}: {}", output.status, said.trim())))
            }
        };
    }
    if output.text().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&output.stdout)
        .map(Some)
        .map_err(|error| StepError::transient(format!("`{line}` gave no JSON: {error}")))
}

/// The first thing in which an object is not as wanted; nothing when it is. Lists have to hold what is wanted, in any order.
pub(super) fn lacks(live: &Value, want: &Value, at: &str) -> Option<String> {
    match (live, want) {
        (Value::Object(live), Value::Object(want)) => want.iter().find_map(|(key, want)| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            match live.get(key) {
                Some(live) => lacks(live, want, &at),
                None if want.is_null() => None,
                None => Some(format!("has no {at}")),
            }
        }),
        (Value::Array(live), Value::Array(want)) => want
            .iter()
            .find(|want| !live.iter().any(|live| lacks(live, want, "").is_none()))
            .map(|_| format!("{at} has other entries")),
        (live, want) => (live != want).then(|| format!("{at} is {}", short(live))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
}

/// Do they all hold?
///
/// # Errors
/// When the API does not answer.
pub(super) async fn hold(cx: &Cx, all: &[Desired]) -> Result<Probe, StepError> {
    let mut evidence = Vec::new();
    for one in all {
        let asked = format!("oc get {}", one.place().join(" "));
        let Some(found) = live(cx, &one.place()).await? else {
            return Ok(Probe::Missing(format!("{} is not there", one.shown())));
        };
        if let Some(why) = lacks(&found, &one.want, "") {
            return Ok(Probe::Missing(format!("{} {why}", one.shown())));
        }
        evidence.push(Evidence::new(asked, "as wanted"));
    }
    Ok(Probe::True(evidence))
}

/// Bring about those that do not hold; gives how many were changed.
///
/// # Errors
/// When one is refused.
pub(super) async fn bring(cx: &Cx, all: &[Desired]) -> Result<usize, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let mut changed = 0;
    for one in all {
        if live(cx, &one.place()).await?.is_some_and(|found| lacks(&found, &one.want, "").is_none()) {
            continue;
        }
        match one.how {
            How::Patch => must(cx, &bastion, patch(oc(cx, &[])?, one)).await?,
            How::Apply => {
                let folder = format!("{}/day-two", cx.need(fact::WORKDIR)?);
                must(cx, &bastion, Cmd::new("mkdir").args(["-p", &folder])).await?;
                let kind = one.kind.split('.').next().unwrap_or_default();
                let path = format!("{folder}/{kind}-{}.json", one.name);
                put(cx, &bastion, &path, bytes(one.want.to_string()), 0o644).await?;
                must(cx, &bastion, oc(cx, &["apply", "--filename", &path])?).await?
            }
        };
        changed += 1;
    }
    Ok(changed)
}

/// A condition of an object.
pub(super) fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|one| one.get("type").and_then(Value::as_str) == Some(kind))
}

pub(super) fn is(object: &Value, kind: &str, status: &str) -> bool {
    condition(object, kind).and_then(|one| one.get("status")).and_then(Value::as_str) == Some(status)
}

pub(super) fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn items(list: Option<Value>) -> Vec<Value> {
    match list.and_then(|mut list| list.get_mut("items").map(Value::take)) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Machine-config pools that still roll, or why one cannot.
fn rolling(pools: &[Value]) -> Result<Vec<&str>, String> {
    if let Some(ill) = pools.iter().find(|pool| is(pool, "Degraded", "True")) {
        let message = condition(ill, "Degraded").and_then(|one| one.get("message")).and_then(Value::as_str);
        return Err(format!("the pool {} is degraded: {}", name(ill), message.unwrap_or("it does not say why")));
    }
    Ok(pools.iter().filter(|pool| !is(pool, "Updated", "True")).map(name).collect())
}

/// Waits until every node has the configuration of its pool; they restart one after the other.
///
/// # Errors
/// When a pool is degraded, or it takes longer than nodes take.
pub(super) async fn rolled(cx: &Cx) -> Result<(), StepError> {
    /// Until the machine-config operator has seen what it has to do.
    const GRACE: Duration = Duration::from_secs(60);
    const LONGEST: Duration = Duration::from_secs(5400);
    let (started, begun) = (Instant::now(), AtomicBool::new(false));
    wait_for(cx, "the machine-config pools", Duration::from_secs(5), LONGEST, || async {
        let pools = items(live(cx, &["machineconfigpools"]).await?);
        let busy = rolling(&pools).map_err(StepError::transient)?;
        if !busy.is_empty() {
            begun.store(true, Ordering::Relaxed);
            let note = Some(format!("nodes restart one after the other: {}", busy.join(", ")));
            let done = u64::try_from(pools.len() - busy.len()).unwrap_or_default();
            cx.progress(done, u64::try_from(pools.len()).ok(), Unit::Count, note).await;
            return Ok(None);
        }
        Ok((begun.load(Ordering::Relaxed) || started.elapsed() > GRACE).then_some(()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_wanted_counts() {
        let live = json!({ "spec": { "a": 1, "list": [{ "source": "x", "mirrors": ["m", "n"] }, "y"] } });
        let lack = |want: Value| lacks(&live, &want, "");
        assert_eq!(lack(json!({ "spec": { "list": [{ "source": "x", "mirrors": ["n"] }] } })), None);
        assert_eq!(lack(json!({ "spec": { "list": ["z"] } })).unwrap(), "spec.list has other entries");
        assert_eq!(lack(json!({ "spec": { "a": 2 } })).unwrap(), "spec.a is 1");
        assert_eq!(lack(json!({ "status": {} })).unwrap(), "has no status");
        let object =
            json!({ "apiVersion": "config.openshift.io/v1", "kind": "ImageTagMirrorSet", "metadata": { "name": "a" } });
        assert_eq!(Desired::whole(object).kind, "imagetagmirrorset.v1.config.openshift.io");
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "namespace": "b" } });
        assert_eq!(Desired::whole(map).shown(), "configmap/a in b");
    }

    #[test]
    fn a_pool_that_cannot_go_on_says_why() {
        let pool = |updated: &str, degraded: &str| {
            json!({ "metadata": { "name": "worker" }, "status": { "conditions": [
                { "type": "Updated", "status": updated },
                { "type": "Degraded", "status": degraded, "message": "node x: unexpected on-disk state" },
            ] } })
        };
        assert_eq!(rolling(&[pool("True", "False")]), Ok(vec![]));
        assert_eq!(rolling(&[pool("False", "False")]), Ok(vec!["worker"]));
        assert!(rolling(&[pool("False", "True")]).unwrap_err().contains("unexpected on-disk state"));
    }
}
