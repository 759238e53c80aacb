//! One frame: header, strip, panes, timeline, footer, overlay. Pure: the same model, view and time give the same cells.

use jiff::{SignedDuration, Timestamp};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::Line;

use crate::model::event::{LinkName, LinkState, RunOutcome};
use crate::model::run::{LinkRecord, RunModel};

use super::command::{Context, TABLE};
use super::glyph::Mark;
use super::overlays;
use super::panes::{self, Cx, activity, pipeline};
use super::screen::{Access, Lock, Overlay, PromptKind, Screen};
use super::text;
use super::theme::{Depth, Theme, Token};
use super::verbs;

/// Draw the whole screen.
pub fn draw(model: &RunModel, screen: &Screen, theme: &Theme, frame: &mut Frame, now: Timestamp) {
    let area = frame.area();
    render(model, screen, theme, area, frame.buffer_mut(), now);
}

/// [`draw`] into a buffer of any size.
pub fn render(model: &RunModel, screen: &Screen, theme: &Theme, area: Rect, buf: &mut Buffer, now: Timestamp) {
    let cx = Cx { model, screen, theme, glyphs: &screen.glyphs, now };
    let focus = screen.pane(model);
    let (phase, shape) = (super::layout::Phase::of(model), &screen.shape);
    let arranged = screen.layouts.arrange(area, phase, focus, screen.zoom, screen.timeline, shape);
    if let Some(row) = arranged.header {
        buf.set_line(row.x, row.y, &header(&cx, usize::from(row.width)), row.width);
    }
    if let Some(row) = arranged.strip {
        buf.set_line(row.x, row.y, &pipeline::strip(&cx, usize::from(row.width)), row.width);
    }
    for (pane, rect) in &arranged.panes {
        panes::draw(&cx, *pane, *rect, *pane == focus, buf);
    }
    if let Some(row) = arranged.timeline {
        overlays::timeline::draw(&cx, row, buf);
    }
    let behind = Rect { height: area.height - u16::from(arranged.footer.is_some()), ..area };
    overlays::draw(&cx, behind, buf);
    if let Some(row) = arranged.footer {
        buf.set_line(row.x, row.y, &footer(&cx, usize::from(row.width)), row.width);
    }
    gate(theme, buf);
}

/// Nothing that is not ink leaves, and no colour where there is to be none.
fn gate(theme: &Theme, buf: &mut Buffer) {
    let mono = theme.depth == Depth::Mono;
    for cell in &mut buf.content {
        if mono {
            cell.fg = Color::Reset;
            cell.bg = Color::Reset;
        }
        let symbol = cell.symbol();
        if symbol.len() > 1 || symbol.as_bytes().first().is_some_and(u8::is_ascii_control) {
            let clean = text::printable(symbol);
            if clean.len() != symbol.len() {
                let clean = if clean.is_empty() { " ".to_owned() } else { clean.into_owned() };
                cell.set_symbol(&clean);
            }
        }
    }
}

