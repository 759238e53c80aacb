//! 10: everything that the run made, by recorded id, in order, each with proof; what blocks is named. Local state stays:
//! it is the proof.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::Kind;
use crate::cloud::teardown::{Report, sweep, teardown};
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::job::{Job, JobSpec, JobStatus};
use crate::host::{Cmd, Host};
use crate::model::event::{Action, Evidence, Level, Object, Standing};

use super::driven::JOBS;
use super::live;
use super::registry_service::{job as registry_job, units};
use super::repair::gone;
use super::s01_infrastructure::{ledger, ledger_error};
use super::s02_bastion::wake;
use super::s05_mirror_registry::{NAME, directory};
use super::s06_image_sync::ended;
use super::s07_install_config::installer;
use super::s08_apps;
use super::s08_install::{cluster, keep_metadata, show_cluster};
use super::world::{Cx, World, action, bytes, cloud_error, exec, fact, get, host_error, must, put, wait_for};

/// The cluster, by its metadata.
pub struct Cluster;

/// The registry on a bastion that stays.
pub struct Mirror;

/// Bastion, endpoints, network.
pub struct Infrastructure;

/// Ends the installer and destroys by infraID what it made.
pub(super) async fn destroy_cluster(cx: &Cx) -> Result<(), StepError> {
    let bastion = cx.world.bastion(cx)?;
    let base = cluster(cx)?.name;
    let jobs = format!("{}/jobs", cx.need(fact::WORKDIR)?);
    let job = |name: String, cmd: Cmd| {
        Job::new(bastion.clone(), JobSpec { name, cmd, dir: jobs.clone() }).map_err(host_error)
    };
    for running in ["create-cluster", "wait-for-bootstrap-complete", "wait-for-install-complete"] {
        // It would go on making what we take away.
        let job = job(format!("{base}-{running}"), installer(cx, &["create", "cluster"])?.timeout(None))?;
        job.stop(Duration::from_secs(20)).await.map_err(host_error)?;
    }
    if !keep_metadata(cx).await? {
        return Ok(());
    }
    s08_apps::remove(cx).await?;
    let cmd = installer(cx, &["destroy", "cluster"])?.timeout(None);
    let destroy = job(format!("{base}-destroy-cluster"), cmd.clone())?;
    // It takes metadata.json away when it is through: then there is nothing to begin anew.
    if destroy.status().await.map_err(host_error)? != (JobStatus::Ended { status: 0 }) {
        restore_metadata(&cx.fresh(cx.attempt).await, &bastion).await?;
        destroy.start().await.map_err(host_error)?;
        cx.acted(action("bastion", &cmd), None, Duration::ZERO).await;
    }
    wait_for(cx, "openshift-install destroy cluster", Duration::from_secs(1), Duration::from_secs(3000), || async {
        match destroy.status().await {
            Ok(JobStatus::Running { .. }) => Ok(None),
            Ok(JobStatus::Ended { status: 0 }) => Ok(Some(())),
            Ok(status) => {
                let words = destroy.last_words(500).await.unwrap_or_default();
                Err(StepError::transient(format!("openshift-install destroy cluster: {}", ended(&status)))
                    .during(words.lines().last().unwrap_or_default().to_owned()))
            }
            Err(error) if error.is_link() => Ok(None),
            Err(error) => Err(host_error(error)),
        }
    })
    .await
}

/// Why nothing can be run on the bastion any more. One that somebody has stopped is started again.
async fn lost_bastion(cx: &Cx) -> Result<Option<String>, StepError> {
    let (Some(cloud), Some(id)) = (&cx.world.cloud, cx.fact(fact::BASTION_INSTANCE)) else { return Ok(None) };
    match cloud.get(Kind::Instance, &id).await {
        Ok(instance) if instance.is_halted() => {
            Ok(wake(cx).await?.is_none().then(|| format!("the bastion {id} was {} and is gone", instance.state)))
        }
        Ok(instance) => Ok(instance.is_over().then(|| format!("the bastion {id} is {}", instance.state))),
        Err(error) if error.is_not_found() => Ok(Some(format!("the bastion {id} is not there any more"))),
        Err(error) => Err(cloud_error(error)),
    }
}

