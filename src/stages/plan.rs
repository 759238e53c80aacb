//! `assets/stages.toml` as a plan.

use serde::Deserialize;

use crate::model::plan::{Plan, StageId, StagePlan, StepId, StepPlan};

const STAGES: &str = include_str!("../../assets/stages.toml");
const UPGRADE: &str = include_str!("../../assets/upgrade.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    stage: Vec<Stage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    id: String,
    goal: String,
    exit: u8,
    step: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    title: String,
    attempts: u32,
    timeout: u64,
    usual: (u64, u64),
    exit: Option<u8>,
}

/// The ten stages.
///
/// # Errors
/// Only when the file built into this program is broken, which a test rules out.
pub fn plan() -> Result<Plan, toml::de::Error> {
    read(STAGES)
}

/// An upgrade of a cluster that stands.
///
/// # Errors
/// As of [`plan`].
pub fn upgrade() -> Result<Plan, toml::de::Error> {
    read(UPGRADE)
}

fn read(text: &str) -> Result<Plan, toml::de::Error> {
    let file: File = toml::from_str(text)?;
    let stages = file.stage.into_iter().map(|stage| StagePlan {
        steps: stage
            .step
            .into_iter()
            .map(|step| StepPlan {
                id: StepId::new(format!("{}/{}", stage.id, step.name)),
                title: step.title,
                attempts: step.attempts,
                timeout_s: step.timeout,
                usual_s: step.usual,
                exit: step.exit,
            })
            .collect(),
        id: StageId::new(stage.id),
        goal: stage.goal,
        exit: stage.exit,
    });
    Ok(Plan { stages: stages.collect(), ..Plan::default() })
}
