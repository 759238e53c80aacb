//! Recoveries of a run: which are tried, in which order, and what the run does after one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::model::event::{Data, Finding, Level, Outcome, RunOutcome};
use crate::model::plan::{StageId, StepPlan};
use crate::model::run::FindingRecord;

use super::attempts::tries;
use super::hands::{Recovery, Resume};
use super::runner::{Ending, Next, Runner, Work, stop};

/// The same recovery is not applied more often than this without a person.
const RECOVERIES: u32 = 2;

/// A fix may have to wait for somebody: a quota that is raised, a cluster that is destroyed.
const LONGEST_FIX_S: u64 = 7200;

/// After a recovery what runs tries again by itself: for so long what was on its way may still say what it said.
const REST: Duration = Duration::from_secs(120);

/// What was applied without a person.
#[derive(Debug, Default)]
pub(super) struct Tried {
    times: BTreeMap<String, u32>,
    /// When something was last changed for a finding.
    changed: BTreeMap<String, Instant>,
}

impl Tried {
    fn may<W>(&self, recovery: &Recovery<W>) -> bool {
        recovery.automatic && self.times.get(&recovery.id).is_none_or(|times| *times < RECOVERIES)
    }

    fn count(&mut self, recovery: &str) {
        *self.times.entry(recovery.to_owned()).or_default() += 1;
    }

    /// The finding was put right a moment ago.
    pub(super) fn rests(&self, finding: &Finding) -> bool {
        self.changed.get(&finding.id).is_some_and(|changed| changed.elapsed() < REST)
    }

    pub(super) fn put_right(&mut self, finding: &Finding) {
        self.changed.insert(finding.id.clone(), Instant::now());
    }
}

/// A recovery that the operator asks for at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct First {
    pub finding: Finding,
    /// Its id.
    pub recovery: String,
}

