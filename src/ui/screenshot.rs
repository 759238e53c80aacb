//! A frame as text, as text with SGR sequences, as what changes one frame into the next, and as a picture.

mod svg;

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use crate::model::run::RunModel;
use crate::spec::secret::redact;

use super::text;
use super::theme::Theme;

pub use svg::svg;

/// One screen in the forms in which it is kept; secrets that are known do not leave with it.
pub struct Shot {
    plain: String,
    ansi: String,
    svg: String,
}

impl Shot {
    pub fn of(cells: &Buffer, model: &RunModel, theme: &Theme) -> Self {
        let title = format!("bartizan: {} at {}", model.cluster.name, model.now.unwrap_or(Timestamp::UNIX_EPOCH));
        let [plain, ansi, svg] =
            [plain(cells), ansi(cells), svg(cells, &title, theme.name == "light")].map(|text| redact(&text));
        Self { plain, ansi, svg }
    }

    /// # Errors
    /// When one of the files cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, &self.plain)?;
        std::fs::write(path.with_extension("ans"), &self.ansi)?;
        std::fs::write(path.with_extension("svg"), &self.svg)
    }
}

/// Rows of text, without blanks at their ends.
pub fn plain(buf: &Buffer) -> String {
    rows(buf, |_, symbol, row| row.push_str(symbol)).iter().map(|row| format!("{}\n", row.trim_end())).collect()
}

/// Rows with colours and attributes as a terminal understands them.
pub fn ansi(buf: &Buffer) -> String {
    let mut last = String::new();
    let rows = rows(buf, |cell, symbol, row| {
        let style = sgr(cell.fg, cell.bg, cell.modifier);
        if style != last {
            row.push_str(&format!("\u{1b}[0{style}m"));
            last = style;
        }
        row.push_str(symbol);
    });
    let mut out = rows.join("\n");
    out.push_str("\u{1b}[0m\n");
    out
}

/// What a terminal that shows `before` has to be sent to show `after`.
pub fn changes(before: &Buffer, after: &Buffer) -> String {
    let mut out = String::new();
    let (mut at, mut last) = (None, None);
    for (x, y, cell) in before.diff(after) {
        if at != Some((x, y)) {
            let _infallible = write!(out, "\u{1b}[{};{}H", y + 1, x + 1);
        }
        let style = sgr(cell.fg, cell.bg, cell.modifier);
        if last.as_ref() != Some(&style) {
            let _infallible = write!(out, "\u{1b}[0{style}m");
            last = Some(style);
        }
        out.push_str(cell.symbol());
        let width = u16::try_from(text::width(cell.symbol()).max(1)).unwrap_or(1);
        at = Some((x + width, y));
    }
    out
}

fn rows(buf: &Buffer, mut put: impl FnMut(&ratatui::buffer::Cell, &str, &mut String)) -> Vec<String> {
    let mut out = Vec::new();
    for y in buf.area.top()..buf.area.bottom() {
        let mut row = String::new();
        let mut x = buf.area.left();
        while let Some(cell) = buf.cell((x, y)) {
            put(cell, cell.symbol(), &mut row);
            x = x.saturating_add(u16::try_from(text::width(cell.symbol()).max(1)).unwrap_or(1));
            if x >= buf.area.right() {
                break;
            }
        }
        out.push(row);
    }
    out
}

fn sgr(fg: Color, bg: Color, modifier: Modifier) -> String {
    let mut out = String::new();
    let attributes = [
        (Modifier::BOLD, ";1"),
        (Modifier::DIM, ";2"),
        (Modifier::ITALIC, ";3"),
        (Modifier::UNDERLINED, ";4"),
        (Modifier::REVERSED, ";7"),
    ];
    for (attribute, code) in attributes {
        if modifier.contains(attribute) {
            out.push_str(code);
        }
    }
    for (color, base) in [(fg, 30), (bg, 40)] {
        let basic = |number: u8, bright: bool| format!(";{}", base + u32::from(number) + if bright { 60 } else { 0 });
        out.push_str(&match color {
            Color::Reset => String::new(),
            Color::Black => basic(0, false),
            Color::Red => basic(1, false),
            Color::Green => basic(2, false),
            Color::Yellow => basic(3, false),
            Color::Blue => basic(4, false),
            Color::Magenta => basic(5, false),
            Color::Cyan => basic(6, false),
            Color::Gray => basic(7, false),
            Color::DarkGray => basic(0, true),
            Color::LightRed => basic(1, true),
            Color::LightGreen => basic(2, true),
            Color::LightYellow => basic(3, true),
            Color::LightBlue => basic(4, true),
            Color::LightMagenta => basic(5, true),
            Color::LightCyan => basic(6, true),
            Color::White => basic(7, true),
            Color::Indexed(index) => format!(";{};5;{index}", base + 8),
            Color::Rgb(red, green, blue) => format!(";{};2;{red};{green};{blue}", base + 8),
        });
    }
    out
}
