//! A bar of cells.

use ratatui::text::Span;

use crate::ui::panes::Cx;
use crate::ui::theme::Token;

/// `done` of `total` in `width` cells; full only when all is done.
pub fn bar(cx: &Cx, done: u64, total: u64, width: usize, stalled: bool) -> [Span<'static>; 2] {
    let full = if total == 0 { 0 } else { u128::from(done.min(total)) * width as u128 / u128::from(total) };
    let mut full = usize::try_from(full).unwrap_or(width).min(width);
    if done < total {
        full = full.min(width.saturating_sub(1));
    }
    let token = if stalled { Token::Stalled } else { Token::Bar };
    [
        Span::styled(cx.glyphs.bar.repeat(full), cx.style(token)),
        Span::styled(cx.glyphs.rest.repeat(width - full), cx.style(Token::BarRest)),
    ]
}
