//! 08 of an upgrade: is the cluster fit for it, and then to the new release by digest. The cluster's version operator does
//! the work and goes on with it whoever watches; what it says is what is shown. (openshift/oc, `pkg/cli/admin/upgrade`.)

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cluster::Kind;
use crate::cluster::operators::is_installed;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, Data, Evidence, Level, Observed, Unit};
use crate::watch::cluster::Kubeconfig;
use crate::watch::{Out, cluster};

use super::repair::oc;
use super::s09_node::release;
use super::settle::{condition, is, items, live, name, rolled};
use super::world::{Cx, World, action, fact, must};

/// The cluster's own conditions for an upgrade.
pub struct Gate;

/// To the new release, and until every node has it.
pub struct Upgrade;

const LOOK: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(6 * 3600);

async fn version(cx: &Cx) -> Result<Value, StepError> {
    live(cx, &["clusterversions", "version"])
        .await?
        .ok_or_else(|| StepError::transient("the cluster has no ClusterVersion"))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn message<'v>(object: &'v Value, kind: &str) -> &'v str {
    condition(object, kind).map_or("", |condition| text(condition, "/message"))
}

fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}

/// What stands in the way; `to` is the version that is wanted.
fn unfit(version: &Value, operators: &[Value], pools: &[Value], to: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if is(version, "Failing", "True") {
        wrong.push(format!("the cluster is failing: {}", message(version, "Failing")));
    }
    let from = text(version, "/status/desired/version");
    match (minor(from), minor(to)) {
        (Some(one), Some(other)) if other > one + 1 => {
            wrong.push(format!("from {from} to {to} is more than one minor version: go by 4.{}", one + 1));
        }
        (Some(one), Some(other)) if other < one => {
            wrong.push(format!("{to} is older than {from}: there is no way back"))
        }
        // Within a minor version it does not count (openshift/cluster-version-operator, `docs/user/status.md`).
        (Some(one), Some(other)) if other > one && is(version, "Upgradeable", "False") => {
            wrong.push(format!(
                "the cluster is not upgradeable to another minor version: {}",
                message(version, "Upgradeable")
            ));
        }
        _ => {}
    }
    let ill = operators.iter().filter(|one| is(one, "Degraded", "True") || is(one, "Available", "False"));
    wrong.extend(ill.map(|one| format!("operator {} is not well: {}", name(one), message(one, "Degraded"))));
    let paused = |pool: &&Value| pool.pointer("/spec/paused").and_then(Value::as_bool) == Some(true);
    wrong.extend(pools.iter().filter(paused).map(|pool| format!("the pool {} is paused", name(pool))));
    wrong.extend(
        pools
            .iter()
            .filter(|pool| is(pool, "Degraded", "True"))
            .map(|pool| format!("the pool {} is degraded: {}", name(pool), message(pool, "Degraded"))),
    );
    wrong
}

#[async_trait]
impl Step<World> for Gate {
    fn preview(&self, _world: &World) -> Vec<Action> {
        let ask = |kind: &str| action("bastion", &Cmd::new("oc").args(["get", kind, "--output", "json"]));
        ["clusterversions", "clusteroperators", "machineconfigpools"].map(ask).into()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let version = version(cx).await?;
        let digest = cx.need(fact::RELEASE_DIGEST)?;
        if text(&version, "/status/desired/image").ends_with(&digest) {
            // On its way it is not well all the time.
            let asked = "oc get clusterversion version -o json";
            return Ok(Probe::True(vec![Evidence::new(asked, "it is on its way to that release, or there")]));
        }
        Ok(Probe::Missing("asked anew each time".into()))
    }

    async fn run(&self, _cx: &Cx) -> Result<Ran, StepError> {
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let version = version(cx).await?;
        let operators = items(live(cx, &["clusteroperators"]).await?);
        let pools = items(live(cx, &["machineconfigpools"]).await?);
        let to = &cx.world.spec.release.version;
        let wrong = unfit(&version, &operators, &pools, to);
        if !wrong.is_empty() {
            return Err(StepError::fatal(wrong.join("; "))
                .during(format!("asking whether the cluster is fit for {to}"))
                .hint("see to that first; with manual credentials the next minor version wants its own, and the annotation \
                       cloudcredential.openshift.io/upgradeable-to"));
        }
        let from = text(&version, "/status/desired/version");
        Ok(vec![
            Evidence::new("oc get clusterversion version -o json", format!("{from}, not failing")),
            Evidence::new("oc get clusteroperators -o json", format!("{} operators, all well", operators.len())),
            Evidence::new("oc get machineconfigpools -o json", format!("{} pools, none paused", pools.len())),
        ])
    }
}

/// How far the version operator says it is: `Working towards 4.18.15: 623 of 901 done (69% complete)`.
fn progress(message: &str) -> Option<(u64, u64)> {
    let (_, rest) = message.split_once(": ")?;
    let mut words = rest.split_whitespace();
    let done = words.next()?.parse().ok()?;
    let total = words.nth(1)?.parse().ok()?;
    Some((done, total))
}

/// The newest entry of the history is this release, and complete.
fn arrived(version: &Value, digest: &str) -> bool {
    text(version, "/status/history/0/image").ends_with(digest)
        && text(version, "/status/history/0/state") == "Completed"
        && matches!(Kind::Version.observe(version), Ok(Observed::ClusterVersion(seen)) if is_installed(&seen))
}