/// Without the bastion there is no installer: what carries the cluster's tag is deleted through the cloud.
async fn destroy_by_tag(cx: &Cx, lost: &str) -> Result<Ran, StepError> {
    let Some(infra_id) = cx.fact(fact::INFRA_ID) else {
        return Ok(Ran::Warning(format!("{lost}; the cluster's infra id was never known, so nothing has its tag")));
    };
    let text = format!("{lost}: what carries kubernetes.io/cluster/{infra_id}=owned is deleted without the installer");
    cx.note(Level::Warn, text).await;
    s08_apps::remove(cx).await?;
    complete(&sweep(&ledger(cx)?, &infra_id).await.map_err(ledger_error)?)?;
    // They are not found by their tag.
    Ok(Ran::Warning(format!(
        "the roles {infra_id}-master-role and {infra_id}-worker-role and the instance profiles {infra_id}-master-profile \
         and {infra_id}-worker-profile may be left in IAM: delete them there, or {}",
        by_hand(cx, &infra_id)
    )))
}

/// How to destroy the cluster from anywhere.
fn by_hand(cx: &Cx, infra_id: &str) -> String {
    let kept = cx.world.run_dir.join(format!("{infra_id}.metadata.json"));
    format!(
        "copy {} as metadata.json into an empty directory and run `openshift-install destroy cluster --dir` on it with \
         these credentials",
        kept.display()
    )
}

/// Nothing is left, or what is left and why.
fn complete(report: &Report) -> Result<(), StepError> {
    if report.blocked.is_empty() {
        return Ok(());
    }
    let mut error = StepError::transient(format!("{} objects could not be deleted", report.blocked.len()));
    error.causes.extend(
        report.blocked.iter().map(|blocked| format!("{} {}: {}", blocked.object.kind, blocked.id, blocked.why)),
    );
    Err(error)
}

fn cluster_name(cx: &Cx) -> String {
    format!("the cluster of {}", cx.fact(fact::INSTALL_DIR).unwrap_or_default())
}

