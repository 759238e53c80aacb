//! The picture of a run: what a fold over its events gives.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::cause::likeliest_first;
use super::event::*;
use super::plan::{Plan, StageId, StepId};
use super::progress::Rate;

/// Everything that can be shown of a run. Cheap to clone by value for a keyframe.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunModel {
    pub run: String,
    pub cluster: ClusterName,
    pub operator: String,
    pub opened: Option<Timestamp>,
    /// Time of the newest event: the model's only clock.
    pub now: Option<Timestamp>,
    pub seq: Seq,
    pub plan: Plan,
    pub steps: BTreeMap<StepId, StepRecord>,
    pub facts: BTreeMap<String, String>,
    /// What the run made, by kind and name. `id` is `None` between intent and creation.
    pub objects: BTreeMap<Object, ObjectRecord>,
    pub links: BTreeMap<LinkName, LinkRecord>,
    pub logs: BTreeMap<String, LogRecord>,
    pub sync: SyncModel,
    pub installer: InstallerModel,
    /// Stages of bootkube and of the units before it, in the order in which they were first seen.
    pub bootkube: Vec<BootStageRecord>,
    pub units: BTreeMap<(String, String), UnitRecord>,
    pub cluster_state: ClusterModel,
    /// In the order in which they were opened.
    pub findings: Vec<FindingRecord>,
    /// Newest last, at most [`ACTIVITY_LIMIT`].
    pub activity: Vec<Activity>,
    pub closed: Option<(RunOutcome, u8, String)>,
    /// Events of a kind that this build does not know.
    pub unknown_events: u64,
}

