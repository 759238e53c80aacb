//! Nodes, the Machines behind them, and the pools that share a configuration.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::event::{Observed, Tri};
use crate::model::text::one_line;

use super::{Condition, MESSAGE_LIMIT, ParseError, condition, tri, view};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeObject {
    metadata: Metadata,
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    unschedulable: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeStatus {
    conditions: Vec<Condition>,
    node_info: NodeInfo,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo {
    kubelet_version: String,
}

const ROLE: &str = "node-role.kubernetes.io/";

/// Read a Node. Its role is as `oc get nodes` prints it: all of them, `control-plane,master`.
///
/// # Errors
/// When it has not that shape.
pub fn node(object: &Value) -> Result<Observed, ParseError> {
    let (name, NodeObject { metadata, spec, status }) = view("node", object)?;
    let roles: Vec<&str> = metadata.labels.keys().filter_map(|label| label.strip_prefix(ROLE)).collect();
    let ready = tri(&status.conditions, "Ready") == Tri::True;
    let message = match condition(&status.conditions, "Ready") {
        Some(_) if ready && spec.unschedulable => "scheduling is disabled".to_owned(),
        Some(_) if ready => String::new(),
        Some(condition) => condition.text(),
        None => "the kubelet has not reported yet".to_owned(),
    };
    Ok(Observed::Node {
        name,
        role: one_line(&roles.join(","), 100),
        ready,
        version: one_line(&status.node_info.kubelet_version, 100),
        message,
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MachineObject {
    metadata: Metadata,
    status: MachineStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MachineStatus {
    phase: Option<String>,
    error_message: Option<String>,
    error_reason: Option<String>,
}

const MACHINE_ROLE: &str = "machine.openshift.io/cluster-api-machine-role";

/// Read a Machine (`machine.openshift.io/v1beta1`).
///
/// # Errors
/// When it has not that shape.
pub fn machine(object: &Value) -> Result<Observed, ParseError> {
    let (name, MachineObject { metadata, status }) = view("machine", object)?;
    let message = status.error_message.or(status.error_reason).unwrap_or_default();
    Ok(Observed::Machine {
        name,
        role: one_line(metadata.labels.get(MACHINE_ROLE).map_or("", String::as_str), 100),
        phase: one_line(status.phase.as_deref().unwrap_or_default(), 100),
        message: one_line(&message, MESSAGE_LIMIT),
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolObject {
    status: PoolStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PoolStatus {
    machine_count: u32,
    ready_machine_count: u32,
    updated_machine_count: u32,
    degraded_machine_count: u32,
    conditions: Vec<Condition>,
}

/// Read a MachineConfigPool (`machineconfiguration.openshift.io/v1`).
///
/// # Errors
/// When it has not that shape.
pub fn pool(object: &Value) -> Result<Observed, ParseError> {
    let (name, PoolObject { status }) = view("machineconfigpool", object)?;
    let degraded: Vec<String> = status
        .conditions
        .iter()
        .filter(|condition| condition.kind.ends_with("Degraded") && condition.status == "True")
        .map(|condition| condition.message.clone().unwrap_or_default())
        .filter(|message| !message.is_empty())
        .collect();
    let updating = condition(&status.conditions, "Updating").filter(|condition| condition.status == "True");
    let message = match degraded.is_empty() {
        true => updating.map(Condition::text).unwrap_or_default(),
        false => one_line(&degraded.join("; "), MESSAGE_LIMIT),
    };
    // A pool that cannot render its configuration is degraded without a machine being so.
    let machines = status.degraded_machine_count.max(u32::from(!degraded.is_empty()));
    Ok(Observed::Pool {
        name,
        machines: status.machine_count,
        ready: status.ready_machine_count,
        updated: status.updated_machine_count,
        degraded: machines,
        message,
    })
}
