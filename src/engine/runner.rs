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
use super::hands::{Hands, Recovery, Resume};
use super::step::{Step, StepCx};

/// Findings come in causes and symptoms; a moment later the cause is known.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long a run that failed waits for the answers to its checklists.
const ANSWERS: Duration = Duration::from_secs(20);
/// The same recovery is not applied more often than this without a person.
const RECOVERIES: u32 = 2;

/// What the operator asked for when starting.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub from: Option<StageId>,
    /// End after this stage.
    pub until: Option<StageId>,
    /// Apply automatic recoveries without asking.
    pub recover: bool,
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
enum Next {
    On,
    Again,
    Back(StageId),
    End(Ending),
}

/// A step at work.
struct Work {
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
        let mut applied: BTreeMap<String, u32> = BTreeMap::new();
        let ending = loop {
            let Some(step) = order.get(place) else {
                break done("every stage is done");
            };
            if let Some(until) = &self.options.until
                && self.is_after(&step.id.stage(), until)
            {
                break stopped_after(until, order.get(place).is_some());
            }
            match self.drive(step, &mut commands, &mut events, &mut applied).await {
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
        applied: &mut BTreeMap<String, u32>,
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
                    if self.wants(finding, applied) && candidate.is_none() {
                        candidate = Some((Instant::now(), finding.clone()));
                    }
                },
                () = tokio::time::sleep(settle.unwrap_or_default()), if settle.is_some() => {
                    let seen = candidate.take().map(|(_, finding)| finding);
                    let best = self.likeliest(applied).await.or(seen);
                    if let Some(finding) = best
                        && let Some(next) = self.recover_running(step, &finding, &mut work, applied).await
                    {
                        return next;
                    }
                }
            }
        };
        match outcome {
            Outcome::Failed { causes } => self.failed(step, causes, commands, events, applied).await,
            Outcome::Cancelled => Next::End(interrupted(&step.id)),
            _ => Next::On,
        }
    }

    async fn cx(&self, step: &StepId, attempt: u32, cancel: &CancellationToken) -> StepCx<W> {
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
            Command::Recover { finding } => {
                let model = self.sink.model().await;
                let found = model.findings.iter().rev().find(|record| record.finding.id == finding)?;
                self.recover_running(step, &found.finding.clone(), work, &mut BTreeMap::new()).await
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

    /// Would `--recover` apply something for this finding?
    fn wants(&self, finding: &Finding, applied: &BTreeMap<String, u32>) -> bool {
        self.options.recover
            && self.hands.recovery(finding).is_some_and(|recovery| {
                recovery.automatic && applied.get(&recovery.id).is_none_or(|times| *times < RECOVERIES)
            })
    }

    /// The open finding nearest to the cause for which there is an automatic recovery.
    async fn likeliest(&self, applied: &BTreeMap<String, u32>) -> Option<Finding> {
        let model = self.sink.model().await;
        model
            .open_findings()
            .into_iter()
            .map(|record| &record.finding)
            .find(|finding| self.wants(finding, applied))
            .cloned()
    }

    /// Applies a recovery while its step runs. `Some` when the step had to end for it.
    async fn recover_running(
        &self,
        step: &StepPlan,
        finding: &Finding,
        work: &mut Work,
        applied: &mut BTreeMap<String, u32>,
    ) -> Option<Next> {
        let recovery = self.hands.recovery(finding)?;
        *applied.entry(recovery.id.clone()).or_default() += 1;
        match &recovery.resume {
            Resume::Live => match self.apply(&recovery, finding).await {
                Ok(()) => None,
                Err(causes) => {
                    let text = format!("recovery {} did not work: {}", recovery.id, causes.join(": "));
                    self.sink.emit(Data::Note { level: Level::Error, text }).await;
                    None
                }
            },
            Resume::From(stage) => {
                stop(work).await;
                Some(match self.apply(&recovery, finding).await {
                    Ok(()) => self.go_back(stage, &recovery).await,
                    Err(causes) => Next::End(self.failure(step, &causes, None)),
                })
            }
        }
    }

    async fn go_back(&self, stage: &StageId, recovery: &Recovery<W>) -> Next {
        self.sink.commit(Data::Rewound { stage: stage.clone(), because: recovery.title.clone() }).await;
        Next::Back(stage.clone())
    }

    /// Runs the fixes in order; the finding is cleared when all verified.
    async fn apply(&self, recovery: &Recovery<W>, finding: &Finding) -> Result<(), Vec<String>> {
        self.sink
            .commit(Data::Decision {
                command: "recover".into(),
                args: vec![recovery.id.clone(), finding.id.clone()],
                operator: self.options.operator.clone(),
                reason: Some(recovery.title.clone()),
            })
            .await;
        for (id, fix) in &recovery.fixes {
            let plan = StepPlan {
                id: id.clone(),
                title: id.name().to_owned(),
                attempts: 3,
                timeout_s: 1800,
                usual_s: (1, 120),
                exit: None,
            };
            let world = self.world.clone();
            let outcome =
                attempts(plan, fix.clone(), world, self.sink.clone(), CancellationToken::new(), Arc::default()).await;
            if let Outcome::Failed { causes } = outcome {
                return Err(causes);
            }
        }
        let model = self.sink.model().await;
        let fixed = |open: &&crate::model::run::FindingRecord| {
            recovery.resume != Resume::Live
                || open.finding.id == finding.id
                || open.finding.explained_by.as_ref() == Some(&finding.id)
        };
        for open in model.open_findings().into_iter().filter(fixed) {
            let because = format!("recovery {} was applied and verified", recovery.id);
            self.sink.emit(Data::FindingCleared { finding: open.finding.id.clone(), because }).await;
        }
        Ok(())
    }

    /// A step failed for good: recover, ask, or end.
    async fn failed(
        &mut self,
        step: &StepPlan,
        causes: Vec<String>,
        commands: &mut mpsc::Receiver<Command>,
        events: &mut Follower,
        applied: &mut BTreeMap<String, u32>,
    ) -> Next {
        let cx = self.cx(&step.id, 0, &CancellationToken::new()).await;
        self.hands.classify(&cx, &causes).await;
        self.settle(step, events).await;
        if let Some(finding) = self.likeliest(applied).await {
            return self.recover_failed(step, &finding, applied).await;
        }
        if !self.options.interactive {
            self.probes.close();
            // What has not answered by then is left open in the record.
            let _late = tokio::time::timeout(ANSWERS, self.probes.wait()).await;
            return Next::End(self.failure(step, &causes, self.exit_of(step).await));
        }
        let text = format!("{} needs you: retry, skip, recover or detach", step.id);
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
                Some(Command::Recover { finding }) => {
                    let model = self.sink.model().await;
                    if let Some(found) = model.findings.iter().rev().find(|record| record.finding.id == finding) {
                        return self.recover_failed(step, &found.finding, applied).await;
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

    async fn recover_failed(&self, step: &StepPlan, finding: &Finding, applied: &mut BTreeMap<String, u32>) -> Next {
        let Some(recovery) = self.hands.recovery(finding) else {
            return Next::End(self.failure(step, std::slice::from_ref(&finding.title), None));
        };
        *applied.entry(recovery.id.clone()).or_default() += 1;
        match self.apply(&recovery, finding).await {
            Err(causes) => Next::End(self.failure(step, &causes, None)),
            Ok(()) => match &recovery.resume {
                Resume::Live => Next::Again,
                Resume::From(stage) => self.go_back(stage, &recovery).await,
            },
        }
    }

    /// The exit code that the step's own failure named, from the record.
    async fn exit_of(&self, step: &StepPlan) -> Option<u8> {
        self.sink.model().await.fact(&exit_fact(&step.id)).and_then(|code| code.parse().ok())
    }

    fn failure(&self, step: &StepPlan, causes: &[String], exit: Option<u8>) -> Ending {
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
async fn stop(work: &mut Work) {
    work.cancel.cancel();
    if tokio::time::timeout(GRACE, &mut work.task).await.is_err() {
        work.task.abort();
    }
}
