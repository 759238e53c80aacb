//! The attempts of one step: probe, run, verify, each recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::model::event::{Data, Evidence, Outcome};
use crate::model::plan::{StepId, StepPlan};
use crate::model::run::Status;
use crate::record::Sink;

use super::retry::pause_before;
use super::step::{Probe, Ran, Step, StepCx, StepError};

/// A cancelled step has this long to put its things in order.
pub(super) const GRACE: Duration = Duration::from_secs(8);

/// Where the exit class of a step's last failure is kept.
pub(super) fn exit_fact(step: &StepId) -> String {
    format!("exit.{step}")
}

/// A step of the plan: what the record says was done is only looked at.
pub(super) async fn attempts<W: Send + Sync + 'static>(
    plan: StepPlan,
    step: Arc<dyn Step<W>>,
    world: Arc<W>,
    sink: Sink,
    cancel: CancellationToken,
    hurry: Arc<Notify>,
) -> Outcome {
    let before = StepCx {
        world,
        step: plan.id.clone(),
        attempt: 0,
        sink: sink.clone(),
        cancel: cancel.clone(),
        model: sink.model().await,
    };
    if let Some(record) = before.model.step(&plan.id)
        && matches!(record.status, Status::Done | Status::Warned | Status::Skipped)
        && let Some(outcome) = record.outcome.clone()
    {
        match again(&*step, &before, &outcome).await {
            Ok(because) => {
                sink.emit(Data::StepInferred { step: plan.id.clone(), outcome: outcome.clone(), because }).await;
                return outcome;
            }
            Err(world_says) => {
                let record_says = "done".to_owned();
                sink.emit(Data::Drift { step: plan.id.clone(), record_says, world_says }).await;
            }
        }
    }
    tries(plan, step, before, hurry).await
}

/// Every attempt of a step, each recorded.
pub(super) async fn tries<W: Send + Sync + 'static>(
    plan: StepPlan,
    step: Arc<dyn Step<W>>,
    before: StepCx<W>,
    hurry: Arc<Notify>,
) -> Outcome {
    let (sink, cancel) = (before.sink.clone(), before.cancel.clone());
    let mut attempt = before.model.step(&plan.id).map_or(0, |record| record.attempt) + 1;
    let last = attempt + plan.attempts.max(1) - 1;
    loop {
        sink.commit(Data::StepStarted { step: plan.id.clone(), attempt, host: None }).await;
        let started = Instant::now();
        let limit = Duration::from_secs(plan.timeout_s.max(1));
        let result = tokio::select! {
            result = tokio::time::timeout(limit, once(&*step, before.fresh(attempt).await)) => result.unwrap_or_else(|_| {
                Err(StepError::transient(format!("{} took longer than {} s", plan.id, plan.timeout_s)))
            }),
            () = cancelled_for_good(&cancel) => return Outcome::Cancelled,
        };
        if cancel.is_cancelled() {
            return Outcome::Cancelled;
        }
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended = |outcome: Outcome, evidence: Vec<Evidence>| Data::StepEnded {
            step: plan.id.clone(),
            attempt,
            outcome,
            elapsed_ms,
            evidence,
        };
        match result {
            Ok((outcome, evidence)) => {
                sink.commit(ended(outcome.clone(), evidence)).await;
                return outcome;
            }
            Err(error) if error.retry && attempt < last => {
                let pause = pause_before(attempt + 1);
                let after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                let why = error.causes.join(": ");
                sink.emit(Data::StepRetry { step: plan.id.clone(), next_attempt: attempt + 1, after_ms, why }).await;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = hurry.notified() => {}
                    () = cancel.cancelled() => return Outcome::Cancelled,
                }
                attempt += 1;
            }
            Err(error) => {
                if let Some(exit) = error.exit {
                    sink.emit(Data::Fact { key: exit_fact(&plan.id), value: exit.to_string() }).await;
                }
                let outcome = Outcome::Failed { causes: error.causes };
                sink.commit(ended(outcome.clone(), error.evidence)).await;
                return outcome;
            }
        }
    }
}

/// A step that does not listen to its cancel token is dropped a little before the runner loses patience.
async fn cancelled_for_good(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(GRACE.mul_f64(0.75)).await;
}

/// Is what the record says was done still so? `Err` says what is missing.
async fn again<W: Send + Sync>(step: &dyn Step<W>, cx: &StepCx<W>, outcome: &Outcome) -> Result<String, String> {
    match step.probe(cx).await {
        Ok(Probe::True(evidence)) => {
            Ok(evidence.first().map_or("probed again".to_owned(), |proof| proof.answer.clone()))
        }
        Ok(Probe::NotApplicable(why)) => Ok(why),
        Ok(Probe::Missing(_)) if matches!(outcome, Outcome::Skipped { .. }) => {
            Ok("the operator left it out".to_owned())
        }
        Ok(Probe::Missing(what)) => Err(what),
        Err(error) => Err(error.causes.join(": ")),
    }
}

/// Probe, run, verify.
async fn once<W: Send + Sync>(step: &dyn Step<W>, cx: StepCx<W>) -> Result<(Outcome, Vec<Evidence>), StepError> {
    match step.probe(&cx).await? {
        Probe::True(evidence) => return Ok((Outcome::AlreadyTrue, evidence)),
        Probe::NotApplicable(why) => return Ok((Outcome::Skipped { why }, Vec::new())),
        Probe::Missing(_) => {}
    }
    let ran = step.run(&cx.fresh(cx.attempt).await).await?;
    let evidence = step.verify(&cx.fresh(cx.attempt).await).await?;
    Ok(match ran {
        Ran::Ok => (Outcome::Success, evidence),
        Ran::Warning(message) => (Outcome::Warning { message }, evidence),
    })
}
