//! The new cluster, through its own API.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;

use crate::cluster;
use crate::cluster::csr::Request;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, CsrState, Evidence, Level};
use crate::stages::s04_tools::tool;
use crate::stages::world::{Cx, World, action, fact, must};

pub(super) struct ApproveCsrs;

const ASKED: &str = "oc get certificatesigningrequests -o json";
const LOOK: Duration = Duration::from_secs(3);
/// From the approval of a node's first certificate to its second request, at most.
const SECOND_REQUEST: Duration = Duration::from_secs(180);

async fn list(cx: &Cx, kind: &str) -> Result<Vec<Value>, StepError> {
    let output = must(cx, &cx.world.bastion(cx)?, oc(cx, &["get", kind, "-o", "json"])?).await?;
    cluster::list(&output.stdout).map_err(|error| StepError::transient(format!("oc get {kind}: {error}")))
}

/// The pending requests that nothing speaks against; and the others, each with what speaks against it.
async fn sorted(cx: &Cx) -> Result<(Vec<Request>, Vec<String>), StepError> {
    let objects = list(cx, "certificatesigningrequests").await?;
    let (mut harmless, mut others) = (Vec::new(), Vec::new());
    let requests = objects.iter().filter_map(|object| Request::parse(object).ok());
    for request in requests.filter(|request| request.state == CsrState::Pending) {
        let reasons = request.hesitations(jiff::Timestamp::now(), &[]);
        if reasons.is_empty() {
            harmless.push(request);
        } else {
            others.push(format!("{} was not approved: {}", request.name, reasons.join("; ")));
        }
    }
    Ok((harmless, others))
}

/// The internal address of a node, by its name or the host part of it.
pub(super) async fn address(cx: &Cx, name: &str) -> Result<Option<String>, StepError> {
    if cx.fact(fact::INSTALL_DIR).is_none() {
        return Ok(None);
    }
    let nodes = list(cx, "nodes").await?;
    let text = |node: &Value, pointer: &str| node.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let called = |node: &&Value| {
        let known = text(node, "/metadata/name").unwrap_or_default();
        known == name || known.split('.').next() == Some(name)
    };
    let addresses = nodes.iter().find(called).and_then(|node| node.pointer("/status/addresses")?.as_array());
    let internal = addresses.into_iter().flatten().find(|one| one["type"] == "InternalIP");
    Ok(internal.and_then(|one| text(one, "/address")))
}

/// `oc …` with the new cluster's kubeconfig.
pub(crate) fn oc(cx: &Cx, args: &[&str]) -> Result<Cmd, StepError> {
    let kubeconfig = format!("{}/auth/kubeconfig", cx.need(fact::INSTALL_DIR)?);
    Ok(tool(cx, "oc")?.arg("--kubeconfig").arg(kubeconfig).args(args.iter().copied()))
}

pub(super) async fn approve(cx: &Cx, names: &[String]) -> Result<(), StepError> {
    let cmd = oc(cx, &["adm", "certificate", "approve"])?.args(names.iter().cloned());
    must(cx, &cx.world.bastion(cx)?, cmd).await.map(drop)
}

#[async_trait]
impl Step<World> for ApproveCsrs {
    fn preview(&self, _world: &World) -> Vec<Action> {
        vec![action(
            "bastion",
            &Cmd::new("oc").args(["adm", "certificate", "approve", "<each pending request of a node>"]),
        )]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if cx.fact(fact::INSTALL_DIR).is_none() {
            return Ok(Probe::NotApplicable("no cluster was begun".into()));
        }
        let (harmless, others) = sorted(cx).await?;
        Ok(match harmless.len() {
            0 => Probe::True(vec![Evidence::new(ASKED, format!("none is pending but {} doubtful ones", others.len()))]),
            count => Probe::Missing(format!("{count} requests are pending")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let started = Instant::now();
        let (mut clients, mut servers) = (0, 0);
        loop {
            let (harmless, others) = sorted(cx).await?;
            let names: Vec<String> = harmless.iter().map(|request| request.name.clone()).collect();
            if !names.is_empty() {
                approve(cx, &names).await?;
            }
            let of_servers = harmless.iter().filter(|request| request.signer.ends_with("kubelet-serving")).count();
            servers += of_servers;
            clients += names.len() - of_servers;
            // A node that has its client certificate asks for the one that it serves with.
            if servers >= clients || started.elapsed() > SECOND_REQUEST {
                for doubt in others {
                    cx.note(Level::Warn, doubt).await;
                }
                return Ok(Ran::Ok);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}
