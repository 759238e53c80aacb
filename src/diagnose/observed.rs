//! States that no line tells: operators, nodes, machines, certificate requests, stages that do not end. Each becomes a
//! line worded as `openshift-install` or `oc` word it, so that the same signatures find it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Matcher;
use crate::model::event::{BootStage, CsrState, Data, Observed, Tri, Vanished};

/// Certificate requests that are named in a finding.
const NAMED: usize = 20;

/// What must be remembered between observations.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Pending certificate requests.
    csrs: BTreeMap<String, ()>,
}

pub(super) fn feed(matcher: &mut Matcher, what: &Observed, at: Timestamp) -> Vec<Data> {
    let mut told = matcher.tick(at);
    match what {
        Observed::Csr { name, state, .. } => {
            match state {
                CsrState::Pending => matcher.state.csrs.insert(name.clone(), ()),
                _ => matcher.state.csrs.remove(name),
            };
            told.extend(feed_csrs(matcher, at));
        }
        Observed::Operator(operator) => {
            let well = operator.available == Tri::True && operator.degraded != Tri::True;
            let (kind, value) = match operator.degraded {
                Tri::True => ("Degraded", "True"),
                _ => ("Available", "False"),
            };
            let known = operator.available != Tri::Absent || operator.degraded == Tri::True;
            let text = match well || !known {
                true => String::new(),
                false => format!("Cluster operator {} {kind} is {value} with : {}", operator.name, operator.message),
            };
            told.extend(matcher.feed_state(&format!("operator/{}", operator.name), &text, at));
        }
        Observed::OperatorGone { name } => told.extend(matcher.feed_state(&format!("operator/{name}"), "", at)),
        Observed::ClusterVersion(version) => {
            let text = match version.failing {
                Tri::True => version.failing_message.as_str(),
                _ => version.message.as_str(),
            };
            told.extend(matcher.feed_state("clusterversion", text, at));
        }
        Observed::Node { name, role, ready, message, .. } => {
            let text = match ready {
                true => String::new(),
                false => format!("Node {name} ({role}) is not ready: {message}"),
            };
            told.extend(matcher.feed_state(&format!("node/{name}"), &text, at));
        }
        Observed::Machine { name, role, phase, message } => {
            let text =
                if phase == "Failed" { format!("Machine {name} ({role}) {phase}: {message}") } else { String::new() };
            told.extend(matcher.feed_state(&format!("machine/{name}"), &text, at));
        }
        Observed::Bootkube { stage, state, evidence, .. } => {
            let text = match state {
                BootStage::Running => format!("bootkube stage {stage} lasts: {evidence}"),
                BootStage::Done | BootStage::Failed | BootStage::Warned => String::new(),
            };
            told.extend(matcher.feed_state(&format!("bootkube/{stage}"), &text, at));
        }
        Observed::Pool { name, degraded, message, .. } => {
            let text = match degraded {
                0 => String::new(),
                _ => format!("pool {name} is degraded because nodes fail with {message}"),
            };
            told.extend(matcher.feed_state(&format!("pool/{name}"), &text, at));
        }
        Observed::Pod(pod) => {
            let text = format!("{}: {}", pod.reason, pod.message);
            told.extend(matcher.feed_state(&format!("pod/{}/{}", pod.namespace, pod.name), &text, at));
        }
        Observed::Gone { what: Vanished::Pod, name } => {
            told.extend(matcher.feed_state(&format!("pod/{name}"), "", at));
        }
        Observed::Gone { what: Vanished::Node, name } => {
            told.extend(matcher.feed_state(&format!("node/{name}"), "", at));
        }
        Observed::Gone { what: Vanished::Csr, name } => {
            matcher.state.csrs.remove(name);
            told.extend(feed_csrs(matcher, at));
        }
        Observed::Gone { what: Vanished::Machine, name } => {
            told.extend(matcher.feed_state(&format!("machine/{name}"), "", at));
        }
        Observed::Gone { what: Vanished::Pool, name } => {
            told.extend(matcher.feed_state(&format!("pool/{name}"), "", at));
        }
        // A warning says what happened once, not what lasts: a healthy installation is full of them.
        Observed::Warned(_)
        | Observed::Installer { .. }
        | Observed::Unit { .. }
        | Observed::Instance { .. }
        | Observed::Resource { .. } => {}
    }
    told
}

/// All that wait, as one state.
fn feed_csrs(matcher: &mut Matcher, at: Timestamp) -> Vec<Data> {
    let count = matcher.state.csrs.len();
    let names: Vec<&str> = matcher.state.csrs.keys().take(NAMED).map(String::as_str).collect();
    let plural = if count == 1 { "request waits" } else { "requests wait" };
    let text = match count {
        0 => String::new(),
        _ => format!("{count} certificate {plural}: {}", names.join(" ")),
    };
    matcher.feed_state("csr", &text, at)
}
