//! Past facts. One event is one JSON line of `run.jsonl`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::{Plan, StageId, StepId};

/// Position of an event in its run, from 1, without holes.
pub type Seq = u64;

/// Version of the run file. A reader refuses a larger one.
pub const FORMAT: u32 = 1;

/// What a [`Data::Note`] says when the run waits for a decision.
pub const NEEDS_YOU: &str = "needs you";

/// A past fact with its number and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub seq: Seq,
    pub at: Timestamp,
    #[serde(flatten)]
    pub data: Data,
}

/// Everything that can have happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Data {
    /// First event of every run. It carries the whole plan, so that the screen can be drawn at once.
    RunOpened {
        format: u32,
        run: String,
        bartizan: String,
        cluster: ClusterName,
        spec_digest: String,
        plan: Plan,
        operator: String,
    },
    /// A later process took the run over (after a crash, a detach, or on purpose).
    RunResumed {
        operator: String,
        pid: u32,
        from: Option<StageId>,
    },
    /// The run ended. `exit` is the process exit code of that outcome.
    RunClosed {
        outcome: RunOutcome,
        exit: u8,
        summary: String,
    },

    StepStarted {
        step: StepId,
        attempt: u32,
        host: Option<String>,
    },
    /// One command or API call that a step made, as the operator could type it.
    StepAction {
        step: StepId,
        action: Action,
        exit: Option<i32>,
        elapsed_ms: u64,
    },
    /// Coalesced by step, may be dropped, never trusted as a fact.
    StepProgress {
        step: StepId,
        done: u64,
        total: Option<u64>,
        unit: Unit,
        note: Option<String>,
    },
    StepEnded {
        step: StepId,
        attempt: u32,
        outcome: Outcome,
        elapsed_ms: u64,
        evidence: Vec<Evidence>,
    },
    StepRetry {
        step: StepId,
        next_attempt: u32,
        after_ms: u64,
        why: String,
    },
    /// A resumed or re-checked step whose status was worked out rather than seen.
    StepInferred {
        step: StepId,
        outcome: Outcome,
        because: String,
    },
    /// Stages from here on are to run again (a recovery or a retry): their steps go back to waiting.
    Rewound {
        stage: StageId,
        because: String,
    },
    /// The record says one thing, the world another.
    Drift {
        step: StepId,
        record_says: String,
        world_says: String,
    },

    /// On disk before the object is asked for.
    Intent {
        object: Object,
    },
    Created {
        object: Object,
        id: String,
    },
    Gone {
        object: Object,
        id: String,
        proof: String,
    },
    /// A value that later steps need (an address, an infraID, a digest). Never a secret.
    Fact {
        key: String,
        value: String,
    },

    /// `count` log lines of `source`, numbered from `first`, are in the segment files.
    Lines {
        source: String,
        first: u64,
        count: u64,
        bytes: u64,
    },
    /// A stretch of a log that is not there. `lost` is `None` when nobody can know how many.
    Gap {
        source: String,
        lost: Option<u64>,
        why: String,
    },
    Link {
        link: LinkName,
        state: LinkState,
    },

    Sync(SyncEvent),
    Observed(Observed),

    FindingOpened {
        finding: Finding,
    },
    FindingCleared {
        finding: String,
        because: String,
    },
    CheckResult {
        finding: String,
        check: String,
        state: CheckState,
        action: Option<Action>,
        evidence: String,
    },
    /// What an operator (or `--recover`) decided: retry, skip, confirm, apply a fix, cancel.
    Decision {
        command: String,
        args: Vec<String>,
        operator: String,
        reason: Option<String>,
    },
    /// A sentence for the activity pane that is no fact about a step.
    Note {
        level: Level,
        text: String,
    },

    /// A kind written by a newer bartizan.
    #[serde(other)]
    Unknown,
}

/// Names of the cluster and of what is installed, for titles.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterName {
    /// `metadata.name`
    pub name: String,
    pub base_domain: String,
    /// For example `4.18.12`.
    pub version: String,
    pub region: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunOutcome {
    Done,
    Failed,
    Cancelled,
    /// Stopped where the operator asked (`--until`), or detached.
    Stopped,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "kebab-case")]
pub enum Outcome {
    Success,
    /// The probe said that it was already true; nothing was done.
    AlreadyTrue,
    Warning {
        message: String,
    },
    Skipped {
        why: String,
    },
    /// Error chain, outermost first.
    Failed {
        causes: Vec<String>,
    },
    Cancelled,
}