fn header(cx: &Cx, width: usize) -> Line<'static> {
    let model = cx.model;
    let dot = cx.glyphs.dot;
    let cluster = &model.cluster;
    let mut chips: Vec<(String, Token)> = Vec::new();
    for link in [LinkName::Ssh, LinkName::Aws, LinkName::Api, LinkName::Registry] {
        // A run that has ended needs no connection; what the last of them did says nothing any more.
        let record = model.links.get(&link).filter(|_| model.closed.is_none());
        let (glyph, token) = cx.glyphs.link(record.map(|record| &record.state));
        let name = format!("{link:?}").to_lowercase();
        let detail = record.map_or(String::new(), |record| lost(cx, record));
        chips.push((format!("{name} {glyph}{detail}"), token));
    }
    let ended = model.closed.is_some();
    let screen = cx.screen;
    let (mark, stage) = match (&model.closed, model.current_stage()) {
        (Some((RunOutcome::Done, ..)), _) => (Mark::Ok, "done".to_owned()),
        (closed, Some(id)) => {
            let status = model.stage_status(id);
            let mark = if closed.is_some() && status.status == crate::model::run::Status::Waiting {
                Mark::Stale
            } else {
                Mark::from(status.status)
            };
            let time = cx.span(status.started, status.ended.or(if ended { model.now } else { None }));
            let clock = if screen.calm { text::running } else { text::long_clock };
            let time = time.map_or(String::new(), |time| format!("  {}{}", clock(time), waits(cx)));
            (mark, format!("{} {}{time}", id.number(), id.name()))
        }
        _ => (Mark::Wait, "no plan yet".to_owned()),
    };
    let mut facts = vec![format!("{} {}", cluster.name, cluster.version).trim().to_owned()];
    if !cluster.region.is_empty() && width >= 100 {
        facts.push(cluster.region.clone());
    }
    if width >= 100 {
        facts.extend(panes::resources::hourly(cx));
    }
    if !model.run.is_empty() && width >= 130 {
        facts.push(format!("run {}", text::cut(&model.run, 24, cx.glyphs.ellipsis)));
    }
    match screen.access {
        Access::ReadOnly => facts.push("watching".into()),
        Access::Replay => facts.push("replay".into()),
        Access::Full if screen.place.back => facts.push("the past".into()),
        Access::Full => {}
    }
    if screen.lock != Lock::Open {
        facts.push("read-only".into());
    }
    if screen.mouse {
        facts.push("mouse: shift-drag selects".into());
    }
    let facts = facts.join(&format!(" {dot} "));
    let left = cx.row(width).text(" ", cx.style(Token::Text)).text("bartizan", cx.style(Token::Title));
    let left = left.text("  ", cx.style(Token::Text)).text(&facts, cx.style(Token::Muted));
    let stage_width = text::width(&stage) + cx.mark_width() + 1;
    let gap = |left: usize, needed: usize| " ".repeat(left.saturating_sub(needed) / 2);
    // Links in full, as glyphs with letters, or not at all.
    let full: usize = chips.iter().map(|(text, _)| text::width(text) + 1).sum::<usize>() + 1;
    let left_room = left.left();
    let show = left_room > full + stage_width + 3;
    let space = if show { gap(left_room, full + stage_width) } else { "  ".to_owned() };
    let mut row = left
        .text(&space, cx.style(Token::Text))
        .text(cx.glyphs.mark(mark), cx.style(mark.token()))
        .text(" ", cx.style(Token::Text))
        .text(&stage, cx.style(mark.token()));
    if !show {
        let bad: Vec<_> =
            chips.iter().filter(|(_, token)| matches!(token, Token::LinkRetry | Token::LinkDown)).collect();
        for (text, token) in bad {
            row = row.text("  ", cx.style(Token::Text)).text(text, cx.style(*token));
        }
        return row.line();
    }
    let rest = row.left().saturating_sub(full);
    row = row.text(&" ".repeat(rest), cx.style(Token::Text));
    for (text, token) in chips {
        row = row.text(" ", cx.style(Token::Text)).text(&text, cx.style(token));
    }
    row.line()
}

/// Since when a link is lost, and when it is tried again: ` 6m retry 5s`.
fn lost(cx: &Cx, record: &LinkRecord) -> String {
    let since = text::since(text::seconds(record.since, cx.now));
    match &record.state {
        LinkState::Retrying { in_ms, .. } => {
            let pause = SignedDuration::from_millis(i64::try_from(*in_ms).unwrap_or(i64::MAX));
            let next = record.told.checked_add(pause).unwrap_or(record.told);
            match text::seconds(cx.now, next) {
                0 => format!(" {since} retry"),
                left => format!(" {since} retry {}", if cx.screen.calm { text::since(left) } else { text::age(left) }),
            }
        }
        LinkState::Down { .. } => format!(" {since}"),
        LinkState::Up | LinkState::Idle => String::new(),
    }
}

/// The step that waits for its next attempt: ` attempt 2 of 3 in 0:12`.
fn waits(cx: &Cx) -> String {
    let waiting = cx.model.steps.iter().find_map(|(id, record)| Some((id, record, record.retry_at?)));
    let Some((id, record, at)) = waiting.filter(|_| cx.model.closed.is_none()) else { return String::new() };
    let attempts = cx.model.plan.step(id).map_or(0, |step| step.attempts);
    let of = if attempts > record.attempt { format!(" of {attempts}") } else { String::new() };
    format!("  attempt {}{of} in {}", record.attempt + 1, cx.ticking(text::seconds(cx.now, at)))
}

