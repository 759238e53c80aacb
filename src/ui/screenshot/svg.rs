//! A frame as a picture: SVG that holds all it needs, with the text as text.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use crate::model::text::xml;

use super::super::text;

/// Cell of the picture in its own units.
const WIDTH: u16 = 9;
const HEIGHT: u16 = 20;
/// From the top of a cell to the foot of its letters.
const BASE: u16 = 15;
/// Around the cells.
const MARGIN: u16 = 10;

/// Paper and ink of a terminal, dark or light.
#[derive(Debug, Clone, Copy)]
struct Ground {
    paper: &'static str,
    ink: &'static str,
}

const DARK: Ground = Ground { paper: "#101216", ink: "#d0d0d0" };
const LIGHT: Ground = Ground { paper: "#ffffff", ink: "#1f2328" };

/// Cells of one style that stand together.
struct Span {
    x: u16,
    cells: u16,
    text: String,
    fg: String,
    bg: Option<String>,
    modifier: Modifier,
}

/// The frame as one SVG document. `title` is what a screen reader says of it.
pub fn svg(buf: &Buffer, title: &str, light: bool) -> String {
    let ground = if light { LIGHT } else { DARK };
    let (columns, rows) = (buf.area.width, buf.area.height);
    let (width, height) = (columns * WIDTH + 2 * MARGIN, rows * HEIGHT + 2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" font-family=\"'DejaVu Sans Mono',Menlo,Consolas,monospace\" font-size=\"15\">\n<title>{}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{}\"/>\n",
        xml(title),
        ground.paper
    );
    for row in 0..rows {
        let y = MARGIN + row * HEIGHT;
        for span in spans(buf, row, ground) {
            draw(&mut out, &span, y);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, span: &Span, y: u16) {
    let (x, width) = (MARGIN + span.x * WIDTH, span.cells * WIDTH);
    if let Some(bg) = &span.bg {
        let _infallible =
            writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"{bg}\"/>");
    }
    if span.text.trim().is_empty() {
        return;
    }
    let mut style = String::new();
    for (attribute, code) in [
        (Modifier::BOLD, " font-weight=\"bold\""),
        (Modifier::DIM, " opacity=\"0.7\""),
        (Modifier::ITALIC, " font-style=\"italic\""),
        (Modifier::UNDERLINED, " text-decoration=\"underline\""),
    ] {
        if span.modifier.contains(attribute) {
            style.push_str(code);
        }
    }
    let _infallible = writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\" \
         fill=\"{}\"{style}>{}</text>",
        y + BASE,
        span.fg,
        xml(&span.text)
    );
}

fn spans(buf: &Buffer, row: u16, ground: Ground) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut x = 0;
    while let Some(cell) = buf.cell((buf.area.left() + x, buf.area.top() + row)) {
        let cells = u16::try_from(text::width(cell.symbol()).max(1)).unwrap_or(1);
        let (fg, bg) = colours(cell, ground);
        let modifier = cell.modifier;
        match spans.last_mut().filter(|last| last.fg == fg && last.bg == bg && last.modifier == modifier) {
            // What is wider than a cell, or narrower in most fonts, is put where it belongs by itself.
            Some(last) if cells == 1 && last.cells == u16::try_from(last.text.chars().count()).unwrap_or(0) => {
                last.text.push_str(cell.symbol());
                last.cells += 1;
            }
            _ => spans.push(Span { x, cells, text: cell.symbol().to_owned(), fg, bg, modifier }),
        }
        x += cells;
        if x >= buf.area.width {
            break;
        }
    }
    spans
}

fn colours(cell: &Cell, ground: Ground) -> (String, Option<String>) {
    let fg = hex(cell.fg);
    let bg = hex(cell.bg);
    if cell.modifier.contains(Modifier::REVERSED) {
        let front = bg.unwrap_or_else(|| ground.paper.to_owned());
        return (front, Some(fg.unwrap_or_else(|| ground.ink.to_owned())));
    }
    (fg.unwrap_or_else(|| ground.ink.to_owned()), bg)
}

/// The colours that xterm gives to the sixteen names.
const NAMED: [&str; 16] = [
    "#000000", "#cd3131", "#0dbc79", "#e5e510", "#2472c8", "#bc3fbc", "#11a8cd", "#c5c5c5", "#767676", "#f14c4c",
    "#23d18b", "#f5f543", "#3b8eea", "#d670d6", "#29b8db", "#ffffff",
];

/// `#rrggbb`; none is the terminal's own colour.
fn hex(color: Color) -> Option<String> {
    let named = |index: usize| NAMED.get(index).map(|hex| (*hex).to_owned());
    match color {
        Color::Reset => None,
        Color::Black => named(0),
        Color::Red => named(1),
        Color::Green => named(2),
        Color::Yellow => named(3),
        Color::Blue => named(4),
        Color::Magenta => named(5),
        Color::Cyan => named(6),
        Color::Gray => named(7),
        Color::DarkGray => named(8),
        Color::LightRed => named(9),
        Color::LightGreen => named(10),
        Color::LightYellow => named(11),
        Color::LightBlue => named(12),
        Color::LightMagenta => named(13),
        Color::LightCyan => named(14),
        Color::White => named(15),
        Color::Rgb(red, green, blue) => Some(format!("#{red:02x}{green:02x}{blue:02x}")),
        Color::Indexed(index @ 0..=15) => named(usize::from(index)),
        Color::Indexed(index @ 232..) => {
            let grey = 8 + 10 * (index - 232);
            Some(format!("#{grey:02x}{grey:02x}{grey:02x}"))
        }
        Color::Indexed(index) => {
            let step = |value: u8| if value == 0 { 0 } else { 55 + 40 * value };
            let place = index - 16;
            Some(format!("#{:02x}{:02x}{:02x}", step(place / 36), step(place / 6 % 6), step(place % 6)))
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn text_is_escaped_and_styles_are_drawn() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 12, 1));
        buf.set_string(0, 0, "a<b>&\"c", Style::new().fg(Color::Indexed(208)).add_modifier(Modifier::BOLD));
        buf.set_string(8, 0, "日本", Style::new().add_modifier(Modifier::REVERSED));
        let picture = svg(&buf, "x & y", false);
        assert!(picture.contains("<title>x &amp; y</title>"), "{picture}");
        assert!(picture.contains("fill=\"#ff8700\" font-weight=\"bold\">a&lt;b&gt;&amp;&quot;c</text>"), "{picture}");
        assert!(picture.contains("x=\"82\" y=\"10\" width=\"18\""), "{picture}");
        assert!(svg(&buf, "", true).contains("fill=\"#ffffff\""));
    }
}
