//! When to call a person who may be looking elsewhere. Pure.
//!
//! A failure always calls, and so does a run that waits for a decision. A run that ended well calls when nobody looks, or
//! when it took so long that nobody can have. At most one call in five seconds: what comes sooner waits for its turn, and
//! of several only the newest is told.

use jiff::{SignedDuration, Timestamp};

use crate::model::event::{Data, Level, NEEDS_YOU, Outcome, RunOutcome};
use crate::model::run::RunModel;

use super::screen::{Access, Effect, Screen};

/// At most one call in this time.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// Nobody watches for so long.
const LONG: SignedDuration = SignedDuration::from_mins(10);

/// A call that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub title: String,
    pub body: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Failure,
    NeedsYou,
    Finish,
    News,
}

/// An event that a person may have to know of: a toast on the screen, and a call if it is worth one.
pub fn notice(screen: &mut Screen, model: &RunModel, data: &Data, at: Timestamp) -> Vec<Effect> {
    let told = match data {
        Data::StepEnded { step, outcome: Outcome::Failed { causes }, .. } => {
            Some((Why::Failure, Level::Error, format!("{step} failed"), causes.first().cloned().unwrap_or_default()))
        }
        Data::FindingOpened { finding } if finding.severity >= Level::Warn => {
            let seen = model.findings.iter().any(|record| record.finding.id == finding.id && record.count > 1);
            let why = if finding.severity == Level::Error { Why::Failure } else { Why::News };
            (!seen).then(|| (why, finding.severity, format!("finding {}", finding.signature), finding.title.clone()))
        }
        Data::RunClosed { outcome, summary, .. } => {
            let failed = *outcome == RunOutcome::Failed;
            let (why, level) = if failed { (Why::Failure, Level::Error) } else { (Why::Finish, Level::Info) };
            Some((why, level, "run ended".to_owned(), summary.clone()))
        }
        Data::Note { level: Level::Warn, text } if text.contains(NEEDS_YOU) => {
            Some((Why::NeedsYou, Level::Warn, NEEDS_YOU.to_owned(), text.clone()))
        }
        _ => None,
    };
    let Some((why, level, title, body)) = told else { return Vec::new() };
    screen.tell(level, if body.is_empty() { title.clone() } else { format!("{title}: {body}") });
    let lasted = model.opened.is_some_and(|opened| at.duration_since(opened) > LONG);
    let worth = match why {
        Why::Failure | Why::NeedsYou => true,
        Why::Finish => !screen.terminal_focused || lasted,
        Why::News => !screen.terminal_focused,
    };
    if !worth || !screen.notify || screen.access == Access::Replay {
        return Vec::new();
    }
    screen.call = Some(Call { title: format!("bartizan {}: {title}", model.cluster.name), body });
    turn(screen, at)
}

/// The call that waits, when it is its turn.
pub fn turn(screen: &mut Screen, at: Timestamp) -> Vec<Effect> {
    if screen.call.is_none() || screen.notified.is_some_and(|before| at.duration_since(before).abs() < PAUSE) {
        return Vec::new();
    }
    let Some(Call { title, body }) = screen.call.take() else { return Vec::new() };
    screen.notified = Some(at);
    vec![Effect::Notify { title, body }]
}

/// The window's title: which cluster, and how far it is.
pub fn window_title(model: &RunModel) -> String {
    let place = match (&model.closed, model.current_stage()) {
        (Some((RunOutcome::Done, ..)), _) => "done".to_owned(),
        (Some((RunOutcome::Failed, ..)), Some(stage)) => format!("FAILED at {stage}"),
        (_, Some(stage)) => {
            let step = model.current_step().and_then(|(_, record)| record.progress.as_ref());
            let part = step
                .and_then(|progress| progress.total.map(|total| crate::model::progress::percent(progress.done, total)));
            let part = part.map_or_else(String::new, |part| format!(" {part} %"));
            format!("{}/{} {}{part}", stage.number(), model.plan.stages.len(), stage.name())
        }
        _ => "…".to_owned(),
    };
    format!("bartizan {}: {place}", model.cluster.name)
}

/// What a taskbar shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Nothing,
    Going(u8),
    /// It stands and waits for somebody.
    Waiting(u8),
    Failed(u8),
}

/// How much of the plan is done, in parts of a hundred.
pub fn progress(model: &RunModel) -> Progress {
    let all = model.plan.steps().count();
    let done = model.plan.stages.iter().map(|stage| model.stage_status(&stage.id).done).sum::<usize>();
    let part = u8::try_from((done * 100).checked_div(all).unwrap_or(0)).unwrap_or(100).min(100);
    match &model.closed {
        Some((RunOutcome::Failed, ..)) => Progress::Failed(part.max(1)),
        Some(_) => Progress::Nothing,
        None if all == 0 => Progress::Nothing,
        None if model.current_step().is_none()
            && model.steps.values().any(|record| record.status == crate::model::run::Status::Failed) =>
        {
            Progress::Waiting(part.max(1))
        }
        None => Progress::Going(part),
    }
}
