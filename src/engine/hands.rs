//! What the engine cannot know: how to look into a finding, and how to repair what it found.

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::event::Finding;
use crate::model::plan::{StageId, StepId};

use super::step::{Step, StepCx, StepError};

/// Where the run goes on after a recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// What runs now tries again by itself.
    Live,
    From(StageId),
}

/// A way out of a finding: fixes in order, then where to go on.
pub struct Recovery<W> {
    pub id: String,
    pub title: String,
    /// May be applied without a person (`--recover`).
    pub automatic: bool,
    pub resume: Resume,
    /// Steps like any other: probed, run, verified, recorded.
    pub fixes: Vec<(StepId, Arc<dyn Step<W>>)>,
}

/// Implemented where the stages are known.
#[async_trait]
pub trait Hands<W: Send + Sync>: Send + Sync {
    /// Run the read-only probes of the finding's checklist and record their answers.
    async fn check(&self, cx: &StepCx<W>, finding: &Finding);
    /// What can be done about it, the cheapest first.
    fn recoveries(&self, finding: &Finding) -> Vec<Recovery<W>>;
    /// A step failed: turn its error chain into findings.
    async fn classify(&self, cx: &StepCx<W>, causes: &[String]);
    async fn resync(&self, cx: &StepCx<W>, image: &str) -> Result<(), StepError>;
    /// The operator does without an image, now and in every later attempt.
    async fn leave_out(&self, cx: &StepCx<W>, image: &str) -> Result<(), StepError>;
    async fn approve_csr(&self, cx: &StepCx<W>, name: &str) -> Result<(), StepError>;
}