/// How many activity lines the model keeps; the record keeps all.
pub const ACTIVITY_LIMIT: usize = 1000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Waiting,
    Running,
    Done,
    Warned,
    Skipped,
    Failed,
    Cancelled,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepRecord {
    pub status: Status,
    pub attempt: u32,
    pub started: Option<Timestamp>,
    pub attempt_started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// When this step last showed a sign of life.
    pub last_evidence: Option<Timestamp>,
    pub progress: Option<StepProgress>,
    pub outcome: Option<Outcome>,
    pub evidence: Vec<Evidence>,
    /// Every command of every attempt, oldest first, at most 200.
    pub actions: Vec<StepAction>,
    pub retry_at: Option<Timestamp>,
    pub host: Option<String>,
    /// Worked out after a restart, not seen.
    pub inferred: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StepAction {
    pub at: Timestamp,
    pub action: Action,
    pub exit: Option<i32>,
    pub elapsed_ms: u64,
}

impl StepAction {
    /// It has been told of, and nothing of its end.
    pub fn runs(&self) -> bool {
        self.exit.is_none() && self.elapsed_ms == 0
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct StepProgress {
    pub done: u64,
    pub total: Option<u64>,
    pub unit: Unit,
    pub note: Option<String>,
    pub rate: Rate,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectRecord {
    pub id: Option<String>,
    pub gone: Option<String>,
    /// Seq of its intent: creation order, so that deletion can go backwards.
    pub order: Seq,
    /// When it was asked for, and when it was seen to be ready.
    pub asked: Option<Timestamp>,
    pub ready: Option<Timestamp>,
    /// When it was first asked to go, and when it was seen to be gone.
    pub leaving: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// What it was last seen to be, in the words of whoever keeps it.
    pub state: String,
    pub waits_for: Option<String>,
    /// List price while it exists, in millionths of a US dollar.
    pub hourly: Option<u64>,
}

/// As AWS counts a month.
pub const HOURS_OF_A_MONTH: u64 = 730;

/// What exists costs, by list prices, in millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    pub hourly: u64,
    pub so_far: u64,
    /// Resources that stand and whose price is not known.
    pub unknown: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LinkRecord {
    pub state: LinkState,
    /// Since when it is in a state of this kind.
    pub since: Timestamp,
    /// When this was last said of it: pauses before the next attempt count from here.
    pub told: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogRecord {
    pub lines: u64,
    pub bytes: u64,
    pub gaps: Vec<(Timestamp, Option<u64>, String)>,
    pub last: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncModel {
    pub planned: bool,
    pub blobs: u64,
    /// Exact number of bytes of all blobs, each counted once.
    pub bytes: u64,
    /// Already in the mirror when the plan was made.
    pub present_bytes: u64,
    pub images: Vec<ImageRecord>,
    /// What the copier says that it has moved, each blob once.
    pub moved: Option<u64>,
    pub proven: Option<(u64, Vec<String>)>,
    /// Found missing by the proof, and known to be: the operator does without them.
    pub left_out: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    pub image: PlannedImage,
    pub state: ImageState,
    pub bytes: u64,
    pub rate: Rate,
    pub attempt: u32,
    /// Requests that failed and were made again.
    pub retries: u32,
    /// Side and class of the last of them, until bytes come again.
    pub trouble: Option<String>,
    pub changed: Option<Timestamp>,
    /// The program that copies it, when it is not our own: then only whole images are told of.
    pub engine: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct InstallerModel {
    pub phases: Vec<InstallerPhase>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct InstallerPhase {
    pub name: String,
    pub message: String,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    pub deadline: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct BootStageRecord {
    pub stage: String,
    pub state: BootStage,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    /// How often it started anew.
    pub starts: u32,
    /// The newest line that tells of it.
    pub evidence: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct UnitRecord {
    pub state: String,
    pub restarts: u32,
    pub changed: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterModel {
    pub version: Option<ClusterVersion>,
    pub operators: BTreeMap<String, OperatorRecord>,
    pub nodes: BTreeMap<String, NodeRecord>,
    pub csrs: BTreeMap<String, CsrRecord>,
    pub machines: BTreeMap<String, MachineRecord>,
    pub pools: BTreeMap<String, PoolRecord>,
    /// Those that do not get on, by `NAMESPACE/POD`.
    pub pods: BTreeMap<String, Pod>,
    /// By namespace, newest last, at most [`WARNING_LIMIT`] of each.
    pub warnings: BTreeMap<String, Vec<Warning>>,
    pub instances: BTreeMap<String, InstanceRecord>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct OperatorRecord {
    pub operator: Operator,
    pub changed: Timestamp,
    /// Since when Progressing has been False.
    pub stable_since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    pub role: String,
    pub ready: bool,
    pub version: String,
    pub message: String,
    pub changed: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CsrRecord {
    pub requester: String,
    pub signer: String,
    pub state: CsrState,
    pub changed: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MachineRecord {
    pub role: String,
    pub phase: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PoolRecord {
    pub machines: u32,
    pub ready: u32,
    pub updated: u32,
    pub degraded: u32,
    pub message: String,
    pub changed: Timestamp,
}

/// How many warnings of a namespace the model keeps; the record keeps all.
pub const WARNING_LIMIT: usize = 20;

#[derive(Debug, Clone, PartialEq)]
pub struct InstanceRecord {
    pub id: String,
    pub state: String,
    pub address: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FindingRecord {
    pub finding: Finding,
    pub opened: Timestamp,
    pub cleared: Option<(Timestamp, String)>,
    /// How often it matched since.
    pub count: u32,
    /// By check id, in the order in which they first answered.
    pub checks: Vec<CheckRecord>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CheckRecord {
    pub check: String,
    pub state: CheckState,
    pub action: Option<Action>,
    pub evidence: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    pub at: Timestamp,
    pub level: Level,
    pub text: String,
}

/// Status of a stage, worked out of its steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageStatus {
    pub status: Status,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub done: usize,
    pub total: usize,
}

impl RunModel {
    pub fn step(&self, id: &StepId) -> Option<&StepRecord> {
        self.steps.get(id)
    }

    pub fn fact(&self, key: &str) -> Option<&str> {
        self.facts.get(key).map(String::as_str)
    }

    pub fn stage_status(&self, id: &StageId) -> StageStatus {
        let Some(stage) = self.plan.stage(id) else { return StageStatus::default() };
        let records: Vec<&StepRecord> = stage.steps.iter().filter_map(|step| self.steps.get(&step.id)).collect();
        let has = |status: Status| records.iter().any(|record| record.status == status);
        let over = |record: &&&StepRecord| matches!(record.status, Status::Done | Status::Warned | Status::Skipped);
        let done = records.iter().filter(over).count();
        let total = stage.steps.len();
        let status = if has(Status::Failed) {
            Status::Failed
        } else if has(Status::Cancelled) {
            Status::Cancelled
        } else if has(Status::Running) || (done > 0 && done < total) {
            Status::Running
        } else if total == 0 || done < total {
            Status::Waiting
        } else if has(Status::Warned) {
            Status::Warned
        } else if records.iter().all(|record| record.status == Status::Skipped) {
            Status::Skipped
        } else {
            Status::Done
        };
        let ended = (done == total || status == Status::Failed)
            .then(|| records.iter().filter_map(|record| record.ended).max())
            .flatten();
        StageStatus { status, started: records.iter().filter_map(|record| record.started).min(), ended, done, total }
    }

    /// The stage at work, else the one that failed, else the first that waits.
    pub fn current_stage(&self) -> Option<&StageId> {
        let first = |wanted: &[Status]| {
            self.plan.stages.iter().map(|stage| &stage.id).find(|id| wanted.contains(&self.stage_status(id).status))
        };
        first(&[Status::Running])
            .or_else(|| first(&[Status::Failed, Status::Cancelled]))
            .or_else(|| first(&[Status::Waiting]))
    }

    /// The step at work.
    pub fn current_step(&self) -> Option<(&StepId, &StepRecord)> {
        self.plan
            .steps()
            .filter_map(|step| self.steps.get_key_value(&step.id))
            .find(|(_, record)| record.status == Status::Running)
    }

    /// Open findings, the likeliest cause first.
    pub fn open_findings(&self) -> Vec<&FindingRecord> {
        let mut open: Vec<&FindingRecord> = self.findings.iter().filter(|record| record.cleared.is_none()).collect();
        likeliest_first(&mut open, |record| &record.finding);
        open
    }

    /// Objects that exist as far as the record knows, newest first: the order in which to delete.
    pub fn standing_objects(&self) -> Vec<(&Object, &ObjectRecord)> {
        let mut standing: Vec<_> = self.objects.iter().filter(|(_, record)| record.gone.is_none()).collect();
        standing.sort_by_key(|(_, record)| std::cmp::Reverse(record.order));
        standing
    }

    /// What the run's resources cost now, and what they have cost until `now`.
    pub fn cost(&self, now: Timestamp) -> Cost {
        let mut cost = Cost::default();
        for record in self.objects.values().filter(|record| record.id.is_some()) {
            let stands = record.gone.is_none();
            let Some(hourly) = record.hourly else {
                // What was never seen in a cloud (a registry on a bastion) has no price there.
                cost.unknown += usize::from(stands && !record.state.is_empty());
                continue;
            };
            cost.hourly = cost.hourly.saturating_add(if stands { hourly } else { 0 });
            if let Some(asked) = record.asked {
                let seconds = record.ended.unwrap_or(now).duration_since(asked).as_secs();
                let spent = hourly.saturating_mul(u64::try_from(seconds).unwrap_or(0)) / 3600;
                cost.so_far = cost.so_far.saturating_add(spent);
            }
        }
        cost
    }

    pub(super) fn say(&mut self, at: Timestamp, level: Level, text: impl Into<String>) {
        self.activity.push(Activity { at, level, text: text.into() });
        if self.activity.len() > ACTIVITY_LIMIT {
            let surplus = self.activity.len() - ACTIVITY_LIMIT;
            self.activity.drain(..surplus);
        }
    }

    pub(super) fn finding(&mut self, id: &str) -> Option<&mut FindingRecord> {
        self.findings.iter_mut().rev().find(|record| record.finding.id == id)
    }
}

impl SyncModel {
    /// Bytes moved so far of what had to be moved. Images share blobs, so their own counters are only the second best.
    pub fn moved(&self) -> u64 {
        let of_images = || self.images.iter().map(|image| image.bytes).sum::<u64>();
        self.moved.unwrap_or_else(of_images).min(self.bytes.saturating_sub(self.present_bytes))
    }
    /// Images that are in the mirror, and of how many.
    pub fn done(&self) -> (usize, usize) {
        let done =
            |image: &&ImageRecord| matches!(image.state, ImageState::Done | ImageState::Present | ImageState::Mounted);
        (self.images.iter().filter(done).count(), self.images.len())
    }
    /// Requests that failed and were made again.
    pub fn retries(&self) -> u32 {
        self.images.iter().map(|image| image.retries).sum()
    }
    pub fn failed(&self) -> usize {
        self.images.iter().filter(|image| matches!(image.state, ImageState::Failed { .. })).count()
    }
    /// Images that the operator does without.
    pub fn skipped(&self) -> usize {
        self.images.iter().filter(|image| image.state == ImageState::Skipped).count()
    }
}