impl Outcome {
    /// Later steps may build on it.
    pub fn is_good(&self) -> bool {
        !matches!(self, Outcome::Failed { .. } | Outcome::Cancelled)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    #[default]
    Count,
    Bytes,
    /// Parts of a hundred.
    Percent,
}

/// Something that can be typed: it is in the plan, in the record and on the clipboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "kebab-case")]
pub enum Action {
    /// A command line on a host (`local`, `bastion`, `bootstrap`, …), quoted for a POSIX shell.
    Exec { host: String, command: String },
    /// A cloud API call, `ec2:CreateVpc CidrBlock=10.0.0.0/16`.
    Api { call: String },
    /// A request to a registry or a kube API, `GET https://…`.
    Http { request: String },
    /// A file written on a host; `mode` in octal digits. The content is not recorded.
    File { host: String, path: String, mode: String },
}

/// Why a step counts as done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was asked, as an operator would type it.
    pub asked: String,
    /// What the world answered, one line.
    pub answer: String,
}

impl Evidence {
    pub fn new(asked: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { asked: asked.into(), answer: answer.into() }
    }
}

/// A thing in the outside world that the run makes and must be able to take away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    /// `vpc`, `subnet`, `instance`, `registry`, `cluster` …
    pub kind: String,
    /// Our own name for it, unique within the run and kind; also the value of the tag `Name`.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkName {
    Ssh,
    Aws,
    Api,
    Registry,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum LinkState {
    Up,
    Retrying {
        /// Until the next attempt, in milliseconds.
        in_ms: u64,
        /// The one that failed last, from 1.
        attempt: u32,
        why: String,
    },
    Down {
        why: String,
    },
    /// Not in use now.
    Idle,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl Level {
    /// What loggers call it (logrus, `level.go`, also cut to four letters as on a terminal).
    pub fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "trace" | "trac" | "debug" | "debu" => Some(Self::Debug),
            "info" => Some(Self::Info),
            "warning" | "warn" => Some(Self::Warn),
            "error" | "erro" | "fatal" | "fata" | "panic" => Some(Self::Error),
            _ => None,
        }
    }

    /// A word that [`Self::of`] understands.
    pub fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warning",
            Self::Error => "error",
        }
    }
}

/// One line of a log as it is kept in the segment files. The text is already free of control sequences and secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// The time in the line itself when it has one, else when it was read.
    pub at: Timestamp,
    /// Unit or program: `bootkube`, `kubelet`, `installer`.
    pub unit: String,
    #[serde(default)]
    pub level: Level,
    pub text: String,
    /// Where to go on from after this line: a journal cursor or a byte offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What the image sync said. One image is one manifest (or list) by digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "sync", rename_all = "kebab-case")]
