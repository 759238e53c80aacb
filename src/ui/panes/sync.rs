//! The image sync: one row per image, failed ones first, and a total that tells the truth.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::model::event::{ImageState, Unit};
use crate::model::plan::StageId;
use crate::model::progress::{Eta, percent};
use crate::model::run::{ImageRecord, RunModel, Status, StepProgress};
use crate::ui::glyph::Mark;
use crate::ui::layout::PaneId;
use crate::ui::screen::Target;
use crate::ui::text;
use crate::ui::theme::Token;
use crate::ui::widgets::bar;

use super::Cx;

/// From this width on the bar of the total stands before its numbers.
const WIDE: usize = 125;
const BAR: usize = 40;

fn order(state: &ImageState) -> u8 {
    match state {
        ImageState::Failed { .. } => 0,
        ImageState::Copying => 1,
        ImageState::Waiting => 2,
        ImageState::Done | ImageState::Mounted => 3,
        ImageState::Present | ImageState::Skipped => 4,
    }
}

pub fn targets(model: &RunModel) -> Vec<Target> {
    let mut images: Vec<&ImageRecord> = model.sync.images.iter().collect();
    images.sort_by_key(|record| {
        (order(&record.state), std::cmp::Reverse((order(&record.state) == 3).then_some(record.changed)))
    });
    images.into_iter().map(|record| Target::Image(record.image.name.clone())).collect()
}

/// Progress of the step that copies.
fn copying(model: &RunModel) -> Option<&StepProgress> {
    let stage = model.plan.stage(&StageId::new("06-image-sync"))?;
    let running =
        stage.steps.iter().filter_map(|step| model.step(&step.id)).find(|record| record.status == Status::Running)?;
    running.progress.as_ref().filter(|progress| progress.unit == Unit::Bytes)
}

fn rate_sum(model: &RunModel) -> f64 {
    let copying = model.sync.images.iter().filter(|record| record.state == ImageState::Copying);
    copying.filter_map(|record| record.rate.per_second()).sum()
}

/// Seconds since any image moved, when that is long.
fn stalled(cx: &Cx) -> Option<u64> {
    let copying = cx.model.sync.images.iter().filter(|record| record.state == ImageState::Copying);
    let quiet: Option<Vec<u64>> = copying.map(|record| record.rate.stalled(cx.now).map(|quiet| quiet as u64)).collect();
    quiet.and_then(|quiet| quiet.into_iter().min())
}

pub fn title(cx: &Cx) -> String {
    let dot = cx.glyphs.dot;
    let sync = &cx.model.sync;
    if !sync.planned {
        return "Image sync".to_owned();
    }
    let (done, total) = sync.done();
    let failed = if sync.failed() > 0 { format!(" {dot} {} failed", sync.failed()) } else { String::new() };
    let proven = match &sync.proven {
        Some((count, missing)) if missing.is_empty() => format!(" {dot} {count} proven"),
        Some((_, missing)) => format!(" {dot} {} missing in the mirror", missing.len()),
        None => String::new(),
    };
    let skipped = if sync.skipped() > 0 { format!(" {dot} {} skipped", sync.skipped()) } else { String::new() };
    let engines: std::collections::BTreeSet<&str> =
        sync.images.iter().filter_map(|record| record.engine.as_deref()).collect();
    let by: String = engines.iter().map(|engine| format!(" {dot} by {engine}")).collect();
    format!("Image sync {dot} {done} of {total} images{by}{failed}{skipped}{proven}")
}

/// Rows above the list: the total, with a bar of its own where it is narrow and high, and the heads of the columns.
pub fn above(model: &RunModel, inner: Rect) -> u16 {
    match inner.height {
        _ if !model.sync.planned => 0,
        0..4 => 0,
        4..10 => 2,
        _ if usize::from(inner.width) > WIDE => 2,
        _ => 3,
    }
}

