//! The slider: where in the run the panes are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::ui::panes::Cx;
use crate::ui::text;
use crate::ui::theme::Token;

pub fn draw(cx: &Cx, area: Rect, buf: &mut Buffer) {
    let place = cx.screen.place;
    let width = usize::from(area.width);
    let state = match (place.playing, place.back) {
        (true, _) => "play",
        (false, true) => "stop",
        (false, false) if cx.screen.access == crate::ui::Access::Replay => "end",
        (false, false) => "now",
    };
    let since = text::long_clock(text::seconds(place.began, place.at));
    let all = text::long_clock(text::seconds(place.began, place.ended));
    let times = cx.glyphs.times;
    let before = format!(" {state} {}{times} ", place.speed);
    let after = format!(
        " {since} / {all}  event {} / {} ",
        text::exact(place.position as u64),
        text::exact(place.total as u64)
    );
    let room = width.saturating_sub(text::width(&before) + text::width(&after));
    let mut row = cx.row(width).text(&before, cx.style(Token::Title));
    if room >= 8 {
        let at = |share: usize| share.min(1000) * (room - 1) / 1000;
        let knob = at(place.position * 1000 / place.total.max(1));
        let failures: Vec<usize> = place.failures.iter().flatten().map(|share| at(usize::from(*share))).collect();
        for cell in 0..room {
            let (glyph, token) = if cell == knob {
                (if cx.glyphs.ascii { "|" } else { "●" }, Token::BorderFocus)
            } else if failures.contains(&cell) {
                (if cx.glyphs.ascii { "X" } else { "✖" }, Token::Fail)
            } else if cell < knob {
                (if cx.glyphs.ascii { "=" } else { "━" }, Token::Bar)
            } else {
                (if cx.glyphs.ascii { "-" } else { "─" }, Token::BarRest)
            };
            row = row.text(glyph, cx.style(token));
        }
    }
    buf.set_line(area.x, area.y, &row.text(&after, cx.style(Token::Text)).line(), area.width);
}
