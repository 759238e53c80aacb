//! The question before something changes. No is where Enter falls.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::ui::panes::Cx;
use crate::ui::screen::Confirm;
use crate::ui::text;
use crate::ui::theme::Token;

pub fn draw(cx: &Cx, confirm: &Confirm, area: Rect, buf: &mut Buffer) {
    let width = area.width.min(78);
    let room = usize::from(width).saturating_sub(4);
    let plain = cx.style(Token::Text);
    let mut lines: Vec<Line> = Vec::new();
    for paragraph in &confirm.body {
        lines.extend(text::wrap(paragraph, room, 4).into_iter().map(|row| Line::styled(row, plain)));
    }
    lines.push(Line::default());
    if let Some(name) = &confirm.name {
        lines.push(
            cx.row(room)
                .text(&format!("This destroys. Type {name} and press Enter; Esc goes back."), cx.style(Token::Danger))
                .line(),
        );
        let typed = cx.row(room).text("> ", cx.style(Token::Key)).text(&confirm.typed, plain);
        lines.push(typed.text("_", cx.style(Token::Key)).line());
    } else {
        let button = |chosen: bool| cx.style(if chosen { Token::Selection } else { Token::Key });
        let row = cx
            .row(room)
            .text(if confirm.yes { "[ n No ]" } else { "[>n No ]" }, button(!confirm.yes))
            .text("   ", plain)
            .text(if confirm.yes { "[>y Yes ]" } else { "[ y Yes ]" }, button(confirm.yes));
        lines.push(row.line());
    }
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let inner = super::dialog(cx, area, width, height, &confirm.title, buf);
    let inner = Rect { x: inner.x + u16::from(inner.width > 1), width: inner.width.saturating_sub(2), ..inner };
    // In a small terminal the answer matters more than the explanation.
    super::scrolled(&lines, usize::MAX / 2, inner, buf);
}
