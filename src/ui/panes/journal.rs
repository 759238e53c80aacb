//! The log in view: time, unit, text; matches marked, repeats counted.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::model::event::LogLine;
use crate::ui::logs::{ALL, Entry, LogView, Mode};
use crate::ui::screen::Screen;
use crate::ui::text;
use crate::ui::theme::Token;

use super::{Cx, activity};

/// Most rows that one wrapped line may take.
const WRAP_LIMIT: usize = 12;
const UNIT_WIDTH: usize = 14;
/// Cells for the name of a log, where all of them are shown together.
const SOURCE_WIDTH: usize = 18;

pub fn title(cx: &Cx) -> String {
    let dot = cx.glyphs.dot;
    let log = &cx.screen.log;
    if log.source().is_empty() {
        return "Journal".to_owned();
    }
    let source = if log.source() == ALL { "all logs by time" } else { log.source() };
    let follow = match (log.mode, log.fresh()) {
        (Mode::Following, _) => "following".to_owned(),
        (Mode::Paused { .. }, 0) => "paused".to_owned(),
        (Mode::Paused { .. }, fresh) => format!("paused {dot} {} new", text::exact(fresh)),
    };
    let lines = if log.total() == 1 { "line" } else { "lines" };
    let mut title = format!("Journal {dot} {source} {dot} {follow} {dot} {} {lines}", text::exact(log.total()));
    let sources = LogView::sources(cx.model);
    if sources.len() > 1 {
        let place = sources.iter().position(|name| *name == log.source()).map_or(0, |place| place + 1);
        title.push_str(&format!(" {dot} log {place}/{}", sources.len()));
    }
    if let Some(filter) = &log.filter {
        let shown = text::exact(log.entries().len() as u64);
        let seen = log.seen().map_or(String::new(), |seen| format!(", {seen}% read"));
        title.push_str(&format!(" {dot} filter {} ({shown} shown{seen})", filter.text));
    }
    if let (Some(search), Some((place, all))) = (&log.search, log.match_count()) {
        let seen = log.seen().filter(|_| log.filter.is_none());
        let seen = seen.map_or(String::new(), |seen| format!(" in {seen}%"));
        title.push_str(&format!(" {dot} /{} {place}/{all}{seen}", search.text));
    }
    if let Some((first, last)) = log.marked() {
        title.push_str(&format!(" {dot} {} marked", text::exact(last - first + 1)));
    }
    let gaps = cx.model.logs.get(log.source()).map_or(0, |record| record.gaps.len());
    if gaps > 0 {
        title.push_str(&format!(" {dot} {gaps} gaps"));
    }
    if log.skip > 0 {
        title.push_str(&format!(" {dot} column {}", log.skip));
    }
    if let Some(rate) = cx.screen.trend.line_rate().filter(|rate| *rate > 0) {
        let trend = if cx.screen.calm { String::new() } else { cx.screen.trend.lines(20, cx.glyphs.ascii) };
        title.push_str(&format!(" {dot} {rate}/s {trend}"));
    }
    title
}

/// Cells before the text of a line.
fn margin(log: &LogView, width: usize) -> usize {
    let times = if log.times { 9 } else { 0 };
    let source = if log.source() == ALL { SOURCE_WIDTH + 1 } else { 0 };
    let unit = if width >= 60 { UNIT_WIDTH + 1 } else { 0 };
    times + source + unit + 2
}

fn rows(log: &LogView, entry: &Entry, width: usize) -> usize {
    if !log.wrap {
        return 1;
    }
    let room = width.saturating_sub(margin(log, width)).max(1);
    log.line(entry.last).map_or(1, |line| text::wrap(&line.text, room, WRAP_LIMIT).len().max(1))
}

/// The line that is drawn in this row of a pane of this size.
pub fn at(screen: &Screen, width: usize, height: usize, row: usize) -> Option<u64> {
    let log = &screen.log;
    let (first, _) = log.viewport(height, |entry| rows(log, entry, width));
    let mut below = 0;
    let entries = log.entries().iter().skip(first);
    entries.map(|entry| (entry, rows(log, entry, width))).find_map(|(entry, rows)| {
        below += rows;
        (row < below).then_some(entry.first)
    })
}

