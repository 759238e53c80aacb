//! What an operator can ask of a running engine.

use crate::model::plan::{StageId, StepId};

/// A verb with its object. Each one that is carried out becomes a `Decision` event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Try the failed (or the named) step again, now.
    Retry(Option<StepId>),
    /// Leave the failed or running step out.
    Skip(StepId),
    /// Stop the running step and the run.
    Cancel,
    /// End after this stage.
    StopAfter(StageId),
    /// Run the read-only probes of a finding's checklist.
    RunChecks {
        finding: String,
    },
    /// Apply a recovery of a finding (the first one that is offered, when none is named), then resume from the stage
    /// that it names.
    Recover {
        finding: String,
        recovery: Option<String>,
    },
    /// Copy one image of the plan again.
    Resync {
        image: String,
    },
    /// Do without one image of the plan.
    LeaveOut {
        image: String,
    },
    ApproveCsr {
        name: String,
    },
    /// An answer that a failed step waits for: it becomes a fact of the run, and the step is tried again.
    Answer {
        fact: String,
        value: String,
    },
    /// Leave; remote jobs go on, and `run --resume` comes back to them.
    Detach,
}
