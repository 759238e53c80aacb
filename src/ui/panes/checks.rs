//! Open findings, the likeliest cause first: evidence, the checks with their answers, the recovery.

use ratatui::text::Line;

use crate::model::event::Level;
use crate::model::run::{FindingRecord, RunModel};
use crate::ui::command::Verb;
use crate::ui::glyph::Mark;
use crate::ui::recovery::RecoveryText;
use crate::ui::screen::Target;
use crate::ui::text;
use crate::ui::theme::Token;
use crate::ui::verbs;

use super::Cx;

pub fn targets(model: &RunModel) -> Vec<Target> {
    let mut rows = Vec::new();
    for record in model.open_findings() {
        let id = &record.finding.id;
        rows.push(Target::Finding(id.clone()));
        rows.push(Target::Evidence(id.clone()));
        if record.finding.next.is_some() {
            rows.push(Target::Next(id.clone()));
        }
        rows.extend(record.checks.iter().map(|check| Target::Check(id.clone(), check.check.clone())));
        let offered = RecoveryText::offered(&record.finding);
        rows.extend(offered.into_iter().map(|recovery| Target::Recovery(id.clone(), recovery)));
    }
    let cleared = model.findings.iter().rev().filter(|record| record.cleared.is_some());
    for record in cleared {
        let target = Target::Finding(record.finding.id.clone());
        if !rows.contains(&target) {
            rows.push(target);
        }
    }
    rows
}

/// The newest record of a finding.
pub fn record<'a>(model: &'a RunModel, id: &str) -> Option<&'a FindingRecord> {
    model.findings.iter().rfind(|record| record.finding.id == id)
}

pub fn title(cx: &Cx) -> String {
    let dot = cx.glyphs.dot;
    let open = cx.model.open_findings();
    let cleared = cx.model.findings.len() - open.len();
    match open.len() {
        1 => format!("Checks {dot} 1 finding"),
        2.. => format!("Checks {dot} {} findings, the likeliest cause first", open.len()),
        0 if cleared > 0 => format!("Checks {dot} nothing open, {cleared} cleared"),
        0 => format!("Checks {dot} nothing found"),
    }
}

pub fn line(cx: &Cx, target: &Target, width: usize) -> Line<'static> {
    let muted = cx.style(Token::Muted);
    match target {
        Target::Finding(id) => {
            let Some(record) = record(cx.model, id) else { return Line::default() };
            let finding = &record.finding;
            if let Some((_, because)) = &record.cleared {
                return cx
                    .mark(cx.row(width), Mark::Ok)
                    .text(&format!("{} cleared: ", finding.signature), muted)
                    .text(because, muted)
                    .line();
            }
            let mark = if finding.severity >= Level::Error { Mark::Fail } else { Mark::Warn };
            let count = if record.count > 1 { format!(" {}{}", cx.glyphs.times, record.count) } else { String::new() };
            let because = finding.explained_by.as_ref().map_or(String::new(), |other| format!(" (because of {other})"));
            cx.mark(cx.row(width), mark)
                .text(&format!("{} {}{count}{because}", finding.signature, finding.title), cx.style(mark.token()))
                .line()
        }
        Target::Evidence(id) => {
            let Some(finding) = record(cx.model, id).map(|record| &record.finding) else { return Line::default() };
            let place = format!("{} {} {}  ", finding.source, text::time_of_day(finding.at), finding.unit);
            let row = cx.row(width).text("  ", muted).text(cx.glyphs.sub, muted).text(" ", muted).text(&place, muted);
            let hint = if finding.line_number.is_some() { "  enter: the line" } else { "" };
            // The line itself is worth more than how to get to it.
            let fits = row.left() >= text::width(&finding.line) + text::width(hint);
            let hint = if fits { hint } else { "" };
            let room = row.left().saturating_sub(text::width(hint));
            row.text(&text::cut(&finding.line, room, cx.glyphs.ellipsis), cx.style(Token::LogError))
                .right(hint, muted)
                .line()
        }
        Target::Next(id) => {
            let next = record(cx.model, id).and_then(|record| record.finding.next.as_deref()).unwrap_or_default();
            let row = cx.row(width).text("  ", muted).text("next ", cx.style(Token::Run));
            row.text(next, cx.style(Token::Text)).line()
        }
        Target::Check(id, check) => {
            let Some(record) = record(cx.model, id) else { return Line::default() };
            let Some(known) = record.checks.iter().find(|known| known.check == *check) else { return Line::default() };
            let mark = Mark::from(known.state);
            let title = cx.screen.texts.check(&record.finding, check);
            let row = cx.mark(cx.row(width).text("  ", muted), mark);
            let room = (row.left() * 3 / 5).min(text::width(title) + 1);
            let style = if mark == Mark::Ok { cx.style(Token::Text) } else { cx.style(mark.token()) };
            row.cell(title, room, style).text(&known.evidence, muted).line()
        }
        Target::Recovery(id, recovery) => {
            let found = record(cx.model, id);
            let Some(recovery) =
                found.and_then(|record| RecoveryText::of(&record.finding, recovery, &cx.screen.texts.previews))
            else {
                return Line::default();
            };
            let keys = cx.screen.keymap.keys_of(&cx.screen.contexts(cx.model), Verb::Recover);
            let possible = verbs::enabled(Verb::Recover, cx.screen, cx.model);
            let apply = match (&possible, keys.first()) {
                (Ok(()), Some(key)) => format!("[{key} apply]"),
                (Ok(()), None) => "[apply]".to_owned(),
                (Err(why), _) => format!("({why})"),
            };
            let row = cx.mark(cx.row(width).text("  ", muted), Mark::Run).text("fix ", cx.style(Token::Run));
            // How to apply it must stay in sight.
            let room = row.left().saturating_sub(text::width(&apply) + 2);
            row.text(&text::cut(&recovery.title, room, cx.glyphs.ellipsis), cx.style(Token::Text))
                .text("  ", muted)
                .text(&apply, cx.style(if possible.is_ok() { Token::Key } else { Token::Muted }))
                .line()
        }
        _ => Line::default(),
    }
}