/// Watches the version until it has arrived.
async fn follow(cx: &Cx, digest: &str) -> Result<(), StepError> {
    let started = Instant::now();
    let mut said = String::new();
    while started.elapsed() < LONGEST {
        // The API goes away for a while with every control plane node.
        match version(cx).await {
            Ok(version) if arrived(&version, digest) => return Ok(()),
            Ok(version) => {
                let doing = message(&version, "Progressing");
                let (done, total) = progress(doing).map_or((0, None), |(done, total)| (done, Some(total)));
                cx.progress(done, total, Unit::Count, Some(doing.to_owned())).await;
                let refused = condition(&version, "ReleaseAccepted").filter(|one| text(one, "/status") == "False");
                if let Some(refused) = refused {
                    return Err(StepError::fatal(format!(
                        "the release is not accepted: {}",
                        text(refused, "/message")
                    ))
                    .hint("its signature has to be in openshift-config-managed, and its image in the mirror"));
                }
                let failing = if is(&version, "Failing", "True") { message(&version, "Failing") } else { "" };
                if failing != said {
                    failing.clone_into(&mut said);
                    if !said.is_empty() {
                        cx.note(Level::Warn, format!("the upgrade says: {said}")).await;
                    }
                }
            }
            Err(error) if error.retry => {}
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled; the cluster goes on by itself")),
        }
    }
    Err(StepError::transient(format!("after {} h the upgrade is not done", LONGEST.as_secs() / 3600)))
}

fn command(oc: Cmd, image: &str) -> Cmd {
    oc.args(["adm", "upgrade", "--allow-explicit-upgrade", "--to-image", image])
}

#[async_trait]
impl Step<World> for Upgrade {
    fn preview(&self, _world: &World) -> Vec<Action> {
        vec![action("bastion", &command(Cmd::new("oc"), "<source of the release>@<digest>"))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let (version, digest) = (version(cx).await?, cx.need(fact::RELEASE_DIGEST)?);
        Ok(match arrived(&version, &digest) {
            true => Probe::True(vec![Evidence::new(
                "oc get clusterversion version -o json",
                message(&version, "Progressing"),
            )]),
            false => Probe::Missing(format!("the cluster runs {}", text(&version, "/status/history/0/version"))),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let (bastion, digest) = (cx.world.bastion(cx)?, cx.need(fact::RELEASE_DIGEST)?);
        if !text(&version(cx).await?, "/status/desired/image").ends_with(&digest) {
            must(cx, &bastion, command(oc(cx, &[])?, &release(cx)?)).await?;
        }
        // Operators, nodes and requests are shown as in an installation.
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let out = Out::new(cx.sink.clone(), cancel).tap(cx.world.tap.clone());
        let kubeconfig = Kubeconfig::There(format!("{}/auth/kubeconfig", cx.need(fact::INSTALL_DIR)?));
        let watched = tokio::spawn(async move {
            if let Err(error) = cluster::follow(bastion, &kubeconfig, &out).await {
                let text = format!("the cluster can no longer be followed: {error}");
                out.sink.emit(Data::Note { level: Level::Warn, text }).await;
            }
        });
        let done = follow(cx, &digest).await;
        let done = match done {
            // The version operator is done when the machine-config operator has told the pools.
            Ok(()) => rolled(cx, Duration::ZERO).await,
            Err(error) => Err(error),
        };
        drop(guard);
        // It ends with its token; a watch that hangs is not waited for.
        watched.abort();
        done.map(|()| Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(conditions: &[(&str, &str, &str)]) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status, message)| json!({ "type": kind, "status": status, "message": message }))
            .collect();
        json!({ "metadata": { "name": "version" }, "status": { "desired": { "version": "4.18.9" }, "conditions": conditions } })
    }

    #[test]
    fn what_stands_in_the_way_of_an_upgrade() {
        let blocked = cluster(&[("Upgradeable", "False", "the credentials of 4.19 are missing")]);
        assert_eq!(unfit(&blocked, &[], &[], "4.18.12"), [""; 0]);
        assert!(unfit(&blocked, &[], &[], "4.19.3")[0].contains("the credentials of 4.19 are missing"));
        let well = cluster(&[]);
        assert_eq!(unfit(&well, &[], &[], "4.19.3"), [""; 0]);
        assert!(unfit(&well, &[], &[], "4.20.1")[0].contains("go by 4.19"));
        assert!(unfit(&well, &[], &[], "4.17.40")[0].contains("no way back"));
        let failing = cluster(&[("Failing", "True", "could not update deployment")]);
        let pool = json!({ "metadata": { "name": "worker" }, "spec": { "paused": true } });
        let wrong = unfit(&failing, &[], &[pool], "4.18.12");
        assert!(wrong[0].contains("could not update deployment") && wrong[1] == "the pool worker is paused");
    }

    #[test]
    fn how_far_the_version_operator_is() {
        assert_eq!(
            progress("Working towards 4.18.15: 623 of 901 done (69% complete), waiting on dns"),
            Some((623, 901))
        );
        assert_eq!(progress("Cluster version is 4.18.15"), None);
        let cmd = command(Cmd::new("oc"), "quay.io/a/b@sha256:aa");
        assert_eq!(cmd.line(), "oc adm upgrade --allow-explicit-upgrade --to-image quay.io/a/b@sha256:aa");
    }
}