pub fn draw(cx: &Cx, area: Rect, focused: bool, buf: &mut Buffer) {
    if above(cx.model, area) == 0 {
        super::list(cx, PaneId::Sync, area, focused, buf);
        return;
    }
    let width = usize::from(area.width).saturating_sub(1);
    let mut rest = area;
    let mut put = |line: Line| {
        buf.set_line(rest.x + 1, rest.y, &line, rest.width.saturating_sub(1));
        rest = Rect { y: rest.y + 1, height: rest.height - 1, ..rest };
    };
    let total = Total::of(cx);
    if width >= WIDE {
        put(total.line(cx, width, BAR));
    } else {
        if area.height >= 10 {
            let [full, empty] = bar(cx, total.moved, total.bytes, width, total.quiet.is_some());
            put(cx.row(width).span(full).span(empty).line());
        }
        put(total.line(cx, width, 0));
    }
    let muted = cx.style(Token::Muted);
    let (name, bar_width) = columns(cx, width);
    let head = cx
        .row(width)
        .cell("", cx.mark_width(), muted)
        .cell("IMAGE", name, muted)
        .cell("STATE", 8, muted)
        .cell("", bar_width, muted)
        .number("BYTES", 21, muted)
        .number("RATE", 11, muted)
        .number("LAYERS", 6, muted)
        .number("TRY", 3, muted);
    put(head.line());
    super::list(cx, PaneId::Sync, rest, focused, buf);
}

/// Cells for the name and for the bar.
fn columns(cx: &Cx, width: usize) -> (usize, usize) {
    let rest = width.saturating_sub(cx.mark_width() + 1 + 9 + 22 + 12 + 7 + 4);
    if rest < 30 { (rest.saturating_sub(1), 0) } else { (rest / 2, rest - rest / 2 - 2) }
}

/// What is true of the sync as a whole.
struct Total {
    moved: u64,
    bytes: u64,
    /// Seconds since anything moved, when that is long.
    quiet: Option<u64>,
    speed: Option<f64>,
    eta: Eta,
}

impl Total {
    fn of(cx: &Cx) -> Total {
        let sync = &cx.model.sync;
        let bytes = sync.bytes.saturating_sub(sync.present_bytes);
        let finished = sync.done().0 + sync.skipped() == sync.images.len() && !sync.images.is_empty();
        // The step counts each blob once; the images' own counters are what is left when it does not tell.
        let step = copying(cx.model).filter(|progress| progress.total == Some(bytes));
        let moved = match step {
            _ if finished => bytes,
            Some(progress) => progress.done.min(bytes),
            None => sync.moved(),
        };
        let quiet = stalled(cx).filter(|_| !finished);
        let sum = rate_sum(cx.model);
        let speed = match step {
            Some(progress) => progress.rate.per_second(),
            None => (sum > 0.0).then_some(sum),
        };
        let eta = match (step, speed) {
            _ if finished || quiet.is_some() => Eta::None,
            (Some(progress), _) => progress.rate.eta(cx.now, moved, bytes),
            (None, Some(speed)) if bytes > moved => Eta::Seconds(((bytes - moved) as f64 / speed).ceil() as u64),
            _ => Eta::None,
        };
        Total { moved, bytes, quiet, speed: speed.filter(|_| !finished && quiet.is_none()), eta }
    }

    fn line(&self, cx: &Cx, width: usize, bar_width: usize) -> Line<'static> {
        let [full, empty] = bar(cx, self.moved, self.bytes, bar_width, self.quiet.is_some());
        let plain = cx.style(Token::Text);
        let mut row = cx.row(width).span(full).span(empty);
        let sync = &cx.model.sync;
        if sync.bytes == 0 && sync.images.iter().any(|record| record.engine.is_some()) {
            let (done, total) = sync.done();
            let stored = sync.moved.map_or(String::new(), |bytes| format!(", {} bytes stored", text::exact(bytes)));
            return row.text(&format!(" {done} of {total} images{stored}; sizes are not known"), plain).line();
        }
        let (moved, bytes) = (text::exact(self.moved), text::exact(self.bytes));
        row = row.text(&format!(" {}%  {moved} of {bytes} bytes", percent(self.moved, self.bytes)), plain);
        if let Some(quiet) = self.quiet {
            row = row.text(&format!("  stalled {}", text::clock(quiet)), cx.style(Token::Stalled));
        }
        if let Some(speed) = self.speed {
            row = row.text(&format!("  {}/s", text::bytes(speed as u64)), plain);
        }
        let trend = cx.screen.trend.bytes(16, cx.glyphs.ascii);
        if self.speed.is_some() && !trend.is_empty() && !cx.screen.calm && width >= WIDE {
            row = row.text(&format!("  {trend}"), cx.style(Token::Bar));
        }
        match self.eta {
            // Rather none than one that lies.
            Eta::None if self.moved < self.bytes => row = row.text("  no estimate", cx.style(Token::Muted)),
            Eta::None => {}
            Eta::Seconds(left) if left > 86_400 => row = row.text("  ETA >24h", plain),
            Eta::Seconds(left) => row = row.text(&format!("  ETA {}", text::clock(left)), plain),
            Eta::MoreThanADay => row = row.text("  ETA >24h", plain),
        }
        let mut more = format!("  {} blobs", sync.blobs);
        if sync.present_bytes > 0 {
            more.push_str(&format!(", {} were there", text::bytes(sync.present_bytes)));
        }
        match sync.retries() {
            0 => {}
            1 => more.push_str(", 1 retry"),
            count => more.push_str(&format!(", {count} retries")),
        }
        row.text(&more, cx.style(Token::Muted)).line()
    }
}

