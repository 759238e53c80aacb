//! How long the stages of a run took, as a picture.

use std::fmt::Write;

use jiff::Timestamp;

use crate::model::RunModel;
use crate::model::run::Status;
use crate::model::text::xml;

/// Units of the picture.
const WIDTH: f64 = 960.0;
const NAMES: f64 = 190.0;
const TIMES: f64 = 130.0;
const ROW: f64 = 30.0;
const TOP: f64 = 34.0;

/// A mark, a word and a class of colour: the colour never stands alone.
pub fn told(status: Status) -> (&'static str, &'static str) {
    match status {
        Status::Waiting => ("…", "wait"),
        Status::Running => ("▶", "run"),
        Status::Done => ("✔", "ok"),
        Status::Warned => ("!", "warn"),
        Status::Skipped => ("-", "skip"),
        Status::Failed => ("✖", "fail"),
        Status::Cancelled => ("-", "skip"),
    }
}

/// `1:02:03`, `2:03`, `0:04`.
pub fn clock(seconds: i64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Stages as bars along the time of the run, each with its steps in it. No stage that never began has a bar.
pub fn svg(model: &RunModel) -> String {
    let (Some(opened), Some(now)) = (model.opened, model.now) else { return String::new() };
    let whole = now.duration_since(opened).as_secs_f64().max(1.0);
    let room = WIDTH - NAMES - TIMES;
    let place = |at: Timestamp| NAMES + room * (at.duration_since(opened).as_secs_f64() / whole).clamp(0.0, 1.0);
    let height = TOP + ROW * model.plan.stages.len() as f64 + 10.0;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"How long each stage took\">\n\
         <title>How long each stage took, of {} in all</title>\n",
        clock(whole as i64)
    );
    for (at, seconds) in ticks(whole) {
        let x = NAMES + room * at;
        let _infallible = writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"axis\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - 10.0,
            TOP - 10.0,
            clock(seconds)
        );
    }
    for (row, stage) in model.plan.stages.iter().enumerate() {
        let status = model.stage_status(&stage.id);
        let y = TOP + ROW * row as f64;
        let (mark, class) = told(status.status);
        let _infallible = writeln!(
            out,
            "<text class=\"name\" x=\"4\" y=\"{:.1}\">{mark} {}</text>",
            y + 19.0,
            xml(&format!("{} {}", stage.id.number(), stage.id.name()))
        );
        let Some(started) = status.started else { continue };
        let ended = status.ended.unwrap_or(now);
        let (from, to) = (place(started), place(ended));
        let time = clock(ended.duration_since(started).as_secs());
        let _infallible = writeln!(
            out,
            "<rect class=\"stage {class}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"18\" rx=\"3\">\
             <title>{}: {class}, {time}</title></rect>",
            y + 5.0,
            (to - from).max(2.0),
            xml(stage.id.as_str())
        );
        for step in &stage.steps {
            let Some(record) = model.step(&step.id) else { continue };
            let Some(started) = record.started else { continue };
            let ended = record.ended.unwrap_or(now);
            let (from, to) = (place(started), place(ended));
            let (_, class) = told(record.status);
            let _infallible = writeln!(
                out,
                "<rect class=\"step {class}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"6\">\
                 <title>{}: {class}, {}, attempt {}</title></rect>",
                y + 11.0,
                (to - from).max(1.0),
                xml(&step.title),
                clock(ended.duration_since(started).as_secs()),
                record.attempt.max(1)
            );
        }
        let _infallible = writeln!(
            out,
            "<text class=\"time\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{time} {class}</text>",
            WIDTH - 4.0,
            y + 19.0
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Four to eight places along the time, at round times.
fn ticks(whole: f64) -> Vec<(f64, i64)> {
    const ROUND: [i64; 12] = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200];
    let step = ROUND.into_iter().find(|step| whole / *step as f64 <= 8.0).unwrap_or(14_400);
    let count = (whole / step as f64) as i64;
    (0..=count.min(24)).map(|number| ((number * step) as f64 / whole, number * step)).collect()
}
