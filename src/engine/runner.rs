//! The loop over the steps of a plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::event::*;
use crate::model::plan::{Plan, StageId, StepId, StepPlan};
use crate::record::{Follower, Sink};

use super::attempts::{GRACE, attempts, exit_fact};
use super::command::Command;
use super::hands::Hands;
use super::recover::{First, Tried};
use super::step::{Step, StepCx};

/// Findings come in causes and symptoms; a moment later the cause is known.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long a run that failed waits for the answers to its checklists.
const ANSWERS: Duration = Duration::from_secs(20);
/// What the operator asked for when starting.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub from: Option<StageId>,
    /// End after this stage.
    pub until: Option<StageId>,
    /// Apply automatic recoveries without asking.
    pub recover: bool,
    /// Before anything else: apply this recovery.
    pub first: Option<First>,
    /// Somebody is there to decide what to do about a failure.
    pub interactive: bool,
    pub operator: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    pub outcome: RunOutcome,
    pub exit: u8,
    pub summary: String,
}

/// Exit code of a run that the operator interrupted, as `openshift-install` has it.
pub const EXIT_INTERRUPTED: u8 = 8;

/// Steps by their id.
pub type Steps<W> = BTreeMap<StepId, Arc<dyn Step<W>>>;

pub struct Runner<W: Send + Sync + 'static> {
    pub world: Arc<W>,
    pub plan: Plan,
    pub steps: Steps<W>,
    pub sink: Sink,
    pub hands: Arc<dyn Hands<W>>,
    pub options: Options,
    /// Probes of checklists that have not answered yet.
    pub probes: TaskTracker,
}

/// What to do after a step.
pub(super) enum Next {
    On,
    Again,
    Back(StageId),
    End(Ending),
}

/// A step at work.
pub(super) struct Work {
    cancel: CancellationToken,
    /// Shortens a pause before a retry.
    hurry: Arc<Notify>,
    task: tokio::task::JoinHandle<Outcome>,
}