pub fn state_word(state: &ImageState) -> &'static str {
    match state {
        ImageState::Waiting => "wait",
        ImageState::Present => "present",
        ImageState::Copying => "copying",
        ImageState::Mounted => "mounted",
        ImageState::Done => "done",
        ImageState::Skipped => "skipped",
        ImageState::Failed { .. } => "failed",
    }
}

pub fn line(cx: &Cx, target: &Target, width: usize) -> Line<'static> {
    let Target::Image(name) = target else { return Line::default() };
    let Some(record) = cx.model.sync.images.iter().find(|record| record.image.name == *name) else {
        return Line::default();
    };
    let mark = Mark::from(&record.state);
    let style = if mark == Mark::Ok { cx.style(Token::Text) } else { cx.style(mark.token()) };
    let muted = cx.style(Token::Muted);
    let (name_width, bar_width) = columns(cx, width);
    let row = cx.mark(cx.row(width), mark).cell(&record.image.name, name_width, style);
    let row = row.cell(state_word(&record.state), 8, style);
    if let ImageState::Failed { side, class, why } = &record.state {
        let attempt = format!("{}{}", cx.glyphs.times, record.attempt);
        return row.text(&format!("{attempt} {side} {class}: {why}"), style).line();
    }
    if record.state == ImageState::Skipped {
        return row.text("the operator does without it", style).line();
    }
    let total = record.image.bytes;
    let there = !matches!(record.state, ImageState::Waiting | ImageState::Copying);
    let done = if there { total } else { record.bytes.min(total) };
    let quiet = (record.state == ImageState::Copying).then(|| record.rate.stalled(cx.now)).flatten();
    let trouble = record.trouble.as_deref().and_then(|trouble| trouble.split(' ').next());
    let rate = match quiet {
        // Which side it is that we wait for.
        _ if trouble.is_some() => format!("{} err", trouble.unwrap_or_default()),
        // Another engine tells of whole images only: no bytes, no rate.
        _ if record.engine.is_some() => "by image".to_owned(),
        Some(quiet) => format!("stall {}", text::since(quiet as u64)),
        None if record.state == ImageState::Copying => {
            record.rate.per_second().map_or(String::new(), |rate| format!("{}/s", text::bytes(rate as u64)))
        }
        None => String::new(),
    };
    let bytes = match record.state {
        // Its size is not known.
        _ if record.engine.is_some() && total == 0 => String::new(),
        ImageState::Copying => format!("{} / {}", text::bytes(done), text::bytes(total)),
        _ => text::bytes(total),
    };
    let attempt = if record.attempt > 1 { record.attempt.to_string() } else { String::new() };
    let mut row = row;
    if bar_width > 0 {
        if record.state == ImageState::Copying {
            let [full, rest] = bar(cx, done, total, bar_width, quiet.is_some());
            row = row.span(full).span(rest).text(" ", muted);
        } else {
            row = row.cell("", bar_width, muted);
        }
    } else {
        row = row.cell("", 0, muted);
    }
    row.number(&bytes, 21, style)
        .number(&rate, 11, if quiet.or(trouble.map(|_| 0.0)).is_some() { cx.style(Token::Stalled) } else { style })
        .number(&record.image.layers.to_string(), 6, muted)
        .number(&attempt, 3, style)
        .line()
}
