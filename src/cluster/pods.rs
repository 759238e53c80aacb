//! Pods that do not get on: why, and whose log tells more.
//!
//! Statuses of containers are those of core/v1 `ContainerStatus`; the reasons that a container waits with are in
//! k8s.io/kubernetes `pkg/kubelet/kuberuntime` and `pkg/kubelet/images`.

use jiff::Timestamp;
use serde_json::Value;

use crate::model::event::Pod;
use crate::model::text::one_line;

use super::MESSAGE_LIMIT;

/// A container that runs and is not ready for so long is in trouble.
const PATIENCE_S: i64 = 120;
/// Reasons to wait that are none to worry.
const NORMAL: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

/// A pod in trouble.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    pub pod: Pod,
    /// Which log to read; none when nothing has run.
    pub log: Option<Log>,
}

/// A container's log: of its present life, or of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub container: String,
    pub previous: bool,
}

/// What is wrong with a pod; `None` when nothing is.
pub fn trouble(object: &Value, now: Timestamp) -> Option<Trouble> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("");
    let phase = text("/status/phase");
    if phase == "Succeeded" || object.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let make = |container: &str, reason: &str, message: &str, restarts: u32, previous: Option<bool>| Trouble {
        pod: Pod {
            namespace: one_line(text("/metadata/namespace"), 100),
            name: one_line(text("/metadata/name"), 253),
            node: one_line(text("/spec/nodeName"), 253),
            container: one_line(container, 100),
            reason: one_line(reason, 100),
            message: one_line(message, MESSAGE_LIMIT),
            restarts,
            tail: Vec::new(),
        },
        log: previous.map(|previous| Log { container: container.to_owned(), previous }),
    };
    for list in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for status in object.pointer(list).and_then(Value::as_array).into_iter().flatten() {
            let text = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or("");
            let restarts = status.get("restartCount").and_then(Value::as_u64).unwrap_or(0);
            let restarts = u32::try_from(restarts).unwrap_or(u32::MAX);
            let name = text("/name");
            if let Some(waiting) = status.pointer("/state/waiting") {
                let reason = waiting.get("reason").and_then(Value::as_str).unwrap_or("");
                if !NORMAL.contains(&reason) {
                    let log = (restarts > 0).then_some(true);
                    // With terminationMessagePolicy FallbackToLogsOnError these are its last words.
                    let last = text("/lastState/terminated/message").trim();
                    let waits = text("/state/waiting/message");
                    let message = if last.is_empty() { waits.to_owned() } else { format!("{waits}: {last}") };
                    return Some(make(name, reason, &message, restarts, log));
                }
            } else if let Some(ended) = status.pointer("/state/terminated") {
                let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
                if code != 0 {
                    let why = text("/state/terminated/message").trim();
                    let message = format!("exit code {code}{}{why}", if why.is_empty() { "" } else { ": " });
                    return Some(make(name, text("/state/terminated/reason"), &message, restarts, Some(false)));
                }
            } else if status.get("ready").and_then(Value::as_bool) == Some(false)
                && list.ends_with("/containerStatuses")
            {
                let began: Option<Timestamp> = text("/state/running/startedAt").parse().ok();
                let Some(long) = began.map(|began| now.duration_since(began).as_secs()).filter(|s| *s > PATIENCE_S)
                else {
                    continue;
                };
                let message = format!("runs for {} min and is not ready", long / 60);
                return Some(make(name, "NotReady", &message, restarts, Some(false)));
            }
        }
    }
    let unplaced = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().find(|one| {
        let text = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or("");
        text("type") == "PodScheduled" && text("status") == "False" && !text("message").is_empty()
    });
    if let Some(message) = unplaced.and_then(|one| one.get("message")?.as_str()) {
        return Some(make("", "Unschedulable", message, 0, None));
    }
    (phase == "Failed").then(|| make("", text("/status/reason"), text("/status/message"), 0, None))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_that_fails_is_named_and_the_life_that_has_the_reason() {
        let now: Timestamp = "2025-03-01T10:10:00Z".parse().unwrap();
        let told = |phase: &str, statuses: Value, conditions: Value| {
            let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "m0"},
                "status": {"phase": phase, "containerStatuses": statuses, "conditions": conditions}});
            trouble(&pod, now).map(|trouble| {
                let Pod { container, reason, message, restarts, .. } = trouble.pod;
                let log = trouble.log.map_or("no log".to_owned(), |log| format!("previous {}", log.previous));
                format!("{container} {reason} {message} {restarts} {log}")
            })
        };
        let status = |state: Value, restarts: u64| {
            json!([{"name": "ok", "ready": true, "state": {"running": {}}},
            {"name": "bad", "ready": false, "restartCount": restarts, "state": state}])
        };
        let crash = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}});
        let mut crashed = status(crash.clone(), 3);
        crashed[1]["lastState"] = json!({"terminated": {"exitCode": 1, "message": "no such host\n"}});
        let pull = json!({"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}});
        let ended = json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}});
        let running = |at: &str| json!({"running": {"startedAt": at}});
        let none = || json!([]);
        for (statuses, wanted) in [
            (status(crash, 3), Some("bad CrashLoopBackOff back-off 40s 3 previous true")),
            (crashed, Some("bad CrashLoopBackOff back-off 40s: no such host 3 previous true")),
            (status(pull, 0), Some("bad ImagePullBackOff manifest unknown 0 no log")),
            (status(ended, 0), Some("bad OOMKilled exit code 137 0 previous false")),
            (
                status(running("2025-03-01T10:00:00Z"), 0),
                Some("bad NotReady runs for 10 min and is not ready 0 previous false"),
            ),
            (status(running("2025-03-01T10:09:30Z"), 0), None),
            (status(json!({"waiting": {"reason": "ContainerCreating"}}), 0), None),
        ] {
            assert_eq!(told("Running", statuses, none()).as_deref(), wanted);
        }
        let unplaced = json!([{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]);
        assert_eq!(
            told("Pending", none(), unplaced).as_deref(),
            Some(" Unschedulable 0/3 nodes are available 0 no log")
        );
        assert_eq!(told("Succeeded", status(json!({"terminated": {"exitCode": 1}}), 0), none()), None);
    }
}
