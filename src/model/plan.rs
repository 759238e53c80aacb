//! The plan: which steps a run has, known before anything happens.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A stage as engineers know it: `06-image-sync`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageId(pub String);

/// A step's path: `06-image-sync/copy`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl StageId {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// `06` of `06-image-sync`.
    pub fn number(&self) -> &str {
        self.0.split('-').next().unwrap_or("")
    }
    /// `image-sync` of `06-image-sync`.
    pub fn name(&self) -> &str {
        self.0.split_once('-').map_or(self.0.as_str(), |(_, name)| name)
    }
}

impl StepId {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn stage(&self) -> StageId {
        StageId(self.0.split('/').next().unwrap_or("").to_owned())
    }
    /// `copy` of `06-image-sync/copy`.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All stages of a run in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub stages: Vec<StagePlan>,
    /// Usual durations of the bootstrap node's stages in seconds, lower and upper: what earlier runs have recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub usual_boot_s: BTreeMap<String, (u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    pub id: StageId,
    /// One sentence: what is true when the stage is done.
    pub goal: String,
    /// Process exit code when a step of this stage fails and the step names none.
    pub exit: u8,
    pub steps: Vec<StepPlan>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepPlan {
    pub id: StepId,
    pub title: String,
    /// How many times it is tried in all.
    pub attempts: u32,
    /// Longest time of one attempt, in seconds.
    pub timeout_s: u64,
    /// Usual duration in seconds, lower and upper, from experience.
    pub usual_s: (u64, u64),
    pub exit: Option<u8>,
}

impl Plan {
    pub fn stage(&self, id: &StageId) -> Option<&StagePlan> {
        self.stages.iter().find(|stage| stage.id == *id)
    }
    pub fn step(&self, id: &StepId) -> Option<&StepPlan> {
        self.steps().find(|step| step.id == *id)
    }
    pub fn steps(&self) -> impl Iterator<Item = &StepPlan> {
        self.stages.iter().flat_map(|stage| stage.steps.iter())
    }
    /// How many seconds a stage of the bootstrap node usually takes, lower and upper, when enough runs have told.
    pub fn usual_boot(&self, stage: &str) -> Option<(u64, u64)> {
        self.usual_boot_s.get(stage).copied()
    }
    /// The stage meant by `06`, `image-sync` or `06-image-sync`.
    pub fn find_stage(&self, text: &str) -> Option<&StagePlan> {
        self.stages
            .iter()
            .find(|stage| stage.id.as_str() == text || stage.id.number() == text || stage.id.name() == text)
    }
}