pub enum SyncEvent {
    /// Exact sizes are known before the first byte moves.
    Planned {
        images: Vec<PlannedImage>,
        blobs: u64,
        bytes: u64,
        present_bytes: u64,
    },
    /// Coalesced by image. Counters only grow within an attempt.
    Progress {
        image: String,
        bytes: u64,
        rate: Option<u64>,
    },
    /// Bytes that this copier has brought to the mirror, each blob counted once. Coalescable; only grows within a run of it.
    Moved {
        bytes: u64,
    },
    ImageState {
        image: String,
        state: ImageState,
        attempt: u32,
    },
    /// Something went wrong with an image that the copier tries again; `side` is `source` or `mirror`.
    Retry {
        image: String,
        side: String,
        class: String,
        why: String,
    },
    /// These images are copied by another engine, which tells of whole images only. Rows that are there already become
    /// its own, the others are added.
    Driven {
        engine: String,
        images: Vec<PlannedImage>,
    },
    /// Every digest of the plan answered in the mirror (or did not). `left_out` are those that are not there because the
    /// operator does without them.
    Proven {
        images: u64,
        missing: Vec<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left_out: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedImage {
    /// Name in the release (`etcd`, `release`, …) or the pull spec of an additional image.
    pub name: String,
    /// `sha256:…` of the manifest.
    pub digest: String,
    /// Repository in the mirror, without the host.
    pub repository: String,
    pub layers: u32,
    /// Bytes of all its blobs; shared ones count in every image.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum ImageState {
    Waiting,
    Present,
    Copying,
    Mounted,
    Done,
    /// The operator does without it.
    Skipped,
    /// `side` is `source` or `mirror`.
    Failed {
        side: String,
        class: String,
        why: String,
    },
}

/// The state of something alive, sent only when it changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "kebab-case")]
pub enum Observed {
    /// Phase of `openshift-install`, with the deadline it printed.
    Installer {
        phase: String,
        message: String,
        deadline: Option<Timestamp>,
        /// When, by the time in its log; whoever comes late reads of what was hours ago.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// A stage of bootkube.sh or of another unit on the bootstrap node.
    Bootkube {
        stage: String,
        state: BootStage,
        evidence: String,
        /// When, by the node's own clock, as its journal or its service record has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// A systemd unit on a node.
    Unit {
        host: String,
        unit: String,
        state: String,
        restarts: u32,
    },
    Operator(Operator),
    OperatorGone {
        name: String,
    },
    ClusterVersion(ClusterVersion),
    Node {
        name: String,
        role: String,
        ready: bool,
        version: String,
        message: String,
    },
    Csr {
        name: String,
        requester: String,
        signer: String,
        state: CsrState,
    },
    Machine {
        name: String,
        role: String,
        phase: String,
        message: String,
    },
    /// A machine-config pool: how many of its machines have its newest configuration.
    Pool {
        name: String,
        machines: u32,
        ready: u32,
        updated: u32,
        degraded: u32,
        /// Why it is degraded, or what it is about to do.
        message: String,
    },
    /// A pod that does not get on.
    Pod(Pod),
    /// An object of the cluster that is no longer there, or a pod that gets on again.
    Gone {
        what: Vanished,
        name: String,
    },
    /// A warning among the cluster's own Events.
    Warned(Warning),
    Instance {
        name: String,
        id: String,
        state: String,
        address: Option<String>,
    },
    /// Something that the run makes or takes away outside of a host.
    Resource {
        resource: Object,
        /// Empty until it is known.
        id: String,
        /// In the words of whoever keeps it: `pending`, `available`, `shutting-down` …
        state: String,
        standing: Standing,
        /// What has to happen first.
        waits_for: Option<String>,
        /// List price while it exists, in millionths of a US dollar; `None` when it is not known.
        hourly: Option<u64>,
    },
}

/// What can go away in a cluster without being missed. Operators have a word of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vanished {
    Node,
    Csr,
    Machine,
    Pool,
    /// Named `NAMESPACE/POD`.
    Pod,
}

/// A pod in trouble, and the end of what its failing container said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// Empty when it has no place yet.
    pub node: String,
    /// The container that fails; empty when it is the pod as a whole.
    pub container: String,
    /// `CrashLoopBackOff`, `ImagePullBackOff`, `Unschedulable` …
    pub reason: String,
    pub message: String,
    pub restarts: u32,
    /// The last lines of the container's log; of its life before when it is started again and again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
}

/// An Event of type Warning (core/v1), as `oc get events` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    pub namespace: String,
    /// `pod/router-default-7d9f`
    pub about: String,
    pub reason: String,
    pub message: String,
    /// How often it was seen.
    pub count: u32,
    pub last: Option<Timestamp>,
}

/// What is being done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    Making,
    Ready,
    Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootStage {
    Running,
    Done,
    Failed,
    /// Ended badly but bootkube goes on (the URL checks).
    Warned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CsrState {
    Pending,
    Approved,
    Denied,
    Issued,
}

/// `True`, `False`, `Unknown`, or absent, as Kubernetes conditions are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tri {
    True,
    False,
    Unknown,
    #[default]
    Absent,
}

/// The six columns of `oc get co`, computed from the object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    pub name: String,
    pub version: Option<String>,
    pub available: Tri,
    pub progressing: Tri,
    pub degraded: Tri,
    /// lastTransitionTime of Available.
    pub since: Option<Timestamp>,
    /// Of the condition that tells most; its lines are kept apart by newlines.
    pub message: String,
    /// All of them, as the object has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Of the things that it looks after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
}

/// A condition of an object's status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: Tri,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// lastTransitionTime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterVersion {
    pub desired: String,
    pub available: Tri,
    pub progressing: Tri,
    pub failing: Tri,
    /// The message of Progressing, as it is.
    pub message: String,
    /// Message of Failing when it is True.
    pub failing_message: String,
    /// Manifests done, of how many, from the message.
    pub done: Option<(u32, u32)>,
}

/// A signature that matched, with the line that proves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Unique within the run: the signature's id, and what it is about.
    pub id: String,
    /// `MIR-MANIFEST`, `REG-CA` …
    pub signature: String,
    pub title: String,
    /// What to do first, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    pub severity: Level,
    pub captures: BTreeMap<String, String>,
    /// The evidence: whose line, and the line itself.
    pub source: String,
    pub unit: String,
    pub at: Timestamp,
    pub line: String,
    /// Number of the line in its source, when it is in the segments.
    pub line_number: Option<u64>,
    /// Checklist to open.
    pub checklist: Option<String>,
    /// The first recovery that is offered for it.
    pub recovery: Option<String>,
    /// Lower is nearer to the cause. Ties break by time.
    pub rank: u32,
    /// Of another finding that explains this one.
    pub explained_by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    Running,
    Passed,
    Failed,
    /// The probe could not be made.
    Unknown,
}
