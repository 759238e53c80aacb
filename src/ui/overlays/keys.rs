//! What can follow the keys that were typed so far.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::ui::panes::{self, Cx};
use crate::ui::text;
use crate::ui::theme::Token;
use crate::ui::verbs;

pub fn draw(cx: &Cx, area: Rect, buf: &mut Buffer) {
    let screen = cx.screen;
    let contexts = screen.contexts(cx.model);
    let mut following = screen.keymap.following(&contexts, &screen.pending);
    // What can be done now stands first.
    following.sort_by_key(|(_, verb)| verbs::enabled(*verb, screen, cx.model).is_err());
    if following.is_empty() || area.height < 6 || area.width < 30 {
        return;
    }
    let keys = following.iter().map(|(keys, _)| text::width(keys)).max().unwrap_or(1);
    let width = usize::from(area.width.min(78));
    let lines: Vec<Line> = following
        .iter()
        .map(|(typed, verb)| {
            let command = verb.command();
            let row = cx.row(width - 2).cell("", 0, cx.style(Token::Text)).cell(typed, keys, cx.style(Token::Key));
            match verbs::enabled(*verb, screen, cx.model) {
                Ok(()) => row.cell(command.title, 12, cx.style(Token::Text)).text(command.doc, cx.style(Token::Muted)),
                Err(why) => row.cell(command.title, 12, cx.style(Token::Muted)).text(&why, cx.style(Token::Muted)),
            }
            .line()
        })
        .collect();
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let typed: Vec<String> = screen.pending.iter().map(ToString::to_string).collect();
    // In the lower right corner: what is above stays in sight.
    let width = u16::try_from(width).unwrap_or(area.width);
    let rect = Rect { x: area.right() - width, y: area.bottom() - height, width, height };
    super::clear(rect, area, buf);
    let inner = panes::frame(cx, rect, true, &format!("{} {}", typed.join(" "), cx.glyphs.ellipsis), buf);
    super::scrolled(&lines, 0, inner, buf);
}
