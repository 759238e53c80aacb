//! The engine's hands: probes of checklists, and the fixes of recoveries as steps, a file for each kind of thing that is
//! put right.

mod cloud;
mod cluster;
mod disk;
mod host;
mod image;
mod installer;
mod plan_step;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::diagnose::Checklists;
use crate::diagnose::recovery::{Danger, Fix, Recovery as Plan, Resume as ResumeAt};
use crate::engine::{Hands, Recovery, Resume, Step, StepError};
use crate::model::event::{Action, Data, Finding, ImageState, SyncEvent};
use crate::model::plan::StepId;
use crate::registry::agent::Action as Asked;

use super::s05_mirror_registry::{ca_path, directory};
use super::s06_image_sync::{agent, complain, leave_out, left_out, whole_request};
use super::world::{Cx, World, fact};

use cloud::{ClusterRecords, ClusterRules, RebootBastion};
use cluster::ApproveCsrs;
use disk::{GrowDisk, PruneDisk};
use host::{RestartUnit, SetClock};
use image::{ResyncImage, one_image};
use installer::{DestroyCluster, NewInstallDir};
use plan_step::{Await, Ensure};
use trust::{FetchMirrorCa, RenewCertificate};

pub(super) use cluster::oc;

/// Which recoveries are applied when nobody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alone {
    Nothing,
    /// Those that say that they need no person.
    Automatic,
    /// Those that take nothing away for good: somebody has agreed to them beforehand.
    Changes,
}

/// What the runner is given.
pub struct Repair {
    pub checklists: Checklists,
    pub alone: Alone,
}

