//! What stands in front of the panes for a while.

pub mod confirm;
pub mod detail;
pub mod help;
pub mod keys;
pub mod palette;
pub mod timeline;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Clear, Widget};

use super::panes::{self, Cx};
use super::screen::Overlay;

/// Draw the overlay that is open.
pub fn draw(cx: &Cx, area: Rect, buf: &mut Buffer) {
    match &cx.screen.overlay {
        Some(Overlay::Help { scroll, text, typing }) => help::draw(cx, *scroll, text, *typing, area, buf),
        Some(Overlay::Palette { text, selected }) => palette::draw(cx, text, *selected, area, buf),
        Some(Overlay::Confirm(confirm)) => confirm::draw(cx, confirm, area, buf),
        Some(Overlay::Detail { target, scroll, field }) => detail::draw(cx, target, *scroll, *field, area, buf),
        None if !cx.screen.pending.is_empty() => keys::draw(cx, area, buf),
        Some(Overlay::Prompt { .. }) | None => {}
    }
}

/// A box in the middle of `area`, at most this large; what is inside.
fn dialog(cx: &Cx, area: Rect, width: u16, height: u16, title: &str, buf: &mut Buffer) -> Rect {
    let width = width.min(area.width);
    let height = height.min(area.height);
    let rect = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    clear(rect, area, buf);
    panes::frame(cx, rect, true, title, buf)
}

/// Room for a box.
fn clear(rect: Rect, area: Rect, buf: &mut Buffer) {
    // A wide character half under the box would shift the row that it is in.
    let around = Rect { x: rect.x.saturating_sub(1).max(area.x), width: rect.width + rect.x.min(1), ..rect };
    for y in around.top()..around.bottom() {
        if around.x < rect.x && buf.cell((around.x, y)).is_some_and(|cell| super::text::width(cell.symbol()) > 1) {
            buf.set_string(around.x, y, " ", ratatui::style::Style::new());
        }
    }
    Clear.render(rect, buf);
}

/// Lines from `scroll` on, never past the end.
fn scrolled(lines: &[Line], scroll: usize, area: Rect, buf: &mut Buffer) {
    let height = usize::from(area.height);
    let first = scroll.min(lines.len().saturating_sub(height));
    for (line, y) in lines.iter().skip(first).zip(area.top()..area.bottom()) {
        buf.set_line(area.x, y, line, area.width);
    }
}