/// Without its metadata.json a cluster cannot be destroyed; the run has kept a copy.
async fn restore_metadata(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<(), StepError> {
    let path = format!("{}/metadata.json", cx.need(fact::INSTALL_DIR)?);
    let kept = cx.world.run_dir.join(format!("{}.metadata.json", cx.need(fact::INFRA_ID)?));
    match std::fs::read(kept) {
        Ok(text) if get(bastion, &path).await?.is_none() => put(cx, bastion, &path, bytes(text), 0o640).await,
        // The installer says what it misses.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Proof that nothing of the cluster is left: the cloud finds nothing with its tag.
pub(super) async fn cluster_is_gone(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let Some(infra_id) = cx.fact(fact::INFRA_ID) else {
        // openshift-install writes it before it makes anything.
        let proof = Evidence::new("openshift-install create cluster", "it ended before it wrote metadata.json");
        gone(cx, cluster(cx)?, cluster_name(cx), proof.answer.clone()).await;
        return Ok(vec![proof]);
    };
    let proof = match &cx.world.cloud {
        Some(cloud) => {
            let tag = format!("kubernetes.io/cluster/{infra_id}");
            let tags = BTreeMap::from([(tag.clone(), "owned".to_owned())]);
            wait_for(
                cx,
                "the cluster's machines to be gone",
                Duration::from_secs(1),
                Duration::from_secs(600),
                || async {
                    let mut left = cloud.find(Kind::Instance, &tags).await.map_err(cloud_error)?;
                    left.retain(|instance| instance.state != "terminated");
                    Ok(left.is_empty().then_some(()))
                },
            )
            .await?;
            Evidence::new(format!("ec2:DescribeInstances tag:{tag}=owned"), "none")
        }
        None => Evidence::new("openshift-install destroy cluster", "status 0"),
    };
    gone(cx, cluster(cx)?, infra_id, proof.answer.clone()).await;
    Ok(vec![proof])
}

#[async_trait]
impl Step<World> for Cluster {
    fn preview(&self, world: &World) -> Vec<Action> {
        let directory = format!("~/{}/install-1", world.spec.bastion.workdir);
        vec![action("bastion", &Cmd::new("openshift-install").args(["destroy", "cluster", "--dir", &directory]))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        // Its name in the cloud may not be known yet: that it was begun is enough.
        let begun = cluster(cx).ok().and_then(|object| cx.model.objects.get(&object));
        let Some(record) = begun else {
            return Ok(Probe::NotApplicable("no cluster was begun".into()));
        };
        let infra_id = cx.fact(fact::INFRA_ID).unwrap_or_else(|| cluster_name(cx));
        Ok(match record.gone.clone() {
            Some(proof) => Probe::True(vec![Evidence::new(infra_id, proof)]),
            None => Probe::Missing(format!("{infra_id} stands")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        live::stop(cx).await;
        show_cluster(cx, "destroying", Standing::Leaving).await?;
        if let Some(lost) = lost_bastion(cx).await? {
            return destroy_by_tag(cx, &lost).await;
        }
        // It may have another address now.
        destroy_cluster(&cx.fresh(cx.attempt).await).await.map_err(|error| match cx.fact(fact::INFRA_ID) {
            Some(infra_id) if error.retry => error.hint(by_hand(cx, &infra_id)),
            _ => error,
        })?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        cluster_is_gone(cx).await
    }
}

fn registry() -> Object {
    Object { kind: "registry".into(), name: NAME.into() }
}

/// The units that there are.
fn disable(world: &World) -> Cmd {
    Cmd::sh("for unit in \"$@\"; do if [ -e \"$HOME/.config/systemd/user/$unit.service\" ]; then systemctl --user disable --now \"$unit\" && rm -f \"$HOME/.config/systemd/user/$unit.service\" || exit 1; fi; done").args(units(&world.spec))
}

#[async_trait]
impl Step<World> for Mirror {
    fn preview(&self, world: &World) -> Vec<Action> {
        if world.makes_bastion() { Vec::new() } else { vec![action("bastion", &disable(world))] }
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if cx.world.makes_bastion() {
            return Ok(Probe::NotApplicable("it goes with the bastion".into()));
        }
        Ok(match cx.model.objects.get(&registry()) {
            None => Probe::NotApplicable("this run started no registry".into()),
            Some(record) => match &record.gone {
                Some(proof) => Probe::True(vec![Evidence::new(NAME, proof.clone())]),
                None => Probe::Missing("the registry runs".into()),
            },
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        must(cx, &bastion, disable(&cx.world)).await?;
        // The command does not matter for stopping; the name does.
        let jobs = JOBS.map(str::to_owned);
        for name in jobs.into_iter().chain(units(&cx.world.spec)) {
            let job = registry_job(bastion.clone(), &name, Cmd::new("true"), &cx.need(fact::WORKDIR)?)?;
            job.stop(Duration::from_secs(20)).await.map_err(host_error)?;
        }
        Ok(Ran::Warning(format!("its data stays in {}: other clusters may pull from it", directory(cx)?)))
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let status = registry_job(bastion.clone(), NAME, Cmd::new("true"), &cx.need(fact::WORKDIR)?)?
            .status()
            .await
            .map_err(host_error)?;
        if matches!(status, JobStatus::Running { .. }) {
            return Err(StepError::transient("the registry still runs"));
        }
        let unit =
            Cmd::sh("for unit in \"$@\"; do [ ! -e \"$HOME/.config/systemd/user/$unit.service\" ] || exit 1; done")
                .args(units(&cx.world.spec));
        if !exec(cx, &bastion, unit).await?.ok() {
            return Err(StepError::transient("its unit is still there"));
        }
        let proof = format!("no unit, {}", ended(&status));
        gone(cx, registry(), NAME.into(), proof.clone()).await;
        Ok(vec![Evidence::new(NAME, proof)])
    }
}

#[async_trait]
impl Step<World> for Infrastructure {
    fn preview(&self, world: &World) -> Vec<Action> {
        if world.cloud.is_none() {
            return Vec::new();
        }
        vec![Action::Api { call: "ec2: delete every recorded id in the reverse of its creation, awaiting each".into() }]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if cx.world.cloud.is_none() {
            return Ok(Probe::NotApplicable("this run made nothing in a cloud".into()));
        }
        let standing = ledger(cx)?.standing();
        Ok(match standing.len() {
            0 => Probe::True(vec![Evidence::new("objects of this run", "none stands")]),
            count => Probe::Missing(format!("{count} objects stand")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let ledger = ledger(cx)?;
        let infra_id = cx.fact(fact::INFRA_ID);
        let cluster = cluster(cx).ok().and_then(|object| cx.model.objects.get(&object));
        if let Some(infra_id) = infra_id.as_ref().filter(|_| cluster.is_some_and(|record| record.gone.is_some())) {
            // Load balancers and volumes that the cluster's own controllers have made, and nobody took away.
            complete(&sweep(&ledger, infra_id).await.map_err(ledger_error)?)?;
        }
        complete(&teardown(&ledger, infra_id.as_deref()).await.map_err(ledger_error)?)?;
        if cx.world.makes_bastion() && cx.model.objects.contains_key(&registry()) {
            gone(cx, registry(), NAME.into(), "its bastion is gone").await;
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let ledger = ledger(cx)?;
        let standing = ledger.standing();
        if !standing.is_empty() {
            return Err(StepError::transient(format!("{} objects still stand", standing.len())));
        }
        let gone = cx.model.objects.values().filter(|record| record.gone.is_some()).count();
        Ok(vec![Evidence::new(
            "objects of this run",
            format!("{gone} gone, each with its proof in the record; none stands"),
        )])
    }
}
