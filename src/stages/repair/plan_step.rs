//! Steps of the plan as fixes: they know what they have made, and how to make it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::model::event::{Action, Evidence, Level};
use crate::model::plan::StepId;
use crate::stages::world::{Cx, World};

/// A step is made true again.
pub(super) struct Ensure {
    pub id: StepId,
    pub step: Arc<dyn Step<World>>,
}

#[async_trait]
impl Step<World> for Ensure {
    fn preview(&self, world: &World) -> Vec<Action> {
        self.step.preview(world)
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if cx.model.step(&self.id).is_none_or(|record| record.attempt == 0) {
            return Ok(Probe::NotApplicable(format!("the run has not come to {} yet", self.id)));
        }
        self.step.probe(cx).await
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        self.step.run(cx).await
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        self.step.verify(cx).await
    }
}

/// A step that failed for want of something that others give is tried until it holds.
pub(super) struct Await {
    pub id: StepId,
    pub step: Arc<dyn Step<World>>,
}

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(7000);

/// What a quota or AWS's own capacity keeps back may come; what is forbidden or wrong does not by waiting.
fn may_come(error: &StepError) -> bool {
    let comes = |text: &String| {
        ["LimitExceeded", "TooMany", "Capacity", "quota", "Quota"].iter().any(|word| text.contains(word))
    };
    match error.causes.split_first() {
        // Each failed check is a cause of its own, and one that never comes is enough.
        Some((all, checks)) if all.contains("checks failed") => !checks.is_empty() && checks.iter().all(comes),
        _ => error.causes.iter().any(comes),
    }
}

#[async_trait]
impl Step<World> for Await {
    fn preview(&self, world: &World) -> Vec<Action> {
        self.step.preview(world)
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        self.step.probe(cx).await
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let started = Instant::now();
        let mut pause = FIRST;
        loop {
            let error = match self.step.run(&cx.fresh(cx.attempt).await).await {
                Ok(ran) => return Ok(ran),
                Err(error) => error,
            };
            if !may_come(&error) {
                return Err(error);
            }
            if started.elapsed() > LIMIT {
                return Err(error.during(format!("waited {} min for {}", LIMIT.as_secs() / 60, self.id)));
            }
            if pause == FIRST {
                let why = error.causes.get(1).or(error.causes.first()).cloned().unwrap_or_default();
                cx.note(Level::Warn, format!("{} waits for what is missing: {why}", self.id)).await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled")),
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        self.step.verify(cx).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_can_still_give_is_waited_for() {
        let quota = StepError::fatal("ec2:CreateVpc: VpcLimitExceeded: The maximum number of VPCs has been reached.");
        let capacity = StepError::transient("ec2:RunInstances: InsufficientInstanceCapacity: no m6i.large");
        let denied = StepError::fatal("ec2:CreateVpc: UnauthorizedOperation: You are not authorized");
        assert!(may_come(&quota) && may_come(&capacity) && !may_come(&denied));
        let mut checks = StepError::fatal("2 of 21 checks failed; nothing was made");
        checks.causes.push("quota vpc/L-F678F1CE 'VPCs per Region': 5 of 5 VPCs in use".into());
        assert!(may_come(&checks));
        checks.causes.push("permissions: 1 of 180 are denied: ec2:CreateVpc".into());
        assert!(!may_come(&checks));
    }
}
