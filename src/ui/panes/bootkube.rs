//! What happens on the bootstrap node: phases of the installer, stages of bootkube, units in trouble.

use ratatui::text::Line;

use crate::model::event::BootStage;
use crate::model::run::RunModel;
use crate::ui::glyph::Mark;
use crate::ui::screen::Target;
use crate::ui::text;
use crate::ui::theme::Token;

use super::Cx;

/// Cells for a name; the longest stage is `wait-for-bootstrap-complete`.
const NAME: usize = 27;
/// Cells for how often a stage began.
const STARTS: usize = 4;

pub fn targets(model: &RunModel) -> Vec<Target> {
    let mut rows: Vec<Target> = (0..model.installer.phases.len()).map(Target::Phase).collect();
    rows.extend(model.bootkube.iter().map(|record| Target::Boot(record.stage.clone())));
    rows.extend(model.units.keys().map(|(host, unit)| Target::Unit(host.clone(), unit.clone())));
    rows
}

pub fn resting(model: &RunModel, targets: &[Target]) -> usize {
    let wanted = |state: BootStage| {
        targets.iter().rposition(|target| match target {
            Target::Boot(stage) => model.bootkube.iter().any(|record| record.stage == *stage && record.state == state),
            _ => false,
        })
    };
    wanted(BootStage::Running)
        .or_else(|| wanted(BootStage::Failed))
        .or_else(|| targets.iter().rposition(|target| matches!(target, Target::Boot(_) | Target::Phase(_))))
        .unwrap_or(0)
}

pub fn title(cx: &Cx) -> String {
    let dot = cx.glyphs.dot;
    let host = cx
        .model
        .cluster_state
        .instances
        .iter()
        .find(|(name, _)| name.contains("bootstrap"))
        .and_then(|(_, instance)| instance.address.clone());
    let host = host.map_or(String::new(), |address| format!(" {dot} core@{address}"));
    let done = cx.model.bootkube.iter().filter(|record| record.state == BootStage::Done).count();
    let all = cx.model.bootkube.len();
    let count = if all > 0 { format!(" {dot} {done} stages done, {} not", all - done) } else { String::new() };
    let starts = cx.model.bootkube.iter().map(|record| record.starts).max().unwrap_or(0);
    let again = if starts > 1 { format!(" {dot} started {}{starts}", cx.glyphs.times) } else { String::new() };
    format!("Bootkube{host}{count}{again}")
}

pub fn line(cx: &Cx, target: &Target, width: usize) -> Line<'static> {
    let muted = cx.style(Token::Muted);
    match target {
        Target::Phase(place) => {
            let Some(phase) = cx.model.installer.phases.get(*place) else { return Line::default() };
            let mark = if phase.ended.is_some() { Mark::Ok } else { Mark::Run };
            let style = if mark == Mark::Ok { cx.style(Token::Text) } else { cx.style(mark.token()) };
            let left = phase.deadline.filter(|_| phase.ended.is_none()).map_or(String::new(), |deadline| {
                let past = deadline < cx.now;
                let gap = if past { text::seconds(deadline, cx.now) } else { text::seconds(cx.now, deadline) };
                format!("{} {} {} ", text::running(gap), if past { "over" } else { "left" }, cx.glyphs.dot)
            });
            let time = cx.clock(Some(phase.started), phase.ended);
            cx.mark(cx.row(width), mark)
                .cell(&format!("installer: {}", phase.name), NAME, style)
                .number(&time, 7, style)
                .cell("", STARTS, style)
                .rest(&format!("{left}{}", phase.message), muted)
                .line()
        }
        Target::Boot(stage) => {
            let Some(record) = cx.model.bootkube.iter().find(|record| record.stage == *stage) else {
                return Line::default();
            };
            let mark = Mark::from(record.state);
            let style = if mark == Mark::Ok { cx.style(Token::Text) } else { cx.style(mark.token()) };
            let time = cx.clock(Some(record.started), record.ended);
            let starts =
                if record.starts > 1 { format!("{}{}", cx.glyphs.times, record.starts) } else { String::new() };
            let row = cx
                .mark(cx.row(width), mark)
                .cell(&record.stage, NAME, style)
                .number(&time, 7, style)
                .cell(&starts, STARTS, style);
            // What is over has its time; what goes on is measured by what was usual in earlier runs.
            let usual = cx.model.plan.usual_boot(stage).filter(|_| record.ended.is_none());
            let row = match usual {
                Some(range) => {
                    let late = cx.span(Some(record.started), None).is_some_and(|time| time > range.1);
                    let says = format!("usual {}{}  ", super::usual(cx, range), if late { ", late" } else { "" });
                    row.text(&says, if late { cx.style(Token::Warn) } else { muted })
                }
                None => row,
            };
            row.rest(&record.evidence, muted).line()
        }
        Target::Unit(host, unit) => {
            let Some(record) = cx.model.units.get(&(host.clone(), unit.clone())) else { return Line::default() };
            // `failed: exit-code`: what comes after the colon is systemd's result.
            let mark = match record.state.split(':').next().unwrap_or_default() {
                "running" if record.restarts > 0 => Mark::Warn,
                "active" | "exited" | "finished" | "inactive" | "running" | "success" => Mark::Ok,
                "failed" => Mark::Fail,
                "activating" | "reloading" | "auto-restart" => Mark::Warn,
                _ => Mark::Unknown,
            };
            let style = if mark == Mark::Ok { muted } else { cx.style(mark.token()) };
            let restarts = if record.restarts > 0 { format!(", {} restarts", record.restarts) } else { String::new() };
            cx.mark(cx.row(width), mark)
                .cell(unit, NAME, style)
                .number(&text::since(text::seconds(record.changed, cx.now)), 7, style)
                .cell("", STARTS, style)
                .rest(&format!("{host}: {}{restarts}", record.state), style)
                .line()
        }
        _ => Line::default(),
    }
}