impl<W: Send + Sync + 'static> Runner<W> {
    /// Runs the plan from where the record stands to its end, and closes the run.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut events: Follower) -> Ending {
        let order: Vec<StepPlan> = self.plan.steps().cloned().collect();
        let first = |stage: &StageId| order.iter().position(|step| step.id.stage() == *stage);
        let mut place = self.options.from.as_ref().and_then(first).unwrap_or(0);
        let mut tried = Tried::default();
        let mut over = None;
        if let Some(asked) = self.options.first.take() {
            match self.recover_first(&asked).await {
                Next::Back(stage) => place = first(&stage).unwrap_or(place),
                Next::End(ending) => over = Some(ending),
                Next::On | Next::Again => {}
            }
        }
        let ending = loop {
            if let Some(over) = over.take() {
                break over;
            }
            let Some(step) = order.get(place) else {
                break done("every stage is done");
            };
            if let Some(until) = &self.options.until
                && self.is_after(&step.id.stage(), until)
            {
                break stopped_after(until, order.get(place).is_some());
            }
            match self.drive(step, &mut commands, &mut events, &mut tried).await {
                Next::On => place += 1,
                Next::Again => {}
                Next::Back(stage) => place = first(&stage).unwrap_or(place),
                Next::End(ending) => break ending,
            }
        };
        let Ending { outcome, exit, summary } = ending.clone();
        self.sink.commit(Data::RunClosed { outcome, exit, summary }).await;
        ending
    }

    fn is_after(&self, stage: &StageId, until: &StageId) -> bool {
        let place = |wanted: &StageId| self.plan.stages.iter().position(|stage| stage.id == *wanted);
        place(stage) > place(until)
    }

    /// One step to its end, with ears for the operator and for findings meanwhile.
    async fn drive(
        &mut self,
        step: &StepPlan,
        commands: &mut mpsc::Receiver<Command>,
        events: &mut Follower,
        tried: &mut Tried,
    ) -> Next {
        let mut work = self.start(step).await;
        let mut candidate: Option<(Instant, Finding)> = None;
        let mut commands_open = true;
        let outcome = loop {
            let settle = candidate.as_ref().map(|(since, _)| SETTLE.saturating_sub(since.elapsed()));
            tokio::select! {
                result = &mut work.task => break result.unwrap_or_else(|error| Outcome::Failed { causes: vec![format!("{} broke: {error}", step.id)] }),
                command = commands.recv(), if commands_open => match command {
                    None => commands_open = false,
                    Some(command) => if let Some(next) = self.obey(command, step, &mut work).await {
                        return next;
                    },
                },
                Some(event) = events.next() => if let Data::FindingOpened { finding } = &event.data {
                    self.look_into(step, finding).await;
                    if candidate.is_none() && self.wants(finding, tried) && !tried.rests(finding) {
                        candidate = Some((Instant::now(), finding.clone()));
                    }
                },
                () = tokio::time::sleep(settle.unwrap_or_default()), if settle.is_some() => {
                    let seen = candidate.take().map(|(_, finding)| finding);
                    let best = self.likeliest(tried).await.or(seen);
                    if let Some(finding) = best {
                        let untried = self.untried(&finding, tried);
                        tried.put_right(&finding);
                        if let Some(next) = self.recover_running(step, &finding, untried, &mut work).await {
                            return next;
                        }
                    }
                }
            }
        };
        match outcome {
            Outcome::Failed { causes } => self.failed(step, causes, commands, events, tried).await,
            Outcome::Cancelled => Next::End(interrupted(&step.id)),
            _ => Next::On,
        }
    }

    pub(super) async fn cx(&self, step: &StepId, attempt: u32, cancel: &CancellationToken) -> StepCx<W> {
        StepCx {
            world: self.world.clone(),
            step: step.clone(),
            attempt,
            sink: self.sink.clone(),
            cancel: cancel.clone(),
            model: self.sink.model().await,
        }
    }

    async fn start(&self, plan: &StepPlan) -> Work {
        let cancel = CancellationToken::new();
        let hurry = Arc::new(Notify::new());
        let task = match self.steps.get(&plan.id) {
            Some(step) => tokio::spawn(attempts(
                plan.clone(),
                step.clone(),
                self.world.clone(),
                self.sink.clone(),
                cancel.clone(),
                hurry.clone(),
            )),
            None => {
                let causes = vec![format!("this bartizan has no step {}", plan.id)];
                tokio::spawn(async move { Outcome::Failed { causes } })
            }
        };
        Work { cancel, hurry, task }
    }

    /// Carries out what the operator asked for while `step` runs. `Some` ends the step.
    async fn obey(&mut self, command: Command, step: &StepPlan, work: &mut Work) -> Option<Next> {
        let operator = self.options.operator.clone();
        let decide = |command: &str, args: Vec<String>| Data::Decision {
            command: command.to_owned(),
            args,
            operator: operator.clone(),
            reason: None,
        };
        match command {
            Command::Retry(_) => {
                self.sink.emit(decide("retry", vec![step.id.to_string()])).await;
                work.hurry.notify_one();
                None
            }
            Command::Skip(id) if id == step.id => {
                self.sink.emit(decide("skip", vec![id.to_string()])).await;
                stop(work).await;
                self.skip(step, &operator).await;
                Some(Next::On)
            }
            Command::Skip(_) => None,
            Command::Cancel => {
                self.sink.emit(decide("cancel", vec![step.id.to_string()])).await;
                stop(work).await;
                self.sink
                    .commit(Data::StepEnded {
                        step: step.id.clone(),
                        attempt: 0,
                        outcome: Outcome::Cancelled,
                        elapsed_ms: 0,
                        evidence: Vec::new(),
                    })
                    .await;
                Some(Next::End(interrupted(&step.id)))
            }
            Command::Detach => {
                self.sink.emit(decide("detach", Vec::new())).await;
                stop(work).await;
                Some(Next::End(Ending {
                    outcome: RunOutcome::Stopped,
                    exit: EXIT_INTERRUPTED,
                    summary: format!("detached in {}; go on with `bartizan run --resume`", step.id),
                }))
            }
            Command::StopAfter(stage) => {
                self.sink.emit(decide("stop-after", vec![stage.to_string()])).await;
                self.options.until = Some(stage);
                None
            }
            Command::Recover { finding, recovery } => {
                let model = self.sink.model().await;
                let found = model.findings.iter().rev().find(|record| record.finding.id == finding)?;
                let chosen = self.chosen(&found.finding, recovery.as_deref());
                self.recover_running(step, &found.finding, chosen, work).await
            }
            Command::RunChecks { finding } => {
                let model = self.sink.model().await;
                let found = model.findings.iter().rev().find(|record| record.finding.id == finding)?;
                self.look_into(step, &found.finding).await;
                None
            }
            Command::Resync { image } => {
                self.sink.emit(decide("resync", vec![image.clone()])).await;
                let (hands, cx) = (self.hands.clone(), self.cx(&step.id, 0, &CancellationToken::new()).await);
                tokio::spawn(async move {
                    let told = hands.resync(&cx, &image).await;
                    cx.tell(&format!("syncing {image} again"), told).await;
                });
                None
            }
            Command::LeaveOut { image } => {
                self.sink.emit(decide("leave-out", vec![image.clone()])).await;
                // Waited for: whoever says retry next wants it to count.
                let cx = self.cx(&step.id, 0, &CancellationToken::new()).await;
                let told = self.hands.leave_out(&cx, &image).await;
                cx.tell(&format!("leaving {image} out"), told).await;
                None
            }
            Command::Answer { fact, value } => {
                self.answer(fact, value).await;
                work.hurry.notify_one();
                None
            }
            Command::ApproveCsr { name } => {
                self.sink.emit(decide("approve-csr", vec![name.clone()])).await;
                let (hands, cx) = (self.hands.clone(), self.cx(&step.id, 0, &CancellationToken::new()).await);
                tokio::spawn(async move {
                    let told = hands.approve_csr(&cx, &name).await;
                    cx.tell(&format!("approving {name}"), told).await;
                });
                None
            }
        }
    }

    async fn answer(&self, fact: String, value: String) {
        let args = vec![fact.clone(), value.clone()];
        let operator = self.options.operator.clone();
        self.sink.commit(Data::Decision { command: "answer".into(), args, operator, reason: None }).await;
        self.sink.commit(Data::Fact { key: fact, value }).await;
    }

    async fn skip(&self, step: &StepPlan, operator: &str) {
        self.sink
            .commit(Data::StepEnded {
                step: step.id.clone(),
                attempt: 0,
                outcome: Outcome::Skipped { why: format!("{operator} said so") },
                elapsed_ms: 0,
                evidence: Vec::new(),
            })
            .await;
    }

    /// The checklist's probes change nothing, so nobody is asked.
    async fn look_into(&self, step: &StepPlan, finding: &Finding) {
        if finding.checklist.is_none() {
            return;
        }
        let (hands, cx, finding) =
            (self.hands.clone(), self.cx(&step.id, 0, &CancellationToken::new()).await, finding.clone());
        self.probes.spawn(async move { hands.check(&cx, &finding).await });
    }

    /// The moment in which a failure's causes and symptoms become known.
    async fn settle(&self, step: &StepPlan, events: &mut Follower) {
        let over = tokio::time::sleep(SETTLE);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                Some(event) = events.next() => if let Data::FindingOpened { finding } = &event.data {
                    self.look_into(step, finding).await;
                },
            }
        }
    }

    /// A step failed for good: recover, ask, or end.
    async fn failed(
        &mut self,
        step: &StepPlan,
        causes: Vec<String>,
        commands: &mut mpsc::Receiver<Command>,
        events: &mut Follower,
        tried: &mut Tried,
    ) -> Next {
        let cx = self.cx(&step.id, 0, &CancellationToken::new()).await;
        self.hands.classify(&cx, &causes).await;
        self.settle(step, events).await;
        while let Some(finding) = self.likeliest(tried).await {
            let untried = self.untried(&finding, tried);
            if let Some(next) = self.recover_failed(&finding, &untried).await {
                return next;
            }
        }
        if !self.options.interactive {
            self.probes.close();
            // What has not answered by then is left open in the record.
            let _late = tokio::time::timeout(ANSWERS, self.probes.wait()).await;
            return Next::End(self.failure(step, &causes, self.exit_of(step).await));
        }
        let text = format!("{} {NEEDS_YOU}: retry, skip, recover or detach", step.id);
        self.sink.emit(Data::Note { level: Level::Warn, text }).await;
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                Some(event) = events.next() => {
                    if let Data::FindingOpened { finding } = &event.data {
                        self.look_into(step, finding).await;
                    }
                    continue;
                }
            };
            match command {
                None | Some(Command::Cancel | Command::Detach) => {
                    return Next::End(self.failure(step, &causes, self.exit_of(step).await));
                }
                Some(Command::Retry(_)) => return Next::Again,
                Some(Command::Answer { fact, value }) => {
                    self.answer(fact, value).await;
                    return Next::Again;
                }
                Some(Command::Skip(id)) if id == step.id => {
                    self.skip(step, &self.options.operator).await;
                    return Next::On;
                }
                Some(Command::Recover { finding, recovery }) => {
                    let model = self.sink.model().await;
                    if let Some(found) = model.findings.iter().rev().find(|record| record.finding.id == finding) {
                        let chosen = self.chosen(&found.finding, recovery.as_deref());
                        if let Some(next) = self.recover_failed(&found.finding, &chosen).await {
                            return next;
                        }
                    }
                }
                Some(other) => {
                    let mut idle = Work {
                        cancel: CancellationToken::new(),
                        hurry: Arc::default(),
                        task: tokio::spawn(async { Outcome::Cancelled }),
                    };
                    if let Some(next) = self.obey(other, step, &mut idle).await {
                        return next;
                    }
                }
            }
        }
    }

    /// The exit code that the step's own failure named, from the record.
    async fn exit_of(&self, step: &StepPlan) -> Option<u8> {
        self.sink.model().await.fact(&exit_fact(&step.id)).and_then(|code| code.parse().ok())
    }

    pub(super) fn failure(&self, step: &StepPlan, causes: &[String], exit: Option<u8>) -> Ending {
        let stage = self.plan.stage(&step.id.stage()).map_or(1, |stage| stage.exit);
        Ending {
            outcome: RunOutcome::Failed,
            exit: exit.or(step.exit).unwrap_or(stage),
            summary: format!("{} failed: {}", step.id, causes.join(": ")),
        }
    }
}

fn done(summary: &str) -> Ending {
    Ending { outcome: RunOutcome::Done, exit: 0, summary: summary.to_owned() }
}

fn stopped_after(until: &StageId, more: bool) -> Ending {
    let outcome = if more { RunOutcome::Stopped } else { RunOutcome::Done };
    Ending { outcome, exit: 0, summary: format!("done up to {until}") }
}

fn interrupted(step: &StepId) -> Ending {
    Ending { outcome: RunOutcome::Cancelled, exit: EXIT_INTERRUPTED, summary: format!("cancelled in {step}") }
}

/// Cancels a step, gives it a moment, then drops it.
pub(super) async fn stop(work: &mut Work) {
    work.cancel.cancel();
    if tokio::time::timeout(GRACE, &mut work.task).await.is_err() {
        work.task.abort();
    }
}