fn footer(cx: &Cx, width: usize) -> Line<'static> {
    let screen = cx.screen;
    let row = cx.row(width).text(" ", cx.style(Token::Text));
    if let Some(Overlay::Prompt { kind, text }) = &screen.overlay {
        let (sign, hint) = match kind {
            PromptKind::Search => ("/", "Enter keeps, Esc clears"),
            PromptKind::Filter => ("filter: ", "words that must be there; !word must not; Enter keeps, Esc clears"),
        };
        let row = row.text(sign, cx.style(Token::Key)).text(text, cx.style(Token::Text));
        return row.text("_", cx.style(Token::Key)).right(hint, cx.style(Token::Muted)).line();
    }
    let hint = match &screen.overlay {
        Some(Overlay::Help { typing: true, .. }) => "type a part of a key or a name  enter keeps  esc clears",
        Some(Overlay::Help { .. }) => "j/k scroll  / search  esc back",
        Some(Overlay::Palette { .. }) => "type a part of a name  enter does it  esc back",
        Some(Overlay::Confirm(confirm)) if confirm.name.is_some() => "enter when the name is typed  esc back",
        Some(Overlay::Confirm(_)) => "y yes  n no  esc back",
        Some(Overlay::Detail { .. }) => "j/k scroll  tab field  y copy  Y copy command  esc back",
        Some(Overlay::Prompt { .. }) | None => "",
    };
    if !hint.is_empty() && screen.toast.is_none() {
        return row.text(hint, cx.style(Token::Text)).line();
    }
    let contexts = screen.contexts(cx.model);
    if !screen.pending.is_empty() {
        let mut row = row;
        let typed: Vec<String> = screen.pending.iter().map(ToString::to_string).collect();
        row = row.text(&typed.join(" "), cx.style(Token::Key)).text("  ", cx.style(Token::Text));
        let mut following = screen.keymap.following(&contexts, &screen.pending);
        following.retain(|(_, verb)| verbs::enabled(*verb, screen, cx.model).is_ok());
        for (keys, verb) in following {
            let title = format!(" {}  ", verb.command().title);
            row = row.text(&keys, cx.style(Token::Key)).text(&title, cx.style(Token::Text));
        }
        return row.line();
    }
    if let Some(toast) = &screen.toast {
        let mark = Mark::from(toast.level);
        return row
            .text(cx.glyphs.mark(mark), cx.style(mark.token()))
            .text(" ", cx.style(Token::Text))
            .text(&toast.text, cx.style(activity::token(toast.level)))
            .line();
    }
    let mut hints: Vec<_> = TABLE
        .iter()
        .filter(|command| command.footer > 0)
        .filter_map(|command| {
            let key = screen.keymap.keys_of(&contexts, command.verb).into_iter().next()?;
            // What cannot be done now comes behind the others, with the reason.
            let possible = verbs::enabled(command.verb, screen, cx.model).is_ok();
            (possible || command.footer >= 50).then_some((command.footer, key, command.title))
        })
        .collect();
    hints.sort_by_key(|(order, ..)| *order);
    let hinted: Vec<&str> = hints.iter().map(|(.., title)| *title).collect();
    let not_now = not_now(cx, &contexts, &hinted);
    // The way out and the way to help must always fit.
    let must = hints
        .iter()
        .filter(|(order, ..)| *order >= 50)
        .map(|(_, key, title)| text::width(key) + title.len() + 3)
        .sum::<usize>();
    let panes = format!("1{}8 pane  ", if cx.glyphs.ascii { "-" } else { "…" });
    let mut row = row;
    for (order, key, title) in hints {
        let needed = text::width(&key) + title.len() + 3;
        if order < 50 && row.left() < needed + must {
            continue;
        }
        if order == 60 && contexts.contains(&Context::Global) && row.left() > needed + panes.len() {
            row = row.text(&panes, cx.style(Token::Muted));
        }
        let detaches = screen.access == Access::Full && cx.model.closed.is_none();
        let title = if order == 60 && !detaches { "quit" } else { title };
        row = row.text(&key, cx.style(Token::Key)).text(&format!(" {title}  "), cx.style(Token::Text));
    }
    for (key, title, why) in not_now {
        let needed = [key.as_str(), title, why.as_str()].into_iter().map(text::width).sum::<usize>() + 6;
        if row.left() < needed {
            break;
        }
        row = row.text(&format!("{key} {title}: {why}  "), cx.style(Token::Muted));
    }
    row.line()
}

/// What this pane could do at another time, and why not now; the pane's own before what is there everywhere.
fn not_now(cx: &Cx, contexts: &[Context], hinted: &[&str]) -> Vec<(String, &'static str, String)> {
    let screen = cx.screen;
    let other = TABLE.iter().filter(|command| command.footer > 0 && !hinted.contains(&command.title));
    let mut out: Vec<_> = other
        .filter_map(|command| {
            let key = screen.keymap.keys_of(contexts, command.verb).into_iter().next()?;
            let why = verbs::enabled(command.verb, screen, cx.model).err()?;
            let near = contexts
                .iter()
                .position(|context| screen.keymap.bindings(*context).iter().any(|(_, verb)| *verb == command.verb));
            Some((near, command.footer, (key, command.title, why)))
        })
        .collect();
    out.sort_by_key(|(near, order, _)| (*near, *order));
    out.into_iter().map(|(.., hint)| hint).collect()
}