impl<W: Send + Sync + 'static> Runner<W> {
    /// Would `--recover` apply something for this finding?
    pub(super) fn wants(&self, finding: &Finding, tried: &Tried) -> bool {
        self.options.recover && self.hands.recoveries(finding).iter().any(|recovery| tried.may(recovery))
    }

    /// What `--recover` applies for it, the cheapest first; now they are tried.
    pub(super) fn untried(&self, finding: &Finding, tried: &mut Tried) -> Vec<Recovery<W>> {
        let mut untried = self.hands.recoveries(finding);
        untried.retain(|recovery| tried.may(recovery));
        untried.iter().for_each(|recovery| tried.count(&recovery.id));
        untried
    }

    /// The one that a person has chosen, or the first that is offered.
    pub(super) fn chosen(&self, finding: &Finding, recovery: Option<&str>) -> Vec<Recovery<W>> {
        let offered = self.hands.recoveries(finding).into_iter();
        offered.filter(|one| recovery.is_none_or(|id| one.id == id)).take(1).collect()
    }

    /// The open finding nearest to the cause for which there is an automatic recovery.
    pub(super) async fn likeliest(&self, tried: &Tried) -> Option<Finding> {
        let model = self.sink.model().await;
        model
            .open_findings()
            .into_iter()
            .map(|record| &record.finding)
            .find(|finding| self.wants(finding, tried))
            .cloned()
    }

    /// Applies the first of these recoveries that changes something, while its step runs. `Some` when the step had to end
    /// for it.
    pub(super) async fn recover_running(
        &self,
        step: &StepPlan,
        finding: &Finding,
        recoveries: Vec<Recovery<W>>,
        work: &mut Work,
    ) -> Option<Next> {
        let mut stopped = false;
        for recovery in &recoveries {
            if recovery.resume != Resume::Live && !stopped {
                stop(work).await;
                stopped = true;
            }
            match (self.apply(recovery, finding).await, &recovery.resume) {
                (Ok(false), _) => {}
                (Ok(true), Resume::Live) if stopped => return Some(Next::Again),
                (Ok(true), Resume::Live) => return None,
                (Ok(true), Resume::From(stage)) => return Some(self.go_back(stage, recovery).await),
                (Err(causes), Resume::From(_)) if Some(&recovery.id) == recoveries.last().map(|last| &last.id) => {
                    return Some(Next::End(self.failure(step, &causes, None)));
                }
                (Err(causes), _) => self.did_not_work(recovery, &causes).await,
            }
        }
        stopped.then_some(Next::Again)
    }

    async fn did_not_work(&self, recovery: &Recovery<W>, causes: &[String]) {
        let text = format!("recovery {} did not work: {}", recovery.id, causes.join(": "));
        self.sink.emit(Data::Note { level: Level::Error, text }).await;
    }

    async fn go_back(&self, stage: &StageId, recovery: &Recovery<W>) -> Next {
        self.sink.commit(Data::Rewound { stage: stage.clone(), because: recovery.title.clone() }).await;
        Next::Back(stage.clone())
    }

    /// Runs the fixes in order; the finding is cleared when all verified. False when all of it was true already, or none of
    /// it is for this world: then the cause is another.
    async fn apply(&self, recovery: &Recovery<W>, finding: &Finding) -> Result<bool, Vec<String>> {
        self.sink
            .commit(Data::Decision {
                command: "recover".into(),
                args: vec![recovery.id.clone(), finding.id.clone()],
                operator: self.options.operator.clone(),
                reason: Some(recovery.title.clone()),
            })
            .await;
        let (mut changed, mut unfit) = (false, None);
        for (id, fix) in &recovery.fixes {
            let plan = StepPlan {
                id: id.clone(),
                title: id.name().to_owned(),
                attempts: 3,
                timeout_s: LONGEST_FIX_S,
                usual_s: (1, 120),
                exit: None,
            };
            let cx = self.cx(id, 0, &CancellationToken::new()).await;
            match tries(plan, fix.clone(), cx, Arc::default()).await {
                Outcome::Failed { causes } => return Err(causes),
                Outcome::Success | Outcome::Warning { .. } => changed = true,
                Outcome::Skipped { why } => unfit = unfit.or(Some(why)),
                _ => {}
            }
        }
        if !changed {
            let why = unfit.as_deref().unwrap_or("all of it holds already");
            let text = format!("recovery {}: {why}; nothing was changed", recovery.id);
            self.sink.emit(Data::Note { level: Level::Info, text }).await;
            return Ok(false);
        }
        let model = self.sink.model().await;
        let fixed = |open: &&FindingRecord| {
            recovery.resume != Resume::Live
                || open.finding.id == finding.id
                || open.finding.explained_by.as_ref() == Some(&finding.id)
        };
        for open in model.open_findings().into_iter().filter(fixed) {
            let because = format!("recovery {} was applied and verified", recovery.id);
            self.sink.emit(Data::FindingCleared { finding: open.finding.id.clone(), because }).await;
        }
        Ok(true)
    }

    /// The recovery that was asked for at the start, of a run that has ended.
    pub(super) async fn recover_first(&self, asked: &First) -> Next {
        let failed = |causes: &[String]| {
            let summary = format!("recovery {} did not work: {}", asked.recovery, causes.join(": "));
            Next::End(Ending { outcome: RunOutcome::Failed, exit: 1, summary })
        };
        let Some(recovery) = self.chosen(&asked.finding, Some(&asked.recovery)).pop() else {
            return failed(&[format!("it is not offered for {}", asked.finding.id)]);
        };
        match (self.apply(&recovery, &asked.finding).await, &recovery.resume) {
            (Err(causes), _) => failed(&causes),
            (Ok(true), Resume::From(stage)) => self.go_back(stage, &recovery).await,
            (Ok(_), _) => Next::On,
        }
    }

    /// Applies the first of these recoveries that changes something. `None` when none did.
    pub(super) async fn recover_failed(&self, finding: &Finding, recoveries: &[Recovery<W>]) -> Option<Next> {
        for recovery in recoveries {
            match (self.apply(recovery, finding).await, &recovery.resume) {
                (Ok(false), _) => {}
                (Ok(true), Resume::Live) => return Some(Next::Again),
                (Ok(true), Resume::From(stage)) => return Some(self.go_back(stage, recovery).await),
                (Err(causes), _) => self.did_not_work(recovery, &causes).await,
            }
        }
        None
    }
}
