//! Stages, and the steps of the one at work: status, three clocks, attempts.

use jiff::Timestamp;
use ratatui::text::Line;

use crate::model::event::Unit;
use crate::model::plan::{StageId, StepId};
use crate::model::progress::percent;
use crate::model::run::{RunModel, Status};
use crate::ui::glyph::Mark;
use crate::ui::screen::Target;
use crate::ui::text;
use crate::ui::theme::Token;

use super::Cx;

/// Seconds without evidence after which a running step says so.
const QUIET_S: u64 = 30;

pub fn targets(model: &RunModel) -> Vec<Target> {
    let current = model.current_stage();
    let mut rows = Vec::new();
    for stage in &model.plan.stages {
        rows.push(Target::Stage(stage.id.clone()));
        let failed = model.stage_status(&stage.id).status == Status::Failed;
        if current == Some(&stage.id) || failed {
            rows.extend(stage.steps.iter().map(|step| Target::Step(step.id.clone())));
        }
    }
    rows
}

pub fn resting(model: &RunModel, targets: &[Target]) -> usize {
    let of = |status: Status| {
        targets.iter().position(|target| match target {
            Target::Step(id) => model.step(id).is_some_and(|record| record.status == status),
            _ => false,
        })
    };
    of(Status::Running)
        .or_else(|| of(Status::Failed))
        .or_else(|| {
            let current = model.current_stage();
            targets.iter().position(|target| matches!(target, Target::Stage(id) if current == Some(id)))
        })
        .unwrap_or(0)
}

pub fn title(cx: &Cx) -> String {
    let dot = cx.glyphs.dot;
    let total = cx.model.plan.stages.len();
    let over = |status| matches!(status, Status::Done | Status::Warned | Status::Skipped);
    let done = cx.model.plan.stages.iter().filter(|stage| over(cx.model.stage_status(&stage.id).status)).count();
    let ended = cx.model.closed.as_ref().and(cx.model.now);
    let elapsed = cx.model.opened.map_or(String::new(), |from| format!(" {dot} {}", cx.clock(Some(from), ended)));
    format!("Pipeline {dot} {done}/{total}{elapsed}")
}

pub fn line(cx: &Cx, target: &Target, width: usize) -> Line<'static> {
    match target {
        Target::Stage(id) => stage_line(cx, id, width),
        Target::Step(id) => step_line(cx, id, width),
        _ => Line::default(),
    }
}

fn stage_line(cx: &Cx, id: &StageId, width: usize) -> Line<'static> {
    let status = cx.model.stage_status(id);
    let mark = Mark::from(status.status);
    let time = match status.status {
        Status::Waiting => String::new(),
        Status::Running => cx.clock(status.started, None),
        Status::Skipped => "skip".to_owned(),
        _ => cx.span(status.started, status.ended.or(cx.model.now)).map(text::clock).unwrap_or_default(),
    };
    let style = match mark {
        Mark::Ok => cx.style(Token::Text),
        mark => cx.style(mark.token()),
    };
    let name = format!("{} {}", id.number(), id.name());
    let row = cx.mark(cx.row(width), mark);
    let room = row.left().saturating_sub(9);
    row.cell(&name, room, style).number(&time, 8, style).line()
}

