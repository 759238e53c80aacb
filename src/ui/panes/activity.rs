//! What happened, one sentence each, and below it what the program itself logs.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Widget;
use tui_logger::{TuiLoggerLevelOutput, TuiLoggerWidget};

use crate::model::event::Level;
use crate::model::run::RunModel;
use crate::ui::layout::PaneId;
use crate::ui::screen::Target;
use crate::ui::text;
use crate::ui::theme::Token;

use super::Cx;

/// Below this height the whole pane is for what happened.
const ROOM_FOR_LOG: u16 = 14;

pub fn targets(model: &RunModel) -> Vec<Target> {
    (0..model.activity.len()).map(Target::Activity).collect()
}

pub fn title(cx: &Cx) -> String {
    let dot = cx.glyphs.dot;
    let last = cx.model.activity.last();
    let age =
        last.map_or(String::new(), |last| format!(" {dot} last {} ago", text::since(text::seconds(last.at, cx.now))));
    let newer = match cx.model.unknown_events {
        0 => String::new(),
        count => format!(" {dot} {count} events of a newer bartizan"),
    };
    format!("Activity {dot} {} events{age}{newer}", cx.model.seq)
}

pub fn token(level: Level) -> Token {
    match level {
        Level::Debug => Token::LogDebug,
        Level::Info => Token::LogInfo,
        Level::Warn => Token::LogWarn,
        Level::Error => Token::LogError,
    }
}

pub fn letter(level: Level) -> &'static str {
    match level {
        Level::Debug => "D",
        Level::Info => "I",
        Level::Warn => "W",
        Level::Error => "E",
    }
}

/// Rows below the list: the log of the program itself.
pub fn below(inner: Rect) -> u16 {
    if inner.height >= ROOM_FOR_LOG && inner.width >= 40 { inner.height / 3 } else { 0 }
}

pub fn draw(cx: &Cx, area: Rect, focused: bool, buf: &mut Buffer) {
    let top = super::rows(PaneId::Activity, cx.model, area);
    let height = below(area);
    if height > 0 {
        let below = Rect { y: area.y + top.height, height, ..area };
        let rule = format!("{0}{0} program log ", cx.glyphs.border.horizontal_top);
        let rule = cx.row(usize::from(area.width)).text(&rule, cx.style(Token::Border)).line();
        buf.set_line(below.x, below.y, &rule, below.width);
        TuiLoggerWidget::default()
            .style(cx.style(Token::Text))
            .style_error(cx.style(Token::LogError))
            .style_warn(cx.style(Token::LogWarn))
            .style_info(cx.style(Token::LogInfo))
            .style_debug(cx.style(Token::LogDebug))
            .style_trace(cx.style(Token::LogDebug))
            .output_level(Some(TuiLoggerLevelOutput::Abbreviated))
            .output_file(false)
            .output_line(false)
            .render(Rect { y: below.y + 1, height: below.height - 1, ..below }, buf);
    }
    super::list(cx, PaneId::Activity, top, focused, buf);
}

pub fn line(cx: &Cx, target: &Target, width: usize) -> Line<'static> {
    let Target::Activity(place) = target else { return Line::default() };
    let Some(activity) = cx.model.activity.get(*place) else { return Line::default() };
    let style = cx.style(token(activity.level));
    cx.row(width)
        .cell(&text::time_of_day(activity.at), 8, cx.style(Token::LogTime))
        .cell(letter(activity.level), 1, style)
        .text(&activity.text, style)
        .line()
}