/// Facts as checklists know them.
fn facts(cx: &Cx) -> BTreeMap<String, String> {
    let spec = &cx.world.spec;
    let known = [
        ("registry", Some(spec.registry())),
        ("mirror_ca", ca_path(cx).ok()),
        ("storage", directory(cx).ok()),
        ("component_repository", Some(spec.mirror.component_repository.clone())),
        ("release_repository", Some(spec.mirror.release_repository.clone())),
        ("domain", Some(spec.domain())),
        ("region", Some(spec.aws.region.clone())),
        ("version", Some(spec.release.version.clone())),
        ("infra_id", cx.fact(fact::INFRA_ID)),
        ("vpc", cx.fact(fact::VPC)),
        ("install_dir", cx.fact(fact::INSTALL_DIR)),
        ("workdir", cx.fact(fact::WORKDIR)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[async_trait]
impl Hands<World> for Repair {
    async fn check(&self, cx: &Cx, finding: &Finding) {
        let bastion = cx.world.bastion(cx).ok();
        let bootstrap = match cx.fact(fact::BOOTSTRAP_ADDRESS) {
            Some(_) => cx.world.bootstrap(cx).await.ok(),
            None => None,
        };
        let local: Arc<dyn crate::host::Host> = Arc::new(crate::host::local::LocalHost::default());
        let hosts = move |name: &str| match name {
            "bastion" => bastion.clone(),
            "bootstrap" => bootstrap.clone(),
            "local" => Some(local.clone()),
            _ => None,
        };
        self.checklists.run(finding, &facts(cx), &hosts, &cx.sink).await;
    }

    fn recoveries(&self, finding: &Finding) -> Vec<Recovery<World>> {
        let ready = |plan: Plan| {
            let fixes = plan.fixes.iter().map(step).collect::<Option<_>>()?;
            let resume = match plan.resume {
                ResumeAt::Live => Resume::Live,
                ResumeAt::Stage(stage) => Resume::From(stage),
            };
            let automatic = match self.alone {
                Alone::Nothing => false,
                Alone::Automatic => plan.automatic,
                Alone::Changes => plan.danger == Danger::Change,
            };
            Some(Recovery { id: plan.id, title: plan.title, automatic, resume, fixes })
        };
        Plan::all_for(finding).into_iter().filter_map(ready).collect()
    }

    /// The diagnosis task reads failed steps from the run's events itself.
    async fn classify(&self, _cx: &Cx, _causes: &[String]) {}

    async fn resync(&self, cx: &Cx, image: &str) -> Result<(), StepError> {
        // Rows of another engine have names of their own; a digest means the same to all.
        let row =
            cx.model.sync.images.iter().find(|record| record.image.name == image && !record.image.digest.is_empty());
        let digest = row.map_or(image, |record| &record.image.digest).to_owned();
        let (again, rest): (Vec<_>, Vec<_>) =
            left_out(cx).into_iter().partition(|name| name == image || *name == digest);
        if !again.is_empty() {
            leave_out(cx, &rest).await?;
        }
        let cx = &cx.fresh(0).await;
        let request = whole_request(cx, Asked::OneImage, Some(vec![digest.clone()])).await?;
        let report = agent(cx, &one_image(&digest), &request).await?;
        complain(&report).map_or(Ok(()), Err)
    }

    async fn leave_out(&self, cx: &Cx, image: &str) -> Result<(), StepError> {
        let mut names = left_out(cx);
        if !names.iter().any(|name| name == image) {
            names.push(image.to_owned());
        }
        leave_out(cx, &names).await?;
        let (image, state) = (image.to_owned(), ImageState::Skipped);
        cx.sink.emit(Data::Sync(SyncEvent::ImageState { image, state, attempt: 1 })).await;
        Ok(())
    }

    async fn approve_csr(&self, cx: &Cx, name: &str) -> Result<(), StepError> {
        cluster::approve(cx, &[name.to_owned()]).await
    }
}

/// A fix as a step; `None` for a step of the plan that this program does not have.
fn step(fix: &Fix) -> Option<(StepId, Arc<dyn Step<World>>)> {
    let planned = |id: &StepId| super::steps().remove(id);
    let (name, step): (&str, Arc<dyn Step<World>>) = match fix {
        Fix::Ensure { step } => (step.name(), Arc::new(Ensure { id: step.clone(), step: planned(step)? })),
        Fix::Await { step } => (step.name(), Arc::new(Await { id: step.clone(), step: planned(step)? })),
        Fix::ResyncImage { digest } => ("resync-image", Arc::new(ResyncImage { digest: digest.clone() })),
        Fix::RenewCertificate => ("renew-certificate", Arc::new(RenewCertificate)),
        Fix::FetchMirrorCa => ("fetch-mirror-ca", Arc::new(FetchMirrorCa)),
        Fix::PruneDisk => ("prune-disk", Arc::new(PruneDisk)),
        Fix::GrowDisk => ("grow-disk", Arc::new(GrowDisk)),
        Fix::ClusterRecords => ("cluster-records", Arc::new(ClusterRecords)),
        Fix::ClusterRules => ("cluster-rules", Arc::new(ClusterRules)),
        Fix::SetClock { host } => ("set-clock", Arc::new(SetClock { host: host.clone() })),
        Fix::RestartUnit { host, unit } => {
            ("restart-unit", Arc::new(RestartUnit { host: host.clone(), unit: unit.clone() }))
        }
        Fix::ApproveCsrs => ("approve-csrs", Arc::new(ApproveCsrs)),
        Fix::DestroyCluster { because } => ("destroy-cluster", Arc::new(DestroyCluster { because: *because })),
        Fix::NewInstallDir => ("new-install-dir", Arc::new(NewInstallDir)),
        Fix::RebootBastion => ("reboot-bastion", Arc::new(RebootBastion)),
    };
    Some((StepId::new(format!("recovery/{name}")), step))
}

/// What a recovery would do, in order, as far as it can be known beforehand.
pub fn preview(plan: &Plan, world: &World) -> Vec<Action> {
    plan.fixes.iter().filter_map(step).flat_map(|(_, step)| step.preview(world)).collect()
}

/// Records that a thing is gone.
pub(super) async fn gone(cx: &Cx, object: crate::model::event::Object, id: String, proof: impl Into<String>) {
    cx.sink.commit(Data::Gone { object, id, proof: proof.into() }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_that_a_recovery_ensures_is_of_the_plan() {
        let steps = super::super::steps();
        let ensured: Vec<StepId> = Plan::ensured().cloned().collect();
        assert!(!ensured.is_empty());
        assert_eq!(ensured.iter().find(|id| !steps.contains_key(id)), None);
    }
}