fn step_line(cx: &Cx, id: &StepId, width: usize) -> Line<'static> {
    let record = cx.model.step(id).cloned().unwrap_or_default();
    let title = cx.model.plan.step(id).map_or(id.name(), |step| step.title.as_str());
    let mark = Mark::from(record.status);
    let muted = cx.style(Token::Muted);
    let right = if let Some(at) = record.retry_at {
        format!("retry in {}", cx.ticking(text::seconds(cx.now, at)))
    } else {
        match record.status {
            Status::Waiting => String::new(),
            Status::Running => {
                let elapsed = cx.span(record.attempt_started, None).unwrap_or(0);
                let quiet = quiet(cx, id, record.last_evidence);
                let progress =
                    record.progress.as_ref().map_or(String::new(), |progress| match (progress.unit, progress.total) {
                        (Unit::Percent, _) => format!("{}% ", progress.done),
                        (_, Some(total)) if total > 0 => format!("{}% ", percent(progress.done, total)),
                        _ => String::new(),
                    });
                let quiet = if quiet >= QUIET_S { format!(" quiet {}", text::running(quiet)) } else { String::new() };
                let usual = cx.model.plan.step(id).filter(|step| step.usual_s.1 > 0);
                let usual = usual.map_or(String::new(), |step| format!(" ({})", super::usual(cx, step.usual_s)));
                let elapsed = cx.ticking(elapsed);
                let long = format!("{progress}{elapsed}{usual}{quiet}");
                let room = width.saturating_sub(cx.mark_width() + 4 + text::width(title).min(12));
                if text::width(&long) <= room { long } else { format!("{progress}{elapsed}{quiet}") }
            }
            Status::Skipped => "skip".to_owned(),
            _ => cx.span(record.started, record.ended).map(text::clock).unwrap_or_default(),
        }
    };
    let attempt = if record.attempt > 1 { format!("{}{} ", cx.glyphs.times, record.attempt) } else { String::new() };
    let inferred = if record.inferred.is_some() { "~" } else { "" };
    let right = format!("{attempt}{right}{inferred}");
    let style = if mark == Mark::Ok || mark == Mark::Wait { muted } else { cx.style(mark.token()) };
    let row = cx.mark(cx.row(width).text("  ", muted), mark);
    let room = row.left().saturating_sub(text::width(&right) + 1);
    row.cell(title, room, style).text(&right, style).line()
}

/// Seconds without a sign of life: of the step, or of a log that is followed for it.
fn quiet(cx: &Cx, id: &StepId, last: Option<Timestamp>) -> u64 {
    let stage = id.stage();
    let logs: &[&str] = match stage.number() {
        "06" => &["sync"],
        "08" | "09" => &["journal:", "installer"],
        _ => &[],
    };
    let heard = cx
        .model
        .logs
        .iter()
        .filter(|(name, _)| logs.iter().any(|log| name.starts_with(log)))
        .filter_map(|(_, record)| record.last);
    cx.span(heard.chain(last).max(), None).unwrap_or(0)
}

/// All stages in one line, for screens that show one pane.
pub fn strip(cx: &Cx, width: usize) -> Line<'static> {
    let model = cx.model;
    let current = model.current_stage();
    let over = model.plan.stages.iter().filter(|stage| model.stage_status(&stage.id).done > 0).count();
    let total = model.plan.stages.len();
    if width < 60 {
        let what = current.map_or("done".to_owned(), |id| format!("stage {}/{total} {}", id.number(), id.name()));
        let mark = current.map_or(Mark::Ok, |id| Mark::from(model.stage_status(id).status));
        let row = cx.row(width).text(cx.glyphs.mark(mark), cx.style(mark.token())).text(" ", cx.style(Token::Text));
        let what = if total == 0 { format!("no plan yet {over}") } else { what };
        return row.text(&what, cx.style(Token::Text)).right("? help", cx.style(Token::Muted)).line();
    }
    let mut row = cx.row(width).text(" ", cx.style(Token::Text));
    for stage in &model.plan.stages {
        let status = model.stage_status(&stage.id);
        let mark = Mark::from(status.status);
        let style = cx.style(mark.token());
        row = row.text(cx.glyphs.mark(mark), style).text(stage.id.number(), style);
        if current == Some(&stage.id) {
            let elapsed = cx.clock(status.started, status.ended);
            row = row.text(&format!(" {} {elapsed}", stage.id.name()), style);
        }
        row = row.text(" ", cx.style(Token::Text));
    }
    match super::resources::hourly(cx) {
        Some(cost) => row.right(&format!("{cost} "), cx.style(Token::Muted)).line(),
        None => row.line(),
    }
}
