//! What the engine asks of a step.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::model::event::{Action, Data, Evidence, Level, Unit};
use crate::model::plan::StepId;
use crate::model::run::RunModel;
use crate::record::Sink;

/// A unit of work. `W` is the world it works on: hosts, cloud, registries, the spec.
#[async_trait]
pub trait Step<W: Send + Sync>: Send + Sync {
    /// What would be done, in order, as far as it can be known beforehand. No I/O.
    fn preview(&self, world: &W) -> Vec<Action>;

    /// Is it true already? Must not change anything.
    async fn probe(&self, cx: &StepCx<W>) -> Result<Probe, StepError>;

    /// Make it true. May be called on a half-done world: whatever exists is adopted.
    async fn run(&self, cx: &StepCx<W>) -> Result<Ran, StepError>;

    /// Is it true now? Only this makes a step done.
    async fn verify(&self, cx: &StepCx<W>) -> Result<Vec<Evidence>, StepError>;
}

#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// True already, and why we think so.
    True(Vec<Evidence>),
    /// To be made. The text says what is missing.
    Missing(String),
    /// Does not apply to this spec.
    NotApplicable(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Ran {
    Ok,
    /// Done, but the operator should know.
    Warning(String),
}

/// Why a step failed, and what the engine should make of it.
#[derive(Debug, thiserror::Error)]
#[error("{}", causes.first().map_or("failed", String::as_str))]
pub struct StepError {
    /// Outermost first: what was being done, to what, what went wrong, what to try.
    pub causes: Vec<String>,
    /// Trying again may help.
    pub retry: bool,
    /// Exit code class, when it differs from the stage's.
    pub exit: Option<u8>,
    /// What was seen until then.
    pub evidence: Vec<Evidence>,
}

impl StepError {
    /// A failure that another attempt may cure.
    pub fn transient(what: impl Into<String>) -> Self {
        Self { causes: vec![what.into()], retry: true, exit: None, evidence: Vec::new() }
    }
    /// A failure that will be the same next time.
    pub fn fatal(what: impl Into<String>) -> Self {
        Self { causes: vec![what.into()], retry: false, exit: None, evidence: Vec::new() }
    }
    /// `what` was being done when this happened.
    pub fn during(mut self, what: impl Into<String>) -> Self {
        self.causes.insert(0, what.into());
        self
    }
    /// What the operator can try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.causes.push(format!("try: {}", hint.into()));
        self
    }
    /// What was seen until it failed stays with the step.
    pub fn saw(mut self, evidence: Vec<Evidence>) -> Self {
        self.evidence = evidence;
        self
    }
    pub fn exit(mut self, exit: u8) -> Self {
        self.exit = Some(exit);
        self
    }
}

/// What a step is given.
pub struct StepCx<W> {
    pub world: Arc<W>,
    pub step: StepId,
    pub attempt: u32,
    pub sink: Sink,
    /// Cancelled when the operator cancels, skips or detaches.
    pub cancel: CancellationToken,
    /// The run as it stood when this phase of the step began.
    pub model: Arc<RunModel>,
}

impl<W> StepCx<W> {
    /// The same for the next phase: the run as it stands now.
    pub async fn fresh(&self, attempt: u32) -> Self {
        Self {
            world: self.world.clone(),
            step: self.step.clone(),
            attempt,
            sink: self.sink.clone(),
            cancel: self.cancel.clone(),
            model: self.sink.model().await,
        }
    }

    /// A fact that an earlier step recorded.
    pub fn fact(&self, key: &str) -> Option<String> {
        self.model.fact(key).map(str::to_owned)
    }
    /// A fact without which this step cannot work.
    pub fn need(&self, key: &str) -> Result<String, StepError> {
        self.fact(key).ok_or_else(|| StepError::fatal(format!("{}: the run does not know {key} yet", self.step)))
    }
    pub async fn set_fact(&self, key: &str, value: impl Into<String>) {
        self.sink.commit(Data::Fact { key: key.to_owned(), value: value.into() }).await;
    }
    /// Record a command that runs; [`StepCx::acted`] tells of its end.
    pub async fn acting(&self, action: Action) {
        self.acted(action, None, std::time::Duration::ZERO).await;
    }
    /// Record a command or call that was made.
    pub async fn acted(&self, action: Action, exit: Option<i32>, elapsed: std::time::Duration) {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.sink.emit(Data::StepAction { step: self.step.clone(), action, exit, elapsed_ms }).await;
    }
    pub async fn progress(&self, done: u64, total: Option<u64>, unit: Unit, note: Option<String>) {
        self.sink.emit(Data::StepProgress { step: self.step.clone(), done, total, unit, note }).await;
    }
    pub async fn note(&self, level: Level, text: impl Into<String>) {
        self.sink.emit(Data::Note { level, text: text.into() }).await;
    }
    /// Say how something that the operator asked for went.
    pub async fn tell(&self, what: &str, result: Result<(), StepError>) {
        match result {
            Ok(()) => self.note(Level::Info, format!("{what}: done")).await,
            Err(error) => self.note(Level::Error, format!("{what}: {}", error.causes.join(": "))).await,
        }
    }
}
