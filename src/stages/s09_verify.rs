//! 09: the cluster is what was asked for, by its own word and by that of its nodes. What each check saw is kept in a report.

use async_trait::async_trait;
use serde_json::Value;

use crate::cluster::operators::is_installed;
use crate::cluster::{self, Kind};
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, CsrState, Evidence, Observed, Tri};

use super::repair::oc;
use super::world::{Cx, World, action, must};
use super::{s09_node, s09_report, s09_services};

/// Version as asked; every operator available and none degraded.
pub struct Version;

/// Every node ready, no request left over.
pub struct Nodes;

/// The mirror rules are in the cluster.
pub struct Mirror;

/// No pod is stuck; their images are mirrored ones.
pub struct Pods;

/// A node pulls from the mirror, and reaches nothing else.
pub struct Pull;

/// Names resolve, routes are admitted.
pub struct Names;

/// The cluster's own registry.
pub struct Registry;

/// Catalogs answer.
pub struct Catalogs;

async fn list(cx: &Cx, kind: &str) -> Result<(String, Vec<Value>), StepError> {
    let cmd = oc(cx, &["get", kind, "-o", "json"])?;
    let output = must(cx, &cx.world.bastion(cx)?, cmd).await?;
    let objects =
        cluster::list(&output.stdout).map_err(|error| StepError::transient(format!("oc get {kind}: {error}")))?;
    Ok((format!("oc get {kind} -o json"), objects))
}

fn ask(kind: &str) -> Action {
    action("bastion", &Cmd::new("oc").args(["get", kind, "-o", "json"]))
}

async fn observed(cx: &Cx, kind: Kind) -> Result<(String, Vec<Observed>), StepError> {
    let (asked, objects) = list(cx, &kind.oc_name()).await?;
    let seen: Result<Vec<Observed>, _> = objects.iter().map(|object| kind.observe(object)).collect();
    Ok((asked, seen.map_err(|error| StepError::transient(error.to_string()))?))
}

/// These steps change nothing: probe and run have nothing to do, verify is the step.
macro_rules! only_verify {
    ($step:ident, $($action:expr),+; $verify:path) => {
        #[async_trait]
        impl Step<World> for $step {
            fn preview(&self, _world: &World) -> Vec<Action> {
                vec![$($action),+]
            }
            async fn probe(&self, _cx: &Cx) -> Result<Probe, StepError> {
                Ok(Probe::Missing("asked anew each time".into()))
            }
            async fn run(&self, _cx: &Cx) -> Result<Ran, StepError> {
                Ok(Ran::Ok)
            }
            async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
                let outcome = $verify(cx).await;
                s09_report::keep(cx, &outcome).await?;
                outcome
            }
        }
    };
}

only_verify!(Version, ask("clusterversions"), ask("clusteroperators"); version);
only_verify!(Nodes, ask("nodes"), ask("certificatesigningrequests"); nodes);
only_verify!(Mirror, ask("imagedigestmirrorsets"); mirror);
only_verify!(Pods, ask("pods"); s09_services::pods);
only_verify!(Pull, action("bastion", &s09_node::preview()); s09_node::pull);
only_verify!(Names, action("bastion", &Cmd::new("getent").args(["hosts", "<each name>"])), ask("routes"); s09_services::names);
only_verify!(Registry, ask("configs.imageregistry.operator.openshift.io"); s09_services::registry);
only_verify!(Catalogs, ask("catalogsources"); s09_services::catalogs);

async fn version(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let (asked, versions) = observed(cx, Kind::Version).await?;
    let wanted = &cx.world.spec.release.version;
    let Some(Observed::ClusterVersion(found)) = versions.into_iter().next() else {
        return Err(StepError::transient("the cluster has no ClusterVersion"));
    };
    if found.desired != *wanted {
        return Err(StepError::fatal(format!("the cluster runs {}, asked for was {wanted}", found.desired)));
    }
    if !is_installed(&found) {
        return Err(StepError::transient(format!(
            "the cluster version has not arrived: {} {}",
            found.message, found.failing_message
        )));
    }
    let mut evidence = vec![Evidence::new(asked, found.message)];
    let (asked, operators) = observed(cx, Kind::Operators).await?;
    let count = operators.len();
    let ill: Vec<String> = operators
        .into_iter()
        .filter_map(|seen| match seen {
            Observed::Operator(operator) if operator.available != Tri::True || operator.degraded == Tri::True => {
                Some(format!("{} ({})", operator.name, operator.message))
            }
            _ => None,
        })
        .collect();
    if !ill.is_empty() {
        return Err(StepError::transient(format!("not available or degraded: {}", ill.join(", "))));
    }
    evidence.push(Evidence::new(asked, format!("{count} operators, all available, none degraded")));
    Ok(evidence)
}

async fn nodes(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let (asked, nodes) = observed(cx, Kind::Nodes).await?;
    let install = &cx.world.spec.install;
    let wanted = usize::from(install.control_plane_replicas) + usize::from(install.compute_replicas);
    let ready = nodes.iter().filter(|seen| matches!(seen, Observed::Node { ready: true, .. })).count();
    if ready < wanted {
        return Err(StepError::transient(format!("{ready} of {wanted} nodes are ready")));
    }
    let (csr_asked, csrs) = observed(cx, Kind::Csrs).await?;
    let pending = csrs.iter().filter(|seen| matches!(seen, Observed::Csr { state: CsrState::Pending, .. })).count();
    if pending > 0 {
        return Err(StepError::transient(format!("{pending} certificate requests are pending")));
    }
    Ok(vec![Evidence::new(asked, format!("{ready} ready")), Evidence::new(csr_asked, "none pending")])
}

async fn mirror(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    // 4.12 and older know only ImageContentSourcePolicy; newer installers write ImageDigestMirrorSet.
    let mut said = Vec::new();
    for kind in ["imagedigestmirrorsets", "imagecontentsourcepolicies"] {
        match list(cx, kind).await {
            Ok((asked, objects)) => {
                let text = Value::Array(objects).to_string();
                if text.contains(&format!("\"{}/", cx.world.spec.registry())) {
                    return Ok(vec![Evidence::new(asked, format!("mirrors at {}", cx.world.spec.registry()))]);
                }
                said.push(format!("{kind}: none names {}", cx.world.spec.registry()));
            }
            Err(error) => said.push(error.causes.join(": ")),
        }
    }
    Err(StepError::transient(said.join("; ")))
}
