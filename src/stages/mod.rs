//! The ten stages: which steps, in which order, with which commands.
//!
//! A step is written against `host`, `cloud`, `registry` and `cluster`; it does not know whether it is in a lab. What
//! steps hand to each other are facts of the run ([`world::fact`]), so that a restarted process has them too.

pub mod bundle;
pub mod certificate;
mod consoles;
pub mod diagnosis;
mod driven;
pub mod edge;
pub mod ignition;
mod keeper;
pub mod live;
pub mod lookout;
mod masters;
mod notices;
mod outputs;
pub mod plan;
mod registry_service;
pub mod repair;
mod s01_infrastructure;
mod s02_bastion;
mod s02_host_key;
mod s02_proxy;
mod s03_credentials;
mod s04_tools;
mod s05_mirror_registry;
mod s05_pull_through;
mod s06_image_sync;
mod s07_asked;
mod s07_identities;
mod s07_ignition;
mod s07_install_config;
mod s07_manifests;
mod s08_apps;
mod s08_day_two;
mod s08_gather;
mod s08_install;
mod s08_upgrade;
mod s09_node;
mod s09_report;
mod s09_services;
mod s09_verify;
mod s10_cleanup;
mod settle;
mod unit;
pub mod usual;
pub mod watched;
pub mod world;

use std::sync::Arc;

use crate::engine::Step;
use crate::engine::runner::Steps;
use crate::model::RunModel;
use crate::model::plan::{StageId, StepId, StepPlan};

use s08_day_two::DayTwo;

pub use plan::plan;
pub use repair::{Alone, Repair};
pub use world::World;

/// Every step of `assets/stages.toml` and of `assets/upgrade.toml`.
pub fn steps() -> Steps<World> {
    let all: [(&str, Arc<dyn Step<World>>); 44] = [
        ("01-infrastructure/preflight", Arc::new(s01_infrastructure::Preflight)),
        ("01-infrastructure/network", Arc::new(s01_infrastructure::Network)),
        ("02-bastion/machine", Arc::new(s02_bastion::Machine)),
        ("02-bastion/host-key", Arc::new(s02_host_key::Pin)),
        ("02-bastion/connection", Arc::new(s02_bastion::Connection)),
        ("02-bastion/rotation", Arc::new(s02_host_key::Rotation)),
        ("02-bastion/packages", Arc::new(s02_bastion::Packages)),
        ("02-bastion/room", Arc::new(s02_bastion::Room)),
        ("02-bastion/proxy", Arc::new(s02_proxy::Proxy)),
        ("03-credentials/pull-secret", Arc::new(s03_credentials::PullSecret)),
        ("03-credentials/cloud-profile", Arc::new(s03_credentials::CloudProfile)),
        ("04-tools/bartizan", Arc::new(s04_tools::Bartizan)),
        ("04-tools/clients", Arc::new(s04_tools::Clients)),
        ("05-mirror-registry/identity", Arc::new(s05_mirror_registry::Identity)),
        ("05-mirror-registry/service", Arc::new(s05_mirror_registry::Service)),
        ("05-mirror-registry/pull-through", Arc::new(s05_pull_through::PullThrough)),
        ("06-image-sync/copy", Arc::new(s06_image_sync::Copy)),
        ("06-image-sync/proof", Arc::new(s06_image_sync::Proof)),
        ("07-install-config/install-config", Arc::new(s07_install_config::InstallConfig)),
        ("07-install-config/identities", Arc::new(s07_identities::Identities)),
        ("07-install-config/manifests", Arc::new(s07_manifests::Manifests)),
        ("07-install-config/ignition", Arc::new(s07_ignition::Ignition)),
        ("08-install/infrastructure", Arc::new(s08_install::Infrastructure)),
        ("08-install/bootstrap", Arc::new(s08_install::Bootstrap)),
        ("08-install/apps", Arc::new(s08_apps::Apps)),
        ("08-install/operators", Arc::new(s08_install::Operators)),
        ("08-install/trust", Arc::new(DayTwo::Trust)),
        ("08-install/rules", Arc::new(DayTwo::Rules)),
        ("08-install/catalogs", Arc::new(DayTwo::Catalogs)),
        ("08-install/samples", Arc::new(DayTwo::Samples)),
        ("08-install/updates", Arc::new(DayTwo::Updates)),
        ("08-install/gate", Arc::new(s08_upgrade::Gate)),
        ("08-install/upgrade", Arc::new(s08_upgrade::Upgrade)),
        ("09-verify/version", Arc::new(s09_verify::Version)),
        ("09-verify/nodes", Arc::new(s09_verify::Nodes)),
        ("09-verify/mirror", Arc::new(s09_verify::Mirror)),
        ("09-verify/pods", Arc::new(s09_verify::Pods)),
        ("09-verify/pull", Arc::new(s09_verify::Pull)),
        ("09-verify/names", Arc::new(s09_verify::Names)),
        ("09-verify/registry", Arc::new(s09_verify::Registry)),
        ("09-verify/catalogs", Arc::new(s09_verify::Catalogs)),
        ("10-cleanup/cluster", Arc::new(s10_cleanup::Cluster)),
        ("10-cleanup/mirror", Arc::new(s10_cleanup::Mirror)),
        ("10-cleanup/infrastructure", Arc::new(s10_cleanup::Infrastructure)),
    ];
    all.into_iter().map(|(id, step)| (StepId::new(id), step)).collect()
}

/// The stage of the cleanup, when the run has come to it: whoever resumes then goes on there.
pub fn cleanup_begun(model: &RunModel) -> Option<StageId> {
    let stage = model.plan.stages.iter().find(|stage| stage.id.name() == "cleanup")?;
    let begun = |step: &StepPlan| model.step(&step.id).is_some_and(|record| record.attempt > 0);
    stage.steps.iter().any(begun).then(|| stage.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planned_step_exists_and_every_step_is_planned() {
        let plan = plan().unwrap();
        let upgrade = plan::upgrade().unwrap();
        let mut sorted: Vec<_> = plan.steps().chain(upgrade.steps()).map(|step| step.id.clone()).collect();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted, steps().into_keys().collect::<Vec<_>>());
        assert_eq!(plan.stages.len(), 10);
        for stage in plan.stages.iter().chain(&upgrade.stages) {
            assert!(stage.steps.iter().all(|step| step.attempts > 0 && step.usual_s.0 <= step.usual_s.1));
        }
    }
}