pub fn draw(cx: &Cx, area: Rect, focused: bool, buf: &mut Buffer) {
    let log = &cx.screen.log;
    if log.entries().is_empty() {
        let what = if log.filter.is_some() {
            if log.seen().is_some() { "no line passes the filter so far" } else { "no line passes the filter" }
        } else {
            "no line yet"
        };
        let line = cx.row(usize::from(area.width)).text(what, cx.style(Token::Muted)).line();
        buf.set_line(area.x, area.y, &line, area.width);
        return;
    }
    let width = usize::from(area.width).saturating_sub(1);
    let (first, chosen) = log.viewport(usize::from(area.height), |entry| rows(log, entry, width));
    let marked = log.marked();
    let mut y = area.y;
    for (place, entry) in log.entries().iter().enumerate().skip(first) {
        let Some(line) = log.line(entry.last) else { continue };
        let inside = marked.is_some_and(|(first, last)| (first..=last).contains(&entry.first));
        let selected = inside || focused && place == chosen && log.mode != Mode::Following;
        for row in lines(cx, entry, line, width, place == chosen) {
            if y >= area.bottom() {
                return;
            }
            super::put(cx, area, y, &row, selected, buf);
            y += 1;
        }
    }
}

fn lines(cx: &Cx, entry: &Entry, line: &LogLine, width: usize, current: bool) -> Vec<Line<'static>> {
    let log = &cx.screen.log;
    let style = cx.style(activity::token(line.level));
    let start = || {
        let mut row = cx.row(width);
        if log.times {
            row = row.cell(&text::time_of_day(line.at), 8, cx.style(Token::LogTime));
        }
        if log.source() == ALL {
            let home = log.home(entry.last);
            let name = home.as_ref().map_or("", |(name, _)| name.strip_prefix("journal:").unwrap_or(name));
            row = row.cell(name, SOURCE_WIDTH, cx.style(Token::LogUnit));
        }
        if width >= 60 {
            row = row.cell(&line.unit, UNIT_WIDTH, cx.style(Token::LogUnit));
        }
        row.cell(activity::letter(line.level), 1, style)
    };
    if log.wrap {
        let room = width.saturating_sub(margin(log, width)).max(1);
        let mut out = Vec::new();
        for (place, part) in text::wrap(&line.text, room, WRAP_LIMIT).into_iter().enumerate() {
            let mut row = if place == 0 {
                start()
            } else {
                cx.row(width).cell("", margin(log, width).saturating_sub(1), Style::new())
            };
            for span in marked(cx, &part, style, current) {
                row = row.span(span);
            }
            out.push(row.line());
        }
        return out;
    }
    let mut row = start();
    let count = if entry.count > 1 { format!(" {}{}", cx.glyphs.times, entry.count) } else { String::new() };
    let room = row.left().saturating_sub(text::width(&count));
    let shown = text::slice(&line.text, log.skip, room, cx.glyphs.ellipsis);
    for span in marked(cx, &shown, style, current) {
        row = row.span(span);
    }
    vec![row.right(&count, cx.style(Token::Muted)).line()]
}

/// The text with what is searched for set off.
fn marked(cx: &Cx, shown: &str, style: Style, current: bool) -> Vec<Span<'static>> {
    let Some(search) = &cx.screen.log.search else { return vec![Span::styled(shown.to_owned(), style)] };
    let hit = style.patch(cx.style(if current { Token::MatchCurrent } else { Token::Match }));
    let mut spans = Vec::new();
    let mut end = 0;
    for found in search.pattern.find_iter(shown).filter(|found| !found.is_empty()) {
        if let Some(before) = shown.get(end..found.start()) {
            spans.push(Span::styled(before.to_owned(), style));
        }
        spans.push(Span::styled(found.as_str().to_owned(), hit));
        end = found.end();
    }
    spans.push(Span::styled(shown.get(end..).unwrap_or_default().to_owned(), style));
    spans
}
